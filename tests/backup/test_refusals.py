"""How a run handles existing contents of the repository and the data directory, or refuses them.

A refused run sends Prometheus no write request and changes nothing in the repository.
"""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from devtools.prometheus import PrometheusServer
from devtools.s3 import S3Bucket
from prometheus_backup.datadir.lock import HostLock
from prometheus_backup.errors import NewerFormat, UsageError
from prometheus_backup.events import SnapshotTaken
from prometheus_backup.model import CONTROL, Outcome
from prometheus_backup.repository.layout import backup_id
from prometheus_backup.repository.manifest import Incomplete, encode
from tests.support.contents import CLEAN, keys, live_blocks, traces, tree
from tests.support.manifests import BACKUP_ID, OLD_SCRIPT, encoded
from tests.support.memory_store import MemoryStore
from tests.support.runs import Recorder, cli, options, settings, take_backup, without_privileges

READ_ONLY = 0o555


def put(store: MemoryStore, key: str, body: bytes) -> None:
    """Write an object as if left by another program, version or run."""
    store.put_small(key, body, options=CONTROL)


def everything(store: MemoryStore) -> dict[str, bytes]:
    """All objects of a repository."""
    return {key: b"".join(store.stream(key)) for key in keys(store)}


def test_labels_other_than_the_newest_backups_are_refused(source: PrometheusServer) -> None:
    store, recorder = MemoryStore(), Recorder()
    newest = take_backup(source, store, options(labels={"replica": "a"})).manifest.backup_id
    before = everything(store)
    for labels in ({"replica": "b"}, {}, {"replica": "a", "cluster": "eu-1"}):
        with pytest.raises(UsageError, match=r"^cannot back up into memory:: ") as caught:
            take_backup(source, store, options(labels=labels), listener=recorder)
        assert caught.value.exit_code == 2
        assert newest in caught.value.message
        assert "replica=a" in caught.value.message
        assert "separate prefix" in caught.value.hint
    assert everything(store) == before
    assert recorder.of(SnapshotTaken) == []
    assert traces(source.data_dir) == CLEAN
    same = take_backup(source, store, options(labels={"replica": "a"}))
    assert same.outcome is Outcome.DONE


def test_a_backup_of_a_newer_format_is_refused(source: PrometheusServer) -> None:
    store, recorder = MemoryStore(), Recorder()
    put(store, f"{BACKUP_ID}/metadata.json", encoded(format_version=3))
    before = everything(store)
    with pytest.raises(NewerFormat, match="it has format 3, this program reads up to 2") as caught:
        take_backup(source, store, listener=recorder)
    assert caught.value.exit_code == 14
    assert caught.value.hint == "upgrade prometheus-backup"
    assert everything(store) == before
    assert recorder.of(SnapshotTaken) == []
    assert traces(source.data_dir) == CLEAN


@pytest.mark.parametrize(
    "damaged",
    [encoded()[:200], b"", encoded(backup_id="backup-20250101-000000"), encoded(blocks=3)],
    ids=["truncated", "empty", "of another backup", "of wrong types"],
)
def test_an_unreadable_manifest_is_reported_and_kept_and_the_run_continues(
    source: PrometheusServer, damaged: bytes
) -> None:
    store, recorder = MemoryStore(), Recorder()
    put(store, f"{BACKUP_ID}/metadata.json", damaged)
    put(store, f"{BACKUP_ID}/01JJ5W0B8ZC6X3M1S4T9Q2V7KD/index", b"precious")
    before = everything(store)
    report = take_backup(source, store, listener=recorder)
    assert f"cannot read manifest {BACKUP_ID}/metadata.json" in recorder.warnings
    assert report.outcome is Outcome.PARTIAL
    (problem,) = report.problems
    assert problem.startswith("retention: ")
    assert BACKUP_ID in problem
    after = everything(store)
    assert {key: after[key] for key in before} == before
    assert f"{report.manifest.backup_id}/metadata.json" in after


def test_objects_of_other_tools_in_the_prefix_are_left_alone(source: PrometheusServer) -> None:
    store, recorder = MemoryStore(), Recorder()
    foreign = {
        "README": b"hello",
        "backup.tar.gz": b"\x1f\x8b",
        "thanos/01JJ5W0B8ZC6X3M1S4T9Q2V7KD/meta.json": b"{}",
        "backup-20240301-020000/metadata.json": OLD_SCRIPT,
        "backup-20240301-020000/01JJ5W0B8ZC6X3M1S4T9Q2V7KD/index": b"old",
        "backup-20240401-020000/data.bin": b"no document at all",
        "backup-latest/metadata.json": encoded(),
    }
    for key, body in foreign.items():
        put(store, key, body)
    report = take_backup(source, store, listener=recorder)
    assert report.outcome is Outcome.DONE
    after = everything(store)
    assert {key: body for key, body in after.items() if key in foreign} == foreign
    added = {key.partition("/")[0] for key in after.keys() - foreign.keys()}
    assert added == {report.manifest.backup_id}


def test_another_run_on_the_same_data_directory_is_refused(
    source: PrometheusServer, tmp_path: Path
) -> None:
    lock = HostLock.take(source.data_dir)
    try:
        done = cli("backup", env=settings(source, tmp_path / "repository"))
    finally:
        lock.release()
    assert done.returncode == 11
    assert f"cannot lock {source.data_dir}: another prometheus-backup is using it" in done.stderr
    assert not (tmp_path / "repository").exists()
    assert not (source.data_dir / "snapshots").exists()


@pytest.fixture
def read_only(source: PrometheusServer) -> Iterator[PrometheusServer]:
    """The source, with a data directory that is read-only except for snapshots."""
    (source.data_dir / "snapshots").mkdir()
    source.data_dir.chmod(READ_ONLY)
    yield source
    for folder in (source.data_dir, *folders_of_snapshots(source)):
        folder.chmod(0o755)


def folders_of_snapshots(source: PrometheusServer) -> list[Path]:
    """The snapshots folder and all folders in it, outermost first."""
    below = (path for path in (source.data_dir / "snapshots").rglob("*") if path.is_dir())
    return [source.data_dir / "snapshots", *sorted(below)]


@contextmanager
def sealed_once_taken(source: PrometheusServer, repository: Path) -> Iterator[None]:
    """Make the snapshots read-only, too, once the first file was uploaded."""

    def seal() -> None:
        while not any(repository.glob("backup-*/*/*")):
            if over.wait(0.002):
                return
        for folder in reversed(folders_of_snapshots(source)):
            folder.chmod(READ_ONLY)

    over = threading.Event()
    thread = threading.Thread(target=seal)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def test_a_read_only_data_directory_is_backed_up_and_the_leftover_snapshot_reported(
    read_only: PrometheusServer, tmp_path: Path
) -> None:
    repository = tmp_path / "repository"
    env = settings(read_only, repository, MAX_BANDWIDTH="50kB")  # enough time to make it read-only
    with sealed_once_taken(read_only, repository):
        done = cli("backup", "--json", env=env, prefix=without_privileges())
    assert done.returncode == 3, done.stderr
    output = json.loads(done.stdout)
    (name,) = (path.name for path in (read_only.data_dir / "snapshots").iterdir())
    assert output["problems"] == [f"the snapshot {name} could not be removed"]
    assert output["totals"]["blocks"] == 5
    assert not output["degraded"]
    assert name in done.stderr
    assert (repository / output["backup_id"] / "metadata.json").is_file()
    assert not (read_only.data_dir / ".prometheus-backup").exists()


@pytest.mark.parametrize(("state", "code"), [("running", 11), ("abandoned", 0)])
def test_with_a_read_only_directory_a_recent_run_of_another_host_blocks_the_backup(
    read_only: PrometheusServer, s3_bucket: S3Bucket, state: str, code: int
) -> None:
    began = datetime.now(UTC) - timedelta(minutes=3)
    document = Incomplete.model_validate(
        {"run_id": "theirs", "state": state, "host": "node-7", "started_at": began}
    )
    key = f"prometheus-snapshots/{backup_id(began)}/incomplete.json"
    s3_bucket.put(key, encode(document))
    done = cli("backup", env=settings(read_only, s3_bucket), prefix=without_privileges())
    assert done.returncode == code, done.stderr
    if state == "running":  # the other run has not recorded its end
        assert f"{backup_id(began)} is in progress on node-7" in done.stderr
        assert "wait for the other run to finish" in done.stderr
        assert s3_bucket.keys() == [key], "nothing was written, and the probe is gone"
    else:
        assert key not in s3_bucket.sizes(), "what the other left was swept"
    assert list((read_only.data_dir / "snapshots").iterdir()) == []


def test_nothing_is_ever_written_into_the_blocks(source: PrometheusServer) -> None:
    before = {block: tree(block) for block in live_blocks(source.data_dir)}
    assert len(before) == 4
    take_backup(source, MemoryStore())
    assert {block: tree(block) for block in live_blocks(source.data_dir)} == before
