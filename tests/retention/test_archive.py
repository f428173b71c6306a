"""What the archive's folders are wanted for, and every interleaving of runs and prunes on them.

The runs and prunes are the real code over a store in memory; each request is a step, and a run may
be suspended for days at any of them.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from functools import partial

import pytest

from prometheus_backup.errors import RepositoryLocked
from prometheus_backup.events import ignore
from prometheus_backup.model import CONTROL, Outcome
from prometheus_backup.repository.archive import UnwantedMark
from prometheus_backup.repository.layout import BLOCK as BLOCK_JSON
from prometheus_backup.repository.layout import UNWANTED
from prometheus_backup.repository.manifest import Manifest
from prometheus_backup.repository.repository import Repository
from prometheus_backup.retention import archive as retention_archive
from prometheus_backup.retention.archive import ArchivePlan, ArchivePruner, plan_archive
from tests.support import manifests
from tests.support.archives import BLOCK, BLOCKS, archive_run, prune
from tests.support.interleavings import (
    Actor,
    Outcomes,
    Scenario,
    Scheduler,
    SteppedStore,
    all_interleavings,
)
from tests.support.memory_store import MemoryStore
from tests.support.repositories import ManualClock, require_whole, visible

DAY = timedelta(days=1)
OTHER = {ulid: files for ulid, files in BLOCKS.items() if ulid == manifests.OTHER_ULID}


def contents_of(store: MemoryStore) -> dict[str, bytes]:
    return {o.key: store.get(o.key, limit=1 << 30) for o in store.list()}


def folders(store: MemoryStore) -> set[str]:
    return set(Repository(store, clock=ManualClock()).archive.folders())


def backup(store: MemoryStore, clock: ManualClock, contents: object = BLOCK) -> Manifest:
    """Make a backup a day after the last one."""
    clock.instant += DAY
    entries = Repository(store, clock=clock).entries()
    repository = Repository(store, clock=clock)
    previous = repository.manifest(entries[-1].backup_id) if entries else None
    made = archive_run(
        store,
        clock,
        run_id=f"run of {clock.instant}",
        contents=contents,  # type: ignore[arg-type]
        previous=previous,
    )
    return repository.manifest(made)


def test_a_folder_that_nobody_names_is_marked_and_deleted_after_the_grace_period() -> None:
    clock = ManualClock()
    store = MemoryStore(clock=clock)
    backup(store, clock, BLOCKS)
    kept = backup(store, clock, BLOCK)
    assert len(folders(store)) == 2

    clock.instant += DAY
    first = prune(store, clock)
    assert [d.keep for d in first.plan.decisions] == [False, True]
    (marked,) = first.plan.archive.mark
    assert marked.name.startswith(f"archive/{manifests.OTHER_ULID}/")
    assert f"{marked.name}/{UNWANTED}" in contents_of(store)
    assert prune(store, clock).archived == ()

    clock.instant += DAY + timedelta(minutes=1)
    assert [f.name for f in prune(store, clock).archived] == [marked.name]
    assert folders(store) == kept.folders
    require_whole(contents_of(store))


def test_a_mark_is_never_removed_and_no_new_backup_names_the_folder() -> None:
    clock = ManualClock()
    store = MemoryStore(clock=clock)
    backup(store, clock, BLOCKS)
    backup(store, clock, BLOCK)
    clock.instant += DAY
    prune(store, clock)
    again = backup(store, clock, BLOCKS)
    marked = {f for f in folders(store) if f"{f}/{UNWANTED}" in contents_of(store)}
    assert len(marked) == 1
    assert not marked & again.folders
    require_whole(contents_of(store))


@pytest.mark.parametrize("lost", ["manifest", "claim", "folder"])
def test_what_cannot_be_read_stops_every_deletion_in_the_archive(lost: str) -> None:
    clock = ManualClock()
    store = MemoryStore(clock=clock)
    backup(store, clock, BLOCKS)
    kept = backup(store, clock, BLOCK)
    clock.instant += DAY
    prune(store, clock)
    clock.instant += DAY + timedelta(minutes=1)
    before = contents_of(store)
    damage: dict[str, Callable[[], None]] = {
        "manifest": lambda: store.put_small(
            f"{kept.backup_id}/metadata.json", b"{", options=CONTROL
        ),
        "claim": lambda: store.put_small(
            "archive/claims/backup-20250404-000000.json", b"{", options=CONTROL
        ),
        "folder": lambda: store.delete([f"{next(iter(kept.folders))}/{BLOCK_JSON}"]),
    }
    damage[lost]()
    report = prune(store, clock)
    assert report.outcome is Outcome.PARTIAL
    assert "nothing was deleted" in report.problems[-1]
    assert folders(store) == {k.rpartition("/")[0] for k in before if k.endswith(BLOCK_JSON)}


def test_the_history_remembers_a_marked_folder_too() -> None:
    """One that a run named while it was marked stays marked, and may be the history later."""
    clock = ManualClock()
    store = MemoryStore(clock=clock)
    made = backup(store, clock)
    repository = Repository(store, clock=clock)
    (name,) = made.folders
    repository.archive.mark(name, UnwantedMark(run_id="pruner", marked_at=clock.now()))
    plan = plan_archive(
        repository.entries(),
        repository.archive.folders(),
        deleted=frozenset({made.backup_id}),
        store_now=clock.now() + 2 * DAY,
        history_for=400 * DAY,
    )
    assert plan.remember == {name: made.backup_id}
    assert plan.delete == ()


def leftovers(store: MemoryStore, clock: ManualClock) -> None:
    """A backup that retention keeps, and a folder of one that it has deleted."""
    backup(store, clock, BLOCKS)
    backup(store, clock, BLOCK)
    clock.instant += DAY


def make_scenario(
    turns: Scheduler, make: Callable[[SteppedStore, ManualClock], dict[str, Actor]]
) -> Scenario:
    clock = ManualClock()
    store = SteppedStore(turns, clock=clock)
    return Scenario(store, make(store, clock))


def check_nothing_lost(scenario: Scenario, outcomes: Outcomes) -> None:
    del outcomes
    require_whole(scenario.store.contents())


def runs_and_marks(store: SteppedStore, clock: ManualClock) -> dict[str, Actor]:
    """A run that names a folder while a prune finds that nobody wants it."""
    backup(store, clock, BLOCKS)
    newest = backup(store, clock, BLOCK)
    clock.instant += DAY
    repository = Repository(store, clock=clock)
    oldest = repository.entries()[0].backup_id
    previous = repository.manifest(oldest)
    repository.delete_backup(oldest, run_id="earlier")
    del newest

    def run() -> str:
        return archive_run(store, clock, run_id="late", contents=OTHER, previous=previous)

    return {"run": run, "prune": lambda: prune(store, clock)}


def prunes(turns: Scheduler, store: SteppedStore, clock: ManualClock, later: timedelta) -> Actor:
    """Three prunes, some time apart; each is one step, because it runs in a thread of its own."""

    def act() -> None:
        for _ in range(3):
            turns.step()
            clock.instant += later
            with ThreadPoolExecutor(1) as pool:
                pool.submit(prune, store, clock).result()
            turns.record(("pruned", clock.instant))

    return act


def test_a_run_that_names_a_folder_while_it_is_marked_loses_nothing() -> None:
    clocks: list[ManualClock] = []

    def make(turns: Scheduler) -> Scenario:
        def actors(store: SteppedStore, clock: ManualClock) -> dict[str, Actor]:
            clocks.append(clock)
            return runs_and_marks(store, clock)

        return make_scenario(turns, actors)

    marked = set()

    def check(scenario: Scenario, outcomes: Outcomes) -> None:
        assert isinstance(outcomes["run"], str), outcomes["run"]
        require_whole(scenario.store.contents())
        clock = clocks[-1]
        clock.instant += DAY + timedelta(minutes=1)
        prune(scenario.store, clock, run_id="next night")
        clock.instant += DAY + timedelta(minutes=1)
        prune(scenario.store, clock, run_id="the night after")
        contents = scenario.store.contents()
        require_whole(contents)
        assert outcomes["run"] in visible(contents)
        marked.add(any(key.endswith(UNWANTED) for key in contents))

    all_interleavings(make, at_the_end=check)
    assert marked == {True, False}, "the mark must come before the look in some orders"


def test_a_run_that_is_suspended_for_days_commits_whole_or_not_at_all() -> None:
    def make(turns: Scheduler) -> Scenario:
        def actors(store: SteppedStore, clock: ManualClock) -> dict[str, Actor]:
            found = runs_and_marks(store, clock)

            later = DAY + timedelta(minutes=1)
            return {"run": found["run"], "prunes": prunes(turns, store, clock, later)}

        return make_scenario(turns, actors)

    seen = set()

    def check(scenario: Scenario, outcomes: Outcomes) -> None:
        contents = scenario.store.contents()
        require_whole(contents)
        done = isinstance(outcomes["run"], str)
        seen.add(done)
        if not done:
            assert isinstance(outcomes["run"], RepositoryLocked), outcomes["run"]

    all_interleavings(make, at_the_end=check)
    assert seen == {True, False}


def test_prunes_without_a_grace_period_take_nothing_from_a_run(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The order of claim, look, mark and listing is enough, as long as the run is alive."""
    monkeypatch.setattr(retention_archive, "GRACE", timedelta(0))

    def make(turns: Scheduler) -> Scenario:
        def actors(store: SteppedStore, clock: ManualClock) -> dict[str, Actor]:
            found = runs_and_marks(store, clock)
            return {
                "run": found["run"],
                "prunes": prunes(turns, store, clock, timedelta(minutes=2)),
            }

        return make_scenario(turns, actors)

    def check(scenario: Scenario, outcomes: Outcomes) -> None:
        assert isinstance(outcomes["run"], str), outcomes["run"]
        require_whole(scenario.store.contents())

    all_interleavings(make, at_the_end=check)


def test_a_run_does_not_name_a_folder_that_is_being_deleted() -> None:
    def make(turns: Scheduler) -> Scenario:
        def actors(store: SteppedStore, clock: ManualClock) -> dict[str, Actor]:
            found = runs_and_marks(store, clock)
            marked = prune(store, clock).plan.archive.mark
            clock.instant += DAY + timedelta(minutes=1)
            pruner = ArchivePruner(Repository(store, clock=clock), "pruner", ignore)
            found["prune"] = partial(pruner.delete, ArchivePlan(delete=marked))
            return found

        return make_scenario(turns, actors)

    def check(scenario: Scenario, outcomes: Outcomes) -> None:
        assert isinstance(outcomes["run"], str), outcomes["run"]
        require_whole(scenario.store.contents())

    all_interleavings(make, at_the_end=check)


def test_a_deletion_reads_the_manifests_again() -> None:
    clock = ManualClock()
    store = MemoryStore(clock=clock)
    kept = backup(store, clock)
    repository = Repository(store, clock=clock)
    plan = ArchivePlan(delete=tuple(repository.archive.folders().values()))
    pruner = ArchivePruner(repository, "pruner", ignore)
    assert pruner.delete(plan) == (None, [])
    require_whole(contents_of(store))
    repository.delete_backup(kept.backup_id, run_id="pruner")
    assert len(pruner.delete(plan)[1]) == 1
    assert folders(store) == set()


def test_two_runs_that_keep_the_same_block_do_not_meet() -> None:
    def make(turns: Scheduler) -> Scenario:
        def actors(store: SteppedStore, clock: ManualClock) -> dict[str, Actor]:
            return {
                name: partial(archive_run, store, clock, run_id=name) for name in ("one", "two")
            }

        return make_scenario(turns, actors)

    def check(scenario: Scenario, outcomes: Outcomes) -> None:
        contents = scenario.store.contents()
        require_whole(contents)
        assert {m.run_id: i for i, m in visible(contents).items()} == outcomes
        assert not [key for key in contents if key.startswith("archive/claims/")]

    all_interleavings(make, at_the_end=check)


def test_two_prunes_at_once_lose_nothing() -> None:
    def make(turns: Scheduler) -> Scenario:
        def actors(store: SteppedStore, clock: ManualClock) -> dict[str, Actor]:
            leftovers(store, clock)
            prune(store, clock)
            clock.instant += DAY + timedelta(minutes=1)
            return {name: partial(prune, store, clock, run_id=name) for name in ("one", "two")}

        return make_scenario(turns, actors)

    all_interleavings(make, at_the_end=check_nothing_lost)
