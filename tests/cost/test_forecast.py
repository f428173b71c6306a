"""The next twelve months, compared with figures that are calculated by hand."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta

import pytest

from prometheus_backup.cost.compaction import HOUR_MS, Compactor
from prometheus_backup.cost.forecast import (
    Forecast,
    Plan,
    StoredBackup,
    forecast,
    forecast_document,
    growth_of,
    growth_text,
    pace_of,
)
from prometheus_backup.cost.lifetimes import Archived, steady
from prometheus_backup.cost.model import GIB, STRATEGIES, Usage, month
from prometheus_backup.cost.prices import PRICES
from prometheus_backup.cost.tsdb import Tsdb, Workload
from prometheus_backup.model import Layout, ms_from_instant
from prometheus_backup.retention.policy import Candidate, Policy
from tests.support.nights import simulate_nights

DAY = timedelta(days=1)
TODAY = date(2026, 3, 15)
NIGHT = datetime(2026, 3, 15, 2, tzinfo=UTC)
BACKUP = Workload(100 * GIB, blocks=20, files=260, upload=10 * GIB)
TEN_DAYS = Policy(10, 0, 0)
FIFTEEN_DAYS = Compactor.of(timedelta(days=15))


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
    tsdb = Tsdb(
        BACKUP.size,
        FIFTEEN_DAYS,
        pace_of(backups),
        growth_of(backups).bytes_per_day,
        ms_from_instant(NIGHT) - 2 * HOUR_MS,
    )
    made = Plan(tuple(backups), BACKUP, tsdb, Layout.FULL, policy, TODAY)
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

    kept = steady(TEN_DAYS, layout=Layout.FULL, tsdb=Tsdb(BACKUP.size, FIFTEEN_DAYS), load=BACKUP)
    for strategy in STRATEGIES:
        each = month(strategy, workload=BACKUP, kept=kept, usage=Usage(), prices=PRICES)
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


def in_archive(backups: Sequence[StoredBackup]) -> tuple[StoredBackup, ...]:
    """Return the same backups in layout archive, with the blocks that they would have."""
    return tuple(
        replace(
            s,
            layout=Layout.ARCHIVE,
            blocks=FIFTEEN_DAYS.snapshot(ms_from_instant(s.candidate.time)),
        )
        for s in backups
    )


def test_an_archive_stores_what_is_new() -> None:
    whole = forecast_of(plan(stored(range(10))))
    archive = forecast_of(plan(in_archive(stored(range(10))), layout=Layout.ARCHIVE))

    nights = simulate_nights(TEN_DAYS, retention=15 * DAY, days=400, index_hours=0.5)
    share = sum(nights.ratios[-365:]) / 365
    for m in archive.months:
        assert m.stored == pytest.approx(share * 1000 * GIB, rel=0.02)
        assert m.dollars["STANDARD"] == pytest.approx(share * 1000 * 0.023, rel=0.08)
    for strategy in STRATEGIES:
        assert archive.total(strategy.name) < whole.total(strategy.name)


def test_whole_backups_stay_until_retention_removes_them_after_a_switch() -> None:
    policy = Policy(30, 3, 0)
    switched = forecast_of(plan(stored(range(200)), policy, layout=Layout.ARCHIVE)).months
    archive = forecast_of(
        plan(in_archive(stored(range(200))), policy, layout=Layout.ARCHIVE)
    ).months
    # In April, whole ones of 1 February and 1 March are left, and of 13 nights, fewer each day.
    assert switched[0].stored > 1.3 * archive[0].stored
    assert switched[6].stored == pytest.approx(archive[6].stored, rel=0.01)
    back = forecast_of(plan(in_archive(stored(range(200))), policy)).months
    whole = forecast_of(plan(stored(range(200)), policy)).months
    assert back[0].stored < whole[0].stored
    assert back[6].stored == pytest.approx(whole[6].stored)


def test_the_sizes_of_archived_blocks_are_the_real_ones() -> None:
    backups = in_archive(stored(range(10)))
    usual = forecast_of(plan(backups, layout=Layout.ARCHIVE)).months[0].stored
    sizes = {b: 30.0 * GIB for s in backups for b in s.blocks}
    made = replace(plan(backups, layout=Layout.ARCHIVE), archived=Archived(sizes=sizes))
    assert forecast_of(made).months[0].stored > 1.2 * usual
    assert forecast_of(made).months[-1].stored == pytest.approx(
        forecast_of(plan(backups, layout=Layout.ARCHIVE)).months[-1].stored
    )


def test_blocks_that_no_backup_names_are_kept_for_the_history() -> None:
    backups, night = in_archive(stored(range(10))), ms_from_instant(NIGHT)
    old = FIFTEEN_DAYS.blocks(night - night % (2 * HOUR_MS) - 60 * 24 * HOUR_MS)
    unnamed = {b: b.end_ms for b in old[-5:]}
    archived = Archived(sizes=dict.fromkeys(unnamed, 50.0 * GIB), unnamed=unnamed)

    def with_history(days: int) -> float:
        policy = Policy(10, 0, 0, history=days * DAY)
        made = plan(backups, policy, layout=Layout.ARCHIVE)
        bare = forecast_of(made).months[0].stored
        return forecast_of(replace(made, archived=archived)).months[0].stored - bare

    assert with_history(200) == pytest.approx(250 * GIB)
    assert with_history(20) == pytest.approx(0, abs=GIB)


def test_a_history_keeps_the_samples_of_deleted_backups() -> None:
    policy = Policy(10, 0, 0, history=100 * DAY)
    coming = forecast_of(plan(in_archive(stored(range(60))), policy, layout=Layout.ARCHIVE))
    nights = simulate_nights(policy, retention=15 * DAY, days=400, index_hours=0.5)
    hours = 368 + 24.7 / 2
    assert coming.months[-1].stored == pytest.approx(
        nights.archive[-1] / hours * 100 * GIB, rel=0.02
    )


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
