"""Five simulated years of backups and prunes, each decision compared with the oracle.

Pruned backups stay deleted, so a wrong decision affects all later nights. What must exist at the
end is calculated here from the calendar alone.
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
EXPECTED_DAYS = {*FIRSTS_OF_MONTHS, *FIRSTS_OF_YEARS, *LAST_THIRTY_DAYS}


class Archive:
    """A repository with the default policy, which remembers every backup ever made."""

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

    def mark_bad(self, backup: Candidate) -> None:
        """Make a stored backup a bad one."""
        worse = replace(backup, good=False)
        self.made[backup.backup_id] = self.stored[backup.backup_id] = worse

    def prune(self, today: date) -> None:
        """Decide, compare the decisions with the oracle, delete."""
        decisions = decide(self.stored.values(), today=today, policy=self.policy)
        expected = must_keep(self.stored.values(), today=today, policy=self.policy)
        newest_good = max((b.backup_id for b in self.stored.values() if b.good), default=None)

        for decision in decisions:
            if not decision.keep:
                del self.stored[decision.backup_id]

        self.prunings += 1
        assert self.stored.keys() == expected, f"on {today}"
        assert newest_good is None or newest_good in self.stored, f"on {today}"

    def assert_no_needed_backup_was_deleted(self, today: date) -> None:
        """Compare with a repository in which no backup was ever deleted.

        Valid only if no good backup turns bad: then every backup that the rules keep today was also
        kept on every earlier day. Runs on a few days of each month because it is slow.
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
        archive.assert_no_needed_backup_was_deleted(now.date())
    assert archive.days() == EXPECTED_DAYS
    assert len(archive.stored) == 30 + 12 + 2  # 1 January 2025 is both a month's and a year's


def test_five_years_of_six_hourly_backups() -> None:
    archive = Archive()
    for now in every(6 * HOUR):
        archive.commit(now)
        archive.prune(now.date())
        if now.hour == 2:
            archive.assert_no_needed_backup_was_deleted(now.date())
    assert archive.days() == EXPECTED_DAYS
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
        archive.assert_no_needed_backup_was_deleted(now.date())
    _close(archive)

    made = sorted(b.time.date() for b in archive.made.values())
    for first in FIRSTS_OF_MONTHS:
        in_month = [day for day in made if (day.year, day.month) == (first.year, first.month)]
        assert set(in_month[:1]) <= archive.days()
    for first in FIRSTS_OF_YEARS:
        assert set([day for day in made if day.year == first.year][:1]) <= archive.days()
    assert set(LAST_THIRTY_DAYS) & set(made) <= archive.days()
    assert len(archive.made) < 1700, "the outages must have an effect"


@pytest.mark.parametrize("seed", [21, 22, 23])
def test_five_years_of_degraded_backups_and_failing_verifications(seed: int) -> None:
    random = Random(seed)
    archive = Archive()
    good_when_made: list[Candidate] = []
    chance_of_bad = 0.2
    for now in every(DAY):
        if random.random() < 1 / 30:  # a new spell: no bad backups, some, or nearly all
            chance_of_bad = random.choice([0.0, 0.2, 0.9])
        backup = archive.commit(now, good=random.random() >= chance_of_bad)
        if backup.good:
            good_when_made.append(backup)
        if random.random() < 1 / 40:
            archive.mark_bad(random.choice(list(archive.stored.values())))
        archive.prune(now.date())
    _close(archive)

    for first in FIRSTS_OF_MONTHS:
        _assert_period_is_kept(archive, good_when_made, (first.year, first.month))
    for first in FIRSTS_OF_YEARS:
        _assert_period_is_kept(archive, good_when_made, (first.year,))
    assert set(LAST_THIRTY_DAYS) <= archive.days(), "the daily tier keeps bad ones too"
    assert len(good_when_made) < 1700, "the degraded spells must have an effect"


def _assert_period_is_kept(
    archive: Archive, good_when_made: list[Candidate], period: tuple[int, ...]
) -> None:
    """Assert that the first representative of the period is still kept, unless it turned bad."""
    members = [b for b in good_when_made if b.time.timetuple()[: len(period)] == period]
    for backup in members[:1]:  # one backup a day: of the first day, or the earliest of the rest
        assert backup.backup_id in archive.stored or not archive.made[backup.backup_id].good


@pytest.mark.parametrize("seed", [31, 32, 33])
def test_five_years_under_a_clock_that_jumps(seed: int) -> None:
    random = Random(seed)
    archive = Archive()
    skew, wrong_until = timedelta(0), BEGIN
    refused = 0
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
            refused += 1
            continue
        archive.prune(client_now.date())
        archive.assert_no_needed_backup_was_deleted(client_now.date())
    assert refused > 20, "the jumps must have an effect"
    assert archive.prunings > 1000, "one wrong clock must not stop retention forever"
    _close(archive)

    made = {b.time.date() for b in archive.made.values()}
    assert EXPECTED_DAYS & made <= archive.days()


def _jump(random: Random) -> timedelta:
    """Return the error of a clock: minutes (which are tolerated), hours, days or weeks."""
    size = random.choice([40 * timedelta(minutes=1), 5 * HOUR, 20 * HOUR, 3 * DAY, 21 * DAY])
    return size * random.choice([1, -1])


def _close(archive: Archive) -> None:
    """Make the last day's backup with a correct clock, so that all seeds end the same way."""
    archive.commit(datetime(2025, 12, 31, 12, tzinfo=UTC))
    archive.prune(LAST_DAY)
