"""What the next twelve months store and cost: the backups that exist, and those to come. Pure.

The policy is applied day by day to the backups of the repository and to new ones, which come as
often as before and grow as before.
"""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date, timedelta
from functools import lru_cache
from itertools import combinations, pairwise
from typing import Any

from prometheus_backup.cost.compaction import SimulatedBlock
from prometheus_backup.cost.lifetimes import Archived, PlannedBackup, Stored, store
from prometheus_backup.cost.model import Strategy, Usage, month
from prometheus_backup.cost.prices import Price
from prometheus_backup.cost.simulation import DAY, DAY_MS, BackupLife, Pace, simulate_backups
from prometheus_backup.cost.tsdb import Tsdb, Workload
from prometheus_backup.model import Layout, size
from prometheus_backup.retention.policy import Candidate, Policy

MONTHS = 12
_ENOUGH_BACKUPS, _ENOUGH_DAYS = 7, 28
"""Fewer backups, or of a shorter time, say nothing about growth."""
_MOST_POINTS = 60


@dataclass(frozen=True, slots=True)
class StoredBackup:
    """A backup that exists: as retention sees it, its size in bytes, and its archived blocks."""

    candidate: Candidate
    size: int
    layout: Layout = Layout.FULL
    blocks: tuple[SimulatedBlock, ...] = ()


@dataclass(frozen=True, slots=True)
class Growth:
    """How much larger each day's backup is than the last, in bytes, and what says so.

    `backups` is 0 if there are too few backups to say: then they are assumed not to grow.
    """

    bytes_per_day: float
    backups: int
    days: int


@dataclass(frozen=True, slots=True)
class Plan:
    """What is forecast: backups like that of `workload`, in this layout from today on.

    `archived` are the blocks that exist. `tsdb` says how the backups to come grow.
    """

    stored: tuple[StoredBackup, ...]
    workload: Workload
    tsdb: Tsdb
    layout: Layout
    policy: Policy
    today: date
    archived: Archived = field(default_factory=Archived)


@dataclass(frozen=True, slots=True)
class ForecastMonth:
    """A calendar month: averages of the kept backups and of the stored bytes.

    `dollars` maps the names of strategies to their cost.
    """

    first: date
    backups: float
    stored: float
    dollars: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Forecast:
    """The next twelve calendar months. `per_day` is how many backups are made."""

    layout: Layout
    growth: Growth
    per_day: float
    months: tuple[ForecastMonth, ...]

    def total(self, strategy: str) -> float:
        """Return the dollars of a strategy, for all months together."""
        return sum(m.dollars[strategy] for m in self.months)


def forecast(
    plan: Plan, *, strategies: Sequence[Strategy], usage: Usage, prices: Mapping[str, Price]
) -> Forecast:
    """Forecast the twelve months that begin with the next one."""
    growth, tsdb = growth_of(plan.stored), plan.tsdb
    stored = _simulate(plan, usage.noncurrent_days)
    found = []
    for first, following in pairwise(_months_after(plan.today)):
        begin, end = ((d - plan.today).days for d in (first, following))
        kept = stored.between(begin, end)
        load = _grown(plan.workload, tsdb.size_at(tsdb.today_ms + (begin + end) / 2 * DAY_MS))
        costs = {
            s.name: month(s, workload=load, kept=kept, usage=usage, prices=prices).total
            for s in strategies
        }
        found.append(ForecastMonth(first, kept.backups, kept.stored, costs))
    return Forecast(plan.layout, growth, tsdb.pace.mean_per_day, tuple(found))


def forecast_document(coming: Forecast, in_use: str | None) -> dict[str, Any]:
    """Return a forecast as JSON, with the cost of the class in use if there is one."""
    return {
        "layout": coming.layout.value,
        "storage_class": in_use,
        "growth_bytes_per_day": round(coming.growth.bytes_per_day),
        "growth_backups": coming.growth.backups,
        "backups_per_day": round(coming.per_day, 4),
        "dollars": round(coming.total(in_use), 4) if in_use else None,
        "months": [
            {
                "month": f"{m.first:%Y-%m}",
                "backups": round(m.backups, 2),
                "stored_bytes": round(m.stored),
                "dollars": round(m.dollars[in_use], 4) if in_use else None,
            }
            for m in coming.months
        ],
    }


def growth_text(coming: Forecast) -> str:
    """Return how a forecast assumes that backups grow, and how many there are."""
    growth = coming.growth
    if not growth.backups:
        how = "each backup is as large as the newest: too few backups show how they grow"
    else:
        each = size(growth.bytes_per_day)
        how = f"backups grow by {each} a day, like those of the last {growth.days} days"
    pace = f"{coming.per_day:.3g} backups a day" if coming.per_day != 1 else "one backup a day"
    return f"{how}; {pace}"


def growth_of(stored: Sequence[StoredBackup]) -> Growth:
    """Return the median slope between any two good backups of the last year (Theil-Sen).

    One odd backup does not change it. Shrinking is not continued: a budget should not rely on it.
    """
    good = sorted((s for s in stored if s.candidate.good), key=lambda s: s.candidate.time)
    if not good:
        return Growth(0.0, 0, 0)
    newest = good[-1].candidate.time
    recent = [s for s in good if newest - s.candidate.time <= timedelta(days=365)]
    days = (newest - recent[0].candidate.time).days
    if len(recent) < _ENOUGH_BACKUPS or days < _ENOUGH_DAYS:
        return Growth(0.0, 0, 0)
    thinned = recent[:: -(-len(recent) // _MOST_POINTS)]
    slopes = [
        (b.size - a.size) / ((b.candidate.time - a.candidate.time) / DAY)
        for a, b in combinations(thinned, 2)
        if b.candidate.time - a.candidate.time >= DAY
    ]
    return Growth(max(statistics.median(slopes), 0.0), len(recent), days)


def pace_of(stored: Sequence[StoredBackup]) -> Pace:
    """Return how often backups are made: the usual gap of the last month, else a day."""
    times = sorted(s.candidate.time for s in stored)
    recent = [t for t in times if times[-1] - t <= 30 * DAY]
    if len(recent) < _ENOUGH_BACKUPS:
        return Pace()
    gap = statistics.median((b - a) / DAY for a, b in pairwise(recent))
    return Pace(DAY / min(round(1 / gap), 96)) if gap < 1 else Pace(max(round(gap), 1) * DAY)


def _simulate(plan: Plan, noncurrent_days: int) -> Stored:
    """Return what is stored from today until the last month is over."""
    lives = _lives(
        plan.policy.without_history,
        plan.tsdb.pace,
        plan.today,
        tuple(s.candidate for s in plan.stored),
    )
    known = {s.candidate.backup_id: s for s in plan.stored}
    return store(
        [
            PlannedBackup(life, s.layout, s.size, s.blocks)
            if (s := known.get(name))
            else _new(life, plan)
            for name, life in lives.items()
        ],
        layout=plan.layout,
        tsdb=plan.tsdb,
        load=plan.workload,
        history_for=plan.policy.history,
        noncurrent_days=noncurrent_days,
        archived=plan.archived,
    )


@lru_cache(maxsize=4)
def _lives(
    policy: Policy, pace: Pace, today: date, stored: tuple[Candidate, ...]
) -> Mapping[str, BackupLife]:
    """Return the lives of backups, which are the same in both layouts."""
    days = (_months_after(today)[-1] - today).days
    return simulate_backups(policy, first=today + DAY, days=days, pace=pace, stored=stored)


def _new(life: BackupLife, plan: Plan) -> PlannedBackup:
    tsdb = plan.tsdb
    blocks = tsdb.compactor.snapshot(life.made_ms) if plan.layout is Layout.ARCHIVE else ()
    return PlannedBackup(life, plan.layout, tsdb.size_at(life.made_ms), blocks)


def _grown(load: Workload, size: float) -> Workload:
    share = size / load.size if load.size else 1.0
    return replace(load, size=round(size), upload=round(load.upload * share))


def _months_after(today: date) -> list[date]:
    """Return the first days of the next twelve months, and of the one after them."""
    month = today.year * 12 + today.month
    return [date(m // 12, m % 12 + 1, 1) for m in range(month, month + MONTHS + 1)]
