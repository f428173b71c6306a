"""Five simulated years of backups, decided on and deleted run by run, held against the oracle.

Deletion is done for real on what is stored, so a wrong decision of one night is missing in all
that follow. What must stand at the end is said once more here, from the calendar alone.
"""

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from random import Random

import pytest

from prometheus_backup.repository.layout import backup_id
from prometheus_backup.retention.policy import Candidate, Policy, clock_problem, decide
from tests.retention.oracle import must_keep

BEGIN = datetime(2021, 1, 1, 2, tzinfo=UTC)
END = datetime(2026, 1, 1, tzinfo=UTC)
LAST_DAY = date(2025, 12, 31)

SECOND, HOUR, DAY = timedelta(seconds=1), timedelta(hours=1), timedelta(days=1)
FIRSTS_OF_MONTHS = [date(2025, month, 1) for month in range(1, 13)]
FIRSTS_OF_YEARS = [date(year, 1, 1) for year in (2023, 2024, 2025)]
LAST_THIRTY_DAYS = [LAST_DAY - n * DAY for n in range(30)]
MUST_STAND = {*FIRSTS_OF_MONTHS, *FIRSTS_OF_YEARS, *LAST_THIRTY_DAYS}


class Archive:
    """A repository under the default policy, and the memory of all that was ever put in it."""

    def __init__(self) -> None:
        self.policy = Policy()
        self.made: dict[str, Candidate] = {}
        self.stored: dict[str, Candidate] = {}
        self.prunings = 0

    def commit(self, instant: datetime, *, good: bool = True) -> Candidate:
        """Add a backup of this second, or of the next one that is free."""
        while backup_id(instant) in self.made:
            instant += SECOND
        backup = Candidate(backup_id(instant), instant, good)
        self.made[backup.backup_id] = self.stored[backup.backup_id] = backup
        return backup

    def fails_verification(self, backup: Candidate) -> None:
        """Turn a stored backup bad."""
        worse = replace(backup, good=False)
        self.made[backup.backup_id] = self.stored[backup.backup_id] = worse

    def prune(self, today: date) -> None:
        """Decide, hold the decisions against the oracle, delete."""
        decisions = decide(self.stored.values(), today=today, policy=self.policy)
        expected = must_keep(self.stored.values(), today=today, policy=self.policy)
        newest_good = max((b.backup_id for b in self.stored.values() if b.good), default=None)

        for decision in decisions:
            if not decision.keep:
                del self.stored[decision.backup_id]

        self.prunings += 1
        assert self.stored.keys() == expected, f"on {today}"
        assert newest_good is None or newest_good in self.stored, f"on {today}"

    def assert_nothing_wanted_was_ever_deleted(self, today: date) -> None:
        """Compare with a repository in which every backup ever made still lies.

        Holds where no backup changes its goodness: then what the rules keep today was kept on
        every day before. Looks on a few days of each month: it reads all that was ever made.
        """
        if today.day not in (1, 2, 30):
            return
        assert self.stored.keys() == must_keep(
            self.made.values(), today=today, policy=self.policy
        ), f"on {today}"

    def days(self) -> set[date]:
        """Return the days that have a stored backup."""
        return {b.time.date() for b in self.stored.values()}


def every(step: timedelta) -> Iterator[datetime]:
    """Yield the instants of a schedule over the five years."""
    instant = BEGIN
    while instant < END:
        yield instant
        instant += step


def test_five_years_of_daily_backups() -> None:
    archive = Archive()
    for now in every(DAY):
        archive.commit(now)
        archive.prune(now.date())
        archive.assert_nothing_wanted_was_ever_deleted(now.date())
    assert archive.days() == MUST_STAND
    assert len(archive.stored) == 30 + 12 + 2  # 1 January 2025 is both a month's and a year's


def test_five_years_of_six_hourly_backups() -> None:
    archive = Archive()
    for now in every(6 * HOUR):
        archive.commit(now)
        archive.prune(now.date())
        if now.hour == 2:
            archive.assert_nothing_wanted_was_ever_deleted(now.date())
    assert archive.days() == MUST_STAND
    assert len(archive.stored) == 4 * (30 + 12 + 2)


@pytest.mark.parametrize("seed", [11, 12, 13])
def test_five_years_with_outages_of_days_to_months(seed: int) -> None:
    random = Random(seed)
    archive = Archive()
    down_until = BEGIN
    for now in every(DAY):
        if now < down_until:
            continue
        if random.random() < 1 / 25:
            down_until = now + random.choice([2, 5, 20, 45, 100, 200]) * DAY
        archive.commit(now)
        archive.prune(now.date())
        archive.assert_nothing_wanted_was_ever_deleted(now.date())
    _close(archive)

    made = sorted(b.time.date() for b in archive.made.values())
    for first in FIRSTS_OF_MONTHS:
        in_month = [day for day in made if (day.year, day.month) == (first.year, first.month)]
        assert set(in_month[:1]) <= archive.days()
    for first in FIRSTS_OF_YEARS:
        assert set([day for day in made if day.year == first.year][:1]) <= archive.days()
    assert set(LAST_THIRTY_DAYS) & set(made) <= archive.days()
    assert len(archive.made) < 1700, "the outages must bite"


@pytest.mark.parametrize("seed", [21, 22, 23])
def test_five_years_of_degraded_backups_and_failing_verifications(seed: int) -> None:
    random = Random(seed)
    archive = Archive()
    good_at_birth: list[Candidate] = []
    chance_of_bad = 0.2
    for now in every(DAY):
        if random.random() < 1 / 30:  # a spell: all is well, some are degraded, nearly all are
            chance_of_bad = random.choice([0.0, 0.2, 0.9])
        backup = archive.commit(now, good=random.random() >= chance_of_bad)
        if backup.good:
            good_at_birth.append(backup)
        if random.random() < 1 / 40:
            archive.fails_verification(random.choice(list(archive.stored.values())))
        archive.prune(now.date())
    _close(archive)

    for first in FIRSTS_OF_MONTHS:
        _assert_period_stands(archive, good_at_birth, (first.year, first.month))
    for first in FIRSTS_OF_YEARS:
        _assert_period_stands(archive, good_at_birth, (first.year,))
    assert set(LAST_THIRTY_DAYS) <= archive.days(), "the daily tier keeps bad ones too"
    assert len(good_at_birth) < 1700, "the degraded spells must bite"


def _assert_period_stands(
    archive: Archive, good_at_birth: list[Candidate], period: tuple[int, ...]
) -> None:
    """Assert that what stood for the period from the beginning stands now, unless it turned bad."""
    members = [b for b in good_at_birth if b.time.timetuple()[: len(period)] == period]
    for backup in members[:1]:  # one backup a day: of the first day, or the earliest of the rest
        assert backup.backup_id in archive.stored or not archive.made[backup.backup_id].good


@pytest.mark.parametrize("seed", [31, 32, 33])
def test_five_years_under_a_clock_that_jumps(seed: int) -> None:
    random = Random(seed)
    archive = Archive()
    skew, wrong_until = timedelta(0), BEGIN
    doubted = 0
    for true_now in every(DAY):
        if true_now >= wrong_until:
            skew = timedelta(0)
            if random.random() < 1 / 40:
                skew = _jump(random)
                wrong_until = true_now + random.choice([1, 2, 6, 15]) * DAY
        client_now = true_now + skew
        archive.commit(client_now)
        problem = clock_problem(
            now=client_now,
            store_now=true_now,
            backup_times=[b.time for b in archive.stored.values()],
        )
        assert problem is not None or abs(skew) <= HOUR
        if problem is not None:
            doubted += 1
            continue
        archive.prune(client_now.date())
        archive.assert_nothing_wanted_was_ever_deleted(client_now.date())
    assert doubted > 20, "the jumps must bite"
    assert archive.prunings > 1000, "one wrong clock must not end retention for good"
    _close(archive)

    made = {b.time.date() for b in archive.made.values()}
    assert MUST_STAND & made <= archive.days()


def _jump(random: Random) -> timedelta:
    """Return how far the clock is off: minutes that are tolerated, hours, days or weeks."""
    size = random.choice([40 * timedelta(minutes=1), 5 * HOUR, 20 * HOUR, 3 * DAY, 21 * DAY])
    return size * random.choice([1, -1])


def _close(archive: Archive) -> None:
    """Take the last day's backup with a right clock, so that the end is the same for all seeds."""
    archive.commit(datetime(2025, 12, 31, 12, tzinfo=UTC))
    archive.prune(LAST_DAY)
