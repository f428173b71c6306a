"""The pace of a long step, as the progress bar and the log show it."""

from prometheus_backup.cli.pace import Pace
from prometheus_backup.events import BytesMoved, LongStepBegan
from prometheus_backup.transfer import BandwidthLimit
from tests.support.repositories import ManualClock


def test_rate_is_the_average_since_the_step_began() -> None:
    clock = ManualClock()
    pace = Pace(clock)
    pace.begin(LongStepBegan("transfer", 1000))
    for _ in range(4):
        clock.sleep(1)
        pace.add(BytesMoved(100))

    assert (pace.done, pace.rate, pace.seconds_left) == (400, 100, 6)


def test_rate_stays_within_the_bandwidth_limit_from_the_first_chunk_on() -> None:
    clock = ManualClock()
    pace, limit = Pace(clock), BandwidthLimit(bytes_per_second=100_000, clock=clock)
    pace.begin(LongStepBegan("transfer", 3_000_000))
    for _ in range(3):
        limit.take(1_000_000)
        pace.add(BytesMoved(1_000_000))
        assert pace.rate <= 100_000


def test_bytes_that_the_store_copied_count_as_done_but_not_as_transferred() -> None:
    clock = ManualClock()
    pace = Pace(clock)
    pace.begin(LongStepBegan("transfer", 1000))
    clock.sleep(1)
    pace.add(BytesMoved(900, transferred=False))
    pace.add(BytesMoved(10))

    assert (pace.done, pace.rate) == (910, 10)


def test_file_that_starts_again_takes_its_bytes_back() -> None:
    clock = ManualClock()
    pace = Pace(clock)
    pace.begin(LongStepBegan("transfer", 1000))
    clock.sleep(2)
    pace.add(BytesMoved(500))
    pace.add(BytesMoved(-500))

    assert (pace.done, pace.rate, pace.seconds_left) == (0, 0, None)
