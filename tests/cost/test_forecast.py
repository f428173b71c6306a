"""The next twelve months, compared with figures that are calculated by hand."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta

import pytest

from prometheus_backup.cost.forecast import (
    Forecast,
    Plan,
    StoredBackup,
    forecast,
    forecast_document,
    growth_of,
    growth_text,
)
from prometheus_backup.cost.lifetimes import Workload, simulate_lifetimes
from prometheus_backup.cost.model import GIB, STRATEGIES, Usage, month
from prometheus_backup.cost.prices import PRICES
from prometheus_backup.model import Layout
from prometheus_backup.retention.policy import Candidate, Policy

DAY = timedelta(days=1)
TODAY = date(2026, 3, 15)
NIGHT = datetime(2026, 3, 15, 2, tzinfo=UTC)
BACKUP = Workload(100 * GIB, blocks=20, files=260, upload=10 * GIB)
TEN_DAYS = Policy(10, 0, 0)


def stored(ages: Sequence[float], *, grow: int = 0) -> tuple[StoredBackup, ...]:
    """Return good backups of these ages in days, each day's larger by `grow` bytes."""
    return tuple(
        StoredBackup(
            Candidate(f"backup-{NIGHT - age * DAY:%Y%m%d-%H%M%S}", NIGHT - age * DAY, good=True),
            round(100 * GIB - age * grow),
        )
        for age in ages
    )


def plan(backups: Sequence[StoredBackup], policy: Policy = TEN_DAYS, **changes: Layout) -> Plan:
    made = Plan(tuple(backups), BACKUP, 15.0, Layout.FULL, policy, TODAY)
    return replace(made, **changes)  # type: ignore[arg-type]  # only the layout


def forecast_of(planned: Plan) -> Forecast:
    return forecast(planned, strategies=STRATEGIES, usage=Usage(), prices=PRICES)


def test_the_months_are_the_next_twelve_of_the_calendar() -> None:
    months = forecast_of(plan(stored(range(10)))).months
    assert [f"{m.first:%Y-%m-%d}" for m in months] == [
        *(f"2026-{n:02}-01" for n in range(4, 13)),
        *(f"2027-{n:02}-01" for n in range(1, 4)),
    ]


def test_a_steady_repository_costs_twelve_steady_months() -> None:
    coming = forecast_of(plan(stored(range(10))))

    steady = simulate_lifetimes(TEN_DAYS)
    for strategy in STRATEGIES:
        each = month(strategy, workload=BACKUP, kept=steady, usage=Usage(), prices=PRICES)
        assert coming.total(strategy.name) == pytest.approx(12 * each.total, rel=0.01)
    for m in coming.months:
        assert m.backups == pytest.approx(10)
        assert m.stored == pytest.approx(1000 * GIB)


def test_each_month_is_larger_by_the_growth_of_its_backups() -> None:
    coming = forecast_of(plan(stored(range(60), grow=GIB)))

    assert coming.growth.bytes_per_day == GIB
    first, second = coming.months[:2]
    # On 1 April the ten kept ones are 8 to 17 days younger than today; the middle of April is 31.5.
    assert first.stored == pytest.approx(10 * (100 + 17 + 14.5 - 4.5) * GIB, rel=0.001)
    assert second.stored - first.stored == pytest.approx(10 * 30.5 * GIB, rel=0.001)
    assert second.dollars["STANDARD"] - first.dollars["STANDARD"] == pytest.approx(
        305 * PRICES["STANDARD"].gb_month, rel=0.02
    )


def test_old_backups_count_until_retention_removes_them() -> None:
    coming = forecast_of(plan(stored([0, 1, 2, 400]), Policy(30, 0, 2)))
    assert coming.months[0].backups < 31
    assert coming.months[2].backups == pytest.approx(30 + 2, abs=1)


def test_one_odd_backup_does_not_change_the_growth() -> None:
    odd = StoredBackup(Candidate("odd", NIGHT - 20 * DAY, good=True), 1)
    assert growth_of([*stored(range(60), grow=GIB), odd]).bytes_per_day == pytest.approx(
        GIB, rel=0.05
    )


@pytest.mark.parametrize(
    "backups",
    [(), stored(range(6), grow=GIB), stored(range(27), grow=GIB), stored([0, 400], grow=GIB)],
    ids=["none", "six", "of four weeks less a day", "of more than a year ago"],
)
def test_too_few_backups_show_no_growth(backups: tuple[StoredBackup, ...]) -> None:
    growth = growth_of(backups)
    assert (growth.bytes_per_day, growth.backups) == (0, 0)
    assert "too few backups show how they grow" in growth_text(forecast_of(plan(backups)))


def test_shrinking_is_not_continued() -> None:
    assert growth_of(stored(range(60), grow=-GIB)).bytes_per_day == 0


def test_backups_that_are_not_good_say_nothing_about_growth() -> None:
    bad = [
        replace(s, candidate=replace(s.candidate, good=False)) for s in stored(range(60), grow=GIB)
    ]
    assert growth_of(bad).backups == 0


@pytest.mark.parametrize(("hours", "kept"), [(1, 240), (12, 20), (24, 10), (72, 10 / 3)])
def test_backups_come_as_often_as_before(hours: int, kept: float) -> None:
    ages = [n * hours / 24 for n in range(max(30, 24 * 30 // hours))]
    coming = forecast_of(plan(stored(ages)))
    assert coming.per_day == pytest.approx(24 / hours)
    assert coming.months[5].backups == pytest.approx(kept, rel=0.06)


def test_an_archive_keeps_each_day_once() -> None:
    archive = forecast_of(plan(stored(range(10)), layout=Layout.ARCHIVE))

    # The samples of 15 + 9 days, and what ten nights uploaded beyond the samples of their day.
    samples = (15 + 9) / 15 * 100
    beyond = 10 * (10 - 100 / 15)
    for m in archive.months[2:]:
        assert m.stored == pytest.approx((samples + beyond) * GIB, rel=0.02)
        assert m.dollars["STANDARD"] == pytest.approx((samples + beyond) * 0.023, rel=0.05)
    whole = forecast_of(plan(stored(range(10))))
    for strategy in STRATEGIES:
        assert archive.total(strategy.name) < whole.total(strategy.name)


def test_a_history_keeps_the_samples_of_deleted_backups() -> None:
    policy = Policy(10, 0, 0, history=100 * DAY)
    coming = forecast_of(plan(stored(range(60)), policy, layout=Layout.ARCHIVE))
    samples, beyond = 100 / 15 * 100, 10 * (10 - 100 / 15)
    assert coming.months[-1].stored == pytest.approx((samples + beyond) * GIB, rel=0.03)


def test_hourly_backups_are_all_kept_for_a_while_only() -> None:
    policy = Policy(10, 0, 0, all_for=2 * DAY)
    coming = forecast_of(plan(stored([n / 24 for n in range(720)]), policy))
    assert coming.months[5].backups == pytest.approx(10 + 2 * 23, rel=0.05)


def test_an_empty_repository_fills_up() -> None:
    coming = forecast_of(plan((), Policy(30, 12, 3)))
    backups = [m.backups for m in coming.months]
    # 17 on 1 April, 30 from the 14th on, and that of the 1st from May on.
    assert backups[0] == pytest.approx(27.5, abs=0.5)
    assert backups == sorted(backups)
    assert 38 <= backups[-1] <= 44


def test_without_a_class_the_document_speaks_of_bytes_only() -> None:
    document = forecast_document(forecast_of(plan(stored(range(10)))), None)
    assert document["dollars"] is None
    assert {m["dollars"] for m in document["months"]} == {None}
    assert document["months"][0]["stored_bytes"] == 1000 * GIB
