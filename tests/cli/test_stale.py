"""How long ago a backup was last read whole, and when it is stale."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from prometheus_backup.cli.render import ago
from prometheus_backup.model import Level, Verdict
from prometheus_backup.repository.layout import rotation_name, verification_name
from prometheus_backup.repository.manifest import encode
from prometheus_backup.repository.verification import PartResult, Rotation, TimeRange
from tests.support.repositories import verification_of
from tests.support.stored_backups import LocalFiles, json_of, put_small_backup, run_here

DAY = timedelta(days=1)
COPIED = {"totals": {"blocks": 1, "files": 1, "bytes": 10, "uploaded_bytes": 0, "copied_bytes": 10}}
SHARED = {"totals": {**COPIED["totals"], "copied_bytes": 0, "shared_bytes": 10}}


@pytest.fixture
def files(tmp_path: Path) -> LocalFiles:
    return LocalFiles(tmp_path / "repository")


def backup(files: LocalFiles, *, days_ago: float, **changes: Any) -> str:
    taken = datetime.now(UTC) - days_ago * DAY
    finished = taken.strftime("%Y-%m-%dT%H:%M:%SZ")
    return put_small_backup(files, taken, **{"finished_at": finished, **changes})


def put_result(
    files: LocalFiles, backup: str, level: Level, *, days_ago: float, **changes: Any
) -> None:
    result = verification_of(backup, level=level, at=datetime.now(UTC) - days_ago * DAY)
    name = verification_name(level)
    files.put(f"{backup}/{name}", encode(result.model_copy(update=changes)))


def put_rotation(files: LocalFiles, backup: str, level: Level, *, passed: float | None) -> None:
    now = datetime.now(UTC)
    part = PartResult(part=1, at=now, verdict=Verdict.PASS, objects=1, bytes_read=1)
    passed_at = now - passed * DAY if passed is not None else None
    rotation = Rotation(
        backup_id=backup, level=level, parts=30, looked=(part,), passed_at=passed_at
    )
    files.put(f"{backup}/{rotation_name(level)}", encode(rotation))


def shown(files: LocalFiles, backup: str, **env: str) -> dict[str, Any]:
    document = json_of(run_here("show", backup, "--json", env=files.environment() | env))
    assert isinstance(document, dict)
    return document


def row(files: LocalFiles, backup: str, **env: str) -> str:
    lines = run_here("list", env=files.environment() | env).stdout.splitlines()
    return next(line for line in lines if line.startswith(backup))


def test_a_good_backup_that_was_not_read_for_years_is_stale(files: LocalFiles) -> None:
    old = backup(files, days_ago=3 * 365)

    assert "3.0 years ago  good, stale  " in row(files, old)
    assert shown(files, old)["stale"] is True
    assert shown(files, old)["good"] is True
    text = run_here("show", old, env=files.environment()).stdout
    assert "state                    good, stale\n" in text
    assert "last read whole          3.0 years ago (20" in text
    assert "stale: `verify` should read it every 30 days" in text
    assert run_here("list", "--state=stale", "--ids", env=files.environment()).stdout == f"{old}\n"


def test_once_read_again_it_is_not_stale(files: LocalFiles) -> None:
    old = backup(files, days_ago=3 * 365)

    run_here("verify", old, env=files.environment())

    assert "  just now   good  " in row(files, old)
    assert shown(files, old)["stale"] is False


@pytest.mark.parametrize(
    ("days_ago", "rotation", "stale"),
    [(32, "30d", False), (34, "30d", True), (98, "90d", False), (100, "90d", True)],
)
def test_the_limit_is_the_rotation_and_a_tenth(
    files: LocalFiles, days_ago: int, rotation: str, stale: bool
) -> None:
    old = backup(files, days_ago=400)
    put_result(files, old, Level.CHECKSUM, days_ago=days_ago)

    assert shown(files, old, VERIFY_ROTATION=rotation)["stale"] is stale
    assert f"{days_ago} days ago" in row(files, old, VERIFY_ROTATION=rotation)


@pytest.mark.parametrize(
    ("level", "changes", "counts"),
    [
        (Level.SIZE, {}, False),
        (Level.STORED, {}, False),
        (Level.CHECKSUM, {}, True),
        (Level.TSDB, {}, True),
        (Level.DRILL, {}, True),
        (Level.DRILL, {"part": TimeRange(start=datetime(2025, 1, 1, tzinfo=UTC), end=None)}, False),
        (Level.CHECKSUM, {"verdict": Verdict.INCONCLUSIVE}, False),
    ],
)
def test_only_what_reads_every_byte_counts(
    files: LocalFiles, level: Level, changes: dict[str, Any], counts: bool
) -> None:
    old = backup(files, days_ago=400, verified=None)
    put_result(files, old, level, days_ago=1, **changes)

    assert (shown(files, old)["last_read"] is not None) is counts
    assert shown(files, old)["stale"] is not counts


@pytest.mark.parametrize(
    ("level", "passed", "stale"),
    [
        (Level.CHECKSUM, 29, False),
        (Level.CHECKSUM, 60, True),
        (Level.CHECKSUM, None, True),
        (Level.STORED, 1, True),
    ],
)
def test_a_rotation_counts_when_every_part_has_passed(
    files: LocalFiles, level: Level, passed: float | None, stale: bool
) -> None:
    old = backup(files, days_ago=400, verified=None)
    put_rotation(files, old, level, passed=passed)

    assert shown(files, old)["stale"] is stale


@pytest.mark.parametrize(
    ("changes", "read"),
    [
        ({}, True),
        (COPIED, False),
        (SHARED, False),
        ({"verified": None}, False),
        ({"verified": "size"}, False),
    ],
)
def test_the_verification_before_the_commit_counts_if_everything_was_sent(
    files: LocalFiles, changes: dict[str, Any], read: bool
) -> None:
    new = backup(files, days_ago=5, **changes)

    assert ("5 days ago" if read else "never") in row(files, new)
    assert shown(files, new)["stale"] is False, "a rotation has not had the time yet"


def test_a_backup_that_was_never_read_becomes_stale_with_age(files: LocalFiles) -> None:
    old, older = (backup(files, days_ago=n, **COPIED) for n in (32, 34))

    assert "never      good  " in row(files, old)
    assert "never      good, stale  " in row(files, older)


@pytest.mark.parametrize(
    ("length", "text"),
    [
        (timedelta(seconds=-5), "just now"),
        (timedelta(minutes=119), "just now"),
        (timedelta(hours=2), "2 hours ago"),
        (timedelta(hours=47, minutes=59), "47 hours ago"),
        (timedelta(days=2), "2 days ago"),
        (timedelta(days=729), "729 days ago"),
        (timedelta(days=730), "2.0 years ago"),
    ],
)
def test_ages(length: timedelta, text: str) -> None:
    assert ago(length) == text
