"""`inspect`: blocks on a disk are checked, and every outcome has its exit code."""

import json
import shutil
from pathlib import Path

import pytest

from devtools.prometheus import PrometheusServer
from prometheus_backup.events import BytesMoved, Event, LongStepBegan, Step
from prometheus_backup.model import Outcome
from prometheus_backup.verify.inspect import inspect_blocks
from tests.support.contents import live_blocks, tree
from tests.support.runs import Recorder
from tests.support.stored_backups import json_of, run_here


def damage(block: Path) -> None:
    """Flip a bit of the first chunk."""
    segment = block / "chunks" / "000001"
    data = bytearray(segment.read_bytes())
    data[100] ^= 1
    segment.write_bytes(data)


def test_a_sound_data_directory_is_exit_0_with_each_block_counted(tsdb_blocks: Path) -> None:
    before = tree(tsdb_blocks)
    done = run_here("inspect", str(tsdb_blocks))
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    for block, line in zip(live_blocks(tsdb_blocks), lines[1:], strict=False):
        stats = json.loads((block / "meta.json").read_bytes())["stats"]
        cells = line.split()
        assert cells[0] == block.name
        assert f"{stats['numSeries']:,}" in cells
        assert f"{stats['numSamples']:,}" in cells
        assert cells[-1] == "pass"
    assert lines[-1] == "chunk encodings: xor"
    assert tree(tsdb_blocks) == before, "it only reads"


def test_a_fault_is_exit_41_and_names_block_file_offset_series_and_effect(data_dir: Path) -> None:
    block = live_blocks(data_dir)[1]
    damage(block)
    done = run_here("inspect", str(data_dir))
    assert done.returncode == 41
    (line,) = [one for one in done.stdout.splitlines() if "[" in one]
    assert line == (
        f"{block.name}: chunks/000001 at 8: invalid checksum of a chunk "
        '(series devtools_value{series="0"}) [chunk-corrupt; Prometheus: fails-queries]'
    )
    assert "block is corrupt" in done.stderr
    assert done.stdout.count(" pass\n") == 3


def test_a_single_block_is_inspected_whatever_its_directory_is_called(
    data_dir: Path, tmp_path: Path
) -> None:
    block = live_blocks(data_dir)[0]
    shutil.copytree(block, tmp_path / "a block")
    for path in (block, tmp_path / "a block"):
        done = run_here("inspect", str(path))
        assert done.returncode == 0, done.stdout
        assert block.name in done.stdout


def test_a_block_without_meta_json_is_inspected_and_faulty(data_dir: Path) -> None:
    block = live_blocks(data_dir)[0]
    (block / "meta.json").unlink()
    for path in (data_dir, block):
        value = json_of(run_here("inspect", str(path), "--json"), code=41)
        found = {b["ulid"]: b for b in value["blocks"]}[block.name]
        assert found["fault_counts"] == {"meta-missing": 1}
        assert found["faults"][0]["effect"] == "hides-data"


def test_a_directory_without_blocks_is_exit_3(tmp_path: Path) -> None:
    done = run_here("inspect", str(tmp_path))
    assert done.returncode == 3
    assert "nothing to check" in done.stdout


def test_a_path_that_is_not_a_directory_is_exit_2(tmp_path: Path, data_dir: Path) -> None:
    for path in (tmp_path / "absent", live_blocks(data_dir)[0] / "index"):
        done = run_here("inspect", str(path))
        assert done.returncode == 2
        assert f"cannot inspect {path}" in done.stderr


@pytest.mark.usefixtures("small_blocks_in_processes")
def test_several_processes_find_what_one_finds(data_dir: Path) -> None:
    damage(live_blocks(data_dir)[2])
    one, several = (
        json_of(run_here("inspect", str(data_dir), "--processes", n, "--json"), code=41)
        for n in ("1", "3")
    )
    assert one == several


def test_the_data_directory_of_a_running_prometheus_is_inspected(
    prometheus: PrometheusServer,
) -> None:
    done = run_here("inspect", str(prometheus.data_dir))
    assert done.returncode == 0, done.stdout
    assert done.stdout.count(" pass\n") == 4
    assert prometheus.query("devtools_head"), "it goes on"


class Remover(Recorder):
    """Removes a block after the blocks are listed, as Prometheus does after a compaction."""

    def __init__(self, block: Path) -> None:
        super().__init__()
        self._block = block

    def __call__(self, event: Event) -> None:
        super().__call__(event)
        if isinstance(event, Step):
            shutil.rmtree(self._block)


def test_a_block_removed_during_the_check_is_not_a_fault(data_dir: Path) -> None:
    gone = live_blocks(data_dir)[0]
    remover = Remover(gone)
    report = inspect_blocks(data_dir, processes=1, listener=remover)
    assert report.outcome is Outcome.DONE
    assert len(report.blocks) == 3
    assert f"block {gone.name} was removed while it was checked" in remover.warnings


def test_progress_counts_every_byte(tsdb_blocks: Path) -> None:
    recorder = Recorder()
    inspect_blocks(tsdb_blocks, processes=1, listener=recorder)
    (step,) = recorder.of(LongStepBegan)
    assert step.total == sum(map(len, tree(tsdb_blocks).values()))
    assert sum(event.count for event in recorder.of(BytesMoved)) >= step.total
