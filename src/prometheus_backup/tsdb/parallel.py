"""Check several blocks at once, each in its own process, so that every core is used.

The process pools of the standard library do not fit: if the kernel kills a worker for its memory,
they wait forever, or cannot be stopped before running checks are done.
"""

import contextlib
import multiprocessing
import signal
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path

from prometheus_backup.errors import BackupToolError
from prometheus_backup.events import BytesMoved, Listener, long_step
from prometheus_backup.tsdb.reading import Watch, ignore_bytes, watched_once
from prometheus_backup.tsdb.verification import KEPT, BlockReport, check_block

_REPORT_EVERY = 16 << 20
"""Bytes that a process reads between two progress messages."""
MIN_PARALLEL_BYTES = 64 << 20
"""Fewer bytes than this are checked faster without starting processes."""


def block_size(folder: Path) -> int:
    """Return the size of a block's files in bytes, 0 if they cannot be read."""
    try:
        return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    except OSError:
        return 0


@contextlib.contextmanager
def checked_blocks(
    folders: Sequence[Path], *, step: str, processes: int, listener: Listener
) -> Iterator[Iterator[BlockReport]]:
    """Give the reports of `check_blocks`, and report progress as a long step of this name."""
    with (
        long_step(listener, step, sum(map(block_size, folders))),
        contextlib.closing(
            check_blocks(folders, processes=processes, watch=lambda n: listener(BytesMoved(n)))
        ) as reports,
    ):
        yield reports


def check_blocks(
    folders: Sequence[Path], *, processes: int, keep: int = KEPT, watch: Watch = ignore_bytes
) -> Generator[BlockReport, None, None]:
    """Yield the report of each block when it is done, starting with the largest blocks.

    For one block, or for few bytes, no process is started. Closing the generator ends the
    processes. Raises BackupToolError if one of them dies.
    """
    queue = sorted(folders, key=block_size)
    workers = min(processes, len(queue))
    if workers <= 1 or sum(map(block_size, queue)) < MIN_PARALLEL_BYTES:
        while queue:
            yield _check(queue.pop(), keep=keep, watch=watch)
        return
    with contextlib.ExitStack() as stack:
        busy = [_Worker.start(keep) for _ in range(workers)]
        for worker in busy:
            stack.callback(worker.end)
            worker.check(queue.pop())
        while busy:
            for ready in wait([worker.connection for worker in busy]):
                worker = next(w for w in busy if w.connection is ready)
                message = worker.receive()
                if isinstance(message, int):
                    watch(message)
                    continue
                yield message
                if queue:
                    worker.check(queue.pop())
                else:
                    busy.remove(worker)


def _check(folder: Path, *, keep: int, watch: Watch) -> BlockReport:
    """Check a block, and count each of its bytes once, although parts of it are read twice."""
    with watched_once(watch, block_size(folder)) as once:
        return check_block(folder, keep=keep, watch=once)


@dataclass(slots=True)
class _Worker:
    """A process that checks the blocks that it receives, one after the other."""

    process: BaseProcess
    connection: Connection
    folder: Path | None = None

    @classmethod
    def start(cls, keep: int) -> "_Worker":
        # A fork would copy the locks of other threads in their current state.
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        process = context.Process(target=_work, args=(theirs, keep), daemon=True)
        process.start()
        theirs.close()
        return cls(process, ours)

    def check(self, folder: Path) -> None:
        self.folder = folder
        with contextlib.suppress(BrokenPipeError):  # `receive` reports its end
            self.connection.send(folder)

    def receive(self) -> BlockReport | int:
        try:
            message: BlockReport | int = self.connection.recv()
        except (EOFError, ConnectionResetError):
            self.process.join()
            raise BackupToolError(
                f"cannot check block {self.folder}: its process ended with {self.process.exitcode}",
                hint="if it ran out of memory, use fewer processes",
            ) from None
        return message

    def end(self) -> None:
        self.process.terminate()
        self.process.join()
        self.connection.close()


def _work(connection: Connection, keep: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends this process
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    unreported = 0

    def watch(size: int) -> None:
        nonlocal unreported
        unreported += size
        if unreported >= _REPORT_EVERY:
            connection.send(unreported)
            unreported = 0

    with contextlib.suppress(EOFError):
        while True:
            report = _check(connection.recv(), keep=keep, watch=watch)
            connection.send(unreported)
            unreported = 0
            connection.send(report)
