"""Laws of retention that hold for any backups, any day and any policy."""

from dataclasses import replace
from datetime import UTC, date, datetime, time, timedelta

from hypothesis import assume, given, settings
from hypothesis import strategies as st

from prometheus_backup.layout import backup_id
from prometheus_backup.retention import Candidate, Policy, decide
from tests.retention.oracle import must_keep

_FIRST, _LAST = date(2022, 1, 1), date(2026, 6, 30)

# Plain random dates hardly ever meet a rule: firsts and their neighbours come as often.
_FIRSTS_OF_MONTHS = st.builds(
    lambda y, m: date(y, m, 1), st.integers(2022, 2026), st.integers(1, 12)
)
_NEAR_FIRSTS = st.builds(
    lambda day, shift: day + timedelta(days=shift), _FIRSTS_OF_MONTHS, st.integers(-2, 2)
)
_NEW_YEARS = st.builds(lambda y: date(y, 1, 1), st.integers(2022, 2026))
_DAYS = st.one_of(st.dates(_FIRST, _LAST), _NEAR_FIRSTS, _FIRSTS_OF_MONTHS, _NEW_YEARS)
_HOURS = st.sampled_from([time(0), time(2), time(12), time(23, 59, 59)])


@st.composite
def _candidates(draw: st.DrawFn) -> Candidate:
    instant = datetime.combine(draw(_DAYS), draw(_HOURS), UTC)
    return Candidate(backup_id(instant), instant, draw(st.booleans()))


BACKUPS = st.lists(_candidates(), unique_by=lambda c: c.backup_id, max_size=40)
POLICIES = (
    st.tuples(st.integers(0, 45), st.integers(0, 14), st.integers(0, 4))
    .filter(any)
    .map(lambda tiers: Policy(*tiers))
)
DAYS = st.one_of(_DAYS, st.dates(date(2024, 1, 1), _LAST))

_thorough = settings(max_examples=400, deadline=None)


def kept(backups: list[Candidate], today: date, policy: Policy) -> set[str]:
    """Return the ids of what stays."""
    return {d.backup_id for d in decide(backups, today=today, policy=policy) if d.keep}


def good_ids(backups: list[Candidate]) -> set[str]:
    """Return the ids of the good ones."""
    return {b.backup_id for b in backups if b.good}


@_thorough
@given(BACKUPS, DAYS, POLICIES)
def test_decisions_equal_those_of_the_naive_oracle(
    backups: list[Candidate], today: date, policy: Policy
) -> None:
    assert kept(backups, today, policy) == must_keep(backups, today=today, policy=policy)


@_thorough
@given(BACKUPS, DAYS, POLICIES)
def test_newest_good_backup_is_always_kept(
    backups: list[Candidate], today: date, policy: Policy
) -> None:
    assume(good_ids(backups))
    assert max(good_ids(backups)) in kept(backups, today, policy)


@_thorough
@given(BACKUPS, DAYS, POLICIES)
def test_deciding_again_on_what_was_kept_keeps_all_of_it(
    backups: list[Candidate], today: date, policy: Policy
) -> None:
    first = kept(backups, today, policy)
    assert kept([b for b in backups if b.backup_id in first], today, policy) == first


@_thorough
@given(BACKUPS.flatmap(lambda b: st.tuples(st.just(b), st.permutations(b))), DAYS, POLICIES)
def test_decisions_do_not_depend_on_the_order_of_the_listing(
    listings: tuple[list[Candidate], list[Candidate]], today: date, policy: Policy
) -> None:
    one, other = listings
    assert decide(one, today=today, policy=policy) == decide(other, today=today, policy=policy)


@_thorough
@given(BACKUPS, _candidates(), DAYS, POLICIES)
def test_bad_backup_that_comes_along_deletes_no_good_one(
    backups: list[Candidate], stranger: Candidate, today: date, policy: Policy
) -> None:
    assume(stranger.backup_id not in {b.backup_id for b in backups})
    with_it = [*backups, replace(stranger, good=False)]
    before = kept(backups, today, policy) & good_ids(backups)
    assert before <= kept(with_it, today, policy)


@_thorough
@given(BACKUPS, DAYS, POLICIES, st.integers(0, 20), st.integers(0, 20), st.integers(0, 5))
def test_raising_any_tier_deletes_nothing_more(
    backups: list[Candidate], today: date, policy: Policy, daily: int, monthly: int, yearly: int
) -> None:
    wider = Policy(policy.daily + daily, policy.monthly + monthly, policy.yearly + yearly)
    assert kept(backups, today, policy) <= kept(backups, today, wider)


@_thorough
@given(BACKUPS, DAYS, POLICIES, st.integers(1, 800))
def test_what_is_deleted_today_is_wanted_on_no_later_day(
    backups: list[Candidate], today: date, policy: Policy, days: int
) -> None:
    # Deletion cannot be undone, so a rule that would want a backup back later is a wrong rule.
    assert kept(backups, today + timedelta(days=days), policy) <= kept(backups, today, policy)


@_thorough
@given(BACKUPS, DAYS, POLICIES)
def test_what_is_dated_in_the_future_is_kept(
    backups: list[Candidate], today: date, policy: Policy
) -> None:
    ahead = {b.backup_id for b in backups if b.time.date() > today}
    assert ahead <= kept(backups, today, policy)


@_thorough
@given(BACKUPS, DAYS, POLICIES)
def test_every_backup_gets_one_decision_with_a_reason(
    backups: list[Candidate], today: date, policy: Policy
) -> None:
    decisions = decide(backups, today=today, policy=policy)
    assert [d.backup_id for d in decisions] == sorted(b.backup_id for b in backups)
    for decision in decisions:
        assert decision.reasons
        assert all(reason.strip() for reason in decision.reasons)


@_thorough
@given(BACKUPS, DAYS, POLICIES)
def test_bad_backup_stands_for_no_month_and_no_year(
    backups: list[Candidate], today: date, policy: Policy
) -> None:
    fate = {d.backup_id: d for d in decide(backups, today=today, policy=policy)}
    for backup in backups:
        if not backup.good:
            assert {tier.value for tier in fate[backup.backup_id].tiers} <= {"daily"}
