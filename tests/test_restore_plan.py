"""What a restore would do, and which retention keeps what it places."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from prometheus_backup.manifest import Manifest, decode_manifest
from prometheus_backup.restore_plan import RetentionNeed, plan_restore, retention_need
from tests import manifests

NOW = datetime(2025, 6, 1, 12, tzinfo=UTC)
GIB = 1024**3


def ulid(number: int) -> str:
    return f"01JJ5W0B8ZC6X3M1S4T9Q2V7{number:02d}"


def block(number: int, *, end: datetime, size: int = 10) -> dict[str, Any]:
    """A block of two hours up to `end`."""
    key = f"{manifests.BACKUP_ID}/{ulid(number)}/index"
    return manifests.block(
        manifests.file(size=size, key=key),
        ulid=ulid(number),
        min_time=(end - timedelta(hours=2)).isoformat(),
        max_time=end.isoformat(),
    )


def manifest(*blocks: dict[str, Any], **changes: Any) -> Manifest:
    data = manifests.encoded(blocks=list(blocks), **changes)
    return decode_manifest(data, backup_id=manifests.BACKUP_ID)


def test_blocks_are_placed_newest_first_whatever_their_order_in_the_manifest() -> None:
    backup = manifest(
        block(1, end=NOW - timedelta(days=2)),
        block(2, end=NOW),
        block(3, end=NOW - timedelta(days=1)),
    )

    plan = plan_restore(backup, present=frozenset(), now=NOW, pruned_within=None)

    assert [b.ulid for b in plan.place] == [ulid(2), ulid(3), ulid(1)]
    assert plan.present == ()
    assert plan.size == 30


def test_blocks_that_are_there_are_not_placed_again_and_still_count_for_retention() -> None:
    backup = manifest(block(1, end=NOW - timedelta(days=100), size=7), block(2, end=NOW, size=5))

    whole = plan_restore(backup, present=frozenset(), now=NOW, pruned_within=None)
    rest = plan_restore(backup, present=frozenset({ulid(1)}), now=NOW, pruned_within=None)

    assert [b.ulid for b in rest.place] == [ulid(2)]
    assert [b.ulid for b in rest.present] == [ulid(1)]
    assert rest.size == 5
    assert rest.need == whole.need


def _goes(*, newest: datetime, end: datetime, retention: timedelta) -> bool:
    """Prometheus' own rule, tsdb/db.go BeyondTimeRetention."""
    return newest - end >= retention


@pytest.mark.parametrize("age", [timedelta(0), timedelta(days=15), timedelta(days=700)])
@pytest.mark.parametrize("span", [timedelta(hours=2), timedelta(days=30)])
def test_the_flags_keep_the_oldest_block_when_the_first_new_one_is_written(
    age: timedelta, span: timedelta
) -> None:
    newest_end = NOW - age
    backup = manifest(block(1, end=newest_end - span), block(2, end=newest_end))

    need = retention_need(backup.blocks, now=NOW)

    assert need is not None
    first_new_block = NOW + timedelta(hours=3)
    oldest = newest_end - span
    assert not _goes(newest=first_new_block, end=oldest, retention=need.time)
    # No more than two days of slack: the flag is to be believed, not to be generous.
    assert _goes(newest=first_new_block, end=oldest, retention=need.time - timedelta(days=2))


def test_a_block_that_ends_in_the_future_moves_the_window_too() -> None:
    ahead = NOW + timedelta(days=10)
    backup = manifest(block(1, end=NOW), block(2, end=ahead))

    need = retention_need(backup.blocks, now=NOW)

    assert need is not None
    assert not _goes(newest=ahead, end=NOW, retention=need.time)


def test_no_blocks_need_no_retention() -> None:
    assert retention_need([], now=NOW) is None
    assert plan_restore(manifest(), present=frozenset(), now=NOW, pruned_within=None).need is None


@pytest.mark.parametrize(
    ("time", "flag"),
    [
        (timedelta(hours=1), "1d"),
        (timedelta(days=3), "3d"),
        (timedelta(days=3, seconds=1), "4d"),
    ],
)
def test_the_time_flag_is_rounded_up_to_whole_days(time: timedelta, flag: str) -> None:
    assert RetentionNeed(time, 1).time_flag == f"--storage.tsdb.retention.time={flag}"


@pytest.mark.parametrize(("size", "flag"), [(1, "1GB"), (GIB, "1GB"), (GIB + 1, "2GB")])
def test_the_size_flag_is_rounded_up_to_prometheus_gigabytes(size: int, flag: str) -> None:
    assert RetentionNeed(timedelta(1), size).size_flag == f"--storage.tsdb.retention.size={flag}"


def test_the_size_flag_leaves_room_for_more_than_the_blocks() -> None:
    need = retention_need(manifest(block(1, end=NOW, size=10 * GIB)).blocks, now=NOW)

    assert need is not None
    assert need.size > 11 * GIB


@pytest.mark.parametrize(
    ("changes", "pruned_within", "said"),
    [
        ({"degraded": ["block X is missing"]}, None, "degraded: block X is missing"),
        ({"verified": None}, None, "never verified"),
        ({}, timedelta(hours=48), "retention deletes this backup within 48 hours"),
    ],
)
def test_what_a_reader_must_know_is_a_warning(
    changes: dict[str, Any], pruned_within: timedelta | None, said: str
) -> None:
    plan = plan_restore(
        manifest(block(1, end=NOW), **changes),
        present=frozenset(),
        now=NOW,
        pruned_within=pruned_within,
    )

    (warning,) = plan.warnings
    assert said in warning


def test_a_good_backup_gives_no_warning() -> None:
    plan = plan_restore(
        manifest(block(1, end=NOW)), present=frozenset(), now=NOW, pruned_within=None
    )

    assert plan.warnings == ()
