"""A directory as a store: what is special to file systems."""

import os
import resource
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from prometheus_backup.errors import (
    ObjectNotFound,
    RepositoryUnavailable,
)
from prometheus_backup.model import PutOptions
from prometheus_backup.stores.local import LocalStore
from tests.support.runs import without_privileges

PLAIN = PutOptions()
MEBIBYTE = 1024 * 1024


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    """A directory that does not exist yet."""
    return LocalStore(tmp_path / "repository")


def _put(store: LocalStore, key: str, body: bytes = b"x") -> None:
    store.put_small(key, body, options=PLAIN)


def _files(root: Path) -> list[str]:
    """Every file and directory below `root`, listed without our code."""
    return sorted(str(path.relative_to(root)) for path in root.rglob("*"))


def _run_python(
    script: str, *arguments: str | Path, bound_by_modes: bool = False
) -> subprocess.CompletedProcess[str]:
    """Run a script in its own process, optionally one that must obey file modes even as root."""
    return subprocess.run(
        [
            *(without_privileges() if bound_by_modes else ()),
            *(sys.executable, "-c", script, *map(str, arguments)),
        ],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


# Staged files


def test_a_staged_file_is_never_listed(store: LocalStore, tmp_path: Path) -> None:
    seen: list[list[str]] = []

    def watched() -> Iterator[bytes]:
        yield b"x" * MEBIBYTE
        (staged,) = [f for f in _files(tmp_path / "repository") if "/" in f]
        assert staged.startswith("folder/.")
        seen.append([o.key for o in store.list()])
        seen.append([o.key for o in store.list_files("folder")])
        seen.append(list(store.list_folders()))

    store.put("folder/file", watched(), size=MEBIBYTE, options=PLAIN)
    assert seen == [[], [], []]
    assert _files(tmp_path / "repository") == ["folder", "folder/file"]


def test_a_failed_put_leaves_no_staged_file(store: LocalStore, tmp_path: Path) -> None:
    def failing() -> Iterator[bytes]:
        yield b"x" * MEBIBYTE
        raise ValueError

    with pytest.raises(ValueError, match=r"^$"):
        store.put("folder/file", failing(), size=2 * MEBIBYTE, options=PLAIN)
    assert _files(tmp_path / "repository") == ["folder"]


_ENDLESS_PUT = """
import sys
from pathlib import Path
from prometheus_backup.model import PutOptions
from prometheus_backup.stores.local import LocalStore

def body():
    yield b"x" * 3_000_000
    print("halfway", flush=True)
    sys.stdin.read()

store = LocalStore(Path(sys.argv[1]))
store.put("backup-1/block/file", body(), size=6_000_000, options=PutOptions())
"""


@pytest.fixture
def endless_put(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process in the middle of a put into `store`."""
    with subprocess.Popen(
        [sys.executable, "-c", _ENDLESS_PUT, str(tmp_path / "repository")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as writer:
        assert writer.stdout is not None
        assert writer.stdout.readline() == "halfway\n"
        yield writer
        writer.kill()


def test_kill_9_in_a_put_leaves_nothing_visible(
    store: LocalStore, tmp_path: Path, endless_put: subprocess.Popen[str]
) -> None:
    _put(store, "backup-1/incomplete.json")
    endless_put.send_signal(signal.SIGKILL)
    endless_put.wait()
    assert len(_files(tmp_path / "repository/backup-1/block")) == 1, "it was not in the middle"
    assert [o.key for o in store.list()] == ["backup-1/incomplete.json"]
    assert list(store.list_files("backup-1/block")) == []
    with pytest.raises(ObjectNotFound):
        store.head("backup-1/block/file")


def test_files_of_a_killed_put_are_removed_with_their_folder(
    store: LocalStore, tmp_path: Path, endless_put: subprocess.Popen[str]
) -> None:
    _put(store, "backup-1/incomplete.json")
    endless_put.send_signal(signal.SIGKILL)
    endless_put.wait()
    store.delete(["backup-1/incomplete.json"])
    assert _files(tmp_path / "repository") == []


def test_files_of_a_running_put_are_not_removed(
    store: LocalStore, tmp_path: Path, endless_put: subprocess.Popen[str]
) -> None:
    _put(store, "backup-1/block/other")
    store.delete(["backup-1/block/other"])
    assert endless_put.stdin is not None
    endless_put.stdin.close()
    assert endless_put.wait() == 0
    assert _files(tmp_path / "repository") == ["backup-1", "backup-1/block", "backup-1/block/file"]
    assert store.head("backup-1/block/file").size == 3_000_000


def test_staged_files_of_dead_writers_are_removed_everywhere(
    store: LocalStore, tmp_path: Path, endless_put: subprocess.Popen[str]
) -> None:
    root = tmp_path / "repository"
    _put(store, "backup-1/index")
    _put(store, "foreign/file")
    name = f".staged-{'0' * 32}"
    for place in ("", "backup-1/", "foreign/"):
        (root / f"{place}{name}").write_bytes(b"dead")
    (root / ".staged-of-somebody").touch()

    store.remove_unfinished(["backup-1", "absent"])

    (running,) = (root / "backup-1/block").iterdir()
    assert running.name.startswith(".staged-")
    assert {f for f in _files(root) if ".staged-" in f} == {
        ".staged-of-somebody",
        f"backup-1/block/{running.name}",
        f"foreign/{name}",
    }
    assert endless_put.stdin is not None
    endless_put.stdin.close()
    assert endless_put.wait() == 0

    store.remove_unfinished(["backup-1"])
    assert store.head("backup-1/block/file").size == 3_000_000


def test_a_put_is_synced_before_it_is_renamed_and_its_folders_after(
    store: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    # In any other order, a power cut can leave a short or empty file under the final name.
    steps: list[str] = []
    fsync, replace = os.fsync, os.replace

    def recorded_fsync(descriptor: int) -> None:
        path = Path(f"/proc/self/fd/{descriptor}").readlink()
        steps.append(f"sync {path.name if path.is_dir() else f'{path.stat().st_size} bytes'}")
        fsync(descriptor)

    def recorded_replace(source: Path, target: Path) -> None:
        steps.append(f"rename to {target.name}")
        replace(source, target)

    monkeypatch.setattr(os, "fsync", recorded_fsync)
    monkeypatch.setattr("prometheus_backup.stores.local.os.replace", recorded_replace)
    store.put("outer/inner/file", [b"12", b"345"], size=5, options=PLAIN)
    root = store.url.rpartition("/")[2]
    assert steps == ["sync 5 bytes", "rename to file", "sync inner", "sync outer", f"sync {root}"]
    steps.clear()
    store.copy("outer/inner/file", "outer/inner/copy", size=5, options=PLAIN)
    assert steps == ["sync 5 bytes", "rename to copy", "sync inner", "sync outer", f"sync {root}"]
    steps.clear()
    store.create("outer/inner/new", b"123", options=PLAIN)
    assert steps == ["sync 3 bytes", "sync inner", "sync outer", f"sync {root}"]


# Copies


def test_a_copy_is_not_a_hard_link(store: LocalStore, tmp_path: Path) -> None:
    # One damaged inode would damage every backup that shares it.
    _put(store, "old/file", b"0123456789")
    store.copy("old/file", "new/file", size=10, options=PLAIN)
    old, new = tmp_path / "repository/old/file", tmp_path / "repository/new/file"
    assert old.stat().st_ino != new.stat().st_ino
    assert new.stat().st_nlink == 1
    with old.open("r+b") as damaged:
        damaged.write(b"DAMAGE")
    assert store.get("new/file", limit=10) == b"0123456789"


def test_a_created_object_has_one_name(store: LocalStore, tmp_path: Path) -> None:
    store.create("folder/claim", b"mine", options=PLAIN)
    assert (tmp_path / "repository/folder/claim").stat().st_nlink == 1
    assert _files(tmp_path / "repository") == ["folder", "folder/claim"]


# Deletions


def test_delete_removes_the_folders_that_become_empty_and_no_other(
    store: LocalStore, tmp_path: Path
) -> None:
    for key in ("a/b/c/file", "a/b/other", "a/file", "z/file"):
        _put(store, key)
    store.delete(["a/b/c/file"])
    assert not (tmp_path / "repository/a/b/c").exists()
    store.delete(["a/b/other", "z/file"])
    assert _files(tmp_path / "repository") == ["a", "a/file"]
    store.delete(["a/file"])
    assert (tmp_path / "repository").is_dir()
    assert _files(tmp_path / "repository") == []


def test_puts_survive_deletions_that_empty_their_folder(store: LocalStore) -> None:
    done = threading.Event()

    def delete_all_the_time() -> None:
        while not done.is_set():
            store.delete(["a/b/c/gone"])
            store.delete(["a/x"])

    def put_many(number: int) -> None:
        for turn in range(50):
            _put(store, "a/b/c/gone")
            _put(store, f"a/b/{number}/kept", f"{turn}".encode())
            assert store.get(f"a/b/{number}/kept", limit=9) == f"{turn}".encode()
            store.delete([f"a/b/{number}/kept"])

    with ThreadPoolExecutor(4) as pool:
        deleters = [pool.submit(delete_all_the_time) for _ in range(2)]
        writers = [pool.submit(put_many, number) for number in range(2)]
        try:
            for writer in writers:
                writer.result()
        finally:
            done.set()
        for deleter in deleters:
            deleter.result()


# Foreign files


def test_foreign_files_and_folders_are_listed_and_left_alone(
    store: LocalStore, tmp_path: Path
) -> None:
    root = tmp_path / "repository"
    _put(store, "backup-1/file")
    (root / "lost+found").mkdir()
    (root / "backup-1/empty").mkdir()
    (root / "README of mine.txt").write_text("hello")
    (root / "naïve ☃").mkdir()
    (root / "naïve ☃/file").touch()
    (root / "dangling").symlink_to("/nowhere")
    with socket.socket(socket.AF_UNIX) as odd:
        odd.bind(str(root / "s"))
        assert [o.key for o in store.list()] == [
            *("README of mine.txt", "backup-1/file", "dangling", "naïve ☃/file", "s")
        ]
        assert store.list_folders() == ["backup-1", "dangling", "naïve ☃"]
    store.delete(["absent"])
    assert (root / "lost+found").is_dir()
    assert (root / "backup-1/empty").is_dir()


def test_a_link_to_a_folder_is_not_followed(store: LocalStore, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/file").touch()
    (tmp_path / "repository").mkdir()
    (tmp_path / "repository/link").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "repository/loop").symlink_to(tmp_path / "repository")
    assert [o.key for o in store.list()] == ["link", "loop"]


def test_a_linked_folder_at_the_root_is_a_folder(store: LocalStore, tmp_path: Path) -> None:
    elsewhere, link = tmp_path / "elsewhere", tmp_path / "repository/backup-1"
    (elsewhere / "block").mkdir(parents=True)
    (elsewhere / "block/file").touch()
    (tmp_path / "repository").mkdir()
    link.symlink_to(elsewhere)
    (tmp_path / "other").touch()
    (tmp_path / "repository/of-a-file").symlink_to(tmp_path / "other")

    assert list(store.list_folders()) == ["backup-1"]
    assert [o.key for o in store.list("backup-1")] == ["backup-1/block/file"]

    store.delete(["backup-1/block/file"])
    assert not link.is_symlink()
    assert list(store.list_folders()) == []


def test_a_link_to_nothing_is_listed_and_its_contents_are_an_error(
    store: LocalStore, tmp_path: Path
) -> None:
    """As if the volume that it points to were not mounted."""
    (tmp_path / "repository").mkdir()
    (tmp_path / "repository/backup-1").symlink_to(tmp_path / "unmounted")

    assert list(store.list_folders()) == ["backup-1"]
    with pytest.raises(
        RepositoryUnavailable, match=r"a link to .*/unmounted, which does not exist"
    ):
        list(store.list("backup-1"))


def test_a_file_in_place_of_the_repository_is_unavailable(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for root in (tmp_path / "file", tmp_path / "file/below"):
        with pytest.raises(RepositoryUnavailable, match="is not a directory"):
            LocalStore(root).ping()


def test_a_file_in_the_place_of_a_folder_is_not_reported_as_missing(
    store: LocalStore, tmp_path: Path
) -> None:
    _put(store, "backup-1/block")
    _put(store, "backup-1/folder/file")
    (tmp_path / "repository/dangling").symlink_to("/nowhere")
    for key in ("backup-1/block/index", "backup-1/folder", "dangling/file"):
        with pytest.raises(RepositoryUnavailable, match="cannot put"):
            _put(store, key)
    assert [o.key for o in store.list("backup-1")] == ["backup-1/block", "backup-1/folder/file"]


# Errors of the operating system

_EACH_CALL = """
import sys
from pathlib import Path
from prometheus_backup.errors import BackupToolError
from prometheus_backup.model import PutOptions
from prometheus_backup.stores.local import LocalStore

store = LocalStore(Path(sys.argv[1]))
options = PutOptions()
for name, call in {
    "ping": store.ping,
    "put": lambda: store.put("closed/new", [b"x"], size=1, options=options),
    "create": lambda: store.create("closed/new", b"x", options=options),
    "get": lambda: store.get("closed/file", limit=9),
    "stream": lambda: list(store.stream("closed/file")),
    "head": lambda: store.head("closed/file"),
    "list": lambda: list(store.list()),
    "list_files": lambda: store.list_files("closed"),
    "copy": lambda: store.copy("closed/file", "open/copy", size=1, options=options),
    "delete": lambda: store.delete(["closed/file"]),
}.items():
    try:
        call()
        print(name, "done")
    except BackupToolError as error:
        print(name, type(error).__name__)
"""


def test_every_call_without_permission_is_denied(store: LocalStore, tmp_path: Path) -> None:
    _put(store, "closed/file")
    closed = tmp_path / "repository/closed"
    closed.chmod(0)
    try:
        done = _run_python(_EACH_CALL, tmp_path / "repository", bound_by_modes=True)
    finally:
        closed.chmod(0o755)
    assert done.stderr == ""
    assert done.stdout.splitlines() == [
        "ping done",
        *(f"{call} RepositoryDenied" for call in ("put", "create", "get", "stream", "head")),
        *(f"{call} RepositoryDenied" for call in ("list", "list_files", "copy", "delete")),
    ]
    assert _files(tmp_path / "repository") == ["closed", "closed/file"]


_DELETION = """
import sys
from pathlib import Path
from prometheus_backup.errors import RepositoryDenied
from prometheus_backup.stores.local import LocalStore

try:
    LocalStore(Path(sys.argv[1])).delete(["open/a", "closed/file", "open/c"])
except RepositoryDenied as error:
    print(error)
"""


def test_delete_continues_after_a_denial_and_then_raises(store: LocalStore, tmp_path: Path) -> None:
    for key in ("open/a", "closed/file", "open/c"):
        _put(store, key)
    closed = tmp_path / "repository/closed"
    closed.chmod(0o555)
    done = _run_python(_DELETION, tmp_path / "repository", bound_by_modes=True)
    closed.chmod(0o755)
    assert done.stdout == f"cannot delete {store.url}/closed/file: Permission denied\n", done.stderr
    assert [o.key for o in store.list()] == ["closed/file"]


def test_a_repository_without_permission_is_denied_by_ping(tmp_path: Path) -> None:
    (tmp_path / "repository").mkdir(mode=0)
    done = _run_python(_EACH_CALL, tmp_path / "repository", bound_by_modes=True)
    assert done.stdout.startswith("ping RepositoryDenied\n"), done.stderr


@pytest.mark.parametrize("size", [MEBIBYTE + 1, 8 * MEBIBYTE])
def test_a_full_disk_leaves_no_partial_file(store: LocalStore, tmp_path: Path, size: int) -> None:
    _put(store, "folder/file", b"old")
    _put(store, "folder/large", b"x" * size)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (MEBIBYTE, hard))  # writes beyond fail: EFBIG
    try:
        body = [b"x" * 300_000 for _ in range(size // 300_000 + 1)]
        with pytest.raises(RepositoryUnavailable, match="cannot put"):
            store.put("folder/file", body, size=size, options=PLAIN)
        with pytest.raises(RepositoryUnavailable, match="cannot put"):
            store.create("folder/new", b"x" * size, options=PLAIN)
        with pytest.raises(RepositoryUnavailable, match="cannot"):
            store.copy("folder/large", "folder/copy", size=size, options=PLAIN)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert store.get("folder/file", limit=9) == b"old"
    assert _files(tmp_path / "repository/folder") == ["file", "large"]


@pytest.mark.timeout(60)
def test_a_pipe_in_the_place_of_an_object_is_an_error_and_not_waited_for(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    calls: list[Callable[[], object]] = [
        lambda: store.get("pipe", limit=9),
        lambda: list(store.stream("pipe")),
        lambda: store.head("pipe"),
        lambda: store.copy("pipe", "copy", size=1, options=PutOptions()),
    ]
    for call in calls:
        with pytest.raises(RepositoryUnavailable, match="pipe, a socket or a device"):
            call()
    store.delete(["pipe"])
    assert list(store.list()) == []
