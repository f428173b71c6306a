"""The worker pool: order, limits, the first failure, and memory."""

import hashlib
import subprocess
import sys
import threading
import tracemalloc
from collections.abc import Iterator, Sequence
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prometheus_backup.errors import BytesDiffer, RepositoryDenied, SnapshotUnusable
from prometheus_backup.events import BytesMoved, ignore
from prometheus_backup.transfer import (
    READ_CHUNK,
    SMALL_FILE,
    BandwidthLimit,
    Cancelled,
    HashedFile,
    HashedStream,
    Transfer,
    WorkerContext,
    small_requests,
)
from tests.support.repositories import ManualClock
from tests.support.runs import Recorder
from tests.support.waiting import wait_until


def limit(
    bytes_per_second: int | None = None, *, clock: ManualClock | None = None
) -> BandwidthLimit:
    return BandwidthLimit(bytes_per_second=bytes_per_second, clock=clock or ManualClock())


def pool(workers: int = 2) -> Transfer:
    return Transfer(workers=workers, limit=limit(), listener=ignore)


def new_worker() -> WorkerContext:
    return WorkerContext(limit(), ignore)


def test_every_item_is_processed_once_and_yielded_with_its_result() -> None:
    results = pool(4).all(range(100), lambda item, _: item * 2)
    assert sorted(results) == [(n, n * 2) for n in range(100)]


def test_no_items_yield_no_results() -> None:
    assert pool().all([], lambda item, _: item) == []


def test_items_are_started_in_order_by_at_most_the_given_number_of_workers() -> None:
    started: list[int] = []
    running = 0
    most = 0
    lock = threading.Lock()

    def work(item: int, _: WorkerContext) -> None:
        nonlocal running, most
        with lock:
            started.append(item)
            running += 1
            most = max(most, running)
        threading.Event().wait(0.001)
        with lock:
            running -= 1

    pool(1).all(range(20), work)
    assert started == [*range(20)]
    assert most == 1
    pool(3).all(range(30), work)
    assert most == 3


class Meeting:
    """Transfers that wait for one another until their costs are `full`; then all may end.

    A small one costs a sixteenth, a large one a fourth.
    """

    def __init__(self, full: float) -> None:
        self.started: list[int] = []
        self.most_cost = 0.0
        self.most = 0
        self._full = full
        self._costs: list[float] = []
        self._met = False
        self._changed = threading.Condition()

    def attend(self, size: int, _: WorkerContext) -> None:
        cost = 1 / 16 if size < SMALL_FILE else 1 / 4
        with self._changed:
            self.started.append(size)
            self._costs.append(cost)
            self.most = max(self.most, len(self._costs))
            self.most_cost = max(self.most_cost, sum(self._costs))
            self._met = self._met or sum(self._costs) >= self._full
            self._changed.notify_all()
            assert self._changed.wait_for(lambda: self._met, timeout=30)
            self._costs.remove(cost)


def wide(items: Sequence[int], meeting: Meeting) -> None:
    transfer = Transfer(workers=4, small_workers=16, limit=limit(), listener=ignore)
    transfer.all(items, meeting.attend, size=lambda item: item)


def test_small_files_have_more_workers_than_large_ones() -> None:
    for items, most in (
        (range(100), 16),
        ([SMALL_FILE - 1] * 40, 16),
        ([SMALL_FILE] * 40, 4),
        ([SMALL_FILE << 10] * 40, 4),
    ):
        meeting = Meeting(full=1.0)
        wide(items, meeting)
        assert meeting.most == most


def test_small_files_add_nothing_to_what_large_ones_may_use() -> None:
    large, small = [SMALL_FILE + n for n in range(3)], [*range(4)]
    for items in (large + small, small + large, [0, large[0], 1, large[1], 2, large[2], 3]):
        meeting = Meeting(full=1.0)
        wide([*items] * 9, meeting)
        assert meeting.most_cost == 1.0
        assert meeting.most == 7


@given(st.lists(st.sampled_from([1, 2, SMALL_FILE, SMALL_FILE + 1]), max_size=60))
def test_files_of_all_sizes_start_in_order_and_none_waits_for_ever(sizes: list[int]) -> None:
    meeting = Meeting(full=0.0)
    wide(sizes, meeting)
    assert meeting.started == sizes
    assert meeting.most_cost <= 1.0


def test_a_failure_ends_transfers_that_wait_for_room() -> None:
    started: list[int] = []
    all_run = threading.Event()

    def work(item: int, worker: WorkerContext) -> None:
        started.append(item)
        if len(started) == 4:
            all_run.set()
        assert all_run.wait(30)
        if item == SMALL_FILE:
            raise BytesDiffer("cannot read")
        while True:
            worker.advance(0)
            threading.Event().wait(0.001)

    transfer = Transfer(workers=4, small_workers=16, limit=limit(), listener=ignore)
    with pytest.raises(BytesDiffer):
        transfer.all([SMALL_FILE + n for n in range(50)], work, size=lambda item: item)
    assert len(started) < 10
    wait_until(lambda: not any(t.name.startswith("transfer") for t in threading.enumerate()))


def test_only_a_few_items_are_queued_ahead() -> None:
    """A million files must not create a million futures."""
    taken = 0

    class Counted(list[int]):
        def __iter__(self) -> Iterator[int]:
            nonlocal taken
            for item in super().__iter__():
                taken += 1
                yield item

    go = threading.Event()
    results: list[object] = []
    thread = threading.Thread(
        target=lambda: results.extend(pool(2).each(Counted(range(1000)), lambda *_: go.wait(30)))
    )
    thread.start()
    wait_until(lambda: taken >= 2)
    threading.Event().wait(0.05)
    assert taken <= 5
    go.set()
    thread.join(30)
    assert len(results) == 1000


def test_first_failure_keeps_its_identity_and_stops_the_others() -> None:
    failure = RepositoryDenied("cannot put: AccessDenied")
    started: list[int] = []
    stopped = threading.Event()
    others_running = threading.Event()

    def work(item: int, worker: WorkerContext) -> None:
        started.append(item)
        if item == 1:
            assert others_running.wait(30)
            raise failure
        others_running.set()
        try:
            while True:
                worker.advance(1)
                threading.Event().wait(0.001)
        except Cancelled:
            stopped.set()
            raise

    with pytest.raises(RepositoryDenied) as caught:
        pool(2).all(range(50), work)

    assert caught.value is failure
    assert stopped.is_set()
    assert len(started) < 10


def test_leaving_the_loop_stops_the_workers() -> None:
    stopped = threading.Event()

    def work(item: int, worker: WorkerContext) -> int:
        if item == 0:
            return item
        try:
            while True:
                worker.advance(1)
                threading.Event().wait(0.001)
        finally:
            stopped.set()

    with closing(pool(2).each(range(10), work)) as results:
        assert next(results) == (0, 0)
    assert stopped.is_set()


def test_worker_stuck_in_the_network_delays_a_stop_only_briefly(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("prometheus_backup.transfer._STOP_TIMEOUT", 0.05)
    release = threading.Event()

    def work(item: int, _: WorkerContext) -> None:
        if item:
            raise BytesDiffer("cannot read")
        release.wait(60)

    try:
        with pytest.raises(BytesDiffer):
            pool(2).all([0, 1], work)
        assert not release.is_set()
    finally:
        release.set()


def test_bandwidth_limit_is_shared_by_all_workers() -> None:
    clock = ManualClock()
    shared = limit(1000, clock=clock)
    for _ in range(3):
        shared.take(500)
    assert sum(clock.slept) == pytest.approx(1.5), "also the first one takes its time"
    clock.instant += timedelta(seconds=10)
    shared.take(2000)
    assert sum(clock.slept) == pytest.approx(3.5), "a pause gives no credit"


def test_worker_waiting_for_bandwidth_notices_a_stop_soon() -> None:
    clock = ManualClock()
    shared = limit(1, clock=clock)
    stop = threading.Event()
    stop.set()
    shared.take(3600, stop=stop)
    assert clock.slept == []

    naps = ManualClock()
    worker = WorkerContext(limit(1, clock=naps), ignore)
    worker.advance(3600)
    assert max(naps.slept) <= 0.5
    assert sum(naps.slept) == pytest.approx(3600)


def test_no_limit_never_waits() -> None:
    clock = ManualClock()
    limit(None, clock=clock).take(1 << 50)
    assert clock.slept == []


def test_bandwidth_limits_a_whole_transfer() -> None:
    clock = ManualClock()
    bounded = Transfer(workers=1, limit=limit(100, clock=clock), listener=ignore)
    bounded.all(range(10), lambda _, worker: worker.advance(50))
    assert clock.monotonic() == pytest.approx(10 * 0.5)


def test_file_is_hashed_while_it_is_read(tmp_path: Path) -> None:
    body = bytes(range(256)) * (READ_CHUNK // 128) + b"end"
    path = tmp_path / "chunk"
    path.write_bytes(body)
    recorder = Recorder()
    file = HashedFile(path, size=len(body), worker=WorkerContext(limit(), recorder))
    chunks = [*file]
    assert b"".join(chunks) == body
    assert max(map(len, chunks)) == READ_CHUNK
    assert file.sha256 == hashlib.sha256(body).hexdigest()
    assert sum(e.count for e in recorder.of(BytesMoved)) == len(body)
    stream = HashedStream(chunks, worker=new_worker()).read()
    assert (stream.sha256, stream.size) == (file.sha256, len(body))


def test_a_stream_ends_after_the_chunk_that_exceeds_its_limit() -> None:
    stream = HashedStream([b"abc", b"def", b"ghi"], worker=new_worker(), limit=4)
    assert [*stream] == [b"abc", b"def"]
    assert stream.size == 6


@pytest.mark.parametrize("size", [2, 4])
def test_file_whose_length_changed_raises_bytes_differ(tmp_path: Path, size: int) -> None:
    (tmp_path / "f").write_bytes(b"abc")
    with pytest.raises(BytesDiffer, match=f"it has 3 bytes, not {size}"):
        HashedFile(tmp_path / "f", size=size, worker=new_worker()).read()


def test_unreadable_file_raises_snapshot_unusable(tmp_path: Path) -> None:
    with pytest.raises(SnapshotUnusable, match=r"absent"):
        HashedFile(tmp_path / "absent", size=0, worker=new_worker()).read()


def test_stop_is_noticed_in_the_middle_of_a_file(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(bytes(3 * READ_CHUNK))
    worker = new_worker()
    chunks = iter(HashedFile(tmp_path / "f", size=3 * READ_CHUNK, worker=worker))
    next(chunks)
    worker.cancel()
    with pytest.raises(Cancelled):
        next(chunks)


def test_memory_does_not_grow_with_the_file(tmp_path: Path) -> None:
    path = tmp_path / "large"
    with path.open("wb") as file:
        file.truncate(64 * READ_CHUNK)
    tracemalloc.start()
    try:
        HashedFile(path, size=64 * READ_CHUNK, worker=new_worker()).read()
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 4 * READ_CHUNK


_CHURN = """
import resource, sys
from concurrent.futures import ThreadPoolExecutor
from prometheus_backup.transfer import keep_freed_memory

if sys.argv[1] == "keep":
    keep_freed_memory()

def churn(number):
    for _ in range(200):
        chunks = [bytearray(1 << 20) for _ in range(8)]
        del chunks

with ThreadPoolExecutor(2) as pool:
    list(pool.map(churn, range(2)))
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt)
"""


def test_freed_memory_is_kept_for_the_next_chunk() -> None:
    def faults(mode: str) -> int:
        done = subprocess.run(
            [sys.executable, "-c", _CHURN, mode], capture_output=True, text=True, check=True
        )
        return int(done.stdout)

    assert faults("keep") < faults("leave") / 10


def test_one_byte_is_not_called_bytes(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"a")
    with pytest.raises(BytesDiffer, match="it has 1 byte, not 2"):
        HashedFile(tmp_path / "f", size=2, worker=new_worker()).read()


def test_small_requests_are_made_16_at_once_and_answered_in_order() -> None:
    meeting = Meeting(full=1.0)

    def request(number: int) -> int:
        meeting.attend(1, new_worker())
        return number

    assert small_requests(request, range(40)) == [*range(40)]
    assert meeting.most == 16


def test_a_small_request_that_fails_ends_the_others() -> None:
    made: list[int] = []

    def request(number: int) -> None:
        made.append(number)
        if number == 0:
            raise RepositoryDenied("cannot read")

    with pytest.raises(RepositoryDenied):
        small_requests(request, range(100_000))
    assert len(made) < 100_000
    assert small_requests(str, []) == []
