"""Which backups to keep, and why. Pure: dates in, decisions with their reasons out.

Rules and worked examples: docs/retention.md. Calendar days are UTC.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta

from prometheus_backup.errors import UsageError
from prometheus_backup.model import Tier

CLOCK_TOLERANCE = timedelta(hours=1)
"""How far our clock may be from the store's before we stop deleting by date."""
FUTURE_TOLERANCE = timedelta(days=1)
"""A backup dated further ahead than this proves that some clock was wrong."""


@dataclass(frozen=True, slots=True)
class Policy:
    """How many days, months and years to keep; 0 turns a tier off."""

    daily: int = 30
    monthly: int = 12
    yearly: int = 3

    def __post_init__(self) -> None:
        """Raise UsageError for a policy that would keep nothing, or cannot be meant."""
        if min(self.daily, self.monthly, self.yearly) < 0:
            raise UsageError(
                "cannot use retention: a number of days, months or years is negative",
                hint="set RETENTION_DAILY, RETENTION_MONTHLY and RETENTION_YEARLY to 0 or more",
            )
        if self.daily == self.monthly == self.yearly == 0:
            raise UsageError(
                "cannot use retention: all three tiers are 0, which would delete every backup",
                hint="set at least one of RETENTION_DAILY, RETENTION_MONTHLY, RETENTION_YEARLY",
            )


@dataclass(frozen=True, slots=True)
class Candidate:
    """A committed, readable backup. Good: not degraded, and not failed by its last verification."""

    backup_id: str
    time: datetime
    good: bool


@dataclass(frozen=True, slots=True)
class Decision:
    """Whether a backup stays, the tiers it stands for, and the reasons in words."""

    backup_id: str
    keep: bool
    tiers: tuple[Tier, ...]
    reasons: tuple[str, ...]

    @property
    def highest_tier(self) -> Tier:
        """Return the longest-lived tier; a backup kept for another reason counts as daily."""
        return self.tiers[-1] if self.tiers else Tier.DAILY


def decide(candidates: Iterable[Candidate], *, today: date, policy: Policy) -> tuple[Decision, ...]:
    """Decide on every backup, oldest first. `today` is the UTC date to count from."""
    backups = sorted(candidates, key=lambda c: (c.time, c.backup_id))
    good = [c for c in backups if c.good]
    monthly = _representatives(good, _months_back(today, policy.monthly), _month, "monthly")
    yearly = _representatives(good, _years_back(today, policy.yearly), _year, "yearly")
    newest = backups[-1].backup_id if backups else None
    newest_good = good[-1].backup_id if good else None

    decisions = []
    for backup in backups:
        tiers: list[Tier] = []
        reasons: list[str] = []
        age = (today - backup.time.date()).days
        if age < policy.daily:
            tiers.append(Tier.DAILY)
            reasons.append(f"daily: {_days_old(age)}, under {policy.daily}")
        for tier, chosen in ((Tier.MONTHLY, monthly), (Tier.YEARLY, yearly)):
            if backup.backup_id in chosen:
                tiers.append(tier)
                reasons.append(chosen[backup.backup_id])
        if age < 0 and not reasons:
            reasons.append("dated in the future")
        if backup.backup_id == newest_good:
            reasons.append("newest good backup")
        elif backup.backup_id == newest:
            reasons.append("newest backup")
        keep = bool(reasons)
        if not keep:
            reasons.append(_why_not(age, good=backup.good))
        decisions.append(Decision(backup.backup_id, keep, tuple(tiers), tuple(reasons)))
    return tuple(decisions)


def clock_doubt(
    *, now: datetime, store_now: datetime, backup_times: Sequence[datetime]
) -> str | None:
    """Say why the clock cannot be trusted to delete by date, or None if it can.

    `store_now` is the store's own LastModified of something written just now.
    """
    apart = abs(store_now - now)
    if apart > CLOCK_TOLERANCE:
        seconds = round(apart.total_seconds())
        return f"this machine's clock and the store's are {seconds:,} seconds apart"
    ahead = [t for t in backup_times if t - now > FUTURE_TOLERANCE]
    if ahead:
        return f"{len(ahead)} backups are dated more than a day in the future, up to {max(ahead)}"
    return None


_Period = tuple[int, int]


def _month(day: date) -> _Period:
    return day.year, day.month


def _year(day: date) -> _Period:
    return day.year, 1


def _months_back(today: date, count: int) -> frozenset[_Period]:
    months = (today.year * 12 + today.month - 1 - n for n in range(count))
    return frozenset((m // 12, m % 12 + 1) for m in months)


def _years_back(today: date, count: int) -> frozenset[_Period]:
    return frozenset((today.year - n, 1) for n in range(count))


def _representatives(
    good: Sequence[Candidate],
    periods: frozenset[_Period],
    period_of: Callable[[date], _Period],
    name: str,
) -> dict[str, str]:
    """Map the ids that stand for one of the periods to the reason; `good` is oldest first."""
    chosen: dict[str, str] = {}
    for period in periods:
        members = [c for c in good if period_of(c.time.date()) == period]
        first_day = date(period[0], period[1], 1)
        on_the_day = [c for c in members if c.time.date() == first_day]
        for c in on_the_day:
            chosen[c.backup_id] = f"{name}: of {first_day}"
        if members and not on_the_day:
            which = f"{period[0]}-{period[1]:02}" if period_of is _month else f"{period[0]}"
            chosen[members[0].backup_id] = f"{name}: earliest good one of {which}"
    return chosen


def _days_old(age: int) -> str:
    return "1 day old" if age == 1 else f"{age} days old"


def _why_not(age: int, *, good: bool) -> str:
    cause = "no tier holds it" if good else "not a good backup, so it stands for no month or year"
    return f"{_days_old(age)}: {cause}"
