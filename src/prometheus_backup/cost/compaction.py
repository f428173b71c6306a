"""Which blocks a Prometheus has at an instant that has scraped for long. Pure.

Prometheus cuts the head into blocks of two hours and merges those into longer ones, three into one
at each step (tsdb/compact.go). When nothing is missing, its blocks at an instant follow from the
instant alone, so nothing has to be simulated step by step.
"""

from dataclasses import dataclass
from datetime import timedelta
from functools import lru_cache
from itertools import pairwise
from typing import NamedTuple, Self

from prometheus_backup.prometheus.retention import BLOCK_SPAN, FIRST_BLOCK_AFTER

HOUR_MS = 3_600_000
SHORTEST_MS = BLOCK_SPAN // timedelta(milliseconds=1)
_UNCUT_MS = FIRST_BLOCK_AFTER // timedelta(milliseconds=1)
"""The head is cut when it is longer than this: one block and a half."""
LONGEST = timedelta(days=31)
"""No block is longer."""


class SimulatedBlock(NamedTuple):
    """A block: times in TSDB milliseconds, half open. `head`: made by the snapshot at its end."""

    begin_ms: int
    end_ms: int
    head: bool = False

    @classmethod
    def of(cls, begin_ms: int, end_ms: int) -> Self:
        """Return a real block. One that does not end where the head is cut is of a snapshot."""
        if end_ms % SHORTEST_MS:
            return cls(begin_ms, end_ms, head=True)
        # Its first sample may be a little later than where the block would begin.
        return cls(begin_ms - begin_ms % SHORTEST_MS, end_ms)

    @property
    def hours(self) -> float:
        """Return its length in hours."""
        return (self.end_ms - self.begin_ms) / HOUR_MS


@dataclass(frozen=True, slots=True)
class Compactor:
    """A Prometheus with this retention, of which it has filled `window`."""

    retention: timedelta
    window: timedelta

    @classmethod
    def of(cls, retention: timedelta) -> "Compactor":
        """Return one that has filled its retention."""
        return cls(retention, retention)

    def snapshot(self, at_ms: int) -> tuple[SimulatedBlock, ...]:
        """Return the blocks of a snapshot at this instant, newest first; the first is the head."""
        cut = -((_UNCUT_MS - at_ms) // SHORTEST_MS) * SHORTEST_MS
        return SimulatedBlock(cut, at_ms, head=True), *self.blocks(cut)

    def blocks(self, cut_ms: int) -> tuple[SimulatedBlock, ...]:
        """Return the blocks on disk while the head begins at `cut_ms`, newest first."""
        return _blocks(self, cut_ms)


@lru_cache(maxsize=4)
def block_ranges(retention: timedelta) -> tuple[int, ...]:
    """Return the lengths of blocks in milliseconds: 2 h, 6 h, 18 h, ... a tenth of the retention.

    The limit is 31 days.
    """
    limit = min(retention / 10, LONGEST) // timedelta(milliseconds=1)
    ranges = [SHORTEST_MS]
    while ranges[-1] * 3 <= limit:
        ranges.append(ranges[-1] * 3)
    return tuple(ranges)


@lru_cache(maxsize=64)
def _blocks(compactor: Compactor, cut_ms: int) -> tuple[SimulatedBlock, ...]:
    """Return the blocks; two backups in a row often have the same ones.

    The newest block is never merged. Before it, three blocks that fill an aligned range are one.
    """
    ranges = block_ranges(compactor.retention)
    oldest = cut_ms - compactor.window // timedelta(milliseconds=1)
    found = [SimulatedBlock(cut_ms - SHORTEST_MS, cut_ms)]
    end = cut_ms - SHORTEST_MS
    for length, longer in pairwise(ranges):
        while end % longer and end > oldest:
            found.append(SimulatedBlock(end - length, end))
            end -= length
    return *found, *_longest(ranges[-1], end, max(-(-(end - oldest) // ranges[-1]), 0))


@lru_cache(maxsize=64)
def _longest(length: int, end_ms: int, count: int) -> tuple[SimulatedBlock, ...]:
    ends = range(end_ms, end_ms - count * length, -length)
    return tuple(SimulatedBlock(end - length, end) for end in ends)
