"""Looks at what a run leaves: objects of a backup, files below a directory, traces beside data."""

import contextlib
import os
import shutil
from pathlib import Path

from prometheus_backup.events import Event, SnapshotTaken
from prometheus_backup.stores.base import ObjectStore
from tests.support.runs import Recorder

CLEAN = [".prometheus-backup/lock", ".prometheus-backup/runs"]
"""The `traces` of runs that left nothing behind."""


class SnapshotKeeper(Recorder):
    """A recorder that copies each snapshot aside as it was when the run learnt of it."""

    def __init__(self, data_dir: Path, kept: Path) -> None:
        super().__init__()
        self._data_dir = data_dir
        self.kept = kept

    def __call__(self, event: Event) -> None:
        super().__call__(event)
        if isinstance(event, SnapshotTaken):
            shutil.rmtree(self.kept, ignore_errors=True)
            shutil.copytree(self._data_dir / "snapshots" / event.name, self.kept)


def objects(store: ObjectStore, backup_id: str) -> dict[str, bytes]:
    """The bytes of every object of a backup, by the path within it."""
    start = len(backup_id) + 1
    return {o.key[start:]: b"".join(store.stream(o.key)) for o in store.list(backup_id)}


def keys(store: ObjectStore) -> list[str]:
    """Every key of a repository, sorted."""
    return [o.key for o in store.list()]


def tree(folder: Path) -> dict[str, bytes]:
    """The bytes of every file below a folder, by relative path."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def traces(data_dir: Path) -> list[str]:
    """What runs left in a data directory: the tool's own files, and snapshots, sorted."""
    return sorted(
        path.relative_to(data_dir).as_posix()
        for folder in (data_dir / ".prometheus-backup", data_dir / "snapshots")
        for path in folder.rglob("*")
    )


def owners(data_dir: Path) -> set[int]:
    """The uids that own what is below a data directory, while Prometheus may remove some of it."""
    found = set()
    for folder, folders, files in os.walk(data_dir):
        for name in (*folders, *files):
            with contextlib.suppress(FileNotFoundError):
                found.add(Path(folder, name).lstat().st_uid)
    return found


def live_blocks(data_dir: Path) -> list[Path]:
    """The block directories, by name."""
    return sorted(path.parent for path in data_dir.glob("*/meta.json"))
