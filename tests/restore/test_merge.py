"""Merge a backup into a Prometheus 2.x and 3.x that has data: neither loses samples.

Each danger is shown twice: the command avoids it, and without the rule data is lost.
"""

import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from devtools.blocks import BlockSpec, write_openmetrics_blocks
from devtools.fetch_prometheus import PrometheusBinaries
from devtools.prometheus import PrometheusFleet, PrometheusOptions, PrometheusServer
from prometheus_backup.repository.layout import is_ulid
from prometheus_backup.stores.local import LocalStore
from tests.support.contents import live_blocks
from tests.support.runs import options, take_backup
from tests.support.stored_backups import LocalFiles, StoredBackups, json_of, run_here
from tests.support.waiting import wait_until

QUIET = PrometheusOptions(scrape_interval=None)
SHORT = PrometheusOptions(scrape_interval=None, min_block_duration="10s")
"""The head becomes ten-second blocks, which are compacted into larger ones immediately."""


def samples(server: PrometheusServer, selector: str, begin: datetime, end: datetime) -> float:
    """The number of samples that it serves in a time range."""
    seconds = int((end - begin).total_seconds())
    found = server.query(f"sum(count_over_time({selector}[{seconds}s]))", end)
    return sum(float(one["value"][1]) for one in found)


def old_samples(server: PrometheusServer, spec: BlockSpec) -> float:
    """The number of the old blocks' samples that it serves."""
    # Prometheus 3 excludes a sample at the start of a range.
    just_before = timedelta(seconds=1)
    return samples(server, spec.metric, spec.min_time - just_before, spec.max_time - just_before)


def wanted(spec: BlockSpec) -> float:
    return spec.series * ((spec.max_time - spec.min_time) / spec.step)


def blocks_in(data: Path) -> set[str]:
    return {path.name for path in data.iterdir() if is_ulid(path.name)}


def compact_now(server: PrometheusServer) -> None:
    """Trigger the check for compaction, which runs at each write and otherwise once a minute."""
    server.write("devtools_look", [(datetime.now(UTC), 1.0)])


@contextmanager
def queries(server: PrometheusServer, spec: BlockSpec) -> Iterator[list[str]]:
    """Query current and old samples continuously; yield the failures."""
    failures: list[str] = []
    done = threading.Event()

    def ask() -> None:
        while not done.wait(0.02):
            try:
                if not server.query("up"):
                    failures.append("no current samples")
                old_samples(server, spec)
            except Exception as error:  # noqa: BLE001 -- each is a failed query, counted
                failures.append(repr(error))

    askers = [threading.Thread(target=ask) for _ in range(2)]
    for asker in askers:
        asker.start()
    try:
        yield failures
    finally:
        done.set()
        for asker in askers:
            asker.join()


def test_a_running_prometheus_scrapes_and_answers_queries_throughout_a_merge(
    start_prometheus: PrometheusFleet,
    prometheus_binaries: PrometheusBinaries,
    repository_files: LocalFiles,
    stored: StoredBackups,
    tsdb_block_spec: BlockSpec,
    tmp_path: Path,
) -> None:
    env = repository_files.environment()
    data = tmp_path / "data"
    every_2_s = PrometheusOptions(scrape_interval="2s")  # also the scrape timeout
    server = start_prometheus(prometheus_binaries, data, every_2_s)
    server.wait_until_scraped()
    env["PROMETHEUS_URL"] = server.url
    began = datetime.now(UTC)

    with queries(server, tsdb_block_spec) as failures:
        # Allow two reload intervals after the last block is in place.
        command = ("restore", stored.second, str(data), "--merge", "--wait=120", "--json")
        done = run_here(*command, env=env)
    document = json_of(done)
    ended = datetime.now(UTC) - timedelta(seconds=1)

    assert failures == []
    assert document["loaded"] is True
    assert document["outcome"] == "done"
    assert old_samples(server, tsdb_block_spec) == wanted(tsdb_block_spec)
    scraped = samples(server, "up", began, ended)
    assert scraped > (ended - began).total_seconds() / 2 * 0.8, "no gap between scrapes"
    assert server.query("min_over_time(up[10m])", ended)[0]["value"][1] == "1", "no scrape failed"
    assert not (data / ".prometheus-backup" / "restore").exists()

    again = run_here("restore", stored.second, str(data), "--merge", env=env)
    assert again.returncode == 0
    assert "nothing to restore" in again.stdout

    server.stop()
    before = blocks_in(data)
    server = start_prometheus(prometheus_binaries, data, SHORT)
    compact_now(server)
    wait_until(lambda: bool(blocks_in(data) - before))  # it has written a block
    server.restart()
    assert old_samples(server, tsdb_block_spec) == wanted(tsdb_block_spec)
    assert samples(server, "up", began, ended) == scraped


@pytest.mark.parametrize("rule", [True, False], ids=["with the rule", "without it"])
def test_a_block_that_overlaps_the_wal_is_left_out_because_samples_in_the_wal_would_be_lost(
    start_prometheus: PrometheusFleet,
    prometheus_binaries: PrometheusBinaries,
    data_dir: Path,
    tsdb_block_spec: BlockSpec,
    tmp_path: Path,
    rule: bool,
) -> None:
    replica_spec = BlockSpec(metric="replica_value", seed=7)
    write_openmetrics_blocks(tmp_path / "replica", prometheus_binaries.promtool, replica_spec)
    (tmp_path / "repository").mkdir()
    target = start_prometheus(prometheus_binaries, data_dir, QUIET)
    began = datetime.now(UTC) - timedelta(minutes=3)
    target.fill_head(metric="own", span=timedelta(minutes=2), step=timedelta(seconds=1))
    replica = start_prometheus(prometheus_binaries, tmp_path / "replica", QUIET)
    replica.fill_head(metric="replica_head", span=timedelta(minutes=1))
    take_backup(replica, LocalStore(tmp_path / "repository"))
    replica.kill()
    ended = datetime.now(UTC)
    own = samples(target, "own", began, ended)
    assert own > 0
    target.stop()

    env = {"REPOSITORY": f"file://{tmp_path}/repository", "PROMETHEUS_URL": target.url}
    no_rule = () if rule else ("--head-from=2100-01-01",)
    command = ("restore", "latest", str(data_dir), "--merge", "--json", *no_rule)
    document = json_of(run_here(*command, env=env), code=3 if rule else 0)

    left_out = [block["standing"] for block in document["skipped"]]
    assert left_out == (["in-memory"] if rule else [])
    assert len(document["place"]) == replica_spec.blocks + (0 if rule else 1)
    before = blocks_in(data_dir)
    target.options = SHORT
    target.start()
    if rule:
        # The head becomes blocks, and overlapping blocks are compacted together.
        compact_now(target)
        target._process.wait_until(
            lambda: before.isdisjoint(blocks_in(data_dir)), what="has compacted", deadline=60
        )
    target.restart()
    assert old_samples(target, tsdb_block_spec) == wanted(tsdb_block_spec)
    assert old_samples(target, replica_spec) == wanted(replica_spec)
    assert (samples(target, "own", began, ended) == own) is rule


@pytest.mark.parametrize("limit", ["time", "size"])
def test_a_merge_never_makes_retention_delete_existing_blocks(
    start_prometheus: PrometheusFleet,
    prometheus_binaries: PrometheusBinaries,
    tmp_path: Path,
    limit: str,
) -> None:
    now = datetime.now(UTC)
    there = BlockSpec(start=now - timedelta(days=40), metric="there")
    newer = BlockSpec(start=now - timedelta(days=10), metric="newer")
    data, source = tmp_path / "data", tmp_path / "source"
    write_openmetrics_blocks(data, prometheus_binaries.promtool, there)
    write_openmetrics_blocks(source, prometheus_binaries.promtool, newer)
    (tmp_path / "repository").mkdir()
    replica = start_prometheus(prometheus_binaries, source, QUIET)
    take_backup(replica, LocalStore(tmp_path / "repository"), options(skip_head=True))
    replica.kill()
    size = sum(f.stat().st_size for f in data.rglob("*") if f.is_file())
    retention = "15d" if limit == "time" else f"1y,{size // 1024 + 20}KB"
    own = blocks_in(data)
    env = {"REPOSITORY": f"file://{tmp_path}/repository", "PROMETHEUS_URL": replica.url}

    def restore(retention: str, *more: str) -> tuple[int, str]:
        command = ("restore", "latest", str(data), "--merge", f"--target-retention={retention}")
        done = run_here(*command, *more, env=env)
        return done.returncode, done.stdout + done.stderr

    code, output = restore(retention)
    assert code == 32
    assert "retention would delete" in output
    assert restore(retention, "--ignore-retention")[0] == 32, "not even with --ignore-retention"
    assert restore(retention, "--dry-run")[0] == 32
    assert blocks_in(data) == own
    assert restore("90d,1GB")[0] == 0
    both = blocks_in(data)
    assert len(both) == there.blocks + newer.blocks

    def start(retention: str) -> PrometheusServer:
        time, _, size = retention.partition(",")
        flags = (f"--storage.tsdb.retention.time={time}", "--storage.tsdb.max-block-duration=10s")
        chosen = PrometheusOptions(
            scrape_interval=None,
            retention=None,
            min_block_duration="10s",
            extra_flags=(*flags, *([f"--storage.tsdb.retention.size={size}"] if size else [])),
        )
        return start_prometheus(prometheus_binaries, data, chosen)

    kept = start("90d,1GB")
    kept.fill_head(span=timedelta(seconds=60), step=timedelta(seconds=1))
    kept.wait_until_blocks(len(both) + 2)
    assert both <= blocks_in(data), "after the first new block"
    assert old_samples(kept, there) == wanted(there)
    assert old_samples(kept, newer) == wanted(newer)
    kept.stop()
    lost = start(retention)
    lost._process.wait_until(
        lambda: not own & blocks_in(data), what="has deleted the existing blocks"
    )
    assert old_samples(lost, there) == 0


def test_deleted_series_stay_deleted(
    start_prometheus: PrometheusFleet,
    prometheus_binaries: PrometheusBinaries,
    data_dir: Path,
    tsdb_block_spec: BlockSpec,
    tmp_path: Path,
) -> None:
    (tmp_path / "repository").mkdir()
    server = start_prometheus(prometheus_binaries, data_dir, QUIET)
    take_backup(server, LocalStore(tmp_path / "repository"), options(skip_head=True))
    env = {"REPOSITORY": f"file://{tmp_path}/repository", "PROMETHEUS_URL": server.url}
    before = blocks_in(data_dir)

    def restore() -> list[str]:
        command = ("restore", "latest", str(data_dir), "--merge", "--json")
        document = json_of(run_here(*command, env=env))
        assert document["place"] == []
        skipped = [block["standing"] for block in document["skipped"]]
        return [*skipped, *("present" for _ in document["present"])]

    server.delete_series(f'{tsdb_block_spec.metric}{{series="3"}}')
    left = wanted(tsdb_block_spec) / tsdb_block_spec.series * (tsdb_block_spec.series - 1)
    assert old_samples(server, tsdb_block_spec) == left
    assert restore() == ["present"] * tsdb_block_spec.blocks
    server.clean_tombstones()
    assert before.isdisjoint(blocks_in(data_dir))
    assert restore() == ["parent"] * tsdb_block_spec.blocks
    server.restart()
    assert old_samples(server, tsdb_block_spec) == left


def test_a_wal_without_blocks_is_refused_without_head_from(
    start_prometheus: PrometheusFleet,
    prometheus_3: PrometheusBinaries,
    repository_files: LocalFiles,
    stored: StoredBackups,
    tmp_path: Path,
) -> None:
    server = start_prometheus(prometheus_3, tmp_path / "data", QUIET)
    server.fill_head()
    server.stop()
    env = repository_files.environment() | {"PROMETHEUS_URL": server.url}
    command = ("restore", stored.second, str(server.data_dir), "--merge")

    refused = run_here(*command, env=env)
    assert refused.returncode == 32
    assert "--head-from" in refused.stderr
    assert blocks_in(server.data_dir) == set()
    assert run_here(*command, "--head-from=-1h", env=env).returncode == 0


def test_a_prometheus_that_does_not_use_the_target_is_detected(
    prometheus: PrometheusServer,
    tsdb_blocks: Path,
    repository_files: LocalFiles,
    stored: StoredBackups,
    tmp_path: Path,
) -> None:
    other = tmp_path / "other"
    shutil.copytree(tsdb_blocks, other)
    missing = min(blocks_in(other))
    shutil.rmtree(other / missing)
    env = repository_files.environment() | {"PROMETHEUS_URL": prometheus.url}
    command = ("restore", stored.second, str(other), "--merge", "--json")

    document = json_of(run_here(*command, env=env))

    assert any("does not store its data in" in warning for warning in document["warnings"])
    assert [block["ulid"] for block in document["place"]] == [missing]
    assert document["loaded"] is None, "the restore did not wait for it"


def test_a_prometheus_that_requires_a_password_is_exit_20_before_anything_is_written(
    start_prometheus: PrometheusFleet,
    prometheus_3: PrometheusBinaries,
    data_dir: Path,
    repository_files: LocalFiles,
    stored: StoredBackups,
) -> None:
    closed = PrometheusOptions(scrape_interval=None, basic_auth=True)
    server = start_prometheus(prometheus_3, data_dir, closed)
    before = blocks_in(data_dir)
    env = repository_files.environment() | {"PROMETHEUS_URL": server.url}

    done = run_here("restore", stored.first, str(data_dir), "--merge", env=env)

    assert done.returncode == 20
    assert "PROMETHEUS_PASSWORD_FILE" in done.stderr
    assert blocks_in(data_dir) == before


def test_an_empty_head_leaves_no_block_out(
    start_prometheus: PrometheusFleet,
    prometheus_binaries: PrometheusBinaries,
    data_dir: Path,
    repository_files: LocalFiles,
    stored: StoredBackups,
) -> None:
    """Nothing is in memory that could be lost, although headStats names a time in the past."""
    newest = max(live_blocks(data_dir), key=lambda b: b.name)
    shutil.rmtree(newest)
    server = start_prometheus(
        prometheus_binaries, data_dir, PrometheusOptions(scrape_interval=None)
    )

    command = ("restore", stored.first, str(data_dir), "--merge", "--json", "--wait=120")
    env = repository_files.environment() | {"PROMETHEUS_URL": server.url}
    document = json_of(run_here(*command, env=env))

    assert newest.name in {b["ulid"] for b in document["place"]}
    assert not [s for s in document["skipped"] if s["standing"] == "in-memory"]
    assert document["loaded"] is True
