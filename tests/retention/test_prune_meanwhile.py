"""A prune in the middle of a restore, a verification or a backup, at each of its requests.

The deletion is at every stage of its work then. Nothing that is kept is lost, what was deleted is
not taken for damaged, and who needs it says that it was deleted.
"""

import hashlib
import json
from collections import Counter
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from prometheus_backup.backup.plan import plan_backup
from prometheus_backup.backup.upload import Uploader
from prometheus_backup.errors import BackupNotFound, ObjectNotFound
from prometheus_backup.events import ignore
from prometheus_backup.heal.candidates import CandidateFinder
from prometheus_backup.heal.plan import BadBlock
from prometheus_backup.model import Level, PutOptions, Verdict
from prometheus_backup.repository.claim import claim_backup
from prometheus_backup.repository.entry import BackupEntry
from prometheus_backup.repository.manifest import decode_manifest
from prometheus_backup.repository.repository import Repository
from prometheus_backup.restore.run import Restore
from prometheus_backup.retention import archive as retention_archive
from prometheus_backup.retention.policy import Policy
from prometheus_backup.stores.base import ObjectStore
from prometheus_backup.stores.local import LocalStore
from prometheus_backup.tsdb.block import MUTABLE
from prometheus_backup.tsdb.faults import Effect
from prometheus_backup.verify.run import Verifier
from tests.support import manifests
from tests.support.archives import Contents, archive_run, prune, source_blocks
from tests.support.meanwhile import at_each_request
from tests.support.memory_store import MemoryStore
from tests.support.repositories import ManualClock, require_whole, visible
from tests.support.runs import transfer
from tests.support.stored_backups import run_here

DAY = timedelta(days=1)
BEGIN_MS, END_MS = 1737504000000, 1737511200000
"""The times of the block in tests.support.manifests."""
CHANGES = (1, 2, 4, 7, 10, 11, 12, 13, 100)
"""After how many changes of a deletion to look: some of each night, and the end."""


def meta(ulid: str) -> bytes:
    compaction = {"level": 1, "sources": [ulid]}
    times = {"minTime": BEGIN_MS, "maxTime": END_MS}
    return json.dumps({"version": 1, "ulid": ulid, **times, "compaction": compaction}).encode()


def block(ulid: str) -> Contents:
    return {ulid: {"index": f"index of {ulid}".encode(), "meta.json": meta(ulid)}}


KEPT, GOING = block(manifests.ULID), block(manifests.OTHER_ULID)


class ChecksumStore(MemoryStore):
    """Keeps checksums, as AWS does."""

    @property
    def keeps_checksums(self) -> bool:
        return True

    def stored_checksum(self, key: str) -> str | None:
        return hashlib.sha256(b"".join(self.stream(key))).hexdigest()


def two_backups(store: MemoryStore, clock: ManualClock) -> tuple[str, str]:
    """An expired backup with a block of its own, and one that is kept."""
    going = archive_run(store, clock, run_id="one", contents={**KEPT, **GOING})
    clock.instant += DAY
    previous = Repository(store, clock=clock).manifest(going)
    kept = archive_run(store, clock, run_id="two", contents=KEPT, previous=previous)
    clock.instant += DAY
    return going, kept


class Scene:
    """Makes the store again and again; every prune of it is a night later."""

    def __init__(self, kind: type[MemoryStore] = MemoryStore, *, night: timedelta = DAY) -> None:
        self._kind = kind
        self._night = night
        self._clock = ManualClock()
        self._prepared = kind(clock=self._clock)
        self.going, self.kept = two_backups(self._prepared, self._clock)

    def store(self) -> MemoryStore:
        self.clock = ManualClock(self._clock.instant)
        store = self._kind(clock=self.clock)
        store.copy_all(self._prepared)
        return store

    def nights(self, store: ObjectStore) -> None:
        """Mark and delete what nobody wants."""
        for _ in range(3):
            prune(store, self.clock)
            self.clock.instant += self._night + timedelta(minutes=1)

    def require_kept(self, store: ObjectStore) -> None:
        self.nights(store)
        left = {o.key: b"".join(store.stream(o.key)) for o in store.list()}
        require_whole(left)
        assert self.kept in visible(left)
        assert not [key for key in left if f"/{manifests.OTHER_ULID}/" in key]


def test_a_restore_of_a_backup_that_is_deleted_meanwhile_says_so(tmp_path: Path) -> None:
    scene, seen = Scene(), Counter[str]()
    whole = {f"{ulid}/index" for ulid in (*KEPT, *GOING)}
    for number, (store, view) in enumerate(
        at_each_request(scene.store, scene.nights, changes=CHANGES)
    ):
        target = tmp_path / str(number)
        repository: Any = Repository(view, clock=scene.clock)
        job = Restore(repository, transfer(), target, Policy(), ignore)
        try:
            report = job.apply(job.prepare(repository.find(scene.going)))
        except BackupNotFound as error:
            cause = error.message.partition(scene.going)[2]
            seen[cause.partition(" in memory:")[0]] += 1
        else:
            seen["restored"] += 1
            assert report.damaged == ()
            assert whole <= {p.relative_to(target).as_posix() for p in target.rglob("*")}
        scene.require_kept(store)
    assert seen[": it was deleted meanwhile"] > 10
    assert seen["restored"] > 10


@pytest.mark.parametrize(
    "command",
    [("restore", "TARGET"), ("restore", "TARGET", "--dry-run"), ("show",), ("open", "--dry-run")],
)
def test_a_command_says_that_its_backup_was_deleted_before_it_read_the_manifest(
    command: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = ManualClock()
    root = tmp_path / "repository"
    made = archive_run(LocalStore(root), clock, run_id="one", contents=KEPT)
    find = Repository.find

    def found_and_deleted(repository: Repository, name: str, **more: Any) -> BackupEntry:
        entry = find(repository, name, **more)
        repository.delete_backup(entry.backup_id, run_id="other")
        return entry

    monkeypatch.setattr(Repository, "find", found_and_deleted)
    name, *rest = (str(tmp_path / "target") if a == "TARGET" else a for a in command)
    env = {"REPOSITORY": f"file://{root}", "SCRATCH_DIR": str(tmp_path)}
    done = run_here(name, made, *rest, env=env)
    assert done.returncode == 30, done.stderr
    assert f"cannot {name} {made}: it was deleted meanwhile" in done.stderr


def test_heal_leaves_out_a_backup_that_was_deleted_since_the_listing() -> None:
    scene = Scene()
    store = scene.store()
    repository = Repository(store, clock=scene.clock)
    finder = CandidateFinder(repository, [BadBlock(manifests.OTHER_ULID, Effect.HIDES_DATA)])
    finder._read_until(lambda: True)  # lists the backups
    repository.delete_backup(scene.kept, run_id="other")
    assert [c.backup_id for c in finder.all()] == [scene.going]


@pytest.mark.parametrize("level", [Level.SIZE, Level.CHECKSUM])
def test_a_verification_takes_no_deletion_for_damage(level: Level) -> None:
    scene, seen = Scene(ChecksumStore), Counter[int]()
    for store, view in at_each_request(scene.store, scene.nights, changes=CHANGES):
        repository: Any = Repository(view, clock=scene.clock)
        verifier = Verifier(repository, transfer(), level, ignore)
        report = verifier.verify([e for e in repository.entries() if e.header])
        assert {r.result.verdict for r in report.checked} == {Verdict.PASS}, level
        assert scene.kept in {r.result.backup_id for r in report.checked}
        seen[len(report.checked)] += 1
        scene.require_kept(store)
        assert all(e.good for e in Repository(store, clock=scene.clock).entries())
    assert seen[1] > 10
    assert seen[2] > 10


@pytest.mark.parametrize("kind", [MemoryStore, ChecksumStore])
def test_a_full_backup_that_copies_what_is_deleted_meanwhile_sends_it(
    kind: type[MemoryStore], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention_archive, "GRACE", timedelta(0))  # else it would run for days
    scene, seen = Scene(kind, night=timedelta(0)), Counter[bool]()
    source = {**KEPT, **GOING}
    for ulid, files in source.items():
        for path, body in files.items():
            (tmp_path / ulid).mkdir(exist_ok=True)
            (tmp_path / ulid / path).write_bytes(body)
    for store, view in at_each_request(scene.store, scene.nights, changes=CHANGES):
        made, copied = full_run(view, scene, source, tmp_path)
        seen[copied] += 1
        left = {o.key: b"".join(store.stream(o.key)) for o in store.list()}
        require_whole(left)
        assert made in visible(left)
        scene.nights(store)
        require_whole({o.key: b"".join(store.stream(o.key)) for o in store.list()})
    assert seen[True] > 10
    assert seen[False] > 10


def full_run(view: Any, scene: Scene, source: Contents, folder: Path) -> tuple[str, bool]:
    """Back up in layout `full` what the archive has; return whether all of it was copied."""
    repository = Repository(view, clock=scene.clock)
    claim = claim_backup(repository, run_id="full", intent="")
    try:
        previous = repository.manifest(scene.going)
    except ObjectNotFound:
        previous = None
    plan = plan_backup(
        source_blocks(source),
        backup_id=claim.backup_id,
        previous=previous,
        dead_runs=(),
        mutable=MUTABLE,
    )
    uploader = Uploader(
        repository=repository,
        claim=claim,
        transfer=transfer(),
        options=PutOptions(),
        verify=Level.CHECKSUM,
        rehash=False,
    )
    stored = uploader.verify_stored(uploader.store(plan, folder), folder)
    blocks = [
        manifests.block(
            *(
                manifests.file(s.path, size=s.size, sha256=s.sha256, key=s.key)
                for s in stored
                if s.ulid == ulid
            ),
            ulid=ulid,
            sources=[ulid],
        )
        for ulid in source
    ]
    size = sum(s.size for s in stored)
    document = manifests.document(
        backup_id=claim.backup_id,
        run_id="full",
        labels={},
        blocks=blocks,
        storage_size_bytes=size,
    )
    body = json.dumps(document).encode()
    claim.commit(decode_manifest(body, backup_id=claim.backup_id), options=PutOptions())
    return claim.backup_id, sum(s.copied for s in stored) == len(source)
