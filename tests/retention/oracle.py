"""What retention must keep, implemented a second time: slow, and literally as documented.

Written from docs/retention.md and not from `retention.policy`, so that tests can compare both. It
walks through the calendar day by day.
"""

from collections.abc import Iterable, Iterator
from datetime import date, timedelta

from prometheus_backup.retention.policy import Candidate, Policy

_ByDay = dict[date, list[Candidate]]
"""The backups of each day, earliest first."""


def must_keep(backups: Iterable[Candidate], *, today: date, policy: Policy) -> set[str]:
    """Return the ids of the backups that the rules keep on this UTC day."""
    everything = sorted(backups, key=lambda b: b.time)
    by_day: _ByDay = {}
    for backup in everything:
        by_day.setdefault(backup.time.date(), []).append(backup)

    kept: set[str] = set()

    # Daily: every backup of each of the last `daily` days, good or not.
    for days_ago in range(policy.daily):
        kept |= _ids(by_day.get(today - timedelta(days=days_ago), []))

    # Monthly: the current month and `monthly - 1` before it.
    first_of_month = today.replace(day=1)
    for _ in range(policy.monthly):
        kept |= _representatives(_days_of_month(first_of_month), by_day)
        first_of_month = (first_of_month - timedelta(days=1)).replace(day=1)

    # Yearly: the current year and `yearly - 1` before it.
    for years_ago in range(policy.yearly):
        kept |= _representatives(_days_of_year(today.year - years_ago), by_day)

    # Held, until the end of the last day, if there is one.
    for backup in everything:
        if backup.hold and (backup.held_until is None or backup.held_until >= today):
            kept |= {backup.backup_id}

    # Dated in the future: its real age is unknown.
    for day in by_day:
        if day > today:
            kept |= _ids(by_day[day])

    # The newest of all, and the newest good one.
    kept |= _ids(everything[-1:])
    good = [b for b in everything if b.good]
    kept |= _ids(good[-1:])
    # A future date may come from a wrong clock, so keep the newest good one of the others too.
    kept |= _ids([b for b in good if b.time.date() <= today][-1:])
    return kept


def _ids(backups: Iterable[Candidate]) -> set[str]:
    return {b.backup_id for b in backups}


def _representatives(days_of_period: Iterator[date], by_day: _ByDay) -> set[str]:
    """Return the good backups of the first day, otherwise the earliest good one of the period.

    If none is good, return the earliest of all.
    """
    days = list(days_of_period)
    on_the_first = _ids(b for b in by_day.get(days[0], []) if b.good)
    if on_the_first:
        return on_the_first
    all_of_it = [backup for day in days for backup in by_day.get(day, [])]
    for backup in all_of_it:
        if backup.good:
            return {backup.backup_id}
    return _ids(all_of_it[:1])


def _days_of_month(first: date) -> Iterator[date]:
    day = first
    while day.month == first.month:
        yield day
        day += timedelta(days=1)


def _days_of_year(year: int) -> Iterator[date]:
    day = date(year, 1, 1)
    while day.year == year:
        yield day
        day += timedelta(days=1)
