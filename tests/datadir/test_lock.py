"""The host lock and the intents, with real processes that hold the lock and die."""

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from prometheus_backup.datadir.lock import HostLock, Intent
from prometheus_backup.errors import RepositoryLocked, UsageError
from tests.support.runs import bare_environment, without_privileges

FULL = Intent(
    run_id="r1",
    backup_id="backup-20250301-120000",
    repository="s3://bucket/prefix",
    asked_at="2025-03-01T12:00:00Z",
    known=("20250301T110000Z-0123456789abcdef",),
    snapshot="20250301T120000Z-0123456789abcdef",
)
HOLDER = """
import sys
from pathlib import Path
from prometheus_backup.datadir.lock import HostLock, Intent
lock = HostLock.take(Path(sys.argv[1]))
lock.record(Intent("holder", snapshot="of the holder"))
print("held", flush=True)
sys.stdin.read()
"""
READ_ONLY = """
import sys
from pathlib import Path
from prometheus_backup.datadir.lock import HostLock, Intent
lock = HostLock.take(Path(sys.argv[1]))
lock.record(Intent("r2"))
lock.forget("r1")
print(lock.held, lock.dead_intents(own_run_id="x"), lock.recorded.run_id)
"""


@contextmanager
def locked(data_dir: Path) -> Iterator[HostLock]:
    lock = HostLock.take(data_dir)
    try:
        yield lock
    finally:
        lock.release()


@contextmanager
def holder(data_dir: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Another process that holds the lock until it ends."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(data_dir)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=bare_environment({}),
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"held\n"
        try:
            yield process
        finally:
            process.kill()


def test_only_one_process_holds_the_lock_of_a_directory(tmp_path: Path) -> None:
    with holder(tmp_path), pytest.raises(RepositoryLocked, match="another prometheus-backup"):
        HostLock.take(tmp_path)


def test_lock_also_works_within_one_process(tmp_path: Path) -> None:
    with locked(tmp_path), pytest.raises(RepositoryLocked):
        HostLock.take(tmp_path)
    HostLock.take(tmp_path).release()


def test_directories_are_locked_independently(tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / name).mkdir()
    with locked(tmp_path / "a"), locked(tmp_path / "b") as other:
        assert other.held


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_lock_of_a_dead_process_is_free_and_its_intent_is_dead(tmp_path: Path, number: int) -> None:
    with holder(tmp_path) as process:
        process.send_signal(number)
        process.wait(30)
    with locked(tmp_path) as lock:
        assert lock.dead_intents(own_run_id="mine") == [Intent("holder", snapshot="of the holder")]
        lock.forget("holder")
        assert lock.dead_intents(own_run_id="mine") == []


def test_recorded_intent_is_read_back(tmp_path: Path) -> None:
    with locked(tmp_path) as lock:
        lock.record(Intent("r1"))
        lock.record(FULL)
        lock.record(Intent("r2"))
        assert lock.recorded == Intent("r2")
        assert lock.dead_intents(own_run_id="r2") == [FULL]
        assert lock.dead_intents(own_run_id="r3") == [FULL, Intent("r2")]
        lock.forget("r1")
        lock.forget("r1")
        assert lock.dead_intents(own_run_id="r3") == [Intent("r2")]


def test_incomplete_intents_are_removed(tmp_path: Path) -> None:
    runs = tmp_path / ".prometheus-backup" / "runs"
    runs.mkdir(parents=True)
    complete = json.dumps({"run_id": "x"})
    (runs / "cut.json").write_text(complete[:5])
    (runs / "empty.json").touch()
    (runs / "other-name.json").write_text(complete)
    (runs / "unknown.json").write_text('{"run_id": "unknown", "wheels": 4}')
    (runs / "killed-while-writing.new").write_text(complete)
    with locked(tmp_path) as lock:
        assert lock.dead_intents(own_run_id="mine") == []
    assert [*runs.iterdir()] == []


def test_nothing_else_is_created_in_the_data_directory(tmp_path: Path) -> None:
    with locked(tmp_path) as lock:
        lock.record(FULL)
        lock.forget(FULL.run_id)
    made = sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*"))
    assert made == [".prometheus-backup", ".prometheus-backup/lock", ".prometheus-backup/runs"]


def test_missing_directory_is_a_usage_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UsageError) as caught:
        HostLock.take(tmp_path / "file")
    assert "PROMETHEUS_DATA_DIR" in caught.value.hint


def test_read_only_directory_has_no_lock_and_proves_no_run_dead(tmp_path: Path) -> None:
    HostLock.take(tmp_path).release()
    runs = tmp_path / ".prometheus-backup" / "runs"
    (runs / "r1.json").write_text('{"run_id": "r1"}')
    for path in (tmp_path, runs.parent, runs):
        path.chmod(0o555)
    runs.with_name("lock").chmod(0o444)
    done = subprocess.run(
        [*without_privileges(), sys.executable, "-c", READ_ONLY, str(tmp_path)],
        env=bare_environment({}),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout == "False [] r2\n", done.stderr
    assert (runs / "r1.json").exists()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "null",
        "[" * 100_000,
        '{"run_id": "r1", "known": 5}',
        '{"run_id": "r1", "known": [5]}',
        '{"run_id": "r1", "snapshot": 7}',
        '{"run_id": "r1", "asked_at": "yesterday"}',
        '{"run_id": "r1", "new field": 1}',
        '{"run_id": "another"}',
    ],
    ids=lambda text: text[:40],
)
def test_a_malformed_intent_is_removed_and_stops_no_run(tmp_path: Path, text: str) -> None:
    HostLock.take(tmp_path).release()
    file = tmp_path / ".prometheus-backup" / "runs" / "r1.json"
    file.write_text(text)
    with locked(tmp_path) as lock:
        assert lock.dead_intents(own_run_id="r2") == []
    assert not file.exists()
