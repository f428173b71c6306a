"""Start Prometheus 2.x and 3.x on a restored directory: same answers, and no block is deleted."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from devtools.blocks import BlockSpec
from devtools.fetch_prometheus import PrometheusBinaries
from devtools.prometheus import PrometheusFleet, PrometheusOptions, PrometheusServer
from tests.support.runs import settings
from tests.support.stored_backups import LocalFiles, StoredBackups, json_of, run_here

# The head becomes a block once it spans more than fifteen seconds, and restored blocks are not
# compacted.
SHORT_BLOCKS = ("--storage.tsdb.max-block-duration=10s",)


def test_it_answers_queries_as_the_source_did_before_the_backup(
    start_prometheus: PrometheusFleet,
    prometheus: PrometheusServer,
    tsdb_block_spec: BlockSpec,
    tmp_path: Path,
) -> None:
    (tmp_path / "repository").mkdir()
    env = settings(prometheus, tmp_path / "repository")
    at = datetime.now(UTC) - timedelta(seconds=5)
    old = tsdb_block_spec.max_time - timedelta(minutes=1)

    def answers(server: PrometheusServer) -> list[Any]:
        return [
            server.query("devtools_head", at),
            server.query("sum(rate(devtools_head[10m]))", at),
            server.query("count_over_time(devtools_head[1h])", at),
            server.query("devtools_value", old),
            server.query("sum_over_time(devtools_value[8h])", old),
        ]

    source = answers(prometheus)
    assert all(source)
    json_of(run_here("backup", "--json", env=env))
    json_of(run_here("restore", "latest", str(tmp_path / "target"), "--json", env=env))

    restored = start_prometheus(
        prometheus.binaries, tmp_path / "target", PrometheusOptions(scrape_interval=None)
    )

    assert answers(restored) == source


def _restored_samples(server: PrometheusServer, spec: BlockSpec) -> float:
    """The number of samples of the old blocks that it still serves."""
    length = int((spec.max_time - spec.min_time).total_seconds())
    query = f"sum(count_over_time({spec.metric}[{length}s]))"
    just_before_the_end = spec.max_time - timedelta(seconds=1)
    return sum(float(one["value"][1]) for one in server.query(query, just_before_the_end))


def _new_blocks(target: Path, restored: set[str]) -> set[str]:
    return {path.parent.name for path in target.glob("*/meta.json")} - restored


def _start_with_new_data(
    fleet: PrometheusFleet, binaries: PrometheusBinaries, target: Path, flags: tuple[str, ...]
) -> PrometheusServer:
    return fleet(
        binaries,
        target,
        PrometheusOptions(
            scrape_interval=None,
            retention=None,
            min_block_duration="10s",
            extra_flags=(*flags, *SHORT_BLOCKS),
        ),
    )


def test_the_printed_flags_keep_all_blocks_past_the_first_new_one_and_smaller_ones_do_not(
    start_prometheus: PrometheusFleet,
    prometheus_binaries: PrometheusBinaries,
    repository_files: LocalFiles,
    stored: StoredBackups,
    tsdb_block_spec: BlockSpec,
    tmp_path: Path,
) -> None:
    def restored(target: Path) -> tuple[str, ...]:
        command = ("restore", stored.second, str(target), "--json")
        document = json_of(run_here(*command, env=repository_files.environment()))
        return tuple(document["required_flags"])

    flags = restored(tmp_path / "kept")
    restored(tmp_path / "lost")
    blocks = {path.name for path in (tmp_path / "kept").iterdir()}
    assert len(blocks) == tsdb_block_spec.blocks

    def write_first_block(target: Path, flags: tuple[str, ...]) -> PrometheusServer:
        server = _start_with_new_data(start_prometheus, prometheus_binaries, target, flags)
        assert _restored_samples(server, tsdb_block_spec) == wanted(), "kept at the start"
        server.fill_head(span=timedelta(seconds=60), step=timedelta(seconds=1))
        server._process.wait_until(
            lambda: bool(_new_blocks(target, blocks)), what="has written a new block"
        )
        return server

    def wanted() -> float:
        spec = tsdb_block_spec
        return spec.series * ((spec.max_time - spec.min_time) / spec.step)

    lost = write_first_block(tmp_path / "lost", ("--storage.tsdb.retention.time=15d",))
    lost._process.wait_until(
        lambda: _restored_samples(lost, tsdb_block_spec) == 0, what="has lost the old blocks"
    )
    kept = write_first_block(tmp_path / "kept", flags)
    # Prometheus reloads after each new block: after the second, retention has run on the first.
    kept.wait_until_blocks(len(blocks) + 2)
    assert blocks <= {path.name for path in (tmp_path / "kept").iterdir()}
    assert _restored_samples(kept, tsdb_block_spec) == wanted()
