"""How each bad block is repaired: every remedy, and what prevents the use of a copy."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import pytest

from prometheus_backup.heal.plan import (
    DEFAULT_REQUEST,
    BadBlock,
    BlockCopy,
    CandidateBlocks,
    HealRequest,
    Remedy,
    Repair,
    plan_heal,
    worst,
)
from prometheus_backup.repository.manifest import Block
from prometheus_backup.restore.target_blocks import TargetBlock, TargetBlocks
from prometheus_backup.spans import Span
from prometheus_backup.tsdb.faults import Effect, FaultKind
from tests.support.blocks import DAY, HOUR, block, existing, ulid


def span(begin: float = 0, end: float = 2) -> Span:
    return Span(DAY + begin * HOUR, DAY + end * HOUR)


def bad(number: int = 1, effect: Effect = Effect.STOPS_START, **fields: Any) -> BadBlock:
    own: dict[str, Any] = {"ulid": ulid(number), "span": span(), "sources": (ulid(number),)}
    return BadBlock(ulid(number), effect, **(own | fields))


def backup(*blocks: Block, name: str = "newest") -> CandidateBlocks:
    return CandidateBlocks(name, blocks)


def heal(
    bad_block: BadBlock,
    *candidates: CandidateBlocks,
    sound: Sequence[TargetBlock] = (),
    request: HealRequest = DEFAULT_REQUEST,
    memory_from: datetime | None = None,
) -> Repair:
    """The repair of one bad block."""
    (repair,) = plan_heal(
        [bad_block], TargetBlocks(tuple(sound), memory_from=memory_from), candidates, request
    ).repairs
    return repair


def copies(repair: Repair) -> list[tuple[str, str]]:
    return [(c.backup_id, c.block.ulid) for c in repair.copies]


def test_the_first_backup_that_has_the_block_is_used() -> None:
    repair = heal(bad(), backup(block(2, 2, 4)), backup(block(1), name="older"), backup(block(1)))

    assert (repair.remedy, copies(repair)) == (Remedy.REPLACE, [("older", ulid(1))])
    assert repair.heals


def test_a_copy_that_turned_out_unsound_is_skipped() -> None:
    request = HealRequest(unsound=frozenset({BlockCopy("newest", ulid(1))}))

    repair = heal(bad(), backup(block(1)), backup(block(1), name="older"), request=request)

    assert copies(repair) == [("older", ulid(1))]


@pytest.mark.parametrize(
    ("version", "remedy"),
    [("", Remedy.REPLACE), ("3.12.0", Remedy.REPLACE), ("3.5.3", Remedy.LEAVE)],
)
def test_a_copy_that_the_running_prometheus_cannot_read_is_not_used(
    version: str, remedy: Remedy
) -> None:
    newer = block(1).model_copy(update={"encodings": {"xor": 1, "xor2": 2}})
    larger = block(7, 0, 4).model_copy(update={"encodings": {"xor2": None}})
    served = bad(effect=Effect.FAILS_QUERIES)

    (repair,) = plan_heal(
        [served], TargetBlocks(version=version), [backup(newer, larger)], DEFAULT_REQUEST
    ).repairs

    assert repair.remedy is remedy
    needs = "the block in newest has xor2 chunks, which Prometheus can read since 3.11"
    assert (needs in repair.reason) is (remedy is Remedy.LEAVE)


@pytest.mark.parametrize("effect", Effect)
def test_without_a_backup_served_blocks_stay_and_others_are_moved_away(effect: Effect) -> None:
    repair = heal(bad(effect=effect))

    expected = {
        Effect.STOPS_START: Remedy.MOVE_AWAY,
        Effect.HIDES_DATA: Remedy.MOVE_AWAY,
        Effect.NONE: Remedy.NOTHING,
    }.get(effect, Remedy.LEAVE)
    assert repair.remedy is expected
    assert repair.heals is (effect is Effect.NONE)
    assert repair.moves is (expected is Remedy.MOVE_AWAY)
    assert repair.gaps == ((span(),) if expected is Remedy.MOVE_AWAY else ())


def test_a_block_that_is_served_is_moved_away_with_without_copy() -> None:
    repair = heal(bad(effect=Effect.FAILS_QUERIES), request=HealRequest(without_copy=True))

    assert (repair.remedy, repair.heals) == (Remedy.MOVE_AWAY, False)


def test_a_block_that_can_be_rebuilt_without_loss_needs_no_backup() -> None:
    assert heal(bad(lossless_rebuild=True), backup(block(1))).remedy is Remedy.REBUILD


def test_a_block_that_a_backup_restores_better_is_rebuilt_only_without_one() -> None:
    bad_block = bad(effect=Effect.HIDES_DATA, rebuildable=True)

    assert heal(bad_block, backup(block(1))).remedy is Remedy.REPLACE
    assert heal(bad_block).remedy is Remedy.REBUILD
    request = HealRequest(unsound=frozenset({BlockCopy("", ulid(1))}))
    assert heal(bad_block, request=request).remedy is Remedy.MOVE_AWAY


def test_a_bad_parent_of_a_sound_block_is_left_to_prometheus() -> None:
    child = existing(9, sources=(1, 2), parents=(1, 2))

    assert heal(bad(), backup(block(1)), sound=[child]).remedy is Remedy.NOTHING


def test_a_block_whose_samples_are_in_others_is_dropped() -> None:
    grandchild = existing(9, 0, 6, sources=(1, 2, 3), parents=(7, 8))

    repair = heal(bad(), backup(block(1)), sound=[grandchild])

    assert (repair.remedy, repair.heals, repair.copies) == (Remedy.DROP, True, ())
    unreadable = bad(ulid="", span=None, sources=())
    assert heal(unreadable, sound=[grandchild]).remedy is Remedy.DROP


def test_a_sound_block_under_a_wrong_name_is_renamed_unless_its_name_is_taken() -> None:
    wrong = bad(5, Effect.MISLEADS, ulid=ulid(1), sources=(ulid(1),), misnamed=True)

    assert heal(wrong).remedy is Remedy.RENAME
    assert heal(wrong, sound=[existing(1)]).remedy is Remedy.DROP


def test_a_bad_block_is_replaced_by_the_sound_one_under_a_wrong_name() -> None:
    wrong = bad(5, Effect.MISLEADS, ulid=ulid(1), sources=(ulid(1),), misnamed=True)

    first, second = plan_heal(
        [bad(1), wrong], TargetBlocks(()), [backup(block(1))], DEFAULT_REQUEST
    ).repairs

    assert (first.bad.name, first.remedy) == (ulid(1), Remedy.DROP)
    assert (second.bad.name, second.remedy) == (ulid(5), Remedy.RENAME)


def test_blocks_of_several_backups_cover_a_block_without_a_copy() -> None:
    bad_block = bad(span=span(0, 6))
    newer, older = (
        backup(block(4, 4, 6), block(3, 8, 10)),
        backup(block(2, 0, 4), name="older"),
    )

    repair = heal(bad_block, newer, older)

    assert (repair.remedy, repair.heals) == (Remedy.COVER, True)
    assert copies(repair) == [("newest", ulid(4)), ("older", ulid(2))]


def test_a_partly_covered_block_is_replaced_only_if_none_of_it_is_served() -> None:
    half = backup(block(2, 0, 1))

    stopper = heal(bad(), half)
    served = heal(bad(effect=Effect.FAILS_QUERIES), half)
    asked = heal(bad(effect=Effect.FAILS_QUERIES), half, request=HealRequest(without_copy=True))

    assert (stopper.remedy, stopper.gaps) == (Remedy.COVER, (span(1, 2),))
    assert not stopper.heals
    assert (served.remedy, served.copies) == (Remedy.LEAVE, ())
    assert asked.remedy is Remedy.COVER


def test_a_block_that_ends_after_the_start_of_the_head_is_not_used_as_cover() -> None:
    bad_block, cover = bad(span=span(0, 2)), backup(block(2, 0, 3))

    assert heal(bad_block, cover).remedy is Remedy.COVER
    assert heal(bad_block, cover, memory_from=DAY + 2 * HOUR).remedy is Remedy.MOVE_AWAY


def test_a_block_whose_samples_are_present_already_is_not_used_as_cover() -> None:
    child = existing(9, 0, 8, sources=(2, 3))

    assert heal(bad(), backup(block(2)), sound=[child]).remedy is Remedy.MOVE_AWAY


def test_deleted_series_do_not_come_back_unless_undelete_is_set() -> None:
    bad_block, cover = bad(deletions=True), backup(block(2))

    assert heal(bad_block, cover).remedy is Remedy.MOVE_AWAY
    assert heal(bad_block, cover, request=HealRequest(undelete=True)).remedy is Remedy.COVER


def test_a_rebuild_that_loses_deletions_needs_undelete() -> None:
    bad_block = bad(
        effect=Effect.STOPS_START, deletions=True, rebuildable=True, loses_deletions=True
    )

    assert heal(bad_block).remedy is Remedy.MOVE_AWAY
    assert heal(bad_block, request=HealRequest(undelete=True)).remedy is Remedy.REBUILD


def test_a_head_block_that_was_never_loaded_does_not_drop_samples_in_memory() -> None:
    odd_end = backup(block(1, 0, 2.0001))

    never_loaded = heal(bad(), odd_end, memory_from=DAY + HOUR)
    loaded = heal(bad(effect=Effect.FAILS_QUERIES), odd_end, memory_from=DAY + HOUR)
    own = heal(bad(), backup(block(1, 0, 2)), memory_from=DAY + HOUR)

    assert never_loaded.remedy is Remedy.MOVE_AWAY
    assert loaded.remedy is Remedy.REPLACE
    assert own.remedy is Remedy.REPLACE, "Prometheus wrote it from the head itself"


def test_the_worst_block_comes_first() -> None:
    bad_block = [bad(1, Effect.MISLEADS), bad(2, Effect.HIDES_DATA), bad(3, Effect.STOPS_START)]

    plan = plan_heal(bad_block, TargetBlocks(()), [], DEFAULT_REQUEST)

    assert [h.bad.name for h in plan.repairs] == [ulid(3), ulid(2), ulid(1)]


def test_a_block_that_is_never_opened_does_not_prevent_a_start() -> None:
    assert worst({Effect.STOPS_START, Effect.HIDES_DATA}) is Effect.HIDES_DATA
    assert worst({Effect.STOPS_START, Effect.FAILS_QUERIES}) is Effect.STOPS_START


@pytest.mark.parametrize("kind", FaultKind)
def test_every_kind_of_fault_has_an_effect_in_the_order(
    kind: FaultKind,
) -> None:
    assert worst({kind.effect, Effect.NONE}) is kind.effect
