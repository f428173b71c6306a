"""Concurrent runs: on one data directory, and from several hosts into one repository."""

import hashlib
import json
import os
import threading
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from devtools.blocks import BlockSpec, write_openmetrics_blocks
from devtools.fetch_prometheus import PrometheusBinaries
from devtools.prometheus import PrometheusFleet, PrometheusOptions, PrometheusServer
from devtools.s3 import S3Bucket
from prometheus_backup.backup.options import BackupReport
from prometheus_backup.errors import RepositoryLocked
from prometheus_backup.events import Event, FileUploaded
from prometheus_backup.model import Level, Outcome, PutOptions
from prometheus_backup.repository.layout import INCOMPLETE, backup_id
from prometheus_backup.repository.manifest import FinishedFile, Incomplete, encode
from prometheus_backup.stores.base import ObjectStore
from prometheus_backup.stores.local import LocalStore
from tests.support.contents import CLEAN, in_catalog, keys, traces, tree
from tests.support.memory_store import MemoryStore
from tests.support.repositories import require_no_extra_objects, require_whole, visible
from tests.support.runs import FakeClock, Recorder, options, settings, take_backup
from tests.support.s3 import PREFIX
from tests.support.s3_proxy import S3Proxy, S3Request
from tests.support.started_cli import StartedCli


def small_source(
    start: PrometheusFleet, binaries: PrometheusBinaries, data: Path, *, seed: int = 0
) -> PrometheusServer:
    spec = BlockSpec(blocks=1, series=5, seed=seed)
    write_openmetrics_blocks(data, binaries.promtool, spec)
    return start(binaries, data, PrometheusOptions(scrape_interval=None))


@pytest.fixture
def source(
    start_prometheus: PrometheusFleet, prometheus_3: PrometheusBinaries, tmp_path: Path
) -> PrometheusServer:
    """A Prometheus with one small block and an empty head."""
    return small_source(start_prometheus, prometheus_3, tmp_path / "data")


@pytest.fixture
def other_source(
    start_prometheus: PrometheusFleet, prometheus_3: PrometheusBinaries, tmp_path: Path
) -> PrometheusServer:
    """A second Prometheus, with a different block."""
    return small_source(start_prometheus, prometheus_3, tmp_path / "other", seed=1)


@pytest.fixture
def proxy(s3_bucket: S3Bucket) -> Iterator[S3Proxy]:
    """A proxy in front of the bucket's server."""
    with S3Proxy(s3_bucket.endpoint.url) as before:
        yield before


def contents(bucket: S3Bucket) -> dict[str, bytes]:
    keys = [k for k in bucket.keys(PREFIX) if not in_catalog(k.removeprefix(f"{PREFIX}/"))]
    return {k.removeprefix(f"{PREFIX}/"): bucket.get(k) for k in keys}


def folders(found: dict[str, bytes]) -> set[str]:
    return {key.partition("/")[0] for key in found}


def test_second_run_on_a_data_directory_exits_11_and_changes_nothing(
    source: PrometheusServer, s3_bucket: S3Bucket, proxy: S3Proxy, tmp_path: Path
) -> None:
    """The first run is paused during its transfer, while its snapshot exists."""
    paused, go_on = threading.Event(), threading.Event()

    def gate(request: S3Request) -> bool:
        if request.method == "PUT" and "/chunks/" in request.path:
            paused.set()
            go_on.wait(60)
        return True

    proxy.begin(gate)
    env = settings(source, s3_bucket, AWS_ENDPOINT_URL=proxy.url, CONCURRENCY="1")
    with StartedCli("backup", env=env, directory=tmp_path / "first") as first:
        assert paused.wait(60)
        before = (contents(s3_bucket), tree(source.data_dir), traces(source.data_dir))
        asked_before = len(proxy.requests)

        with StartedCli("backup", env=env, directory=tmp_path / "second") as second:
            ended = second.end()

        assert ended.code == 11, ended.log
        assert "cannot lock" in ended.log
        assert (contents(s3_bucket), tree(source.data_dir), traces(source.data_dir)) == before
        assert len(proxy.requests) == asked_before
        go_on.set()
        assert first.end().code == 0
    found = contents(s3_bucket)
    require_whole(found)
    assert folders(found) == set(visible(found))
    assert traces(source.data_dir) == CLEAN


def test_concurrent_runs_of_two_hosts_in_one_repository_both_commit(
    source: PrometheusServer,
    other_source: PrometheusServer,
    s3_bucket: S3Bucket,
    proxy: S3Proxy,
    tmp_path: Path,
) -> None:
    """Each is paused at its first upload until the other one has reached it, too."""
    together = threading.Barrier(2, timeout=60)
    seen: set[str] = set()

    def gate(request: S3Request) -> bool:
        folder = request.path.split("/")[3] if request.path.count("/") > 3 else ""
        if request.method == "PUT" and "/chunks/" in request.path and folder not in seen:
            seen.add(folder)
            together.wait()
        return True

    proxy.begin(gate)
    runs = [
        StartedCli(
            "backup",
            "--json",
            env=settings(one, s3_bucket, AWS_ENDPOINT_URL=proxy.url),
            directory=tmp_path / f"run-{number}",
        )
        for number, one in enumerate((source, other_source))
    ]
    reports = []
    for run in runs:
        with run:
            ended = run.end()
            assert ended.code == 0, ended.log
            reports.append(json.loads(ended.output))

    found = contents(s3_bucket)
    require_whole(found)
    require_no_extra_objects(found)
    manifests = visible(found)
    assert len(manifests) == 2
    assert set(manifests) == folders(found) == {r["backup_id"] for r in reports}
    assert not [key for key in found if key.endswith(INCOMPLETE)]
    for report, one in zip(reports, (source, other_source), strict=True):
        ulids = {block.ulid for block in manifests[report["backup_id"]].blocks}
        assert ulids == {path.parent.name for path in one.data_dir.glob("*/meta.json")}
        assert report["totals"]["copied_bytes"] == 0
        assert traces(one.data_dir) == CLEAN


class Interposed:
    """A listener that makes another complete backup after the first upload."""

    def __init__(self, source: PrometheusServer, store: ObjectStore) -> None:
        self._source = source
        self._store = store
        self._once = threading.Lock()
        self.report: BackupReport | None = None

    def __call__(self, event: Event) -> None:
        if isinstance(event, FileUploaded) and self._once.acquire(blocking=False):
            self.report = take_backup(self._source, self._store)


def test_backup_of_another_host_during_ours_affects_neither(
    source: PrometheusServer, other_source: PrometheusServer
) -> None:
    store = MemoryStore()
    between = Interposed(other_source, store)
    report = take_backup(source, store, listener=between)
    assert between.report is not None
    assert report.outcome is between.report.outcome is Outcome.DONE
    found = {key: b"".join(store.stream(key)) for key in keys(store)}
    require_whole(found)
    require_no_extra_objects(found)
    ids = {report.manifest.backup_id, between.report.manifest.backup_id}
    assert set(visible(found)) == folders(found) == ids
    assert len(ids) == 2


def leave_a_run_of_another_host(
    source: PrometheusServer, store: ObjectStore, identifier: str
) -> int:
    """Write what a killed run on another host leaves of this source's block; return its bytes.

    The run backed up the same data directory, before its volume moved to this host.
    """
    [block] = [path.parent for path in source.data_dir.glob("*/meta.json")]
    body = (block / "index").read_bytes()
    key = f"{identifier}/{block.name}/index"
    file = FinishedFile(
        ulid=block.name,
        path="index",
        size=len(body),
        sha256=hashlib.sha256(body).hexdigest(),
        key=key,
    )
    store.put(key, [body], size=len(body), options=PutOptions())
    document = Incomplete(
        run_id="elsewhere",
        state="running",
        host="another",
        started_at=FakeClock().now(),
        finished=(file,),
    )
    store.put_small(f"{identifier}/{INCOMPLETE}", encode(document), options=PutOptions())
    return len(body)


def test_recent_run_of_another_host_is_neither_copied_from_nor_removed(
    source: PrometheusServer,
) -> None:
    store = MemoryStore()
    identifier = backup_id(FakeClock().now() - timedelta(hours=23))
    leave_a_run_of_another_host(source, store, identifier)
    before = [o.key for o in store.list(identifier)]

    report = take_backup(source, store)

    assert report.prune.swept == ()
    assert report.manifest.totals.copied_bytes == 0
    assert [o.key for o in store.list(identifier)] == before


def test_run_of_another_host_is_copied_from_and_removed_after_a_day_without_heartbeat(
    source: PrometheusServer, tmp_path: Path
) -> None:
    """Based on the store's LastModified: here, the modification time of the file."""
    store = LocalStore(tmp_path / "repository")
    identifier = backup_id(FakeClock().now() - timedelta(hours=25))
    size = leave_a_run_of_another_host(source, store, identifier)
    mark = tmp_path / "repository" / identifier / INCOMPLETE
    silent_since = mark.stat().st_mtime - timedelta(hours=24, minutes=1).total_seconds()
    os.utime(mark, (silent_since, silent_since))

    report = take_backup(source, store)

    assert report.manifest.totals.copied_bytes == size
    assert report.prune.swept == (identifier,)
    found = tree(tmp_path / "repository")
    require_whole(found)
    assert folders(found) == {report.manifest.backup_id}


@pytest.mark.parametrize("level", [Level.CHECKSUM, Level.SIZE, None])
def test_salvaged_file_that_differs_from_its_record_is_uploaded_again(
    source: PrometheusServer, tmp_path: Path, level: Level | None
) -> None:
    """Salvaged files were never verified, so they are read back at every level."""
    store = LocalStore(tmp_path / "repository")
    identifier = backup_id(FakeClock().now() - timedelta(hours=25))
    size = leave_a_run_of_another_host(source, store, identifier)
    folder = tmp_path / "repository" / identifier
    [damaged] = folder.glob("*/index")
    damaged.write_bytes(bytes(size))
    mark = folder / INCOMPLETE
    os.utime(mark, (0, 0))
    recorder = Recorder()

    report = take_backup(source, store, options(verify=level), listener=recorder)

    assert "Verification failed" in recorder.warnings
    assert report.manifest.totals.copied_bytes == 0
    require_whole(tree(tmp_path / "repository"))


def test_foreign_object_in_our_folder_stops_the_run_before_its_commit(
    source: PrometheusServer,
) -> None:
    """This happens if two runs use the same ID, on a store without conditional writes."""
    store = MemoryStore()

    def intrude(event: Event) -> None:
        if isinstance(event, FileUploaded):
            folder = event.key.partition("/")[0]
            store.put_small(f"{folder}/of-another-run/index", b"", options=PutOptions())

    with pytest.raises(RepositoryLocked, match="of-another-run"):
        take_backup(source, store, listener=intrude)

    assert visible({o.key: b"".join(store.stream(o.key)) for o in store.list()}) == {}
    assert traces(source.data_dir) == CLEAN
