"""What a repository stores in each layout, and for how long: whole backups, or blocks. Pure."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from functools import lru_cache

from prometheus_backup.cost.compaction import SimulatedBlock
from prometheus_backup.cost.simulation import (
    DAY,
    DAY_MS,
    NEVER_MS,
    BackupLife,
    Pace,
    archive_lives,
    simulate_backups,
)
from prometheus_backup.cost.tsdb import SMALL_ARCHIVED, Tsdb, Workload, large_files
from prometheus_backup.errors import UsageError
from prometheus_backup.model import Layout, ms_from_instant
from prometheus_backup.retention.policy import Policy

_LAST_DAY = date(2035, 12, 31)  # of the last simulated year; any year will do
_NEVER = 10**9
_MOST_DAYS, _MOST_MONTHLY, _MOST_YEARLY = 1100, 240, 20


@dataclass(frozen=True, slots=True)
class Lifetime:
    """The days on which objects are created, deleted, and no longer billed.

    A versioned bucket keeps and bills deleted objects for some days. What outlives the simulation
    ends far in the future. `size` is in bytes; `large` and `small` are numbers of objects.
    """

    created: int
    deleted: int
    purged: int
    size: float
    large: float
    small: float


@dataclass(frozen=True, slots=True)
class Kept:
    """What is stored in the days that are billed: [begin, end).

    `backups` is how many backups there are on average. `newest` and `oldest` say how old the
    objects of the newest and the oldest backup are: pairs of an age in days and their share.
    """

    layout: Layout
    lifetimes: tuple[Lifetime, ...]
    begin: int
    end: int
    backups: float
    pace: Pace = field(default_factory=Pace)
    newest: tuple[tuple[int, float], ...] = ((1, 1.0),)
    oldest: tuple[tuple[int, float], ...] = ((1, 1.0),)

    @property
    def stored(self) -> float:
        """Return how many bytes are stored on average, without deleted versions."""
        return self._average(x.size for x in self.lifetimes)

    @property
    def objects(self) -> float:
        """Return how many objects are stored on average."""
        return self._average(x.large + x.small for x in self.lifetimes)

    def days(self, begin: int, end: int) -> int:
        """Return how many of the days [begin, end) are billed."""
        return max(0, min(end, self.end) - max(begin, self.begin))

    def _average(self, amounts: Iterable[float]) -> float:
        lives = zip(self.lifetimes, amounts, strict=True)
        total = sum(self.days(x.created, x.deleted) * amount for x, amount in lives)
        return total / (self.end - self.begin)


@dataclass(frozen=True, slots=True)
class PlannedBackup:
    """A backup that exists or will be made. In layout `archive`, it names blocks."""

    life: BackupLife
    layout: Layout
    size: float
    blocks: tuple[SimulatedBlock, ...] = ()


@dataclass(frozen=True, slots=True)
class Archived:
    """The blocks that are in an archive: their sizes; and those of deleted backups, each with the
    time of the last one that named it."""

    sizes: Mapping[SimulatedBlock, float] = field(default_factory=dict)
    unnamed: Mapping[SimulatedBlock, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Stored:
    """Everything that a repository stores over a simulation, and the backups it belongs to."""

    layout: Layout
    backups: tuple[PlannedBackup, ...]
    lifetimes: tuple[Lifetime, ...]
    created: Mapping[SimulatedBlock, int]
    pace: Pace
    tsdb: Tsdb

    def between(self, begin: int, end: int) -> Kept:
        """Return what is billed in these days."""
        alive = tuple(x for x in self.lifetimes if x.created < end and x.purged >= begin)
        days = (
            (_day(b.life.made_ms, self.tsdb), _day(b.life.deleted_ms, self.tsdb))
            for b in self.backups
        )
        kept = sum(max(0, min(last, end) - max(first, begin)) for first, last in days)
        present = [b for b in self.backups if _day(b.life.deleted_ms, self.tsdb) >= end]
        present = [b for b in present if _day(b.life.made_ms, self.tsdb) < end]
        return Kept(
            self.layout,
            alive,
            begin,
            end,
            kept / (end - begin),
            self.pace,
            self._ages(present[-1:], end),
            self._ages(present[:1], end),
        )

    def _ages(self, backups: Sequence[PlannedBackup], end: int) -> tuple[tuple[int, float], ...]:
        for b in backups:
            if b.blocks:
                sizes = [(end - self.created[x], self.tsdb.bytes_of(x)) for x in b.blocks]
                whole = sum(s for _, s in sizes) or 1.0
                return tuple((age, s / whole) for age, s in sizes)
            return ((end - _day(b.life.made_ms, self.tsdb), 1.0),)
        return ((0, 1.0),)


def store(
    backups: Sequence[PlannedBackup],
    *,
    layout: Layout,
    tsdb: Tsdb,
    load: Workload,
    history_for: timedelta,
    noncurrent_days: int,
    archived: Archived | None = None,
) -> Stored:
    """Return what these backups store, oldest first; `layout` is that of new ones."""
    archived = archived or Archived()
    whole = [b for b in backups if b.layout is Layout.FULL]
    naming = [b for b in backups if b.layout is Layout.ARCHIVE]
    blocks = archive_lives(
        [(b.life, b.blocks) for b in naming],
        runs=[b.life.made_ms for b in backups],
        history_for=history_for,
        before=archived.unnamed,
    )
    found: dict[tuple[int, int], list[float]] = defaultdict(lambda: [0.0, 0.0, 0.0])

    def add(made_ms: int, deleted_ms: int, size: float, large: float, small: float) -> None:
        total = found[_day(made_ms, tsdb), _day(deleted_ms, tsdb)]
        for n, amount in enumerate((size, large, small)):
            total[n] += amount

    for b in whole:
        scale = b.size / load.size if load.size else 1.0
        large, small = load.large * scale, load.small * scale
        add(b.life.made_ms, b.life.deleted_ms, b.size, large, small)
    for block, kept_ms, deleted_ms in blocks:
        size = archived.sizes.get(block)
        size = tsdb.bytes_of(block) if size is None else size
        add(kept_ms, deleted_ms, size, large_files([size]), SMALL_ARCHIVED)
    if tsdb.own:
        for b in naming:
            add(b.life.made_ms, b.life.deleted_ms, b.size * tsdb.own, 0.0, 0.0)
    lifetimes = (
        Lifetime(made, deleted, deleted + noncurrent_days, *amounts)
        for (made, deleted), amounts in found.items()
    )
    created = {b.block: _day(b.kept_ms, tsdb) for b in blocks}
    return Stored(layout, tuple(backups), tuple(lifetimes), created, tsdb.pace, tsdb)


def steady(
    policy: Policy,
    *,
    layout: Layout,
    tsdb: Tsdb,
    load: Workload,
    noncurrent_days: int = 0,
) -> Kept:
    """Return what a policy keeps, averaged over a year, once the number of backups is steady.

    Backups do not grow meanwhile. Raises UsageError if the policy keeps them for too long to
    simulate.
    """
    days = _days_until_steady(policy)
    lives = _steady_lives(policy.without_history, tsdb.pace, days)
    first = ms_from_instant(datetime.combine(_LAST_DAY + DAY - days * DAY, time(), UTC))
    still = Tsdb(load.size, tsdb.compactor, tsdb.pace, today_ms=first, own=tsdb.own)
    backups = [
        PlannedBackup(
            life,
            layout,
            load.size,
            tsdb.compactor.snapshot(life.made_ms) if layout is Layout.ARCHIVE else (),
        )
        for life in lives
    ]
    stored = store(
        backups,
        layout=layout,
        tsdb=still,
        load=load,
        history_for=policy.history,
        noncurrent_days=noncurrent_days,
    )
    return stored.between(days - 365, days)


def _days_until_steady(policy: Policy) -> int:
    """Return the days to simulate: the longest tier, and then the year that is billed."""
    history, young = policy.history.days, (policy.all_for or DAY).days
    longest = max(policy.daily, history, young)
    if longest > _MOST_DAYS or policy.monthly > _MOST_MONTHLY or policy.yearly > _MOST_YEARLY:
        raise UsageError(
            "cannot estimate the cost of this policy: it keeps backups for too long",
            hint=f"set at most {_MOST_DAYS} daily, {_MOST_MONTHLY} monthly and {_MOST_YEARLY} "
            f"yearly backups, and a history of {_MOST_DAYS} days",
        )
    years = max(policy.yearly, -(-policy.monthly // 12), -(-longest // 365))
    return (_LAST_DAY - date(_LAST_DAY.year - years, 1, 1)).days + 1


@lru_cache(maxsize=8)
def _steady_lives(policy: Policy, pace: Pace, days: int) -> tuple[BackupLife, ...]:
    young = -(-(policy.all_for or timedelta(0)) // DAY)
    lives = simulate_backups(
        policy,
        first=_LAST_DAY + DAY - days * DAY,
        days=days,
        pace=pace,
        sparse_days=max(days - 365 - young - 2, 0),
    )
    return tuple(lives.values())


def _day(at_ms: int, tsdb: Tsdb) -> int:
    return _NEVER if at_ms >= NEVER_MS else (at_ms - tsdb.today_ms) // DAY_MS
