"""Concurrent claims: every interleaving of two runs' store operations, and of runs and sweeps."""

from collections.abc import Sequence
from datetime import timedelta

import pytest

from prometheus_backup.errors import RepositoryDenied, RepositoryLocked, RepositoryUnavailable
from prometheus_backup.model import ObjectInfo, PutOptions
from prometheus_backup.repository.claim import Claim, claim_backup
from prometheus_backup.repository.entry import State
from prometheus_backup.repository.layout import INCOMPLETE, MANIFEST, backup_id
from prometheus_backup.repository.manifest import (
    FinishedFile,
    Incomplete,
    decode,
    encode,
)
from prometheus_backup.repository.repository import Repository
from tests.support import manifests
from tests.support.interleavings import (
    Actor,
    Outcomes,
    Scenario,
    Scheduler,
    SteppedStore,
    all_interleavings,
)
from tests.support.memory_store import MemoryStore
from tests.support.repositories import (
    NOON,
    ManualClock,
    make_backup,
    manifest_of,
    put_files,
    require_no_extra_objects,
    require_whole,
    visible,
)
from tests.support.waiting import wait_until

ID = "backup-20250301-120000"
NEXT_ID = "backup-20250301-120001"


def small_run(store: SteppedStore, clock: ManualClock, run_id: str, ulid: str) -> Actor:
    """A whole backup of one block with one file, whose bytes identify the run."""

    def run() -> str:
        claim = claim_backup(Repository(store, clock=clock), run_id=run_id, intent="a test")
        files = {"index": f"index of {run_id}".encode()}
        put_files(claim, store, files, ulid=ulid)
        claim.commit(manifest_of(claim, files, ulid=ulid), options=PutOptions())
        return claim.backup_id

    return run


def two_runs(turns: Scheduler, *, conditional: bool) -> Scenario:
    clock = ManualClock()
    store = SteppedStore(turns, clock=clock, conditional=conditional)
    ulids = {"one": manifests.ULID, "two": manifests.OTHER_ULID}
    return Scenario(store, {name: small_run(store, clock, name, ulids[name]) for name in ulids})


def test_two_runs_of_one_second_commit_under_different_ids_in_every_interleaving() -> None:
    def check(scenario: Scenario, outcomes: Outcomes) -> None:
        contents = scenario.store.contents()
        assert set(outcomes.values()) == {ID, NEXT_ID}
        assert {m.run_id: i for i, m in visible(contents).items()} == outcomes
        require_no_extra_objects(contents)
        assert not [key for key in contents if key.endswith(INCOMPLETE)]

    orders = all_interleavings(
        lambda turns: two_runs(turns, conditional=True),
        at_every_step=lambda scenario: require_whole(scenario.store.contents()),
        at_the_end=check,
    )
    assert orders > 10


def test_without_create_only_at_most_one_of_two_runs_commits_under_an_id() -> None:
    """Some S3-compatible stores accept a create-only put of a key that exists."""

    def check(scenario: Scenario, outcomes: Outcomes) -> None:
        contents = scenario.store.contents()
        committed = {name: i for name, i in outcomes.items() if isinstance(i, str)}
        lost = [o for o in outcomes.values() if not isinstance(o, str)]
        assert all(isinstance(o, RepositoryLocked) for o in lost)
        assert {m.run_id: i for i, m in visible(contents).items()} == committed
        assert len(set(committed.values())) == len(committed)

    all_interleavings(
        lambda turns: two_runs(turns, conditional=False),
        at_every_step=lambda scenario: require_whole(scenario.store.contents()),
        at_the_end=check,
    )


def claimed(store: SteppedStore, clock: ManualClock, turns: Scheduler) -> Claim:
    """A claim with all files uploaded."""
    claim = claim_backup(Repository(store, clock=clock), run_id="ours", intent="a test")
    put_files(claim, store)
    claim._lock = turns.lock()  # type: ignore[assignment]  # held during store operations
    return claim


def commits(claim: Claim) -> Actor:
    return lambda: claim.commit(manifest_of(claim), options=PutOptions())


def beats(claim: Claim) -> Actor:
    """One heartbeat, as its thread makes it."""
    return claim._rewrite


def sweeps(store: SteppedStore, clock: ManualClock) -> Actor:
    return lambda: Repository(store, clock=clock).sweep(ID, run_id="sweeper")


def test_heartbeat_never_leaves_a_mark_next_to_a_committed_manifest() -> None:
    def make(turns: Scheduler) -> Scenario:
        clock = ManualClock()
        store = SteppedStore(turns, clock=clock)
        claim = claimed(store, clock, turns)
        return Scenario(store, {"commit": commits(claim), "heartbeat": beats(claim)})

    def check(scenario: Scenario, outcomes: Outcomes) -> None:
        assert outcomes["commit"] == ()
        assert [*visible(scenario.store.contents())] == [ID]
        assert f"{ID}/{INCOMPLETE}" not in scenario.store.contents()

    all_interleavings(
        make,
        at_every_step=lambda scenario: require_whole(scenario.store.contents()),
        at_the_end=check,
    )


def test_heartbeat_never_revives_an_abandoned_run() -> None:
    def make(turns: Scheduler) -> Scenario:
        clock = ManualClock()
        store = SteppedStore(turns, clock=clock)
        claim = claimed(store, clock, turns)
        return Scenario(store, {"abandon": claim.abandon, "heartbeat": beats(claim)})

    def check(scenario: Scenario, outcomes: Outcomes) -> None:
        assert outcomes["abandon"] is None
        document = decode(Incomplete, scenario.store.contents()[f"{ID}/{INCOMPLETE}"])
        assert document is not None
        assert document.state == "abandoned"

    all_interleavings(make, at_the_end=check)


def test_commit_during_a_sweep_is_visible_completely_or_not_at_all() -> None:
    def make(turns: Scheduler) -> Scenario:
        clock = ManualClock()
        store = SteppedStore(turns, clock=clock)
        claim = claimed(store, clock, turns)
        actors = {"commit": commits(claim), "sweep": sweeps(store, clock)}
        return Scenario(store, actors)

    seen = set()

    def check(scenario: Scenario, outcomes: Outcomes) -> None:
        contents = scenario.store.contents()
        require_whole(contents)
        done = outcomes["commit"] == ()
        seen.add(done)
        assert [*visible(contents)] == ([ID] if done else [])
        if not done:
            assert isinstance(outcomes["commit"], RepositoryLocked)

    all_interleavings(make, at_the_end=check)
    assert seen == {True, False}


def test_heartbeat_after_a_day_of_suspension_cannot_undo_the_mark_of_a_sweep() -> None:
    def make(turns: Scheduler) -> Scenario:
        clock = ManualClock()
        store = SteppedStore(turns, clock=clock)
        claim = claimed(store, clock, turns)

        def sweep_tomorrow() -> int | None:
            turns.step()
            clock.instant += timedelta(hours=25)
            turns.record("a day has passed")
            repository = Repository(store, clock=clock)
            entry = repository.entry(ID)
            seen_dead = entry and entry.is_dead(store_now=clock.now(), dead_runs=frozenset())
            if entry and entry.state is State.INCOMPLETE and seen_dead:
                return repository.sweep(ID, run_id="sweeper").objects
            return None

        actors = {"commit": commits(claim), "heartbeat": beats(claim), "sweep": sweep_tomorrow}
        return Scenario(store, actors)

    swept = set()

    def check(scenario: Scenario, outcomes: Outcomes) -> None:
        contents = scenario.store.contents()
        require_whole(contents)
        assert [*visible(contents)] == ([ID] if outcomes["commit"] == () else [])
        swept.add(outcomes["sweep"] is not None)

    all_interleavings(make, at_the_end=check)
    assert swept == {True, False}


def test_abandoned_run_that_is_swept_at_once_leaves_nothing_or_its_mark() -> None:
    def make(turns: Scheduler) -> Scenario:
        clock = ManualClock()
        store = SteppedStore(turns, clock=clock)
        claim = claimed(store, clock, turns)
        return Scenario(store, {"abandon": claim.abandon, "sweep": sweeps(store, clock)})

    def check(scenario: Scenario, outcomes: Outcomes) -> None:
        assert not any(isinstance(o, Exception) for o in outcomes.values())
        assert set(scenario.store.contents()) <= {f"{ID}/{INCOMPLETE}"}

    all_interleavings(make, at_the_end=check)


def test_run_whose_claim_was_taken_over_stops_at_its_next_file() -> None:
    clock = ManualClock()
    store = SteppedStore(Scheduler(), clock=clock)
    claim = claim_backup(Repository(store, clock=clock), run_id="ours", intent="a test")
    file = FinishedFile(
        ulid=manifests.ULID,
        path="index",
        size=1,
        sha256="ab" * 32,
        key=f"{ID}/{manifests.ULID}/index",
    )
    claim.add_finished(file)
    other = Incomplete(run_id="theirs", state="running", started_at=NOON)
    store.put_small(f"{ID}/{INCOMPLETE}", encode(other), options=PutOptions())

    with pytest.raises(RepositoryLocked):
        claim._rewrite()
    with pytest.raises(RepositoryLocked):
        claim.add_finished(file)

    assert decode(Incomplete, store.get(f"{ID}/{INCOMPLETE}", limit=10_000)) == other


def test_run_that_was_suspended_for_half_a_day_does_not_commit() -> None:
    clock = ManualClock()
    store = SteppedStore(Scheduler(), clock=clock)
    claim = claimed(store, clock, Scheduler())
    clock.instant += timedelta(hours=12, seconds=1)

    with pytest.raises(RepositoryLocked):
        commits(claim)()

    assert visible(store.contents()) == {}


def test_commit_with_a_lost_response_recognises_its_own_manifest() -> None:
    """A retry inside the store then finds that the first attempt has created the key."""
    clock = ManualClock()

    class Forgetful(SteppedStore):
        def create(self, key: str, body: bytes, *, options: PutOptions) -> None:
            super().create(key, body, options=options)
            super().create(key, body, options=options)

    store = Forgetful(Scheduler(), clock=clock)
    assert make_backup(store, clock, at=NOON) == ID

    assert [*visible(store.contents())] == [ID]
    assert f"{ID}/{INCOMPLETE}" not in store.contents()


def test_manifest_of_another_run_under_the_same_id_is_never_replaced() -> None:
    clock = ManualClock()
    store = SteppedStore(Scheduler(), clock=clock)
    claim = claimed(store, clock, Scheduler())
    theirs = manifest_of(claim).model_copy(update={"run_id": "theirs"})
    store.put_small(f"{ID}/{MANIFEST}", encode(theirs), options=PutOptions())

    with pytest.raises(RepositoryLocked):
        commits(claim)()

    assert visible(store.contents()) == {ID: theirs}


def test_run_gives_up_if_no_id_of_the_next_two_minutes_is_free() -> None:
    clock = ManualClock()
    store = SteppedStore(Scheduler(), clock=clock)
    for second in range(120):
        key = f"{backup_id(NOON + timedelta(seconds=second))}/of-another-tool"
        store.put_small(key, b"", options=PutOptions())
    before = store.contents()

    with pytest.raises(RepositoryLocked, match="taken"):
        claim_backup(Repository(store, clock=clock), run_id="ours", intent="a test")

    assert store.contents() == before


class DisconnectedStore(MemoryStore):
    """A memory store that can be disconnected."""

    disconnected = False
    refused = 0

    def get(self, key: str, *, limit: int) -> bytes:
        if self.disconnected:
            self.refused += 1
            raise RepositoryUnavailable(f"cannot read {key}: no connection")
        return super().get(key, limit=limit)


def test_heartbeat_records_finished_files_once_the_store_is_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("prometheus_backup.repository.claim._TICK", 0.005)
    store = DisconnectedStore()
    claim = claim_backup(Repository(store, clock=ManualClock()), run_id="ours", intent="a test")
    key = f"{ID}/{manifests.ULID}/index"
    file = FinishedFile(ulid=manifests.ULID, path="index", size=1, sha256="ab" * 32, key=key)

    def recorded() -> tuple[FinishedFile, ...]:
        document = decode(Incomplete, store.get(f"{ID}/{INCOMPLETE}", limit=10_000))
        assert document is not None
        assert document.state == "running"
        return document.finished

    with claim.heartbeat():
        store.disconnected = True
        claim.add_finished(file)
        wait_until(lambda: store.refused > 2)
        store.disconnected = False
        wait_until(lambda: recorded() == (file,))


def test_heartbeat_is_written_every_minute_without_finished_files(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("prometheus_backup.repository.claim._TICK", 0.005)
    clock = ManualClock()
    store = MemoryStore(clock=clock)
    claim = claim_backup(Repository(store, clock=clock), run_id="ours", intent="a test")

    with claim.heartbeat():
        clock.instant += timedelta(seconds=61)
        wait_until(lambda: claim.store_now() == clock.instant)


class ForgetfulStore(MemoryStore):
    """A memory store that loses one object, or fails to delete or read, once told to."""

    lost = ""
    failing = ""

    def put_small(self, key: str, body: bytes, *, options: PutOptions) -> None:
        if not (self.lost and key.endswith(self.lost)):
            super().put_small(key, body, options=options)

    def create(self, key: str, body: bytes, *, options: PutOptions) -> None:
        if not (self.lost and key.endswith(self.lost)):
            super().create(key, body, options=options)
        if self.failing == "answer" and key.endswith(MANIFEST):
            raise RepositoryUnavailable(f"cannot create {key}: connection reset")

    def delete(self, keys: Sequence[str]) -> None:
        if self.failing == "delete":
            raise RepositoryDenied(f"cannot delete {keys[0]}: AccessDenied")
        super().delete(keys)

    def head(self, key: str) -> ObjectInfo:
        if self.failing == "head" and key.endswith(MANIFEST):
            raise RepositoryUnavailable(f"cannot read {key}: no connection")
        return super().head(key)


def claimed_in(store: ForgetfulStore) -> Claim:
    claim = claim_backup(Repository(store, clock=ManualClock()), run_id="ours", intent="a test")
    put_files(claim, store)
    return claim


@pytest.mark.parametrize(
    ("failing", "problem"),
    [("delete", "cannot delete"), ("head", "cannot read"), ("answer", None)],
)
def test_what_fails_after_the_manifest_does_not_undo_the_commit(
    failing: str, problem: str | None
) -> None:
    store = ForgetfulStore()
    claim = claimed_in(store)
    store.failing = failing

    problems = claim.commit(manifest_of(claim), options=PutOptions())

    assert len(problems) == (problem is not None)
    assert all(f"{ID} is committed" in p and str(problem) in p for p in problems)
    (entry,) = Repository(store, clock=ManualClock()).entries()
    assert entry.state is State.COMMITTED


@pytest.mark.parametrize("lost", ["SHA256SUMS", MANIFEST])
def test_an_object_that_was_acknowledged_but_not_stored_is_no_commit(lost: str) -> None:
    store = ForgetfulStore()
    claim = claimed_in(store)
    store.lost = lost

    with pytest.raises(RepositoryUnavailable, match=f"the store acknowledged {ID}/{lost}") as got:
        claim.commit(manifest_of(claim), options=PutOptions())

    assert "nothing was committed" in got.value.hint
    (entry,) = Repository(store, clock=ManualClock()).entries()
    assert entry.state is State.INCOMPLETE
