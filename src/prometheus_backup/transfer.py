"""Moving bytes: a pool of workers with one bandwidth limit, hashing in the pass that reads.

What moves where, and what is done about a difference, is decided by the ops.
"""

import contextlib
import ctypes
import hashlib
import threading
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self, TypeVar

from prometheus_backup.clock import Clock
from prometheus_backup.errors import BytesDiffer, SnapshotUnusable
from prometheus_backup.events import BytesMoved, Listener

READ_CHUNK = 1024 * 1024
WIDE = 16
"""Requests in flight that move no bytes through this machine."""
_NAP = 0.5  # seconds that a worker held by the limit sleeps at a time, to see a stop soon
_STOP_PATIENCE = 10.0  # seconds; a worker stuck in the network must not hold up the clean-up

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # malloc.h; mallopt(3)
_MOST_IN_HEAP = 32 * 1024 * 1024  # bytes, the most that glibc allows
_KEPT_FREE = 128 * 1024 * 1024

_T = TypeVar("_T")
_R = TypeVar("_R")


class Cancelled(Exception):
    """The pool is stopping; raised inside the workers only."""


def keep_freed_memory() -> None:
    """Have the C library keep what chunks leave behind, for the next ones.

    By itself glibc returns the top of a thread's heap to the system as soon as two of the largest
    chunks are free, and takes it back, zeroed page by page, for the next one: some percent of a
    restore's CPU time on a quiet machine, more on a busy one. Elsewhere than with glibc this does
    nothing.
    """
    set_option = getattr(ctypes.CDLL(None), "mallopt", None)
    if set_option is not None:
        set_option(_M_MMAP_THRESHOLD, _MOST_IN_HEAP)
        set_option(_M_TRIM_THRESHOLD, _KEPT_FREE)


class BandwidthLimit:
    """A token bucket shared by all workers; `bytes_per_second` None lets everything through."""

    def __init__(self, *, bytes_per_second: int | None, clock: Clock) -> None:
        self._rate = bytes_per_second
        self._clock = clock
        self._lock = threading.Lock()
        self._free_at = clock.monotonic()

    def take(self, count: int, *, unless: threading.Event | None = None) -> None:
        """Wait until `count` more bytes may pass, or not even that long once `unless` is set."""
        if self._rate is None:
            return
        with self._lock:
            start = max(self._free_at, self._clock.monotonic())
            self._free_at = start + count / self._rate
        while (delay := start - self._clock.monotonic()) > 0:
            if unless is not None and unless.is_set():
                return
            self._clock.sleep(min(delay, _NAP))


@dataclass(frozen=True, slots=True)
class Transfer:
    """How bytes are moved in one run: how many at once, how fast, and who is told."""

    workers: int
    limit: BandwidthLimit
    listener: Listener

    def wide(self) -> Self:
        """Return the same for work that the store does: many at once, as it costs us nothing."""
        return replace(self, workers=max(self.workers, WIDE))

    def each(
        self, items: Sequence[_T], action: Callable[[_T, "WorkerContext"], _R]
    ) -> Generator[tuple[_T, _R], None, None]:
        """Run `action` on every item in worker threads; yield (item, result) as they end.

        The items are begun in order. The first failure, or the caller's leaving the loop, cancels
        the rest; workers get some seconds to stop before this raises. Close it where the loop's
        body may raise (contextlib.closing): a traceback would keep it, and its workers, alive.
        """
        watch = WorkerContext(self.limit, self.listener)
        running: dict[Future[_R], _T] = {}
        pool = ThreadPoolExecutor(self.workers, thread_name_prefix="transfer")
        try:
            for item in items:
                running[pool.submit(action, item, watch)] = item
                if len(running) >= self.workers * 2:
                    yield from _collect(running)
            while running:
                yield from _collect(running)
        finally:
            watch.cancel()
            pool.shutdown(wait=False, cancel_futures=True)
            # wait() would take a cancelled future for one that still runs.
            wait([f for f in running if not f.cancelled()], timeout=_STOP_PATIENCE)

    def all(
        self, items: Sequence[_T], action: Callable[[_T, "WorkerContext"], _R]
    ) -> list[tuple[_T, _R]]:
        """Return what `each` yields, once everything is done."""
        with contextlib.closing(self.each(items, action)) as results:
            return list(results)


class WorkerContext:
    """What a worker holds: it passes bytes through the limit, counts them, and sees a stop."""

    def __init__(self, limit: BandwidthLimit, listener: Listener) -> None:
        self._limit = limit
        self._listener = listener
        self._cancelled = threading.Event()

    def cancel(self) -> None:
        """Make every worker stop at its next chunk."""
        self._cancelled.set()

    def passed(self, count: int, *, limited: bool = True) -> None:
        """Account for a chunk. Raises Cancelled when the pool is stopping.

        What the store moves by itself is not `limited`; a negative count takes progress back.
        """
        if self._cancelled.is_set():
            raise Cancelled
        if limited:
            self._limit.take(count, unless=self._cancelled)
        self._listener(BytesMoved(count))


class HashedFile:
    """A file read once, in chunks, hashed on the way. Read it whole, then ask for `sha256`.

    Raises SnapshotUnusable where it cannot be read, BytesDiffer where it is not `size` bytes long.
    """

    def __init__(self, path: Path, *, size: int, watch: WorkerContext) -> None:
        self._path = path
        self._size = size
        self._watch = watch
        self._hash = hashlib.sha256()

    @property
    def sha256(self) -> str:
        """Return the hash of what has been read, in hex."""
        return self._hash.hexdigest()

    def __iter__(self) -> Iterator[bytes]:
        done = 0
        try:
            with self._path.open("rb", buffering=0) as file:
                while chunk := file.read(READ_CHUNK):
                    done += len(chunk)
                    self._hash.update(chunk)
                    self._watch.passed(len(chunk))
                    yield chunk
        except OSError as error:
            raise SnapshotUnusable(f"cannot read {self._path}: {error.strerror}") from error
        if done != self._size:
            raise BytesDiffer(f"cannot read {self._path}: {done} bytes, expected {self._size}")

    def read(self) -> None:
        """Read the file for its hash alone."""
        for _ in self:
            pass


def hash_stream(chunks: Iterable[bytes], *, watch: WorkerContext) -> tuple[str, int]:
    """Return sha256 (hex) and number of bytes of a stream."""
    digest = hashlib.sha256()
    size = 0
    for chunk in chunks:
        digest.update(chunk)
        size += len(chunk)
        watch.passed(len(chunk))
    return digest.hexdigest(), size


def _collect(running: dict[Future[Any], Any]) -> Iterator[tuple[Any, Any]]:
    # A bounded wait, so that the main thread sees signals soon.
    done, _ = wait(running, timeout=0.5, return_when=FIRST_COMPLETED)
    for future in done:
        item = running.pop(future)
        yield item, future.result()
