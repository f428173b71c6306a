"""The timeline against an independent computation: every minute is asked of every backup."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prometheus_backup.retention.policy import Policy
from prometheus_backup.spans import Span
from prometheus_backup.timeline.plan import Coverage, MissingBackup, plan_timeline

NOW = datetime(2025, 7, 20, 12, tzinfo=UTC)
DAY = timedelta(days=1)
HOUR = timedelta(hours=1)
STEP = timedelta(minutes=10)
POLICY = Policy()


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def span(start: str, end: str) -> Span:
    return Span(at(start), at(end))


def backup(time: datetime, *spans: Span, good: bool = True) -> Coverage:
    name = f"backup-{time:%Y%m%d-%H%M%S}"
    return Coverage(name, time, good, spans or (Span(time - 15 * DAY, time),))


def nightly(first: str, last: str, *, without: tuple[str, ...] = ()) -> list[Coverage]:
    """Backups at 02:00, each with 15 days of samples; `without` are beginnings of dates."""
    night, end, found = at(first) + 2 * HOUR, at(last) + DAY, []
    while night < end:
        if not f"{night:%Y-%m-%d}".startswith(without or ("never",)):
            found.append(backup(night))
        night += DAY
    return found


@st.composite
def coverages(draw: st.DrawFn) -> list[Coverage]:
    def one(number: int) -> Coverage:
        steps = st.integers(0, 60)
        begins = draw(st.lists(st.tuples(steps, st.integers(1, 20)), max_size=4))
        start = NOW - 600 * STEP
        spans = tuple(Span(start + b * STEP, start + (b + n) * STEP) for b, n in begins)
        return Coverage(f"backup-{number}", NOW - number * DAY, draw(st.booleans()), spans)

    return [one(n) for n in range(draw(st.integers(0, 5)))]


@given(coverages())
def test_stretches_and_holes_are_what_each_minute_says(backups: list[Coverage]) -> None:
    window = Span(NOW - 610 * STEP, NOW - 500 * STEP)

    timeline = plan_timeline(backups, window=window, policy=POLICY, interval=DAY, now=NOW)

    for number in range(110):
        middle = window.start + number * STEP + STEP / 2
        holding = {b.backup_id for b in backups if any(s.start <= middle < s.end for s in b.spans)}
        found = [s for s in timeline.stretches if s.span.start <= middle < s.span.end]
        assert {name for s in found for name in s.backups} == holding
        assert len(found) == bool(holding)
        in_hole = any(h.start <= middle < h.end for h in timeline.holes)
        assert in_hole is not bool(holding)


@given(coverages())
def test_the_best_backup_of_a_stretch_comes_first(backups: list[Coverage]) -> None:
    timeline = plan_timeline(backups, window=None, policy=POLICY, interval=DAY, now=NOW)

    by_name = {b.backup_id: b for b in backups}
    for stretch in timeline.stretches:
        ranks = [(by_name[n].good, by_name[n].time) for n in stretch.backups]
        assert ranks == sorted(ranks, reverse=True)


def test_nights_and_a_month_that_are_missing_are_named() -> None:
    backups = nightly(
        "2025-03-01", "2025-07-20", without=("2025-05", "2025-07-03", "2025-07-10", "2025-07-11")
    )

    timeline = plan_timeline(backups, window=None, policy=POLICY, interval=DAY, now=NOW)

    assert timeline.missing == (
        MissingBackup("month", at("2025-05-01")),
        MissingBackup("backup", at("2025-07-03T02:00")),
        MissingBackup("backup", at("2025-07-10T02:00")),
        MissingBackup("backup", at("2025-07-11T02:00")),
    )


def test_a_backup_that_is_due_since_yesterday_is_missing() -> None:
    backups = nightly("2025-07-01", "2025-07-18")

    timeline = plan_timeline(backups, window=None, policy=POLICY, interval=DAY, now=NOW)

    assert timeline.missing == (MissingBackup("backup", at("2025-07-19T02:00")),)


def test_a_year_without_a_backup_is_missing() -> None:
    backups = [backup(at("2023-01-01T02:00")), *nightly("2025-07-01", "2025-07-20")]

    timeline = plan_timeline(backups, window=None, policy=POLICY, interval=DAY, now=NOW)

    assert MissingBackup("year", at("2024-01-01")) in timeline.missing
    assert [m for m in timeline.missing if m.period == "year"] == [
        MissingBackup("year", at("2024-01-01"))
    ]


def test_a_month_of_no_backups_is_a_hole_except_for_what_the_next_backup_covers() -> None:
    backups = nightly("2025-03-01", "2025-07-20", without=("2025-05",))

    timeline = plan_timeline(backups, window=None, policy=POLICY, interval=DAY, now=NOW)

    assert timeline.holes == (
        span("2025-04-30T02:00", "2025-05-17T02:00"),
        span("2025-07-20T02:00", "2025-07-20T12:00"),
    )
    assert timeline.continuous == span("2025-05-17T02:00", "2025-07-20T02:00")


def test_what_retention_will_remove_and_what_is_then_lost_is_named() -> None:
    policy = Policy(daily=10, monthly=0, yearly=0)
    backups = nightly("2025-07-11", "2025-07-20")

    timeline = plan_timeline(backups, window=None, policy=policy, interval=DAY, now=NOW)

    assert [r.backup_id for r in timeline.removals] == [b.backup_id for b in backups[:-1]]
    first = timeline.removals[0]
    assert first.day == at("2025-07-21").date()
    assert first.lost == (span("2025-06-26T02:00", "2025-07-05T02:00"),)


@pytest.mark.parametrize("window", [None, span("2025-01-01", "2025-02-01")])
def test_an_empty_repository_has_one_hole_at_most(window: Span | None) -> None:
    timeline = plan_timeline([], window=window, policy=POLICY, interval=DAY, now=NOW)

    assert not timeline.stretches
    assert not timeline.missing
    assert not timeline.removals
    assert timeline.holes == ((window,) if window else ())
    assert timeline.continuous is None


@given(coverages())
def test_nothing_that_a_kept_backup_covers_counts_as_lost(backups: list[Coverage]) -> None:
    policy = Policy(daily=2, monthly=0, yearly=0)
    timeline = plan_timeline(backups, window=None, policy=policy, interval=DAY, now=NOW)

    removed = {r.backup_id for r in timeline.removals}
    kept = [s for b in backups if b.backup_id not in removed for s in b.spans]
    for removal in timeline.removals:
        (own,) = [b for b in backups if b.backup_id == removal.backup_id]
        for lost in removal.lost:
            middle = lost.start + (lost.end - lost.start) / 2
            assert not any(s.start <= middle < s.end for s in kept)
            assert any(s.start <= middle < s.end for s in own.spans)
