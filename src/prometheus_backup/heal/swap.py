"""Exchange blocks of a data directory: bad ones into a quarantine, sound ones into their place.

Everything is a rename on one file system, synced, so that a block is whole at one place at any
moment. Nothing is deleted but what this program brought itself and does not need any more.
"""

import contextlib
import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from prometheus_backup.repository.layout import TOOL_FOLDER, is_ulid
from prometheus_backup.restore.staging import sync_folder

_STAMP = "%Y%m%dT%H%M%SZ"


@dataclass(frozen=True, slots=True)
class Swap:
    """The folders of an exchange, below the data directory.

    What replaces the bad block NAME is gathered in `staging/NAME/` and renamed, once all of it is
    whole and sound, to `ready/NAME/`. From there on only renames are left, which a later run
    finishes where one is cut off: NAME goes to the quarantine, the blocks in `ready/NAME/` go to
    their places.
    """

    data_dir: Path

    @property
    def own(self) -> Path:
        """Return the folder in which all the others are, which Prometheus ignores."""
        return self.data_dir / TOOL_FOLDER

    @property
    def staging(self) -> Path:
        """Return where copies become whole; what is in there may be anything."""
        return self.own / "heal" / "staging"

    @property
    def ready(self) -> Path:
        """Return where whole copies wait for their places."""
        return self.own / "heal" / "ready"

    @property
    def quarantine(self) -> Path:
        """Return where bad blocks go."""
        return self.own / "quarantine"

    def folders(self) -> tuple[Path, ...]:
        """Return what must lie on the file system of the data directory."""
        return self.own, self.ready.parent, self.staging, self.ready, self.quarantine

    def begin(self) -> None:
        """Make the folders."""
        for folder in (self.staging, self.ready, self.quarantine):
            folder.mkdir(parents=True, exist_ok=True)
        for folder in (self.ready.parent, self.own, self.data_dir):
            sync_folder(folder)

    def waiting(self) -> Mapping[str, tuple[str, ...]]:
        """Return what waits: the ULIDs of the sound blocks by the name of the bad one.

        A folder that is empty says nothing: it was cut off before it was filled, or after.
        """
        found = {name: tuple(filter(is_ulid, _names(self.ready / name))) for name in self._open()}
        return {name: ulids for name, ulids in found.items() if ulids}

    def make_ready(self, name: str) -> None:
        """Let what is staged for a bad block, whole, sound and synced, wait for its place."""
        sync_folder(self.staging / name)
        (self.staging / name).rename(self.ready / name)
        sync_folder(self.ready)

    def take_out(self, name: str, *, ulid: str) -> None:
        """Let a sound block that has a wrong name wait for the place of its own."""
        (self.ready / name).mkdir(exist_ok=True)
        sync_folder(self.ready)
        (self.data_dir / name).rename(self.ready / name / ulid)
        sync_folder(self.ready / name)
        sync_folder(self.data_dir)

    def move_away(self, name: str, *, note: Mapping[str, Any], now: datetime) -> Path:
        """Move a directory into the quarantine, with a note beside it; return where it is."""
        place = self._quarantine(self.data_dir / name, note=note, now=now)
        sync_folder(self.data_dir)
        return place

    def place(self, name: str, ulid: str) -> None:
        """Move a block that waits in the stead of a bad one to its place.

        Raises FileExistsError where something has that name.
        """
        target = self.data_dir / ulid
        if target.exists():
            raise FileExistsError(17, "a directory of this name appeared", str(target))
        (self.ready / name / ulid).rename(target)
        sync_folder(self.data_dir)

    def close(self, name: str) -> None:
        """Forget a bad block whose stead is taken: nothing waits for it any more."""
        (self.ready / name).rmdir()

    def shelve(self, name: str, ulid: str, *, note: Mapping[str, Any], now: datetime) -> None:
        """Move a block that waits, and is not needed any more, into the quarantine too."""
        self._quarantine(self.ready / name / ulid, note=note, now=now)

    def end(self) -> None:
        """Delete what is staged, and empty folders."""
        with contextlib.suppress(FileNotFoundError):
            shutil.rmtree(self.staging)
        for name in self._open():
            with contextlib.suppress(OSError):
                self.close(name)
        for folder in (self.ready, self.ready.parent, self.quarantine):
            with contextlib.suppress(OSError):
                folder.rmdir()

    def _open(self) -> list[str]:
        return _names(self.ready)

    def _quarantine(self, block: Path, *, note: Mapping[str, Any], now: datetime) -> Path:
        place = self._free(f"{now.astimezone(UTC).strftime(_STAMP)}-{block.name}")
        place.with_name(f"{place.name}.json").write_text(json.dumps(note, indent=2) + "\n")
        block.rename(place)
        sync_folder(self.quarantine)
        return place

    def _free(self, base: str) -> Path:
        place, count = self.quarantine / base, 1
        while place.exists() or place.with_name(f"{place.name}.json").exists():
            count += 1
            place = self.quarantine / f"{base}-{count}"
        return place


def _names(folder: Path) -> list[str]:
    try:
        return sorted(path.name for path in folder.iterdir())
    except FileNotFoundError:
        return []
