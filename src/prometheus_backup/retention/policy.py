"""Decide which backups to keep, and why. Pure: dates in, decisions with their reasons out.

Rules and worked examples: docs/retention.md. Calendar days are UTC.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, time, timedelta

from prometheus_backup.errors import UsageError
from prometheus_backup.model import Tier, counted
from prometheus_backup.repository.layout import backup_id

CLOCK_TOLERANCE = timedelta(hours=1)
"""If this clock and the store's differ by more, nothing is deleted."""
FUTURE_TOLERANCE = timedelta(days=1)
"""A backup dated further in the future proves that a clock was wrong."""


@dataclass(frozen=True, slots=True)
class Policy:
    """How many days, months and years to keep; 0 turns a tier off.

    `all_for`: how long every backup is kept; None means as long as the daily tier. `history`: for
    how long the archive keeps samples that are in no kept backup.
    """

    daily: int = 30
    monthly: int = 12
    yearly: int = 3
    all_for: timedelta | None = None
    history: timedelta = timedelta(0)

    @property
    def without_history(self) -> "Policy":
        """Return the same without a history, or itself if it keeps nothing else."""
        keeps = self.daily or self.monthly or self.yearly or self.all_for
        return replace(self, history=timedelta(0)) if keeps else self

    def __post_init__(self) -> None:
        """Raise UsageError for negative numbers, and for a policy that would keep nothing."""
        if min(self.daily, self.monthly, self.yearly) < 0:
            raise UsageError(
                "cannot use retention: a number of days, months or years is negative",
                hint="set RETENTION_DAILY, RETENTION_MONTHLY and RETENTION_YEARLY to 0 or more",
            )
        if self.daily == self.monthly == self.yearly == 0 and not (self.history or self.all_for):
            raise UsageError(
                "cannot use retention: all three tiers are 0, which would delete every backup",
                hint="set at least one of RETENTION_DAILY, RETENTION_MONTHLY, RETENTION_YEARLY",
            )


@dataclass(frozen=True, slots=True)
class Candidate:
    """A committed, readable backup. `good`: not degraded, and no verification failure.

    `hold` is why it is held, empty if it is not, and `held_until` the last day, None: for ever.
    """

    backup_id: str
    time: datetime
    good: bool
    hold: str = ""
    held_until: date | None = None

    def is_held(self, today: date) -> bool:
        """Return whether a hold keeps it on this day, whatever the policy says."""
        return bool(self.hold) and (self.held_until is None or today <= self.held_until)


@dataclass(frozen=True, slots=True)
class Decision:
    """Whether to keep a backup, the tiers it represents, and the reasons as text."""

    backup_id: str
    keep: bool
    tiers: tuple[Tier, ...]
    reasons: tuple[str, ...]

    @property
    def highest_tier(self) -> Tier:
        """Return the longest-lived tier; a backup kept for another reason counts as daily."""
        return self.tiers[-1] if self.tiers else Tier.DAILY


def decide(
    candidates: Iterable[Candidate], *, today: date, policy: Policy, now: datetime | None = None
) -> tuple[Decision, ...]:
    """Return a decision for every backup, oldest first.

    `today` is a UTC date, `now` the instant for `all_for` (default: the beginning of today).
    """
    now = now or datetime.combine(today, time(), UTC)
    backups = sorted(candidates, key=lambda c: (c.time, c.backup_id))
    good = [c for c in backups if c.good]
    candidates = backups if policy.all_for is None else _newest_of_each_day(backups)
    daily = {c.backup_id for c in candidates}
    monthly, yearly = (
        _representatives([c for c in candidates if c.good], today=today, count=count, tier=tier)
        for count, tier in ((policy.monthly, _MONTHS), (policy.yearly, _YEARS))
    )
    newest = backups[-1].backup_id if backups else None
    # If the newest one is dated in the future, its clock was wrong: keep the newest other one too.
    newest_good = {c[-1].backup_id for c in (good, _until(good, today)) if c}
    last_resorts = _last_resorts(backups, today=today, policy=policy)

    decisions = []
    for backup in backups:
        tiers: list[Tier] = []
        reasons = _hold(backup, today) + _young(backup, now, policy)
        age = (today - backup.time.date()).days
        if age < policy.daily and policy.daily > 0 and backup.backup_id in daily:
            tiers.append(Tier.DAILY)
            reasons.append(f"daily: {_days_old(age)}, under {policy.daily}")
        for tier, chosen in ((Tier.MONTHLY, monthly), (Tier.YEARLY, yearly)):
            if backup.backup_id in chosen:
                tiers.append(tier)
                reasons.append(chosen[backup.backup_id])
        if age < 0 and not reasons:
            reasons.append("dated in the future")
        if backup.backup_id in newest_good:
            reasons.append("newest good backup")
        elif backup.backup_id == newest:
            reasons.append("newest backup")
        if not reasons and backup.backup_id in last_resorts:
            reasons.append(last_resorts[backup.backup_id])
        keep = bool(reasons)
        if not keep:
            reasons.append(_why_pruned(backup, age))
        decisions.append(Decision(backup.backup_id, keep, tuple(tiers), tuple(reasons)))
    return tuple(decisions)


def clock_problem(
    *, now: datetime, store_now: datetime, backup_times: Sequence[datetime]
) -> str | None:
    """Return why the clock cannot be trusted to delete by date, or None if it can.

    `store_now` is the LastModified that the store gave to an object written just now.
    """
    apart = abs(store_now - now)
    if apart > CLOCK_TOLERANCE:
        seconds = round(apart.total_seconds())
        return f"this machine's clock and the store's are {counted(seconds, 'second')} apart"
    ahead = sorted(t for t in backup_times if t - now > FUTURE_TOLERANCE)
    if ahead:
        more = f" (and {len(ahead) - 1} more)" if len(ahead) > 1 else ""
        return (
            f"{backup_id(ahead[0])}{more} is dated more than a day in the future; if the clock is "
            "right now, remove that backup by hand"
        )
    return None


@dataclass(frozen=True, slots=True)
class _Calendar:
    """The periods of a tier: their numbers, their first days, and how to print one."""

    name: str
    number: Callable[[date], int]
    first_day: Callable[[int], date]
    date_format: str


_MONTHS = _Calendar(
    "monthly",
    lambda day: day.year * 12 + day.month - 1,
    lambda number: date(number // 12, number % 12 + 1, 1),
    "%Y-%m",
)
_YEARS = _Calendar("yearly", lambda day: day.year, lambda number: date(number, 1, 1), "%Y")


def _representatives(
    good: Sequence[Candidate], *, today: date, count: int, tier: _Calendar
) -> dict[str, str]:
    """Return the backups that represent one of the last `count` periods: id to reason.

    `good` is oldest first.
    """
    chosen: dict[str, str] = {}
    for first_day, members in _periods(good, tier, today=today, count=count):
        on_the_day = [c for c in members if c.time.date() == first_day]
        for c in on_the_day:
            chosen[c.backup_id] = f"{tier.name}: made on {first_day}"
        if not on_the_day:
            which = first_day.strftime(tier.date_format)
            chosen[members[0].backup_id] = f"{tier.name}: earliest good backup of {which}"
    return chosen


def _last_resorts(backups: Sequence[Candidate], *, today: date, policy: Policy) -> dict[str, str]:
    """Return the earliest backup of each period without a good one: id to reason.

    It belongs to no tier. It is kept only until the period has a good backup.
    """
    chosen: dict[str, str] = {}
    if all(c.good for c in backups):
        return chosen
    for tier, count in ((_MONTHS, policy.monthly), (_YEARS, policy.yearly)):
        for first_day, members in _periods(backups, tier, today=today, count=count):
            if not any(c.good for c in members):
                which = first_day.strftime(tier.date_format)
                reason = f"earliest of {which}, which has no good backup"
                chosen.setdefault(members[0].backup_id, reason)
    return chosen


def _periods(
    backups: Sequence[Candidate], tier: _Calendar, *, today: date, count: int
) -> list[tuple[date, list[Candidate]]]:
    """Return the first day and the backups, oldest first, of each of the last `count` periods."""
    periods: dict[int, list[Candidate]] = {}
    for c in backups:
        periods.setdefault(tier.number(c.time), []).append(c)
    present = tier.number(today)
    return [(tier.first_day(n), p) for n, p in periods.items() if 0 <= present - n < count]


def _young(backup: Candidate, now: datetime, policy: Policy) -> list[str]:
    """Return why a backup is kept by `all_for`, if it is."""
    if policy.all_for is None or now - backup.time >= policy.all_for:
        return []
    return [f"all: {_age(now - backup.time)} old, under {_age(policy.all_for)}"]


def _newest_of_each_day(backups: Sequence[Candidate]) -> list[Candidate]:
    """Return the newest good backup of each day, or the newest one of a day without a good one."""
    chosen: dict[date, Candidate] = {}
    for c in backups:
        day = c.time.date()
        if c.good or day not in chosen or not chosen[day].good:
            chosen[day] = c
    return [*chosen.values()]


def _age(period: timedelta) -> str:
    hours = period // timedelta(hours=1)
    return f"{hours / 24:g} days" if hours % 24 == 0 and hours > 48 else counted(hours, "hour")


def _until(backups: Sequence[Candidate], today: date) -> Sequence[Candidate]:
    return [c for c in backups if c.time.date() <= today]


def _hold(backup: Candidate, today: date) -> list[str]:
    if not backup.is_held(today):
        return []
    until = f" until {backup.held_until}" if backup.held_until else ""
    return [f"held{until}: {backup.hold}"]


def _days_old(age: int) -> str:
    return f"{counted(age, 'day')} old"


def _why_pruned(backup: Candidate, age: int) -> str:
    cause = "not good, so it represents no month or year"
    if backup.good:
        cause = "matches no retention rule"
    ended = f"; its hold ended on {backup.held_until}" if backup.hold else ""
    return f"{_days_old(age)}, {cause}{ended}"
