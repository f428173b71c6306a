"""Checks in several processes: one that dies is reported, and none is left running."""

import multiprocessing
from pathlib import Path

import pytest

from prometheus_backup.errors import BackupToolError
from prometheus_backup.tsdb.parallel import check_blocks
from tests.support.contents import live_blocks


def test_a_killed_process_is_reported(tsdb_blocks: Path) -> None:
    def kill(size: int) -> None:
        del size
        for child in multiprocessing.active_children():
            child.kill()

    with pytest.raises(BackupToolError, match="its process ended with -9") as caught:
        list(check_blocks(live_blocks(tsdb_blocks), processes=2, watch=kill))
    assert "memory" in caught.value.hint
    assert multiprocessing.active_children() == []


def test_no_process_outlives_a_check_that_is_closed(tsdb_blocks: Path) -> None:
    reports = check_blocks(live_blocks(tsdb_blocks), processes=2)
    next(reports)
    assert len(multiprocessing.active_children()) == 2
    reports.close()
    assert multiprocessing.active_children() == []


def test_no_process_is_started_for_one_process_or_one_block(tsdb_blocks: Path) -> None:
    blocks = live_blocks(tsdb_blocks)
    for folders, processes in ((blocks, 1), (blocks[:1], 4)):
        for _ in check_blocks(folders, processes=processes):
            assert multiprocessing.active_children() == []
