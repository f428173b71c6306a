"""`SNAPSHOT_MODE=blocks`: backups of the blocks on disk, without the Admin API."""

import json
import shutil
import subprocess
from collections.abc import Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from devtools.fetch_prometheus import PrometheusBinaries
from devtools.prometheus import PrometheusFleet, PrometheusOptions, PrometheusServer
from prometheus_backup.events import BlocksHeld, SnapshotTaken
from prometheus_backup.model import Layout, Outcome, SnapshotMode, rfc3339
from prometheus_backup.prometheus.access import Access
from prometheus_backup.stores.local import LocalStore
from tests.support.constant_compaction import CONSTANT_COMPACTION, METRIC, ConstantCompaction
from tests.support.contents import CLEAN, live_blocks, objects, traces, tree
from tests.support.memory_store import MemoryStore
from tests.support.runs import Recorder, cli, options, settings, take_backup, with_read_only
from tests.support.started_cli import StartedCli

BLOCKS = options(mode=SnapshotMode.BLOCKS)
NOBODY_LISTENS = Access(url="http://127.0.0.1:9")
ULID = "01JJ5W0B8ZC6X3M1S4T9Q2V7KD"
NO_API = PrometheusOptions(admin_api=False)


@pytest.mark.parametrize("place", ["writable", "read-only"])
def test_backups_during_constant_compaction_hold_every_sample_on_disk_once(
    start_prometheus: PrometheusFleet,
    prometheus_binaries: PrometheusBinaries,
    tmp_path: Path,
    place: str,
) -> None:
    source = start_prometheus(prometheus_binaries, tmp_path / "data", CONSTANT_COMPACTION)
    query = f"count_over_time({METRIC}[1h])"
    variables = settings(
        source,
        tmp_path / "repository",
        SNAPSHOT_MODE="blocks",
        VERIFY_LEVEL="tsdb",
        MAX_BANDWIDTH="5KB",  # so that blocks vanish during the transfer
        FINGERPRINT_QUERY=query,
        TMPDIR=str(tmp_path),
    )
    prefix = with_read_only(source.data_dir) if place == "read-only" else ()
    with ConstantCompaction(source) as written:
        source.wait_until_blocks(4)
        vanished = 0
        while vanished < 2:
            made = _made(cli("backup", "--json", env=variables, prefix=prefix), tmp_path)
            still_there = {path.name for path in source.data_dir.iterdir()}
            vanished += any(block["ulid"] not in still_there for block in made["blocks"])
            _require_consecutive(made, start=written.start)

    until = datetime.fromisoformat(made["recoverable_until"])
    instant = until - timedelta(milliseconds=1)
    assert traces(source.data_dir) == (CLEAN if place == "writable" else [])
    assert not list(tmp_path.glob("prometheus-backup-*"))
    target = tmp_path / "target"
    restored = cli("restore", made["backup_id"], str(target), env=variables)
    assert restored.returncode == 0, restored.stderr
    server = start_prometheus(prometheus_binaries, target, PrometheusOptions(scrape_interval=None))
    assert server.loaded_blocks() == len(made["blocks"])
    for asked in (query, f"sum_over_time({METRIC}[3h])", f"{METRIC}"):
        assert server.query(asked, instant) == source.query(asked, instant) != []
    (counted,) = server.query(f"count_over_time({METRIC}[3h])", instant)
    assert int(counted["value"][1]) == written.count_until(until)

    drilled = cli(
        *("drill", made["backup_id"], "--json", "--scratch", str(tmp_path / "scratch")),
        *("--prometheus-binary", str(prometheus_binaries.prometheus)),
        env=variables,
    )
    assert drilled.returncode == 0, drilled.stdout + drilled.stderr


def _made(done: subprocess.CompletedProcess[str], folder: Path) -> dict[str, Any]:
    """Return the manifest of a backup that must be complete."""
    assert done.returncode == 0, done.stderr
    name = json.loads(done.stdout)["backup_id"]
    manifest: dict[str, Any] = json.loads(
        (folder / "repository" / name / "metadata.json").read_text()
    )
    return manifest


def _require_consecutive(manifest: Mapping[str, Any], *, start: datetime) -> None:
    """Fail unless the blocks cover the time since the first sample without a hole or overlap."""
    times = [(block["min_time"], block["max_time"]) for block in manifest["blocks"]]
    assert datetime.fromisoformat(times[0][0]) <= start
    assert [begin for begin, _ in times[1:]] == [end for _, end in times[:-1]]
    assert manifest["recoverable_until"] == times[-1][1]


def test_a_backup_has_exactly_the_blocks_and_asks_prometheus_to_write_nothing(
    start_prometheus: PrometheusFleet, prometheus_3: PrometheusBinaries, data_dir: Path
) -> None:
    source = start_prometheus(prometheus_3, data_dir, NO_API)
    source.fill_head()
    before = {path.name: tree(path) for path in live_blocks(data_dir)}
    store, recorder = MemoryStore(), Recorder()
    report = take_backup(source, store, BLOCKS, listener=recorder)
    assert report.outcome is Outcome.DONE
    stored = objects(store, report.manifest.backup_id)
    assert {k: v for k, v in stored.items() if "/" in k} == {
        f"{name}/{path}": body for name, files in before.items() for path, body in files.items()
    }
    assert recorder.of(SnapshotTaken) == []
    (held,) = recorder.of(BlocksHeld)
    assert (held.blocks, held.linked) == (len(before), True)
    assert traces(data_dir) == CLEAN
    assert {path.name: tree(path) for path in live_blocks(data_dir)} == before


def test_the_next_backup_copies_the_blocks_that_the_repository_has(
    start_prometheus: PrometheusFleet, prometheus_3: PrometheusBinaries, data_dir: Path
) -> None:
    source, store = start_prometheus(prometheus_3, data_dir), MemoryStore()
    take_backup(source, store, BLOCKS)
    totals = take_backup(source, store, BLOCKS).manifest.totals
    assert totals.copied_bytes > 10 * totals.uploaded_bytes  # meta.json and tombstones


def test_layout_archive_keeps_the_blocks_on_disk_as_well(
    start_prometheus: PrometheusFleet, prometheus_3: PrometheusBinaries, data_dir: Path
) -> None:
    source, store = start_prometheus(prometheus_3, data_dir), MemoryStore()
    chosen = options(mode=SnapshotMode.BLOCKS, layout=Layout.ARCHIVE)
    take_backup(source, store, chosen)
    again = take_backup(source, store, chosen)
    assert again.outcome is Outcome.DONE
    assert again.manifest.totals.uploaded_bytes == 0
    assert again.manifest.totals.shared_bytes > 0


def test_what_is_left_out_is_in_the_manifest_and_in_every_listing(
    start_prometheus: PrometheusFleet,
    prometheus_3: PrometheusBinaries,
    data_dir: Path,
    tmp_path: Path,
) -> None:
    source = start_prometheus(prometheus_3, data_dir, NO_API)
    source.fill_head()
    variables = settings(source, tmp_path / "repository", SNAPSHOT_MODE="blocks")
    made = _made(cli("backup", "--json", env=variables), tmp_path)
    newest = max(datetime.fromisoformat(block["max_time"]) for block in made["blocks"])
    end = rfc3339(newest)
    assert (made["snapshot_mode"], made["recoverable_until"]) == ("blocks", end)

    listed = json.loads(cli("list", "--json", env=variables).stdout)["backups"][0]
    assert (listed["snapshot_mode"], listed["recoverable_until"]) == ("blocks", end)
    assert f"{newest:%Y-%m-%d %H:%M} (no head)" in cli("list", "--wide", env=variables).stdout
    shown = cli("show", "latest", env=variables).stdout
    assert "left out" in shown
    assert f"samples after {end}" in shown
    metrics = cli("metrics", env=variables).stdout
    stated = newest.timestamp()
    values = {
        line.partition("{")[0]: (line.partition("{")[2], float(line.split()[-1]))
        for line in metrics.splitlines()
        if line.startswith("prometheus_backup_")
    }
    assert values["prometheus_backup_newest_recoverable_timestamp_seconds"][1] == stated
    labels, seconds = values["prometheus_backup_last_backup_left_out_seconds"]
    assert 'snapshot_mode="blocks"' in labels
    started = datetime.fromisoformat(made["started_at"]).timestamp()
    assert seconds == pytest.approx(started - stated, abs=1)


def test_a_backup_with_the_head_leaves_nothing_out_and_one_without_says_so(
    source: PrometheusServer,
) -> None:
    whole = take_backup(source, MemoryStore()).manifest
    assert (whole.snapshot_mode, whole.recoverable_until) == ("admin-api", None)
    without = take_backup(source, MemoryStore(), options(skip_head=True)).manifest
    assert without.recoverable_until == without.max_time


def test_what_is_no_whole_block_is_not_taken(data_dir: Path, tmp_path: Path) -> None:
    """Prometheus deletes and ignores names with an ending; a block without meta.json it skips."""
    block = live_blocks(data_dir)[0]
    for name in (f"{ULID}.tmp-for-creation", f"{ULID}.tmp-for-deletion", f"{ULID}.tmp", "wal"):
        shutil.copytree(block, data_dir / name)
    manifest = _offline(data_dir, tmp_path)
    assert {b.ulid for b in manifest.blocks} == {p.name for p in _blocks(data_dir)}
    assert manifest.degraded == ()

    shutil.copytree(block, data_dir / ULID, ignore=shutil.ignore_patterns("meta.json"))
    manifest = _offline(data_dir, tmp_path)
    assert ULID not in {b.ulid for b in manifest.blocks}
    (reason,) = manifest.degraded
    assert f"block {ULID} was not backed up: meta.json is missing" in reason


def _blocks(data_dir: Path) -> list[Path]:
    return [path for path in live_blocks(data_dir) if "." not in path.name and path.name != "wal"]


def _offline(data_dir: Path, tmp_path: Path) -> Any:
    store = LocalStore(tmp_path / "repository")
    return take_backup(NOBODY_LISTENS, store, BLOCKS, data_dir=data_dir).manifest


def test_a_block_under_another_name_is_kept_under_its_own(data_dir: Path, tmp_path: Path) -> None:
    first, second, *_ = live_blocks(data_dir)
    own = first.name
    first.rename(data_dir / ULID)
    assert own in {b.ulid for b in _offline(data_dir, tmp_path).blocks}

    shutil.copytree(second, data_dir / "01JJ5W0B8ZC6X3M1S4T9Q2V7KE")
    manifest = _offline(data_dir, tmp_path)
    assert len(manifest.blocks) == 4
    assert f"its meta.json is that of block {second.name}" in manifest.degraded[0]


@pytest.mark.parametrize("what", ["chunks", "tombstones"])
@pytest.mark.parametrize("place", ["writable", "read-only"])
def test_a_link_in_a_block_is_not_followed(
    data_dir: Path, tmp_path: Path, what: str, place: str
) -> None:
    block = live_blocks(data_dir)[0]
    (block / what).rename(tmp_path / "elsewhere")
    (block / what).symlink_to(tmp_path / "elsewhere")
    variables = _unreachable(data_dir, tmp_path)
    prefix = with_read_only(data_dir) if place == "read-only" else ()
    done = cli("backup", "--json", env=variables, prefix=prefix)
    assert done.returncode == 3, done.stderr
    assert f"{what} is not a regular file" in json.loads(done.stdout)["degraded"][0]


def _unreachable(data_dir: Path, tmp_path: Path) -> dict[str, str]:
    return {
        "PROMETHEUS_URL": NOBODY_LISTENS.url,
        "PROMETHEUS_DATA_DIR": str(data_dir),
        "REPOSITORY": f"file://{tmp_path / 'repository'}",
        "SNAPSHOT_MODE": "blocks",
        "TMPDIR": str(tmp_path),
    }


def test_without_an_answer_of_prometheus_the_backup_says_what_it_does_not_know(
    data_dir: Path, tmp_path: Path
) -> None:
    variables = _unreachable(data_dir, tmp_path)
    done = cli("backup", "--json", env=variables)
    made = _made(done, tmp_path)
    assert "warning cannot reach Prometheus" in done.stderr
    assert (made["prometheus"]["version"], made["retention_time"]) == ("", "unknown")
    assert (len(made["blocks"]), made["fingerprints"]) == (4, [])
    shown = cli("show", "latest", env=variables)
    assert shown.returncode == 0
    assert "retention of the source  unknown" in shown.stdout
    restored = cli("restore", "latest", str(tmp_path / "target"), env=variables)
    assert restored.returncode == 0, restored.stderr
    assert {p.name for p in live_blocks(tmp_path / "target")} == {b["ulid"] for b in made["blocks"]}


def test_a_directory_that_nothing_confirms_must_have_blocks_and_stays_as_it_is(
    tmp_path: Path,
) -> None:
    (tmp_path / "empty").mkdir()
    done = cli("backup", env=_unreachable(tmp_path / "empty", tmp_path))
    assert done.returncode == 20
    assert list((tmp_path / "empty").iterdir()) == []


def test_the_directory_of_another_prometheus_is_refused(
    source: PrometheusServer, tmp_path: Path
) -> None:
    shutil.copytree(live_blocks(source.data_dir)[0], tmp_path / "other" / ULID)
    variables = settings(source, tmp_path / "repository", SNAPSHOT_MODE="blocks")
    done = cli("backup", env=variables | {"PROMETHEUS_DATA_DIR": str(tmp_path / "other")})
    assert done.returncode == 2
    assert "stores its data elsewhere" in done.stderr


@pytest.mark.parametrize("place", ["writable", "read-only"])
def test_what_a_killed_run_holds_is_removed_by_the_next_run(
    data_dir: Path, tmp_path: Path, place: str
) -> None:
    variables = _unreachable(data_dir, tmp_path)
    prefix = with_read_only(data_dir) if place == "read-only" else ()
    slow = variables | {"MAX_BANDWIDTH": "1KB"}
    with StartedCli("backup", env=slow, directory=tmp_path / "run", prefix=prefix) as run:
        run.wait_for_log("transferring the blocks")
        run.kill()
        assert run.end().code == -9
    folders = [data_dir / ".prometheus-backup/blocks", *tmp_path.glob("prometheus-backup-blocks-*")]
    left = [path.name for folder in folders for path in folder.rglob("*")]
    assert left.count("index") == 4

    # The grace period of 24 hours applies without the lock; another repository does not wait.
    again = variables | {"REPOSITORY": f"file://{tmp_path / 'repository'}-2"}
    done = cli("backup", env=again, prefix=prefix)
    assert done.returncode == 0, done.stderr
    assert not list(data_dir.glob(".prometheus-backup/blocks*"))
    assert not list(tmp_path.glob("prometheus-backup-*"))


def test_a_stopped_run_removes_its_links(data_dir: Path, tmp_path: Path) -> None:
    variables = _unreachable(data_dir, tmp_path) | {"MAX_BANDWIDTH": "1KB"}
    with StartedCli("backup", env=variables, directory=tmp_path / "run") as run:
        run.wait_for_log("transferring the blocks")
        run.send(15)
        assert run.end().code == 143
    assert not (data_dir / ".prometheus-backup" / "blocks").exists()


def test_a_snapshot_run_removes_the_links_of_a_dead_run_in_mode_blocks(
    source: PrometheusServer,
) -> None:
    block = live_blocks(source.data_dir)[0]
    shutil.copytree(block, source.data_dir / ".prometheus-backup" / "blocks" / block.name)
    take_backup(source, MemoryStore())
    assert traces(source.data_dir) == CLEAN


def test_too_few_open_files_are_an_error_that_names_both_cures(
    data_dir: Path, tmp_path: Path
) -> None:
    prefix = ("prlimit", "--nofile=264", *with_read_only(data_dir))
    for command in ("backup", "check"):
        done = cli(command, env=_unreachable(data_dir, tmp_path), prefix=prefix)
        assert done.returncode == 22, done.stderr
        shown = done.stdout + done.stderr
        assert "too many files would be open at once, the limit is 264" in shown
        assert "LimitNOFILE=" in shown
        assert "read-write" in shown
