"""Check several blocks at once, each in a process of its own, so that every core is used.

Not a process pool of the standard library: one that loses a worker to the kernel's memory killer
waits for ever, or has to finish what is under way before it can be given up.
"""

import multiprocessing
import signal
from collections.abc import Iterator, Sequence
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path

from prometheus_backup.errors import BackupToolError
from prometheus_backup.tsdb.reading import Watch, ignore_bytes
from prometheus_backup.tsdb.verification import KEPT, BlockReport, check_block

_REPORT_EVERY = 16 << 20
"""Bytes a process reads between two messages about its progress."""


def check_blocks(
    folders: Sequence[Path], *, processes: int, keep: int = KEPT, watch: Watch = ignore_bytes
) -> Iterator[BlockReport]:
    """Yield the report of each block as it is done, large blocks first in, so in no fixed order.

    With one process, or one block, nothing is started. Closing the iterator ends the processes.
    Raises BackupToolError where one of them dies.
    """
    queue = sorted(folders, key=_size)
    if min(processes, len(queue)) <= 1:
        while queue:
            yield check_block(queue.pop(), keep=keep, watch=watch)
        return
    # A fork would copy the threads' locks in whatever state they are.
    context = multiprocessing.get_context("spawn")
    at_work: dict[Connection, tuple[BaseProcess, Path]] = {}
    try:
        while queue or at_work:
            while queue and len(at_work) < processes:
                folder = queue.pop()
                ours, theirs = context.Pipe(duplex=False)
                process: BaseProcess = context.Process(
                    target=_work, args=(theirs, folder, keep), daemon=True
                )
                process.start()
                theirs.close()
                at_work[ours] = process, folder
            for connection in wait([*at_work]):
                assert isinstance(connection, Connection)  # noqa: S101 -- for the types
                process, folder = at_work[connection]
                message = _receive(connection, process, folder)
                if isinstance(message, int):
                    watch(message)
                    continue
                del at_work[connection]
                connection.close()
                process.join()
                yield message
    finally:
        for connection, (process, _) in at_work.items():
            process.terminate()
            process.join()
            connection.close()


def _receive(connection: Connection, process: BaseProcess, folder: Path) -> BlockReport | int:
    try:
        message: BlockReport | int = connection.recv()
    except EOFError:
        process.join()
        raise BackupToolError(
            f"cannot check block {folder.name}: its process ended with {process.exitcode}",
            hint="was it killed for want of memory? start again with fewer processes",
        ) from None
    return message


def _work(connection: Connection, folder: Path, keep: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the one that started us ends us
    unsaid = 0

    def watch(size: int) -> None:
        nonlocal unsaid
        unsaid += size
        if unsaid >= _REPORT_EVERY:
            connection.send(unsaid)
            unsaid = 0

    report = check_block(folder, keep=keep, watch=watch)
    connection.send(unsaid)
    connection.send(report)


def _size(folder: Path) -> int:
    try:
        return sum(file.stat().st_size for file in folder.rglob("*"))
    except OSError:
        return 0
