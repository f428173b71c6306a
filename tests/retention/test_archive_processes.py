"""Real processes at once on an archive in a real S3 server: backups, and a prune during others."""

import shutil
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from devtools.blocks import BlockSpec, write_openmetrics_blocks
from devtools.fetch_prometheus import PrometheusBinaries
from devtools.prometheus import PrometheusFleet, PrometheusOptions
from devtools.s3 import S3Bucket
from prometheus_backup.repository.layout import CLAIMS
from prometheus_backup.repository.repository import Repository
from tests.retention.test_prune_meanwhile import GOING, KEPT
from tests.support import manifests
from tests.support.archives import archive_run, prune
from tests.support.repositories import ManualClock, require_whole, visible
from tests.support.runs import settings
from tests.support.s3 import PREFIX, open_s3
from tests.support.s3_proxy import S3Proxy, S3Request
from tests.support.started_cli import StartedCli

DAY = timedelta(days=1)


@pytest.fixture
def proxy(s3_bucket: S3Bucket) -> Iterator[S3Proxy]:
    with S3Proxy(s3_bucket.endpoint.url) as before:
        yield before


def contents(bucket: S3Bucket) -> dict[str, bytes]:
    return {k.removeprefix(f"{PREFIX}/"): bucket.get(k) for k in bucket.keys(PREFIX)}


def test_two_runs_at_once_that_have_the_same_blocks_both_commit(
    start_prometheus: PrometheusFleet,
    prometheus_3: PrometheusBinaries,
    s3_bucket: S3Bucket,
    proxy: S3Proxy,
    tmp_path: Path,
) -> None:
    """Each is held at its first upload until the other one has reached its own."""
    together = threading.Barrier(2, timeout=60)
    seen: set[str] = set()

    def gate(request: S3Request) -> bool:
        keeper = request.path.split("/chunks/")[0]
        if request.method == "PUT" and "/chunks/" in request.path and keeper not in seen:
            seen.add(keeper)
            together.wait()
        return True

    proxy.begin(gate)
    data = tmp_path / "one"
    write_openmetrics_blocks(data, prometheus_3.promtool, BlockSpec(blocks=1, series=5))
    shutil.copytree(data, tmp_path / "two")
    runs = []
    for name in ("one", "two"):
        source = start_prometheus(
            prometheus_3, tmp_path / name, PrometheusOptions(scrape_interval=None)
        )
        chosen = {"AWS_ENDPOINT_URL": proxy.url, "LAYOUT": "archive", "SKIP_HEAD": "true"}
        env = settings(source, s3_bucket, **chosen)
        runs.append(StartedCli("backup", env=env, directory=tmp_path / f"run-{name}"))
    for run in runs:
        with run:
            ended = run.end()
            assert ended.code == 0, ended.log
    found = contents(s3_bucket)
    require_whole(found)
    folders = [m.folders for m in visible(found).values()]
    assert len(folders) == 2
    assert len(frozenset().union(*folders)) == 2, "each has a folder of its own"
    assert not [key for key in found if key.startswith(f"{CLAIMS}/")]


@pytest.mark.parametrize("command", ["restore", "verify"])
def test_a_prune_that_deletes_a_backup_while_it_is_read_is_no_damage(
    command: str, s3_bucket: S3Bucket, proxy: S3Proxy, tmp_path: Path
) -> None:
    clock = ManualClock(datetime.now(UTC).replace(microsecond=0) - 2 * DAY)
    store = open_s3(s3_bucket)
    going = archive_run(store, clock, run_id="one", contents={**KEPT, **GOING})
    previous = Repository(store, clock=clock).manifest(going)
    clock.instant += DAY
    kept = archive_run(store, clock, run_id="two", contents=KEPT, previous=previous)
    reached, go_on = threading.Event(), threading.Event()

    def gate(request: S3Request) -> bool:
        if request.method == "GET" and f"/{manifests.OTHER_ULID}/" in request.path:
            reached.set()
            go_on.wait(60)
        return True

    proxy.begin(gate)
    env = s3_bucket.endpoint.environment() | {
        "AWS_ENDPOINT_URL": proxy.url,
        "S3_BUCKET": s3_bucket.name,
    }
    target = tmp_path / "target"
    arguments = ("restore", going, str(target)) if command == "restore" else ("verify", "--all")
    with StartedCli(*arguments, env=env, directory=tmp_path / "run") as run:
        assert reached.wait(60), run.log()
        clock.instant = datetime.now(UTC) + DAY
        for _ in range(3):
            prune(store, clock)
            clock.instant += 2 * DAY
        assert not [key for key in contents(s3_bucket) if f"/{manifests.OTHER_ULID}/" in key]
        go_on.set()
        ended = run.end()
    if command == "restore":
        assert ended.code == 30, ended.log
        assert f"cannot restore {going}: it was deleted meanwhile" in ended.log
        again = StartedCli(
            "restore", kept, str(target), "--merge", env=env, directory=tmp_path / "again"
        )
        with again:
            assert again.end().code in (0, 3), again.log()
        assert (target / manifests.ULID / "index").is_file()
    else:
        assert ended.code == 0, ended.log
        assert f"{going} was deleted while it was verified" in ended.log
    assert [e.good for e in Repository(store, clock=clock).entries()] == [True]
