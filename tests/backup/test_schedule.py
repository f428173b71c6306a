"""When `daily` starts a backup."""

from datetime import UTC, datetime, time, timedelta

import pytest

from prometheus_backup.backup.schedule import (
    FINAL_EXITS,
    MAX_TRIES,
    RETRY_AFTER,
    first_start,
    next_start,
)
from tests.support.kustomize import PROMETHEUS, job_of, only, render

AT = time(2)
NOON = datetime(2025, 1, 22, 12, tzinfo=UTC)
TONIGHT = datetime(2025, 1, 23, 2, tzinfo=UTC)


@pytest.mark.parametrize(
    ("newest", "start"),
    [
        (None, NOON),
        (NOON - timedelta(days=3), NOON),
        (datetime(2025, 1, 22, 1, 59, tzinfo=UTC), NOON),
        (datetime(2025, 1, 22, 2, tzinfo=UTC), TONIGHT),
        (NOON - timedelta(minutes=1), TONIGHT),
    ],
)
def test_a_day_that_was_missed_is_made_up_for(newest: datetime | None, start: datetime) -> None:
    assert first_start(AT, now=NOON, newest=newest) == start


def test_before_the_time_of_day_yesterdays_backup_counts() -> None:
    early, yesterday = datetime(2025, 1, 22, 1, tzinfo=UTC), datetime(2025, 1, 21, 2, tzinfo=UTC)
    assert first_start(AT, now=early, newest=yesterday) == early.replace(hour=2)
    assert first_start(AT, now=early, newest=yesterday - timedelta(seconds=1)) == early


@pytest.mark.parametrize("code", sorted(FINAL_EXITS))
def test_errors_that_a_retry_cannot_fix_wait_for_the_next_day(code: int) -> None:
    assert next_start(AT, now=NOON, exit_code=code, tries=1) == (TONIGHT, 1)


def test_errors_that_a_retry_may_fix_are_retried() -> None:
    now, starts = NOON, []
    tries = 1
    while True:
        start, tries = next_start(AT, now=now, exit_code=20, tries=tries)
        starts.append(start)
        if start == TONIGHT:
            break
        now = start
    assert starts == [NOON + RETRY_AFTER, NOON + 2 * RETRY_AFTER, TONIGHT]
    assert (len(starts), tries) == (MAX_TRIES, 1)


def test_the_cronjob_gives_up_on_the_same_exit_codes() -> None:
    job = job_of(only(render(PROMETHEUS / "backup"), "CronJob"))["spec"]
    codes = job["podFailurePolicy"]["rules"][0]["onExitCodes"]["values"]
    assert {0, *codes} == FINAL_EXITS
    assert job["backoffLimit"] + 1 == MAX_TRIES
