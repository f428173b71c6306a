"""What an archive keeps over months, compared with every run done one after the other."""

from datetime import UTC, date, datetime, time, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prometheus_backup.cost.simulation import Pace, simulate_backups
from prometheus_backup.model import ms_from_instant
from prometheus_backup.retention.history import HeldBlock, history
from prometheus_backup.retention.policy import Candidate, Policy, decide
from tests.cost.test_compaction import NaiveCompactor
from tests.support.nights import simulate_nights

DAY, HOUR = timedelta(days=1), timedelta(hours=1)
FIRST = date(2025, 1, 1)
BEGIN = datetime.combine(FIRST, time(), UTC)

Block = tuple[int, int, bool]


class NaiveRepository:
    """Makes a backup and applies retention at every run, with the real rules and no shortcut."""

    def __init__(self, policy: Policy, retention: timedelta) -> None:
        self.policy = policy
        self.source = NaiveCompactor(retention, ms_from_instant(BEGIN - 2 * retention - 10 * DAY))
        self.backups: dict[str, tuple[Candidate, list[Block]]] = {}
        self.held_by: dict[Block, str] = {}
        self.marked: dict[Block, datetime] = {}

    def run(self, now: datetime) -> None:
        """Make a backup, delete backups, mark blocks, and delete those marked a day ago."""
        now_ms = ms_from_instant(now)
        self.source.advance(now_ms)
        blocks = [(*b, False) for b in self.source.blocks] + [(self.source.head, now_ms, True)]
        name = f"backup-{now:%Y%m%d-%H%M%S}"
        self.backups[name] = (Candidate(name, now, good=True), blocks)
        self.held_by |= dict.fromkeys(blocks, name)
        candidates = [c for c, _ in self.backups.values()]
        for decision in decide(candidates, today=now.date(), policy=self.policy, now=now):
            if not decision.keep:
                del self.backups[decision.backup_id]
        wanted = {b for _, blocks in self.backups.values() for b in blocks}
        if self.policy.history:
            named = {str(b): b for b in self.held_by}
            held = (HeldBlock(n, b[0], b[1], self.held_by[b]) for n, b in named.items())
            since = ms_from_instant(now - self.policy.history)
            wanted |= {named[n] for n in history(held, since_ms=since)}
        for block in self.held_by.keys() - wanted:
            if now - self.marked.setdefault(block, now) > DAY:
                del self.held_by[block]

    @property
    def full_hours(self) -> float:
        """Return the hours of samples in whole copies."""
        return sum(_hours(b) for _, blocks in self.backups.values() for b in blocks)

    @property
    def archive_hours(self) -> float:
        """Return the hours of samples in the archive."""
        return sum(_hours(b) for b in self.held_by)


def _hours(block: Block) -> float:
    return (block[1] - block[0]) / 3_600_000


def policies(**changes: st.SearchStrategy[timedelta | None]) -> st.SearchStrategy[Policy]:
    return st.builds(
        Policy,
        daily=st.integers(1, 12),
        monthly=st.integers(0, 3),
        yearly=st.integers(0, 1),
        history=st.sampled_from([0, 0, 5, 20, 60]).map(lambda days: days * DAY),
        **changes,
    )


def _naive(policy: Policy, retention: timedelta, gap: timedelta, days: int) -> list[list[float]]:
    repository, pace = NaiveRepository(policy, retention), Pace(gap)
    found = []
    for number in range(days):
        for now in pace.times(FIRST + number * DAY, number):
            repository.run(now)
        found.append([repository.full_hours, repository.archive_hours])
    return found


@settings(max_examples=30, deadline=None)
@given(policy=policies(), retention=st.integers(20, 480).map(lambda hours: hours * HOUR))
def test_every_night_stores_what_the_rules_say(policy: Policy, retention: timedelta) -> None:
    nights = simulate_nights(policy, retention=retention, days=100, first=FIRST)

    for number, (full, archive) in enumerate(_naive(policy, retention, DAY, 100)):
        assert (nights.full[number], nights.archive[number]) == pytest.approx((full, archive))


@settings(max_examples=6, deadline=None)
@given(
    policy=policies(all_for=st.sampled_from([None, 12 * HOUR, 48 * HOUR])),
    retention=st.integers(2, 15).map(lambda days: days * DAY),
)
def test_frequent_backups_store_nearly_what_the_rules_say(
    policy: Policy, retention: timedelta
) -> None:
    nights = simulate_nights(policy, retention=retention, days=50, gap=4 * HOUR, first=FIRST)

    found = _naive(policy, retention, 4 * HOUR, 50)
    for mine, naive in ((nights.full, 0), (nights.archive, 1)):
        assert sum(mine[20:]) == pytest.approx(sum(n[naive] for n in found[20:]), rel=0.05)


@settings(max_examples=8, deadline=None)
@given(policy=policies(all_for=st.sampled_from([None, 12 * HOUR, 48 * HOUR])))
def test_backups_are_deleted_as_retention_decides(policy: Policy) -> None:
    lives = simulate_backups(policy, first=FIRST, days=50, pace=Pace(4 * HOUR))

    kept: dict[str, Candidate] = {}
    ends = {}
    for number in range(50):
        for now in Pace(4 * HOUR).times(FIRST + number * DAY, number):
            name = f"backup-{now:%Y%m%d-%H%M%S}"
            kept[name] = Candidate(name, now, good=True)
            for d in decide(kept.values(), today=now.date(), policy=policy, now=now):
                if not d.keep:
                    del kept[d.backup_id]
                    ends[d.backup_id] = ms_from_instant(now)
    end = ms_from_instant(BEGIN + 50 * DAY)
    for name, life in lives.items():
        late = min(life.deleted_ms, end) - ends.get(name, end)
        # Retention is simulated once a day.
        assert 0 <= late / 3_600_000 < 24


# What the archive is for


@pytest.mark.parametrize(("index_hours", "most"), [(0.0, 0.15), (0.5, 0.15), (2.0, 0.17)])
def test_thirty_nights_take_a_seventh_of_whole_copies(index_hours: float, most: float) -> None:
    nights = simulate_nights(Policy(30, 0, 0), retention=15 * DAY, days=60, index_hours=index_hours)
    assert max(nights.ratios[29:]) <= most


@pytest.mark.parametrize("index_hours", [0.0, 0.5, 2.0])
def test_the_tiers_take_two_fifths_of_whole_copies(index_hours: float) -> None:
    nights = simulate_nights(
        Policy(30, 12, 3), retention=15 * DAY, days=3 * 365, index_hours=index_hours
    )
    for year in (0, 365, 730):
        assert sum(nights.ratios[year : year + 365]) / 365 <= 0.42


def test_hourly_backups_take_little_more_than_nightly_ones() -> None:
    nightly = simulate_nights(Policy(30, 12, 3), retention=15 * DAY, days=400)
    hourly = simulate_nights(
        Policy(30, 12, 3, all_for=48 * HOUR), retention=15 * DAY, days=400, gap=HOUR
    )
    assert sum(hourly.archive[-365:]) <= 1.1 * sum(nightly.archive[-365:])


def test_a_history_costs_its_samples_once() -> None:
    nights = simulate_nights(Policy(1, 0, 0, history=100 * DAY), retention=15 * DAY, days=200)
    assert nights.archive[-1] == pytest.approx(100 * 24, rel=0.05)
