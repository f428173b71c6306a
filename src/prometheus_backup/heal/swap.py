"""Swap blocks of a data directory: bad ones into a quarantine, sound ones into their place.

Every step is a synced rename on one file system, so each block is complete in exactly one place at
any time. Only files that this program downloaded and no longer needs are deleted.
"""

import contextlib
import errno
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import Any

from prometheus_backup.folder import Folder
from prometheus_backup.repository.layout import TOOL_FOLDER, is_ulid

_HEAL, _STAGING, _READY = (TOOL_FOLDER, "heal"), "staging", "ready"
_QUARANTINE = (TOOL_FOLDER, "quarantine")
_STAMP = "%Y%m%dT%H%M%SZ"


@dataclass(frozen=True, slots=True)
class Swap:
    """The folders of a swap, inside the data directory, which is held open.

    The replacement of the bad block NAME is downloaded to `heal/staging/NAME/` and, once complete
    and sound, renamed to `heal/ready/NAME/`. After that only renames remain, which a later run
    finishes if one is interrupted: NAME to the quarantine, the blocks in `heal/ready/NAME/` into
    the data directory.
    """

    data: Folder

    def folders(self) -> tuple[Path, ...]:
        """Return all folders, which must be on the file system of the data directory."""
        heal = self.data.path.joinpath(*_HEAL)
        return (
            *(heal.parent, heal, heal / _STAGING, heal / _READY),
            self.data.path.joinpath(*_QUARANTINE),
        )

    @contextlib.contextmanager
    def staging(self) -> Iterator[Folder]:
        """Create the folders; hold the one for downloads, which may have incomplete contents."""
        with self.data.at(*_QUARANTINE, create=True), self.data.at(*_HEAL, create=True) as heal:
            heal.child(_READY, create=True).close()
            with heal.private(_STAGING) as staging:
                heal.sync()
                with self.data.at(TOOL_FOLDER) as folder:
                    folder.sync()
                self.data.sync()
                yield staging

    def pending(self) -> Mapping[str, tuple[str, ...]]:
        """Return the ULIDs of the ready replacements by the name of the bad block.

        Empty folders, which an interruption can leave, are ignored.
        """
        found = {
            name: tuple(filter(is_ulid, self._ready_names(name))) for name in self._ready_names()
        }
        return {name: ulids for name, ulids in found.items() if ulids}

    def ready_path(self, name: str, ulid: str) -> Path:
        """Return the path of a ready replacement."""
        return self.data.path.joinpath(*_HEAL, _READY, name, ulid)

    def mark_ready(self, staging: Folder, name: str) -> None:
        """Move the staged replacement of a bad block, complete, sound and synced, to `ready`."""
        with staging.child(name) as staged:
            staged.sync()
        with self._ready() as ready:
            staging.move(name, ready, name)
            ready.sync()

    def queue_rename(self, name: str, *, ulid: str) -> None:
        """Move a sound block with a wrong name to `ready`, under its own ULID."""
        with self._ready() as ready, ready.child(name, create=True) as folder:
            ready.sync()
            self.data.move(name, folder, ulid)
            folder.sync()
        self.data.sync()

    def move_away(self, name: str, *, note: Mapping[str, Any], now: datetime) -> Path:
        """Move a directory to the quarantine with a note next to it; return its new path."""
        path = self._quarantine(self.data, name, note=note, now=now)
        self.data.sync()
        return path

    def move_file_away(
        self, folder: Folder, path: PurePosixPath, *, note: Mapping[str, Any], now: datetime
    ) -> Path:
        """Move an entry of a folder to the quarantine; `path` is relative to the data directory."""
        label = "-".join(path.parts)
        return self._quarantine(folder, path.name, note=note, now=now, label=label)

    def place(self, name: str, ulid: str) -> None:
        """Move a ready block into the data directory.

        Raises FileExistsError if its name is taken.
        """
        if self.data.exists(ulid):
            target = str(self.data.path / ulid)
            raise FileExistsError(errno.EEXIST, "a directory of this name already exists", target)
        with self._ready(name) as folder:
            folder.move(ulid, self.data, ulid)
        self.data.sync()

    def finish(self, name: str) -> None:
        """Remove the empty `ready` folder of a bad block that has been replaced."""
        with self._ready() as ready:
            ready.rmdir(name)

    def shelve(self, name: str, ulid: str, *, note: Mapping[str, Any], now: datetime) -> None:
        """Move a ready block that is no longer needed to the quarantine."""
        with self._ready(name) as folder:
            self._quarantine(folder, ulid, note=note, now=now)

    def clean_up(self) -> None:
        """Delete staged files and empty folders."""
        for name in self._ready_names():
            with contextlib.suppress(OSError):
                self.finish(name)
        with self.data.at(TOOL_FOLDER) as folder:
            with self.data.at(*_HEAL) as heal:
                heal.remove(_STAGING)
                with contextlib.suppress(OSError):
                    heal.rmdir(_READY)
            for name in (_HEAL[-1], _QUARANTINE[-1]):
                with contextlib.suppress(OSError):
                    folder.rmdir(name)

    @contextlib.contextmanager
    def _ready(self, *names: str) -> Iterator[Folder]:
        with self.data.at(*_HEAL, _READY, *names) as folder:
            yield folder

    def _ready_names(self, *names: str) -> list[str]:
        with contextlib.suppress(FileNotFoundError), self._ready(*names) as folder:
            return folder.names()
        return []

    def _quarantine(
        self, folder: Folder, name: str, *, note: Mapping[str, Any], now: datetime, label: str = ""
    ) -> Path:
        with self.data.at(*_QUARANTINE) as quarantine:
            new = _unused_name(
                quarantine, f"{now.astimezone(UTC).strftime(_STAMP)}-{label or name}"
            )
            quarantine.write(f"{new}.json", (json.dumps(note, indent=2) + "\n").encode())
            folder.move(name, quarantine, new)
            quarantine.sync()
            return quarantine.path / new


def _unused_name(quarantine: Folder, base: str) -> str:
    name, count = base, 1
    while quarantine.exists(name) or quarantine.exists(f"{name}.json"):
        count += 1
        name = f"{base}-{count}"
    return name
