"""What a restore would do, and what retention would delete afterwards."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from prometheus_backup.model import rfc3339
from prometheus_backup.prometheus.retention import TsdbRetention
from prometheus_backup.repository.manifest import Manifest, decode_manifest
from prometheus_backup.restore.placement import TimeRange
from prometheus_backup.restore.plan import (
    WHOLE_BACKUP,
    RestorePlan,
    RestoreRequest,
    TargetView,
    plan_restore,
)
from prometheus_backup.restore.target_blocks import NO_BLOCKS, TargetBlock, TargetBlocks
from prometheus_backup.spans import Span
from tests.support import manifests
from tests.support.blocks import ulid

NOW = datetime(2025, 6, 1, 12, tzinfo=UTC)
DAY = timedelta(days=1)
EMPTY = TargetView(NO_BLOCKS)


def block(number: int, *, end: datetime, size: int = 10) -> dict[str, Any]:
    """A two-hour block that ends at `end`."""
    key = f"{manifests.BACKUP_ID}/{ulid(number)}/index"
    return manifests.block(
        manifests.file(size=size, key=key),
        ulid=ulid(number),
        min_time=(end - timedelta(hours=2)).isoformat(),
        max_time=end.isoformat(),
        sources=[ulid(number)],
    )


def existing(number: int, *, end: datetime, size: int = 10) -> TargetBlock:
    return TargetBlock(ulid(number), end - timedelta(hours=2), end, (ulid(number),), size=size)


def manifest(*blocks: dict[str, Any], **changes: Any) -> Manifest:
    data = manifests.encoded(blocks=list(blocks), **changes)
    return decode_manifest(data, backup_id=manifests.BACKUP_ID)


def target(*blocks: TargetBlock, retention: TsdbRetention, head_size: int = 0) -> TargetView:
    return TargetView(TargetBlocks(blocks), retention, "the target", head_size)


def plan(
    backup: Manifest, view: TargetView = EMPTY, request: RestoreRequest = WHOLE_BACKUP
) -> RestorePlan:
    return plan_restore(backup, view, request, now=NOW)


def test_present_blocks_are_not_placed_again_but_count_for_retention() -> None:
    backup = manifest(block(1, end=NOW - 100 * DAY, size=7), block(2, end=NOW, size=5))
    there = TargetView(TargetBlocks((existing(1, end=NOW - 100 * DAY, size=7),)))

    rest = plan(backup, there)

    assert [b.ulid for b in rest.place] == [ulid(2)]
    assert [b.ulid for b in rest.present] == [ulid(1)]
    assert rest.size == 5
    assert rest.need == plan(backup).need


def test_an_empty_target_is_planned_with_the_retention_of_the_source() -> None:
    backup = manifest(block(1, end=NOW - 20 * DAY), block(2, end=NOW), retention_time="15d")

    found = plan(backup)

    assert found.loses_restored == (ulid(1),)
    assert found.keeps_from == NOW - 20 * DAY
    assert found.retention_of == "the Prometheus that was backed up"


def test_blocks_that_become_too_old_with_the_next_new_block_are_predicted() -> None:
    backup = manifest(block(1, end=NOW - 20 * DAY), block(2, end=NOW - 18 * DAY))

    found = plan(backup, target(retention=TsdbRetention(15 * DAY)))

    assert set(found.loses_restored) == {ulid(1), ulid(2)}
    assert plan(backup, target(retention=TsdbRetention(30 * DAY))).loses_restored == ()


def test_copies_that_undo_deletions_count_for_retention_and_space() -> None:
    backup = manifest(block(1, end=NOW))
    old = existing(2, end=NOW - DAY)
    deleted = replace(existing(1, end=NOW), deletions=True)
    view = target(old, deleted, retention=TsdbRetention(size=25))

    found = plan(backup, view, RestoreRequest(undelete=True))

    assert found.size == 10
    assert found.loses_existing == (ulid(2),)
    assert plan(backup, view).loses_existing == ()


def test_retention_keeps_the_range_that_the_plan_suggests() -> None:
    backup = manifest(*(block(n, end=NOW - n * DAY) for n in range(30)))
    view = target(retention=TsdbRetention(15 * DAY))

    lossy = plan(backup, view)
    rest = plan(backup, view, RestoreRequest(TimeRange(lossy.keeps_from)))

    assert lossy.loses_restored
    assert rest.place
    assert rest.loses_restored == ()


def test_existing_blocks_that_retention_would_delete_are_listed() -> None:
    old = [existing(n, end=NOW - 40 * DAY - n * DAY) for n in (1, 2)]
    backup = manifest(block(9, end=NOW - DAY))

    by_time = plan(backup, target(*old, retention=TsdbRetention(15 * DAY)))
    by_size = plan(backup, target(*old, retention=TsdbRetention(size=25)))

    assert set(by_time.loses_existing) == {ulid(1), ulid(2)}
    assert set(by_size.loses_existing) == {ulid(1), ulid(2)}, "now, and with the next block"
    assert plan(backup, target(*old, retention=TsdbRetention())).loses_existing == ()


def test_blocks_that_retention_deletes_anyway_are_only_a_warning() -> None:
    there = [existing(1, end=NOW - 16 * DAY), existing(2, end=NOW)]

    found = plan(
        manifest(block(3, end=NOW - DAY)), target(*there, retention=TsdbRetention(15 * DAY))
    )

    assert found.loses_existing == ()
    (warning,) = found.warnings
    assert "will delete 1 existing blocks of the target soon, with or without" in warning


def test_the_head_counts_for_size_retention() -> None:
    there = [existing(1, end=NOW - 2 * DAY, size=100)]
    backup = manifest(block(3, end=NOW - DAY, size=100))

    def loses(head_size: int) -> bool:
        view = target(*there, retention=TsdbRetention(size=400), head_size=head_size)
        return bool(plan(backup, view).loses_existing)

    assert not loses(0)
    assert loses(250)


def test_remaining_gaps_are_listed_from_the_oldest_block_to_now() -> None:
    backup = manifest(
        block(1, end=NOW - timedelta(hours=8)), block(2, end=NOW - timedelta(hours=4))
    )
    view = TargetView(TargetBlocks((), frozenset(), NOW - timedelta(hours=1)))

    assert plan(backup, view).gaps == (
        Span(NOW - timedelta(hours=8), NOW - timedelta(hours=6)),
        Span(NOW - timedelta(hours=4), NOW - timedelta(hours=1)),
    )


def test_gaps_are_limited_to_the_requested_range() -> None:
    backup = manifest(block(1, end=NOW - 3 * DAY), block(2, end=NOW))
    request = RestoreRequest(TimeRange(NOW - timedelta(hours=5), NOW))

    (gap,) = plan(backup, EMPTY, request).gaps

    assert gap == Span(NOW - timedelta(hours=5), NOW - timedelta(hours=2))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"degraded": ["block X is missing"]}, "degraded: block X is missing"),
        ({"verified": None}, "not verified when it was made"),
    ],
)
def test_a_degraded_or_unverified_backup_is_reported(changes: dict[str, Any], message: str) -> None:
    (warning,) = plan(manifest(block(1, end=NOW), **changes)).warnings

    assert message in warning


def test_the_callers_warnings_are_in_the_plan_and_a_good_backup_has_none() -> None:
    backup = manifest(block(1, end=NOW))

    assert plan(backup).warnings == ()
    found = plan_restore(backup, EMPTY, WHOLE_BACKUP, now=NOW, extra_warnings=["it rains"])
    assert found.warnings == ("it rains",)


def test_retention_that_cannot_be_parsed_is_a_warning() -> None:
    backup = manifest(block(1, end=NOW), retention_time="15d or most")

    (warning,) = plan(backup).warnings

    assert "'most'" in warning
    assert rfc3339(NOW) not in warning


def test_a_backup_without_blocks_needs_no_retention() -> None:
    assert plan(manifest()).need is None
    assert plan(manifest()).gaps == ()
