"""Bring blocks of a backup onto this disk, each file checked while it is written, and synced.

Where they go from there (a data directory, a scratch directory) is the caller's to say.
"""

import contextlib
import hashlib
import os
from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from prometheus_backup.errors import BytesDiffer
from prometheus_backup.events import FileRestored, LongStepBegan, LongStepEnded
from prometheus_backup.repository.manifest import Block, File
from prometheus_backup.repository.repository import Repository
from prometheus_backup.transfer import HashedFile, Transfer, WorkerContext

_HAND_OVER = 4 * 1024 * 1024
"""Bytes of a file that are written to the page cache before the disk is set to work on them."""


class ObjectAltered(BytesDiffer):
    """The object of this key is not what the manifest says."""

    def __init__(self, key: str) -> None:
        super().__init__(
            f"cannot restore {key}: its bytes are not those that were backed up",
            hint="nothing of this block was placed; run `prometheus-backup verify`, and restore "
            "another backup",
        )
        self.key = key


@dataclass(frozen=True, slots=True)
class Staging:
    """A folder in which blocks become whole. What an interrupted run left in it is used again."""

    repository: Repository
    transfer: Transfer
    folder: Path

    def path(self, block: Block) -> Path:
        """Return where a block is while it is staged."""
        return self.folder / block.ulid

    def bring(self, blocks: Sequence[Block], *, step: str) -> Generator[Block, None, None]:
        """Yield each of these blocks, in their order, once it is whole in the folder and synced.

        `step` names the work in events. Close it where the loop's body may raise
        (contextlib.closing). Raises ObjectAltered where an object is not what the manifest says,
        OSError where it cannot be written, and whatever the repository raises.
        """
        missing = {block.ulid: len(block.files) for block in blocks}
        waiting = list(blocks)
        files = [(block, file) for block in blocks for file in block.files]
        for block in blocks:
            self._clear_strays(block)
        for block, file in files:
            self._file(block, file).parent.mkdir(parents=True, exist_ok=True)
        self.transfer.listener(LongStepBegan(step, sum(b.size for b in blocks)))
        try:
            with contextlib.closing(self.transfer.each(files, self._fetch)) as fetched:
                for (block, file), _ in fetched:
                    self.transfer.listener(FileRestored(f"{block.ulid}/{file.path}", file.size))
                    missing[block.ulid] -= 1
                    # In their order, whichever is complete first: cut off, the first are there.
                    while waiting and not missing[waiting[0].ulid]:
                        self._sync(waiting[0])
                        yield waiting.pop(0)
        finally:
            self.transfer.listener(LongStepEnded(step))

    def _file(self, block: Block, file: File) -> Path:
        return self.folder / block.ulid / file.path

    def _clear_strays(self, block: Block) -> None:
        """Remove what an earlier run left that is not of this block, links too."""
        wanted = {self._file(block, file) for file in block.files}
        for path in (self.path(block), *self.path(block).rglob("*")):
            if path.is_symlink() or (path.is_file() and path not in wanted):
                path.unlink()

    def _fetch(self, item: tuple[Block, File], watch: WorkerContext) -> None:
        """Bring one file, unless it is there already, whole."""
        block, file = item
        path = self._file(block, file)
        if self._is_staged(path, file, watch):
            return
        part = path.with_name(path.name + ".part")
        body = _Download(self.repository, file, watch)
        _write(part, body)
        body.require_right()
        part.replace(path)

    def _is_staged(self, path: Path, file: File, watch: WorkerContext) -> bool:
        if not path.is_file() or path.stat().st_size != file.size:
            return False
        found = HashedFile(path, size=file.size, watch=watch)
        found.read()
        if found.sha256 == file.sha256:
            return True
        watch.passed(-file.size, limited=False)
        return False

    def _sync(self, block: Block) -> None:
        staged = self.path(block)
        for folder in [p for p in staged.rglob("*") if p.is_dir()] + [staged]:
            sync_folder(folder)


class _Download:
    """The chunks of an object, hashed on the way."""

    def __init__(self, repository: Repository, file: File, watch: WorkerContext) -> None:
        self._repository = repository
        self._file = file
        self._watch = watch
        self._hash = hashlib.sha256()
        self._size = 0

    def __iter__(self) -> Iterator[bytes]:
        for chunk in self._repository.store.stream(self._file.key):
            self._size += len(chunk)
            if self._size > self._file.size:
                break
            self._hash.update(chunk)
            self._watch.passed(len(chunk))
            yield chunk

    def require_right(self) -> None:
        if (self._size, self._hash.hexdigest()) != (self._file.size, self._file.sha256):
            raise ObjectAltered(self._file.key)


def _write(path: Path, body: Iterable[bytes]) -> None:
    """Write a file and make it durable; the disk works while more comes in, not at the end only."""
    done = handed_over = 0
    # Buffered: where room runs out, a raw write() writes less than it is given and says so only by
    # its result. Python's buffer goes on until all is written, or raises.
    with path.open("wb") as output:
        for chunk in body:
            output.write(chunk)
            done += len(chunk)
            if done - handed_over >= _HAND_OVER:
                _begin_writing_back(output.fileno(), handed_over, done - handed_over)
                handed_over = done
        output.flush()
        os.fsync(output.fileno())


def _begin_writing_back(descriptor: int, begin: int, size: int) -> None:
    """Have the kernel send these bytes to the disk, and not wait for it.

    Linux does so where it is told that what is not written yet is no longer needed; it stays in
    memory until it is written. Elsewhere than with posix_fadvise(2) this does nothing.
    """
    if hasattr(os, "posix_fadvise"):
        os.posix_fadvise(descriptor, begin, size, os.POSIX_FADV_DONTNEED)


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
