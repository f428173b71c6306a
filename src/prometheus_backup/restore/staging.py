"""Download blocks of a backup into a folder; check and sync every file.

The caller moves the blocks from there to a data directory, or uses them in place.
"""

import contextlib
import os
from collections.abc import Generator, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from prometheus_backup.datadir.filesystem import sync_folder
from prometheus_backup.errors import (
    BackupToolError,
    BytesDiffer,
    ObjectNotFound,
)
from prometheus_backup.events import FileRestored, long_step
from prometheus_backup.repository.manifest import Block, File
from prometheus_backup.repository.repository import Repository
from prometheus_backup.transfer import (
    HashedFile,
    HashedStream,
    Transfer,
    WorkerContext,
    read_again_if_different,
)

_WRITEBACK_STEP = 4 * 1024 * 1024
"""Start writing a file's data to disk each time this many bytes are in the page cache."""


class ObjectAltered(BytesDiffer):
    """An object does not match the manifest."""

    def __init__(self, key: str) -> None:
        super().__init__(
            f"cannot restore {key}: its bytes differ from those that were backed up",
            hint="this block was not restored; run `prometheus-backup verify`, and restore "
            "another backup",
        )
        self.key = key


@dataclass(frozen=True, slots=True)
class Staging:
    """A folder that blocks are downloaded to. Files left by an interrupted run are reused."""

    repository: Repository
    transfer: Transfer
    folder: Path

    def path(self, block: Block) -> Path:
        """Return the path of a staged block."""
        return self.folder / block.ulid

    def download(
        self,
        blocks: Sequence[Block],
        *,
        step: str,
        failed: dict[str, BackupToolError] | None = None,
    ) -> Generator[Block, None, None]:
        """Yield each block, in the given order, once it is complete and synced.

        `step` names this step in events. Use contextlib.closing if the body of the loop may raise.
        Raises ObjectAltered if an object does not match the manifest, OSError if a file cannot be
        written, and the errors of the repository. With `failed`, a block with an object that is
        altered or missing is recorded there instead, by ULID, and not yielded.
        """
        missing = {block.ulid: len(block.files) for block in blocks}
        waiting = list(blocks)
        files = [(block, file) for block in blocks for file in block.files]
        for block in blocks:
            self._clear_strays(block)
        for block, file in files:
            self._file(block, file).parent.mkdir(parents=True, exist_ok=True)
        with (
            long_step(self.transfer.listener, step, sum(b.size for b in blocks)),
            contextlib.closing(self.transfer.each(files, self._fetch)) as fetched,
        ):
            for (block, file), error in fetched:
                if error is None:
                    self.transfer.listener(FileRestored(f"{block.ulid}/{file.path}", file.size))
                elif failed is None:
                    raise error
                else:
                    failed.setdefault(block.ulid, error)
                missing[block.ulid] -= 1
                # Yield in the given order even if a later block is complete first: after an
                # interruption the first blocks are in place.
                while waiting and not missing[waiting[0].ulid]:
                    complete = waiting.pop(0)
                    if not failed or complete.ulid not in failed:
                        self._sync(complete)
                        yield complete

    def _file(self, block: Block, file: File) -> Path:
        return self.folder / block.ulid / file.path

    def _clear_strays(self, block: Block) -> None:
        """Remove links, and files of an earlier run that do not belong to this block."""
        wanted = {self._file(block, file) for file in block.files}
        for path in (self.path(block), *self.path(block).rglob("*")):
            if path.is_symlink() or (path.is_file() and path not in wanted):
                path.unlink()

    def _fetch(self, item: tuple[Block, File], worker: WorkerContext) -> BackupToolError | None:
        """Download one file unless it is complete; return what is wrong with its object."""
        block, file = item
        try:
            self._download(self._file(block, file), file, worker)
        except (ObjectAltered, ObjectNotFound) as error:
            return error
        return None

    def _download(self, path: Path, file: File, worker: WorkerContext) -> None:
        if self._is_staged(path, file, worker):
            return
        part = path.with_name(path.name + ".part")

        def download() -> HashedStream:
            chunks = self.repository.store.stream(file.key)
            body = HashedStream(chunks, worker=worker, limit=file.size)
            _write(part, body)
            return body

        body = read_again_if_different(download, file.sha256, worker=worker)
        if (body.size, body.sha256) != (file.size, file.sha256):
            raise ObjectAltered(file.key)
        part.replace(path)

    def _is_staged(self, path: Path, file: File, worker: WorkerContext) -> bool:
        if not path.is_file() or path.stat().st_size != file.size:
            return False
        if HashedFile(path, size=file.size, worker=worker).read().sha256 == file.sha256:
            return True
        worker.advance(-file.size, limited=False)
        return False

    def _sync(self, block: Block) -> None:
        staged = self.path(block)
        for folder in [p for p in staged.rglob("*") if p.is_dir()] + [staged]:
            sync_folder(folder)


def _write(path: Path, body: Iterable[bytes]) -> None:
    """Write and sync a file. Writeback to disk starts during the download, not only at the end."""
    done = flushed = 0
    # Buffered, because a raw write() to a full disk writes less than it is given without raising.
    # Python's buffer writes everything or raises.
    with path.open("wb") as output:
        for chunk in body:
            output.write(chunk)
            done += len(chunk)
            if done - flushed >= _WRITEBACK_STEP:
                _start_writeback(output.fileno(), flushed, done - flushed)
                flushed = done
        output.flush()
        os.fsync(output.fileno())


def _start_writeback(descriptor: int, begin: int, size: int) -> None:
    """Ask the kernel to write these bytes to disk, without waiting for it.

    Linux starts writeback for POSIX_FADV_DONTNEED and keeps dirty pages until they are written.
    Without posix_fadvise(2) this does nothing.
    """
    if hasattr(os, "posix_fadvise"):
        os.posix_fadvise(descriptor, begin, size, os.POSIX_FADV_DONTNEED)
