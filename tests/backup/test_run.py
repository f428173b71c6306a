"""A first backup of a real Prometheus: its objects, their tags, and what it leaves behind."""

import json
import re
import subprocess
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path

import pytest

from devtools.blocks import BlockSpec
from devtools.fetch_prometheus import PrometheusBinaries
from devtools.prometheus import PrometheusFleet, PrometheusOptions, PrometheusServer
from devtools.s3 import S3Bucket
from prometheus_backup.events import (
    BackupCommitted,
    FileCopied,
    FileUploaded,
    SnapshotRemoved,
    SnapshotTaken,
)
from prometheus_backup.model import Level, Outcome
from prometheus_backup.repository.layout import catalog_key
from prometheus_backup.retention.policy import Policy
from prometheus_backup.stores.local import LocalStore
from tests.support.contents import (
    CLEAN,
    SnapshotKeeper,
    backup_folders,
    keys,
    live_blocks,
    objects,
    traces,
    tree,
)
from tests.support.memory_store import MemoryStore
from tests.support.runs import FakeClock, Recorder, cli, options, settings, take_backup
from tests.support.s3 import open_s3

CONTROL = {"SHA256SUMS", "metadata.json"}
FIRST_SIX = [
    "snapshot_name",
    "backup_id",
    "timestamp",
    "prometheus_url",
    "retention_time",
    "storage_size_bytes",
]
INSTANT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{3})?Z")


def test_a_backup_contains_exactly_the_snapshot_the_manifest_and_the_checksums(
    prometheus: PrometheusServer, s3_bucket: S3Bucket, tmp_path: Path
) -> None:
    keeper = SnapshotKeeper(prometheus.data_dir, tmp_path / "kept")
    store = open_s3(s3_bucket)
    report = take_backup(prometheus, store, listener=keeper)
    assert report.outcome is Outcome.DONE
    backup_id = report.manifest.backup_id

    stored = objects(store, backup_id)
    assert {path: stored[path] for path in stored.keys() - CONTROL} == tree(keeper.kept)
    assert stored.keys() >= CONTROL
    ulids = {path.name for path in live_blocks(prometheus.data_dir)}
    in_backup = {path.partition("/")[0] for path in stored.keys() - CONTROL}
    assert ulids < in_backup
    assert len(in_backup - ulids) == 1  # the head
    # There is nothing else in the bucket: incomplete.json and probes were removed.
    assert {key.partition("/")[0] for key in keys(store)} == {backup_id}
    prefix = "prometheus-snapshots"
    assert set(s3_bucket.keys()) == {
        *(f"{prefix}/{key}" for key in keys(store)),
        f"{prefix}/{catalog_key(backup_id)}",
    }


def test_sha256sums_passes_the_sha256sum_command(source: PrometheusServer, tmp_path: Path) -> None:
    store = LocalStore(tmp_path / "repository")
    backup_id = take_backup(source, store).manifest.backup_id
    folder = tmp_path / "repository" / backup_id
    checked = subprocess.run(
        ["sha256sum", "--strict", "-c", "SHA256SUMS"],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr
    named = {line.partition(":")[0] for line in checked.stdout.splitlines()}
    assert named == tree(folder).keys() - CONTROL


def test_the_manifest_describes_the_backup(
    prometheus: PrometheusServer, tsdb_block_spec: BlockSpec, tmp_path: Path
) -> None:
    before = datetime.now(UTC)
    keeper = SnapshotKeeper(prometheus.data_dir, tmp_path / "kept")
    store = MemoryStore()
    chosen = options(labels={"cluster": "eu-1", "replica": "a"})
    backup_id = take_backup(prometheus, store, chosen, listener=keeper).manifest.backup_id
    text = objects(store, backup_id)["metadata.json"].decode()
    manifest = json.loads(text)

    assert list(manifest)[:6] == FIRST_SIX
    (taken,) = keeper.of(SnapshotTaken)
    size = sum(len(body) for body in tree(keeper.kept).values())
    assert manifest["snapshot_name"] == taken.name
    assert manifest["backup_id"] == backup_id
    assert manifest["timestamp"].replace("-", "").replace(":", "") == (
        backup_id.removeprefix("backup-").replace("-", "T") + "Z"
    )
    assert manifest["prometheus_url"] == prometheus.url
    assert manifest["retention_time"] == "10y"
    assert manifest["storage_size_bytes"] == size

    build = prometheus.get("status/buildinfo")
    assert manifest["format_version"] == 1
    assert manifest["labels"] == {"cluster": "eu-1", "replica": "a"}
    assert (manifest["degraded"], manifest["verified"]) == ([], "checksum")
    assert manifest["prometheus"] == {
        "version": build["version"],
        "revision": build["revision"],
        "hostname": prometheus.get("status/runtimeinfo").get("hostname"),
        "retention": "10y",
        "out_of_order": None,
        "lookback": "5m",
        "evaluation_interval": "1m",
        "features": [],
    }
    assert manifest["min_time"] == f"{tsdb_block_spec.min_time:%Y-%m-%dT%H:%M:%SZ}"
    for name in ("timestamp", "started_at", "finished_at", "min_time", "max_time"):
        assert INSTANT.fullmatch(manifest[name]), name
    started, finished = (
        datetime.fromisoformat(manifest[name]) for name in ("started_at", "finished_at")
    )
    assert before - timedelta(milliseconds=1) <= started < finished <= datetime.now(UTC)
    assert manifest["totals"] == {
        "blocks": 5,
        "files": len(tree(keeper.kept)),
        "bytes": size,
        "uploaded_bytes": size,
        "copied_bytes": 0,
    }
    assert text.startswith('{\n  "snapshot_name"')
    assert text.endswith("}\n")


def test_the_manifest_describes_each_block_as_its_own_meta_json_does(
    prometheus: PrometheusServer, tmp_path: Path
) -> None:
    keeper = SnapshotKeeper(prometheus.data_dir, tmp_path / "kept")
    manifest = take_backup(prometheus, MemoryStore(), listener=keeper).manifest
    assert {block.ulid for block in manifest.blocks} == {p.name for p in keeper.kept.iterdir()}
    for block in manifest.blocks:
        folder = keeper.kept / block.ulid
        meta = json.loads((folder / "meta.json").read_bytes())
        assert block.min_time.timestamp() * 1000 == meta["minTime"]
        assert block.max_time.timestamp() * 1000 == meta["maxTime"]
        assert block.level == meta["compaction"]["level"]
        assert list(block.sources) == meta["compaction"]["sources"]
        assert block.stats == meta["stats"]
        assert {f.path: f.size for f in block.files} == {
            path: len(body) for path, body in tree(folder).items()
        }
        assert all(f.key == f"{manifest.backup_id}/{block.ulid}/{f.path}" for f in block.files)
    times = [block.min_time for block in manifest.blocks]
    assert all(earlier <= later for earlier, later in pairwise(times))


def test_nothing_is_left_in_the_data_directory(prometheus: PrometheusServer) -> None:
    before = {path.name for path in prometheus.data_dir.iterdir()}
    recorder = Recorder()
    take_backup(prometheus, MemoryStore(), listener=recorder)
    (taken,) = recorder.of(SnapshotTaken)
    assert recorder.of(SnapshotRemoved) == [SnapshotRemoved(taken.name)]
    assert traces(prometheus.data_dir) == CLEAN
    after = {path.name for path in prometheus.data_dir.iterdir()}
    assert after - before == {"snapshots", ".prometheus-backup"}


def test_every_object_is_reported_once_and_the_commit_comes_last(
    source: PrometheusServer,
) -> None:
    recorder, store = Recorder(), MemoryStore()
    manifest = take_backup(source, store, listener=recorder).manifest
    sent = recorder.of(FileUploaded)
    assert sorted(e.key for e in sent) == sorted(f.key for _, f in manifest.files())
    assert sum(e.size for e in sent) == manifest.totals.uploaded_bytes
    assert recorder.of(FileCopied) == []
    (committed,) = recorder.of(BackupCommitted)
    assert recorder.events.index(committed) > recorder.events.index(sent[-1])
    assert committed.backup_id == manifest.backup_id
    assert committed.size == committed.uploaded == manifest.totals.bytes


@pytest.mark.parametrize("server", ["s3_bucket", "moto_bucket"])
def test_every_object_has_the_tags(
    server: str, request: pytest.FixtureRequest, source: PrometheusServer
) -> None:
    bucket: S3Bucket = request.getfixturevalue(server)
    backup_id = take_backup(source, open_s3(bucket)).manifest.backup_id
    day = datetime.strptime(backup_id, "backup-%Y%m%d-%H%M%S").replace(tzinfo=UTC)
    common = {
        "Type": "yearly",  # the first backup of a year is the yearly one
        "Date": f"{day:%Y-%m-%d}",
        "Month": f"{day:%Y-%m}",
        "Year": f"{day:%Y}",
        "SnapshotName": backup_id,
    }
    own = [key for key in bucket.sizes() if f"/{backup_id}/" in key]
    found = {key.partition(f"{backup_id}/")[2]: bucket.tags(key) for key in own}
    assert {path: tags for path, tags in found.items() if path in CONTROL} == dict.fromkeys(
        CONTROL, common
    )
    data = found.keys() - CONTROL
    assert {path: found[path] for path in data} == dict.fromkeys(data, common | {"Content": "data"})


@pytest.mark.parametrize("sse", ["AES256", "aws:kms"])
def test_only_block_files_have_the_class_and_all_objects_are_encrypted(
    source: PrometheusServer, moto_bucket: S3Bucket, sse: str
) -> None:
    chosen = options(storage_class="STANDARD_IA")
    made = take_backup(source, open_s3(moto_bucket, sse=sse), chosen).manifest.backup_id
    catalogued = {Path(catalog_key(made)).name}
    heads = {
        key: moto_bucket.client.head_object(Bucket=moto_bucket.name, Key=key)
        for key in moto_bucket.sizes()
    }
    classes = {key: head.get("StorageClass", "STANDARD") for key, head in heads.items()}
    assert classes == {
        key: "STANDARD" if key.rpartition("/")[2] in CONTROL | catalogued else "STANDARD_IA"
        for key in heads
    }
    assert {head.get("ServerSideEncryption") for head in heads.values()} == {sse}


def test_without_encryption_none_is_requested(
    source: PrometheusServer, moto_bucket: S3Bucket
) -> None:
    take_backup(source, open_s3(moto_bucket, sse="none"))
    for key in moto_bucket.sizes():
        head = moto_bucket.client.head_object(Bucket=moto_bucket.name, Key=key)
        assert "ServerSideEncryption" not in head


def test_the_type_tag_is_the_highest_tier_of_the_backup(
    source: PrometheusServer,
) -> None:
    clock = FakeClock()
    store = MemoryStore(clock=clock)
    types = {}
    for day in ("2025-03-07", "2025-03-08", "2025-04-01", "2025-04-02", "2026-01-01"):
        clock.set(datetime.fromisoformat(f"{day}T02:00:00Z"))
        manifest = take_backup(source, store, clock=clock).manifest
        types[day] = {store.options(f.key).tags["Type"] for _, f in manifest.files()} | {
            store.options(f"{manifest.backup_id}/metadata.json").tags["Type"]
        }
    assert types == {
        "2025-03-07": {"yearly"},  # the first of its year and month
        "2025-03-08": {"daily"},
        "2025-04-01": {"monthly"},
        "2025-04-02": {"daily"},
        "2026-01-01": {"yearly"},
    }


def test_retention_deletes_what_is_too_old_after_the_commit(source: PrometheusServer) -> None:
    clock = FakeClock()
    store = MemoryStore(clock=clock)
    chosen = options(policy=Policy(daily=2, monthly=0, yearly=0))
    ids = []
    for day in (1, 2, 3, 4):
        clock.set(datetime(2025, 3, day, 2, tzinfo=UTC))
        report = take_backup(source, store, chosen, clock=clock)
        ids.append(report.manifest.backup_id)
    assert report.prune.deleted == (ids[1],)
    assert backup_folders(store) == ids[2:]


def test_the_out_of_order_window_is_recorded(
    prometheus_binaries: PrometheusBinaries, start_prometheus: PrometheusFleet, data_dir: Path
) -> None:
    config = "storage:\n  tsdb:\n    out_of_order_time_window: 30m\n"
    server = start_prometheus(prometheus_binaries, data_dir, PrometheusOptions(config=config))
    assert take_backup(server, MemoryStore()).manifest.prometheus.out_of_order == "30m"


def test_with_skip_head_only_the_blocks_on_disk_are_backed_up(
    prometheus: PrometheusServer,
) -> None:
    manifest = take_backup(prometheus, MemoryStore(), options(skip_head=True)).manifest
    assert {block.ulid for block in manifest.blocks} == {
        path.name for path in live_blocks(prometheus.data_dir)
    }
    assert manifest.degraded == ()


@pytest.mark.parametrize("level", [None, Level.SIZE, Level.CHECKSUM])
def test_the_manifest_records_the_level_it_was_verified_at(
    source: PrometheusServer, level: Level | None
) -> None:
    store = MemoryStore()
    backup_id = take_backup(source, store, options(verify=level)).manifest.backup_id
    assert json.loads(objects(store, backup_id)["metadata.json"])["verified"] == level


def test_the_command_line_makes_the_same_backup_and_reports_it(
    source: PrometheusServer, s3_bucket: S3Bucket
) -> None:
    done = cli(
        "backup",
        "--json",
        "--label",
        "cluster=eu-1",
        env=settings(source, s3_bucket, S3_PREFIX="team/a"),
    )
    assert done.returncode == 0, done.stderr
    output = json.loads(done.stdout)
    store = open_s3(s3_bucket, prefix="team/a")
    (backup_id,) = backup_folders(store)
    manifest = json.loads(objects(store, backup_id)["metadata.json"])
    assert backup_id in done.stdout
    assert manifest["labels"] == {"cluster": "eu-1"}
    assert manifest["totals"]["blocks"] == 5
    assert output["backup_id"] == backup_id
    assert output["totals"] == manifest["totals"]
    assert traces(source.data_dir) == CLEAN
