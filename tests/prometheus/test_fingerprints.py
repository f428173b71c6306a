"""The fingerprints that a backup records, and drills of sources with special features."""

import struct
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from devtools.blocks import BLOCK_LENGTH, BlockSpec, write_openmetrics_blocks
from devtools.fetch_prometheus import PrometheusBinaries
from devtools.prometheus import PrometheusFleet, PrometheusOptions, PrometheusServer
from devtools.remote_write import Histogram
from prometheus_backup.backup.options import BackupOptions
from prometheus_backup.events import Event, FingerprintsTaken, SnapshotTaken
from prometheus_backup.model import Outcome
from prometheus_backup.prometheus.access import Access
from prometheus_backup.repository.fingerprint import Fingerprint
from prometheus_backup.repository.manifest import Manifest
from prometheus_backup.stores.local import LocalStore
from tests.support.drills import Drilling
from tests.support.runs import Recorder, options, settings, take_backup
from tests.support.sources import Proxy, Request
from tests.support.stored_backups import LocalFiles, json_of, manifest_of, run_here

OUT_OF_ORDER = "storage: {tsdb: {out_of_order_time_window: 30m}}"
MINUTE = timedelta(minutes=1)


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    (tmp_path / "repository").mkdir()
    return LocalStore(tmp_path / "repository")


def drilling_of(
    server: PrometheusServer, store: LocalStore, directory: Path, chosen: BackupOptions
) -> tuple[Drilling, Manifest]:
    """Back up a source; return a drill of the backup, and its manifest."""
    manifest = take_backup(server, store, chosen).manifest
    files = LocalFiles(directory / "repository")
    scratch = directory / "scratch"
    return Drilling(files, manifest.backup_id, server.binaries, scratch), manifest


def by_query(manifest: Manifest) -> dict[str, Fingerprint]:
    return {f.query: f for f in manifest.fingerprints}


def numbers(fingerprint: Fingerprint) -> list[str | None]:
    assert fingerprint.answer is not None, fingerprint.inconclusive
    return [s.value for s in fingerprint.answer.series]


def last_sample(spec: BlockSpec) -> datetime:
    """The last sample of the blocks: promtool ends the last block a millisecond after it."""
    return spec.max_time - spec.step


def test_queries_are_evaluated_five_minutes_before_the_snapshot(
    prometheus: PrometheusServer, store: LocalStore
) -> None:
    recorder = Recorder()
    before = datetime.now(UTC)
    chosen = options(fingerprints=("sum(devtools_head)", "scalar(count(devtools_head))"))
    manifest = take_backup(prometheus, store, chosen, listener=recorder).manifest

    (summed, counted) = manifest.fingerprints
    assert summed.at is not None
    assert abs(before - summed.at - 5 * MINUTE) < timedelta(seconds=30)
    live = prometheus.query("sum(devtools_head)", at=summed.at)
    assert numbers(summed) == [live[0]["value"][1]]
    assert (counted.answer and counted.answer.type, numbers(counted)) == ("scalar", ["20"])
    assert manifest.prometheus.lookback == "5m"
    assert recorder.of(FingerprintsTaken) == [FingerprintsTaken(summed.at, 2, 0, 2)]


def test_queries_from_flags_variables_and_a_file_are_added_to_the_defaults(
    source: PrometheusServer, tmp_path: Path
) -> None:
    (tmp_path / "repository").mkdir()
    queries = tmp_path / "queries"
    queries.write_text("# a comment\n\n  sum(devtools_head)  \ncount(devtools_head)\n")
    env = settings(source, tmp_path / "repository", FINGERPRINT_FILE=str(queries))
    flag = "--fingerprint-query=max(devtools_head{series=~'1,2|3 4'})"
    files = LocalFiles(tmp_path / "repository")

    value = json_of(run_here("backup", flag, "--json", env=env))
    recorded = [f["query"] for f in manifest_of(files, value["backup_id"])["fingerprints"]]

    assert recorded == [
        "count by (job) (up)",
        "sum by (job) (scrape_samples_scraped)",
        "sum by (job) (count_over_time(up[1h]))",
        "max(devtools_head{series=~'1,2|3 4'})",
        "sum(devtools_head)",
        "count(devtools_head)",
    ]
    assert value["fingerprints"] == {"answered": 6, "inconclusive": 0}

    done = run_here("backup", "--no-fingerprints", "--json", env=env)
    value = json_of(done)
    assert manifest_of(files, value["backup_id"])["fingerprints"] == []
    assert "fingerprint" not in done.stderr


@pytest.mark.parametrize(
    ("query", "cause"),
    [
        ("foo(", "parse error"),
        ("devtools_head[5m]", "no number or vector"),
        ('count_values("v", devtools_head[5m:1s])', "error"),
    ],
)
def test_query_that_cannot_be_recorded_does_not_fail_the_backup(
    source: PrometheusServer, store: LocalStore, query: str, cause: str
) -> None:
    recorder = Recorder()
    chosen = options(fingerprints=(query, "sum(devtools_head)"))
    report = take_backup(source, store, chosen, listener=recorder)

    assert report.outcome is Outcome.DONE
    bad, good = report.manifest.fingerprints
    assert numbers(good)
    assert bad.answer is None
    assert cause in bad.inconclusive
    assert cause in recorder.warnings


def test_answer_with_too_many_series_is_inconclusive(
    source: PrometheusServer, store: LocalStore
) -> None:
    source.fill_head(series=1001, span=MINUTE, metric="many")
    source.write("old", [(datetime.now(UTC) - 6 * MINUTE, 1.0)])
    # The instant is five minutes ago, before the new series: `offset -5m` reads them.
    chosen = options(fingerprints=("many offset -5m", "many offset -5m or old"))
    manifest = take_backup(source, store, chosen).manifest

    assert [f.answer for f in manifest.fingerprints] == [None, None]
    assert "series, over 1,000" in manifest.fingerprints[0].inconclusive


def test_answer_that_changes_while_the_snapshot_is_taken_is_inconclusive(
    source: PrometheusServer, store: LocalStore
) -> None:
    def come_late(event: Event) -> None:
        if isinstance(event, SnapshotTaken):
            source.write("late", [(datetime.now(UTC) - 7 * MINUTE, 1.0)])

    chosen = options(fingerprints=("count(late)", "sum(devtools_head)"))
    found = by_query(take_backup(source, store, chosen, listener=come_late).manifest)

    assert found["count(late)"].inconclusive == "the answer changed while the snapshot was taken"
    assert numbers(found["sum(devtools_head)"])


class NoQueries(Proxy):
    """Forwards everything except queries."""

    def answer(self, request: Request, upstream: str) -> tuple[int, str, bytes] | None:
        if request.path.startswith("/api/v1/query"):
            return 403, "text/html", b"<html>forbidden</html>"
        return super().answer(request, upstream)


def test_source_that_stops_answering_queries_is_still_backed_up(
    source: PrometheusServer, store: LocalStore
) -> None:
    with NoQueries(source.url) as proxy:
        report = take_backup(
            Access(proxy.url),
            store,
            options(fingerprints=("up",)),
            data_dir=source.data_dir,
        )

    assert report.outcome is Outcome.DONE
    assert report.manifest.fingerprints[0].inconclusive == "HTTP 403"


def test_with_skip_head_the_instant_is_the_end_of_the_blocks_on_disk(
    prometheus: PrometheusServer, store: LocalStore, tmp_path: Path, tsdb_block_spec: BlockSpec
) -> None:
    query = "sum(count_over_time(devtools_value[8h]))"
    chosen = options(fingerprints=(query, "sum(devtools_head)"), skip_head=True)
    drilling, manifest = drilling_of(prometheus, store, tmp_path, chosen)

    found = by_query(manifest)
    assert found[query].at == last_sample(tsdb_block_spec)
    assert numbers(found[query]) == ["9600"]
    assert numbers(found["sum(devtools_head)"]) == []
    assert drilling.result()["verdict"] == "pass"


STALE = struct.unpack("<d", bytes.fromhex("020000000000f07f"))[0]
"""The value that Prometheus appends when a target is gone (model/value/value.go, StaleNaN)."""


def test_series_that_ended_have_also_ended_in_the_drill(
    prometheus: PrometheusServer, store: LocalStore, tmp_path: Path
) -> None:
    """Queries return the last sample of a series for five minutes, unless marked as stale."""
    now = datetime.now(UTC)
    last = now - 7 * MINUTE
    prometheus.write("marked", [(last, 1.0), (last + MINUTE, STALE)])
    prometheus.write("unmarked", [(last, 1.0)])
    prometheus.write("absent", [(now - 11 * MINUTE, 1.0)])
    queries = ("marked", "unmarked", "absent", "count_over_time(absent[10m])")
    drilling, manifest = drilling_of(prometheus, store, tmp_path, options(fingerprints=queries))

    assert [numbers(f) for f in manifest.fingerprints] == [[], ["1"], [], ["1"]]
    assert drilling.result()["verdict"] == "pass"


@pytest.fixture
def recent() -> BlockSpec:
    """Recent blocks. After old ones, the first sample would make Prometheus compact its head,
    including any out-of-order samples.
    """
    before = datetime.now(UTC) - 30 * MINUTE
    end = before - (before - datetime(1970, 1, 1, tzinfo=UTC)) % BLOCK_LENGTH
    return BlockSpec(start=end - 4 * BLOCK_LENGTH)


@pytest.fixture
def out_of_order(
    start_prometheus: PrometheusFleet,
    prometheus_binaries: PrometheusBinaries,
    tmp_path: Path,
    recent: BlockSpec,
) -> PrometheusServer:
    """A source that accepts out-of-order samples and has some of them only in memory."""
    write_openmetrics_blocks(tmp_path / "data", prometheus_binaries.promtool, recent)
    server = start_prometheus(
        prometheus_binaries,
        tmp_path / "data",
        PrometheusOptions(config=OUT_OF_ORDER, scrape_interval=None),
    )
    now = datetime.now(UTC)
    server.write("steady", [(now - MINUTE, 1.0)])
    server.write("steady", [(now - 20 * MINUTE, 2.0), (now - 10 * MINUTE, 3.0)])
    return server


def test_out_of_order_samples_in_memory_are_not_queried_because_no_snapshot_has_them(
    out_of_order: PrometheusServer, store: LocalStore, tmp_path: Path, recent: BlockSpec
) -> None:
    late = "sum(sum_over_time(steady[1h]))"
    old = "sum(count_over_time(devtools_value[8h]))"
    assert out_of_order.query(late)[0]["value"][1] == "6", "the source has them"

    drilling, manifest = drilling_of(
        out_of_order, store, tmp_path, options(fingerprints=(late, old))
    )

    at = last_sample(recent) - 30 * MINUTE
    assert {f.at for f in manifest.fingerprints} == {at}
    assert drilling.result()["verdict"] == "pass"
    # Queried like any other source, this would have been a false alarm.
    naive = out_of_order.query(late, at=datetime.now(UTC) - 5 * MINUTE)
    drilling.change_manifest(
        lambda document: document.update(
            fingerprints=[
                {
                    "query": late,
                    "at": (datetime.now(UTC) - 5 * MINUTE).isoformat(),
                    "answer": {
                        "type": "vector",
                        "series": [{"labels": {}, "value": naive[0]["value"][1]}],
                    },
                }
            ]
        )
    )
    assert drilling.kinds() == {"other-answer"}


def test_new_source_with_an_out_of_order_window_has_no_instant_yet(
    start_prometheus: PrometheusFleet, prometheus_3: PrometheusBinaries, store: LocalStore
) -> None:
    server = start_prometheus(
        prometheus_3, None, PrometheusOptions(config=OUT_OF_ORDER, scrape_interval=None)
    )
    server.write("steady", [(datetime.now(UTC), 1.0)])
    report = take_backup(server, store, options(fingerprints=("steady",)))

    assert report.outcome is Outcome.DONE
    assert "no block is on disk yet" in report.manifest.fingerprints[0].inconclusive


def test_drill_compares_native_histograms_with_all_buckets(
    start_prometheus: PrometheusFleet,
    prometheus_binaries: PrometheusBinaries,
    store: LocalStore,
    tmp_path: Path,
) -> None:
    server = start_prometheus(
        prometheus_binaries,
        None,
        PrometheusOptions(
            scrape_interval=None, extra_flags=("--enable-feature=native-histograms",)
        ),
    )
    now = datetime.now(UTC)
    server.write(
        "latency",
        [
            (now - timedelta(minutes=30 - n), Histogram(zero=n, buckets=(4 * n, n), sum=2.5 * n))
            for n in range(1, 30)
        ],
    )
    queries = ("latency", "sum(rate(latency[10m]))", "histogram_quantile(0.9, latency)")

    drilling, manifest = drilling_of(server, store, tmp_path, options(fingerprints=queries))

    kept = by_query(manifest)["latency"].answer
    assert kept is not None
    assert kept.series[0].histogram is not None
    assert len(kept.series[0].histogram.buckets) == 3
    assert drilling.result()["verdict"] == "pass"

    def one_more(document: dict[str, Any]) -> None:
        bucket = document["fingerprints"][0]["answer"]["series"][0]["histogram"]["buckets"][-1]
        bucket["count"] = str(int(bucket["count"]) + 1)

    drilling.change_manifest(one_more)
    assert drilling.kinds() == {"other-answer"}
