"""Deletions that are interrupted or denied, and foreign objects that must not be touched."""

import contextlib
import itertools
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from devtools.s3 import S3Bucket
from prometheus_backup.errors import BackupToolError, RepositoryDenied, RepositoryFull
from prometheus_backup.events import BackupDeleted
from prometheus_backup.model import Outcome, PutOptions
from prometheus_backup.repository.layout import INCOMPLETE, MANIFEST, PROBE_PREFIX
from prometheus_backup.repository.manifest import Incomplete, decode, encode
from prometheus_backup.repository.repository import Repository
from prometheus_backup.retention.policy import Policy
from prometheus_backup.retention.prune import PruneReport, apply_prune, plan_prune
from prometheus_backup.stores.base import ObjectStore
from prometheus_backup.stores.s3 import S3Store
from tests.support import manifests
from tests.support.contents import keys
from tests.support.meanwhile import DyingStore, PowerCut
from tests.support.memory_store import MemoryStore
from tests.support.repositories import NOON, ManualClock, make_backup, require_whole, visible
from tests.support.runs import Recorder
from tests.support.s3 import open_s3
from tests.support.s3_proxy import S3Proxy, S3Request
from tests.support.started_cli import StartedCli
from tests.support.store_wrappers import StoreWrapper

NONE = PutOptions()
TEN_DAYS = Policy(daily=10, monthly=0, yearly=0)


def contents(store: ObjectStore) -> dict[str, bytes]:
    return {k: b"".join(store.stream(k)) for k in keys(store)}


def folders(found: Mapping[str, bytes]) -> set[str]:
    return {key.partition("/")[0] for key in found}


def prune(
    store: ObjectStore, listener: Recorder | None = None, *, clock: ManualClock | None = None
) -> PruneReport:
    """Plan and apply, as the command does; the run `dead` is known to be dead."""
    clock = clock or ManualClock()
    repository = Repository(store, clock=clock)
    plan = plan_prune(
        repository.entries(),
        policy=TEN_DAYS,
        now=clock.now(),
        store_now=clock.now(),
        dead_runs=frozenset({"dead"}),
    )
    return apply_prune(repository, plan, run_id="pruner", listener=listener or Recorder())


def fill_store() -> tuple[MemoryStore, list[str], str]:
    """Two expired backups, a kept one, and a dead run; return the ids of expired and kept ones."""
    clock = ManualClock()
    store = MemoryStore(clock=clock)
    going = [make_backup(store, clock, at=NOON - timedelta(days=d)) for d in (40, 20)]
    stays = make_backup(store, clock, at=NOON - timedelta(hours=1))
    dead = Incomplete(run_id="dead", state="running", started_at=NOON)
    for name, body in ((INCOMPLETE, encode(dead)), (f"{manifests.ULID}/index", b"part")):
        store.put_small(f"backup-20250227-000000/{name}", body, options=NONE)
    return store, going, stays


def is_marked_deleting(found: Mapping[str, bytes], backup_id: str) -> bool:
    document = decode(Incomplete, found.get(f"{backup_id}/{INCOMPLETE}", b""))
    return document is not None and document.state == "deleting"


def test_prune_interrupted_at_any_change_leaves_whole_backups_or_marked_folders() -> None:
    """For every n: interrupt before the n-th change; the next prune completes it."""
    changes = 0
    while True:
        store, _, stays = fill_store()
        kept = {k: v for k, v in contents(store).items() if k.startswith(stays)}
        try:
            prune(DyingStore(store, after=changes))
        except PowerCut:
            changes += 1
        else:
            break
        left = contents(store)
        require_whole(left)
        for backup_id in folders(left) - {"backup-20250227-000000"}:
            assert backup_id in visible(left) or is_marked_deleting(left, backup_id)
        rest = {k for k in left if k.startswith("backup-20250227-000000/")}
        assert not rest or f"backup-20250227-000000/{INCOMPLETE}" in rest

        assert prune(store).outcome is Outcome.DONE

        assert contents(store) == kept
    # Each backup: mark, manifest, sums, two files, two keys of the catalogue, mark. The dead run
    # has only one file. Then the entry of the backup that stays.
    assert changes == 8 + 8 + 6 + 1
    assert folders(contents(store)) == {stays}


class NoDelete(StoreWrapper):
    """Denies the deletion of keys that contain `word`."""

    def __init__(self, store: ObjectStore, word: str) -> None:
        super().__init__(store)
        self._word = word

    def delete(self, keys: Sequence[str]) -> None:
        allowed = [key for key in keys if self._word not in key]
        self.inner.delete(allowed)
        if len(allowed) < len(keys):
            raise RepositoryDenied(f"cannot delete {keys[0]}: AccessDenied")


def test_denied_deletion_is_reported_and_the_others_continue() -> None:
    store, (first, second), stays = fill_store()
    recorder = Recorder()

    report = prune(NoDelete(store, first), recorder)

    assert report.outcome is Outcome.PARTIAL
    assert report.outcome.exit_code == 3
    assert report.deleted == (second,)
    assert report.swept == ("backup-20250227-000000",)
    assert [e.backup_id for e in recorder.of(BackupDeleted)] == [second, *report.swept]
    assert len(report.problems) == 1
    assert "retention" in report.problems[0]
    assert first in report.problems[0]
    assert report.problems[0] in recorder.warnings
    # The deletion of its manifest was denied, so it is still whole.
    assert set(visible(contents(store))) == {first, stays}
    require_whole(contents(store))


def test_denied_removal_of_a_stale_mark_is_reported_and_the_others_continue() -> None:
    store, going, stays = fill_store()
    mark = Incomplete(run_id="dead", state="running", started_at=NOON)
    store.put_small(f"{stays}/{INCOMPLETE}", encode(mark), options=NONE)

    report = prune(NoDelete(store, f"{stays}/"))

    assert report.outcome is Outcome.PARTIAL
    assert list(report.deleted) == going
    assert stays in report.problems[0]


def test_stale_mark_next_to_a_kept_manifest_is_removed() -> None:
    store, _, stays = fill_store()
    mark = Incomplete(run_id="dead", state="running", started_at=NOON)
    store.put_small(f"{stays}/{INCOMPLETE}", encode(mark), options=NONE)

    assert prune(store).outcome is Outcome.DONE

    assert f"{stays}/{INCOMPLETE}" not in contents(store)
    assert set(visible(contents(store))) == {stays}


FOREIGN_OBJECTS: dict[str, bytes] = {
    "README.md": b"at the root of the prefix",
    ".probe-of-somebody": b"",
    "backups/backup-20200101-000000/index": b"a folder of another tool",
    "backup-20200101/index": b"almost an id",
    "backup-20209999-000000/index": b"no date",
    "backup-20200101-000000/index": b"without our mark",
    "backup-20200102-000000/metadata.json": manifests.OLD_SCRIPT,
    "backup-20200102-000000/01JJ5W0B8ZC6X3M1S4T9Q2V7KD/index": b"of the old script",
    "backup-20200103-000000/metadata.json": b'{"format_version": 1, "blocks": [',
    "backup-20200104-000000/incomplete.json": b'{"upload": "of another tool"}',
    "backup-20200104-000000/index": b"with a foreign mark",
    "backup-20200105-000000/metadata.json": b"",
}


def test_prune_touches_nothing_that_is_not_a_backup_it_can_read() -> None:
    store, going, stays = fill_store()
    for key, body in FOREIGN_OBJECTS.items():
        store.put_small(key, body, options=NONE)
    # The folder of a dead run is not swept if it has an unreadable manifest.
    dead = Incomplete(run_id="dead", state="abandoned", started_at=NOON)
    store.put_small(f"backup-20200105-000000/{INCOMPLETE}", encode(dead), options=NONE)
    kept = {k: v for k, v in contents(store).items() if k.startswith(stays)} | FOREIGN_OBJECTS

    report = prune(store)

    left = contents(store)
    assert {k: v for k, v in left.items() if "0105-000000/inc" not in k} == kept
    assert list(report.deleted) == going
    assert report.plan.unreadable == ("backup-20200103-000000", "backup-20200105-000000")
    assert {*report.plan.foreign} >= {"backup-20200101-000000", "backup-20200102-000000"}
    assert report.outcome is Outcome.PARTIAL  # some have no decision
    assert "backup-20200103-000000" in " ".join(report.problems)


class NoRead(StoreWrapper):
    """Cannot read one manifest."""

    def __init__(self, store: ObjectStore, backup_id: str) -> None:
        super().__init__(store)
        self._key = f"{backup_id}/{MANIFEST}"

    def get(self, key: str, *, limit: int) -> bytes:
        if key == self._key:
            raise RepositoryDenied(f"cannot read {key}: AccessDenied")
        return self.inner.get(key, limit=limit)


def test_a_backup_whose_manifest_cannot_be_read_is_kept_whole_and_reported() -> None:
    """A failed read must not be taken for absence: the manifest may be that of a kept backup."""
    store, _, stays = fill_store()
    before = {k: body for k, body in contents(store).items() if k.startswith(stays)}
    with contextlib.suppress(BackupToolError):  # if no manifest can be read at all
        report = prune(NoRead(store, stays))
        assert any(stays in problem for problem in report.problems)
    assert {k: body for k, body in contents(store).items() if k.startswith(stays)} == before


def test_young_run_of_another_host_is_left_alone_and_swept_after_a_day() -> None:
    clock = ManualClock()
    store = MemoryStore(clock=clock)
    other = Incomplete(run_id="elsewhere", state="running", host="b", started_at=NOON)
    for name, body in ((INCOMPLETE, encode(other)), (f"{manifests.ULID}/index", b"part")):
        store.put_small(f"backup-20250301-115900/{name}", body, options=NONE)
    repository = Repository(store, clock=clock)

    def pruned() -> tuple[str, ...]:
        now = clock.now()
        plan = plan_prune(repository.entries(), policy=TEN_DAYS, now=now, store_now=now)
        return apply_prune(repository, plan, run_id="p", listener=Recorder()).swept

    clock.instant += timedelta(hours=24)
    assert pruned() == ()
    assert len(contents(store)) == 2
    clock.instant += timedelta(seconds=1)
    assert pruned() == ("backup-20250301-115900",)
    assert contents(store) == {}


class PruneRuns:
    """A bucket with an expired and a kept backup under each prefix, by our clock."""

    def __init__(self, bucket: S3Bucket, proxy: S3Proxy, folder: Path) -> None:
        self._bucket = bucket
        self._proxy = proxy
        self._folder = folder
        self.clock = ManualClock(datetime.now(UTC).replace(microsecond=0))

    def fill(self, prefix: str) -> tuple[S3Store, str, str]:
        """The store of a prefix, and the ids of its expired and its kept backup."""
        store = open_s3(self._bucket, prefix=prefix)
        ages = (timedelta(days=40), timedelta(hours=1))
        going, stays = (make_backup(store, self.clock, at=self.clock.instant - a) for a in ages)
        return store, going, stays

    def killed_at(self, number: int, prefix: str) -> bool:
        """Run `prune` and kill it at this request; return False if it ended before."""
        env = self._bucket.endpoint.environment() | {
            "AWS_ENDPOINT_URL": self._proxy.url,
            "S3_BUCKET": self._bucket.name,
            "S3_PREFIX": prefix,
            "RETENTION_DAILY": "10",
            "RETENTION_MONTHLY": "0",
            "RETENTION_YEARLY": "0",
        }
        with StartedCli("prune", env=env, directory=self._folder / prefix) as run:

            def gate(request: S3Request) -> bool:
                if request.number >= number:
                    run.kill()
                return request.number < number

            self._proxy.begin(gate)
            code = run.end().code
        assert code in (0, -9), run.log()
        return code == -9


def without_probes(store: ObjectStore) -> dict[str, bytes]:
    return {k: v for k, v in contents(store).items() if not k.startswith(PROBE_PREFIX)}


def test_prune_killed_at_any_request_is_completed_by_the_next(
    s3_bucket: S3Bucket, tmp_path: Path
) -> None:
    """kill -9 of the real command line before its n-th request to a real S3 server."""
    marked = 0
    with S3Proxy(s3_bucket.endpoint.url) as proxy:
        runs = PruneRuns(s3_bucket, proxy, tmp_path)
        for number in itertools.count(1):
            store, going, stays = runs.fill(f"n{number}")
            kept = {k: v for k, v in contents(store).items() if k.startswith(stays)}

            killed = runs.killed_at(number, f"n{number}")

            left = without_probes(store)
            require_whole(left)
            assert {k: v for k, v in left.items() if k.startswith(stays)} == kept
            if not killed:
                assert left == kept
                break
            rest = {k for k in left if k.startswith(going)}
            assert not rest or going in visible(left) or is_marked_deleting(left, going)
            marked += bool(rest) and is_marked_deleting(left, going)
            assert prune(store, clock=runs.clock).outcome is Outcome.DONE
            assert without_probes(store) == kept
    assert number > 12
    assert marked >= 4


# A full store


class FullStore(StoreWrapper):
    """Refuses to store anything until an object is deleted."""

    full = True

    def put_small(self, key: str, body: bytes, *, options: PutOptions) -> None:
        if self.full:
            raise RepositoryFull(f"cannot put {key}: QuotaExceeded")
        self.inner.put_small(key, body, options=options)

    def delete(self, keys: Sequence[str]) -> None:
        self.inner.delete(keys)
        self.full = False


@pytest.mark.parametrize("changes", range(12))
def test_a_full_store_is_pruned_and_never_lists_half_a_backup(changes: int) -> None:
    clock = ManualClock(NOON)
    memory = MemoryStore(clock=clock)
    ages = (timedelta(days=40), timedelta(hours=1))
    old, new = (make_backup(memory, clock, at=NOON - age) for age in ages)

    def prune(store: ObjectStore) -> PruneReport:
        repository = Repository(store, clock=clock)
        now = repository.store_now(run_id="this")
        plan = plan_prune(repository.entries(), policy=TEN_DAYS, now=NOON, store_now=now)
        return apply_prune(repository, plan, run_id="this", listener=Recorder())

    try:
        report = prune(DyingStore(FullStore(memory), after=changes))
    except PowerCut:
        require_whole(contents(memory))
        assert new in visible(contents(memory))
    else:
        assert report.deleted == (old,)
        assert set(visible(contents(memory))) == {new}
