"""Verification before the commit: wrong objects are uploaded once more, else the run fails."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from devtools.prometheus import PrometheusServer
from prometheus_backup.errors import BytesDiffer, RepositoryLocked, SnapshotUnusable
from prometheus_backup.events import (
    BackupCommitted,
    Event,
    FileCopied,
    PlanMade,
    SnapshotRemoved,
    SnapshotTaken,
)
from prometheus_backup.model import Level, Outcome, PutOptions
from prometheus_backup.repository.entry import State
from prometheus_backup.repository.repository import Repository
from prometheus_backup.stores.base import ObjectStore
from tests.support.contents import (
    CLEAN,
    SnapshotKeeper,
    backup_folders,
    live_blocks,
    objects,
    traces,
    tree,
)
from tests.support.faulty_stores import (
    DamagingCopyStore,
    DamagingStore,
    RecordingStore,
    flip_a_bit,
    truncate,
)
from tests.support.memory_store import MemoryStore
from tests.support.runs import (
    FakeClock,
    Recorder,
    cli,
    options,
    settings,
    take_backup,
)

ALWAYS = 1_000_000


class SnapshotChanger(Recorder):
    """Changes the first chunk file of the snapshot, between planning and reading.

    A file of a snapshot is a hard link to Prometheus' own file, so it is replaced, not modified.
    """

    def __init__(self, data_dir: Path, body: bytes | None) -> None:
        super().__init__()
        self._data_dir = data_dir
        self._body = body

    def __call__(self, event: Event) -> None:
        super().__call__(event)
        if isinstance(event, PlanMade):
            (taken,) = self.of(SnapshotTaken)
            folder = self._data_dir / "snapshots" / taken.name
            file = min(folder.glob("*/chunks/000001"))
            file.unlink()
            if self._body is not None:
                file.write_bytes(self._body)


def assert_nothing_committed(store: ObjectStore, source: PrometheusServer) -> None:
    """No manifest, no checksums, the end of the run is recorded, the data directory is clean."""
    (entry,) = Repository(store, clock=FakeClock()).entries()
    assert entry.state is State.INCOMPLETE
    assert entry.incomplete is not None
    assert entry.incomplete.state == "abandoned"
    names = objects(store, entry.backup_id)
    assert "metadata.json" not in names
    assert "SHA256SUMS" not in names
    assert traces(source.data_dir) == CLEAN


@pytest.mark.parametrize("damage", [flip_a_bit, truncate])
@pytest.mark.parametrize("ending", ["/chunks/000001", "/tombstones"])
def test_a_wrong_object_is_uploaded_once_more(
    source: PrometheusServer, tmp_path: Path, damage: Callable[[bytes], bytes], ending: str
) -> None:
    store = DamagingStore(damage, ending=ending, times=1)
    keeper = SnapshotKeeper(source.data_dir, tmp_path / "kept")
    report = take_backup(source, store, listener=keeper)
    assert store.times == 0, "the fault was exercised"
    assert report.outcome is Outcome.DONE
    assert "Verification failed: " in keeper.warnings
    assert keeper.warnings.count("uploading it again") == 1
    twice = [key for key in set(store.puts) if store.puts.count(key) == 2]
    assert [key.endswith(ending) for key in twice] == [True]
    stored, snapshot = objects(store, report.manifest.backup_id), tree(keeper.kept)
    assert {path: stored[path] for path in snapshot} == snapshot


def test_an_object_that_is_wrong_twice_ends_the_run_before_the_commit(
    source: PrometheusServer,
) -> None:
    store, recorder = DamagingStore(flip_a_bit, ending="/index", times=ALWAYS), Recorder()
    with pytest.raises(BytesDiffer, match=r"^Verification failed: .*/index") as caught:
        take_backup(source, store, listener=recorder)
    assert caught.value.exit_code == 40
    assert "nothing was committed" in caught.value.hint
    assert recorder.of(BackupCommitted) == []
    assert len(recorder.of(SnapshotRemoved)) == 1
    # Uploaded twice, but not a third time.
    assert {store.puts.count(key) for key in store.puts if key.endswith("/index")} == {2}
    assert {store.puts.count(key) for key in store.puts if not key.endswith("/index")} == {1}
    assert_nothing_committed(store, source)


@pytest.mark.parametrize("level", [None, Level.SIZE])
def test_an_object_of_the_wrong_size_is_detected_at_every_level(
    source: PrometheusServer, level: Level | None
) -> None:
    store = DamagingStore(truncate, ending="/index", times=ALWAYS)
    with pytest.raises(BytesDiffer):
        take_backup(source, store, options(verify=level))
    assert_nothing_committed(store, source)


def test_a_copy_whose_checksum_differs_from_the_original_is_uploaded(
    source: PrometheusServer,
) -> None:
    store, recorder = DamagingCopyStore(), Recorder()
    take_backup(source, store)
    store.puts.clear()
    report = take_backup(source, store, listener=recorder)
    copied = [e.key for e in recorder.of(FileCopied) if e.key.endswith("/index")]
    assert len(copied) == 4
    assert set(copied) <= set(store.puts)
    assert all(f"Verification failed: {key} " in recorder.warnings for key in copied)
    stored = objects(store, report.manifest.backup_id)
    for block in live_blocks(source.data_dir):
        assert stored[f"{block.name}/index"] == (block / "index").read_bytes()
    # The upload is counted as an upload.
    sent = sum(f.size for _, f in report.manifest.files() if f.key in store.puts)
    assert report.manifest.totals.uploaded_bytes == sent


@pytest.mark.parametrize("level", [Level.SIZE, Level.CHECKSUM])
def test_files_of_a_failed_run_are_reused_only_after_they_were_read_back(
    source: PrometheusServer, tmp_path: Path, level: Level
) -> None:
    bad = DamagingStore(flip_a_bit, ending="/index", times=ALWAYS)
    with pytest.raises(BytesDiffer):
        take_backup(source, bad)
    bad.times = 0
    bad.puts.clear()
    keeper = SnapshotKeeper(source.data_dir, tmp_path / "kept")
    report = take_backup(source, bad, options(verify=level), listener=keeper)
    assert len(keeper.of(FileCopied)) == 8
    assert keeper.warnings.count("Verification failed") == 4  # the indices of the four old blocks
    chunks = {f.key for b, f in report.manifest.files() if f.path == "chunks/000001"}
    assert len(chunks & set(bad.puts)) == 1  # of the head; the others were not uploaded again
    stored, snapshot = objects(bad, report.manifest.backup_id), tree(keeper.kept)
    assert {path: stored[path] for path in snapshot} == snapshot
    # Retention removed the leftovers of the failed run.
    assert backup_folders(bad) == [report.manifest.backup_id]


@pytest.mark.parametrize("body", [b"", b"short"])
def test_a_file_that_shrank_after_the_plan_ends_the_run(
    source: PrometheusServer, body: bytes
) -> None:
    store = MemoryStore()
    before = tree(live_blocks(source.data_dir)[0])
    with pytest.raises(BytesDiffer, match=r"Upload failed: cannot read .*/chunks/000001: ") as got:
        take_backup(source, store, listener=SnapshotChanger(source.data_dir, body))
    assert f"it has {len(body)} bytes, not " in got.value.message
    assert tree(live_blocks(source.data_dir)[0]) == before
    assert_nothing_committed(store, source)


def test_a_file_that_vanished_after_the_plan_ends_the_run(source: PrometheusServer) -> None:
    store = MemoryStore()
    with pytest.raises(SnapshotUnusable, match=r"Upload failed: cannot read .*No such file") as got:
        take_backup(source, store, listener=SnapshotChanger(source.data_dir, None))
    assert got.value.exit_code == 22
    assert_nothing_committed(store, source)


def test_an_object_of_another_run_in_our_folder_ends_the_run(source: PrometheusServer) -> None:
    class Shared(RecordingStore):
        """A store without conditional writes: another run writes into the same folder."""

        def put(self, key: str, body: object, *, size: int, options: PutOptions) -> None:
            super().put(key, body, size=size, options=options)  # type: ignore[arg-type]
            folder = key.partition("/")[0]
            self.put_small(f"{folder}/01JJ5W0B8ZC6X3M1S4T9Q2V7KD/index", b"x", options=options)

    store = Shared()
    with pytest.raises(RepositoryLocked, match="another run wrote") as caught:
        take_backup(source, store)
    assert caught.value.exit_code == 11
    assert_nothing_committed(store, source)


def test_without_verification_the_backup_is_marked_as_unverified(
    source: PrometheusServer, tmp_path: Path
) -> None:
    env = settings(source, tmp_path / "repository", VERIFY_BACKUP="false")
    done = cli("backup", "--json", env=env)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["verified"] is None
    (folder,) = (tmp_path / "repository").glob("backup-*")
    assert json.loads((folder / "metadata.json").read_bytes())["verified"] is None
    for shown in (cli("list", env=env), cli("show", "latest", env=env)):
        assert "unverified" in shown.stdout
