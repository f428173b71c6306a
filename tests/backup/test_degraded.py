"""Incomplete backups: a block that Prometheus cannot read, or no blocks."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from devtools.fetch_prometheus import PrometheusBinaries
from devtools.prometheus import PrometheusFleet, PrometheusOptions, PrometheusServer
from prometheus_backup.errors import SnapshotUnusable
from prometheus_backup.events import FileCopied
from prometheus_backup.model import Outcome
from prometheus_backup.repository.repository import Repository
from tests.support.contents import CLEAN, keys, live_blocks, traces
from tests.support.memory_store import MemoryStore
from tests.support.runs import FakeClock, Recorder, cli, options, settings, take_backup

Spoil = Callable[[Path], object]


def remove_meta(block: Path) -> None:
    """Remove a block's meta.json, as in a half-copied block."""
    (block / "meta.json").unlink()


def empty_meta(block: Path) -> None:
    """Truncate meta.json to nothing, as on a full disk."""
    (block / "meta.json").write_bytes(b"")


def cut_meta(block: Path) -> None:
    """Truncate meta.json in the middle."""
    meta = block / "meta.json"
    meta.write_bytes(meta.read_bytes()[: meta.stat().st_size // 2])


def damage_meta(block: Path, **changes: object) -> None:
    meta = json.loads((block / "meta.json").read_bytes())
    (block / "meta.json").write_text(json.dumps(meta | changes))


def end_before_the_begin(block: Path) -> None:
    """Change a digit of minTime."""
    damage_meta(block, minTime=9737331200000)


def garbage_sources(block: Path) -> None:
    damage_meta(block, compaction={"level": 1, "sources": ["garbage"]})


def link_a_chunk_file(block: Path) -> None:
    segment = block / "chunks" / "000001"
    segment.rename(block.parent / "elsewhere")
    segment.symlink_to(block.parent / "elsewhere")


def remove_the_chunk_files(block: Path) -> None:
    (block / "chunks" / "000001").unlink()


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (end_before_the_begin, "it ends before it begins"),
        (garbage_sources, 'sources is "garbage", not a ULID'),
        (link_a_chunk_file, "chunks/000001 is not a regular file"),
        (remove_the_chunk_files, "has no chunk file"),
    ],
)
def test_a_block_that_a_manifest_cannot_describe_is_left_out_and_the_others_are_saved(
    prometheus_binaries: PrometheusBinaries,
    start_prometheus: PrometheusFleet,
    data_dir: Path,
    tmp_path: Path,
    spoil: Spoil,
    reason: str,
) -> None:
    """The block is damaged while Prometheus runs, which puts it into the snapshot as it is."""
    server = start_prometheus(prometheus_binaries, data_dir)
    server.fill_head()
    spoilt = live_blocks(data_dir)[1]
    spoil(spoilt)
    (tmp_path / "repository").mkdir()

    done = cli("backup", "--json", env=settings(server, tmp_path / "repository"))

    assert done.returncode == 3, done.stderr
    assert "Traceback" not in done.stderr
    (degraded,) = json.loads(done.stdout)["degraded"]
    assert degraded.startswith(f"block {spoilt.name} was not backed up: ")
    assert reason in degraded
    assert "prometheus-backup heal" in degraded
    (manifest,) = (tmp_path / "repository").glob("backup-*/metadata.json")
    saved = {b["ulid"] for b in json.loads(manifest.read_text())["blocks"]}
    assert len(saved) == 4, "three old blocks and the head"
    assert spoilt.name not in saved


@pytest.mark.parametrize("spoil", [remove_meta, empty_meta, cut_meta])
def test_a_live_block_missing_from_the_snapshot_makes_the_backup_degraded(
    prometheus_binaries: PrometheusBinaries,
    start_prometheus: PrometheusFleet,
    data_dir: Path,
    spoil: Spoil,
) -> None:
    spoilt = live_blocks(data_dir)[1]
    spoil(spoilt)
    server = start_prometheus(prometheus_binaries, data_dir)
    server.fill_head()
    store = MemoryStore()
    report = take_backup(server, store)
    assert report.outcome is Outcome.PARTIAL
    assert report.outcome.exit_code == 3
    (reason,) = report.manifest.degraded
    assert reason.startswith(f"block {spoilt.name} is live but not in the snapshot")
    assert spoilt.name not in {b.ulid for b in report.manifest.blocks}
    assert len(report.manifest.blocks) == 4  # three old ones and the head
    (entry,) = Repository(store, clock=FakeClock()).entries()
    assert entry.header is not None, "what there was is saved"
    assert not entry.good
    assert traces(data_dir) == CLEAN


def test_blocks_of_a_degraded_backup_are_copied_not_uploaded_again(
    prometheus_3: PrometheusBinaries, start_prometheus: PrometheusFleet, data_dir: Path
) -> None:
    spoilt = live_blocks(data_dir)[1]
    original = (spoilt / "meta.json").read_bytes()
    empty_meta(spoilt)
    server = start_prometheus(prometheus_3, data_dir, PrometheusOptions(scrape_interval=None))
    store, recorder = MemoryStore(), Recorder()
    assert take_backup(server, store).manifest.degraded
    (spoilt / "meta.json").write_bytes(original)
    server.restart()
    report = take_backup(server, store, listener=recorder)
    assert report.outcome is Outcome.DONE
    assert report.manifest.totals.blocks == 4
    copied = {e.key.split("/")[1] for e in recorder.of(FileCopied)}
    assert copied == {block.name for block in live_blocks(data_dir)} - {spoilt.name}


def test_the_command_line_reports_degraded_and_exits_3(
    prometheus_3: PrometheusBinaries,
    start_prometheus: PrometheusFleet,
    data_dir: Path,
    tmp_path: Path,
) -> None:
    spoilt = live_blocks(data_dir)[1]
    empty_meta(spoilt)
    env = settings(start_prometheus(prometheus_3, data_dir), tmp_path / "repository")
    done = cli("backup", "--json", env=env)
    assert done.returncode == 3, done.stderr
    output = json.loads(done.stdout)
    assert output["outcome"] == "partial"
    assert spoilt.name in output["degraded"][0]
    assert "degraded" in cli("list", env=env).stdout


@pytest.fixture
def empty_source(
    prometheus_binaries: PrometheusBinaries, start_prometheus: PrometheusFleet
) -> PrometheusServer:
    """A Prometheus without blocks or samples."""
    return start_prometheus(prometheus_binaries, None, PrometheusOptions(scrape_interval=None))


def test_a_snapshot_without_blocks_fails_the_backup(empty_source: PrometheusServer) -> None:
    store = MemoryStore()
    with pytest.raises(SnapshotUnusable, match=r"^Failed to create snapshot: ") as caught:
        take_backup(empty_source, store)
    assert caught.value.exit_code == 22
    assert "--allow-empty" in caught.value.hint
    assert [key.rpartition("/")[2] for key in keys(store)] == ["incomplete.json"]
    assert traces(empty_source.data_dir) == CLEAN


def test_a_snapshot_without_blocks_is_committed_with_allow_empty(
    empty_source: PrometheusServer,
) -> None:
    store = MemoryStore()
    report = take_backup(empty_source, store, options(allow_empty=True))
    assert report.outcome is Outcome.DONE
    assert report.manifest.totals.blocks == report.manifest.totals.bytes == 0
    assert report.manifest.min_time is report.manifest.max_time is None
    assert len(keys(store)) == 2


def test_a_snapshot_of_only_a_head_is_empty_with_skip_head(
    prometheus_3: PrometheusBinaries, start_prometheus: PrometheusFleet
) -> None:
    server = start_prometheus(prometheus_3, None, PrometheusOptions(scrape_interval=None))
    server.fill_head()
    with pytest.raises(SnapshotUnusable, match="it contains no blocks"):
        take_backup(server, MemoryStore(), options(skip_head=True))
    assert take_backup(server, MemoryStore()).manifest.totals.blocks == 1
