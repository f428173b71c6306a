"""Runs several actors on one store, in every possible order of their store operations.

Each actor runs in its own thread and stops before each operation; one actor at a time continues.
An order that leads to a known state (same objects, same results for each actor) is not followed
further, so that all interleavings of about ten operations per actor take a second.
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
"""The return value of each actor, or the BackupToolError that it raised, by name."""


class _Dropped(BaseException):
    """Ends an actor if its order is not followed further."""


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


class Scheduler:
    """Lets one actor at a time do its next store operation."""

    def __init__(self) -> None:
        self._here = threading.local()
        self._parked = threading.Semaphore(0)
        self._dropped = False
        self._actors: list[_Running] = []

    def step(self) -> None:
        """Wait for the turn of the current actor; outside an actor, do nothing."""
        me: _Running | None = getattr(self._here, "actor", None)
        if me is None:
            return
        self._parked.release()
        me.go.acquire()
        if self._dropped:
            raise _Dropped

    def record(self, operation: Hashable) -> None:
        """Record the result of an operation, which determines what the actor does next."""
        me: _Running | None = getattr(self._here, "actor", None)
        if me is not None:
            me.seen.append(operation)

    def lock(self) -> "_Lock":
        """Return a lock that an actor may hold during operations."""
        return _Lock(self)

    def start(self, actors: Mapping[str, Actor]) -> None:
        """Run every actor up to its first operation."""
        self._actors = [_Running(name, action) for name, action in actors.items()]
        for actor in self._actors:
            threading.Thread(target=self._run, args=(actor,), daemon=True).start()
            self._parked.acquire()

    def ready(self) -> list[int]:
        """Return the actors that can continue."""
        return [
            number
            for number, actor in enumerate(self._actors)
            if not actor.done and (actor.waits_for is None or not actor.waits_for.held)
        ]

    def advance(self, number: int) -> None:
        """Let one actor do its next operation, up to the one after it."""
        self._actors[number].go.release()
        self._parked.acquire()

    def drop(self) -> None:
        """End all actors at their current operation."""
        self._dropped = True
        for actor in self._actors:
            while not actor.done:
                self.advance(self._actors.index(actor))

    def outcomes(self) -> Outcomes:
        """Return how every actor ended; re-raise unexpected exceptions."""
        for actor in self._actors:
            assert actor.done, f"{actor.name} is blocked forever"
            if actor.failure is not None:
                raise actor.failure
        return {actor.name: actor.outcome for actor in self._actors}

    def knowledge(self) -> Hashable:
        """Return the results that every actor has seen, and whether it has ended."""
        return tuple((a.done, a.waits_for is None, tuple(a.seen)) for a in self._actors)

    @property
    def current(self) -> _Running | None:
        """The actor of the current thread."""
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
    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler
        self.held = False

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        del blocking, timeout
        me = self._scheduler.current
        if me is not None:  # the order of acquiring also depends on turns
            me.waits_for = self
            self._scheduler.step()
            me.waits_for = None
        self.held = True
        return True

    def release(self) -> None:
        self.held = False

    def __enter__(self) -> None:
        self.acquire()

    def __exit__(self, *_: object) -> None:
        self.release()


class InlinePool:
    """A thread pool that does its work in the caller's thread, so that each request is a step."""

    def __init__(self, *_: object, **__: object) -> None:
        pass

    def map(self, action: Callable[[Any], _T], items: Iterable[Any]) -> Sequence[_T]:
        return [action(item) for item in items]

    def shutdown(self, **_: object) -> None:
        pass


class SteppedStore(MemoryStore):
    """A memory store whose every operation waits for its turn.

    With `conditional` False, a create-only put overwrites an existing key, as in some stores.
    """

    def __init__(self, scheduler: Scheduler, *, clock: Any, conditional: bool = True) -> None:
        super().__init__(clock=clock)
        self.turns = scheduler
        self._conditional = conditional

    def put_small(self, key: str, body: bytes, *, options: PutOptions) -> None:
        self._take_turn(
            ("put", key), lambda: super(SteppedStore, self).put_small(key, body, options=options)
        )

    def create(self, key: str, body: bytes, *, options: PutOptions) -> None:
        if not self._conditional:
            self.put_small(key, body, options=options)
            return
        self._take_turn(
            ("create", key), lambda: super(SteppedStore, self).create(key, body, options=options)
        )

    def get(self, key: str, *, limit: int) -> bytes:
        return self._take_turn(
            ("get", key), lambda: super(SteppedStore, self).get(key, limit=limit)
        )

    def stream(self, key: str) -> Iterator[bytes]:
        return iter(self._take_turn(("stream", key), lambda: [self._stored(key).body]))

    def head(self, key: str) -> ObjectInfo:
        return self._take_turn(("head", key), lambda: super(SteppedStore, self).head(key))

    def list(self, folder: str = "") -> Iterator[ObjectInfo]:
        return iter(self._take_turn(("list", folder), lambda: self._listed(folder)))

    def list_files(self, folder: str) -> Sequence[ObjectInfo]:
        def direct() -> Sequence[ObjectInfo]:
            return [o for o in self._listed(folder) if "/" not in o.key[len(folder) + 1 :]]

        return self._take_turn(("files", folder), direct)

    def list_folders(self) -> Sequence[str]:
        return self._take_turn(("folders",), lambda: super(SteppedStore, self).list_folders())

    def copy(self, source: str, target: str, *, size: int, options: PutOptions) -> None:
        del size

        def copied() -> None:
            MemoryStore.put_small(self, target, self._stored(source).body, options=options)

        self._take_turn(("copy", source, target), copied)

    def delete(self, keys: Sequence[str]) -> None:
        """Delete one key per turn: a store may delete a batch in any number of steps."""
        for key in keys:
            self._take_turn(("delete", key), partial(MemoryStore.delete, self, [key]))

    def contents(self) -> dict[str, bytes]:
        """Return all objects, without waiting for a turn."""
        return {key: stored.body for key, stored in self._objects.items()}

    def _listed(self, folder: str) -> Sequence[ObjectInfo]:
        return [*MemoryStore.list(self, folder)]

    def _take_turn(self, operation: tuple[str, ...], action: Callable[[], _T]) -> _T:
        self.turns.step()
        try:
            result = action()
        except BackupToolError as error:
            self.turns.record((operation, type(error).__name__))
            raise
        self.turns.record((operation, repr(result)))
        return result


@dataclass(frozen=True)
class Scenario:
    """A store with its contents, and the actors that use it."""

    store: SteppedStore
    actors: Mapping[str, Actor]
    clock: Any = None


def all_interleavings(
    make: Callable[[Scheduler], Scenario],
    *,
    switches: int | None = None,
    at_every_step: Callable[[Scenario], None] | None = None,
    at_the_end: Callable[[Scenario, Outcomes], None],
) -> int:
    """Run the actors of `make` in every order; return the number of complete orders.

    With `switches`, only orders in which the turn passes from an actor that could continue at most
    so often: their number grows with that power of the number of steps. A failed check names the
    order of actors that led to it.
    """
    seen: set[Hashable] = set()
    to_follow: list[tuple[int, ...]] = [()]
    ended = 0
    while to_follow:
        scheduler = Scheduler()
        scenario = make(scheduler)
        scheduler.start(scenario.actors)
        order: list[int] = []
        for wanted in _choices(
            scheduler, to_follow.pop(), seen, scenario, order, to_follow, switches
        ):
            scheduler.advance(wanted)
            order.append(wanted)
            if at_every_step:
                with _explained(scenario, order):
                    at_every_step(scenario)
        if scheduler.ready():
            scheduler.drop()
            continue
        with _explained(scenario, order):
            at_the_end(scenario, scheduler.outcomes())
        ended += 1
    return ended


def _choices(
    scheduler: Scheduler,
    prefix: Sequence[int],
    seen: set[Hashable],
    scenario: Scenario,
    order: Sequence[int],
    to_follow: list[tuple[int, ...]],
    switches: int | None,
) -> Iterable[int]:
    """Yield whose turn it is: first as in `prefix`, then the same actor while it can continue."""
    passed, last = 0, None
    for wanted in prefix:
        passed += last is not None and wanted != last and last in scheduler.ready()
        last = wanted
        yield wanted
    while ready := scheduler.ready():
        state = (tuple(sorted(scenario.store.contents().items())), scheduler.knowledge())
        bounded = (state, last, passed) if switches is not None else state
        if bounded in seen:
            return
        seen.add(bounded)
        first = last if last in ready else ready[0]
        if switches is None or passed < switches or last not in ready:
            to_follow.extend((*order, other) for other in ready if other != first)
        last = first
        yield first


@contextmanager
def _explained(scenario: Scenario, order: Sequence[int]) -> Iterator[None]:
    names = [*scenario.actors]
    try:
        yield
    except AssertionError as error:
        error.add_note(f"in the order {' '.join(names[n] for n in order)}")
        error.add_note("the store holds " + ", ".join(sorted(scenario.store.contents())))
        raise
