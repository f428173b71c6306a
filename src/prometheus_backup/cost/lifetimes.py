"""What one night adds, and how long each backup is kept. Pure.

The model makes one backup a night for years, each a full copy under its own prefix, and deletes
them as the retention policy decides.
"""

from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from itertools import pairwise

from prometheus_backup.errors import UsageError
from prometheus_backup.retention.policy import Candidate, Policy, decide

_SMALL_FILES_OF_A_BLOCK = 2
"""meta.json and tombstones."""
_LAST_DAY = date(2035, 12, 31)  # of the last simulated year; any year will do
_NEVER = 10**9
_MOST_DAILY, _MOST_MONTHLY, _MOST_YEARLY = 1100, 240, 20


@dataclass(frozen=True, slots=True)
class Workload:
    """What one night adds: a backup of `size` bytes, in `files` files of `blocks` blocks.

    `upload` bytes are uploaded. The rest is copied inside the store, or, if `shared`, in the
    archive already.
    """

    size: int
    blocks: int
    files: int
    upload: int
    shared: bool = False

    @property
    def small(self) -> int:
        """Return how many files are smaller than most classes bill."""
        return min(self.files, _SMALL_FILES_OF_A_BLOCK * self.blocks)

    @property
    def large(self) -> int:
        """Return how many of the files are not small."""
        return self.files - self.small

    @property
    def large_uploads(self) -> int:
        """Return how many large files are uploaded: the same share as of the bytes."""
        return -(-self.large * self.upload // self.size) if self.size else 0


@dataclass(frozen=True, slots=True)
class BackupLifetime:
    """The days on which a backup is created, deleted, and no longer billed.

    A versioned bucket keeps and bills deleted objects for some days. If a backup outlives the
    simulation, its last two days are far in the future. `scale` is its size, as a share of the
    workload's.
    """

    created: int
    deleted: int
    purged: int
    scale: float = 1.0


@dataclass(frozen=True, slots=True)
class KeptBackups:
    """The lifetimes of a policy's backups, and the days that are billed: [begin, end)."""

    lifetimes: tuple[BackupLifetime, ...]
    begin: int
    end: int

    @property
    def average(self) -> float:
        """Return how many backups are kept on average over these days."""
        days = sum(self.days(life.created, life.deleted) for life in self.lifetimes)
        return days / (self.end - self.begin)

    @property
    def oldest_days(self) -> int:
        """Return how many days old the oldest backup is at the end."""
        kept = (life.created for life in self.lifetimes if life.deleted >= self.end)
        return self.end - min(kept, default=self.end)

    def days(self, begin: int, end: int) -> int:
        """Return how many of the days [begin, end) are billed."""
        return max(0, min(end, self.end) - max(begin, self.begin))


@lru_cache(maxsize=64)
def simulate_lifetimes(policy: Policy, *, noncurrent_days: int = 0) -> KeptBackups:
    """Return the lifetimes of nightly backups under a policy, until their number is steady.

    Raises UsageError if the policy keeps too many backups to simulate.
    """
    if policy.daily > _MOST_DAILY or policy.monthly > _MOST_MONTHLY or policy.yearly > _MOST_YEARLY:
        raise UsageError(
            "cannot estimate the cost of this policy: it keeps backups for too long",
            hint=f"set at most {_MOST_DAILY} daily, {_MOST_MONTHLY} monthly and "
            f"{_MOST_YEARLY} yearly backups",
        )
    # As long as the longest tier, and then the year that is billed.
    years = max(policy.yearly, -(-policy.monthly // 12), -(-policy.daily // 365))
    first = date(_LAST_DAY.year - years, 1, 1)
    days = (_LAST_DAY - first).days + 1
    kept: dict[str, Candidate] = {}
    created: dict[str, int] = {}
    deleted: dict[str, int] = {}
    for day in range(days):
        today = first + timedelta(day)
        name = today.isoformat()
        kept[name] = Candidate(name, datetime(*today.timetuple()[:3], 2, tzinfo=UTC), good=True)
        created[name] = day
        for decision in decide(kept.values(), today=today, policy=policy):
            if not decision.keep:
                deleted[decision.backup_id] = day
                del kept[decision.backup_id]
    ends = ((day, deleted.get(name, _NEVER)) for name, day in created.items())
    lifetimes = tuple(BackupLifetime(day, end, end + noncurrent_days) for day, end in ends)
    return KeptBackups(lifetimes, days - 365, days)


# How much of a snapshot is new each night, and how many blocks it has. From a simulation of the
# compactor (tsdb/compact.go: ranges of 2 h times 3^n, at most a tenth of the retention).
# Columns: retention in days; hours of data in a snapshot; hours uploaded each night; blocks.
_COMPACTION = (
    (7, 170, 26, 29),
    (15, 368, 32, 22),
    (30, 746, 46, 16),
    (90, 2240, 62, 17),
    (365, 9002, 79, 23),
)
_SEGMENT = 512 * 1024 * 1024
"""Maximum bytes of a chunk segment (tsdb/chunks)."""
_INDEX_SHARE = 0.1
"""The index's share of a block's bytes, as usual for blocks of several hours or more."""


def expected_workload(size: int, retention: timedelta) -> Workload:
    """Return the workload to expect from the size and retention of a TSDB."""
    days = min(max(retention / timedelta(days=1), _COMPACTION[0][0]), _COMPACTION[-1][0])
    hours, uploaded, blocks = (_interpolate(days, column) for column in (1, 2, 3))
    count = round(blocks)
    segments = max(count, -(-round(size * (1 - _INDEX_SHARE)) // _SEGMENT))
    files = count * (_SMALL_FILES_OF_A_BLOCK + 1) + segments
    return Workload(size, count, files, round(size * uploaded / hours))


def _interpolate(days: float, column: int) -> float:
    """Return the value of a column of the table for a retention between two rows."""
    for lower, upper in pairwise(_COMPACTION):
        if days <= upper[0]:
            share = (days - lower[0]) / (upper[0] - lower[0])
            return lower[column] + share * (upper[column] - lower[column])
    raise AssertionError("days lie within the table")
