"""Wherever a command takes a backup: an id, the beginning of one, a date, or `latest`."""

from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests.support.stored_backups import LocalFiles, json_of, put_small_backup, run_here


@pytest.fixture
def files(tmp_path: Path) -> LocalFiles:
    """Backups of 1 March 02:00 and 14:00 and of 3 March."""
    files = LocalFiles(tmp_path / "repository")
    for day, hour in ((1, 2), (1, 14), (3, 2)):
        put_small_backup(files, datetime(2026, 3, day, hour, tzinfo=UTC))
    return files


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("backup-20260301-020000", "backup-20260301-020000"),
        ("backup-20260303", "backup-20260303-020000"),
        ("2026-03-01", "backup-20260301-140000"),
        ("latest", "backup-20260303-020000"),
    ],
)
def test_a_name_means_a_backup(files: LocalFiles, name: str, meant: str) -> None:
    shown = json_of(run_here("show", name, "--json", env=files.environment()))
    verified = json_of(run_here("verify", name, "--level=size", "--json", env=files.environment()))

    assert shown["backup_id"] == meant
    assert [r["backup_id"] for r in verified["results"]] == [meant]


def test_a_date_means_the_newest_good_backup_of_the_day(files: LocalFiles) -> None:
    put_small_backup(files, datetime(2026, 3, 1, 20, tzinfo=UTC), degraded=["a block is missing"])

    shown = json_of(run_here("show", "2026-03-01", "--json", env=files.environment()))

    assert shown["backup_id"] == "backup-20260301-140000"


def test_an_ambiguous_beginning_names_the_first_and_the_last(files: LocalFiles) -> None:
    done = run_here("show", "backup-202603", env=files.environment())

    assert done.returncode == 30
    assert "3 backups begin like this" in done.stderr
    assert "backup-20260301-020000" in done.stderr
    assert "backup-20260303-020000" in done.stderr


@pytest.mark.parametrize("name", ["2026-03-02", "backup-20260302"])
def test_an_absent_one_names_the_nearest_before_and_after(files: LocalFiles, name: str) -> None:
    done = run_here("show", name, env=files.environment())

    assert done.returncode == 30
    assert "the nearest: backup-20260301-140000 and backup-20260303-020000" in done.stderr


def test_a_date_for_at_means_the_end_of_that_day(files: LocalFiles, tmp_path: Path) -> None:
    command = ("restore", "latest", str(tmp_path / "target"), "--dry-run")

    same_day = run_here(*command, "--at=2026-03-01", "--json", env=files.environment())
    next_day = run_here(*command, "--at=2026-03-02", "--json", env=files.environment())
    later = run_here(*command, "--at=2026-03-10", "--json", env=files.environment())

    assert json_of(same_day)["backup_id"] == "backup-20260301-140000"
    assert "older than" not in same_day.stderr
    assert json_of(next_day)["backup_id"] == "backup-20260301-140000"
    assert "backup-20260301-140000 is 1 day older than" in next_day.stderr
    assert json_of(later)["backup_id"] == "backup-20260303-020000"
    assert "backup-20260303-020000 is 7 days older than" in later.stderr
