"""Move bytes: a pool of workers that share one bandwidth limit, and files hashed as they are read.

The capabilities decide what is moved, and what to do if bytes differ.
"""

import contextlib
import ctypes
import hashlib
import math
import threading
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self, TypeVar

from prometheus_backup.clock import Clock
from prometheus_backup.errors import BytesDiffer, SnapshotUnusable
from prometheus_backup.events import BytesMoved, Listener
from prometheus_backup.model import counted

READ_CHUNK = 1024 * 1024
SMALL_FILE = 1024 * 1024
"""A file of fewer bytes is small: it takes as long as its request, and little memory."""
SMALL_WORKERS = 16
"""Concurrent transfers of small files, and requests that move no bytes through this machine."""
_MAX_SLEEP = 0.5  # seconds; a worker that waits for bandwidth must notice a stop soon
_STOP_TIMEOUT = 5.0  # seconds; a worker stuck in the network must not delay the clean-up

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # malloc.h; mallopt(3)
_MAX_IN_HEAP = 32 * 1024 * 1024  # bytes, the most that glibc allows
_MAX_FREE = 128 * 1024 * 1024

_T = TypeVar("_T")
_R = TypeVar("_R")


class Cancelled(Exception):
    """The pool is stopping. Raised only inside workers."""


def keep_freed_memory() -> None:
    """Make glibc keep the memory of freed chunks for the next ones; does nothing without glibc.

    By default glibc returns it to the system once two of the largest chunks are free, and requests
    it again, zeroed page by page, for the next chunk. That takes some percent of a restore's CPU
    time on an idle machine, and more on a busy one.
    """
    set_option = getattr(ctypes.CDLL(None), "mallopt", None)
    if set_option is not None:
        set_option(_M_MMAP_THRESHOLD, _MAX_IN_HEAP)
        set_option(_M_TRIM_THRESHOLD, _MAX_FREE)


class BandwidthLimit:
    """A token bucket shared by all workers; `bytes_per_second` None means no limit."""

    def __init__(self, *, bytes_per_second: int | None, clock: Clock) -> None:
        self._rate = bytes_per_second
        self._clock = clock
        self._lock = threading.Lock()
        self._free_at = clock.monotonic()

    def take(self, count: int, *, stop: threading.Event | None = None) -> None:
        """Wait for as long as `count` more bytes take at this rate, or until `stop` is set."""
        if self._rate is None:
            return
        with self._lock:
            end = max(self._free_at, self._clock.monotonic()) + count / self._rate
            self._free_at = end
        while (delay := end - self._clock.monotonic()) > 0:
            if stop is not None and stop.is_set():
                return
            self._clock.sleep(min(delay, _MAX_SLEEP))


def small_requests(action: Callable[[_T], _R], items: Sequence[_T]) -> list[_R]:
    """Return the results of requests for little data, in order; several are made at once.

    The first error ends the others, and neither it nor a signal waits for a silent store.
    """
    if len(items) < 2:
        return [action(item) for item in items]
    pool = ThreadPoolExecutor(SMALL_WORKERS, thread_name_prefix="requests")
    try:
        return list(pool.map(action, items))
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


@dataclass(frozen=True, slots=True)
class Transfer:
    """How one run moves bytes: number of workers, bandwidth limit, and listener for events.

    `workers` transfer large files, or `small_workers` small ones, of which there may be thousands:
    each takes as long as the store is far away.
    """

    workers: int
    limit: BandwidthLimit
    listener: Listener
    small_workers: int = SMALL_WORKERS

    def store_side(self) -> Self:
        """Return the same with more workers, for work that the store does."""
        return replace(self, workers=max(self.workers, SMALL_WORKERS))

    def each(
        self,
        items: Sequence[_T],
        action: Callable[[_T, "WorkerContext"], _R],
        *,
        size: Callable[[_T], int] | None = None,
    ) -> Generator[tuple[_T, _R], None, None]:
        """Run `action` on every item in worker threads; yield (item, result) on completion.

        `size` returns the bytes of an item; without it, every item counts as a large file.

        Items are started in order. If one fails, or the caller leaves the loop, the others are
        cancelled; workers get some seconds to stop before this raises. If the loop's body can
        raise, wrap this in contextlib.closing: a traceback would keep it, and its workers, alive.
        """
        worker = WorkerContext(self.limit, self.listener)
        running: dict[Future[_R], _T] = {}
        small_workers = max(self.workers, self.small_workers) if size else self.workers
        pool = ThreadPoolExecutor(small_workers, thread_name_prefix="transfer")
        room = _Room(large=self.workers, small=small_workers)

        def run(number: int, item: _T) -> _R:
            with room.taken(number, small=size is not None and size(item) < SMALL_FILE):
                return action(item, worker)

        try:
            for number, item in enumerate(items):
                running[pool.submit(run, number, item)] = item
                if len(running) >= small_workers * 2:
                    yield from _collect(running)
            while running:
                yield from _collect(running)
        finally:
            worker.cancel()
            room.close()
            pool.shutdown(wait=False, cancel_futures=True)
            # wait() treats a cancelled future as one that is still running.
            wait([f for f in running if not f.cancelled()], timeout=_STOP_TIMEOUT)

    def all(
        self,
        items: Sequence[_T],
        action: Callable[[_T, "WorkerContext"], _R],
        *,
        size: Callable[[_T], int] | None = None,
    ) -> list[tuple[_T, _R]]:
        """Return everything that `each` yields, as a list."""
        with contextlib.closing(self.each(items, action, size=size)) as results:
            return list(results)


class _Room:
    """Room for `large` large transfers, or `small` small ones, or a share of each.

    So small transfers add nothing to the memory that large ones may use. Transfers start in the
    order of their numbers, from 0: small ones cannot keep a large one waiting.
    """

    def __init__(self, *, large: int, small: int) -> None:
        self._cost_of_large, self._cost_of_small = small, large
        self._free = large * small
        self._next = 0
        self._closed = False
        self._changed = threading.Condition()

    @contextlib.contextmanager
    def taken(self, number: int, *, small: bool) -> Iterator[None]:
        """Wait until the transfer of this number can start. Raises Cancelled once closed."""
        cost = self._cost_of_small if small else self._cost_of_large
        with self._changed:
            self._changed.wait_for(
                lambda: self._closed or (number == self._next and cost <= self._free)
            )
            if self._closed:
                raise Cancelled
            self._next += 1
            self._free -= cost
            self._changed.notify_all()
        try:
            yield
        finally:
            with self._changed:
                self._free += cost
                self._changed.notify_all()

    def close(self) -> None:
        """Start no more transfers."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()


class WorkerContext:
    """What a worker reports its bytes to: it limits bandwidth, emits progress, raises on a stop."""

    def __init__(self, limit: BandwidthLimit, listener: Listener) -> None:
        self._limit = limit
        self._listener = listener
        self._cancelled = threading.Event()

    def cancel(self) -> None:
        """Stop every worker at its next chunk."""
        self._cancelled.set()

    def advance(self, count: int, *, limited: bool = True) -> None:
        """Account for `count` bytes. Raises Cancelled if the pool is stopping.

        Bytes that the store copies are not `limited`. A negative count takes back progress.
        """
        if self._cancelled.is_set():
            raise Cancelled
        if limited:
            self._limit.take(count, stop=self._cancelled)
        self._listener(BytesMoved(count, transferred=limited))


class HashedStream:
    """Chunks that are hashed and counted while they are read.

    Ends after the chunk that exceeds `limit` bytes. `sha256` and `size` are of the bytes read.
    """

    def __init__(
        self, chunks: Iterable[bytes], *, worker: WorkerContext, limit: float = math.inf
    ) -> None:
        self._chunks = chunks
        self._worker = worker
        self._limit = limit
        self._hash = hashlib.sha256()
        self.size = 0

    @property
    def sha256(self) -> str:
        """Return the hash of the bytes read so far, in hex."""
        return self._hash.hexdigest()

    def __iter__(self) -> Iterator[bytes]:
        for chunk in self._chunks:
            self.size += len(chunk)
            self._hash.update(chunk)
            self._worker.advance(len(chunk))
            yield chunk
            if self.size > self._limit:
                return

    def read(self) -> Self:
        """Read everything, only for the hash and the size."""
        for _ in self:
            pass
        return self


def read_again_if_different(
    read: Callable[[], HashedStream], sha256: str, *, worker: WorkerContext
) -> HashedStream:
    """Return an object as read, or as read a second time if its bytes were wrong the first time.

    A bit that flips on the way is no fault of the object.
    """
    found = read()
    if found.sha256 == sha256:
        return found
    worker.advance(-found.size, limited=False)
    return read()


class HashedFile(HashedStream):
    """A file that is hashed while it is read in chunks.

    Each iteration reads it from the start, and takes back the progress of the one before.
    Raises SnapshotUnusable if it cannot be read, BytesDiffer if it is not `size` bytes long or, at
    the end, does not have this hash.
    """

    def __init__(
        self, path: Path, *, size: int, worker: WorkerContext, sha256: str | None = None
    ) -> None:
        super().__init__(_chunks(path), worker=worker)
        self._path = path
        self._expected_size = size
        self._expected_sha256 = sha256

    def __iter__(self) -> Iterator[bytes]:
        if self.size:  # an upload that begins again
            self._worker.advance(-self.size, limited=False)
        self._chunks, self._hash, self.size = _chunks(self._path), hashlib.sha256(), 0
        yield from super().__iter__()
        if self.size != self._expected_size:
            raise BytesDiffer(
                f"cannot read {self._path}: it has {counted(self.size, 'byte')}, "
                f"not {self._expected_size:,}"
            )
        if self._expected_sha256 not in (None, self.sha256):
            raise BytesDiffer(f"cannot read {self._path}: it changed since it was planned")


def _chunks(path: Path) -> Iterator[bytes]:
    try:
        with path.open("rb", buffering=0) as file:
            while chunk := file.read(READ_CHUNK):
                yield chunk
    except OSError as error:
        raise SnapshotUnusable(f"cannot read {path}: {error.strerror}") from error


def _collect(running: dict[Future[Any], Any]) -> Iterator[tuple[Any, Any]]:
    # With a timeout, so that the main thread handles signals soon.
    done, _ = wait(running, timeout=0.5, return_when=FIRST_COMPLETED)
    for future in done:
        item = running.pop(future)
        yield item, future.result()
