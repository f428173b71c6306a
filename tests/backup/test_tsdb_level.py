"""Level `tsdb`: blocks are checked before the commit; a corrupt one is backed up and reported."""

import json
from datetime import timedelta
from pathlib import Path

import pytest

from devtools.prometheus import PrometheusServer
from prometheus_backup.backup.options import BackupReport
from prometheus_backup.events import BlockChecked, FileCopied, FileUploaded, LongStepBegan
from prometheus_backup.model import Level, Outcome
from prometheus_backup.repository.repository import Repository
from prometheus_backup.retention.policy import Policy
from prometheus_backup.retention.prune import apply_prune, plan_prune
from prometheus_backup.stores.base import ObjectStore
from tests.support.contents import CLEAN, live_blocks, traces
from tests.support.memory_store import MemoryStore
from tests.support.runs import FakeClock, Recorder, cli, options, settings, take_backup

SEGMENT = "chunks/000001"
TSDB = options(verify=Level.TSDB)


def damage(block: Path) -> None:
    """Flip a bit of the first chunk, which Prometheus does not check when it starts."""
    body = bytearray((block / SEGMENT).read_bytes())
    body[100] ^= 1
    (block / SEGMENT).write_bytes(body)


@pytest.fixture
def corrupt(data_dir: Path) -> Path:
    """A block of the data directory with a corrupt chunk."""
    block = live_blocks(data_dir)[1]
    damage(block)
    return block


def faults_of(report: BackupReport) -> dict[str, tuple[str, ...] | None]:
    """The faults of each block in the manifest."""
    return {block.ulid: block.faults for block in report.manifest.blocks}


def read_whole(recorder: Recorder) -> int:
    """The number of bytes that the check of blocks had to read."""
    (step,) = [e for e in recorder.of(LongStepBegan) if e.name == "inspect"]
    return step.total


def test_sound_blocks_are_read_completely_only_once(source: PrometheusServer) -> None:
    store, first, second = MemoryStore(), Recorder(), Recorder()

    report = take_backup(source, store, TSDB, listener=first)
    assert report.outcome is Outcome.DONE
    assert report.manifest.verified is Level.TSDB
    assert set(faults_of(report).values()) == {()}
    assert len(first.of(BlockChecked)) == 5
    assert read_whole(first) == report.manifest.totals.bytes
    assert report.phases["inspect"] >= 0

    report = take_backup(source, store, TSDB, listener=second)
    assert report.manifest.verified is Level.TSDB
    assert set(faults_of(report).values()) == {()}
    (head,) = [b for b in report.manifest.blocks if b.ulid not in faults_before(source)]
    assert read_whole(second) == head.size


def faults_before(source: PrometheusServer) -> set[str]:
    """The ULIDs of the blocks on disk."""
    return {block.name for block in live_blocks(source.data_dir)}


def test_an_unchecked_block_is_checked_by_the_first_backup_at_level_tsdb(
    source: PrometheusServer,
) -> None:
    store, recorder = MemoryStore(), Recorder()
    assert set(faults_of(take_backup(source, store)).values()) == {None}
    report = take_backup(source, store, TSDB, listener=recorder)
    assert read_whole(recorder) == report.manifest.totals.bytes
    assert len(recorder.of(FileCopied)) == 8, "and copied files are not uploaded"
    later = take_backup(source, store)
    assert sorted(faults_of(later).values(), key=str) == [*[()] * 4, None], "all but the head"


def test_a_corrupt_block_is_backed_up_and_makes_the_backup_degraded(
    corrupt: Path, source: PrometheusServer
) -> None:
    store, recorder = MemoryStore(), Recorder()
    report = take_backup(source, store, options(verify=Level.TSDB), listener=recorder)
    manifest = report.manifest
    assert report.outcome is Outcome.PARTIAL
    assert report.outcome.exit_code == 3
    (reason,) = manifest.degraded
    assert reason.startswith(f"block {corrupt.name} is corrupt: {SEGMENT} at 8: invalid checksum")
    assert 'devtools_value{series="0"}' in reason
    assert [u for u, faults in faults_of(report).items() if faults] == [corrupt.name]
    assert manifest.verified is Level.CHECKSUM, "it has not passed tsdb"
    key = f"{manifest.backup_id}/{corrupt.name}/{SEGMENT}"
    assert store.get(key, limit=1 << 30) == (corrupt / SEGMENT).read_bytes(), "it is saved"
    assert f"block {corrupt.name} is corrupt: " in recorder.warnings
    assert [e.ulid for e in recorder.of(BlockChecked) if e.verdict == "fail"] == [corrupt.name]
    (entry,) = Repository(store, clock=FakeClock()).entries()
    assert not entry.good
    assert traces(source.data_dir) == CLEAN


@pytest.mark.parametrize("later", [Level.TSDB, Level.CHECKSUM])
def test_a_corrupt_block_is_corrupt_in_later_backups(
    corrupt: Path, source: PrometheusServer, later: Level
) -> None:
    store, recorder = MemoryStore(), Recorder()
    first = take_backup(source, store, TSDB)
    report = take_backup(source, store, options(verify=later), listener=recorder)
    assert report.outcome is Outcome.PARTIAL
    assert report.manifest.degraded == first.manifest.degraded
    copied = {e.key.split("/")[1] for e in recorder.of(FileCopied)}
    assert copied == faults_before(source) - {corrupt.name}, "the sound ones are not sent again"


def test_a_repaired_block_is_uploaded_again_and_makes_the_next_backup_good(
    corrupt: Path, source: PrometheusServer
) -> None:
    store, recorder = MemoryStore(), Recorder()
    assert take_backup(source, store, TSDB).manifest.degraded
    damage(corrupt)  # flips the bit back; the file has no hard link any more
    report = take_backup(source, store, TSDB, listener=recorder)
    assert report.outcome is Outcome.DONE
    assert faults_of(report)[corrupt.name] == ()
    sent = {e.key for e in recorder.of(FileUploaded)}
    assert f"{report.manifest.backup_id}/{corrupt.name}/{SEGMENT}" in sent


def test_tombstones_that_become_corrupt_later_are_found_in_a_known_block(
    source: PrometheusServer,
) -> None:
    store = MemoryStore()
    take_backup(source, store, TSDB)
    block = live_blocks(source.data_dir)[2]
    rotten = bytearray((block / "tombstones").read_bytes())
    rotten[-1] ^= 1
    (block / "tombstones").write_bytes(rotten)
    report = take_backup(source, store, TSDB)
    (reason,) = report.manifest.degraded
    assert reason.startswith(f"block {block.name} is corrupt: tombstones")


def test_no_degraded_backup_makes_retention_delete_a_good_one(
    data_dir: Path, source: PrometheusServer
) -> None:
    store = MemoryStore()
    good = take_backup(source, store, TSDB).manifest.backup_id
    damage(live_blocks(data_dir)[1])
    # --rehash detects files that changed but kept their name and size.
    seen = options(verify=Level.TSDB, rehash=True, policy=Policy(1, 0, 0))
    degraded = take_backup(source, store, seen).manifest
    assert degraded.degraded
    later = degraded.finished_at + timedelta(days=40)
    assert kept_after_prune(store, later) == [good, degraded.backup_id]


def kept_after_prune(store: ObjectStore, now: object) -> list[str]:
    """Prune at an instant, keeping one daily backup; return the remaining backups."""
    repository = Repository(store, clock=FakeClock())
    plan = plan_prune(repository.entries(), policy=Policy(1, 0, 0), now=now, store_now=now)  # type: ignore[arg-type]
    apply_prune(repository, plan, run_id="prune", listener=lambda _: None)
    return [entry.backup_id for entry in repository.entries()]


def test_the_command_line_names_the_corrupt_block_and_exits_3(
    corrupt: Path, source: PrometheusServer, tmp_path: Path
) -> None:
    env = settings(source, tmp_path / "repository", VERIFY_LEVEL="tsdb")
    done = cli("backup", "--json", env=env)
    assert done.returncode == 3, done.stderr
    output = json.loads(done.stdout)
    assert output["outcome"] == "partial"
    assert corrupt.name in output["degraded"][0]
    assert output["verified"] == "checksum"
    (line,) = [one for one in done.stderr.splitlines() if "block is corrupt" in one]
    assert " error " in line
    assert corrupt.name in line
    assert "degraded" in cli("list", env=env).stdout
    shown = cli("show", "latest", env=env).stdout.splitlines()
    assert [line.split()[0] for line in shown if line.endswith("corrupt")] == [corrupt.name]
    assert sum(line.endswith("sound") for line in shown) == 4
    assert "prometheus_backup_last_backup_degraded_blocks{" in cli("metrics", env=env).stdout
    metrics = json.loads(cli("metrics", "--json", env=env).stdout)["metrics"]
    degraded = [m for m in metrics if m["name"].endswith("last_backup_degraded_blocks")]
    assert [m["value"] for m in degraded] == [1]
