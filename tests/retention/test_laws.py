"""Properties of retention for any backups, any day and any policy."""

from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, time, timedelta

from hypothesis import assume, given, settings
from hypothesis import strategies as st

from prometheus_backup.repository.layout import backup_id
from prometheus_backup.retention.policy import Candidate, Decision, Policy, decide
from tests.retention.oracle import must_keep


@dataclass(frozen=True)
class Situation:
    """The inputs of a decision."""

    backups: list[Candidate]
    today: date
    policy: Policy

    def decisions(self) -> tuple[Decision, ...]:
        """Return the decisions."""
        return decide(self.backups, today=self.today, policy=self.policy)

    def kept(self) -> set[str]:
        """Return the ids of the kept backups."""
        return {d.backup_id for d in self.decisions() if d.keep}

    def good(self) -> set[str]:
        """Return the ids of the good backups."""
        return {b.backup_id for b in self.backups if b.good}


_TIMES = st.sampled_from([time(0), time(2), time(12), time(23, 59, 59)])
_TODAYS = st.dates(date(2024, 1, 1), date(2026, 6, 30))
_POLICIES = (
    st.tuples(st.integers(0, 45), st.integers(0, 14), st.integers(0, 4))
    .filter(any)
    .map(lambda tiers: Policy(*tiers))
)


def _backups_about(today: date, policy: Policy) -> st.SearchStrategy[Candidate]:
    """Return backups near the limits of the rules, which random dates would rarely hit."""
    edges = st.sampled_from(
        [
            today,
            today - timedelta(days=policy.daily),
            _first_of_month(today, policy.monthly),
            _first_of_month(today, policy.monthly - 1),
            date(today.year - policy.yearly, 1, 1),
            date(today.year - policy.yearly + 1, 1, 1),
        ]
    )
    anywhere = st.dates(date(2020, 1, 1), date(2027, 12, 31))
    firsts = st.builds(date, st.integers(2021, 2026), st.integers(1, 12), st.just(1))
    days = st.builds(
        lambda day, shift: day + timedelta(days=shift), edges | firsts, st.integers(-2, 2)
    )
    instants = st.builds(datetime.combine, anywhere | days, _TIMES, st.just(UTC))
    until = st.none() | days
    holds = st.just(("", None)) | st.tuples(st.just("audit"), until)
    return st.builds(
        lambda t, good, hold: Candidate(backup_id(t), t, good, *hold),
        instants,
        st.booleans(),
        holds,
    )


def _first_of_month(today: date, months_ago: int) -> date:
    months = today.year * 12 + today.month - 1 - months_ago
    return date(months // 12, months % 12 + 1, 1)


@st.composite
def situations(draw: st.DrawFn) -> Situation:
    """Draw a day, a policy and up to forty backups around the limits."""
    today, policy = draw(_TODAYS), draw(_POLICIES)
    backup = _backups_about(today, policy)
    backups = draw(st.lists(backup, unique_by=lambda c: c.backup_id, max_size=40))
    return Situation(backups, today, policy)


_thorough = settings(max_examples=150, deadline=None)


@settings(max_examples=500, deadline=None)
@given(situations())
def test_decisions_equal_those_of_the_naive_oracle(now: Situation) -> None:
    assert now.kept() == must_keep(now.backups, today=now.today, policy=now.policy)


@_thorough
@given(situations())
def test_newest_good_backup_is_always_kept(now: Situation) -> None:
    assume(now.good())
    assert max(now.good()) in now.kept()


@_thorough
@given(situations())
def test_a_held_backup_is_kept_and_says_why(now: Situation) -> None:
    decisions = {d.backup_id: d for d in now.decisions()}
    for backup in now.backups:
        if backup.hold and (backup.held_until is None or now.today <= backup.held_until):
            assert decisions[backup.backup_id].keep
            assert backup.hold in decisions[backup.backup_id].reasons[0]


@_thorough
@given(situations())
def test_a_hold_changes_no_decision_on_another_backup(now: Situation) -> None:
    without = replace(now, backups=[replace(b, hold="") for b in now.backups])
    held = {b.backup_id for b in now.backups if b.is_held(now.today)}
    assert now.kept() == without.kept() | held


@_thorough
@given(situations())
def test_deciding_again_on_what_was_kept_keeps_all_of_it(now: Situation) -> None:
    kept = now.kept()
    again = replace(now, backups=[b for b in now.backups if b.backup_id in kept])
    assert again.kept() == kept


@_thorough
@given(situations(), st.data())
def test_decisions_do_not_depend_on_the_order_of_the_listing(
    now: Situation, data: st.DataObject
) -> None:
    shuffled = replace(now, backups=data.draw(st.permutations(now.backups)))
    assert shuffled.decisions() == now.decisions()


@_thorough
@given(situations(), st.data())
def test_additional_bad_backup_deletes_no_good_one(now: Situation, data: st.DataObject) -> None:
    stranger = replace(data.draw(_backups_about(now.today, now.policy)), good=False)
    assume(stranger.backup_id not in {b.backup_id for b in now.backups})
    with_it = replace(now, backups=[*now.backups, stranger])
    assert now.kept() & now.good() <= with_it.kept()


@_thorough
@given(situations(), st.integers(0, 20), st.integers(0, 20), st.integers(0, 5))
def test_raising_a_tier_deletes_no_additional_backup(
    now: Situation, daily: int, monthly: int, yearly: int
) -> None:
    narrow = now.policy
    wide = Policy(narrow.daily + daily, narrow.monthly + monthly, narrow.yearly + yearly)
    assert now.kept() <= replace(now, policy=wide).kept()


@_thorough
@given(situations(), st.integers(1, 800))
def test_what_is_deleted_today_is_not_needed_on_a_later_day(now: Situation, days: int) -> None:
    # Deletion cannot be undone, so no rule may need a backup that was deleted earlier.
    later = replace(now, today=now.today + timedelta(days=days))
    assert later.kept() <= now.kept()


@_thorough
@given(situations())
def test_what_is_dated_in_the_future_is_kept(now: Situation) -> None:
    ahead = {b.backup_id for b in now.backups if b.time.date() > now.today}
    assert ahead <= now.kept()


@_thorough
@given(situations())
def test_every_backup_gets_one_decision_with_a_reason(now: Situation) -> None:
    decisions = now.decisions()
    assert [d.backup_id for d in decisions] == sorted(b.backup_id for b in now.backups)
    for decision in decisions:
        assert decision.reasons
        assert all(reason.strip() for reason in decision.reasons)


@_thorough
@given(situations())
def test_bad_backup_represents_no_month_and_no_year(now: Situation) -> None:
    for decision in now.decisions():
        if decision.backup_id not in now.good():
            assert {tier.value for tier in decision.tiers} <= {"daily"}
