"""Decide when `daily` starts the next backup. Pure: instants in, instants out."""

from datetime import datetime, time, timedelta

DAY = timedelta(days=1)
RETRY_AFTER = timedelta(minutes=10)
MAX_TRIES = 3
FINAL_EXITS = frozenset({0, 2, 3, 10, 11, 12, 14, 21, 22, 40})
"""Exit codes of `backup` that a retry would not change, as in the CronJob's podFailurePolicy."""


def first_start(at: time, *, now: datetime, newest: datetime | None) -> datetime:
    """Return when to start: now, if there is no backup since the last time one was due."""
    upcoming = _next_time(at, now)
    missed = newest is None or newest < upcoming - DAY
    return now if missed else upcoming


def next_start(at: time, *, now: datetime, exit_code: int, tries: int) -> tuple[datetime, int]:
    """Return when to start the next run after one that just ended, and its try number.

    `tries` is the number of runs so far; the last one ended with `exit_code`.
    """
    if exit_code in FINAL_EXITS or tries >= MAX_TRIES:
        return _next_time(at, now), 1
    return now + RETRY_AFTER, tries + 1


def _next_time(at: time, now: datetime) -> datetime:
    today = datetime.combine(now.date(), at, tzinfo=now.tzinfo)
    return today if today > now else today + DAY
