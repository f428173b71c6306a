"""Reads what a run left: objects of a backup, files in a directory, traces in a data directory."""

import contextlib
import os
import shutil
from pathlib import Path

from prometheus_backup.events import Event, SnapshotTaken
from prometheus_backup.repository.layout import CATALOG
from prometheus_backup.stores.base import ObjectStore
from tests.support.runs import Recorder

CLEAN = [".prometheus-backup/lock", ".prometheus-backup/runs"]
"""The `traces` of runs that cleaned up."""


class SnapshotKeeper(Recorder):
    """A recorder that also keeps a copy of each snapshot, made right after it was taken."""

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
    """Return the content of every object of a backup, by relative path."""
    start = len(backup_id) + 1
    return {o.key[start:]: b"".join(store.stream(o.key)) for o in store.list(backup_id)}


def in_catalog(key: str) -> bool:
    """Return whether a key is in the catalogue, which only repeats what other objects say."""
    return key.startswith(f"{CATALOG}/")


def keys(store: ObjectStore) -> list[str]:
    """Return all keys of a repository without the catalogue, sorted."""
    return [o.key for o in store.list() if not in_catalog(o.key)]


def backup_folders(store: ObjectStore) -> list[str]:
    """Return the folders of backups, sorted."""
    return [name for name in store.list_folders() if name.startswith("backup-")]


def tree(folder: Path) -> dict[str, bytes]:
    """Return the content of every file in a folder, by relative path, without a catalogue."""
    return {
        path: (folder / path).read_bytes()
        for path in (p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())
        if not in_catalog(path)
    }


def traces(data_dir: Path) -> list[str]:
    """Return what runs left in a data directory: the tool's files and snapshots, sorted.

    Without the note of the repositories that have backups, which stays on purpose.
    """
    return sorted(
        path.relative_to(data_dir).as_posix()
        for folder in (data_dir / ".prometheus-backup", data_dir / "snapshots")
        for path in folder.rglob("*")
        if path.name != "repositories.json"
    )


def owners(data_dir: Path) -> set[int]:
    """Return the owners of all files in a data directory, while Prometheus may delete some."""
    found = set()
    for folder, folders, files in os.walk(data_dir):
        for name in (*folders, *files):
            with contextlib.suppress(FileNotFoundError):
                found.add(Path(folder, name).lstat().st_uid)
    return found


def live_blocks(data_dir: Path) -> list[Path]:
    """Return the block directories, sorted by name."""
    return sorted(path.parent for path in data_dir.glob("*/meta.json"))
