"""Runs several actors on one store in every order that their store operations can take.

Each actor runs in a thread of its own and stops before each operation; one at a time is let on.
Orders that lead to a situation seen before (same objects, same answers given to each actor) are
not followed twice, so that all interleavings of some ten operations each take a second.
"""

import threading
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar

from prometheus_backup.errors import BackupToolError
from prometheus_backup.model import ObjectInfo, PutOptions
from tests.support.memory_store import MemoryStore

_T = TypeVar("_T")

Actor = Callable[[], object]
Outcomes = Mapping[str, object]
"""What each actor returned, or the BackupToolError that it raised, by its name."""


class _Dropped(BaseException):
    """Ends an actor whose order need not be followed further."""


@dataclass
class _Running:
    name: str
    action: Actor
    go: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))
    waits_for: "_Lock | None" = None
    done: bool = False
    outcome: object = None
    failure: BaseException | None = None
    seen: list[Hashable] = field(default_factory=list)


class Turns:
    """Lets one actor at a time do its next store operation."""

    def __init__(self) -> None:
        self._here = threading.local()
        self._parked = threading.Semaphore(0)
        self._dropped = False
        self._actors: list[_Running] = []

    def step(self) -> None:
        """Wait for the turn. Outside an actor nothing is waited for."""
        me: _Running | None = getattr(self._here, "actor", None)
        if me is None:
            return
        self._parked.release()
        me.go.acquire()
        if self._dropped:
            raise _Dropped

    def answered(self, operation: Hashable) -> None:
        """Note what the actor has learnt: it decides what the actor does from now on."""
        me: _Running | None = getattr(self._here, "actor", None)
        if me is not None:
            me.seen.append(operation)

    def lock(self) -> "_Lock":
        """A lock that an actor may hold over operations."""
        return _Lock(self)

    def start(self, actors: Mapping[str, Actor]) -> None:
        """Run every actor up to its first operation."""
        self._actors = [_Running(name, action) for name, action in actors.items()]
        for actor in self._actors:
            threading.Thread(target=self._run, args=(actor,), daemon=True).start()
            self._parked.acquire()

    def ready(self) -> list[int]:
        """The actors that can go on."""
        return [
            number
            for number, actor in enumerate(self._actors)
            if not actor.done and (actor.waits_for is None or not actor.waits_for.held)
        ]

    def advance(self, number: int) -> None:
        """Let one actor do its next operation, and come to the one after it."""
        self._actors[number].go.release()
        self._parked.acquire()

    def drop(self) -> None:
        """End all actors where they are."""
        self._dropped = True
        for actor in self._actors:
            while not actor.done:
                self.advance(self._actors.index(actor))

    def outcomes(self) -> Outcomes:
        """How every actor ended; raises what no actor may raise."""
        for actor in self._actors:
            assert actor.done, f"{actor.name} can never go on"
            if actor.failure is not None:
                raise actor.failure
        return {actor.name: actor.outcome for actor in self._actors}

    def knowledge(self) -> Hashable:
        """What every actor has learnt, and whether it has ended."""
        return tuple((a.done, a.waits_for is None, tuple(a.seen)) for a in self._actors)

    @property
    def current(self) -> _Running | None:
        """The actor whose thread this is."""
        found: _Running | None = getattr(self._here, "actor", None)
        return found

    def _run(self, actor: _Running) -> None:
        self._here.actor = actor
        try:
            actor.outcome = actor.action()
        except BackupToolError as error:
            actor.outcome = error
        except _Dropped:
            pass
        except BaseException as error:  # noqa: BLE001 -- raised again by outcomes()
            actor.failure = error
        actor.done = True
        self._parked.release()


class _Lock:
    def __init__(self, turns: Turns) -> None:
        self._turns = turns
        self.held = False

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        del blocking, timeout
        me = self._turns.current
        if me is not None:  # who comes first is a matter of turns, too
            me.waits_for = self
            self._turns.step()
            me.waits_for = None
        self.held = True
        return True

    def release(self) -> None:
        self.held = False

    def __enter__(self) -> None:
        self.acquire()

    def __exit__(self, *_: object) -> None:
        self.release()


class SteppedStore(MemoryStore):
    """A memory store whose every operation waits for its turn.

    `conditional` False accepts a create-only put of a key that exists, as some stores do.
    """

    def __init__(self, turns: Turns, *, clock: Any, conditional: bool = True) -> None:
        super().__init__(clock=clock)
        self._turns = turns
        self._conditional = conditional

    def put_small(self, key: str, body: bytes, *, options: PutOptions) -> None:
        self._turn(
            ("put", key), lambda: super(SteppedStore, self).put_small(key, body, options=options)
        )

    def create(self, key: str, body: bytes, *, options: PutOptions) -> None:
        if not self._conditional:
            self.put_small(key, body, options=options)
            return
        self._turn(
            ("create", key), lambda: super(SteppedStore, self).create(key, body, options=options)
        )

    def get(self, key: str, *, limit: int) -> bytes:
        return self._turn(("get", key), lambda: super(SteppedStore, self).get(key, limit=limit))

    def stream(self, key: str) -> Iterator[bytes]:
        return iter(self._turn(("stream", key), lambda: [self._stored(key).body]))

    def head(self, key: str) -> ObjectInfo:
        return self._turn(("head", key), lambda: super(SteppedStore, self).head(key))

    def list(self, folder: str = "") -> Iterator[ObjectInfo]:
        return iter(self._turn(("list", folder), lambda: self._listed(folder)))

    def list_files(self, folder: str) -> Sequence[ObjectInfo]:
        def direct() -> Sequence[ObjectInfo]:
            return [o for o in self._listed(folder) if "/" not in o.key[len(folder) + 1 :]]

        return self._turn(("files", folder), direct)

    def copy(self, source: str, target: str, *, size: int, options: PutOptions) -> None:
        del size

        def copied() -> None:
            MemoryStore.put_small(self, target, self._stored(source).body, options=options)

        self._turn(("copy", source, target), copied)

    def delete(self, keys: Sequence[str]) -> None:
        """Delete one key at a turn: a store deletes a batch in any number of steps."""
        for key in keys:
            self._turn(("delete", key), partial(MemoryStore.delete, self, [key]))

    def contents(self) -> dict[str, bytes]:
        """All objects, without a turn."""
        return {key: stored.body for key, stored in self._objects.items()}

    def _listed(self, folder: str) -> Sequence[ObjectInfo]:
        return [*MemoryStore.list(self, folder)]

    def _turn(self, operation: tuple[str, ...], action: Callable[[], _T]) -> _T:
        self._turns.step()
        try:
            result = action()
        except BackupToolError as error:
            self._turns.answered((operation, type(error).__name__))
            raise
        self._turns.answered((operation, repr(result)))
        return result


@dataclass(frozen=True)
class Scenario:
    """A store with what is in it, and the actors that will work on it."""

    store: SteppedStore
    actors: Mapping[str, Actor]


def all_interleavings(
    make: Callable[[Turns], Scenario],
    *,
    at_every_step: Callable[[Scenario], None] | None = None,
    at_the_end: Callable[[Scenario, Outcomes], None],
) -> int:
    """Run `make`'s actors in every order; return how many orders were run to their end.

    A check that fails names the order of actors that led to it.
    """
    seen: set[Hashable] = set()
    to_follow: list[tuple[int, ...]] = [()]
    ended = 0
    while to_follow:
        turns = Turns()
        scenario = make(turns)
        turns.start(scenario.actors)
        order: list[int] = []
        for wanted in _choices(turns, to_follow.pop(), seen, scenario, order, to_follow):
            turns.advance(wanted)
            order.append(wanted)
            if at_every_step:
                with _explained(scenario, order):
                    at_every_step(scenario)
        if turns.ready():
            turns.drop()
            continue
        with _explained(scenario, order):
            at_the_end(scenario, turns.outcomes())
        ended += 1
    return ended


def _choices(
    turns: Turns,
    prefix: Sequence[int],
    seen: set[Hashable],
    scenario: Scenario,
    order: Sequence[int],
    to_follow: list[tuple[int, ...]],
) -> Iterable[int]:
    """Yield whose turn it is: first as the prefix says, then the first that can go on."""
    yield from prefix
    while ready := turns.ready():
        situation = (tuple(sorted(scenario.store.contents().items())), turns.knowledge())
        if situation in seen:
            return
        seen.add(situation)
        to_follow.extend((*order, other) for other in ready[1:])
        yield ready[0]


@contextmanager
def _explained(scenario: Scenario, order: Sequence[int]) -> Iterator[None]:
    names = [*scenario.actors]
    try:
        yield
    except AssertionError as error:
        error.add_note(f"in the order {' '.join(names[n] for n in order)}")
        error.add_note("the store holds " + ", ".join(sorted(scenario.store.contents())))
        raise
