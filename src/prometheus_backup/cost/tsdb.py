"""How large the blocks of a TSDB are, and what is new in each backup. Pure."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from itertools import pairwise

from prometheus_backup.cost.compaction import Compactor, SimulatedBlock
from prometheus_backup.cost.simulation import DAY, Pace
from prometheus_backup.model import ms_from_instant

SMALL_FILES = 2
"""Small files of a block: meta.json and tombstones."""
SMALL_ARCHIVED = 3
"""The same in the archive, with its block.json."""
INDEX_HOURS = 0.5
"""What of a block does not grow with its length (the labels of its series, in the index), as hours
of samples. It is 0.4 for samples every 15 seconds, and 1.5 for one a minute."""
_SEGMENT = 512 * 1024 * 1024
"""Maximum bytes of a chunk segment (tsdb/chunks)."""
_INDEX_SHARE = 0.1
"""The index's share of a block's bytes, as usual for blocks of several hours or more."""
_SAMPLE = datetime(2025, 1, 1, 2, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Workload:
    """One backup: `size` bytes in `files` files of `blocks` blocks.

    `upload` bytes are new, in `new_blocks` blocks. A full backup copies the rest inside the store.
    """

    size: int
    blocks: int
    files: int
    upload: int
    new_blocks: float = 0.0

    @property
    def small(self) -> int:
        """Return how many files are smaller than most classes bill."""
        return min(self.files, SMALL_FILES * self.blocks)

    @property
    def large(self) -> int:
        """Return how many of the files are not small."""
        return self.files - self.small

    @property
    def large_uploads(self) -> int:
        """Return how many large files are uploaded: the same share as of the bytes."""
        return -(-self.large * self.upload // self.size) if self.size else 0


@dataclass(frozen=True, slots=True)
class Expected:
    """An average backup of a Prometheus, and what is new in it, in hours of samples."""

    hours: float
    blocks: float
    new_hours: float
    new_blocks: float


@lru_cache(maxsize=16)
def expected(compactor: Compactor, pace: Pace) -> Expected:
    """Return the average of many backups. Every block that the last one lacks is new."""
    times = [
        ms_from_instant(t)
        for number in range(max(365 // pace.per_day, 60))
        for t in pace.times((_SAMPLE + number * DAY).date(), number)
    ]
    snapshots = [compactor.snapshot(t) for t in times]
    new = [b for last, this in pairwise(snapshots) for b in set(this) - {*last}]
    count = len(snapshots)
    return Expected(
        hours=sum(b.hours for s in snapshots for b in s) / count,
        blocks=sum(map(len, snapshots)) / count,
        new_hours=sum(b.hours for b in new) / (count - 1),
        new_blocks=len(new) / (count - 1),
    )


@dataclass(frozen=True, slots=True)
class Tsdb:
    """A TSDB whose backup on day 0 (`today_ms`) has `size` bytes, and each later day `growth` more.

    `own` is the share of a backup that belongs to it alone, besides the head: what nights upload
    that the compactor does not explain.
    """

    size: float
    compactor: Compactor
    pace: Pace = field(default_factory=Pace)
    growth: float = 0.0
    today_ms: int = 0
    own: float = 0.0

    def size_at(self, at_ms: float) -> float:
        """Return the size of a backup."""
        days = (at_ms - self.today_ms) * timedelta(milliseconds=1) / DAY
        return max(self.size + self.growth * days, 0.0)

    def bytes_of(self, block: SimulatedBlock) -> float:
        """Return the size of a block."""
        # What is scraped at an instant is the average of the window around it.
        window_ms = self.compactor.window // timedelta(milliseconds=1)
        usual = expected(self.compactor, self.pace)
        hours = usual.hours + usual.blocks * INDEX_HOURS
        whole = self.size_at((block.begin_ms + block.end_ms + window_ms) / 2)
        return whole * (1 - self.own) * (block.hours + INDEX_HOURS) / hours


def upload_share(compactor: Compactor, pace: Pace) -> float:
    """Return the share of a backup that is new."""
    usual = expected(compactor, pace)
    new = usual.new_hours + usual.new_blocks * INDEX_HOURS
    return new / (usual.hours + usual.blocks * INDEX_HOURS)


def expected_workload(size: int, compactor: Compactor, pace: Pace | None = None) -> Workload:
    """Return the workload to expect of a TSDB of this size."""
    pace = pace or Pace()
    usual = expected(compactor, pace)
    count = round(usual.blocks)
    files = count * (SMALL_FILES + 1) + max(count, segments(size))
    upload = round(size * upload_share(compactor, pace))
    return Workload(size, count, files, upload, usual.new_blocks)


def segments(size: float) -> int:
    """Return how many chunk segments so many bytes of blocks fill."""
    return -int(-size * (1 - _INDEX_SHARE) // _SEGMENT)


def large_files(sizes: Iterable[float]) -> int:
    """Return how many files, besides the small ones, blocks of these sizes have."""
    return sum(1 + max(segments(size), 1) for size in sizes)
