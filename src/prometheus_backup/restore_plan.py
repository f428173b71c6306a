"""What a restore will do, and which retention keeps its blocks; decided before any write."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from prometheus_backup.manifest import Block, Manifest

_FIRST_BLOCK_AFTER = timedelta(hours=3)
"""A new Prometheus writes its first block, and applies retention, about three hours after start."""
_SIZE_SLACK = 1.2
"""Size retention counts the head and the WAL too."""


@dataclass(frozen=True, slots=True)
class RetentionNeed:
    """The flags with which Prometheus keeps what was restored: a duration, and bytes.

    Retention by time counts back from the newest block, so the first block of a new Prometheus
    moves the whole window (tsdb/db.go BeyondTimeRetention).
    """

    time: timedelta
    size: int

    @property
    def time_flag(self) -> str:
        """Return the flag, in whole days."""
        return f"--storage.tsdb.retention.time={math.ceil(self.time / timedelta(days=1))}d"

    @property
    def size_flag(self) -> str:
        """Return the flag that a Prometheus with a limit by size needs at least."""
        return f"--storage.tsdb.retention.size={math.ceil(self.size / 1024**3)}GB"


@dataclass(frozen=True, slots=True)
class RestorePlan:
    """Blocks to place, newest first; blocks that an interrupted restore has placed already."""

    backup_id: str
    place: tuple[Block, ...]
    present: tuple[Block, ...]
    need: RetentionNeed | None
    warnings: tuple[str, ...]

    @property
    def size(self) -> int:
        """Return the bytes to place."""
        return sum(b.size for b in self.place)


def plan_restore(
    manifest: Manifest,
    *,
    present: frozenset[str],
    now: datetime,
    pruned_within: timedelta | None,
    failed: str = "",
) -> RestorePlan:
    """Decide what to place, newest first.

    `present` are blocks of this backup that are in the target already, whole; `pruned_within` is
    when retention will delete the backup, if that is soon; `failed` is the verification level that
    it failed last, if it did.
    """
    newest_first = sorted(manifest.blocks, key=lambda b: (b.max_time, b.ulid), reverse=True)
    warnings = [f"this backup is degraded: {reason}" for reason in manifest.degraded]
    if failed:
        warnings.append(f"verification at level {failed} found faults in this backup")
    if pruned_within is not None:
        hours = math.floor(pruned_within / timedelta(hours=1))
        warnings.append(f"retention deletes this backup within {hours} hours")
    if manifest.verified is None:
        warnings.append("this backup was never verified when it was made")
    return RestorePlan(
        backup_id=manifest.backup_id,
        place=tuple(b for b in newest_first if b.ulid not in present),
        present=tuple(b for b in newest_first if b.ulid in present),
        need=retention_need(newest_first, now=now),
        warnings=tuple(warnings),
    )


def retention_need(blocks: Sequence[Block], *, now: datetime) -> RetentionNeed | None:
    """Return what keeps all these blocks past the first new block written by a Prometheus.

    None where there are no blocks. A block goes when its end lies a whole retention before the end
    of the newest one; the day that is added gives time to change the flags again.
    """
    if not blocks:
        return None
    newest = max(now + _FIRST_BLOCK_AFTER, *(b.max_time for b in blocks))
    oldest_end = min(b.max_time for b in blocks)
    return RetentionNeed(
        time=newest - oldest_end + timedelta(days=1),
        size=math.ceil(sum(b.size for b in blocks) * _SIZE_SLACK),
    )
