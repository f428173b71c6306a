"""The verdict of the report, and the calendar of nights."""

from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest

from prometheus_backup.model import Level, Verdict
from prometheus_backup.report.nights import Mark, months, runs
from prometheus_backup.report.plan import Expected, Report, plan_report
from prometheus_backup.report.verdict import Protection
from prometheus_backup.repository.repository import Repository
from prometheus_backup.retention.policy import Policy
from prometheus_backup.stores.local import LocalStore
from tests.support.histories import DAY, empty, put_backup, record
from tests.support.repositories import ManualClock
from tests.support.stored_backups import LocalFiles

NOW = datetime(2026, 3, 31, 9, tzinfo=UTC)
NIGHT = datetime(2026, 3, 31, 2, tzinfo=UTC)


@pytest.fixture
def files(tmp_path: Path) -> LocalFiles:
    return empty(tmp_path / "repository")


def report_of(files: LocalFiles, *, now: datetime = NOW) -> Report:
    repository = Repository(LocalStore(files.root), clock=ManualClock())
    return plan_report(
        repository.entries(),
        repository=repository.url,
        expected=Expected(Policy(), DAY, 30 * DAY),
        storage_class=None,
        now=now,
    )


def test_without_a_backup_nothing_is_protected(files: LocalFiles) -> None:
    verdict = report_of(files).verdict
    assert verdict.protection is Protection.UNPROTECTED
    assert verdict.reasons == ("there is no good backup",)
    assert verdict.since is None


def test_protected_since_the_first_night_after_the_last_gap(files: LocalFiles) -> None:
    for age in (0, 1, 2, 5, 6):
        put_backup(files, NIGHT - age * DAY)

    verdict = report_of(files).verdict
    assert verdict.protection is Protection.PROTECTED
    assert verdict.since == NIGHT - 2 * DAY


def test_not_protected_since_the_next_backup_was_due(files: LocalFiles) -> None:
    put_backup(files, NIGHT - 3 * DAY)

    verdict = report_of(files).verdict
    assert verdict.protection is Protection.UNPROTECTED
    assert verdict.since == NIGHT - 1.5 * DAY
    assert verdict.reasons[0].startswith("the newest good backup is 3 days old: backup-")


@pytest.mark.parametrize(
    ("level", "reason"),
    [
        (Level.CHECKSUM, "1 backup failed verification"),
        (Level.DRILL, "1 backup failed a drill"),
    ],
)
def test_a_failure_is_a_problem(files: LocalFiles, level: Level, reason: str) -> None:
    put_backup(files, NIGHT)
    old = put_backup(files, NIGHT - DAY)
    record(files, old, level, Verdict.FAIL, NIGHT)

    verdict = report_of(files).verdict
    assert verdict.protection is Protection.PROBLEMS
    assert reason in verdict.reasons


def test_what_is_degraded_unreadable_or_unverified_is_a_problem(files: LocalFiles) -> None:
    put_backup(files, NIGHT - DAY, verified=None)
    put_backup(files, NIGHT, degraded=["a block is gone"])
    files.put("backup-20260330-030000/metadata.json", b'{"format_version": 1, "blocks": 7}')

    assert report_of(files).verdict.reasons[1:] == (
        "1 backup cannot be read",
        "the newest backup is degraded: blocks of the source are missing",
        "the newest good backup was never verified",
    )


def test_a_backup_dated_in_the_future_protects_nothing(files: LocalFiles) -> None:
    put_backup(files, NIGHT - 10 * DAY)
    put_backup(files, NIGHT + 100 * DAY)

    verdict = report_of(files).verdict
    assert verdict.protection is Protection.UNPROTECTED
    assert "1 backup dated in the future: a clock was wrong" in verdict.reasons


def test_each_night_shows_its_state_and_the_age_of_its_verification(files: LocalFiles) -> None:
    put_backup(files, NIGHT)
    old = put_backup(files, NIGHT - 50 * DAY)
    put_backup(files, NIGHT - 400 * DAY)
    put_backup(files, NIGHT - 2 * DAY, degraded=["a block is gone"])
    record(files, old, Level.TSDB, Verdict.FAIL, NIGHT - DAY)
    put_backup(files, NIGHT - 60 * DAY)
    put_backup(files, NIGHT - 3 * DAY, verified=None)

    days = {d.day: d.mark for month in report_of(files).months for d in month.days}
    assert days[date(2026, 3, 31)] is Mark.RECENT
    assert days[date(2026, 3, 30)] is Mark.MISSING
    assert days[date(2026, 3, 29)] is Mark.DEGRADED
    assert days[date(2026, 3, 28)] is Mark.OLD
    assert days[date(2026, 2, 9)] is Mark.FAILED
    assert days[date(2026, 1, 30)] is Mark.STALE
    assert days[date(2025, 2, 24)] is Mark.OLD
    assert days[date(2025, 6, 1)] is Mark.NONE


def test_a_failed_backup_is_not_missing_too(files: LocalFiles) -> None:
    put_backup(files, NIGHT)
    failed = put_backup(files, NIGHT - DAY)
    put_backup(files, NIGHT - 2 * DAY)
    record(files, failed, Level.CHECKSUM, Verdict.FAIL, NIGHT)

    report = report_of(files)
    assert report.timeline.missing == ()
    assert [f.backup_id for f in report.failures] == [failed]


def test_a_day_with_several_backups_shows_the_worst(files: LocalFiles) -> None:
    put_backup(files, NIGHT)
    put_backup(files, NIGHT + timedelta(hours=1), degraded=["a block is gone"])

    (day,) = [d for m in report_of(files).months for d in m.days if d.mark is not Mark.NONE]
    assert day.mark is Mark.DEGRADED
    assert day.text.startswith("2 backups, the worst: degraded")


def test_months_are_whole_weeks_and_empty_neighbours_stand_together(files: LocalFiles) -> None:
    put_backup(files, NIGHT)
    put_backup(files, NIGHT - 200 * DAY)

    shown = report_of(files).months
    assert shown == months(
        Repository(LocalStore(files.root), clock=ManualClock()).entries(),
        report_of(files).timeline.missing,
        rotation=30 * DAY,
        now=NOW,
    )
    for month in shown:
        assert all(len(week) == 7 for week in month.weeks)
        for week in month.weeks:
            assert all(d is None or d.day.weekday() == place for place, d in enumerate(week))
    assert [len(run) for run in runs(shown)] == [1, 5, 1]
