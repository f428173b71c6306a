"""When a backup is due that no timer of the system starts. Pure: instants in, instants out."""

from datetime import datetime, time, timedelta

DAY = timedelta(days=1)
RETRY_AFTER = timedelta(minutes=10)
MOST_TRIES = 3
FINAL_EXITS = frozenset({0, 2, 3, 10, 11, 12, 14, 21, 40})
"""Ends of `backup` that another try would not change, as in the CronJob's podFailurePolicy."""


def first_start(at: time, *, now: datetime, newest: datetime | None) -> datetime:
    """Return when to begin: at once, if there is no backup since the last time one was due."""
    following = _following(at, now)
    missed = newest is None or newest < following - DAY
    return now if missed else following


def next_start(at: time, *, now: datetime, exit_code: int, tries: int) -> tuple[datetime, int]:
    """Return when to begin after a run that ended just now, and which try of that day it is.

    `tries` counts the runs so far, of which the last one ended with `exit_code`.
    """
    if exit_code in FINAL_EXITS or tries >= MOST_TRIES:
        return _following(at, now), 1
    return now + RETRY_AFTER, tries + 1


def _following(at: time, now: datetime) -> datetime:
    today = datetime.combine(now.date(), at, tzinfo=now.tzinfo)
    return today if today > now else today + DAY
