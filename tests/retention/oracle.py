"""What retention must keep, said a second time: a slow, literal reading of the written rules.

Written from the rules in docs/retention.md and not from `retention.policy`, so that one
can be held against the other. It walks the calendar day by day and asks what lies on each day.
"""

from collections.abc import Iterable, Iterator
from datetime import date, timedelta

from prometheus_backup.retention.policy import Candidate, Policy

_Shelf = dict[date, list[Candidate]]
"""The backups of each day, earliest first."""


def must_keep(backups: Iterable[Candidate], *, today: date, policy: Policy) -> set[str]:
    """Return the ids of the backups that the rules keep on this UTC day; all others go."""
    everything = sorted(backups, key=lambda b: b.time)
    shelf: _Shelf = {}
    for backup in everything:
        shelf.setdefault(backup.time.date(), []).append(backup)

    kept: set[str] = set()

    # Daily: every backup of each of the last `daily` days, good or not.
    for days_ago in range(policy.daily):
        kept |= _ids(shelf.get(today - timedelta(days=days_ago), []))

    # Monthly: the current month and `monthly - 1` before it.
    first_of_month = today.replace(day=1)
    for _ in range(policy.monthly):
        kept |= _what_stands_for(_days_of_month(first_of_month), shelf)
        first_of_month = (first_of_month - timedelta(days=1)).replace(day=1)

    # Yearly: the current year and `yearly - 1` before it.
    for years_ago in range(policy.yearly):
        kept |= _what_stands_for(_days_of_year(today.year - years_ago), shelf)

    # A date that has not come yet: nothing says how old the backup really is.
    for day in shelf:
        if day > today:
            kept |= _ids(shelf[day])

    # The newest of all, and the newest good one.
    kept |= _ids(everything[-1:])
    good = [b for b in everything if b.good]
    kept |= _ids(good[-1:])
    # A date ahead may be a wrong clock's, so the newest good one of the others stays as well.
    kept |= _ids([b for b in good if b.time.date() <= today][-1:])
    return kept


def _ids(backups: Iterable[Candidate]) -> set[str]:
    return {b.backup_id for b in backups}


def _what_stands_for(days_of_period: Iterator[date], shelf: _Shelf) -> set[str]:
    """Return every good backup of the first day; else the single earliest good one of the rest.

    Where none is good, the earliest of any kind is better than nothing.
    """
    days = list(days_of_period)
    on_the_first = _ids(b for b in shelf.get(days[0], []) if b.good)
    if on_the_first:
        return on_the_first
    all_of_it = [backup for day in days for backup in shelf.get(day, [])]
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
