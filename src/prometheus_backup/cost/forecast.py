"""What the next twelve months store and cost: the backups that exist, and those to come. Pure.

The policy is applied day by day to the backups of the repository and to new ones, which come as
often as before and grow as before.
"""

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, time, timedelta
from itertools import combinations, pairwise
from typing import Any

from prometheus_backup.cost.lifetimes import BackupLifetime, KeptBackups, Workload
from prometheus_backup.cost.model import Strategy, Usage, month
from prometheus_backup.cost.prices import Price
from prometheus_backup.model import Layout, size
from prometheus_backup.retention.policy import Candidate, Policy, decide

MONTHS = 12
_DAY = timedelta(days=1)
_ENOUGH_BACKUPS, _ENOUGH_DAYS = 7, 28
"""Fewer backups, or of a shorter time, say nothing about growth."""
_MOST_POINTS = 60
_NEVER = 10**6


@dataclass(frozen=True, slots=True)
class StoredBackup:
    """A backup that exists: as retention sees it, and its size in bytes."""

    candidate: Candidate
    size: int


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
    """What is forecast: `workload` of the newest backup, whose samples span `window_days`."""

    stored: tuple[StoredBackup, ...]
    workload: Workload
    window_days: float
    layout: Layout
    policy: Policy
    today: date


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


@dataclass(frozen=True, slots=True)
class _Life:
    """The days, counted from today, on which bytes are written and deleted; `backups` made them."""

    created: int
    deleted: int
    size: float
    backups: int = 1


def forecast(
    plan: Plan, *, strategies: Sequence[Strategy], usage: Usage, prices: Mapping[str, Price]
) -> Forecast:
    """Forecast the twelve months that begin with the next one."""
    growth, gap = growth_of(plan.stored), _gap(plan.stored)
    lives = _simulate(plan, growth, gap)
    bytes_lives = _shared(lives, plan) if plan.layout is Layout.ARCHIVE else lives
    firsts = _months_after(plan.today)
    found = []
    for first, following in pairwise(firsts):
        begin, end = ((d - plan.today).days for d in (first, following))
        each = plan.workload.size + growth.bytes_per_day * (begin + end) / 2
        load = _grown(plan.workload, each, shared=plan.layout is Layout.ARCHIVE)
        kept = _kept(bytes_lives, begin, end, load.size, usage.noncurrent_days)
        costs = {
            s.name: month(s, workload=load, kept=kept, usage=usage, prices=prices).total
            for s in strategies
        }
        backups = _average(lives, begin, end, weights=[float(x.backups) for x in lives])
        stored = _average(bytes_lives, begin, end, weights=[x.size for x in bytes_lives])
        found.append(ForecastMonth(first, backups, stored, costs))
    return Forecast(plan.layout, growth, _DAY / gap, tuple(found))


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
        (b.size - a.size) / ((b.candidate.time - a.candidate.time) / _DAY)
        for a, b in combinations(thinned, 2)
        if b.candidate.time - a.candidate.time >= _DAY
    ]
    return Growth(max(statistics.median(slopes), 0.0), len(recent), days)


def _gap(stored: Sequence[StoredBackup]) -> timedelta:
    """Return the usual time between two backups: of the last month, else one day."""
    times = sorted(s.candidate.time for s in stored)
    recent = [t for t in times if times[-1] - t <= 30 * _DAY]
    if len(recent) < _ENOUGH_BACKUPS:
        return _DAY
    gap = statistics.median((b - a) / _DAY for a, b in pairwise(recent))
    return max(gap, 1 / 96) * _DAY


def _simulate(plan: Plan, growth: Growth, gap: timedelta) -> list[_Life]:
    """Return how long each backup is kept, from today until the last month is over.

    Backups of one day share their fate, so they are simulated as one.
    """
    per_day, every = max(round(_DAY / gap), 1), max(round(gap / _DAY), 1)
    lives: dict[str, _Life] = {}
    kept: dict[str, Candidate] = {}
    for s in plan.stored:
        created = (s.candidate.time.date() - plan.today).days
        lives[s.candidate.backup_id] = _Life(created, _NEVER, s.size)
        kept[s.candidate.backup_id] = s.candidate
    last = (_months_after(plan.today)[-1] - plan.today).days
    for day in range(1, last + 1):
        today = plan.today + timedelta(days=day)
        if day % every == 0:
            taken = datetime.combine(today, time(2), tzinfo=UTC)
            name = f"backup-{taken:%Y%m%d-%H%M%S}"
            kept[name] = Candidate(name, taken, good=True)
            each = plan.workload.size + growth.bytes_per_day * day
            lives[name], others = _made(day, each, per_day, plan.policy)
            lives |= {f"others of {name}": o for o in others}
        for decision in decide(kept.values(), today=today, policy=plan.policy):
            if not decision.keep:
                del kept[decision.backup_id]
                lives[decision.backup_id] = replace(lives[decision.backup_id], deleted=day)
    return list(lives.values())


def _made(day: int, each: float, per_day: int, policy: Policy) -> tuple[_Life, list[_Life]]:
    """Return the backups of a day: those that all tiers decide on, and the others.

    With RETENTION_ALL, the tiers keep one backup of a day, and the others go when it is over.
    """
    if policy.all_for is None or per_day == 1:
        return _Life(day, _NEVER, each * per_day, per_day), []
    until = day + max(round(policy.all_for / _DAY), 1)
    rest = per_day - 1
    return _Life(day, _NEVER, each), [_Life(day, until, each * rest, rest)]


def _shared(lives: Sequence[_Life], plan: Plan) -> list[_Life]:
    """Return the bytes of an archive: a day's samples are kept once, while a backup covers them
    or the history does.

    What a night uploads beyond the samples of its day (the head, blocks not yet compacted) is
    kept as long as its backup.
    """
    window, load = max(plan.window_days, 1.0), plan.workload
    history = plan.policy.history.days
    share = max(load.upload / load.size - 1 / window, 0.0) if load.size else 0.0
    extras = [replace(x, size=x.size * share) for x in lives]
    days: dict[int, _Life] = {}
    for x in lives:
        per_day = x.size / x.backups / window
        for day in range(x.created - int(window) + 1, x.created + 1):
            known = days.get(day)
            until = max(x.deleted, known.deleted if known else 0, day + history)
            first = min(x.created, known.created) if known else x.created
            days[day] = _Life(first, until, max(per_day, known.size) if known else per_day)
    return [*extras, *days.values()]


def _grown(load: Workload, each: float, *, shared: bool) -> Workload:
    share = each / load.size if load.size else 1.0
    return replace(load, size=round(each), upload=round(load.upload * share), shared=shared)


def _kept(
    lives: Iterable[_Life], begin: int, end: int, whole: int, noncurrent_days: int
) -> KeptBackups:
    """Return the lives that are billed in these days; each as a share of this size."""
    return KeptBackups(
        tuple(
            BackupLifetime(x.created, x.deleted, x.deleted + noncurrent_days, x.size / (whole or 1))
            for x in lives
            if x.created < end and x.deleted + noncurrent_days >= begin
        ),
        begin,
        end,
    )


def _average(lives: Sequence[_Life], begin: int, end: int, *, weights: Sequence[float]) -> float:
    days = (max(0, min(x.deleted, end) - max(x.created, begin)) for x in lives)
    return sum(d * w for d, w in zip(days, weights, strict=True)) / (end - begin)


def _months_after(today: date) -> list[date]:
    """Return the first days of the next twelve months, and of the one after them."""
    month = today.year * 12 + today.month
    return [date(m // 12, m % 12 + 1, 1) for m in range(month, month + MONTHS + 1)]
