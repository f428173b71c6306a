"""SIGTERM, SIGHUP and Ctrl-C, sent to the real command line in each phase of a run."""

import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from signal import SIGHUP, SIGINT, SIGTERM, Signals

import pytest

from devtools.blocks import BlockSpec, write_openmetrics_blocks
from devtools.fetch_prometheus import PrometheusBinaries
from devtools.prometheus import PrometheusFleet, PrometheusOptions, PrometheusServer
from devtools.s3 import S3Bucket
from prometheus_backup.backup.options import BackupReport
from prometheus_backup.model import Outcome
from prometheus_backup.repository.layout import CATALOG, INCOMPLETE
from prometheus_backup.repository.manifest import Incomplete, decode
from prometheus_backup.stores.local import LocalStore
from tests.support.contents import CLEAN, in_catalog, traces, tree
from tests.support.repositories import (
    ManualClock,
    make_backup,
    require_no_extra_objects,
    require_whole,
    visible,
)
from tests.support.runs import settings, take_backup
from tests.support.s3 import PREFIX, open_s3
from tests.support.s3_proxy import S3Proxy, S3Request
from tests.support.sources import Proxy
from tests.support.started_cli import CliResult, StartedCli
from tests.support.waiting import wait_until

CODES = {SIGTERM: 143, SIGINT: 130, SIGHUP: 143}
WORDS = {
    SIGTERM: "stopped by SIGTERM",
    SIGINT: "stopped by Ctrl-C",
    SIGHUP: "stopped by SIGHUP",
}


@pytest.fixture
def source(
    start_prometheus: PrometheusFleet, prometheus_3: PrometheusBinaries, tmp_path: Path
) -> PrometheusServer:
    """A Prometheus with one small block and an empty head."""
    data = tmp_path / "data"
    write_openmetrics_blocks(data, prometheus_3.promtool, BlockSpec(blocks=1, series=5))
    return start_prometheus(prometheus_3, data, PrometheusOptions(scrape_interval=None))


@pytest.fixture
def proxy(s3_bucket: S3Bucket) -> Iterator[S3Proxy]:
    """A proxy in front of the bucket's server."""
    with S3Proxy(s3_bucket.endpoint.url) as before:
        yield before


def contents(bucket: S3Bucket) -> dict[str, bytes]:
    keys = [k for k in bucket.keys(PREFIX) if not in_catalog(k.removeprefix(f"{PREFIX}/"))]
    return {k.removeprefix(f"{PREFIX}/"): bucket.get(k) for k in keys}


def snapshots(source: PrometheusServer) -> list[str]:
    return [path for path in traces(source.data_dir) if path.startswith("snapshots/")]


def require_cleaned_up(found: dict[str, bytes], report: BackupReport) -> None:
    """Assert that a run after a stopped one left only complete backups."""
    assert report.outcome is Outcome.DONE
    require_whole(found)
    require_no_extra_objects(found)
    assert {key.partition("/")[0] for key in found} == set(visible(found))
    assert report.manifest.backup_id in visible(found)
    assert not [key for key in found if key.endswith(INCOMPLETE)]


@pytest.mark.parametrize(
    ("phase", "method", "ending", "signal", "committed"),
    [
        ("check", "GET", "/", SIGTERM, False),
        ("claim", "PUT", "/incomplete.json", SIGINT, False),
        ("transfer", "PUT", "/index", SIGTERM, False),
        ("verify", "GET", "/index", SIGINT, False),
        ("verify", "GET", "/index", SIGHUP, False),
        ("commit", "PUT", "/SHA256SUMS", SIGTERM, False),
        ("manifest", "PUT", "/metadata.json", SIGTERM, True),
        ("retention", "PUT", f"/{CATALOG}/", SIGINT, True),
    ],
)
def test_stopped_run_cleans_up_and_the_next_one_works_immediately(
    source: PrometheusServer,
    s3_bucket: S3Bucket,
    proxy: S3Proxy,
    tmp_path: Path,
    phase: str,
    method: str,
    ending: str,
    signal: Signals,
    *,
    committed: bool,
) -> None:
    env = settings(source, s3_bucket, AWS_ENDPOINT_URL=proxy.url, SKIP_HEAD="true")
    with StartedCli("backup", env=env, directory=tmp_path / "run") as run:
        sent = threading.Event()

        def gate(request: S3Request) -> bool:
            at_root = ending == "/" and "prefix=prometheus-snapshots%2F" in request.path
            catalogued = CATALOG in ending and ending in request.path
            found = request.path.endswith(ending) or at_root or catalogued
            if request.method == method and found:
                sent.set()
                # Those after the first change nothing. (Of two that arrive during one call of a
                # library, Python sees SIGINT first.)
                for number in (signal, signal, SIGTERM):
                    run.send(number)
                    time.sleep(0.05)
            return True

        proxy.begin(gate)
        ended = run.end()

    assert sent.is_set(), f"there was no {phase}"
    assert ended.code == CODES[signal], ended.log
    assert WORDS[signal] in ended.log
    assert "Traceback" not in ended.log
    assert snapshots(source) == []
    left = contents(s3_bucket)
    require_whole(left)
    assert len(visible(left)) == committed
    marks = [decode(Incomplete, body) for key, body in left.items() if key.endswith(INCOMPLETE)]
    assert {mark and mark.state for mark in marks} <= (
        {"abandoned", "running"} if phase == "claim" else {"abandoned"}
    )

    report = take_backup(source, open_s3(s3_bucket))

    require_cleaned_up(contents(s3_bucket), report)
    assert traces(source.data_dir) == CLEAN


def stopped_while_it_waits(
    env: dict[str, str], asked: threading.Event, directory: Path, number: Signals
) -> CliResult:
    """Stop a run that waits for the response to its snapshot request."""
    with StartedCli("backup", env=env, directory=directory) as run:
        assert asked.wait(60)
        run.send(number)
        return run.end()


@pytest.mark.parametrize("signal", [SIGTERM, SIGINT, SIGHUP])
def test_run_stopped_before_it_knows_its_snapshot_removes_it(
    source: PrometheusServer, tmp_path: Path, signal: Signals
) -> None:
    """Prometheus has taken the snapshot, but the response is delayed."""
    asked, over = threading.Event(), threading.Event()

    def hold(pass_on: Callable[[], None]) -> None:
        pass_on()
        asked.set()
        over.wait(60)

    repository = tmp_path / "repository"
    with Proxy(source.url, on_snapshot=hold) as before:
        env = settings(source, repository, PROMETHEUS_URL=before.url)
        ended = stopped_while_it_waits(env, asked, tmp_path / "run", signal)
        over.set()
    assert ended.code == CODES[signal], ended.log
    assert "snapshot removed" in ended.log
    assert snapshots(source) == []
    assert visible(tree(repository)) == {}

    report = take_backup(source, LocalStore(repository))

    require_cleaned_up(tree(repository), report)
    assert traces(source.data_dir) == CLEAN


def test_snapshot_that_appears_after_the_run_was_stopped_is_removed_by_the_next(
    source: PrometheusServer, tmp_path: Path
) -> None:
    """The request was in transit, or waited for a compaction to end."""
    asked, over, made = threading.Event(), threading.Event(), threading.Event()

    def delay(pass_on: Callable[[], None]) -> None:
        asked.set()
        over.wait(60)
        pass_on()
        made.set()

    repository = tmp_path / "repository"
    with Proxy(source.url, on_snapshot=delay) as before:
        env = settings(source, repository, PROMETHEUS_URL=before.url)
        ended = stopped_while_it_waits(env, asked, tmp_path / "run", SIGTERM)
        assert ended.code == 143, ended.log
        assert snapshots(source) == []
        over.set()
        assert made.wait(60)
    assert snapshots(source) != []

    report = take_backup(source, LocalStore(repository))

    require_cleaned_up(tree(repository), report)
    assert traces(source.data_dir) == CLEAN


def test_run_waiting_for_bandwidth_stops_soon(source: PrometheusServer, tmp_path: Path) -> None:
    """At this rate, the first file takes seconds, and the others much longer."""
    repository = tmp_path / "repository"
    env = settings(source, repository, MAX_BANDWIDTH="4kB", CONCURRENCY="1")
    with StartedCli("backup", env=env, directory=tmp_path / "run") as run:
        run.wait_for_log("step=transfer")
        wait_until(lambda: any(repository.glob("backup-*/*/chunks/0*")))
        run.send(SIGTERM)
        ended = run.end(deadline=30)
    assert ended.code == 143, ended.log
    assert snapshots(source) == []
    [mark] = [b for key, b in tree(repository).items() if key.endswith(INCOMPLETE)]
    abandoned = decode(Incomplete, mark)
    assert abandoned is not None
    assert abandoned.state == "abandoned"
    assert len(abandoned.finished) >= 1

    report = take_backup(source, LocalStore(repository))

    salvaged = sum(f.size for f in abandoned.finished if f.path not in ("meta.json", "tombstones"))
    assert salvaged > 0
    assert report.manifest.totals.copied_bytes == salvaged
    require_cleaned_up(tree(repository), report)
    assert traces(source.data_dir) == CLEAN


def test_stopped_prune_deletes_no_further_backup(
    s3_bucket: S3Bucket, proxy: S3Proxy, tmp_path: Path
) -> None:
    """A stop must not be treated as a failed deletion, after which the others continue."""
    store = open_s3(s3_bucket)
    clock = ManualClock(datetime.now(UTC))
    days = (50, 40, 2, 1, 0)
    made = [make_backup(store, clock, at=clock.instant - timedelta(days=d)) for d in days]
    env = s3_bucket.endpoint.environment() | {
        "AWS_ENDPOINT_URL": proxy.url,
        "S3_BUCKET": s3_bucket.name,
        "RETENTION_DAILY": "10",
        "RETENTION_MONTHLY": "0",
        "RETENTION_YEARLY": "0",
    }
    with StartedCli("prune", env=env, directory=tmp_path / "run") as run:
        sent = threading.Event()

        def gate(request: S3Request) -> bool:
            if request.method == "PUT" and made[0] in request.path:
                sent.set()
                run.send(SIGTERM)
                time.sleep(0.1)
            return True

        proxy.begin(gate)
        ended = run.end()
    assert sent.is_set()
    assert ended.code == 143, ended.log
    found = contents(s3_bucket)
    require_whole(found)
    assert {*visible(found)} == {*made}
    assert [key for key in found if key.endswith(INCOMPLETE)] == [f"{made[0]}/{INCOMPLETE}"]
