"""Blocks that other versions of Prometheus wrote: sound, with the counts that Prometheus reads."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from prometheus_backup.model import Verdict
from prometheus_backup.tsdb.faults import FaultKind
from prometheus_backup.tsdb.verification import check_block

BLOCKS = Path(__file__).with_name("blocks")
EXPECTED = sorted(BLOCKS.glob("*/*.expected.json"))
ENCODINGS = {
    "XOR": "xor",
    "XOR2": "xor2",
    "histogram": "histogram",
    "floathistogram": "float-histogram",
    "histogramST": "histogram-st",
    "floathistogramST": "float-histogram-st",
}


def block_of(expected: Path) -> Path:
    """The block that a file of expected counts is about."""
    return expected.with_name(expected.name.removesuffix(".expected.json"))


@pytest.mark.parametrize("path", EXPECTED, ids=lambda path: f"{path.parent.name}-{path.name[:10]}")
def test_blocks_of_new_versions_are_sound_with_the_counts_that_prometheus_reads(path: Path) -> None:
    expected = json.loads(path.read_text())
    report = check_block(block_of(path))
    assert report.faults == ()
    assert report.verdict is Verdict.PASS
    assert report.not_decoded == ()
    assert report.series == expected["series"]
    for found, counts in (
        (report.chunks, expected["chunks"]),
        (report.samples, expected["samples"]),
    ):
        assert found == {ENCODINGS[name]: count for name, count in counts.items()}
    assert report.tombstones == expected["tombstones"]
    assert (report.min_time_ms, report.max_time_ms) == (expected["CMin"], expected["CMax"])


def test_all_stored_blocks_are_read() -> None:
    folders = {path for path in BLOCKS.glob("*/*") if path.is_dir()}
    assert {block_of(path) for path in EXPECTED} == folders
    assert len(folders) == 8


def test_a_wrong_number_of_float_samples_is_found_in_a_block_with_xor2(tmp_path: Path) -> None:
    (source,) = BLOCKS.glob("3.12.0-xor2-histograms/*VS35*8Y0RME9S")
    block = shutil.copytree(source, tmp_path / source.name)
    meta = json.loads((block / "meta.json").read_text())
    # 11 are XOR and 2 are XOR2: Prometheus 3.11 and 3.12 count the former, 3.13 counts both.
    for count, kinds in ((11, set()), (13, set()), (12, {FaultKind.META_COUNTS})):
        meta["stats"]["numFloatSamples"] = count
        (block / "meta.json").write_text(json.dumps(meta))
        assert set(check_block(block).counts) == kinds


def test_numpy_is_imported_only_where_a_block_is_checked() -> None:
    commands = ("backup", "restore", "verify", "heal", "drill", "estimate", "prune")
    script = f"""
import sys
from pathlib import Path
from importlib import import_module
from prometheus_backup.cli.main import run
for command in {commands}:
    run([command, "--help"])
for module in ("backup.run", "restore.run", "verify.run", "heal.run", "drill.run", "metrics"):
    import_module("prometheus_backup." + module)
from prometheus_backup.tsdb.verification import check_block, check_mutable
block = Path({str(block_of(EXPECTED[0]))!r})
assert not check_mutable(block).counts
assert "numpy" not in sys.modules, "imported too early"
assert not check_block(block).counts
assert "numpy" in sys.modules, "this test would prove nothing"
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
