"""Metrics of a repository, computed from real files in it."""

import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from prometheus_backup.metrics.families import FAMILIES, PREFIX
from prometheus_backup.metrics.state import repository_samples
from prometheus_backup.model import FindingKind, Level, Verdict
from prometheus_backup.repository.archive import UnwantedMark
from prometheus_backup.repository.manifest import encode
from prometheus_backup.repository.repository import Repository
from prometheus_backup.repository.verification import (
    PartResult,
    RecordedFinding,
    Rotation,
    Verification,
)
from prometheus_backup.retention.policy import Policy
from prometheus_backup.stores.local import LocalStore
from tests.support import manifests
from tests.support.archives import BLOCKS, archive_run
from tests.support.repositories import NOON, ManualClock
from tests.support.stored_backups import LocalFiles, put_small_backup

DAY = timedelta(days=1)


@pytest.fixture
def files(tmp_path: Any) -> LocalFiles:
    """Return an empty repository."""
    (tmp_path / "repository").mkdir()
    return LocalFiles(tmp_path / "repository")


def metrics_of(files: LocalFiles, *, policy: Policy | None = None) -> Mapping[str, float]:
    """Return the metrics at noon of 1 March 2025: values by name and label values."""
    repository = Repository(LocalStore(files.root), clock=ManualClock())
    view = repository.archive.view()
    samples = repository_samples(
        repository.entries(view), view.folders, policy=policy or Policy(), interval=DAY, now=NOON
    )
    for one in samples:
        assert {*one.labels} == {*FAMILIES[one.name].labels}
    return {" ".join([s.name.removeprefix(PREFIX), *(s.labels.values())]): s.value for s in samples}


def backup(files: LocalFiles, taken: datetime, *, size: int = 10, **changes: Any) -> str:
    """Store a backup of one two-hour block that ends when the backup is taken."""
    made: dict[str, Any] = {
        "started_at": _text(taken),
        "finished_at": _text(taken + timedelta(minutes=5)),
        "min_time": _text(taken - 2 * timedelta(hours=1)),
        "max_time": _text(taken),
    }
    if size != 10:
        identifier = f"backup-{taken:%Y%m%d-%H%M%S}"
        key = f"{identifier}/{manifests.ULID}/index"
        made["blocks"] = [manifests.block(manifests.file(key=key, size=size))]
    return put_small_backup(files, taken, **{**made, **changes})


def verify(
    files: LocalFiles,
    backup_id: str,
    level: Level,
    verdict: Verdict,
    at: datetime,
    *,
    seconds: Mapping[str, float] | None = None,
) -> None:
    fault = RecordedFinding(kind=FindingKind.MISSING, key="k", detail="d")
    result = Verification(
        backup_id=backup_id,
        level=level,
        verdict=verdict,
        verified_at=at,
        tool_version="1.0.0",
        objects=1,
        bytes_read=10,
        findings=(fault,) if verdict is Verdict.FAIL else (),
        seconds=dict(seconds or {}),
    )
    files.put(f"{backup_id}/verification-{level}.json", encode(result))


def _text(instant: datetime) -> str:
    return instant.isoformat().replace("+00:00", "Z")


def test_empty_repository_has_zero_counts_and_no_times(files: LocalFiles) -> None:
    found = metrics_of(files)

    assert found["good_backups"] == found["repository_size_bytes"] == 0
    assert not [name for name in found if "backup_timestamp" in name or "recoverable" in name]


def test_last_good_backup_is_the_commit_time_of_the_newest_good_one(files: LocalFiles) -> None:
    backup(files, NOON - 2 * DAY)
    good = NOON - DAY
    backup(files, good)
    backup(files, NOON, degraded=["block X is live but not in the snapshot"])

    found = metrics_of(files)

    assert found["last_good_backup_timestamp_seconds"] == good.timestamp() + 300
    assert found["last_backup_timestamp_seconds"] == NOON.timestamp() + 300
    assert found["last_backup_duration_seconds"] == 300
    assert found["last_backup_degraded_blocks"] == 1
    assert found["oldest_backup_timestamp_seconds"] == (NOON - 2 * DAY).timestamp()
    assert (found["good_backups"], found["unusable_backups degraded"]) == (2, 1)


def test_interrupted_run_counts_as_begun(files: LocalFiles) -> None:
    backup(files, NOON - DAY)
    mark = {"run_id": "r", "state": "abandoned", "started_at": _text(NOON)}
    files.put(f"backup-{NOON:%Y%m%d-%H%M%S}/incomplete.json", json.dumps(mark).encode())

    found = metrics_of(files)

    assert found["last_begun_timestamp_seconds"] == NOON.timestamp()
    assert found["last_backup_timestamp_seconds"] < NOON.timestamp()
    assert found["unfinished_backups incomplete"] == 1


def test_each_backup_counts_in_its_highest_tier_only(files: LocalFiles) -> None:
    for taken in (datetime(2025, 1, 1, 2, tzinfo=UTC), datetime(2025, 2, 1, 2, tzinfo=UTC), NOON):
        backup(files, taken)
    backup(files, NOON - 20 * DAY)

    found = metrics_of(files, policy=Policy(daily=5, monthly=2, yearly=3))

    tiers = {t: found[f"backups {t}"] for t in ("daily", "monthly", "yearly", "none")}
    assert tiers == {"daily": 0, "monthly": 2, "yearly": 1, "none": 1}


def test_recoverable_range_covers_good_backups_only(files: LocalFiles) -> None:
    backup(files, NOON - 9 * DAY, degraded=["a block is missing"])
    backup(files, NOON - 5 * DAY)
    backup(files, NOON - DAY)
    backup(files, NOON, degraded=["a block is missing"])

    found = metrics_of(files)

    oldest = NOON - 5 * DAY - timedelta(hours=2)
    assert found["oldest_recoverable_timestamp_seconds"] == oldest.timestamp()
    assert found["newest_recoverable_timestamp_seconds"] == (NOON - DAY).timestamp()


def test_median_needs_three_good_backups_before_the_newest(files: LocalFiles) -> None:
    for days, size in ((4, 100), (3, 300), (2, 110)):
        backup(files, NOON - days * DAY, size=size)
    assert "previous_backups_median_size_bytes" not in metrics_of(files)

    backup(files, NOON - DAY, size=9999, degraded=["a block is missing"])
    backup(files, NOON, size=5000)

    found = metrics_of(files)
    assert found["previous_backups_median_size_bytes"] == 110
    assert found["last_backup_size_bytes"] == 5000
    assert found["repository_size_bytes"] == 100 + 300 + 110 + 9999 + 5000


def test_blocks_in_the_archive_count_once_and_unwanted_ones_apart(files: LocalFiles) -> None:
    empty = metrics_of(files)
    assert empty["archive_size_bytes"] == empty["archive_blocks"] == 0
    assert "archive_oldest_continuous_timestamp_seconds" not in empty
    store, clock = LocalStore(files.root), ManualClock()
    hour = timedelta(hours=1)
    times = {
        manifests.ULID: (NOON - 9 * hour, NOON - 7 * hour),
        manifests.OTHER_ULID: (NOON - 2 * hour, NOON),
    }
    clock.instant = NOON - DAY
    first = archive_run(store, clock, run_id="one", contents=BLOCKS, times=times)
    previous = Repository(store, clock=clock).manifest(first)
    clock.instant = NOON
    archive_run(store, clock, run_id="two", contents=BLOCKS, times=times, previous=previous)
    full = backup(files, NOON - 2 * DAY, size=1000)

    found = metrics_of(files)

    archived = sum(
        len(files.get(k)) for k in files.all_keys() if k.startswith(tuple(previous.folders))
    )
    assert found["archive_size_bytes"] == archived
    assert found["repository_size_bytes"] == archived + 1000, full
    assert (found["archive_blocks"], found["archive_unwanted_blocks"]) == (2, 0)
    begin = (NOON - 2 * hour).timestamp()
    assert found["archive_oldest_continuous_timestamp_seconds"] == begin, "after the hole"

    folder = min(previous.folders)
    mark = UnwantedMark(run_id="pruner", marked_at=NOON)
    Repository(store, clock=clock).archive.mark(folder, mark)
    found = metrics_of(files)
    unwanted = sum(len(files.get(k)) for k in files.all_keys() if k.startswith(f"{folder}/"))
    assert found["archive_unwanted_size_bytes"] == unwanted
    assert (found["archive_blocks"], found["archive_unwanted_blocks"]) == (2, 1)


def test_folders_that_are_not_backups_are_counted_by_state(files: LocalFiles) -> None:
    files.put("backup-20250201-020000/metadata.json", b"{")
    files.put("backup-20250202-020000/metadata.json", manifests.encoded(format_version=9))
    files.put("backup-20250203-020000/metadata.json", manifests.OLD_SCRIPT)
    mark = {"run_id": "r", "state": "deleting", "started_at": "2025-02-04T02:00:00Z"}
    files.put("backup-20250204-020000/incomplete.json", json.dumps(mark).encode())

    found = metrics_of(files)

    assert found["unusable_backups unreadable"] == 1
    assert found["unusable_backups newer_format"] == 1
    assert (found["unfinished_backups deleting"], found["unfinished_backups incomplete"]) == (1, 0)


def test_failed_verification_counts_until_a_pass_clears_it(files: LocalFiles) -> None:
    one = backup(files, NOON - 2 * DAY)
    verify(files, one, Level.CHECKSUM, Verdict.FAIL, NOON - DAY)

    found = metrics_of(files)
    assert (
        found["unusable_backups verification_failed"],
        found["findings"],
        found["good_backups"],
    ) == (1, 1, 0)
    assert found["last_verification_verdict checksum fail"] == 1
    assert found["last_verification_verdict checksum pass"] == 0
    assert "last_verification_success_timestamp_seconds checksum" not in found

    verify(files, one, Level.CHECKSUM, Verdict.PASS, NOON)

    found = metrics_of(files)
    assert (
        found["unusable_backups verification_failed"],
        found["findings"],
        found["good_backups"],
    ) == (0, 0, 1)
    assert found["last_verification_verdict checksum pass"] == 1
    assert found["last_verification_success_timestamp_seconds checksum"] == NOON.timestamp()


def test_newest_result_gives_the_verdict_of_a_level(files: LocalFiles) -> None:
    first, second = backup(files, NOON - 3 * DAY), backup(files, NOON - 2 * DAY)
    verify(files, first, Level.DRILL, Verdict.PASS, NOON - DAY)
    verify(files, second, Level.DRILL, Verdict.INCONCLUSIVE, NOON)

    found = metrics_of(files)

    assert found["last_verification_verdict drill inconclusive"] == 1
    assert found["last_verification_timestamp_seconds drill"] == NOON.timestamp()
    assert found["last_verification_success_timestamp_seconds drill"] == (NOON - DAY).timestamp()


def test_drill_gives_the_duration_of_a_restore_and_of_its_steps(files: LocalFiles) -> None:
    one = backup(files, NOON - DAY)
    verify(files, one, Level.DRILL, Verdict.PASS, NOON, seconds={"restore": 90.0, "start": 10.5})

    found = metrics_of(files)

    assert found["last_drill_duration_seconds"] == 100.5
    assert found["last_drill_step_duration_seconds restore"] == 90
    assert found["last_drill_restored_bytes"] == 10


def test_failed_drill_is_counted_separately(files: LocalFiles) -> None:
    one = backup(files, NOON - DAY)
    verify(files, one, Level.DRILL, Verdict.FAIL, NOON)

    found = metrics_of(files)

    assert found["unusable_backups drill_failed"] == 1
    assert found["unusable_backups verification_failed"] == 0


def test_oldest_verification_is_that_of_the_backup_verified_longest_ago(files: LocalFiles) -> None:
    first = backup(files, NOON - 9 * DAY, verified="checksum")
    backup(files, NOON - 8 * DAY, verified="checksum")

    found = metrics_of(files)
    assert found["oldest_verification_timestamp_seconds"] == (NOON - 9 * DAY).timestamp() + 300

    verify(files, first, Level.CHECKSUM, Verdict.PASS, NOON)

    found = metrics_of(files)
    assert found["oldest_verification_timestamp_seconds"] == (NOON - 8 * DAY).timestamp() + 300
    assert found["verified_backups checksum"] == 2
    assert found["verified_backups none"] == 0


def test_each_verified_part_counts_and_the_backup_counts_when_all_have_passed(
    files: LocalFiles,
) -> None:
    one = backup(files, NOON - 9 * DAY, verified=None)

    def verify_part(*, days: int, parts_passed_at: datetime | None) -> None:
        part = PartResult(
            part=1, at=NOON - days * DAY, verdict=Verdict.PASS, objects=1, bytes_read=1
        )
        progress = Rotation(
            backup_id=one,
            level=Level.CHECKSUM,
            parts=2,
            looked=(part,),
            passed_at=parts_passed_at,
        )
        files.put(f"{one}/rotation-checksum.json", encode(progress))

    verify_part(days=2, parts_passed_at=None)
    found = metrics_of(files)
    last = (NOON - 2 * DAY).timestamp()
    assert found["last_verification_success_timestamp_seconds checksum"] == last
    assert found["verified_backups none"] == 1
    assert "oldest_verification_timestamp_seconds" not in found

    verify_part(days=0, parts_passed_at=NOON - DAY)
    found = metrics_of(files)
    assert found["last_verification_timestamp_seconds checksum"] == NOON.timestamp()
    assert found["verified_backups checksum"] == 1
    assert found["oldest_verification_timestamp_seconds"] == (NOON - DAY).timestamp()


def test_unverified_backup_is_counted_as_unverified(files: LocalFiles) -> None:
    backup(files, NOON, verified=None)

    found = metrics_of(files)

    assert found["verified_backups none"] == 1
    assert "oldest_verification_timestamp_seconds" not in found
