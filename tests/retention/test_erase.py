"""`history forget`: what it erases, what stays, and every interleaving with runs and prunes."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prometheus_backup.events import ignore
from prometheus_backup.model import instant_from_ms, ms_from_instant, rfc3339
from prometheus_backup.repository.archive import ArchivedFolder
from prometheus_backup.repository.layout import FORGOTTEN, UNWANTED
from prometheus_backup.repository.repository import Repository
from prometheus_backup.retention.archive import history_manifest
from prometheus_backup.retention.contents import (
    ALL_TIMES,
    StoredBlock,
    describe_others,
    stored_blocks,
)
from prometheus_backup.retention.erase import EraseReport, apply_erase, plan_erase
from prometheus_backup.retention.history import HeldBlock, history
from prometheus_backup.retention.policy import Policy
from prometheus_backup.spans import Span
from prometheus_backup.stores.base import ObjectStore
from prometheus_backup.stores.local import LocalStore
from tests.support import manifests
from tests.support.archives import archive_run, prune
from tests.support.interleavings import (
    Actor,
    Outcomes,
    Scenario,
    Scheduler,
    SteppedStore,
    all_interleavings,
)
from tests.support.memory_store import MemoryStore
from tests.support.repositories import NOON, ManualClock, require_whole, visible
from tests.support.stored_backups import LocalFiles, json_of, run_here

DAY, HOUR = timedelta(days=1), timedelta(hours=1)
OLD, NEW = manifests.ULID, manifests.OTHER_ULID
FILES = {
    OLD: {"index": b"of the old block", "meta.json": b"{}"},
    NEW: {"index": b"of the new block", "meta.json": b"{1}"},
}
TIMES = {OLD: (NOON - 4 * HOUR, NOON - 2 * HOUR), NEW: (NOON - 2 * HOUR, NOON)}
KEEPS_HISTORY = Policy(daily=1, monthly=0, yearly=0, history=400 * DAY)


def run(store: ObjectStore, clock: ManualClock, *ulids: str, name: str = "run") -> str:
    """Make a backup of some blocks; return its id."""
    repository = Repository(store, clock=clock)
    entries = [e for e in repository.entries() if e.folders]
    return archive_run(
        store,
        clock,
        run_id=f"{name} of {clock.instant}",
        contents={ulid: FILES[ulid] for ulid in ulids},
        previous=repository.manifest(entries[-1].backup_id) if entries else None,
        times=TIMES,
    )


def with_history(store: ObjectStore, clock: ManualClock) -> None:
    """Make a history of OLD, which only a deleted backup named, and a backup of NEW."""
    run(store, clock, OLD, NEW)
    clock.instant += DAY
    run(store, clock, NEW)
    assert prune(store, clock, policy=KEEPS_HISTORY).deleted


def forget(
    store: ObjectStore,
    clock: ManualClock,
    *,
    start: timedelta = 4 * HOUR,
    end: timedelta = 2 * HOUR,
    at_once: bool = True,
    whole_blocks: bool = False,
) -> EraseReport:
    """Do what `history forget --apply` does, for the time between two ages at the first noon."""
    repository = Repository(store, clock=clock)
    view = repository.archive.view()
    entries = repository.entries(view)
    others = describe_others(repository, entries, view.folders)
    plan = plan_erase(
        entries,
        stored_blocks(entries, view.folders, others),
        Span(NOON - start, NOON - end),
        whole_blocks=whole_blocks,
    )
    return apply_erase(repository, plan, run_id="eraser", at_once=at_once, listener=ignore)


def in_history(store: ObjectStore, clock: ManualClock) -> set[str]:
    manifest = history_manifest(Repository(store, clock=clock), since_ms=ALL_TIMES)
    return {b.ulid for b in manifest.blocks}


def folders_of(contents: Sequence[str] | dict[str, bytes], ulid: str) -> set[str]:
    return {"/".join(k.split("/")[:3]) for k in contents if k.startswith(f"archive/{ulid}/")}


def test_a_forgotten_block_leaves_the_history_and_no_prune_brings_it_back() -> None:
    clock = ManualClock()
    store = MemoryStore(clock=clock)
    with_history(store, clock)
    assert in_history(store, clock) == {OLD, NEW}

    done = forget(store, clock, at_once=False)

    assert [b.ulid for b in done.plan.erase] == [OLD]
    assert (done.deleted, done.outcome.exit_code) == ((), 0)
    for _ in range(4):
        assert in_history(store, clock) == {NEW}
        clock.instant += DAY
        run(store, clock, NEW)
        assert prune(store, clock, policy=KEEPS_HISTORY).problems == ()
    assert not folders_of([o.key for o in store.list()], OLD)


def test_a_block_that_a_backup_has_goes_with_the_last_backup_that_has_it() -> None:
    clock = ManualClock()
    store = MemoryStore(clock=clock)
    first = run(store, clock, OLD, NEW)

    done = forget(store, clock)

    assert (done.plan.backups, done.deleted) == ((first,), ())
    assert done.outcome.exit_code == 3
    require_whole({o.key: store.get(o.key, limit=1 << 20) for o in store.list()})
    clock.instant += DAY
    run(store, clock, NEW)
    assert prune(store, clock, policy=KEEPS_HISTORY).deleted == (first,)
    assert in_history(store, clock) == {NEW}
    assert forget(store, clock).deleted


def test_what_the_source_still_has_is_kept_again_by_the_next_backup() -> None:
    clock = ManualClock()
    store = MemoryStore(clock=clock)
    run(store, clock, OLD, NEW)
    forget(store, clock)
    clock.instant += DAY
    again = run(store, clock, OLD, NEW)
    assert f"archive/{OLD}/{again}" in Repository(store, clock=clock).manifest(again).folders
    assert in_history(store, clock) == {OLD, NEW}


def test_a_block_that_reaches_beyond_the_range_stays_unless_whole_blocks_go() -> None:
    clock = ManualClock()
    store = MemoryStore(clock=clock)
    with_history(store, clock)

    left = forget(store, clock, start=4 * HOUR, end=3 * HOUR)
    assert ([b.ulid for b in left.plan.beyond], left.plan.erase) == ([OLD], ())
    assert left.outcome.exit_code == 3
    assert in_history(store, clock) == {OLD, NEW}

    gone = forget(store, clock, start=4 * HOUR, end=3 * HOUR, whole_blocks=True)
    assert gone.plan.also_lost == (Span(NOON - 3 * HOUR, NOON - 2 * HOUR),)
    assert in_history(store, clock) == {NEW}


def test_the_blocks_that_a_forgotten_one_replaced_do_not_return() -> None:
    """The parents of a compacted block may still wait for their deletion."""
    clock = ManualClock()
    store = MemoryStore(clock=clock)
    run(store, clock, OLD)
    clock.instant += DAY
    both = {**TIMES, NEW: (NOON - 4 * HOUR, NOON)}
    archive_run(store, clock, run_id="compacted", contents={NEW: FILES[NEW]}, times=both)
    prune(store, clock)
    done = forget(store, clock, start=4 * HOUR, end=0 * HOUR)
    assert {b.ulid for b in done.plan.erase} == {OLD, NEW}
    assert not folders_of([o.key for o in store.list()], OLD)


@pytest.mark.parametrize("steps", range(7))
def test_after_a_crash_a_prune_completes_what_was_begun(steps: int) -> None:
    clock = ManualClock()
    store = MemoryStore(clock=clock)
    with_history(store, clock)

    class Crashing(MemoryStore):
        left = steps

        def put_small(self, key: str, body: bytes, *, options: Any) -> None:
            self._count()
            store.put_small(key, body, options=options)

        def delete(self, keys: Sequence[str]) -> None:
            for key in keys:
                self._count()
                store.delete([key])

        def _count(self) -> None:
            if self.left == 0:
                raise ConnectionError
            self.left -= 1

        list = store.list
        list_files = store.list_files
        list_folders = store.list_folders
        get = store.get
        head = store.head

    with pytest.raises(ConnectionError):
        forget(Crashing(clock=clock), clock)
    contents = {o.key: b"" for o in store.list()}
    begun = any(key.endswith((FORGOTTEN, UNWANTED)) for key in contents)
    assert in_history(store, clock) == ({NEW} if begun else {OLD, NEW})
    for _ in range(3):
        clock.instant += DAY + timedelta(minutes=1)
        run(store, clock, NEW)
        assert prune(store, clock, policy=KEEPS_HISTORY).problems == ()
    assert in_history(store, clock) == ({NEW} if begun else {OLD, NEW})
    assert bool(folders_of([o.key for o in store.list()], OLD)) is not begun


Actors = Callable[[Scheduler, SteppedStore, ManualClock], dict[str, Actor]]


def interleave(prepare: Callable[[ObjectStore, ManualClock], None], make: Actors) -> list[Any]:
    """Run the actors in every order; return each end: the store and the outcomes."""
    ends: list[Any] = []

    def scenario(turns: Scheduler) -> Scenario:
        clock = ManualClock()
        store = SteppedStore(turns, clock=clock)
        prepare(store, clock)
        clock.instant += DAY
        return Scenario(store, make(turns, store, clock))

    def check(scenario: Scenario, outcomes: Outcomes) -> None:
        contents = scenario.store.contents()
        require_whole(contents)
        for outcome in outcomes.values():
            assert not isinstance(outcome, Exception), outcome
        ends.append((scenario.store, outcomes))

    all_interleavings(scenario, at_the_end=check)
    return ends


def late_run(store: SteppedStore, clock: ManualClock) -> Actor:
    """A run on a source that still has OLD; the backup that it compares with has been deleted."""
    previous = history_manifest(Repository(store, clock=clock), since_ms=ALL_TIMES)
    return partial(
        archive_run,
        store,
        clock,
        run_id="late",
        contents={OLD: FILES[OLD]},
        previous=previous.model_copy(update={"backup_id": "backup-20200101-000000"}),
        times=TIMES,
    )


def test_a_run_that_finds_a_block_while_it_is_forgotten_loses_nothing() -> None:
    ends = interleave(
        with_history,
        lambda _, store, clock: {
            "run": late_run(store, clock),
            "forget": partial(forget, store, clock),
        },
    )
    own = set()
    for store, outcomes in ends:
        contents = store.contents()
        assert outcomes["run"] in visible(contents)
        own.add(f"archive/{OLD}/{outcomes['run']}" in folders_of(contents, OLD))
    assert own == {True, False}, "the run must come first in some orders, and last in others"


def test_two_users_who_forget_the_same_block_take_nothing_from_a_run() -> None:
    """The run must not write into a folder that one of them has deleted and the other deletes."""

    def actors(turns: Scheduler, store: SteppedStore, clock: ManualClock) -> dict[str, Actor]:
        whole_run = late_run(store, clock)

        def as_one_step(action: Actor) -> Actor:
            def act() -> object:
                turns.step()
                with ThreadPoolExecutor(1) as pool:
                    found = pool.submit(action).result()
                turns.record(repr(found))
                return found

            return act

        return {
            "run": as_one_step(whole_run),
            "forget": partial(forget, store, clock),
            "other": as_one_step(partial(forget, store, clock)),
        }

    for store, outcomes in interleave(with_history, actors):
        assert outcomes["run"] in visible(store.contents())


def test_a_prune_that_deletes_the_last_backup_of_a_block_brings_nothing_back() -> None:
    def two_backups(store: ObjectStore, clock: ManualClock) -> None:
        run(store, clock, OLD, NEW)
        clock.instant += DAY
        run(store, clock, NEW)

    def actors(_: Scheduler, store: SteppedStore, clock: ManualClock) -> dict[str, Actor]:
        return {
            "forget": partial(forget, store, clock),
            "prune": partial(prune, store, clock, policy=KEEPS_HISTORY),
        }

    deleted = set()
    for store, outcomes in interleave(two_backups, actors):
        clock = ManualClock()
        clock.instant += 2 * DAY
        assert in_history(store, clock) == {NEW}
        deleted.add(bool(outcomes["forget"].deleted))
    assert deleted == {True, False}


BLOCK = {"ulid", "folder", "min_time", "max_time", "bytes", "backups", "last_backup"}
RANGE = ("--from", rfc3339(NOON - 4 * HOUR), "--to", rfc3339(NOON - 2 * HOUR))


def test_the_command_shows_then_erases_and_says_what_stays(tmp_path: Path) -> None:
    store, clock = LocalStore(tmp_path / "repository"), ManualClock()
    with_history(store, clock)
    clock.instant += DAY
    second = run(store, clock, NEW)
    files = LocalFiles(tmp_path / "repository")
    env = files.environment()

    def document(*arguments: str, code: int = 0) -> Any:
        return json_of(run_here("history", *arguments, "--json", env=env), code=code)

    shown = document()
    assert {*shown} == {"repository", "blocks", "bytes", "holes", "marked"}
    assert [b["ulid"] for b in shown["blocks"]] == [OLD, NEW]
    assert all({*b} == BLOCK for b in shown["blocks"])
    assert [len(b["backups"]) for b in shown["blocks"]] == [0, 2]

    before = files.all_keys()
    planned = document("forget", *RANGE)
    assert [b["ulid"] for b in planned["forget"]] == [OLD]
    assert (planned["applied"], files.all_keys()) == (False, before)

    done = document("forget", *RANGE, "--apply", "--at-once")
    assert {*done} == {*planned, "outcome", "deleted"}
    assert done["deleted"] == [shown["blocks"][0]["folder"]]
    assert not folders_of(files.all_keys(), OLD)
    assert [b["ulid"] for b in document()["blocks"]] == [NEW]
    target = str(tmp_path / "target")
    planned = json_of(run_here("restore", "--history", target, "--dry-run", "--json", env=env))
    assert [b["ulid"] for b in planned["place"]] == [NEW]
    timeline = json_of(run_here("timeline", "--json", env=env))
    assert timeline["continuous"]["from"] == rfc3339(NOON - 2 * HOUR)

    assert run_here("hold", second, "--reason", "audit", env=env).returncode == 0
    ever = ("--from", "2000-01-01", "--to", "2100-01-01")
    kept = run_here("history", "forget", *ever, "--apply", "--at-once", env=env)
    assert kept.returncode == 3, kept.stderr
    assert "2 backups still have samples of this time" in kept.stdout
    assert f"run `prometheus-backup release` first: {second}" in kept.stdout
    restored = run_here("restore", second, target, "--dry-run", env=env)
    assert restored.returncode == 0, "a kept backup stays whole"


def test_nothing_is_forgotten_while_a_manifest_cannot_be_read(tmp_path: Path) -> None:
    store, clock = LocalStore(tmp_path / "repository"), ManualClock()
    with_history(store, clock)
    files = LocalFiles(tmp_path / "repository")
    files.put("backup-20250302-120000/metadata.json", b"{")
    before = files.all_keys()
    done = run_here("history", "forget", *RANGE, "--apply", env=files.environment())
    assert done.returncode == 3, done.stderr
    assert "prune --forget backup-20250302-120000" in done.stdout
    assert files.all_keys() == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("forget", "--from", "2025-01-01"), "--from or --to is missing"),
        (("forget", "--from", "2025-01-02", "--to", "2025-01-01"), "--to is not after --from"),
        (("forget", *RANGE, "--at-once"), "cannot use --at-once without --apply"),
        (("--whole-blocks",), "cannot use --whole-blocks without forget"),
    ],
)
def test_a_command_line_without_a_meaning_is_refused(
    tmp_path: Path, arguments: tuple[str, ...], message: str
) -> None:
    (tmp_path / "repository").mkdir()
    env = LocalFiles(tmp_path / "repository").environment()
    done = run_here("history", *arguments, env=env)
    assert done.returncode == 2
    assert message in done.stderr


_HELD = st.lists(
    st.tuples(st.integers(0, 9), st.integers(1, 5), st.integers(0, 3), st.booleans()), max_size=8
)


@given(_HELD, st.integers(0, 10), st.integers(1, 6), st.booleans())
def test_after_a_plan_the_history_has_only_what_was_left(
    drawn: list[tuple[int, int, int, bool]], start: int, length: int, whole_blocks: bool
) -> None:
    held = [
        HeldBlock(f"archive/{n}/x", begin * 1000, (begin + size) * 1000, f"backup-{by}", partial)
        for n, (begin, size, by, partial) in enumerate(drawn)
    ]
    wanted = history(held, since_ms=ALL_TIMES)
    blocks = [StoredBlock(ArchivedFolder(b.folder, {}), b, (), b.folder in wanted) for b in held]
    window = Span(instant_from_ms(start * 1000), instant_from_ms((start + length) * 1000))

    plan = plan_erase([], blocks, window, whole_blocks=whole_blocks)

    gone = {b.folder.name for b in plan.erase}
    left = {b.folder.name for b in plan.beyond}
    after = history([b for b in held if b.folder not in gone], since_ms=ALL_TIMES)
    begin_ms, end_ms = ms_from_instant(window.start), ms_from_instant(window.end)
    overlap = {b.folder for b in held if b.begin_ms < end_ms and b.end_ms > begin_ms}
    assert gone | left == overlap
    assert after & overlap <= left
    assert left <= wanted
    if whole_blocks:
        assert not left
    else:
        lost = wanted - after
        assert all(
            begin_ms <= b.begin_ms and b.end_ms <= end_ms for b in held if b.folder in lost & gone
        )
        assert not plan.also_lost
