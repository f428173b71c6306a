"""Hold the blocks in a data directory, without the Admin API, while Prometheus compacts.

Prometheus never changes `index` and `chunks/*`, replaces meta.json and tombstones by renaming, and
renames a block before it deletes it (tsdb/db.go, deleteBlocks). So hard links, and open files where
links are not possible, keep what they had. A new block is complete before it has its name, and
before the blocks that it was compacted from are deleted: whatever vanishes has a successor.
"""

import contextlib
import os
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path

from prometheus_backup.backup.places import GONE, CannotLink, Links, OpenFiles, Place
from prometheus_backup.backup.snapshot import Snapshot, recoverable_until
from prometheus_backup.clock import Clock
from prometheus_backup.errors import SnapshotUnusable
from prometheus_backup.events import BlocksHeld, Listener
from prometheus_backup.model import SnapshotMode, SourceBlock
from prometheus_backup.repository.layout import is_ulid
from prometheus_backup.tsdb.block import MUTABLE, BlockUnusable, read_block
from prometheus_backup.tsdb.faults import FaultKind
from prometheus_backup.tsdb.meta import META
from prometheus_backup.tsdb.verification import check_mutable

_PAUSE = 0.2
_SETTLES_WITHIN = 60.0  # seconds; Prometheus compacts every few minutes at most
_CHANGES = 10
"""How often meta.json and tombstones that contradict each other are read again."""
_CHUNKS = "chunks"


@dataclass(slots=True)
class HeldBlocks:
    """The blocks of one run: held by `hold`, let go by `release`.

    `writable`: whether links can be made in the tool's folder in the data directory.
    """

    data_dir: Path
    writable: bool
    clock: Clock
    listener: Listener
    _place: Place | None = None
    _tries: dict[str, int] = field(default_factory=dict)

    def hold(self) -> Snapshot:
        """Hold every block that is in the data directory at one moment, and read them.

        Raises SnapshotUnusable if the disk cannot be read, or files cannot be kept open.
        """
        began = self.clock.monotonic()
        snapshot = self._hold_links() if self.writable else None
        linked = snapshot is not None
        if snapshot is None:
            self._place = files = OpenFiles(self.data_dir)
            snapshot = self._hold_in(files)
            files.require_spare_files()
        took = timedelta(seconds=self.clock.monotonic() - began)
        size = sum(block.size for block in snapshot.blocks)
        self.listener(BlocksHeld(len(snapshot.blocks), size, took, linked))
        return snapshot

    def release(self) -> tuple[str, ...]:
        """Let the blocks go; return a message per leftover. May be called again."""
        place, self._place = self._place, None
        return place.release(self.listener) if place else ()

    def _hold_links(self) -> Snapshot | None:
        """Return the blocks, linked; None if that is not possible."""
        try:
            self._place = Links(self.data_dir)
            return self._hold_in(self._place)
        except CannotLink:
            self.release()
            return None

    def _hold_in(self, place: Place) -> Snapshot:
        """Hold what two consecutive listings of the data directory name.

        A listing is not atomic: one may miss both a block that is deleted meanwhile and the one
        that replaces it. The next one has the latter.
        """
        deadline = self.clock.monotonic() + _SETTLES_WITHIN
        held: set[str] = set()
        before: frozenset[str] | None = None
        while (names := self._live_names()) != before or not names <= held:
            before, settled = names, True
            for name in sorted(names - held):
                if self._hold_block(place, name):
                    held.add(name)
                else:
                    settled = False
            if self.clock.monotonic() > deadline:
                raise SnapshotUnusable(
                    f"cannot read the blocks of {self.data_dir}: they kept changing for "
                    f"{_SETTLES_WITHIN:.0f} s",
                    hint="is another program writing into this directory? else try again later",
                )
            if not settled:
                self.clock.sleep(_PAUSE)
        for name in held - names:
            place.drop(name)
        return _read(place, names, now=self.clock.now())

    def _live_names(self) -> frozenset[str]:
        try:
            with os.scandir(self.data_dir) as entries:
                return frozenset(
                    e.name for e in entries if is_ulid(e.name) and e.is_dir(follow_symlinks=False)
                )
        except OSError as error:
            raise SnapshotUnusable(f"cannot read {self.data_dir}: {error.strerror}") from error

    def _hold_block(self, place: Place, name: str) -> bool:
        """Hold one block; return False if it vanished or changed meanwhile."""
        live, held = self.data_dir / name, place.folder / name
        try:
            chunks = _chunk_files(live)
            place.make_folder(held)
            if _CHUNKS not in chunks:
                place.make_folder(held / _CHUNKS)
            for file in (*MUTABLE, "index"):
                with contextlib.suppress(FileNotFoundError):  # whether it is missing is seen below
                    place.keep(live / file, held / file)
            for file in chunks:
                place.keep(live / file, held / file)
            # A block is renamed before its files are deleted, so it was complete until now.
            if not _replaced(live, held) and self._is_consistent(held):
                return True
        except OSError as error:
            if error.errno not in GONE:
                raise SnapshotUnusable(f"cannot read {live}: {error.strerror}") from error
        place.drop(name)
        return False

    def _is_consistent(self, held: Path) -> bool:
        """Return whether meta.json counts the tombstones: they are replaced one after the other.

        A difference that stays is on the disk.
        """
        tries = self._tries[held.name] = self._tries.get(held.name, 0) + 1
        return tries > _CHANGES or FaultKind.META_COUNTS not in check_mutable(held).counts


def _read(place: Place, names: frozenset[str], *, now: datetime) -> Snapshot:
    folder = place.folder
    blocks: dict[str, SourceBlock] = {}
    unusable: dict[str, str] = {}
    for name in sorted(names):
        try:
            block = read_block(folder / name, links=place.symbolic)
        except BlockUnusable as error:
            unusable[name] = error.reason
            continue
        if block.ulid in blocks or (block.ulid != name and block.ulid in names):
            unusable[name] = f"its {META} is that of block {block.ulid}"
            continue
        if block.ulid != name:
            (folder / name).rename(folder / block.ulid)
        blocks[block.ulid] = block
    # Prometheus deletes the parents of a block once it has loaded it.
    parents = {parent for block in blocks.values() for parent in block.parents}
    kept = [block for ulid, block in blocks.items() if ulid not in parents]
    kept.sort(key=lambda b: (b.min_time_ms, b.max_time_ms, b.ulid))
    return Snapshot(
        name=SnapshotMode.BLOCKS.value,
        path=folder,
        blocks=tuple(kept),
        missing=(),
        unusable=unusable,
        mode=SnapshotMode.BLOCKS,
        recoverable_until=recoverable_until(folder, kept, now=now),
    )


def count_files(data_dir: Path) -> int:
    """Return how many files the blocks of a data directory have."""
    return sum(len(_chunk_files(p)) + 3 for p in data_dir.iterdir() if is_ulid(p.name))


def _chunk_files(block: Path) -> list[str]:
    """Return the chunk files of a block; a link in place of the folder counts as one file."""
    folder = block / _CHUNKS
    if folder.is_symlink():
        return [_CHUNKS]
    try:
        return sorted(f"{_CHUNKS}/{path.name}" for path in folder.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return []


def _replaced(live: Path, held: Path) -> bool:
    """Return whether meta.json or tombstones were replaced since they were held."""
    paths = [live / file for file in MUTABLE if not (live / file).is_symlink()]
    return any(_identity(path) != _identity(held / path.name) for path in paths)


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except FileNotFoundError:
        return None
    return status.st_dev, status.st_ino
