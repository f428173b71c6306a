"""The Prometheus runner, with both major versions."""

from datetime import timedelta
from pathlib import Path

import httpx
import pytest

from devtools.blocks import BlockSpec, write_openmetrics_blocks
from devtools.fetch_prometheus import PrometheusBinaries
from devtools.processes import ProcessFailedError
from devtools.prometheus import PrometheusFleet, PrometheusOptions, PrometheusServer


def test_blocks_and_head_are_served_and_survive_a_restart(
    prometheus: PrometheusServer, tsdb_block_spec: BlockSpec
) -> None:
    last_block = tsdb_block_spec.max_time - timedelta(minutes=1)
    assert prometheus.loaded_blocks() == tsdb_block_spec.blocks
    in_blocks = prometheus.query("devtools_value", last_block)
    assert len(in_blocks) == tsdb_block_spec.series
    assert prometheus.query("count(devtools_head)")[0]["value"][1] == "20"
    prometheus.kill()
    prometheus.start()
    assert prometheus.query("devtools_value", last_block) == in_blocks
    assert prometheus.query("count(devtools_head)")[0]["value"][1] == "20"


def test_snapshot_has_all_blocks_and_the_head(
    prometheus: PrometheusServer, tsdb_block_spec: BlockSpec
) -> None:
    assert len(list(prometheus.snapshot().iterdir())) == tsdb_block_spec.blocks + 1
    assert len(list(prometheus.snapshot(skip_head=True).iterdir())) == tsdb_block_spec.blocks


def test_deleted_series_create_tombstones_until_they_are_cleaned(
    prometheus: PrometheusServer, data_dir: Path, tsdb_block_spec: BlockSpec
) -> None:
    before = {path.parent.name for path in data_dir.glob("*/meta.json")}
    sizes = {path: path.stat().st_size for path in data_dir.glob("*/tombstones")}
    prometheus.delete_series('devtools_value{series="3"}')
    assert all(path.stat().st_size > size for path, size in sizes.items())
    prometheus.clean_tombstones()
    after = {path.parent.name for path in data_dir.glob("*/meta.json")}
    assert len(after) == tsdb_block_spec.blocks
    assert not after & before


def test_head_of_many_hours_is_compacted_into_blocks(
    start_prometheus: PrometheusFleet, prometheus_binaries: PrometheusBinaries
) -> None:
    server = start_prometheus(prometheus_binaries, options=PrometheusOptions(scrape_interval=None))
    server.fill_head(span=timedelta(hours=7))
    server.wait_until_blocks(1)


def test_server_scrapes_itself(
    start_prometheus: PrometheusFleet, prometheus_binaries: PrometheusBinaries
) -> None:
    server = start_prometheus(
        prometheus_binaries,
        options=PrometheusOptions(basic_auth=True, route_prefix="/prom", scrape_interval="1s"),
    )
    server.wait_until_scraped()
    server.wait_until_series('prometheus_build_info{job="self"}')
    with httpx.Client(trust_env=False) as client:
        assert client.get(f"{server.url}/-/ready").status_code == 401


@pytest.mark.parametrize(
    ("options", "refusal"),
    [
        (PrometheusOptions(admin_api=False), "admin APIs disabled"),
        (PrometheusOptions(agent=True), "unavailable with Prometheus Agent"),
    ],
    ids=["admin API off", "agent mode"],
)
def test_server_without_admin_api_refuses_snapshots(
    start_prometheus: PrometheusFleet,
    prometheus_binaries: PrometheusBinaries,
    options: PrometheusOptions,
    refusal: str,
) -> None:
    server = start_prometheus(prometheus_binaries, options=options)
    with pytest.raises(RuntimeError, match=refusal):
        server.snapshot()


def test_failed_start_quotes_the_log(
    start_prometheus: PrometheusFleet, prometheus_3: PrometheusBinaries
) -> None:
    with pytest.raises(ProcessFailedError, match="unknown long flag '--no-such-flag'"):
        start_prometheus(prometheus_3, options=PrometheusOptions(extra_flags=("--no-such-flag",)))


def test_same_seed_gives_the_same_samples(tmp_path: Path, prometheus_2: PrometheusBinaries) -> None:
    spec = BlockSpec(blocks=2, series=3, seed=7)
    first, second = (
        write_openmetrics_blocks(tmp_path / name, prometheus_2.promtool, spec) for name in "ab"
    )
    for one, other in zip(first, second, strict=True):
        assert (one / "chunks/000001").read_bytes() == (other / "chunks/000001").read_bytes()
