"""`restore --merge --undelete` brings back what was deleted by mistake, on 2.x and 3.x."""

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from devtools.blocks import BlockSpec
from devtools.fetch_prometheus import PrometheusBinaries
from devtools.prometheus import PrometheusFleet, PrometheusOptions, PrometheusServer
from prometheus_backup.repository.layout import is_ulid
from prometheus_backup.restore.deletions import copied_meta, copy_ulid
from prometheus_backup.restore.placement import BlockAction, Placement, PlacementPlanner
from prometheus_backup.restore.target_blocks import TargetBlock, TargetBlocks
from prometheus_backup.spans import Span
from prometheus_backup.stores.local import LocalStore
from tests.support.blocks import DAY, HOUR, block, existing, ulid
from tests.support.runs import options, take_backup
from tests.support.stored_backups import json_of, run_here

QUIET = PrometheusOptions(scrape_interval=None)
COMPACTING = PrometheusOptions(scrape_interval=None, min_block_duration="10s")
"""The head becomes ten-second blocks; after each, blocks that overlap are merged."""
EARLIER, LATER = "ee" * 32, "11" * 32
"""Checksums of tombstones."""


def answers(server: PrometheusServer, spec: BlockSpec) -> list[Any]:
    """Every sample that it serves of the old blocks."""
    begin, end = spec.min_time, spec.max_time
    return server.query_range(spec.metric, begin, end, f"{spec.step.total_seconds():.0f}s")


def blocks_in(data: Path) -> set[str]:
    return {path.name for path in data.iterdir() if is_ulid(path.name)}


def delete_only(server: PrometheusServer, spec: BlockSpec) -> None:
    """The samples are gone, and tombstones are in each block."""
    server.delete_series(f'{spec.metric}{{series="3"}}')


def delete_and_clean(server: PrometheusServer, spec: BlockSpec) -> None:
    """Each block is replaced by one without the samples."""
    delete_only(server, spec)
    server.clean_tombstones()


@pytest.mark.parametrize("delete", [delete_only, delete_and_clean])
def test_samples_come_back_for_good_and_a_second_run_places_nothing(
    start_prometheus: PrometheusFleet,
    prometheus_binaries: PrometheusBinaries,
    data_dir: Path,
    tsdb_block_spec: BlockSpec,
    tmp_path: Path,
    delete: Callable[[PrometheusServer, BlockSpec], None],
) -> None:
    spec = tsdb_block_spec
    (tmp_path / "repository").mkdir()
    server = start_prometheus(prometheus_binaries, data_dir, QUIET)
    server.delete_series(f'{spec.metric}{{series="1"}}')  # on purpose, before the backup
    take_backup(server, LocalStore(tmp_path / "repository"), options(skip_head=True))
    before = answers(server, spec)
    delete(server, spec)
    deleted, damaged = answers(server, spec), blocks_in(data_dir)
    assert len(deleted) == len(before) - 1
    server.stop()
    env = {"REPOSITORY": f"file://{tmp_path}/repository", "PROMETHEUS_URL": server.url}

    def restore(*more: str) -> Any:
        return run_here("restore", "latest", str(data_dir), "--merge", *more, env=env)

    merged = restore()
    assert merged.returncode == 0
    assert f"{spec.blocks} blocks have deletions that the backup does not have" in merged.stdout
    assert "--undelete" in merged.stdout
    planned = json_of(restore("--undelete", "--dry-run", "--json"))
    assert blocks_in(data_dir) == damaged
    assert [b["bytes"] for b in planned["place"]]
    assert planned["bytes"] == sum(b["bytes"] for b in planned["place"])
    done = json_of(restore("--undelete", "--json"))
    assert done["place"] == planned["place"]
    copies = {b["copy"] for b in done["place"]}
    assert len(copies) == spec.blocks
    assert blocks_in(data_dir) == damaged | copies

    server.start()
    assert answers(server, spec) == before
    again = restore("--undelete")
    assert again.returncode == 0, again.stderr
    assert "nothing to restore" in again.stdout
    assert "deletions" not in again.stdout
    server.stop()
    server.options = COMPACTING
    server.start()
    server.fill_head(span=timedelta(minutes=1), step=timedelta(seconds=1))
    server._process.wait_until(
        lambda: blocks_in(data_dir).isdisjoint(damaged | copies), what="has compacted", deadline=90
    )
    assert answers(server, spec) == before
    server.restart()
    assert answers(server, spec) == before
    again = restore("--undelete")
    assert again.returncode == 0, again.stderr
    assert "nothing to restore" in again.stdout


def plan(
    *blocks: Any,
    there: list[TargetBlock],
    undelete: bool = True,
    unreadable: frozenset[str] = frozenset(),
    memory_from: float | None = None,
) -> dict[str, Placement]:
    begin = None if memory_from is None else DAY + memory_from * HOUR
    target = TargetBlocks(tuple(there), unreadable, begin)
    return {p.block.ulid: p for p in PlacementPlanner(target, undelete=undelete).plan(blocks)}


def copied(number: int, count: int = 0, **state: Any) -> TargetBlock:
    """A copy of a block of the backup, in the target."""
    name = copy_ulid(ulid(number), count)
    return TargetBlock(name, DAY, DAY + 2 * HOUR, (name,), **state)


LACKING = {
    "tombstones": existing(1, deletions=True, tombstones=LATER),
    "rewritten": existing(5, parents=(1,)),
    "tombstones after a compaction": existing(
        5, 0, 4, sources=(1, 2), deletions=True, tombstones=LATER
    ),
    "fewer samples after a compaction": existing(5, 0, 4, sources=(1, 2), samples=90),
    "fewer series after a compaction": existing(5, 0, 4, sources=(1, 2), series=9),
}


@pytest.mark.parametrize("there", LACKING.values(), ids=LACKING)
def test_a_block_that_lacks_samples_gets_a_copy_and_is_only_reported_without_undelete(
    there: TargetBlock,
) -> None:
    backup = block(1, stats={"numSamples": 100, "numSeries": 10}, tombstones=EARLIER)

    placement = plan(backup, there=[there])[ulid(1)]
    reported = plan(backup, there=[there], undelete=False)[ulid(1)]

    assert (placement.action, placement.copy) == (BlockAction.UNDELETE, copy_ulid(ulid(1), 0))
    assert not placement.deleted
    assert reported.deleted
    assert not reported.action.places
    assert not reported.action.left_out, "as before, a merge keeps deletions and is complete"


COMPLETE = {
    "no deletions": existing(1),
    "the deletions of the backup": existing(1, deletions=True, tombstones=EARLIER),
    "all samples after a compaction": existing(5, 0, 4, sources=(1, 2), samples=200, series=12),
    "unknown counts": existing(5, 0, 4, sources=(1, 2)),
    "deletions at another time": existing(
        *(5, 0, 4),
        sources=(1, 2),
        deletions=True,
        tombstones=LATER,
        deleted=Span(DAY + 3 * HOUR, DAY + 4 * HOUR),
    ),
}


@pytest.mark.parametrize("there", COMPLETE.values(), ids=COMPLETE)
def test_a_block_that_lacks_nothing_gets_no_copy(there: TargetBlock) -> None:
    backup = block(1, stats={"numSamples": 100, "numSeries": 10}, tombstones=EARLIER)

    placement = plan(backup, there=[there])[ulid(1)]

    assert not placement.action.places
    assert not placement.deleted


def test_samples_that_were_deleted_before_the_backup_do_not_count_as_missing() -> None:
    """The counts in meta.json include them."""
    backup = block(1, stats={"numSamples": 100, "numTombstones": 1}, tombstones=EARLIER)
    there = existing(5, 0, 4, sources=(1, 2), samples=90)

    assert plan(backup, there=[there])[ulid(1)].action is BlockAction.COVERED


def test_the_same_samples_in_overlapping_blocks_do_not_count_twice() -> None:
    twice = [block(n, stats={"numSamples": 100}) for n in (1, 2)]
    there = existing(5, sources=(1, 2), samples=150)

    assert {p.action for p in plan(*twice, there=[there]).values()} == {BlockAction.COVERED}


DELETED = existing(1, deletions=True, tombstones=LATER)


@pytest.mark.parametrize(
    "there",
    [
        [DELETED, copied(1)],
        [existing(5, parents=(1,)), copied(1)],
    ],
    ids=["next to tombstones", "next to a rewritten block"],
)
def test_a_copy_that_is_there_is_not_placed_again(there: list[TargetBlock]) -> None:
    placement = plan(block(1), there=there)[ulid(1)]

    assert not placement.action.places
    assert not placement.action.left_out
    assert not placement.deleted


def test_a_copy_is_recognized_in_the_block_it_was_compacted_into() -> None:
    """After clean_tombstones, nothing but the copy tells which block it was."""
    there = TargetBlock(ulid(7), DAY, DAY + 2 * HOUR, (ulid(5), copy_ulid(ulid(1), 0)))

    placement = plan(block(1), there=[there])[ulid(1)]

    assert placement.action is BlockAction.COVERED


def test_samples_that_are_deleted_again_get_another_copy() -> None:
    again = copied(1, deletions=True, tombstones=LATER)

    first = plan(block(1), there=[DELETED, again])[ulid(1)]
    second = plan(block(1), there=[DELETED, again, copied(1, 1)])[ulid(1)]

    assert (first.action, first.copy) == (BlockAction.UNDELETE, copy_ulid(ulid(1), 1))
    assert not second.action.places


def test_a_copy_with_the_deletions_of_the_backup_is_complete() -> None:
    backup = block(1, tombstones=EARLIER)
    there = [DELETED, copied(1, deletions=True, tombstones=EARLIER)]

    assert not plan(backup, there=there)[ulid(1)].action.places


def test_an_unreadable_copy_does_not_count() -> None:
    unreadable = frozenset({copy_ulid(ulid(1), 0)})

    placement = plan(block(1), there=[DELETED], unreadable=unreadable)[ulid(1)]

    assert placement.copy == copy_ulid(ulid(1), 1)


def test_a_copy_is_left_out_where_the_block_would_be() -> None:
    in_memory = plan(block(1, 0, 4), there=[existing(5, parents=(1,))], memory_from=3)[ulid(1)]
    different = plan(block(1), there=[existing(1, deletions=True, differs=True)])[ulid(1)]
    encoded = block(1).model_copy(update={"encodings": {"xor2": 1}})
    older = TargetBlocks((DELETED,), version="3.5.3")
    (newer_chunks,) = PlacementPlanner(older, undelete=True).plan([encoded])

    assert in_memory.action is BlockAction.IN_MEMORY
    assert different.action is BlockAction.DIFFERENT
    assert newer_chunks.action is BlockAction.NEWER_CHUNKS


def test_the_meta_of_a_copy_names_no_other_block_and_keeps_what_it_says_about_samples() -> None:
    meta = {
        "ulid": ulid(1),
        "minTime": 1,
        "stats": {"numSamples": 5},
        "compaction": {
            "level": 3,
            "sources": [ulid(1), ulid(2)],
            "parents": [{"ulid": ulid(2)}],
            "deletable": True,
            "failed": True,
            "hints": ["from-out-of-order"],
        },
    }

    copied_as = copied_meta(meta, ulid=ulid(9))

    assert copied_as == {
        "ulid": ulid(9),
        "minTime": 1,
        "stats": {"numSamples": 5},
        "compaction": {"level": 1, "sources": [ulid(9)], "hints": ["from-out-of-order"]},
    }


def test_undelete_needs_merge(tmp_path: Path) -> None:
    env = {"REPOSITORY": f"file://{tmp_path}"}

    done = run_here("restore", "latest", str(tmp_path / "target"), "--undelete", env=env)

    assert done.returncode == 2
    assert "cannot use --undelete without --merge" in done.stderr
