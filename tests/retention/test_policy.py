"""Which backups are kept: examples of every rule. Properties for any input: test_laws.py."""

from datetime import UTC, date, datetime, timedelta

import pytest

from prometheus_backup.errors import UsageError
from prometheus_backup.model import Tier
from prometheus_backup.repository.layout import backup_id, backup_time
from prometheus_backup.retention.policy import Candidate, Decision, Policy, clock_problem, decide

NOON = datetime(2025, 1, 22, 12, tzinfo=UTC)


def at(text: str, *, good: bool = True) -> Candidate:
    """Return a backup of `YYYY-MM-DD` (at 02:00) or `YYYY-MM-DD HH:MM`."""
    time = datetime.fromisoformat(text if " " in text else f"{text} 02:00").replace(tzinfo=UTC)
    return Candidate(backup_id(time), time, good)


def bad(text: str) -> Candidate:
    """Return a backup that is degraded, or that failed its last verification."""
    return at(text, good=False)


def kept(
    *candidates: Candidate, today: str, daily: int = 30, monthly: int = 12, yearly: int = 3
) -> list[str]:
    """Return the dates of kept backups, oldest first, with the time if it is not 02:00."""
    decisions = decide(
        candidates, today=date.fromisoformat(today), policy=Policy(daily, monthly, yearly)
    )
    times = [backup_time(d.backup_id) for d in decisions if d.keep]
    return [f"{t:%F}" if t.hour == 2 else f"{t:%F %H:%M}" for t in times]


def only(decisions: tuple[Decision, ...], candidate: Candidate) -> Decision:
    """Return the one decision about a backup."""
    (decision,) = [d for d in decisions if d.backup_id == candidate.backup_id]
    return decision


# A backup of the day itself, so that no other one is kept because it is the newest.
TODAY = at("2025-06-20")


def kept_on_june_20(
    *candidates: Candidate, daily: int = 30, monthly: int = 12, yearly: int = 3
) -> list[str]:
    """Return what is kept on 20 June 2025 in addition to that day's own backup."""
    everything = kept(
        *candidates, TODAY, today="2025-06-20", daily=daily, monthly=monthly, yearly=yearly
    )
    return [day for day in everything if day != "2025-06-20"]


def test_default_policy_is_thirty_days_twelve_months_three_years() -> None:
    assert Policy() == Policy(daily=30, monthly=12, yearly=3)


@pytest.mark.parametrize(
    ("day", "stays"),
    [
        ("2025-06-19", True),
        ("2025-05-22", True),  # age 29: the last of thirty days
        ("2025-05-21", False),  # age 30
        ("2025-06-01", True),
        ("2025-05-01", True),  # age 50, the 1st
        ("2024-07-01", True),  # the twelfth month, the current one counted
        ("2024-06-01", False),  # the thirteenth
        ("2025-01-01", True),
        ("2024-01-01", True),
        ("2023-01-01", True),  # the third year, the current one counted
        ("2022-01-01", False),  # the fourth
        ("2023-02-01", False),  # the 1st of a month that is too long ago
    ],
)
def test_thirty_twelve_three_keeps_what_the_table_says(day: str, *, stays: bool) -> None:
    # With backups on the 1st of each period, only its own date can keep the tested backup.
    firsts = [at(f"{day[:4]}-01-01 03:00"), at(f"{day[:7]}-01 03:00")]
    decisions = decide([at(day), *firsts, TODAY], today=date(2025, 6, 20), policy=Policy())
    assert only(decisions, at(day)).keep is stays


def test_age_counts_calendar_days_and_not_hours() -> None:
    late, early = at("2025-05-22 00:00"), at("2025-05-21 23:59")
    assert kept_on_june_20(at("2025-05-01"), late, early, at("2025-01-01")) == [
        "2025-01-01",
        "2025-05-01",
        "2025-05-22 00:00",
    ]


def test_first_and_last_second_of_the_first_day_both_count() -> None:
    before, first, last = at("2025-02-28 23:59"), at("2025-03-01 00:00"), at("2025-03-01 23:59")
    assert kept_on_june_20(at("2025-02-01"), before, first, last, at("2025-01-01")) == [
        "2025-01-01",
        "2025-02-01",
        "2025-03-01 00:00",
        "2025-03-01 23:59",
    ]


def test_day_before_a_first_does_not_represent_a_month_that_has_one() -> None:
    assert kept_on_june_20(
        at("2025-03-01"), at("2025-03-31"), at("2025-04-01"), at("2025-01-01")
    ) == [
        "2025-01-01",
        "2025-03-01",
        "2025-04-01",
    ]


def test_months_are_counted_across_the_turn_of_the_year() -> None:
    firsts = [at(f"2024-{month:02}-01") for month in range(1, 13)]
    today = at("2025-01-15")
    assert kept(*firsts, today, today="2025-01-15", yearly=0) == [
        *(f"2024-{month:02}-01" for month in range(2, 13)),
        "2025-01-15",
    ]


def test_leap_day_is_a_day_like_any_other() -> None:
    companions = at("2024-02-01"), at("2024-01-01"), at("2024-03-29")
    assert "2024-02-29" in kept(at("2024-02-29"), *companions, today="2024-03-29")  # age 29
    assert "2024-02-29" not in kept(at("2024-02-29"), *companions, today="2024-03-30")


def test_leap_day_can_represent_february() -> None:
    assert kept_on_june_20(at("2024-02-29"), at("2024-01-01"), monthly=24) == [
        "2024-01-01",
        "2024-02-29",
    ]


def test_today_may_be_a_leap_day() -> None:
    backups = at("2023-01-01"), at("2022-01-01"), at("2023-03-01"), at("2024-02-29")
    assert kept(*backups, today="2024-02-29") == [
        "2022-01-01",
        "2023-01-01",
        "2023-03-01",
        "2024-02-29",
    ]


def test_every_backup_of_the_first_is_kept() -> None:
    six_hourly = [at(f"2025-03-01 {hour:02}:00") for hour in (0, 6, 12, 18)]
    assert kept_on_june_20(*six_hourly, at("2025-01-01")) == [
        "2025-01-01",
        *(f"2025-03-01 {hour:02}:00" for hour in (0, 6, 12, 18)),
    ]


def test_every_backup_of_new_year_is_kept() -> None:
    assert kept_on_june_20(at("2024-01-01 01:00"), at("2024-01-01 13:00")) == [
        "2024-01-01 01:00",
        "2024-01-01 13:00",
    ]


def test_month_without_its_first_is_represented_by_its_earliest() -> None:
    backups = at("2025-03-04 02:00"), at("2025-03-04 14:00"), at("2025-03-09"), at("2025-01-01")
    assert kept_on_june_20(*backups) == ["2025-01-01", "2025-03-04"]


def test_year_without_new_year_is_represented_by_its_earliest() -> None:
    assert kept_on_june_20(at("2024-02-10"), at("2024-02-11"), at("2023-12-31"), monthly=1) == [
        "2023-12-31",
        "2024-02-10",
    ]


def test_degraded_backup_of_the_first_is_replaced_by_the_next_good_one() -> None:
    backups = bad("2025-03-01"), bad("2025-03-02"), at("2025-03-03"), at("2025-03-04")
    assert kept_on_june_20(*backups, at("2025-01-01")) == ["2025-01-01", "2025-03-03"]


def test_bad_backup_of_the_first_is_deleted_if_there_is_a_good_one() -> None:
    backups = bad("2025-03-01 01:00"), at("2025-03-01 07:00"), at("2025-03-02")
    assert kept_on_june_20(*backups, at("2025-01-01")) == ["2025-01-01", "2025-03-01 07:00"]


def test_degraded_new_year_is_replaced_by_the_next_good_one() -> None:
    backups = bad("2024-01-01"), at("2024-01-02"), at("2024-02-01")
    assert kept_on_june_20(*backups, monthly=1) == ["2024-01-02"]


def test_bad_backup_is_kept_by_the_daily_tier() -> None:
    assert kept_on_june_20(bad("2025-06-02"), at("2025-01-01")) == ["2025-01-01", "2025-06-02"]


def test_month_without_any_good_backup_keeps_its_earliest_bad_one_in_no_tier() -> None:
    march = [bad("2025-03-04"), bad("2025-03-05")]
    assert kept_on_june_20(*march, yearly=0) == ["2025-03-04"]
    decisions = decide([*march, TODAY], today=date(2025, 6, 20), policy=Policy(30, 12, 0))
    decision = only(decisions, march[0])
    assert decision.tiers == ()
    assert decision.reasons == ("earliest of 2025-03, which has no good backup",)


def test_year_without_any_good_backup_keeps_its_earliest_bad_one() -> None:
    assert kept_on_june_20(bad("2023-08-09"), bad("2023-09-09")) == ["2023-08-09"]


def test_bad_backup_is_deleted_as_soon_as_its_month_has_a_good_one() -> None:
    assert kept_on_june_20(bad("2025-03-04"), at("2025-03-31"), yearly=0) == ["2025-03-31"]


def test_newest_good_backup_not_dated_in_the_future_is_kept_too() -> None:
    ahead, own = at("2025-01-23"), at("2025-01-22")
    assert kept(own, ahead, today="2025-01-22", daily=0, monthly=0, yearly=1) == [
        "2025-01-22",
        "2025-01-23",
    ]
    earlier = at("2024-12-24")
    assert kept(earlier, ahead, today="2025-01-22", daily=0, monthly=0, yearly=1) == [
        "2024-12-24",
        "2025-01-23",
    ]


def test_newest_good_backup_is_kept_at_any_age() -> None:
    assert kept(at("2019-05-05"), at("2019-05-06"), today="2025-06-20") == ["2019-05-06"]


def test_newest_good_backup_is_kept_when_only_bad_ones_followed() -> None:
    backups = at("2019-05-05"), at("2019-05-06"), bad("2019-05-07"), bad("2019-05-08")
    assert kept(*backups, today="2025-06-20") == ["2019-05-06", "2019-05-08"]


def test_newest_backup_is_kept_even_if_bad() -> None:
    assert kept(bad("2019-05-05"), today="2025-06-20") == ["2019-05-05"]


def test_backup_dated_in_the_future_is_kept_outside_every_tier() -> None:
    ahead = bad("2025-06-22"), at("2025-06-23"), at("2025-06-24")
    assert kept(*ahead, today="2025-06-20", daily=0, monthly=0, yearly=1) == [
        "2025-06-22",
        "2025-06-23",
        "2025-06-24",
    ]


def test_nothing_to_decide_gives_no_decisions() -> None:
    assert decide([], today=date(2025, 6, 20), policy=Policy()) == ()


@pytest.mark.parametrize(
    ("off", "expected"),
    [
        ("daily", ["2025-01-01", "2025-04-01", "2025-06-10"]),
        ("monthly", ["2025-01-01", "2025-06-10", "2025-06-15"]),
        ("yearly", ["2025-01-01", "2025-04-01", "2025-06-10", "2025-06-15"]),
    ],
)
def test_tier_of_zero_is_off(off: str, expected: list[str]) -> None:
    backups = at("2024-05-01"), at("2025-01-01"), at("2025-04-01"), at("2025-06-10")
    tiers = {"daily": 30, "monthly": 12, "yearly": 1} | {off: 0}
    assert kept_on_june_20(*backups, at("2025-06-15"), **tiers) == expected


def test_all_three_tiers_at_zero_are_refused() -> None:
    with pytest.raises(UsageError, match="cannot use retention"):
        Policy(0, 0, 0)


@pytest.mark.parametrize("tiers", [(-1, 12, 3), (30, -1, 3), (30, 12, -1), (-30, -12, -3)])
def test_negative_tier_is_refused(tiers: tuple[int, int, int]) -> None:
    with pytest.raises(UsageError, match="negative"):
        Policy(*tiers)


@pytest.mark.parametrize("tiers", [(10**6, 0, 0), (0, 10**6, 0), (0, 0, 10**6), (0, 0, 2026)])
def test_tier_that_reaches_before_year_1_keeps_everything(
    tiers: tuple[int, int, int],
) -> None:
    backups = at("1999-01-01"), at("2025-01-01")
    decisions = decide(backups, today=date(2025, 6, 20), policy=Policy(*tiers))
    assert [d.keep for d in decisions] == [True, True]


def test_decisions_come_oldest_first() -> None:
    backups = at("2025-06-03"), at("2025-06-01"), at("2025-06-02")
    decisions = decide(backups, today=date(2025, 6, 20), policy=Policy())
    assert [d.backup_id for d in decisions] == sorted(b.backup_id for b in backups)


def test_tiers_are_named_from_the_shortest_lived_to_the_longest_lived() -> None:
    (decision,) = decide([at("2025-01-01")], today=date(2025, 1, 1), policy=Policy())
    assert decision.tiers == (Tier.DAILY, Tier.MONTHLY, Tier.YEARLY)
    assert decision.highest_tier is Tier.YEARLY


def test_backup_of_an_ordinary_day_counts_as_daily() -> None:
    backups = [at("2025-01-01"), at("2025-01-02")]
    ordinary = only(decide(backups, today=date(2025, 1, 2), policy=Policy()), backups[1])
    assert ordinary.tiers == (Tier.DAILY,)
    assert ordinary.highest_tier is Tier.DAILY


def test_backup_in_no_tier_counts_as_daily() -> None:
    (decision,) = decide([bad("2019-05-05")], today=date(2025, 1, 2), policy=Policy())
    assert decision.tiers == ()
    assert decision.highest_tier is Tier.DAILY


def test_tier_that_is_off_is_never_named() -> None:
    candidates = [at("2025-01-01"), at("2025-06-20"), at("2025-06-21")]
    decisions = decide(candidates, today=date(2025, 6, 20), policy=Policy(0, 12, 0))
    assert {tier for d in decisions for tier in d.tiers} == {Tier.MONTHLY}


def test_reasons_name_the_tier_and_the_period() -> None:
    backups = [at("2025-01-01"), at("2025-03-05"), at("2025-03-06"), TODAY]
    decisions = decide(backups, today=date(2025, 6, 20), policy=Policy())
    reasons = ["; ".join(d.reasons) for d in decisions]
    assert "monthly: made on 2025-01-01; yearly: made on 2025-01-01" in reasons[0]
    assert "monthly" in reasons[1]
    assert "2025-03" in reasons[1]
    assert "106 days old" in reasons[2]
    assert "newest good" in reasons[3]


def test_reason_for_deleting_a_bad_backup_says_that_it_is_bad() -> None:
    backups = [bad("2025-03-01"), at("2025-03-02"), TODAY]
    first = decide(backups, today=date(2025, 6, 20), policy=Policy())[0]
    assert not first.keep
    assert "not good" in first.reasons[0]


def test_clocks_an_hour_apart_are_trusted_and_a_second_more_is_not() -> None:
    for sign in (1, -1):
        store = NOON + sign * timedelta(hours=1)
        further = store + sign * timedelta(seconds=1)
        assert clock_problem(now=NOON, store_now=store, backup_times=[]) is None
        problem = clock_problem(now=NOON, store_now=further, backup_times=[])
        assert problem is not None
        assert "3,601 seconds" in problem


def test_backup_a_day_in_the_future_is_trusted_and_a_second_more_is_not() -> None:
    times = [NOON - timedelta(days=400), NOON + timedelta(days=1)]
    assert clock_problem(now=NOON, store_now=NOON, backup_times=times) is None
    times.append(NOON + timedelta(days=1, seconds=1))
    problem = clock_problem(now=NOON, store_now=NOON, backup_times=times)
    assert problem is not None
    assert "future" in problem


def test_no_backups_and_a_correct_clock_are_no_problem() -> None:
    assert clock_problem(now=NOON, store_now=NOON, backup_times=[]) is None


def test_with_retention_all_every_backup_is_kept_for_a_while_then_the_newest_of_each_day() -> None:
    now = datetime(2025, 3, 15, 12, 30, tzinfo=UTC)
    hourly = [now.replace(minute=0) - timedelta(hours=n) for n in range(24 * 10)]
    made = [Candidate(backup_id(at), at, good=at.hour != 23) for at in hourly]
    policy = Policy(daily=5, monthly=0, yearly=0, all_for=timedelta(hours=48))
    decided = decide(made, today=now.date(), policy=policy, now=now)
    kept = {d.backup_id: d.reasons[0] for d in decided if d.keep}
    young = [at for at in hourly if now - at < timedelta(hours=48)]
    assert {backup_id(at) for at in young} <= kept.keys()
    assert kept[backup_id(young[0])] == "all: 0 hours old, under 48 hours"
    # Of an older day, the newest good one: that of 22 o'clock.
    assert kept.keys() - {backup_id(at) for at in young} == {
        backup_id(datetime(2025, 3, d, 22, tzinfo=UTC)) for d in (11, 12)
    }


def test_with_retention_all_a_month_is_represented_by_one_backup() -> None:
    now = datetime(2025, 3, 15, tzinfo=UTC)
    made = [
        Candidate(backup_id(at), at, good=True)
        for at in (datetime(2025, 3, 1, hour, tzinfo=UTC) for hour in range(24))
    ]
    policy = Policy(daily=0, monthly=1, yearly=0, all_for=timedelta(hours=48))
    decided = decide(made, today=now.date(), policy=policy, now=now)
    assert [d.backup_id for d in decided if d.keep] == ["backup-20250301-230000"]
