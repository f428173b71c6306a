"""Layout `archive`: backups that share their blocks, on a real Prometheus.

Each restore is compared byte for byte with the snapshot that was backed up.
"""

import hashlib
import json
import shutil
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from devtools.aws_cli import AwsCli
from devtools.prometheus import PrometheusFleet, PrometheusServer
from devtools.s3 import S3Bucket, S3Endpoint
from prometheus_backup.clock import SystemClock
from prometheus_backup.model import Layout, Level, Outcome
from prometheus_backup.repository.layout import ARCHIVE, CLAIMS
from prometheus_backup.repository.manifest import Manifest
from prometheus_backup.repository.repository import Repository
from prometheus_backup.stores.base import ObjectStore
from prometheus_backup.stores.local import LocalStore
from tests.support.contents import SnapshotKeeper, keys, live_blocks, tree
from tests.support.faulty_stores import RecordingStore, flip_a_bit
from tests.support.memory_store import MemoryStore
from tests.support.repositories import require_whole
from tests.support.restore_runs import restore
from tests.support.runs import Recorder, cli, options, settings, take_backup
from tests.support.s3 import PREFIX, open_s3
from tests.support.stored_backups import json_of, run_here

SHARED = options(layout=Layout.ARCHIVE)


def archived(source: PrometheusServer, store: ObjectStore, **more: object) -> Manifest:
    """Make a backup in layout `archive`."""
    report = take_backup(source, store, SHARED, **more)  # type: ignore[arg-type]
    assert report.outcome is Outcome.DONE, report.problems
    return report.manifest


def restored(store: ObjectStore, backup: str, target: Path) -> Mapping[str, bytes]:
    """Restore a backup; return the files of its blocks."""
    restore(store, backup, target)
    return {p: b for p, b in tree(target).items() if not p.startswith(".prometheus-backup/")}


def states(store: ObjectStore) -> list[bool]:
    """Return which backups are good, oldest first."""
    return [e.good for e in Repository(store, clock=SystemClock()).entries()]


def test_backups_share_their_blocks_and_each_restores_what_was_backed_up(
    prometheus: PrometheusServer, s3_bucket: S3Bucket, tmp_path: Path
) -> None:
    store = open_s3(s3_bucket)
    first_kept = SnapshotKeeper(prometheus.data_dir, tmp_path / "first")
    first = archived(prometheus, store, listener=first_kept)
    prometheus.delete_series('{series="1"}')
    second_kept = SnapshotKeeper(prometheus.data_dir, tmp_path / "second")
    second = archived(prometheus, store, listener=second_kept)

    assert first.format_version == second.format_version == 2
    old = {path.name for path in live_blocks(prometheus.data_dir)}
    shared = {b.folder for b in first.blocks if b.ulid in old}
    assert shared == {b.folder for b in second.blocks if b.ulid in old}
    assert second.totals.copied_bytes == 0
    had = {f.key for _, f in first.files()}
    assert second.totals.shared_bytes == sum(f.size for _, f in second.files() if f.key in had) > 0
    # The deletion wrote tombstones into a block of the archive: a version of its own.
    assert any(f"versions/{second.backup_id}/" in f.key for _, f in second.files())
    for folder in shared:
        names = {o.key.removeprefix(f"{folder}/") for o in store.list(str(folder))}
        assert {"index", "chunks/000001", "block.json"} <= names
    own = {k.partition("/")[2] for k in keys(store) if k.startswith("backup-")}
    assert own == {"metadata.json", "SHA256SUMS", "RESTORE.sh"}
    assert not any(store.list(CLAIMS))

    assert restored(store, first.backup_id, tmp_path / "one") == tree(first_kept.kept)
    assert restored(store, second.backup_id, tmp_path / "two") == tree(second_kept.kept)


def test_an_unchanged_block_costs_no_request_of_its_own(prometheus: PrometheusServer) -> None:
    store = RecordingStore()
    archived(prometheus, store)
    store.puts.clear()
    recorder = Recorder()
    second = archived(prometheus, store, listener=recorder)
    old = {path.name for path in live_blocks(prometheus.data_dir)}
    assert not [key for key in store.puts if key.split("/")[1] in old]
    assert store.copied_from == []
    assert {b.ulid for b in second.blocks} > old


@pytest.mark.parametrize("layouts", [(Layout.FULL, Layout.ARCHIVE), (Layout.ARCHIVE, Layout.FULL)])
def test_switching_the_layout_copies_inside_the_store(
    prometheus: PrometheusServer, tmp_path: Path, layouts: tuple[Layout, Layout]
) -> None:
    store = MemoryStore()
    first, second = (
        take_backup(prometheus, store, options(layout=layout)).manifest for layout in layouts
    )
    old = {path.name for path in live_blocks(prometheus.data_dir)}
    sent = [b for b in second.blocks if b.ulid in old]
    assert second.totals.copied_bytes == sum(
        f.size for b in sent for f in b.files if f.path not in ("meta.json", "tombstones")
    )
    assert states(store) == [True, True]
    for number, manifest in enumerate((first, second)):
        assert restored(store, manifest.backup_id, tmp_path / str(number))


def test_the_newest_folder_is_a_committed_backup_while_a_run_is_at_work(
    prometheus: PrometheusServer,
) -> None:
    store = MemoryStore()
    committed = archived(prometheus, store).backup_id
    seen: list[str] = []

    def look(event: object) -> None:
        del event
        seen.append(max(store.list_folders()))

    with pytest.raises(RuntimeError, match="killed"):
        take_backup(prometheus, store, SHARED, listener=_kill_at("commit", look))
    assert set(seen) == {committed}
    entries = Repository(store, clock=SystemClock()).entries()
    assert [e.state.value for e in entries] == ["committed", "incomplete"]


@pytest.mark.parametrize("layout", Layout)
def test_a_backup_whose_predecessor_is_deleted_meanwhile_is_whole(
    prometheus: PrometheusServer, layout: Layout
) -> None:
    store = MemoryStore()
    first = archived(prometheus, store)

    def delete(event: object) -> None:
        if getattr(event, "name", "") == "snapshot":
            Repository(store, clock=SystemClock()).delete_backup(first.backup_id, run_id="other")

    report = take_backup(prometheus, store, options(layout=layout), listener=delete)
    assert report.outcome is Outcome.DONE
    require_whole({o.key: b"".join(store.stream(o.key)) for o in store.list()})
    assert [e.backup_id for e in Repository(store, clock=SystemClock()).entries()] == [
        report.manifest.backup_id
    ]


def _kill_at(step: str, look: Callable[[object], None]) -> Callable[[object], None]:
    def listen(event: object) -> None:
        look(event)
        if getattr(event, "name", "") == step:
            raise RuntimeError("killed")

    return listen


def test_one_bad_object_makes_every_backup_bad_and_the_next_backup_heals_all(
    prometheus: PrometheusServer, tmp_path: Path
) -> None:
    root = tmp_path / "repository"
    store = LocalStore(root)
    first, second = archived(prometheus, store), archived(prometheus, store)
    index = next(f for b, f in first.files() if f.path == "index" and b in second.blocks)
    path = root / index.key
    path.write_bytes(flip_a_bit(path.read_bytes()))
    env = {"REPOSITORY": f"file://{root}"}
    verified = json_of(run_here("verify", first.backup_id, "--json", env=env), code=41)
    (finding,) = verified["results"][0]["findings"]
    assert finding["key"] == index.key
    assert states(store) == [False, False]

    third = take_backup(prometheus, store, SHARED)
    assert third.outcome is Outcome.DONE
    assert hashlib.sha256(path.read_bytes()).hexdigest() == index.sha256
    assert index.key in {f.key for _, f in third.manifest.files()}
    assert states(store) == [True, True, True]


def test_a_missing_object_makes_every_backup_bad_until_it_is_sent_again(
    prometheus: PrometheusServer,
) -> None:
    store = MemoryStore()
    first = archived(prometheus, store)
    old = {path.name for path in live_blocks(prometheus.data_dir)}
    block = next(b for b in first.blocks if b.ulid in old)
    lost = [o.key for o in store.list(str(block.folder))]
    store.delete(lost)
    assert states(store) == [False]
    archived(prometheus, store)
    assert states(store) == [True, True]
    assert {o.key for o in store.list(str(block.folder))} >= set(lost)


def test_a_bad_block_that_the_source_no_longer_has_stays_bad(
    prometheus: PrometheusServer, tmp_path: Path
) -> None:
    root = tmp_path / "repository"
    store = LocalStore(root)
    first = archived(prometheus, store)
    gone = next(b for b in first.blocks if not (prometheus.data_dir / b.ulid).exists())
    path = root / next(f.key for f in gone.files if f.path == "index")
    path.write_bytes(flip_a_bit(path.read_bytes()))
    env = {"REPOSITORY": f"file://{root}"}
    json_of(run_here("verify", first.backup_id, "--json", env=env), code=41)
    archived(prometheus, store)
    assert states(store) == [False, True]


def test_verify_reads_an_archived_object_once_for_all_backups(
    prometheus: PrometheusServer, tmp_path: Path
) -> None:
    root = tmp_path / "repository"
    store = LocalStore(root)
    one, two = archived(prometheus, store), archived(prometheus, store)
    env = {"REPOSITORY": f"file://{root}", "SCRATCH_DIR": str(tmp_path)}
    for level in ("checksum", "tsdb"):
        found = json_of(run_here("verify", "--all", "--level", level, "--json", env=env))
        read = [result["bytes_read"] for result in found["results"]]
        assert read[0] >= one.totals.bytes
        assert read[1] < two.totals.bytes - two.totals.shared_bytes + 100_000
    assert states(store) == [True, True]


@pytest.mark.parametrize("damage", ["RESTORE.sh", "SHA256SUMS"])
def test_verify_compares_what_is_made_from_the_manifest(
    prometheus: PrometheusServer, tmp_path: Path, damage: str
) -> None:
    root = tmp_path / "repository"
    made = archived(prometheus, LocalStore(root)).backup_id
    path = root / made / damage
    path.write_bytes(flip_a_bit(path.read_bytes()))
    env = {"REPOSITORY": f"file://{root}"}
    found = json_of(run_here("verify", made, "--json", env=env), code=41)
    assert [f["key"] for f in found["results"][0]["findings"]] == [f"{made}/{damage}"]


def test_restore_sh_restores_with_the_aws_client_what_prometheus_starts_on(
    prometheus: PrometheusServer,
    start_prometheus: PrometheusFleet,
    s3_bucket: S3Bucket,
    aws: Callable[[S3Endpoint], AwsCli],
    tmp_path: Path,
) -> None:
    series = prometheus.query("count({__name__=~'.+'})")
    store = open_s3(s3_bucket)
    kept = SnapshotKeeper(prometheus.data_dir, tmp_path / "kept")
    made = archived(prometheus, store, listener=kept).backup_id
    address = f"s3://{s3_bucket.name}/{PREFIX}"
    client = aws(s3_bucket.endpoint)
    target = tmp_path / "it's the target"
    client.shell(f"aws s3 cp --quiet {address}/{made}/RESTORE.sh {tmp_path}/RESTORE.sh")
    client.shell(f'sh {tmp_path}/RESTORE.sh {address} "{target}"')
    assert tree(target) == tree(kept.kept)
    again = subprocess.run(
        ["sh", tmp_path / "RESTORE.sh", address, target],
        capture_output=True,
        text=True,
        check=False,
    )
    assert again.returncode == 31
    assert "it is not empty" in again.stderr
    server = start_prometheus(prometheus.binaries, target)
    assert server.query("count({__name__=~'.+'})") or not series


def test_restore_sh_restores_from_a_directory_and_refuses_wrong_bytes(
    prometheus: PrometheusServer, tmp_path: Path
) -> None:
    root = tmp_path / "a copy"
    store = LocalStore(root)
    kept = SnapshotKeeper(prometheus.data_dir, tmp_path / "kept")
    manifest = archived(prometheus, store, listener=kept)
    script = root / manifest.backup_id / "RESTORE.sh"
    subprocess.run(["sh", script, f"{root}/", tmp_path / "one"], check=True)
    assert tree(tmp_path / "one") == tree(kept.kept)

    damaged = root / manifest.blocks[0].files[0].key
    damaged.write_bytes(flip_a_bit(damaged.read_bytes()))
    two = tmp_path / "two"
    done = subprocess.run(["sh", script, root, two], capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert not [name for name in two.iterdir() if not name.name.startswith(".")]
    usage = subprocess.run(["sh", script, root], capture_output=True, text=True, check=False)
    assert (usage.returncode, usage.stdout) == (2, "")


@pytest.mark.parametrize(
    ("address", "command"),
    [
        ("gs://bucket/a prefix", "'gcloud' 'storage' 'cp' 'gs://bucket/a prefix/archive/"),
        ("az://box/p", "'az' 'storage' 'blob' 'download' '--container-name' 'box' '--name' 'p/"),
    ],
)
def test_restore_sh_prints_the_commands_for_other_stores(
    prometheus: PrometheusServer, tmp_path: Path, address: str, command: str
) -> None:
    root = tmp_path / "repository"
    made = archived(prometheus, LocalStore(root)).backup_id
    done = subprocess.run(
        ["sh", root / made / "RESTORE.sh", address, tmp_path / "target"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert command in done.stdout
    assert not (tmp_path / "target").exists()
    subprocess.run(["sh", "-n"], input=done.stdout, text=True, check=True)


def test_a_copy_of_the_own_folder_is_no_data_directory(
    prometheus: PrometheusServer, tmp_path: Path
) -> None:
    root = tmp_path / "repository"
    made = archived(prometheus, LocalStore(root)).backup_id
    copied = shutil.copytree(root / made, tmp_path / "copied")
    assert not list(copied.rglob("meta.json"))


def test_the_command_line_backs_up_lists_and_restores_an_archive(
    prometheus: PrometheusServer, tmp_path: Path
) -> None:
    root = tmp_path / "repository"
    env = settings(prometheus, root, LAYOUT="archive")
    done = cli("backup", "--json", env=env)
    made = json_of(done)["backup_id"]
    listed = json_of(cli("list", "--json", env=env))
    assert [b["backup_id"] for b in listed["backups"]] == [made]
    json_of(cli("restore", made, str(tmp_path / "target"), "--json", env=env))
    assert json.loads((root / made / "metadata.json").read_bytes())["format_version"] == 2
    assert (root / ARCHIVE).is_dir()
    assert Level.CHECKSUM.value in cli("show", made, env=env).stdout
