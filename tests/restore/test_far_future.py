"""A sample with a wrong unit of time makes a block that ends thousands of years ahead."""

import json
import subprocess
from datetime import UTC, datetime
from pathlib import Path

import pytest

from devtools.fetch_prometheus import PrometheusBinaries
from devtools.prometheus import PrometheusFleet, PrometheusOptions
from prometheus_backup.prometheus.retention import RetainedBlock, retention_need
from tests.support.contents import live_blocks, tree
from tests.support.runs import cli, settings

FAR = {
    "milliseconds taken as seconds": 1_760_000_000_000,  # the year 57,742
    "the year 5000": 95_617_584_000,
}


def add_far_block(data_dir: Path, promtool: Path, second: int) -> str:
    """Write one sample at this time, as a backfill with a wrong unit does; return its ULID."""
    before = {block.name for block in live_blocks(data_dir)}
    text = f"# TYPE far gauge\nfar 1 {second}\n# EOF\n"
    file = data_dir.with_name("far.om")
    file.write_text(text)
    command = [str(promtool), "tsdb", "create-blocks-from", "openmetrics", str(file), str(data_dir)]
    subprocess.run(command, check=True, capture_output=True, timeout=60)
    (added,) = {block.name for block in live_blocks(data_dir)} - before
    return added


@pytest.mark.parametrize("second", FAR.values(), ids=FAR)
def test_the_other_blocks_of_a_backup_with_such_a_block_are_restored(
    start_prometheus: PrometheusFleet,
    prometheus_3: PrometheusBinaries,
    data_dir: Path,
    tmp_path: Path,
    second: int,
) -> None:
    far = add_far_block(data_dir, prometheus_3.promtool, second)
    others = {block.name for block in live_blocks(data_dir)} - {far}
    # Any retention by time would delete the other blocks at once.
    by_size = ("--storage.tsdb.retention.size=1TB",)
    options = PrometheusOptions(scrape_interval=None, retention=None, extra_flags=by_size)
    server = start_prometheus(prometheus_3, data_dir, options)
    (tmp_path / "repository").mkdir()
    env = settings(server, tmp_path / "repository", SKIP_HEAD="true", VERIFY_LEVEL="tsdb")

    backup = cli("backup", env=env)
    healed = cli("heal", str(data_dir), f"--prometheus-url={server.url}")
    verified = cli("verify", "latest", "--level=tsdb", env=env | {"SCRATCH_DIR": str(tmp_path)})
    restored = cli("restore", "latest", str(tmp_path / "target"), "--json", env=env)

    assert backup.returncode == 3, backup.stderr
    assert f"block {far} ends" in backup.stderr
    assert "days ahead of now" in backup.stderr
    assert "retention" in backup.stderr
    assert healed.returncode == 0, healed.stderr
    assert f"block {far} ends" in healed.stderr
    assert verified.returncode == 0, verified.stderr
    assert restored.returncode == 3, restored.stderr
    document = json.loads(restored.stdout)
    assert [(s["ulid"], s["standing"]) for s in document["skipped"]] == [(far, "far-future")]
    assert "all other blocks" in document["skipped"][0]["reason"]
    assert {b["ulid"] for b in document["place"]} == others
    for block in others:
        assert tree(tmp_path / "target" / block) == tree(data_dir / block)

    (manifest,) = (tmp_path / "repository").glob("backup-*/metadata.json")
    times = {b["ulid"]: b["max_time_ms"] for b in json.loads(manifest.read_text())["blocks"]}
    assert times[far] == json.loads((data_dir / far / "meta.json").read_text())["maxTime"]
    # Prometheus starts with the printed retention and keeps what was restored.
    flags = dict(f.removeprefix("--").split("=") for f in document["required_flags"])
    retention = flags["storage.tsdb.retention.time"]
    again = PrometheusOptions(scrape_interval=None, retention=retention)
    start_prometheus(prometheus_3, tmp_path / "target", again)
    assert others <= {block.name for block in live_blocks(tmp_path / "target")}


def test_no_printed_retention_is_longer_than_prometheus_accepts(
    start_prometheus: PrometheusFleet,
    prometheus_binaries: PrometheusBinaries,
    tmp_path: Path,
) -> None:
    blocks = [
        RetainedBlock("", datetime(year, 1, 1, tzinfo=UTC), datetime(year, 1, 2, tzinfo=UTC), 1)
        for year in (1970, 9000)
    ]
    need = retention_need(blocks, now=datetime(2025, 1, 1, tzinfo=UTC))
    assert need is not None
    retention = need.time_flag.partition("=")[2]

    options = PrometheusOptions(scrape_interval=None, retention=retention)
    start_prometheus(prometheus_binaries, tmp_path / "data", options)
