"""Blocks that end ahead of now, as compactions of stale series write: they can stop ingestion."""

import json
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from devtools.fetch_prometheus import PrometheusBinaries
from devtools.prometheus import PrometheusFleet, PrometheusOptions
from prometheus_backup.restore.placement import BlockAction, PlacementPlanner
from prometheus_backup.restore.target_blocks import TargetBlock, TargetBlocks
from prometheus_backup.stores.local import LocalStore
from tests.support.blocks import DAY, HOUR, block, ulid
from tests.support.contents import live_blocks
from tests.support.runs import options, take_backup
from tests.support.stored_backups import json_of, run_here

QUIET = PrometheusOptions(scrape_interval=None)
NO_BLOCK = "0" * 26


def add_block_ahead(data_dir: Path, promtool: Path, hints: list[str]) -> tuple[str, datetime]:
    """Write a block of one sample, in forty minutes; return its ULID and that time."""
    before = {found.name for found in live_blocks(data_dir)}
    at = datetime.now(UTC) + timedelta(minutes=40)
    file = data_dir.with_name("ahead.om")
    file.write_text(f"# TYPE ahead gauge\nahead 1 {at.timestamp():.0f}\n# EOF\n")
    command = [str(promtool), "tsdb", "create-blocks-from", "openmetrics", str(file), str(data_dir)]
    subprocess.run(command, check=True, capture_output=True, timeout=60)
    (added,) = {found.name for found in live_blocks(data_dir)} - before
    meta = json.loads((data_dir / added / "meta.json").read_bytes())
    if hints:
        parents = [{"ulid": NO_BLOCK, "minTime": 0, "maxTime": 0}]
        meta["compaction"] |= {"hints": hints, "parents": parents}
    (data_dir / added / "meta.json").write_text(json.dumps(meta))
    return added, at


@pytest.mark.parametrize("hints", [["from-stale-series"], []], ids=["stale series", "no hint"])
def test_a_block_that_stops_ingestion_is_reported_with_what_to_do(
    start_prometheus: PrometheusFleet,
    prometheus_binaries: PrometheusBinaries,
    data_dir: Path,
    tmp_path: Path,
    hints: list[str],
) -> None:
    name, at = add_block_ahead(data_dir, prometheus_binaries.promtool, hints)
    (tmp_path / "repository").mkdir()
    source = start_prometheus(prometheus_binaries, data_dir, QUIET)
    take_backup(source, LocalStore(tmp_path / "repository"), options(skip_head=True))
    source.kill()

    def restored(target: str, *more: str) -> list[str]:
        command = ("restore", "latest", str(tmp_path / target), "--json", *more)
        document = json_of(run_here(*command, env={"REPOSITORY": f"file://{tmp_path}/repository"}))
        return [w for w in document["warnings"] if "accepts no samples" in w]

    (planned,) = restored("with", "--dry-run")
    (warning,) = restored("with")
    without = restored("without", f"--to={at - timedelta(seconds=1):%Y-%m-%dT%H:%M:%SZ}")

    assert planned == warning
    assert f"block {name} ends ahead of now" in warning
    assert ("Prometheus before 3.10" in warning) is bool(hints)
    assert "--to" in warning
    assert without == []
    with_it = start_prometheus(prometheus_binaries, tmp_path / "with", QUIET)
    with pytest.raises(RuntimeError, match="out of bounds"):
        with_it.write("now", [(datetime.now(UTC), 1.0)])
    without_it = start_prometheus(prometheus_binaries, tmp_path / "without", QUIET)
    without_it.write("now", [(datetime.now(UTC), 1.0)])


def test_a_block_of_out_of_order_samples_stops_nothing_and_is_not_reported(
    start_prometheus: PrometheusFleet,
    prometheus_binaries: PrometheusBinaries,
    data_dir: Path,
    tmp_path: Path,
) -> None:
    add_block_ahead(data_dir, prometheus_binaries.promtool, ["from-out-of-order"])
    (tmp_path / "repository").mkdir()
    source = start_prometheus(prometheus_binaries, data_dir, QUIET)
    take_backup(source, LocalStore(tmp_path / "repository"), options(skip_head=True))
    source.kill()
    env = {"REPOSITORY": f"file://{tmp_path}/repository"}

    command = ("restore", "latest", str(tmp_path / "target"), "--json")
    document = json_of(run_here(*command, env=env))

    assert not [w for w in document["warnings"] if "accepts no samples" in w]
    target = start_prometheus(prometheus_binaries, tmp_path / "target", QUIET)
    target.write("now", [(datetime.now(UTC), 1.0)])


def test_the_parent_of_a_block_of_stale_series_is_no_block_that_it_was_cleaned_from() -> None:
    stale = TargetBlock(ulid(1), DAY, DAY + 2 * HOUR, (ulid(1),), (NO_BLOCK,))
    compacted: Any = block(9, 0, 6, sources=(1, 2, 3))

    (placement,) = PlacementPlanner(TargetBlocks((stale,))).plan([compacted])

    assert placement.action is BlockAction.PLACE
    assert not placement.deleted
