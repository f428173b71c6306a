"""Checks in several processes: one that dies is reported, and none is left running."""

import multiprocessing
from pathlib import Path

import pytest

from prometheus_backup.errors import BackupToolError
from prometheus_backup.tsdb import parallel
from prometheus_backup.tsdb.parallel import block_size, check_blocks
from tests.support.contents import live_blocks


@pytest.mark.usefixtures("small_blocks_in_processes")
def test_a_killed_process_is_reported(tsdb_blocks: Path) -> None:
    def kill(size: int) -> None:
        del size
        for child in multiprocessing.active_children():
            child.kill()

    with pytest.raises(BackupToolError, match="its process ended with -9") as caught:
        list(check_blocks(live_blocks(tsdb_blocks), processes=2, watch=kill))
    assert "memory" in caught.value.hint
    assert multiprocessing.active_children() == []


@pytest.mark.usefixtures("small_blocks_in_processes")
def test_no_process_outlives_a_check_that_is_closed(tsdb_blocks: Path) -> None:
    reports = check_blocks(live_blocks(tsdb_blocks), processes=2)
    next(reports)
    assert len(multiprocessing.active_children()) == 2
    reports.close()
    assert multiprocessing.active_children() == []


def test_no_process_is_started_without_enough_work(
    tsdb_blocks: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    blocks = live_blocks(tsdb_blocks)
    size = sum(map(block_size, blocks))
    for folders, processes, least in ((blocks, 1, 0), (blocks[:1], 4, 0), (blocks, 2, size + 1)):
        monkeypatch.setattr(parallel, "MIN_PARALLEL_BYTES", least)
        for _ in check_blocks(folders, processes=processes):
            assert multiprocessing.active_children() == []


@pytest.mark.usefixtures("small_blocks_in_processes")
@pytest.mark.parametrize("processes", [1, 2])
def test_progress_counts_each_byte_once(tsdb_blocks: Path, processes: int) -> None:
    blocks, seen = live_blocks(tsdb_blocks), list[int]()
    for _ in check_blocks(blocks, processes=processes, watch=seen.append):
        pass
    assert sum(seen) == sum(map(block_size, blocks))
