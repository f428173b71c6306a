"""Predict which blocks Prometheus' own retention deletes, and which flags keep them. Pure.

The rules are those of tsdb/db.go BeyondTimeRetention and BeyondSizeRetention: age is measured from
the end of the newest block, not from now; the size includes the head; all blocks older than the
first one beyond a limit are deleted, too.
"""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from prometheus_backup.errors import UsageError
from prometheus_backup.model import counted, ms_from_instant
from prometheus_backup.prometheus.promql import parse_duration
from prometheus_backup.prometheus.versions import (
    RETENTION_IN_CONFIGURATION,
    is_before,
    release,
)

BLOCK_SPAN = timedelta(hours=2)
"""The length of the blocks that the head is cut into (storage.tsdb.min-block-duration)."""
FIRST_BLOCK_AFTER = timedelta(hours=3)
"""The head is compacted to a block of two hours once it spans three (tsdb/head.go compactable).
This is the latest possible end of the next block, which moves the retention window."""
_FAR_AHEAD = timedelta(days=1)
"""Prometheus itself writes blocks that end up to two hours ahead of now."""
_DAY_MS = 24 * 60 * 60 * 1000
_SIZE_SLACK = 1.2
_TIME_SLACK = timedelta(days=1)
_GIB = 1024**3
_MAX_DAYS = 100 * 365
"""Prometheus refuses durations of more than 292 years."""

_UNITS = {"": 1, **{u: 1024**n for n, u in enumerate("KMGTPE", 1)}}
_SIZE = re.compile(r"(\d+(?:\.\d+)?)([KMGTPE]?)i?B")


def far_ahead(ulid: str, end_ms: int, *, now: datetime) -> str:
    """Return what is wrong with a block that ends far ahead of now, "" if it does not."""
    now_ms = ms_from_instant(now)
    if end_ms <= now_ms + _FAR_AHEAD // timedelta(milliseconds=1):
        return ""
    days = counted((end_ms - now_ms) // _DAY_MS, "day")
    return (
        f"block {ulid} ends {days} ahead of now: Prometheus counts its retention from that end, so "
        "it may delete all other blocks; stop Prometheus and move the block out of its data "
        "directory"
    )


@dataclass(frozen=True, slots=True)
class TsdbRetention:
    """The retention of a Prometheus; None is no limit. `unknown` is text that cannot be computed.

    `percentage` is a share of the size of the data directory's file system (since 3.11).
    """

    time: timedelta | None = None
    size: int | None = None
    unknown: str = ""
    percentage: float | None = None

    def on_file_system(self, size: int | None) -> "TsdbRetention":
        """Return the same retention with the percentage as a size, in bytes.

        `size` is that of the file system, None if unknown. If both a percentage and a size are set,
        the percentage counts (tsdb/db.go BeyondSizeRetention).
        """
        if self.percentage is None:
            return self
        if size is None:
            unknown = _joined([self.unknown, f"{self.percentage:g}%"])
            return replace(self, size=None, unknown=unknown)
        return replace(self, size=int(size * self.percentage / 100))


@dataclass(frozen=True, slots=True)
class RetainedBlock:
    """The properties of a block that matter to retention: time range (half open), size in bytes."""

    ulid: str
    min_time: datetime
    max_time: datetime
    size: int


@dataclass(frozen=True, slots=True)
class RetentionNeed:
    """The retention that a Prometheus needs to keep its blocks: a duration, and a size in bytes."""

    time: timedelta
    size: int

    @property
    def time_flag(self) -> str:
        """Return the flag for time, in whole days, as Prometheus accepts it."""
        days = min(math.ceil(self.time / timedelta(days=1)), _MAX_DAYS)
        return f"--storage.tsdb.retention.time={days}d"

    @property
    def size_flag(self) -> str:
        """Return the flag for size, needed only if there is a size limit."""
        return f"--storage.tsdb.retention.size={math.ceil(self.size / _GIB)}GB"

    @property
    def configuration(self) -> Mapping[str, str]:
        """Return `time` and `size` for `storage.tsdb.retention` in the configuration file."""
        return {
            "time": self.time_flag.partition("=")[2],
            "size": self.size_flag.partition("=")[2],
        }

    def instruction(self, current: TsdbRetention, *, version: str) -> str:
        """Return what to do so that a Prometheus with a retention has at least this one.

        `version` is that of Prometheus, "" if unknown.
        """
        values = self.configuration
        flags, section = [self.time_flag], [f"time: {values['time']}"]
        if current.size is not None:
            flags.append(self.size_flag)
            section.append(f"size: {values['size']}")
        instead = " instead of a percentage" if current.percentage is not None else ""
        with_flags = f"start its Prometheus with at least {' '.join(flags)}"
        with_section = (
            f"at least {', '.join(section)}{instead} under storage.tsdb.retention in its "
            "configuration file"
        )
        if is_before(version, RETENTION_IN_CONFIGURATION):
            return with_flags
        if release(version):
            return f"set {with_section}, which counts instead of the flags"
        return f"{with_flags}, or if it is 3.8 or newer, set {with_section}"


def parse_tsdb_retention(text: str) -> TsdbRetention:
    """Parse `15d`, `15d or 10GiB or 80%` (the format of runtimeinfo) or `30d,50GB` (user input).

    As in Prometheus' flags, units of size are powers of 1024.
    """
    time: timedelta | None = None
    size: int | None = None
    percentage: float | None = None
    unknown = []
    for part in (p.strip() for p in re.split(r",|\bor\b", text)):
        duration = parse_duration(part)
        if duration is not None:
            time = duration
        elif re.fullmatch(rf"(?:{_SIZE.pattern})+", part):
            size = sum(int(float(n) * _UNITS[unit]) for n, unit in _SIZE.findall(part))
        elif re.fullmatch(r"\d{1,3}(\.\d+)?%", part):
            percentage = float(part[:-1])
        elif part:
            unknown.append(part)
    # In Prometheus, zero means no limit.
    return TsdbRetention(time or None, size or None, _joined(unknown), percentage or None)


def parse_target_retention(text: str) -> TsdbRetention:
    """Parse user input: `TIME[,SIZE]`, or a percentage as size. Raises UsageError for others."""
    retention = parse_tsdb_retention(text)
    if retention.unknown or not text.strip():
        raise UsageError(
            f"cannot parse retention {text!r}",
            hint="use the format of Prometheus: 90d, or 90d,500GB, or 90d,80%",
        )
    return retention


def deleted(
    retention: TsdbRetention, blocks: Sequence[RetainedBlock], *, head_size: int = 0
) -> frozenset[str]:
    """Return the ULIDs of the blocks that the next reload deletes; `blocks` must be all of them."""
    newest_first = sorted(blocks, key=lambda b: b.max_time, reverse=True)
    total = head_size
    for index, block in enumerate(newest_first):
        total += block.size
        age = newest_first[0].max_time - block.max_time
        too_old = index > 0 and retention.time is not None and age >= retention.time
        if too_old or (retention.size is not None and total > retention.size):
            return frozenset(b.ulid for b in newest_first[index:])
    return frozenset()


def with_next_block(blocks: Sequence[RetainedBlock], *, now: datetime) -> tuple[RetainedBlock, ...]:
    """Return the blocks and the next one that Prometheus will write, of an estimated size."""
    end = now + FIRST_BLOCK_AFTER
    return (*blocks, RetainedBlock("", end - BLOCK_SPAN, end, _size_of_two_hours(blocks)))


def retention_need(
    blocks: Sequence[RetainedBlock], *, now: datetime, head_size: int = 0
) -> RetentionNeed | None:
    """Return the retention that keeps all these blocks and the next one; None for no blocks.

    One day is added, to leave time for changing the flags again.
    """
    if not blocks:
        return None
    with_next = with_next_block(blocks, now=now)
    ends = [b.max_time for b in with_next]
    return RetentionNeed(
        time=max(ends) - min(ends) + _TIME_SLACK,
        size=math.ceil((sum(b.size for b in with_next) + head_size) * _SIZE_SLACK),
    )


def _joined(limits: Iterable[str]) -> str:
    return " or ".join(filter(None, limits))


def _size_of_two_hours(blocks: Sequence[RetainedBlock]) -> int:
    """Estimate the size of a two-hour block from the newest block."""
    spanning = [b for b in blocks if b.max_time > b.min_time]
    if not spanning:
        return 0
    newest = max(spanning, key=lambda b: b.max_time)
    share = min(1.0, BLOCK_SPAN / (newest.max_time - newest.min_time))
    return int(newest.size * share)
