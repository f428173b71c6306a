"""The catalogue: the same answers as from the manifests, without reading them."""

import hashlib
import zlib
from collections.abc import Callable
from datetime import timedelta
from functools import partial

import pytest

from prometheus_backup.events import ignore
from prometheus_backup.model import CONTROL, FindingKind, Layout, Level, Outcome, Verdict
from prometheus_backup.repository.catalog import CatalogBlocks, CatalogMemory
from prometheus_backup.repository.entry import BackupEntry, State
from prometheus_backup.repository.hold import Hold
from prometheus_backup.repository.layout import (
    MANIFEST,
    SUMS,
    UNWANTED,
    catalog_blocks_key,
    catalog_key,
)
from prometheus_backup.repository.repository import Repository
from prometheus_backup.repository.verification import RecordedFinding
from prometheus_backup.retention.policy import Policy
from prometheus_backup.retention.prune import write_catalog
from tests.support import manifests
from tests.support.archives import BLOCK, BLOCKS, archive_run, prune
from tests.support.contents import in_catalog
from tests.support.interleavings import (
    Outcomes,
    Scenario,
    Scheduler,
    SteppedStore,
    all_interleavings,
)
from tests.support.memory_store import MemoryStore
from tests.support.repositories import ManualClock, make_backup, verification_of
from tests.support.store_wrappers import StoreWrapper

DAY = timedelta(days=1)
KEEP = Policy(daily=30, monthly=0, yearly=0)
FIRST, SECOND = "backup-20250301-120000", "backup-20250302-120000"


class Reads(StoreWrapper):
    """Records the keys that are read."""

    def __init__(self, store: MemoryStore) -> None:
        super().__init__(store)
        self.keys: list[str] = []

    def get(self, key: str, *, limit: int) -> bytes:
        self.keys.append(key)
        return self.inner.get(key, limit=limit)

    def of(self, name: str) -> list[str]:
        return [k for k in self.keys if k.endswith(f"/{name}")]


def archive(clock: ManualClock) -> MemoryStore:
    """A repository with two archive backups and one full backup, none of them in the catalogue."""
    store = MemoryStore(clock=clock)
    archive_run(store, clock, run_id="one", contents=BLOCKS)
    previous = Repository(store, clock=clock).manifest(FIRST)
    clock.instant += DAY
    archive_run(store, clock, run_id="two", contents=BLOCK, previous=previous)
    clock.instant += DAY
    make_backup(store, clock, at=clock.now())
    return store


def catalogue(store: MemoryStore, clock: ManualClock) -> None:
    repository = Repository(store, clock=clock)
    repository.entries()
    write_catalog(repository, ignore)


def looked(store: MemoryStore, clock: ManualClock) -> tuple[BackupEntry, ...]:
    return Repository(store, clock=clock).entries()


def without_catalog(store: MemoryStore, clock: ManualClock) -> tuple[BackupEntry, ...]:
    bare = MemoryStore(clock=clock)
    bare._objects.update({k: v for k, v in store._objects.items() if not in_catalog(k)})
    return looked(bare, clock)


def test_the_catalogue_says_what_the_manifests_say_and_none_is_read() -> None:
    clock = ManualClock()
    store = archive(clock)
    before = without_catalog(store, clock)
    catalogue(store, clock)
    reads = Reads(store)

    found = Repository(reads, clock=clock).entries()

    assert found == before
    assert [e.header.layout for e in found if e.header] == [Layout.ARCHIVE] * 2 + [Layout.FULL]
    assert all(in_catalog(key) for key in reads.keys)
    assert len(reads.keys) == 2 * 2 + 1


def test_one_backup_is_found_without_reading_a_manifest() -> None:
    clock = ManualClock()
    store = archive(clock)
    catalogue(store, clock)
    reads = Reads(store)
    assert Repository(reads, clock=clock).find(SECOND).state is State.COMMITTED
    assert reads.of(MANIFEST) == []


def test_a_second_look_reads_nothing_that_has_not_changed() -> None:
    clock = ManualClock()
    store = archive(clock)
    reads = Reads(store)
    memory = CatalogMemory()
    first = Repository(reads, clock=clock, memory=memory).entries()
    reads.keys.clear()

    assert Repository(reads, clock=clock, memory=memory).entries() == first
    assert reads.keys == []

    Repository(store, clock=clock).results.record(verification_of(FIRST, at=clock.now()))
    changed = Repository(reads, clock=clock, memory=memory).entries()
    assert changed == without_catalog(store, clock) != first
    assert reads.keys == [f"{FIRST}/verification-checksum.json"]

    Repository(store, clock=clock).delete_backup(FIRST, run_id="other")
    left = Repository(reads, clock=clock, memory=memory).entries()
    assert [e.backup_id for e in left] == [e.backup_id for e in first[1:]]
    assert FIRST not in memory.current


def changes(store: MemoryStore, clock: ManualClock) -> dict[str, Callable[[], object]]:
    """Ways to change a repository after its catalogue was written."""
    repository = Repository(store, clock=clock)
    hold = Hold(backup_id=FIRST, reason="audit", held_at=clock.now(), until=None)
    failed = verification_of(FIRST, Verdict.FAIL, at=clock.now()).model_copy(
        update={"findings": (RecordedFinding(kind=FindingKind.ALTERED, key="k", detail="d"),)}
    )
    manifest = repository.manifest(SECOND)
    body = store.get(f"{SECOND}/{MANIFEST}", limit=1 << 20)
    (block,) = manifest.blocks
    return {
        "a hold": lambda: repository.holds.put(hold),
        "a failure": lambda: repository.results.record(failed),
        "a manifest that cannot be read": lambda: store.put_small(
            f"{FIRST}/{MANIFEST}", b"{", options=CONTROL
        ),
        "another manifest": lambda: store.put_small(
            f"{SECOND}/{MANIFEST}", body.replace(b'"labels": {}', b'"labels":{}'), options=CONTROL
        ),
        "a lost object": lambda: store.delete([block.files[0].key]),
        "a lost version": lambda: store.delete([block.files[1].key]),
        "a lost block.json": lambda: store.delete([f"{block.folder}/block.json"]),
        "a mark of a deletion": lambda: store.put_small(
            f"{FIRST}/incomplete.json",
            b'{"run_id":"r","state":"deleting","started_at":"2025-03-01T00:00:00Z"}',
            options=CONTROL,
        ),
    }


@pytest.mark.parametrize("change", [*changes(archive(ManualClock()), ManualClock())])
def test_what_has_changed_since_is_read_again(change: str) -> None:
    clock = ManualClock()
    store = archive(clock)
    catalogue(store, clock)
    before = looked(store, clock)
    changes(store, clock)[change]()
    found = looked(store, clock)
    assert found == without_catalog(store, clock)
    assert (found != before) is (change != "another manifest")


def spoiled(store: MemoryStore) -> dict[str, Callable[[], object]]:
    """Ways in which the catalogue itself can be damaged."""
    entry, blocks = catalog_key(FIRST), catalog_blocks_key(FIRST)
    body = store.get(entry, limit=1 << 20)
    listed = zlib.decompress(store.get(blocks, limit=1 << 20), wbits=31)

    def put(key: str, value: bytes) -> Callable[[], object]:
        return lambda: store.put_small(key, value, options=CONTROL)

    def packed(value: bytes) -> bytes:
        return zlib.compress(value, wbits=31)

    def changed(old: bytes, new: bytes) -> Callable[[], object]:
        assert old in listed
        return put(blocks, packed(listed.replace(old, new)))

    def bomb() -> None:
        put(blocks, packed(b'{"x":"' + b" " * (200 << 20)))()

    return {
        "empty": put(entry, b""),
        "not JSON": put(entry, b"\xff"),
        "of another backup": put(entry, body.replace(FIRST.encode(), SECOND.encode())),
        "of another manifest": put(entry, body.replace(b'"size":', b'"size":1')),
        "removed": lambda: store.delete([entry]),
        "blocks removed": lambda: store.delete([blocks]),
        "blocks truncated": put(blocks, packed(listed)[:-9]),
        "blocks not gzip": put(blocks, listed),
        "an index out of range": changed(b'"kinds":[', b'"others":['),
        "a name outside the archive": changed(manifests.ULID.encode(), b"../../x"),
        "a bomb": bomb,
    }


def catalogued_archive(clock: ManualClock) -> MemoryStore:
    store = archive(clock)
    catalogue(store, clock)
    return store


@pytest.mark.parametrize("damage", [*spoiled(catalogued_archive(ManualClock()))])
def test_a_damaged_catalogue_costs_time_and_is_made_anew(damage: str) -> None:
    clock = ManualClock()
    store = catalogued_archive(clock)
    before = looked(store, clock)
    spoiled(store)[damage]()

    assert looked(store, clock) == before

    catalogue(store, clock)
    reads = Reads(store)
    assert Repository(reads, clock=clock).entries() == before
    assert reads.of(MANIFEST) == []


# Deletions


def test_a_deletion_in_the_archive_does_not_believe_the_catalogue() -> None:
    """An entry that leaves out a folder can have it marked, and nothing more."""
    clock = ManualClock()
    store = catalogued_archive(clock)
    key = catalog_blocks_key(SECOND)
    listed = zlib.decompress(store.get(key, limit=1 << 20), wbits=31)
    nothing = CatalogBlocks.of(SECOND, {}).model_dump_json().encode()
    store.put_small(key, zlib.compress(nothing, wbits=31), options=CONTROL)
    entry = store.get(catalog_key(SECOND), limit=1 << 20)
    old, new = (hashlib.sha256(body).hexdigest().encode() for body in (listed, nothing))
    assert old in entry
    store.put_small(catalog_key(SECOND), entry.replace(old, new), options=CONTROL)
    store.delete([f"{FIRST}/{MANIFEST}"])
    Repository(store, clock=clock).catalog.remove(FIRST)
    (wanted,) = Repository(store, clock=clock).manifest(SECOND).folders

    assert prune(store, clock, policy=KEEP).outcome is Outcome.DONE
    assert f"{wanted}/{UNWANTED}" in store._objects
    clock.instant += 2 * DAY
    report = prune(store, clock, policy=KEEP)

    assert wanted not in {f.name for f in report.archived}
    assert f"{wanted}/index" in store._objects


def test_a_night_with_deletions_reads_the_new_manifest_and_each_other_once_a_week() -> None:
    clock = ManualClock()
    store = archive(clock)
    nights = []
    for night in range(24):
        clock.instant += DAY
        body = {f"{manifests.ULID[:-2]}{night:02}": {"index": b"i", "meta.json": b"{}"}}
        archive_run(store, clock, run_id=str(clock.instant), contents=body)
        reads = Reads(store)
        report = prune(reads, clock, policy=Policy(daily=10, monthly=0, yearly=0))
        nights.append((len(report.archived), len(reads.of(MANIFEST))))
    # Each night, one folder goes. The new manifest is read twice: to describe it, and to confirm
    # that. One of the others was confirmed a week ago.
    assert nights[-4:] == [(1, 3)] * 4


def test_a_deletion_and_the_writing_of_the_catalogue_leave_no_entry_without_a_manifest() -> None:
    def make(turns: Scheduler) -> Scenario:
        clock = ManualClock()
        store = SteppedStore(turns, clock=clock)
        archive_run(store, clock, run_id="one")
        writer = Repository(store, clock=clock)
        writer.entries()
        deleter = Repository(store, clock=clock)
        return Scenario(
            store,
            {
                "write": writer.catalog.write,
                "delete": partial(deleter.delete_backup, FIRST, run_id="delete"),
            },
        )

    def check(scenario: Scenario, outcomes: Outcomes) -> None:
        assert all(not isinstance(o, Exception) for o in outcomes.values())
        assert not [*filter(in_catalog, scenario.store.contents())]

    assert all_interleavings(make, at_the_end=check) >= 4


def test_a_backup_whose_manifest_is_gone_stops_every_deletion_until_it_is_forgotten() -> None:
    clock = ManualClock()
    store = catalogued_archive(clock)
    store.delete([o.key for o in store.list(SECOND)])

    lost = {e.backup_id: e for e in looked(store, clock)}[SECOND]
    assert lost.state is State.UNREADABLE
    assert "although the catalogue has this backup" in lost.problem
    report = prune(store, clock)
    assert report.outcome is Outcome.PARTIAL
    assert f"prune --forget {SECOND}" in report.problems[-1]
    assert not report.deleted


def test_a_full_backup_that_was_deleted_by_hand_is_just_gone() -> None:
    """Nothing else depends on it."""
    clock = ManualClock()
    store = catalogued_archive(clock)
    full = looked(store, clock)[-1].backup_id
    store.delete([o.key for o in store.list(full)])

    assert [e.backup_id for e in looked(store, clock)] == [FIRST, SECOND]
    assert prune(store, clock, policy=KEEP).outcome is Outcome.DONE
    assert catalog_key(full) not in store._objects


def test_a_backup_that_gives_up_after_its_manifest_leaves_no_entry() -> None:
    clock = ManualClock()
    store = catalogued_archive(clock)
    Repository(store, clock=clock).delete_backup(SECOND, run_id="d")
    assert not [k for k in store._objects if SECOND in k and not k.startswith("archive/0")]
    assert SUMS not in {k.rpartition("/")[2] for k in store._objects if SECOND in k}


def test_levels_that_were_verified_are_in_the_catalogue() -> None:
    clock = ManualClock()
    store = archive(clock)
    Repository(store, clock=clock).results.record(
        verification_of(SECOND, level=Level.TSDB, at=clock.now())
    )
    catalogue(store, clock)
    reads = Reads(store)
    entry = Repository(reads, clock=clock).entries()[1]
    assert entry.verified == (Level.TSDB, clock.now())
    assert all(in_catalog(key) for key in reads.keys)
