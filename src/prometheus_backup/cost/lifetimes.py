"""How backups come and go: what one night adds, and how long each backup stays. Pure.

A model: one backup a night for years, each a full copy under its own prefix, all deleted as
retention decides.
"""

from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from itertools import pairwise

from prometheus_backup.errors import UsageError
from prometheus_backup.retention.policy import Candidate, Policy, decide

_SMALL_FILES_OF_A_BLOCK = 2
"""meta.json and tombstones."""
_LAST_DAY = date(2035, 12, 31)  # any year will do; it is the last of the model
_NEVER = 10**9
_MOST_DAILY, _MOST_MONTHLY, _MOST_YEARLY = 1100, 240, 20


@dataclass(frozen=True, slots=True)
class Workload:
    """What one night adds: a backup of `size` bytes in `files` files of `blocks` blocks, of which
    `upload` bytes are sent and the rest is copied inside the store."""

    size: int
    blocks: int
    files: int
    upload: int

    @property
    def small(self) -> int:
        """Return how many of the files are too small for most classes."""
        return min(self.files, _SMALL_FILES_OF_A_BLOCK * self.blocks)

    @property
    def large(self) -> int:
        """Return how many of the files are not small."""
        return self.files - self.small

    @property
    def large_uploads(self) -> int:
        """Return how many of the large files are sent: the share that their bytes have."""
        return -(-self.large * self.upload // self.size) if self.size else 0


@dataclass(frozen=True, slots=True)
class BackupLifetime:
    """The days on which a backup is made, is deleted, and is gone.

    A versioned bucket keeps what was deleted for a while. A backup that outlives the model has days
    far beyond it.
    """

    born: int
    deleted: int
    gone: int


@dataclass(frozen=True, slots=True)
class KeptBackups:
    """The lives of a policy's backups, and the last year of them, as days [begin, end)."""

    lifetimes: tuple[BackupLifetime, ...]
    begin: int
    end: int

    @property
    def average(self) -> float:
        """Return how many backups are kept at a time, over the last year."""
        days = sum(self.days(life.born, life.deleted) for life in self.lifetimes)
        return days / (self.end - self.begin)

    @property
    def oldest_days(self) -> int:
        """Return for how many days the oldest backup has been kept at the end."""
        return self.end - min(life.born for life in self.lifetimes if life.deleted >= self.end)

    def days(self, begin: int, end: int) -> int:
        """Return how many of the days [begin, end) lie in the last year."""
        return max(0, min(end, self.end) - max(begin, self.begin))


@lru_cache(maxsize=64)
def simulate_lifetimes(policy: Policy, *, noncurrent_days: int = 0) -> KeptBackups:
    """Return the lives of nightly backups under a policy, for as long as it takes to settle.

    Raises UsageError where that would take too long to tell.
    """
    if policy.daily > _MOST_DAILY or policy.monthly > _MOST_MONTHLY or policy.yearly > _MOST_YEARLY:
        raise UsageError(
            "cannot estimate a policy that keeps backups for so long",
            hint=f"give at most {_MOST_DAILY} daily, {_MOST_MONTHLY} monthly and "
            f"{_MOST_YEARLY} yearly backups",
        )
    # As long as anything is kept, and then the year that is looked at.
    years = max(policy.yearly, -(-policy.monthly // 12), -(-policy.daily // 365))
    first = date(_LAST_DAY.year - years, 1, 1)
    days = (_LAST_DAY - first).days + 1
    kept: dict[str, Candidate] = {}
    born: dict[str, int] = {}
    deleted: dict[str, int] = {}
    for day in range(days):
        today = first + timedelta(day)
        name = today.isoformat()
        kept[name] = Candidate(name, datetime(*today.timetuple()[:3], 2, tzinfo=UTC), good=True)
        born[name] = day
        for decision in decide(kept.values(), today=today, policy=policy):
            if not decision.keep:
                deleted[decision.backup_id] = day
                del kept[decision.backup_id]
    found = (BackupLifetime(day, deleted.get(name, _NEVER), 0) for name, day in born.items())
    settled = tuple(replace(life, gone=life.deleted + noncurrent_days) for life in found)
    return KeptBackups(settled, days - 365, days)


# How much of a snapshot is new from night to night, and in how many blocks it lies: the compactor
# of Prometheus simulated (tsdb/compact.go: ranges of 2 h times 3^n, at most a tenth of the
# retention). Retention in days; hours of data in a snapshot; hours sent a night; blocks.
_INCREMENTS = (
    (7, 170, 26, 29),
    (15, 368, 32, 22),
    (30, 746, 46, 16),
    (90, 2240, 62, 17),
    (365, 9002, 79, 23),
)
_SEGMENT = 512 * 1024 * 1024
"""Bytes of a chunk segment at most (tsdb/chunks)."""
_INDEX_SHARE = 0.1
"""Of a block's bytes, in its index: usual for blocks of some hours and more."""


def expected_workload(size: int, retention: timedelta) -> Workload:
    """Return the workload of a TSDB of which only the size and the retention are known."""
    days = min(max(retention / timedelta(days=1), _INCREMENTS[0][0]), _INCREMENTS[-1][0])
    held, sent, blocks = (_between(days, column) for column in (1, 2, 3))
    count = round(blocks)
    segments = max(count, -(-round(size * (1 - _INDEX_SHARE)) // _SEGMENT))
    files = count * (_SMALL_FILES_OF_A_BLOCK + 1) + segments
    return Workload(size, count, files, round(size * sent / held))


def _between(days: float, column: int) -> float:
    """Return the value of a column of the table at a retention between two of its rows."""
    for lower, upper in pairwise(_INCREMENTS):
        if days <= upper[0]:
            share = (days - lower[0]) / (upper[0] - lower[0])
            return lower[column] + share * (upper[column] - lower[column])
    raise AssertionError("days lie within the table")
