"""Repositories with backups of months and years, made without a Prometheus."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from prometheus_backup.model import FindingKind, Level, Verdict
from prometheus_backup.repository.manifest import encode
from prometheus_backup.repository.verification import RecordedFinding, Verification
from tests.support import manifests
from tests.support.stored_backups import LocalFiles, put_small_backup

DAY = timedelta(days=1)
GB = 10**9


def newest_night() -> datetime:
    """Return the newest two o'clock that has passed, in UTC."""
    now = datetime.now(UTC)
    night = now.replace(hour=2, minute=0, second=0, microsecond=0)
    return night if night <= now else night - DAY


def put_backup(
    files: LocalFiles, taken: datetime, *, size: int = GB, days: int = 15, **changes: Any
) -> str:
    """Write a backup that says that it has so many bytes and days of samples; return its id."""
    identifier = f"backup-{taken:%Y%m%d-%H%M%S}"
    begin, end = f"{taken - days * DAY:%FT%TZ}", f"{taken:%FT%TZ}"
    file = manifests.file(key=f"{identifier}/{manifests.ULID}/index", size=size)
    made = {
        "started_at": end,
        "finished_at": f"{taken + timedelta(minutes=4):%FT%TZ}",
        "min_time": begin,
        "max_time": end,
        "blocks": [manifests.block(file, min_time=begin, max_time=end)],
    }
    return put_small_backup(files, taken, **{**made, **changes})


def record(
    files: LocalFiles,
    backup: str,
    level: Level,
    verdict: Verdict,
    at: datetime,
    *,
    seconds: Mapping[str, float] | None = None,
    detail: str = "not in the repository",
) -> None:
    """Write the result of a verification."""
    finding = RecordedFinding(
        kind=FindingKind.MISSING, key=f"{backup}/{manifests.ULID}/index", detail=detail
    )
    result = Verification(
        backup_id=backup,
        level=level,
        verdict=verdict,
        verified_at=at,
        tool_version="1.0.0",
        objects=1,
        bytes_read=10,
        findings=(finding,) if verdict is Verdict.FAIL else (),
        seconds=dict(seconds or {}),
    )
    files.put(f"{backup}/verification-{level}.json", encode(result))


def healthy(root: Path) -> LocalFiles:
    """Thirty nights, the first of every month before, three drills; a TSDB that grows."""
    files, night = LocalFiles(root), newest_night()
    for age in range(30):
        put_backup(files, night - age * DAY, size=80 * GB - age * GB // 10)
    month = (night - 30 * DAY).replace(day=1)
    for _ in range(11):
        age = (night - month).days
        monthly = put_backup(files, month, size=80 * GB - age * GB // 10)
        record(files, monthly, Level.CHECKSUM, Verdict.PASS, night - 9 * DAY)
        month = (month - DAY).replace(day=1)
    for age in (0, 7, 14):
        drilled, steps = night - age * DAY, {"restore": 40.0 + age, "start": 3.2, "ask": 0.8}
        record(files, _id(drilled), Level.DRILL, Verdict.PASS, drilled + DAY / 8, seconds=steps)
    return files


def with_faults(root: Path) -> LocalFiles:
    """Nights missing, failed, degraded and unreadable, a failed drill, and long holes."""
    files, night = LocalFiles(root), newest_night()
    for age in range(30):
        if age not in (4, 5, 12):
            degraded = ["01JJ5W0B8ZC6X3M1S4T9Q2V7KD could not be read"] if age in (1, 8) else []
            put_backup(files, night - age * DAY, size=80 * GB - age * GB // 10, degraded=degraded)
    for age in (3, 9):
        record(files, _id(night - age * DAY), Level.CHECKSUM, Verdict.FAIL, night)
    record(files, _id(night - 2 * DAY), Level.DRILL, Verdict.FAIL, night, seconds={"restore": 40.1})
    for age in (90, 140, 230, 400, 800):
        put_backup(files, night - age * DAY, size=60 * GB, verified=None if age == 140 else "tsdb")
    files.put(f"{_id(night - 20 * DAY + DAY / 24)}/metadata.json", b'{"format_version": 1}')
    return files


def empty(root: Path) -> LocalFiles:
    """No backup."""
    root.mkdir(parents=True, exist_ok=True)
    return LocalFiles(root)


def _id(taken: datetime) -> str:
    return f"backup-{taken:%Y%m%d-%H%M%S}"
