"""A second backup of the same Prometheus: what is uploaded, what the store copies, and from where.

Each test compares the new backup byte for byte with its snapshot.
"""

import hashlib
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

from devtools.prometheus import PrometheusServer
from devtools.s3 import S3Bucket
from prometheus_backup.events import FileCopied, FileUploaded, PlanMade
from prometheus_backup.model import Level, Outcome, Verdict
from prometheus_backup.repository.manifest import Manifest
from prometheus_backup.repository.repository import Repository
from prometheus_backup.repository.verification import Verification
from prometheus_backup.stores.base import ObjectStore
from tests.support.contents import SnapshotKeeper, keys, live_blocks, objects, tree
from tests.support.faulty_stores import CannotCopyStore, RecordingStore, flip_a_bit
from tests.support.memory_store import MemoryStore
from tests.support.runs import FakeClock, Recorder, cli, options, settings, take_backup
from tests.support.s3 import open_s3

MUTABLE = ("/meta.json", "/tombstones")


def within(keys: list[str]) -> set[str]:
    """The keys without the folder of their backup."""
    return {key.partition("/")[2] for key in keys}


def bytes_as_promised(store: ObjectStore, manifest: Manifest) -> bool:
    """Return whether every object of a backup has the size and hash from the manifest."""
    stored = objects(store, manifest.backup_id)
    return all(
        len(body := stored[f"{block.ulid}/{file.path}"]) == file.size
        and hashlib.sha256(body).hexdigest() == file.sha256
        for block, file in manifest.files()
    )


def fail_verification(store: ObjectStore, backup_id: str) -> None:
    """Record, as `verify` would, that this backup has faults."""
    clock = FakeClock()
    Repository(store, clock=clock).results.record(
        Verification(
            backup_id=backup_id,
            level=Level.CHECKSUM,
            verdict=Verdict.FAIL,
            verified_at=clock.now(),
            tool_version="1.0.0",
            objects=1,
            bytes_read=1,
        )
    )


def test_the_second_backup_uploads_only_the_head_and_the_small_mutable_files(
    prometheus: PrometheusServer, s3_bucket: S3Bucket, tmp_path: Path
) -> None:
    store = open_s3(s3_bucket)
    first = take_backup(prometheus, store).manifest
    keeper = SnapshotKeeper(prometheus.data_dir, tmp_path / "kept")
    report = take_backup(prometheus, store, listener=keeper)
    second = report.manifest
    assert report.outcome is Outcome.DONE

    old = {path.name for path in live_blocks(prometheus.data_dir)}
    snapshot = tree(keeper.kept)
    copied = {
        path for path in snapshot if path.partition("/")[0] in old and not path.endswith(MUTABLE)
    }
    assert len(copied) == 2 * len(old)
    assert within([e.key for e in keeper.of(FileCopied)]) == copied
    assert within([e.key for e in keeper.of(FileUploaded)]) == snapshot.keys() - copied
    copied_bytes = sum(len(snapshot[path]) for path in copied)
    assert second.totals.copied_bytes == copied_bytes
    assert second.totals.uploaded_bytes == sum(map(len, snapshot.values())) - copied_bytes
    (plan,) = keeper.of(PlanMade)
    assert (plan.copy_files, plan.copy_size) == (len(copied), copied_bytes)

    stored = objects(store, second.backup_id)
    assert {path: stored[path] for path in snapshot} == snapshot
    # Each backup is complete under its own prefix: the second has no key inside the first.
    assert all(file.key.startswith(second.backup_id) for _, file in second.files())
    assert first.backup_id != second.backup_id
    assert bytes_as_promised(store, first)


def test_no_byte_of_a_copied_file_is_uploaded(source: PrometheusServer) -> None:
    store = RecordingStore()
    first = take_backup(source, store).manifest
    store.puts.clear()
    recorder = Recorder()
    second = take_backup(source, store, listener=recorder).manifest
    assert sorted(store.puts) == sorted(e.key for e in recorder.of(FileUploaded))
    assert all(key.startswith(first.backup_id) for key in store.copied_from)
    assert within(store.copied_from) == within([e.key for e in recorder.of(FileCopied)])
    assert 0 < second.totals.uploaded_bytes < second.totals.copied_bytes


def test_changed_tombstones_are_uploaded_and_the_old_backup_keeps_the_old_ones(
    prometheus: PrometheusServer, tmp_path: Path
) -> None:
    store = RecordingStore()
    first = take_backup(prometheus, store).manifest
    before = objects(store, first.backup_id)
    prometheus.delete_series('{series="3"}')
    keeper = SnapshotKeeper(prometheus.data_dir, tmp_path / "kept")
    second = take_backup(prometheus, store, listener=keeper).manifest

    after, snapshot = objects(store, second.backup_id), tree(keeper.kept)
    assert {path: after[path] for path in snapshot} == snapshot
    for block in live_blocks(prometheus.data_dir):
        for name in ("tombstones", "meta.json"):
            assert after[f"{block.name}/{name}"] != before[f"{block.name}/{name}"]
        assert f"{first.backup_id}/{block.name}/index" in store.copied_from
    assert objects(store, first.backup_id) == before
    assert bytes_as_promised(store, second)


def test_compacted_blocks_are_uploaded_completely(
    prometheus: PrometheusServer, tmp_path: Path
) -> None:
    store = RecordingStore()
    first = take_backup(prometheus, store).manifest
    before = {path.name for path in live_blocks(prometheus.data_dir)}
    prometheus.delete_series('devtools_value{series="3"}')
    prometheus.clean_tombstones()
    after = {path.name for path in live_blocks(prometheus.data_dir)}
    assert not before & after, "Prometheus has rewritten all blocks"

    store.puts.clear()
    keeper = SnapshotKeeper(prometheus.data_dir, tmp_path / "kept")
    second = take_backup(prometheus, store, listener=keeper).manifest
    assert store.copied_from == []
    assert within(store.puts) == tree(keeper.kept).keys()
    assert {b.ulid for b in second.blocks} > after
    assert {parent for b in second.blocks for parent in b.parents} == before
    assert {b.ulid for b in first.blocks} > before
    assert bytes_as_promised(store, first)
    assert bytes_as_promised(store, second)


def test_files_that_the_store_cannot_copy_are_uploaded(source: PrometheusServer) -> None:
    store, recorder = CannotCopyStore(), Recorder()
    take_backup(source, store)
    report = take_backup(source, store, listener=recorder)
    assert report.outcome is Outcome.DONE
    assert report.manifest.totals.copied_bytes == 0
    assert report.manifest.totals.uploaded_bytes == report.manifest.totals.bytes
    assert recorder.of(FileCopied) == []
    assert "NotImplemented; uploading" in recorder.warnings
    assert bytes_as_promised(store, report.manifest)


def test_an_object_deleted_from_the_previous_backup_is_uploaded(
    source: PrometheusServer, s3_bucket: S3Bucket
) -> None:
    store, recorder = open_s3(s3_bucket), Recorder()
    first = take_backup(source, store).manifest
    lost = next(file for block, file in first.files() if file.path == "index")
    s3_bucket.delete(f"prometheus-snapshots/{lost.key}")
    report = take_backup(source, store, listener=recorder)
    assert report.outcome is Outcome.DONE
    assert f"{lost.key}: it no longer exists; uploading" in recorder.warnings
    path = lost.key.partition("/")[2]
    assert f"{report.manifest.backup_id}/{path}" in [e.key for e in recorder.of(FileUploaded)]
    assert len(recorder.of(FileCopied)) == 7  # the others are still copied
    assert bytes_as_promised(store, report.manifest)


def test_a_backup_with_findings_is_never_copied_from(source: PrometheusServer) -> None:
    store = RecordingStore()
    first = take_backup(source, store).manifest
    second = take_backup(source, store).manifest
    fail_verification(store, second.backup_id)
    store.copied_from.clear()
    take_backup(source, store)
    assert store.copied_from, "the older, good one is used"
    assert {key.partition("/")[0] for key in store.copied_from} == {first.backup_id}

    store.copied_from.clear()
    for backup_id in {key.partition("/")[0] for key in keys(store)}:
        fail_verification(store, backup_id)
    recorder = Recorder()
    report = take_backup(source, store, listener=recorder)
    assert not store.copied_from
    assert not recorder.of(FileCopied)
    assert report.manifest.totals.copied_bytes == 0


def test_rehash_detects_an_index_that_changed_in_place(source: PrometheusServer) -> None:
    store = MemoryStore()
    first = take_backup(source, store).manifest
    block = live_blocks(source.data_dir)[0]
    index = block / "index"
    index.write_bytes(flip_a_bit(index.read_bytes()))  # in place: same inode, same size

    def index_hash(manifest: Manifest) -> str:
        (found,) = (
            f.sha256 for b, f in manifest.files() if b.ulid == block.name and f.path == "index"
        )
        return found

    trusting = take_backup(source, store).manifest
    assert index_hash(trusting) == index_hash(first)
    recorder = Recorder()
    report = take_backup(source, store, options(rehash=True), listener=recorder)
    assert index_hash(report.manifest) == hashlib.sha256(index.read_bytes()).hexdigest()
    assert f"{block.name}/index changed, but not its name or size; " in recorder.warnings
    assert len(recorder.of(FileCopied)) == 7  # only that one was uploaded again
    assert objects(store, report.manifest.backup_id)[f"{block.name}/index"] == index.read_bytes()


def test_copies_have_the_tags_class_and_encryption_of_their_own_backup(
    source: PrometheusServer, moto_bucket: S3Bucket
) -> None:
    yesterday = FakeClock(datetime.now(UTC) - timedelta(days=1))
    take_backup(source, open_s3(moto_bucket, sse="none"), clock=yesterday)
    recorder = Recorder()
    chosen = options(storage_class="STANDARD_IA")
    store = open_s3(moto_bucket, sse="AES256")
    second = take_backup(source, store, chosen, listener=recorder).manifest
    copies = [f"prometheus-snapshots/{e.key}" for e in recorder.of(FileCopied)]
    assert len(copies) == 8
    for key in copies:
        head = moto_bucket.client.head_object(Bucket=moto_bucket.name, Key=key)
        assert head.get("StorageClass") == "STANDARD_IA"
        assert head.get("ServerSideEncryption") == "AES256"
        tags = moto_bucket.tags(key)
        assert tags["SnapshotName"] == second.backup_id
        assert tags["Date"] == f"{second.started_at:%Y-%m-%d}"
        assert tags["Content"] == "data"


def test_the_command_line_reports_what_was_copied(source: PrometheusServer, tmp_path: Path) -> None:
    env = settings(source, tmp_path / "repository")
    assert cli("backup", env=env).returncode == 0
    done = cli("backup", "--json", env=env)
    totals = json.loads(done.stdout)["totals"]
    assert done.returncode == 0
    immutable = [
        file
        for block in live_blocks(source.data_dir)
        for file in (block / "index", *(block / "chunks").iterdir())
    ]
    assert totals["copied_bytes"] == sum(file.stat().st_size for file in immutable)
    assert totals["uploaded_bytes"] > 0
    assert totals["uploaded_bytes"] + totals["copied_bytes"] == totals["bytes"]
