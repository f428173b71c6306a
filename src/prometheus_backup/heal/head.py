"""Read which files the head of a data directory has, and repair them. `head_plan.py` decides."""

import contextlib
import shutil
import stat
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path, PurePosixPath
from typing import IO

from prometheus_backup.clock import Clock
from prometheus_backup.events import BytesMoved, Listener, long_step
from prometheus_backup.folder import Folder, Owner
from prometheus_backup.heal.head_files import (
    CHUNKS_HEAD,
    HEAD_FOLDERS,
    WAL,
    Action,
    Entries,
    Entry,
    HeadFault,
    HeadFiles,
    HeadStep,
    newest_checkpoint,
    number,
)
from prometheus_backup.heal.head_plan import left_while_running, plan_head
from prometheus_backup.heal.record_plan import read_segments
from prometheus_backup.heal.swap import Swap
from prometheus_backup.tsdb.head_chunks import HEADER_SIZE, ChunkFileReport, scan_chunk_file
from prometheus_backup.tsdb.reading import WINDOW, ReadFile, Watch, watched_once
from prometheus_backup.tsdb.wal import SegmentReport, filler, scan_segment

_PAUSE = 2.0
"""Seconds until the head of a running Prometheus is read again, if it seems to have a fault."""
_MENDED = "mended"


def find_head_faults(
    data_dir: Path, *, quick: bool, running: bool, clock: Clock, listener: Listener
) -> tuple[HeadFault, ...]:
    """Return the faults of the head; while Prometheus is `running`, without repairs.

    A `quick` search does not read the chunks in `chunks_head`. Raises OSError.
    """
    found = plan_head(read_head(data_dir, listener, quick=quick))
    if found and running:
        clock.sleep(_PAUSE)  # Prometheus may be replacing segments
        found = left_while_running(plan_head(read_head(data_dir, listener, quick=quick)))
    return found


def read_head(data_dir: Path, listener: Listener, *, quick: bool = False) -> HeadFiles:
    """Read which files the head has, and what is in them. Raises OSError."""
    present = [name for name in HEAD_FOLDERS if (data_dir / name).exists()]
    folders = {n: _entries(data_dir / n) for n in present if (data_dir / n).is_dir()}
    newest = newest_checkpoint(n for n, e in folders.get(WAL, {}).items() if e.is_folder)
    files = HeadFiles(
        folders=folders,
        checkpoints={newest: _entries(data_dir / WAL / newest)} if newest else {},
        no_folders=frozenset(present) - folders.keys(),
        links=frozenset(name for name in present if (data_dir / name).is_symlink()),
    )
    chunks = folders.get(CHUNKS_HEAD, {})
    names = () if quick else (name for name, entry in chunks.items() if entry.header)
    paths = [*read_segments(files), *(f"{CHUNKS_HEAD}/{name}" for name in names)]
    with long_step(listener, "log", sum(_size(data_dir / path) for path in paths)):
        return _with_contents(data_dir, files, paths, lambda n: listener(BytesMoved(n)))


def _with_contents(
    data_dir: Path, files: HeadFiles, paths: Sequence[str], watch: Watch
) -> HeadFiles:
    segments: dict[str, SegmentReport] = {}
    chunk_files: dict[str, ChunkFileReport] = {}
    unread: dict[str, str] = {}
    for path in paths:
        try:
            with (
                watched_once(watch, _size(data_dir / path)) as once,
                ReadFile(data_dir / path, watch=once) as file,
            ):
                if path.startswith(CHUNKS_HEAD):
                    chunk_files[PurePosixPath(path).name] = scan_chunk_file(file)
                else:
                    segments[path] = scan_segment(file)
        except FileNotFoundError:
            continue  # Prometheus has deleted it by now
        except PermissionError:
            raise
        except OSError as error:
            unread[path] = error.strerror or str(error)
    return replace(files, segments=segments, chunk_files=chunk_files, unread=unread)


def _entries(folder: Path) -> Entries:
    return {path.name: _entry(path) for path in folder.iterdir()}


def _entry(path: Path) -> Entry:
    try:
        status = path.stat()
    except FileNotFoundError:  # deleted by now, or a link to nothing
        return Entry(is_file=False)
    header = b""
    if (
        stat.S_ISREG(status.st_mode)
        and path.parent.name == CHUNKS_HEAD
        and number(path.name) is not None
    ):
        with path.open("rb") as file:
            header = file.read(HEADER_SIZE)
    return Entry(
        is_file=stat.S_ISREG(status.st_mode),
        is_folder=stat.S_ISDIR(status.st_mode),
        size=status.st_size,
        header=header,
    )


def mended_size(data_dir: Path, faults: Iterable[HeadFault]) -> int:
    """Return the size of the copies that a repair makes, in bytes."""
    steps = (step for fault in faults for step in fault.steps)
    return sum(_size(data_dir / step.path) for step in steps if step.action is Action.MEND)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


@dataclass(frozen=True, slots=True)
class HeadRepair:
    """Repairs the head. What is changed is in the quarantine first."""

    swap: Swap
    owner: Owner | None
    now: datetime

    def apply(self, staging: Folder, faults: Iterable[HeadFault]) -> dict[str, Path]:
        """Repair the faults; return the quarantine paths of what was replaced or moved.

        Raises OSError.
        """
        moved: dict[str, Path] = {}
        for fault in faults:
            for step in fault.steps:
                with self.swap.data.at(*PurePosixPath(step.path).parts[:-1]) as folder:
                    if step.action is Action.MEND:
                        self._mend(staging, folder, step)
                    if step.action in (Action.MEND, Action.MOVE_AWAY):
                        moved[step.path] = self._quarantine(staging, folder, fault, step)
                    else:
                        self._change(folder, step)
                    folder.sync()
        return moved

    def _quarantine(
        self, staging: Folder, folder: Folder, fault: HeadFault, step: HeadStep
    ) -> Path:
        path = PurePosixPath(step.path)
        note = {"file": step.path, "faults": [fault.detail], "because": fault.remedy}
        if step.action is Action.MOVE_AWAY:
            return self.swap.move_file_away(folder, path, note=note, now=self.now)
        source = folder
        with contextlib.suppress(OSError):  # a file system without hard links
            folder.link(path.name, staging, path.name, owner=None)
            source = staging
        kept = self.swap.move_file_away(source, path, note=note, now=self.now)
        with staging.child(_MENDED) as mended:
            mended.move(path.name, folder, path.name)
        return kept

    def _mend(self, staging: Folder, folder: Folder, step: HeadStep) -> None:
        """Stage a copy of a segment without its damaged parts."""
        name = PurePosixPath(step.path).name
        with (
            staging.child(_MENDED, create=True) as mended,
            folder.reader(name, owner=self.owner) as old,
            mended.create(name) as new,
        ):
            for damage in step.damages:
                _copy(old, new, damage.start - old.tell())
                new.writelines(
                    (damage.mended,) if damage.mended else filler(damage.start, damage.stop)
                )
                old.seek(damage.stop)
            shutil.copyfileobj(old, new)
        staging.hand_over(_MENDED, self.owner)

    def _change(self, folder: Folder, step: HeadStep) -> None:
        name = PurePosixPath(step.path).name
        if step.action is Action.CREATE:
            folder.create_empty(name, self.owner)
        elif step.action is Action.CREATE_FOLDER:
            folder.child(name, create=True).close()
            folder.hand_over(name, self.owner)
        elif not folder.exists(step.new_name):
            folder.move(name, folder, step.new_name)


def _copy(old: IO[bytes], new: IO[bytes], size: int) -> None:
    while size > 0 and (data := old.read(min(size, WINDOW))):
        new.write(data)
        size -= len(data)
