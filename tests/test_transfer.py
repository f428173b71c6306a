"""The worker pool: order, limits, the first failure, and how much it holds at once."""

import hashlib
import subprocess
import sys
import threading
import tracemalloc
from collections.abc import Iterator
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import pytest

from prometheus_backup.errors import BytesDiffer, RepositoryDenied, SnapshotUnusable
from prometheus_backup.events import BytesMoved, ignore
from prometheus_backup.transfer import (
    READ_CHUNK,
    BandwidthLimit,
    Cancelled,
    HashedFile,
    Transfer,
    WorkerContext,
    hash_stream,
)
from tests.support.repositories import StillClock
from tests.support.runs import Recorder
from tests.support.waiting import wait_until


def limit(
    bytes_per_second: int | None = None, *, clock: StillClock | None = None
) -> BandwidthLimit:
    return BandwidthLimit(bytes_per_second=bytes_per_second, clock=clock or StillClock())


def pool(workers: int = 2) -> Transfer:
    return Transfer(workers=workers, limit=limit(), listener=ignore)


def watch() -> WorkerContext:
    return WorkerContext(limit(), ignore)


def test_every_item_is_done_once_and_comes_with_its_result() -> None:
    results = pool(4).all(range(100), lambda item, _: item * 2)
    assert sorted(results) == [(n, n * 2) for n in range(100)]


def test_nothing_to_do_is_done_at_once() -> None:
    assert pool().all([], lambda item, _: item) == []


def test_items_are_begun_in_order_by_no_more_workers_than_said() -> None:
    begun: list[int] = []
    at_work = 0
    most = 0
    lock = threading.Lock()

    def work(item: int, _: WorkerContext) -> None:
        nonlocal at_work, most
        with lock:
            begun.append(item)
            at_work += 1
            most = max(most, at_work)
        threading.Event().wait(0.001)
        with lock:
            at_work -= 1

    pool(1).all(range(20), work)
    assert begun == [*range(20)]
    assert most == 1
    pool(3).all(range(30), work)
    assert most == 3


def test_few_items_are_taken_up_ahead_of_their_turn() -> None:
    """A million files must not make a million futures."""
    taken = 0

    class Counted(list[int]):
        def __iter__(self) -> Iterator[int]:
            nonlocal taken
            for item in super().__iter__():
                taken += 1
                yield item

    go = threading.Event()
    results: list[object] = []
    worker = threading.Thread(
        target=lambda: results.extend(pool(2).each(Counted(range(1000)), lambda *_: go.wait(30)))
    )
    worker.start()
    wait_until(lambda: taken >= 2)
    threading.Event().wait(0.05)
    assert taken <= 5
    go.set()
    worker.join(30)
    assert len(results) == 1000


def test_first_failure_keeps_its_identity_and_stops_the_others() -> None:
    failure = RepositoryDenied("cannot put: AccessDenied")
    begun: list[int] = []
    stopped = threading.Event()
    others_at_work = threading.Event()

    def work(item: int, its: WorkerContext) -> None:
        begun.append(item)
        if item == 1:
            assert others_at_work.wait(30)
            raise failure
        others_at_work.set()
        try:
            while True:
                its.passed(1)
                threading.Event().wait(0.001)
        except Cancelled:
            stopped.set()
            raise

    with pytest.raises(RepositoryDenied) as caught:
        pool(2).all(range(50), work)

    assert caught.value is failure
    assert stopped.is_set()
    assert len(begun) < 10


def test_leaving_the_loop_stops_the_workers() -> None:
    stopped = threading.Event()

    def work(item: int, its: WorkerContext) -> int:
        if item == 0:
            return item
        try:
            while True:
                its.passed(1)
                threading.Event().wait(0.001)
        finally:
            stopped.set()

    with closing(pool(2).each(range(10), work)) as results:
        assert next(results) == (0, 0)
    assert stopped.is_set()


def test_worker_stuck_in_the_network_holds_nobody_up_for_long(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("prometheus_backup.transfer._STOP_PATIENCE", 0.05)
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


def test_bandwidth_is_what_was_said_over_all_workers() -> None:
    clock = StillClock()
    shared = limit(1000, clock=clock)
    for _ in range(3):
        shared.take(500)
    # The first passes at once; each next one waits until those before it are paid for.
    assert sum(clock.slept) == pytest.approx(1.0)
    clock.instant += timedelta(seconds=10)
    shared.take(2000)
    assert sum(clock.slept) == pytest.approx(1.0)  # after a rest, nothing is owed
    shared.take(1)
    assert sum(clock.slept) == pytest.approx(3.0)  # and the rest was not saved up


def test_worker_held_by_the_bandwidth_limit_sees_a_stop_soon() -> None:
    clock = StillClock()
    shared = limit(1, clock=clock)
    shared.take(3600)
    stop = threading.Event()
    stop.set()
    shared.take(1, unless=stop)
    assert clock.slept == []

    naps = StillClock()
    its = WorkerContext(limit(1, clock=naps), ignore)
    its.passed(3600)
    its.passed(1)
    assert max(naps.slept) <= 0.5
    assert sum(naps.slept) == pytest.approx(3600)


def test_no_limit_never_waits() -> None:
    clock = StillClock()
    limit(None, clock=clock).take(1 << 50)
    assert clock.slept == []


def test_bandwidth_limits_a_whole_transfer() -> None:
    clock = StillClock()
    bounded = Transfer(workers=1, limit=limit(100, clock=clock), listener=ignore)
    bounded.all(range(10), lambda _, its: its.passed(50))
    assert clock.monotonic() == pytest.approx(9 * 0.5)


def test_file_is_hashed_in_the_pass_that_reads_it(tmp_path: Path) -> None:
    body = bytes(range(256)) * (READ_CHUNK // 128) + b"end"
    path = tmp_path / "chunk"
    path.write_bytes(body)
    recorder = Recorder()
    file = HashedFile(path, size=len(body), watch=WorkerContext(limit(), recorder))
    chunks = [*file]
    assert b"".join(chunks) == body
    assert max(map(len, chunks)) == READ_CHUNK
    assert file.sha256 == hashlib.sha256(body).hexdigest()
    assert sum(e.count for e in recorder.of(BytesMoved)) == len(body)
    assert hash_stream(chunks, watch=watch()) == (file.sha256, len(body))


@pytest.mark.parametrize("size", [2, 4])
def test_file_of_another_length_than_it_had_is_refused(tmp_path: Path, size: int) -> None:
    (tmp_path / "f").write_bytes(b"abc")
    with pytest.raises(BytesDiffer, match="3 bytes, expected"):
        HashedFile(tmp_path / "f", size=size, watch=watch()).read()


def test_file_that_cannot_be_read_is_a_snapshot_that_cannot_be_used(tmp_path: Path) -> None:
    with pytest.raises(SnapshotUnusable, match=r"absent"):
        HashedFile(tmp_path / "absent", size=0, watch=watch()).read()


def test_stopping_is_seen_in_the_middle_of_a_file(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(bytes(3 * READ_CHUNK))
    its = watch()
    chunks = iter(HashedFile(tmp_path / "f", size=3 * READ_CHUNK, watch=its))
    next(chunks)
    its.cancel()
    with pytest.raises(Cancelled):
        next(chunks)


def test_memory_does_not_grow_with_the_file(tmp_path: Path) -> None:
    path = tmp_path / "large"
    with path.open("wb") as file:
        file.truncate(64 * READ_CHUNK)
    tracemalloc.start()
    try:
        HashedFile(path, size=64 * READ_CHUNK, watch=watch()).read()
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
