"""Check several blocks at once, in processes of their own, so that every core is used.

Not a process pool of the standard library: one that loses a worker to the kernel's memory killer
waits for ever, or has to finish what is under way before it can be given up.
"""

import contextlib
import multiprocessing
import signal
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path

from prometheus_backup.errors import BackupToolError
from prometheus_backup.tsdb.reading import Watch, ignore_bytes
from prometheus_backup.tsdb.verification import KEPT, BlockReport, check_block

_REPORT_EVERY = 16 << 20
"""Bytes a process reads between two messages about its progress."""


def block_size(folder: Path) -> int:
    """Return the bytes of a block's files, 0 where they cannot be told."""
    try:
        return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    except OSError:
        return 0


def check_blocks(
    folders: Sequence[Path], *, processes: int, keep: int = KEPT, watch: Watch = ignore_bytes
) -> Generator[BlockReport, None, None]:
    """Yield the report of each block as it is done; large blocks are begun first.

    With one process, or one block, nothing is started. Closing the generator ends the processes.
    Raises BackupToolError where one of them dies.
    """
    queue = sorted(folders, key=block_size)
    workers = min(processes, len(queue))
    if workers <= 1:
        while queue:
            yield check_block(queue.pop(), keep=keep, watch=watch)
        return
    with contextlib.ExitStack() as stack:
        at_work = [_Worker.start(keep) for _ in range(workers)]
        for worker in at_work:
            stack.callback(worker.end)
            worker.check(queue.pop())
        while at_work:
            for ready in wait([worker.connection for worker in at_work]):
                worker = next(w for w in at_work if w.connection is ready)
                message = worker.receive()
                if isinstance(message, int):
                    watch(message)
                    continue
                yield message
                if queue:
                    worker.check(queue.pop())
                else:
                    at_work.remove(worker)


@dataclass(slots=True)
class _Worker:
    """A process that checks the blocks that are sent to it, one after the other."""

    process: BaseProcess
    connection: Connection
    folder: Path | None = None

    @classmethod
    def start(cls, keep: int) -> "_Worker":
        # A fork would copy the locks of other threads in whatever state they are.
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        process = context.Process(target=_work, args=(theirs, keep), daemon=True)
        process.start()
        theirs.close()
        return cls(process, ours)

    def check(self, folder: Path) -> None:
        self.folder = folder
        with contextlib.suppress(BrokenPipeError):  # then `receive` tells of its end
            self.connection.send(folder)

    def receive(self) -> BlockReport | int:
        try:
            message: BlockReport | int = self.connection.recv()
        except (EOFError, ConnectionResetError):
            self.process.join()
            raise BackupToolError(
                f"cannot check block {self.folder}: its process ended with {self.process.exitcode}",
                hint="was it killed for want of memory? start again with fewer processes",
            ) from None
        return message

    def end(self) -> None:
        self.process.terminate()
        self.process.join()
        self.connection.close()


def _work(connection: Connection, keep: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # who started us ends us
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    unsaid = 0

    def watch(size: int) -> None:
        nonlocal unsaid
        unsaid += size
        if unsaid >= _REPORT_EVERY:
            connection.send(unsaid)
            unsaid = 0

    with contextlib.suppress(EOFError):
        while True:
            report = check_block(connection.recv(), keep=keep, watch=watch)
            connection.send(unsaid)
            unsaid = 0
            connection.send(report)
