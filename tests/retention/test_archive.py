"""What the archive's folders are wanted for, and every interleaving of runs and prunes on them.

The runs and prunes are the real code over a store in memory; each request is a step, and a run may
be suspended for days at any of them.
"""

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from functools import partial
from typing import Any

import pytest

from prometheus_backup.backup.archive import ArchivedBlocks
from prometheus_backup.errors import RepositoryLocked
from prometheus_backup.events import ignore
from prometheus_backup.model import CONTROL, Layout, Outcome
from prometheus_backup.repository import repository as repository_module
from prometheus_backup.repository.archive import UnwantedMark
from prometheus_backup.repository.claim import Claim, claim_backup
from prometheus_backup.repository.layout import BLOCK as BLOCK_JSON
from prometheus_backup.repository.layout import UNWANTED
from prometheus_backup.repository.manifest import Incomplete, Manifest, decode
from prometheus_backup.repository.repository import Repository
from prometheus_backup.retention import archive as retention_archive
from prometheus_backup.retention.archive import ArchivePlan, ArchivePruner, plan_archive
from tests.support import manifests
from tests.support.archives import BLOCK, BLOCKS, Contents, archive_run, look, prune, send
from tests.support.interleavings import (
    Actor,
    InlinePool,
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


@pytest.fixture(autouse=True)
def _each_request_is_a_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(repository_module, "ThreadPoolExecutor", InlinePool)


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


@pytest.mark.parametrize("lost", ["manifest", "whole-manifest", "claim", "folder"])
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
        "whole-manifest": lambda: store.delete([f"{kept.backup_id}/metadata.json"]),
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


Prepare = Callable[[MemoryStore, ManualClock], object]
"""Fills a store; returns what the actors must know."""


def scenarios(
    prepare: Prepare, actors: Callable[[SteppedStore, ManualClock, Any], dict[str, Actor]]
) -> Callable[[Scheduler], Scenario]:
    """Return what makes a scenario: each begins with the same objects, which are made once."""
    clock = ManualClock()
    prepared = MemoryStore(clock=clock)
    known = prepare(prepared, clock)

    def make(turns: Scheduler) -> Scenario:
        present = ManualClock(clock.instant)
        store = SteppedStore(turns, clock=present)
        store.copy_all(prepared)
        return Scenario(store, actors(store, present, known), present)

    return make


def check_nothing_lost(scenario: Scenario, outcomes: Outcomes) -> None:
    """No outcome but that of a run that gave up may be an error."""
    require_whole(scenario.store.contents())
    failed = [o for o in outcomes.values() if isinstance(o, Exception)]
    assert all(isinstance(one, RepositoryLocked) for one in failed), failed


def next_nights(scenario: Scenario) -> dict[str, bytes]:
    """Prune on the next two nights; return what is left."""
    for night in ("next night", "the night after"):
        scenario.clock.instant += DAY + timedelta(minutes=1)
        prune(scenario.store, scenario.clock, run_id=night)
    contents = scenario.store.contents()
    require_whole(contents)
    return contents


def nothing(store: MemoryStore, clock: ManualClock) -> None:
    """An empty repository."""
    del store, clock


def an_expired_backup(store: MemoryStore, clock: ManualClock) -> None:
    """A backup that retention keeps, and an older one with a folder of its own."""
    backup(store, clock, BLOCKS)
    backup(store, clock, BLOCK)
    clock.instant += DAY


def a_folder_that_nobody_wants(store: MemoryStore, clock: ManualClock) -> Manifest:
    """The same, with the older backup deleted; return its manifest."""
    an_expired_backup(store, clock)
    repository = Repository(store, clock=clock)
    oldest = repository.entries()[0].backup_id
    previous = repository.manifest(oldest)
    repository.delete_backup(oldest, run_id="earlier")
    return previous


def a_folder_that_is_due(store: MemoryStore, clock: ManualClock) -> Manifest:
    """The same, with the folder marked for a day."""
    previous = a_folder_that_nobody_wants(store, clock)
    prune(store, clock)
    clock.instant += DAY + timedelta(minutes=1)
    return previous


def run_that_names_it(store: SteppedStore, clock: ManualClock, previous: Manifest) -> Actor:
    """A run whose source still has the block."""
    return partial(archive_run, store, clock, run_id="late", contents=OTHER, previous=previous)


def prunes(store: SteppedStore, clock: ManualClock, later: timedelta) -> Actor:
    """Three prunes, some time apart; each is one step, because it runs in a thread of its own."""

    def act() -> None:
        for _ in range(3):
            store.turns.step()
            clock.instant += later
            with ThreadPoolExecutor(1) as pool:
                pool.submit(prune, store, clock).result()
            store.turns.record(("pruned", clock.instant))

    return act


def test_a_run_that_names_a_folder_while_it_is_marked_loses_nothing() -> None:
    marked = set()

    def check(scenario: Scenario, outcomes: Outcomes) -> None:
        assert isinstance(outcomes["run"], str), outcomes["run"]
        contents = next_nights(scenario)
        assert outcomes["run"] in visible(contents)
        marked.add(any(key.endswith(UNWANTED) for key in contents))

    make = scenarios(
        a_folder_that_nobody_wants,
        lambda store, clock, previous: {
            "run": run_that_names_it(store, clock, previous),
            "prune": partial(prune, store, clock),
        },
    )
    all_interleavings(make, at_the_end=check)
    assert marked == {True, False}, "the mark must come before the look in some orders"


def test_a_run_that_is_suspended_for_days_commits_whole_or_not_at_all() -> None:
    seen = set()

    def check(scenario: Scenario, outcomes: Outcomes) -> None:
        check_nothing_lost(scenario, outcomes)
        seen.add(isinstance(outcomes["run"], str))

    for_days(DAY + timedelta(minutes=1), check, run_that_names_it)
    assert seen == {True, False}


def test_a_run_whose_clock_slept_with_its_machine_commits_whole_or_not_at_all() -> None:
    """It may wake up in a heartbeat, and write its claim again although it was swept."""
    seen = set()

    def sleeper(store: SteppedStore, clock: ManualClock, previous: Manifest) -> Actor:
        def run() -> str:
            repository = Repository(store, clock=ManualClock(clock.instant))
            claim = claim_backup(repository, run_id="late", intent="", layout=Layout.ARCHIVE)
            found = look(repository, claim, OTHER, previous=previous)
            claim.say(b.folder for b in found.blocks.values() if b.folder)  # as a heartbeat does
            send(repository, claim, OTHER, found)
            return claim.backup_id

        return run

    def check(scenario: Scenario, outcomes: Outcomes) -> None:
        check_nothing_lost(scenario, outcomes)
        seen.add(isinstance(outcomes["run"], str))

    for_days(DAY + timedelta(minutes=1), check, sleeper)
    assert seen == {True, False}


def test_prunes_without_a_grace_period_take_nothing_from_a_run(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The order of claim, look, mark and listing is enough, as long as the run is alive."""
    monkeypatch.setattr(retention_archive, "GRACE", timedelta(0))

    def check(scenario: Scenario, outcomes: Outcomes) -> None:
        assert isinstance(outcomes["run"], str), outcomes["run"]
        require_whole(scenario.store.contents())

    for_days(timedelta(minutes=2), check, run_that_names_it)


def for_days(
    later: timedelta,
    check: Callable[[Scenario, Outcomes], None],
    run: Callable[[SteppedStore, ManualClock, Manifest], Actor],
) -> None:
    """Interleave a run with prunes that are this far apart."""

    make = scenarios(
        a_folder_that_nobody_wants,
        lambda store, clock, previous: {
            "run": run(store, clock, previous),
            "prunes": prunes(store, clock, later),
        },
    )
    all_interleavings(make, at_the_end=check)


def test_a_run_does_not_name_a_folder_that_is_being_deleted() -> None:
    def check(scenario: Scenario, outcomes: Outcomes) -> None:
        assert isinstance(outcomes["run"], str), outcomes["run"]
        require_whole(scenario.store.contents())

    make = scenarios(
        a_folder_that_is_due,
        lambda store, clock, previous: {
            "run": run_that_names_it(store, clock, previous),
            "prune": deletion(store, clock),
        },
    )
    all_interleavings(make, at_the_end=check)


def deletion(store: SteppedStore, clock: ManualClock) -> Actor:
    """The end of a prune: look once more, and delete what is marked."""
    repository = Repository(store, clock=clock)
    due = tuple(f for f in repository.archive.folders().values() if f.marked_at)
    return partial(ArchivePruner(repository, "pruner", ignore).delete, ArchivePlan(delete=due))


def test_a_run_that_named_a_folder_just_before_its_mark_may_commit_a_day_later() -> None:
    """It commits while a prune looks for the last time: that sees its claim or its manifest."""

    def prepare(store: MemoryStore, clock: ManualClock) -> tuple[ArchivedBlocks, Incomplete, Claim]:
        previous = a_folder_that_nobody_wants(store, clock)
        repository = Repository(store, clock=clock)
        claim = claim_backup(repository, run_id="late", intent="", layout=Layout.ARCHIVE)
        found = look(repository, claim, OTHER, previous=previous)
        (named,) = (b.folder for b in found.blocks.values())
        mark = UnwantedMark(run_id="pruner", marked_at=clock.now())
        repository.archive.mark(str(named), mark)
        clock.instant += DAY + timedelta(minutes=1)
        body = store.get(claim.key, limit=1 << 20)
        store.put_small(claim.key, body, options=CONTROL)  # a heartbeat
        document = decode(Incomplete, body)
        assert document is not None
        return found, document, claim

    def actors(
        store: SteppedStore, clock: ManualClock, known: tuple[ArchivedBlocks, Incomplete, Claim]
    ) -> dict[str, Actor]:
        found, document, claimed = known
        repository = Repository(store, clock=clock)
        claim = Claim(
            repository,
            identifier=claimed.backup_id,
            document=document,
            layout=Layout.ARCHIVE,
        )
        return {
            "run": partial(send, repository, claim, OTHER, found),
            "prune": deletion(store, clock),
        }

    def check(scenario: Scenario, outcomes: Outcomes) -> None:
        assert outcomes["run"] is None, outcomes["run"]
        assert "late" in {m.run_id for m in visible(next_nights(scenario)).values()}

    all_interleavings(scenarios(prepare, actors), at_the_end=check)


def test_a_prune_marks_nothing_that_a_run_is_writing() -> None:
    def check(scenario: Scenario, outcomes: Outcomes) -> None:
        check_nothing_lost(scenario, outcomes)
        assert not [key for key in scenario.store.contents() if key.endswith(UNWANTED)]

    make = scenarios(
        nothing,
        lambda store, clock, _: {
            "run": partial(archive_run, store, clock, run_id="run"),
            "prune": partial(prune, store, clock),
        },
    )
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


SAME = {"one": BLOCK, "two": BLOCK}
OTHER_BYTES = {**SAME, "two": {manifests.ULID: {"index": b"other bytes", "meta.json": b"{}"}}}


@pytest.mark.parametrize("blocks", [SAME, OTHER_BYTES], ids=["same", "other-bytes"])
def test_two_runs_that_keep_a_block_of_one_name_do_not_meet(
    blocks: Mapping[str, Contents],
) -> None:
    def check(scenario: Scenario, outcomes: Outcomes) -> None:
        contents = scenario.store.contents()
        require_whole(contents)
        assert {m.run_id: i for i, m in visible(contents).items()} == outcomes
        assert not [key for key in contents if key.startswith("archive/claims/")]

    make = scenarios(
        nothing,
        lambda store, clock, _: {
            name: partial(archive_run, store, clock, run_id=name, contents=one)
            for name, one in blocks.items()
        },
    )
    all_interleavings(make, switches=2 if blocks is SAME else None, at_the_end=check)


@pytest.mark.parametrize("prepare", [an_expired_backup, a_folder_that_is_due])
def test_two_prunes_at_once_lose_nothing_and_leave_nothing(prepare: Prepare) -> None:
    def check(scenario: Scenario, outcomes: Outcomes) -> None:
        check_nothing_lost(scenario, outcomes)
        left = next_nights(scenario)
        assert set(left) == set(next_nights(scenario))
        (kept,) = visible(left).values()
        assert folders(scenario.store) == kept.folders

    make = scenarios(
        prepare,
        lambda store, clock, _: {
            name: partial(prune, store, clock, run_id=name) for name in ("one", "two")
        },
    )
    all_interleavings(make, switches=2, at_the_end=check)
