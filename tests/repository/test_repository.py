"""Backups in a repository, and concurrent deletions in every interleaving."""

from datetime import UTC, datetime, timedelta
from functools import partial

import pytest

from prometheus_backup.errors import (
    BackupNotFound,
    ObjectNotFound,
    RepositoryUnavailable,
    UnreadableManifest,
)
from prometheus_backup.events import ignore
from prometheus_backup.model import Level, PutOptions, Verdict
from prometheus_backup.repository.claim import claim_backup
from prometheus_backup.repository.entry import GRACE, BackupEntry, State, newest_good
from prometheus_backup.repository.layout import INCOMPLETE, MANIFEST, SUMS, catalog_key
from prometheus_backup.repository.manifest import Incomplete, encode
from prometheus_backup.repository.repository import Repository
from prometheus_backup.repository.verification import TimeRange, Verification
from prometheus_backup.retention.policy import Policy
from prometheus_backup.retention.prune import PrunePlan, PruneReport, apply_prune, plan_prune
from tests.support import manifests
from tests.support.contents import in_catalog
from tests.support.interleavings import (
    Outcomes,
    Scenario,
    Scheduler,
    SteppedStore,
    all_interleavings,
)
from tests.support.memory_store import MemoryStore
from tests.support.repositories import (
    FILES,
    NOON,
    ManualClock,
    make_backup,
    manifest_of,
    put_files,
    require_no_extra_objects,
    require_whole,
    verification_of,
    visible,
)

OLD = NOON - timedelta(days=40)
NONE = PutOptions()


def mark(store: MemoryStore, backup_id: str, state: str, *, run_id: str = "other") -> None:
    document = Incomplete.model_validate({"run_id": run_id, "state": state, "started_at": NOON})
    store.put_small(f"{backup_id}/{INCOMPLETE}", encode(document), options=NONE)


def prune_plan(repository: Repository, ids: list[str], clock: ManualClock) -> PrunePlan:
    """A prune plan for 10 days, made as on the command line but without threads."""
    entries = [e for i in ids if (e := repository.entry(i)) is not None]
    policy = Policy(daily=10, monthly=0, yearly=0)
    return plan_prune(entries, policy=policy, now=clock.now(), store_now=clock.now())


def test_two_concurrent_prunes_delete_expired_backups_and_no_kept_one() -> None:
    def make(turns: Scheduler) -> Scenario:
        clock = ManualClock()
        store = SteppedStore(turns, clock=clock)
        repository = Repository(store, clock=clock)
        ids = [make_backup(store, clock, at=at) for at in (OLD, NOON - timedelta(hours=1))]
        plan = prune_plan(repository, ids, clock)
        assert plan.delete == (ids[0],)
        actors = {
            name: partial(apply_prune, repository, plan, run_id=name, listener=ignore)
            for name in ("one", "two")
        }
        return Scenario(store, actors)

    def check(scenario: Scenario, outcomes: Outcomes) -> None:
        contents = scenario.store.contents()
        assert all(isinstance(o, PruneReport) and not o.problems for o in outcomes.values())
        assert [*visible(contents)] == ["backup-20250301-110000"]
        left = [key for key in contents if not in_catalog(key)]
        assert {key.partition("/")[0] for key in left} == {"backup-20250301-110000"}
        assert [*filter(in_catalog, contents)] == [catalog_key("backup-20250301-110000")]

    all_interleavings(
        make,
        at_every_step=lambda scenario: require_whole(scenario.store.contents()),
        at_the_end=check,
    )


def test_backup_that_copies_from_one_being_pruned_uploads_missing_files() -> None:
    def make(turns: Scheduler) -> Scenario:
        clock = ManualClock()
        store = SteppedStore(turns, clock=clock)
        repository = Repository(store, clock=clock)
        old = make_backup(store, clock, at=OLD)

        def back_up() -> str:
            claim = claim_backup(repository, run_id="ours", intent="a test")
            for path, body in FILES.items():
                key = f"{manifests.ULID}/{path}"
                try:
                    store.copy(
                        f"{old}/{key}", f"{claim.backup_id}/{key}", size=len(body), options=NONE
                    )
                except ObjectNotFound:
                    put_files(claim, store, {path: body})
            claim.commit(manifest_of(claim), options=NONE)
            return claim.backup_id

        actors = {"backup": back_up, "prune": lambda: repository.delete_backup(old, run_id="p")}
        return Scenario(store, actors)

    def check(scenario: Scenario, outcomes: Outcomes) -> None:
        contents = scenario.store.contents()
        assert [*visible(contents)] == [outcomes["backup"]]
        require_no_extra_objects(contents)
        assert {key.partition("/")[0] for key in contents} == {outcomes["backup"]}

    all_interleavings(
        make,
        at_every_step=lambda scenario: require_whole(scenario.store.contents()),
        at_the_end=check,
    )


def test_verification_of_a_backup_being_deleted_leaves_no_result() -> None:
    def make(turns: Scheduler) -> Scenario:
        clock = ManualClock()
        store = SteppedStore(turns, clock=clock)
        repository = Repository(store, clock=clock)
        old = make_backup(store, clock, at=OLD)
        actors = {
            "verify": lambda: repository.results.record(verification_of(old)),
            "prune": lambda: repository.delete_backup(old, run_id="p"),
        }
        return Scenario(store, actors)

    def check(scenario: Scenario, outcomes: Outcomes) -> None:
        assert not [o for o in outcomes.values() if isinstance(o, Exception)]
        assert scenario.store.contents() == {}

    all_interleavings(make, at_the_end=check)


def test_sweep_of_an_id_that_a_new_run_wants_leaves_the_new_run_alone() -> None:
    """The clock of the dead run's host was ahead, so a new run wants the same id now."""

    def make(turns: Scheduler) -> Scenario:
        clock = ManualClock()
        store = SteppedStore(turns, clock=clock)
        repository = Repository(store, clock=clock)
        dead = claim_backup(repository, run_id="dead", intent="a test")
        put_files(dead, store)
        dead.abandon()

        def back_up() -> str:
            claim = claim_backup(repository, run_id="ours", intent="a test")
            put_files(claim, store)
            claim.commit(manifest_of(claim), options=NONE)
            return claim.backup_id

        sweep = lambda: repository.sweep(dead.backup_id, run_id="sweeper")  # noqa: E731
        return Scenario(store, {"backup": back_up, "sweep": sweep})

    def check(scenario: Scenario, outcomes: Outcomes) -> None:
        contents = scenario.store.contents()
        assert [*visible(contents)] == [outcomes["backup"]]
        require_whole(contents)
        require_no_extra_objects(contents)

    all_interleavings(make, at_the_end=check)


def test_sweep_that_finds_a_manifest_removes_only_its_mark() -> None:
    clock = ManualClock()
    store = MemoryStore(clock=clock)
    kept = make_backup(store, clock, at=OLD)
    before = [o.key for o in store.list()]

    assert Repository(store, clock=clock).sweep(kept, run_id="sweeper").objects == 0

    assert [o.key for o in store.list()] == before


@pytest.mark.parametrize(
    ("state", "age", "dead_runs", "dead"),
    [
        ("running", timedelta(0), frozenset(), False),
        ("running", GRACE, frozenset(), False),
        ("running", GRACE + timedelta(seconds=1), frozenset(), True),
        ("running", timedelta(0), frozenset({"other"}), True),
        ("running", timedelta(0), frozenset({"another"}), False),
        ("abandoned", timedelta(0), frozenset(), True),
    ],
)
def test_run_is_dead_after_a_day_or_if_proven_or_if_abandoned(
    state: str, age: timedelta, dead_runs: frozenset[str], *, dead: bool
) -> None:
    store = MemoryStore(clock=ManualClock())
    mark(store, "backup-20250228-120000", state)
    entry = Repository(store, clock=ManualClock()).entry("backup-20250228-120000")
    assert entry is not None
    assert entry.is_dead(store_now=NOON + age, dead_runs=dead_runs) is dead


def test_folder_without_our_mark_is_never_dead() -> None:
    store = MemoryStore(clock=ManualClock())
    for name in ("index", INCOMPLETE):
        store.put_small(f"backup-20200101-000000/{name}", b"of another tool", options=NONE)
    entry = Repository(store, clock=ManualClock()).entry("backup-20200101-000000")
    assert entry is not None
    assert entry.state is State.FOREIGN
    assert not entry.is_dead(store_now=NOON + timedelta(days=999), dead_runs=frozenset())


def state_of(store: MemoryStore, backup_id: str) -> State | None:
    entry = Repository(store, clock=ManualClock()).entry(backup_id)
    return entry.state if entry else None


def test_states_of_folders() -> None:
    clock = ManualClock()
    store = MemoryStore(clock=clock)
    made = make_backup(store, clock, at=OLD)
    assert state_of(store, made) is State.COMMITTED
    mark(store, made, "deleting")
    assert state_of(store, made) is State.COMMITTED
    store.delete([f"{made}/{MANIFEST}"])
    assert state_of(store, made) is State.DELETING
    mark(store, made, "running")
    assert state_of(store, made) is State.INCOMPLETE
    store.delete([f"{made}/{INCOMPLETE}", f"{made}/{SUMS}"])
    assert state_of(store, made) is State.FOREIGN
    store.put_small(f"{made}/{MANIFEST}", manifests.OLD_SCRIPT, options=NONE)
    assert state_of(store, made) is State.FOREIGN
    store.put_small(f"{made}/{MANIFEST}", b"{", options=NONE)
    assert state_of(store, made) is State.UNREADABLE
    store.put_small(
        f"{made}/{MANIFEST}", manifests.encoded(backup_id=made, format_version=3), options=NONE
    )
    assert state_of(store, made) is State.NEWER
    assert state_of(store, "backup-20200101-000000") is None


class UnreadableStore(MemoryStore):
    """A memory store with manifests that cannot be read."""

    def get(self, key: str, *, limit: int) -> bytes:
        if key.endswith(MANIFEST):
            raise RepositoryUnavailable(f"cannot read {key}: 503")
        return super().get(key, limit=limit)


def test_failed_read_of_a_manifest_is_not_its_absence() -> None:
    clock = ManualClock()
    store = UnreadableStore(clock=clock)
    made = make_backup(store, clock, at=OLD)
    mark(store, made, "abandoned")
    repository = Repository(store, clock=clock)
    with pytest.raises(RepositoryUnavailable):
        repository.entries()
    with pytest.raises(RepositoryUnavailable):
        repository.find("latest")
    with pytest.raises(RepositoryUnavailable):
        repository.find(made)
    # A sweep does not need to read it: its existence is enough.
    assert repository.sweep(made, run_id="sweeper").objects == 0
    assert f"{made}/{MANIFEST}" in {o.key for o in store.list()}


def test_inconclusive_result_replaces_no_other_and_is_recorded_if_there_is_none() -> None:
    clock = ManualClock()
    store = MemoryStore(clock=clock)
    repository = Repository(store, clock=clock)
    made = make_backup(store, clock, at=OLD)

    def recorded() -> list[Verdict]:
        entry = repository.entry(made)
        assert entry is not None
        return [v.verdict for v in entry.verifications]

    repository.results.record(verification_of(made, Verdict.INCONCLUSIVE))
    assert recorded() == [Verdict.INCONCLUSIVE]
    for verdict in (Verdict.FAIL, Verdict.PASS):
        repository.results.record(verification_of(made, verdict))
        assert recorded() == [verdict]
        repository.results.record(verification_of(made, Verdict.INCONCLUSIVE))
        assert recorded() == [verdict]


def two_backups(store: MemoryStore) -> tuple[Repository, list[str]]:
    clock = ManualClock()
    ids = [make_backup(store, clock, at=at) for at in (OLD, NOON)]
    return Repository(store, clock=clock), ids


def test_pass_of_a_part_proves_the_part_only() -> None:
    store, clock = MemoryStore(), ManualClock()
    repository = Repository(store, clock=clock)
    backup_id = make_backup(store, clock, at=NOON)
    whole = verification_of(backup_id).model_copy(update={"level": Level.DRILL})
    failure = whole.model_copy(update={"verdict": Verdict.FAIL})
    part = whole.model_copy(update={"part": TimeRange(start=NOON, end=None)})

    def stored(*results: Verification) -> tuple[Verification, ...]:
        for result in results:
            repository.results.record(result)
        entry = repository.entry(backup_id)
        assert entry is not None
        return entry.verifications

    assert stored(part) == (part,)
    entry = repository.entry(backup_id)
    assert entry is not None
    assert entry.verified is not None
    assert entry.verified[0] is Level.CHECKSUM, "what the commit had passed, and no more"
    assert stored(whole, part) == (whole,)
    assert stored(failure, part) == (failure,)
    assert not repository.find(backup_id).good
    assert stored(whole) == (whole,)
    later = part.model_copy(update={"verified_at": NOON + timedelta(days=1)})
    store.delete([f"{backup_id}/verification-drill.json"])
    assert stored(part, later) == (later,)


def test_latest_is_the_newest_good_backup_or_the_newest_if_none_is_good() -> None:
    store = MemoryStore()
    repository, ids = two_backups(store)
    assert repository.find("latest").backup_id == ids[1]
    assert repository.find("latest", at=NOON - timedelta(days=1)).backup_id == ids[0]
    repository.results.record(verification_of(ids[1], Verdict.FAIL))
    assert repository.find("latest").backup_id == ids[0]
    assert newest_good(repository.entries()) == repository.find(ids[0])
    repository.results.record(verification_of(ids[0], Verdict.FAIL))
    assert repository.find("latest").backup_id == ids[1]
    assert newest_good(repository.entries()) is None


def test_missing_backup_is_reported_with_the_nearest() -> None:
    repository, ids = two_backups(MemoryStore())
    with pytest.raises(BackupNotFound) as caught:
        repository.find("backup-20250301-120001")
    assert ids[1] in caught.value.hint


def test_latest_is_not_found_without_backups_or_before_the_first() -> None:
    with pytest.raises(BackupNotFound, match=r": there is none$") as caught:
        Repository(MemoryStore(), clock=ManualClock()).find("latest")
    assert "check REPOSITORY" in caught.value.hint

    repository, _ = two_backups(MemoryStore())
    with pytest.raises(BackupNotFound, match="there is none from 2024-01-01T") as caught:
        repository.find("latest", at=datetime(2024, 1, 1, tzinfo=UTC))
    assert "`prometheus-backup list`" in caught.value.hint


def test_unreadable_manifest_is_not_found_as_a_backup() -> None:
    store = MemoryStore()
    repository, ids = two_backups(store)
    store.put_small(f"{ids[1]}/{MANIFEST}", b"not JSON", options=NONE)
    with pytest.raises(UnreadableManifest):
        repository.find(ids[1])
    assert repository.find("latest").backup_id == ids[0]


def test_entries_are_the_backup_folders_oldest_first_and_nothing_else() -> None:
    store = MemoryStore()
    repository, ids = two_backups(store)
    for key in ("README", "backups/backup-20250101-000000/x", "backup-20259999-000000/x"):
        store.put_small(key, b"foreign", options=NONE)
    found = repository.entries()
    assert [e.backup_id for e in found] == ids
    assert all(isinstance(e, BackupEntry) and e.good for e in found)
