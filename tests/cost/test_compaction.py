"""The blocks of a simulated Prometheus are those that its compactor makes."""

from datetime import timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prometheus_backup.cost.compaction import HOUR_MS, Compactor, SimulatedBlock, block_ranges

DAY = timedelta(days=1)


class NaiveCompactor:
    """The rules of tsdb/db.go and tsdb/compact.go, one after the other, as they are written."""

    def __init__(self, retention: timedelta, begin_ms: int) -> None:
        self.retention_ms = retention // timedelta(milliseconds=1)
        longest = min(self.retention_ms // 10, 31 * 24 * HOUR_MS)
        self.ranges = [r for n in range(10) if (r := 2 * HOUR_MS * 3**n) <= longest]
        self.ranges = self.ranges or [2 * HOUR_MS]
        self.head = begin_ms
        self.blocks: list[tuple[int, int]] = []

    def advance(self, now_ms: int) -> None:
        """Do what Prometheus does once a minute: cut the head, reload, compact."""
        while now_ms - self.head > 3 * HOUR_MS:
            end = self.head - self.head % (2 * HOUR_MS) + 2 * HOUR_MS
            self.blocks.append((self.head, end))
            self.head = end
            self._reload()
            while planned := self._plan():
                self.blocks = [b for b in self.blocks if b not in planned]
                self.blocks.append((planned[0][0], planned[-1][1]))
                self._reload()

    def _reload(self) -> None:
        newest = max(end for _, end in self.blocks)
        self.blocks = [b for b in self.blocks if newest - b[1] < self.retention_ms]

    def _plan(self) -> list[tuple[int, int]]:
        directories = sorted(self.blocks)[:-1]
        if len(self.ranges) < 2 or not directories:
            return []
        high = directories[-1][0]
        for length in self.ranges[1:]:
            for part in self._split(directories, length):
                begin, end = part[0][0], part[-1][1]
                if (end - begin == length or end <= high) and len(part) > 1:
                    return part
        return []

    @staticmethod
    def _split(directories: list[tuple[int, int]], length: int) -> list[list[tuple[int, int]]]:
        parts, i = [], 0
        while i < len(directories):
            begin = directories[i][0] - directories[i][0] % length
            if directories[i][1] > begin + length:
                i += 1
                continue
            part = []
            while i < len(directories) and directories[i][1] <= begin + length:
                part.append(directories[i])
                i += 1
            parts.append(part)
        return parts


@pytest.mark.parametrize(
    ("days", "hours"),
    [
        (1, [2]),
        (7, [2, 6]),
        (15, [2, 6, 18]),
        (30, [2, 6, 18, 54]),
        (900, [2, 6, 18, 54, 162, 486]),
    ],
)
def test_the_longest_block_is_a_tenth_of_the_retention(days: int, hours: list[int]) -> None:
    assert [r / HOUR_MS for r in block_ranges(days * DAY)] == hours


@settings(max_examples=60, deadline=None)
@given(
    retention=st.integers(6, 24 * 60).map(lambda hours: timedelta(hours=hours)),
    begin=st.integers(0, 2000 * 60).map(lambda minutes: minutes * HOUR_MS // 60),
    more=st.lists(st.integers(1, 24 * 60 * 3), min_size=1, max_size=20),
)
def test_the_blocks_are_those_of_the_compactor(
    retention: timedelta, begin: int, more: list[int]
) -> None:
    naive, compactor = NaiveCompactor(retention, begin), Compactor.of(retention)
    # Until all that was begun within the first, incomplete block is gone.
    longest = block_ranges(retention)[-1]
    now = begin + retention // timedelta(milliseconds=1) + 2 * longest + 6 * HOUR_MS
    for minutes in more:
        now += minutes * HOUR_MS // 60
        naive.advance(now)
        head, *blocks = compactor.snapshot(now)

        assert sorted(naive.blocks) == sorted((b.begin_ms, b.end_ms) for b in blocks)
        assert head == SimulatedBlock(naive.head, now, head=True)


def test_a_window_that_is_not_full_has_fewer_blocks() -> None:
    full = Compactor.of(15 * DAY).snapshot(900 * 24 * HOUR_MS)
    young = Compactor(15 * DAY, 5 * DAY).snapshot(900 * 24 * HOUR_MS)
    assert full[: len(young)] == young
    assert 5 * 24 <= sum(b.hours for b in young) < 5 * 24 + 18 + 3
