"""Swap blocks of a data directory: bad ones into a quarantine, sound ones into their place.

Every step is a synced rename on one file system, so each block is complete in exactly one place at
any time. Only files that this program downloaded and no longer needs are deleted.
"""

import contextlib
import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from prometheus_backup.datadir.filesystem import sync_folder
from prometheus_backup.repository.layout import TOOL_FOLDER, is_ulid

_STAMP = "%Y%m%dT%H%M%SZ"


@dataclass(frozen=True, slots=True)
class Swap:
    """The folders of a swap, inside the data directory.

    The replacement of the bad block NAME is downloaded to `staging/NAME/` and, once complete and
    sound, renamed to `ready/NAME/`. After that only renames remain, which a later run finishes if
    one is interrupted: NAME to the quarantine, the blocks in `ready/NAME/` into the data directory.
    """

    data_dir: Path

    @property
    def tool_folder(self) -> Path:
        """Return the parent of the other folders, which Prometheus ignores."""
        return self.data_dir / TOOL_FOLDER

    @property
    def staging(self) -> Path:
        """Return the folder for downloads; its contents may be incomplete."""
        return self.tool_folder / "heal" / "staging"

    @property
    def ready(self) -> Path:
        """Return the folder of complete replacements that are not in place yet."""
        return self.tool_folder / "heal" / "ready"

    @property
    def quarantine(self) -> Path:
        """Return the folder that bad blocks are moved to."""
        return self.tool_folder / "quarantine"

    def folders(self) -> tuple[Path, ...]:
        """Return all folders, which must be on the file system of the data directory."""
        return self.tool_folder, self.ready.parent, self.staging, self.ready, self.quarantine

    def create_folders(self) -> None:
        """Create the folders."""
        for folder in (self.staging, self.ready, self.quarantine):
            folder.mkdir(parents=True, exist_ok=True)
        for folder in (self.ready.parent, self.tool_folder, self.data_dir):
            sync_folder(folder)

    def pending(self) -> Mapping[str, tuple[str, ...]]:
        """Return the ULIDs of the ready replacements by the name of the bad block.

        Empty folders, which an interruption can leave, are ignored.
        """
        found = {
            name: tuple(filter(is_ulid, _names(self.ready / name))) for name in self._ready_names()
        }
        return {name: ulids for name, ulids in found.items() if ulids}

    def mark_ready(self, name: str) -> None:
        """Move the staged replacement of a bad block, complete, sound and synced, to `ready`."""
        sync_folder(self.staging / name)
        (self.staging / name).rename(self.ready / name)
        sync_folder(self.ready)

    def queue_rename(self, name: str, *, ulid: str) -> None:
        """Move a sound block with a wrong name to `ready`, under its own ULID."""
        (self.ready / name).mkdir(exist_ok=True)
        sync_folder(self.ready)
        (self.data_dir / name).rename(self.ready / name / ulid)
        sync_folder(self.ready / name)
        sync_folder(self.data_dir)

    def move_away(self, name: str, *, note: Mapping[str, Any], now: datetime) -> Path:
        """Move a directory to the quarantine with a note next to it; return its new path."""
        path = self._quarantine(self.data_dir / name, note=note, now=now)
        sync_folder(self.data_dir)
        return path

    def place(self, name: str, ulid: str) -> None:
        """Move a ready block into the data directory.

        Raises FileExistsError if its name is taken.
        """
        target = self.data_dir / ulid
        if target.exists():
            raise FileExistsError(17, "a directory of this name already exists", str(target))
        (self.ready / name / ulid).rename(target)
        sync_folder(self.data_dir)

    def finish(self, name: str) -> None:
        """Remove the empty `ready` folder of a bad block that has been replaced."""
        (self.ready / name).rmdir()

    def shelve(self, name: str, ulid: str, *, note: Mapping[str, Any], now: datetime) -> None:
        """Move a ready block that is no longer needed to the quarantine."""
        self._quarantine(self.ready / name / ulid, note=note, now=now)

    def clean_up(self) -> None:
        """Delete staged files and empty folders."""
        with contextlib.suppress(FileNotFoundError):
            shutil.rmtree(self.staging)
        for name in self._ready_names():
            with contextlib.suppress(OSError):
                self.finish(name)
        for folder in (self.ready, self.ready.parent, self.quarantine):
            with contextlib.suppress(OSError):
                folder.rmdir()

    def _ready_names(self) -> list[str]:
        return _names(self.ready)

    def _quarantine(self, block: Path, *, note: Mapping[str, Any], now: datetime) -> Path:
        path = self._unused_path(f"{now.astimezone(UTC).strftime(_STAMP)}-{block.name}")
        path.with_name(f"{path.name}.json").write_text(json.dumps(note, indent=2) + "\n")
        block.rename(path)
        sync_folder(self.quarantine)
        return path

    def _unused_path(self, base: str) -> Path:
        path, count = self.quarantine / base, 1
        while path.exists() or path.with_name(f"{path.name}.json").exists():
            count += 1
            path = self.quarantine / f"{base}-{count}"
        return path


def _names(folder: Path) -> list[str]:
    try:
        return sorted(path.name for path in folder.iterdir())
    except FileNotFoundError:
        return []
