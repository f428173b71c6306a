"""Hold the blocks in a data directory, without the Admin API, while Prometheus compacts.

Prometheus never changes `index` and `chunks/*`, replaces meta.json and tombstones by renaming, and
renames a block before it deletes it (tsdb/db.go, deleteBlocks). So hard links, and open files where
links are not possible, keep what they had. A new block is complete before it has its name, and
before the blocks that it was compacted from are deleted: whatever vanishes has a successor.
"""

import contextlib
import errno
import fcntl
import hashlib
import os
import resource
import shutil
import tempfile
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Protocol

from prometheus_backup.backup.snapshot import Snapshot, recoverable_until
from prometheus_backup.clock import Clock
from prometheus_backup.errors import SnapshotUnusable
from prometheus_backup.events import BlocksHeld, Listener, SnapshotLeft
from prometheus_backup.folder import Folder
from prometheus_backup.model import SnapshotMode, SourceBlock
from prometheus_backup.repository.layout import TOOL_FOLDER, is_ulid
from prometheus_backup.tsdb.block import MUTABLE, BlockUnusable, read_block
from prometheus_backup.tsdb.faults import FaultKind
from prometheus_backup.tsdb.meta import META
from prometheus_backup.tsdb.verification import check_mutable

_LINKS = "blocks"
_PAUSE = 0.2
_SETTLES_WITHIN = 60.0  # seconds; Prometheus compacts every few minutes at most
_CHANGES = 10
"""How often meta.json and tombstones that contradict each other are read again."""
SPARE_FILES = 256
"""Files that may still be opened for everything else."""
_CHUNKS = "chunks"
_GONE = (errno.ENOENT, errno.ESTALE, errno.ENOTDIR)
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class _CannotLink(Exception):
    """Links are not possible: another file system, no permission, or no space."""


class _Place(Protocol):
    """Where blocks are held: a folder of blocks, whose files stay readable.

    `symbolic`: whether its files are symbolic links.
    """

    folder: Path
    symbolic: bool

    def make_folder(self, folder: Path) -> None: ...
    def keep(self, source: Path, target: Path) -> None: ...
    def drop(self, name: str) -> None: ...
    def release(self, listener: Listener) -> tuple[str, ...]: ...


class _Links:
    """Hard links in the tool's folder in the data directory. Raises _CannotLink."""

    symbolic = False

    def __init__(self, data_dir: Path) -> None:
        self._data_dir = data_dir
        try:
            with Folder.hold(data_dir) as data, data.child(TOOL_FOLDER) as tool:
                self._own = tool.private(_LINKS)
        except OSError as error:
            raise _CannotLink from error
        self.folder = self._own.path

    def make_folder(self, folder: Path) -> None:
        try:
            with self._own.at(*folder.relative_to(self.folder).parts, create=True):
                pass
        except OSError as error:
            raise _CannotLink from error

    def keep(self, source: Path, target: Path) -> None:
        block, *names = target.relative_to(self.folder).parts
        try:
            with self._own.parent_of(block, "/".join(names)) as folder:
                os.link(source, names[-1], dst_dir_fd=folder.fileno(), follow_symlinks=False)
        except OSError as error:
            if error.errno in _GONE:
                raise
            raise _CannotLink from error

    def drop(self, name: str) -> None:
        with contextlib.suppress(OSError):
            self._own.remove(name)

    def release(self, listener: Listener) -> tuple[str, ...]:
        self._own.close()
        return remove_links(self._data_dir, listener=listener)


class _OpenFiles:
    """Open files; the folder has links to where the kernel shows them as long as they are open."""

    symbolic = True

    def __init__(self, data_dir: Path) -> None:
        _raise_file_limit()
        self._data_dir = data_dir
        self._files: dict[str, list[int]] = {}
        try:
            self.folder, self._lock = _temporary_folder(data_dir)
        except OSError as error:
            raise self._unusable(error) from error

    def make_folder(self, folder: Path) -> None:
        try:
            folder.mkdir()
        except OSError as error:
            raise self._unusable(error) from error

    def keep(self, source: Path, target: Path) -> None:
        try:
            descriptor = os.open(source, _READ)
        except OSError as error:
            if error.errno in (errno.EMFILE, errno.ENFILE):
                raise too_many_files(self._data_dir) from error
            if error.errno != errno.ELOOP:
                raise
            shown = os.devnull  # a symbolic link: like this, no regular file
        else:
            name = target.relative_to(self.folder).parts[0]
            self._files.setdefault(name, []).append(descriptor)
            # Not /proc/self: blocks are checked in processes of their own.
            shown = f"/proc/{os.getpid()}/fd/{descriptor}"
        try:
            target.symlink_to(shown)
        except OSError as error:
            raise self._unusable(error) from error

    def require_spare_files(self) -> None:
        """Raise SnapshotUnusable if too few more files could be opened."""
        if sum(map(len, self._files.values())) + SPARE_FILES > file_limit():
            raise too_many_files(self._data_dir)

    def drop(self, name: str) -> None:
        for descriptor in self._files.pop(name, ()):
            os.close(descriptor)
        shutil.rmtree(self.folder / name, ignore_errors=True)

    def release(self, listener: Listener) -> tuple[str, ...]:
        del listener
        for name in list(self._files):
            self.drop(name)
        shutil.rmtree(self.folder, ignore_errors=True)  # links only; the next run tries again
        os.close(self._lock)
        return ()

    def _unusable(self, error: OSError) -> SnapshotUnusable:
        return SnapshotUnusable(
            f"cannot read the blocks of {self._data_dir}: cannot write into the temporary "
            f"directory: {error.strerror}",
            hint="set TMPDIR to a directory that this user may write to",
        )


@dataclass(slots=True)
class HeldBlocks:
    """The blocks of one run: held by `hold`, let go by `release`.

    `writable`: whether links can be made in the tool's folder in the data directory.
    """

    data_dir: Path
    writable: bool
    clock: Clock
    listener: Listener
    _place: _Place | None = None
    _tries: dict[str, int] = field(default_factory=dict)

    def hold(self) -> Snapshot:
        """Hold every block that is in the data directory at one moment, and read them.

        Raises SnapshotUnusable if the disk cannot be read, or files cannot be kept open.
        """
        began = self.clock.monotonic()
        snapshot = self._hold_links() if self.writable else None
        linked = snapshot is not None
        if snapshot is None:
            self._place = files = _OpenFiles(self.data_dir)
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
            self._place = _Links(self.data_dir)
            return self._hold_in(self._place)
        except _CannotLink:
            self.release()
            return None

    def _hold_in(self, place: _Place) -> Snapshot:
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

    def _hold_block(self, place: _Place, name: str) -> bool:
        """Hold one block; return False if it vanished or changed meanwhile."""
        live, held = self.data_dir / name, place.folder / name
        try:
            before = live.stat()
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
            same = os.path.samestat(before, live.stat())
            if same and not _replaced(live, held) and self._is_consistent(held):
                return True
        except OSError as error:
            if error.errno not in _GONE:
                raise SnapshotUnusable(f"cannot read {live}: {error.strerror}") from error
        place.drop(name)
        return False

    def _is_consistent(self, held: Path) -> bool:
        """Return whether meta.json counts the tombstones: they are replaced one after the other.

        A difference that stays is on the disk.
        """
        tries = self._tries[held.name] = self._tries.get(held.name, 0) + 1
        return tries > _CHANGES or FaultKind.META_COUNTS not in check_mutable(held).counts


def _read(place: _Place, names: frozenset[str], *, now: datetime) -> Snapshot:
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


def remove_links(data_dir: Path, *, listener: Listener) -> tuple[str, ...]:
    """Remove the links of a dead run; return a message if that fails. Needs the host lock."""
    folder = data_dir / TOOL_FOLDER / _LINKS
    try:
        with Folder.hold(data_dir) as data, data.child(TOOL_FOLDER) as tool:
            tool.remove(_LINKS)
    except FileNotFoundError:
        return ()
    except OSError as error:
        listener(SnapshotLeft(str(folder), error.strerror or str(error)))
        return (f"the linked blocks in {folder} could not be removed",)
    return ()


def file_limit() -> int:
    """Return how many files this process may open, once it has raised the limit itself."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    return 2**31 if hard == resource.RLIM_INFINITY else hard


def count_files(data_dir: Path) -> int:
    """Return how many files the blocks of a data directory have."""
    return sum(len(_chunk_files(p)) + 3 for p in data_dir.iterdir() if is_ulid(p.name))


def _raise_file_limit() -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def too_many_files(data_dir: Path) -> SnapshotUnusable:
    """Return the error for a data directory whose files cannot all be open at once."""
    return SnapshotUnusable(
        f"cannot read the blocks of {data_dir}: too many files would be open at once, the limit is "
        f"{file_limit():,}",
        hint="raise the limit of open files (`ulimit -n`; LimitNOFILE= in a systemd unit), or "
        "mount the data directory read-write, so that blocks can be linked",
    )


def _temporary_folder(data_dir: Path) -> tuple[Path, int]:
    """Create a folder and lock it; remove those of dead runs on the same data directory."""
    digest = hashlib.sha256(os.fsencode(data_dir.absolute())).hexdigest()[:12]
    prefix = f"prometheus-backup-blocks-{digest}-"
    for dead in Path(tempfile.gettempdir()).glob(f"{prefix}*"):
        with contextlib.suppress(OSError):
            descriptor = _locked(dead)
            shutil.rmtree(dead)
            os.close(descriptor)
    while True:
        folder = Path(tempfile.mkdtemp(prefix=prefix))
        with contextlib.suppress(FileNotFoundError, BlockingIOError):
            return folder, _locked(folder)  # else another run took it for that of a dead one


def _locked(folder: Path) -> int:
    """Return the descriptor of a folder, locked. Raises OSError if another run has it."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.path.samestat(os.fstat(descriptor), folder.stat()):
            return descriptor
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(folder))
    except OSError:
        os.close(descriptor)
        raise


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
