"""Which blocks a Prometheus deletes by its own retention, and which flags would keep them. Pure.

The rules are those of tsdb/db.go BeyondTimeRetention and BeyondSizeRetention: time counts back from
the end of the newest block, not from now; size counts the head too; older blocks go with the first.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from prometheus_backup.errors import UsageError
from prometheus_backup.prometheus.promql import parse_duration

FIRST_BLOCK_AFTER = timedelta(hours=3)
"""The head becomes a block of two hours once it spans three (tsdb/head.go compactable): so long
after now, at most, lies the end of the next block, which moves the window of retention."""
_BLOCK_SPAN = timedelta(hours=2)
_SIZE_SLACK = 1.2
_TIME_SLACK = timedelta(days=1)
_GIB = 1024**3

_UNITS = {"": 1, **{u: 1024**n for n, u in enumerate("KMGTPE", 1)}}
_SIZE = re.compile(r"(\d+(?:\.\d+)?)([KMGTPE]?)i?B")


@dataclass(frozen=True, slots=True)
class TsdbRetention:
    """The retention of a Prometheus; None is no limit. `unread` is what was not understood."""

    time: timedelta | None = None
    size: int | None = None
    unread: str = ""


@dataclass(frozen=True, slots=True)
class RetainedBlock:
    """A block as retention sees it: its span, half open, and the bytes of its files."""

    ulid: str
    min_time: datetime
    max_time: datetime
    size: int


@dataclass(frozen=True, slots=True)
class RetentionNeed:
    """The flags with which Prometheus keeps blocks: a duration, and bytes."""

    time: timedelta
    size: int

    @property
    def time_flag(self) -> str:
        """Return the flag, in whole days."""
        return f"--storage.tsdb.retention.time={math.ceil(self.time / timedelta(days=1))}d"

    @property
    def size_flag(self) -> str:
        """Return the flag that a Prometheus with a limit by size needs at least."""
        return f"--storage.tsdb.retention.size={math.ceil(self.size / _GIB)}GB"


def parse_tsdb_retention(text: str) -> TsdbRetention:
    """Read `15d`, `15d or 10GiB` (as runtimeinfo says it) or `30d,50GB` (as a user does).

    Sizes are powers of 1024, as Prometheus' flags are. What is not understood is in `unread`.
    """
    time: timedelta | None = None
    size: int | None = None
    unread = []
    for part in (p.strip() for p in re.split(r",|\bor\b", text)):
        duration = parse_duration(part)
        if duration is not None:
            time = duration
        elif re.fullmatch(rf"(?:{_SIZE.pattern})+", part):
            size = sum(int(float(n) * _UNITS[unit]) for n, unit in _SIZE.findall(part))
        elif part:
            unread.append(part)
    # Prometheus takes zero for no limit.
    return TsdbRetention(time or None, size or None, " or ".join(unread))


def parse_target_retention(text: str) -> TsdbRetention:
    """Read what a user says: `TIME[,SIZE]`. Raises UsageError for other text."""
    retention = parse_tsdb_retention(text)
    if retention.unread or not text.strip():
        raise UsageError(
            f"cannot read retention {text!r}",
            hint="give it as Prometheus' flags have it: 90d, or 90d,500GB",
        )
    return retention


def deleted(
    retention: TsdbRetention, blocks: Sequence[RetainedBlock], *, head_size: int = 0
) -> frozenset[str]:
    """Return the ULIDs that a reload deletes, of all blocks that are in a data directory."""
    newest_first = sorted(blocks, key=lambda b: b.max_time, reverse=True)
    total = head_size
    for place, block in enumerate(newest_first):
        total += block.size
        late = place > 0 and retention.time is not None
        aged = late and newest_first[0].max_time - block.max_time >= (retention.time or timedelta())
        if aged or (retention.size is not None and total > retention.size):
            return frozenset(b.ulid for b in newest_first[place:])
    return frozenset()


def with_next_block(blocks: Sequence[RetainedBlock], *, now: datetime) -> tuple[RetainedBlock, ...]:
    """Return the blocks with the next one that this Prometheus writes, as large as its last."""
    end = now + FIRST_BLOCK_AFTER
    return (*blocks, RetainedBlock("", end - _BLOCK_SPAN, end, _size_of_two_hours(blocks)))


def retention_need(
    blocks: Sequence[RetainedBlock], *, now: datetime, head_size: int = 0
) -> RetentionNeed | None:
    """Return what keeps all these blocks past the next one that is written; None for no blocks.

    The day that is added gives time to change the flags again.
    """
    if not blocks:
        return None
    grown = with_next_block(blocks, now=now)
    ends = [b.max_time for b in grown]
    return RetentionNeed(
        time=max(ends) - min(ends) + _TIME_SLACK,
        size=math.ceil((sum(b.size for b in grown) + head_size) * _SIZE_SLACK),
    )


def _size_of_two_hours(blocks: Sequence[RetainedBlock]) -> int:
    spanning = [b for b in blocks if b.max_time > b.min_time]
    if not spanning:
        return 0
    newest = max(spanning, key=lambda b: b.max_time)
    share = min(1.0, _BLOCK_SPAN / (newest.max_time - newest.min_time))
    return int(newest.size * share)
