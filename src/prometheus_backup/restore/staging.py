"""Download blocks of a backup into a folder; check and sync every file.

The caller moves the blocks from there to a data directory, or uses them in place.
"""

import contextlib
import os
import stat
from collections.abc import Collection, Generator, Iterable, Sequence
from dataclasses import dataclass
from typing import IO

from prometheus_backup.errors import (
    BackupToolError,
    BytesDiffer,
    ObjectNotFound,
)
from prometheus_backup.events import FileRestored, long_step
from prometheus_backup.folder import Folder
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
    folder: Folder

    def download(
        self,
        blocks: Sequence[Block],
        *,
        step: str,
        failed: dict[str, BackupToolError] | None = None,
    ) -> Generator[Block, None, None]:
        """Yield each block, in the given order, once its files are complete and synced.

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
            with self.folder.parent_of(block.ulid, file.path, create=True):
                pass
        with (
            long_step(self.transfer.listener, step, sum(b.size for b in blocks)),
            contextlib.closing(
                self.transfer.each(files, self._fetch, size=lambda item: item[1].size)
            ) as fetched,
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
                        yield complete

    def _clear_strays(self, block: Block) -> None:
        """Remove links, and files of an earlier run that do not belong to this block."""
        if not self.folder.exists(block.ulid):
            return
        wanted = {file.path for file in block.files}
        folders = {path.rpartition("/")[0] for path in wanted}
        if self.folder.is_link(block.ulid):
            self.folder.remove(block.ulid)
            return
        with self.folder.at(block.ulid) as folder:
            _clear(folder, "", wanted, folders)

    def _fetch(self, item: tuple[Block, File], worker: WorkerContext) -> BackupToolError | None:
        """Download one file unless it is complete; return what is wrong with its object."""
        block, file = item
        try:
            with self.folder.parent_of(block.ulid, file.path) as folder:
                self._download(folder, file, worker)
        except (ObjectAltered, ObjectNotFound) as error:
            return error
        return None

    def _download(self, folder: Folder, file: File, worker: WorkerContext) -> None:
        name = file.path.rpartition("/")[2]
        if _is_staged(folder, name, file, worker):
            return
        part = f"{name}.part"

        def download() -> HashedStream:
            chunks = self.repository.store.stream(file.key)
            body = HashedStream(chunks, worker=worker, limit=file.size)
            _write(folder.create(part), body)
            return body

        body = read_again_if_different(download, file.sha256, worker=worker)
        if (body.size, body.sha256) != (file.size, file.sha256):
            raise ObjectAltered(file.key)
        folder.move(part, folder, name)


def _clear(folder: Folder, prefix: str, wanted: Collection[str], folders: Collection[str]) -> None:
    """Remove what is neither a wanted file nor a directory on the way to one."""
    for name in folder.names():
        path, mode = f"{prefix}{name}", folder.status(name).st_mode
        if stat.S_ISDIR(mode) and path in folders:
            with folder.at(name) as below:
                _clear(below, f"{path}/", wanted, folders)
        elif not (stat.S_ISREG(mode) and path in wanted):
            folder.remove(name)


def _is_staged(folder: Folder, name: str, file: File, worker: WorkerContext) -> bool:
    if not folder.exists(name) or folder.status(name).st_size != file.size:
        return False
    if HashedFile(folder.path / name, size=file.size, worker=worker).read().sha256 == file.sha256:
        return True
    worker.advance(-file.size, limited=False)
    return False


def _write(output: IO[bytes], body: Iterable[bytes]) -> None:
    """Write and sync a file. Writeback to disk starts during the download, not only at the end."""
    done = flushed = 0
    # Buffered, because a raw write() to a full disk writes less than it is given without raising.
    # Python's buffer writes everything or raises.
    with output:
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
