"""Which blocks of a backup can be placed in a target: each rule, and all rules together."""

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prometheus_backup.repository.manifest import Block
from prometheus_backup.restore.placement import (
    ALL_TIME,
    BlockAction,
    Placement,
    PlacementPlanner,
    TimeRange,
    gaps,
)
from prometheus_backup.restore.target_blocks import TargetBlock, TargetBlocks
from prometheus_backup.spans import Span
from tests.support.blocks import DAY, HOUR, block, existing, ulid


def place(
    *blocks: Block,
    there: Sequence[TargetBlock] = (),
    memory_from: float | None = None,
    wanted: TimeRange = ALL_TIME,
    accept_undeleted: bool = False,
    undelete: bool = False,
    unreadable: Sequence[int] = (),
) -> dict[str, Placement]:
    target = TargetBlocks(
        tuple(there),
        frozenset(ulid(n) for n in unreadable),
        None if memory_from is None else DAY + memory_from * HOUR,
    )
    planner = PlacementPlanner(target, wanted, accept_undeleted=accept_undeleted, undelete=undelete)
    placements = planner.plan(blocks)
    return {p.block.ulid: p for p in placements}


def action_of(number: int, placements: dict[str, Placement]) -> BlockAction:
    return placements[ulid(number)].action


def test_blocks_are_placed_newest_first() -> None:
    placements = place(block(1, 0, 2), block(2, 8, 10), block(3, 4, 6))

    assert list(placements) == [ulid(2), ulid(3), ulid(1)]
    assert {p.action for p in placements.values()} == {BlockAction.PLACE}


def test_a_present_block_is_not_placed_again() -> None:
    assert action_of(1, place(block(1), there=[existing(1)])) is BlockAction.PRESENT


@pytest.mark.parametrize("readable", [True, False])
def test_a_block_of_the_same_name_with_other_bytes_is_left_out(readable: bool) -> None:
    there = [existing(1, differs=True)] if readable else []

    placed = place(block(1), there=there, unreadable=() if readable else (1,))[ulid(1)]

    assert placed.action is BlockAction.DIFFERENT
    assert placed.action.left_out
    assert "heal" in placed.reason


def test_a_block_that_was_compacted_into_an_existing_one_is_skipped() -> None:
    placed = place(block(1), there=[existing(9, 0, 6, sources=(1, 2, 3))])[ulid(1)]

    assert placed.action is BlockAction.COVERED
    assert not placed.action.left_out
    assert ulid(9) in placed.reason


def test_a_block_whose_sources_are_in_several_existing_blocks_is_skipped() -> None:
    there = [existing(1), existing(2, 2, 4), existing(3, 4, 6)]

    assert (
        action_of(9, place(block(9, 0, 6, sources=(1, 2, 3)), there=there)) is BlockAction.COVERED
    )
    assert (
        action_of(9, place(block(9, 0, 8, sources=(1, 2, 3, 4)), there=there)) is BlockAction.PLACE
    )


def test_a_parent_of_an_existing_block_is_not_placed_because_prometheus_would_delete_it() -> None:
    # As after clean_tombstones: the only source of the child is itself.
    placed = place(block(1), there=[existing(2, parents=(1,))])[ulid(1)]

    assert placed.action is BlockAction.PARENT
    assert ulid(2) in placed.reason


def test_a_parent_of_a_block_that_is_placed_is_not_placed() -> None:
    placements = place(block(1), block(2, parents=(1,)))

    assert action_of(1, placements) is BlockAction.PARENT
    assert action_of(2, placements) is BlockAction.PLACE


def test_a_parent_of_a_block_that_is_left_out_is_placed() -> None:
    placements = place(block(1, 0, 2), block(2, 0, 20, parents=(1,)), memory_from=10)

    assert action_of(2, placements) is BlockAction.IN_MEMORY
    assert action_of(1, placements) is BlockAction.PLACE


def test_a_block_that_would_make_prometheus_delete_an_existing_one_is_left_out() -> None:
    placed = place(block(9, 0, 6, sources=(1, 2, 3), parents=(1, 2, 3)), there=[existing(1)])[
        ulid(9)
    ]

    assert placed.action is BlockAction.REPLACES
    assert placed.action.left_out
    assert ulid(1) in placed.reason


@pytest.mark.parametrize(
    "there",
    [
        existing(1, deletions=True),
        existing(5, parents=(1,)),
        existing(5, 0, 4, sources=(1, 2), deletions=True),
    ],
    ids=["tombstones", "cleaned", "tombstones of a compacted one"],
)
def test_a_block_that_brings_deleted_series_back_is_left_out_unless_that_is_accepted(
    there: TargetBlock,
) -> None:
    compacted = block(9, 0, 6, sources=(1, 2, 3))

    assert action_of(9, place(compacted, there=[there])) is BlockAction.UNDELETES
    assert action_of(9, place(compacted, there=[there], accept_undeleted=True)) is BlockAction.PLACE


def test_deletions_in_unrelated_blocks_do_not_matter() -> None:
    there = [existing(7, deletions=True)]

    assert action_of(9, place(block(9, 0, 6, sources=(1, 2, 3)), there=there)) is BlockAction.PLACE


def test_a_block_that_ends_after_the_samples_in_memory_begin_is_not_placed() -> None:
    placements = place(block(1, 6, 8), block(2, 8, 10), block(3, 8, 10.5), memory_from=10)

    assert [action_of(n, placements) for n in (1, 2, 3)] == [
        BlockAction.PLACE,
        BlockAction.PLACE,
        BlockAction.IN_MEMORY,
    ]
    # Prometheus writes the block of 10:00 to 12:00 at 13:00; then the head starts at 12:00.
    assert placements[ulid(3)].not_before == DAY + 13 * HOUR
    assert placements[ulid(2)].not_before is None


def test_samples_up_to_the_end_of_the_targets_own_blocks_are_no_longer_in_memory() -> None:
    there = [existing(7, 8, 11)]

    placements = place(block(1, 9, 11), block(2, 9, 11.5), there=there, memory_from=10)

    assert action_of(1, placements) is BlockAction.PLACE
    assert action_of(2, placements) is BlockAction.IN_MEMORY


def test_out_of_order_blocks_do_not_show_which_samples_are_in_memory() -> None:
    there = [existing(7, 8, 12, in_order=False)]

    assert (
        action_of(1, place(block(1, 9, 11), there=there, memory_from=10)) is BlockAction.IN_MEMORY
    )


def test_without_samples_in_memory_every_block_can_be_placed() -> None:
    assert action_of(1, place(block(1, 0, 10_000), there=[existing(2)])) is BlockAction.PLACE


@pytest.mark.parametrize(
    ("start", "end", "chosen"),
    [(None, None, {1, 2, 3}), (2, None, {2, 3}), (None, 2, {1}), (3, 4.5, {2, 3}), (1, 1.5, {1})],
)
def test_a_time_range_selects_the_blocks_that_overlap_it(
    start: float | None, end: float | None, chosen: set[int]
) -> None:
    wanted = TimeRange(
        None if start is None else DAY + start * HOUR, None if end is None else DAY + end * HOUR
    )

    placements = place(block(1, 0, 2), block(2, 2, 4), block(3, 4, 6), wanted=wanted)

    assert {n for n in (1, 2, 3) if action_of(n, placements) is BlockAction.PLACE} == chosen
    assert {p.action for p in placements.values()} <= {BlockAction.PLACE, BlockAction.OUTSIDE}


def test_overlapping_blocks_are_listed() -> None:
    there = [existing(7, 0, 2), existing(8, 2, 4), existing(9, 6, 8)]

    assert place(block(1, 1, 6), there=there)[ulid(1)].overlaps == (ulid(7), ulid(8))


NUMBERS = st.integers(10, 20)
BLOCKS = st.builds(
    block,
    NUMBERS,
    st.integers(0, 10),
    st.integers(11, 20),
    sources=st.lists(NUMBERS, max_size=4),
    parents=st.lists(NUMBERS, max_size=3),
)
TARGET_BLOCKS = st.builds(
    existing,
    NUMBERS,
    st.integers(0, 10),
    st.integers(11, 20),
    sources=st.lists(NUMBERS, max_size=4),
    parents=st.lists(NUMBERS, max_size=3),
    in_order=st.booleans(),
    deletions=st.booleans(),
    differs=st.booleans(),
)


@given(
    blocks=st.lists(BLOCKS, unique_by=lambda b: b.ulid, max_size=6),
    there=st.lists(TARGET_BLOCKS, unique_by=lambda b: b.ulid, max_size=6),
    memory_from=st.none() | st.integers(0, 20),
)
def test_a_placed_block_never_makes_the_target_lose_data(
    blocks: list[Block], there: list[TargetBlock], memory_from: int | None
) -> None:
    placements = place(*blocks, there=there, memory_from=memory_from)

    placed = [p.block for p in placements.values() if p.action is BlockAction.PLACE]
    names = {b.ulid for b in there}
    assert len(placements) == len(blocks)
    assert names.isdisjoint(b.ulid for b in placed), "no block is overwritten"
    deleted_at_load = {parent for b in there for parent in b.parents}
    deleted_at_load |= {parent for b in placed for parent in b.parents}
    assert deleted_at_load.isdisjoint(b.ulid for b in placed), "placed blocks stay"
    assert names.isdisjoint(parent for b in placed for parent in b.parents), "existing blocks stay"
    if memory_from is not None:
        ends = [DAY + memory_from * HOUR, *(b.max_time for b in there if b.in_order)]
        assert all(b.max_time <= max(ends) for b in placed), "no sample in memory is dropped"
    for p in placements.values():
        assert p.reason or p.action is BlockAction.PLACE


def span(begin: float, end: float) -> Span:
    return Span(DAY + begin * HOUR, DAY + end * HOUR)


@pytest.mark.parametrize(
    ("covered", "expected"),
    [
        ([], [span(0, 10)]),
        ([span(0, 10)], []),
        ([span(-5, 20)], []),
        ([span(2, 4), span(6, 8)], [span(0, 2), span(4, 6), span(8, 10)]),
        ([span(0, 6), span(2, 4), span(6, 10)], []),
        ([span(0, 5), span(5.05, 10)], []),
        ([span(11, 12)], [span(0, 10)]),
    ],
)
def test_gaps_are_the_times_that_no_span_covers(covered: list[Span], expected: list[Span]) -> None:
    assert list(gaps(covered, span(0, 10))) == expected
