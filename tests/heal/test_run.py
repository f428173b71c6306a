"""What `heal` reads and writes, which copy it uses, and what it refuses."""

import fcntl
import hashlib
import json
import os
import shutil
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from devtools.blocks import BlockSpec
from prometheus_backup.datadir.lock import HostLock
from prometheus_backup.stores.local import LocalStore
from tests.support.contents import tree
from tests.support.damage import (
    BREAKS_SNAPSHOTS,
    FAILS_QUERIES,
    HIDES_DATA,
    PREVENTS_START,
    change_meta,
)
from tests.support.damaged_directory import NOBODY, DamagedDirectory, only_bad, samples
from tests.support.heal_runs import heal_job
from tests.support.store_wrappers import ReadRecorder
from tests.support.stored_backups import LocalFiles, StoredBackups, json_of, manifest_of, run_here


def command(data_dir: Path, *options: str, env: dict[str, str], code: int = 0) -> Any:
    """Run `heal` with its own settings; return its JSON document."""
    arguments = ("heal", str(data_dir), f"--prometheus-url={NOBODY}", "--json", *options)
    return json_of(run_here(*arguments, env=env), code=code)


def data_files(data_dir: Path) -> dict[str, bytes]:
    """The files of a data directory, without the tool's own."""
    return {p: b for p, b in tree(data_dir).items() if not p.startswith(".prometheus-backup")}


def spoil(files: LocalFiles, backup: str, key_end: str, *, openly: bool) -> None:
    """Damage objects of a backup, and if not `openly` the manifest too, as if damaged before."""
    manifest = manifest_of(files, backup)
    for block in manifest["blocks"]:
        for file in block["files"]:
            if file["key"].endswith(key_end):
                body = bytearray(files.get(file["key"]))
                body[len(body) // 2] ^= 1
                files.put(file["key"], bytes(body))
                if not openly:
                    file["sha256"] = hashlib.sha256(body).hexdigest()
    files.put(f"{backup}/metadata.json", json.dumps(manifest).encode())


def test_a_scan_writes_nothing(data_dir: Path, repository_files: LocalFiles) -> None:
    PREVENTS_START["index truncated"](min(data_dir.iterdir()))
    before = tree(data_dir)

    command(data_dir, env=repository_files.environment(), code=41)

    assert tree(data_dir) == before
    assert not (data_dir / ".prometheus-backup").exists()


def test_sound_blocks_are_exit_0_and_no_blocks_are_exit_3(
    data_dir: Path, repository_files: LocalFiles, tmp_path: Path
) -> None:
    env = repository_files.environment()
    (tmp_path / "empty").mkdir()

    assert command(data_dir, env=env)["sound"] == 4
    assert command(data_dir, "--apply", env=env)["outcome"] == "done"
    assert command(tmp_path / "empty", env=env, code=3)["outcome"] == "partial"


_OPENED = {**PREVENTS_START, **HIDES_DATA, **BREAKS_SNAPSHOTS}


@pytest.mark.parametrize("damage", _OPENED)
def test_quick_finds_faults_that_prometheus_hits_when_it_opens_a_block(
    data_dir: Path, repository_files: LocalFiles, damage: str
) -> None:
    before, block = tree(data_dir), min(data_dir.iterdir())
    _OPENED[damage](block)
    env = repository_files.environment()

    healed = command(data_dir, "--quick", "--apply", env=env)

    assert only_bad(healed)["block"] == block.name
    assert data_files(data_dir) == before


@pytest.mark.parametrize("damage", ["series entry bit flip", "chunk bit flip", "segment truncated"])
def test_quick_does_not_check_series_and_chunks(
    data_dir: Path, repository_files: LocalFiles, damage: str
) -> None:
    FAILS_QUERIES[damage](min(data_dir.iterdir()))

    assert command(data_dir, "--quick", env=repository_files.environment())["bad"] == []


def test_only_bad_files_are_downloaded(
    data_dir: Path, repository_files: LocalFiles, stored: StoredBackups
) -> None:
    block = min(data_dir.iterdir())
    PREVENTS_START["TOC bit flip"](block)
    store = ReadRecorder(LocalStore(repository_files.root))
    job = heal_job(data_dir, repository_files.root, store=store)

    job.apply()

    assert store.read == [f"{stored.second}/{block.name}/index"]


@pytest.mark.parametrize("openly", [True, False], ids=["in the store", "in the source"])
def test_an_older_copy_is_used_if_the_newest_is_bad(
    data_dir: Path, repository_files: LocalFiles, stored: StoredBackups, openly: bool
) -> None:
    before, block = tree(data_dir), min(data_dir.iterdir())
    spoil(repository_files, stored.second, f"{block.name}/index", openly=openly)
    PREVENTS_START["index missing"](block)

    healed = command(data_dir, "--apply", env=repository_files.environment())

    (copy,) = only_bad(healed)["copies"]
    assert copy["backup_id"] == stored.first
    assert data_files(data_dir) == before


def test_the_quarantine_has_a_note_about_the_faults(
    data_dir: Path, repository_files: LocalFiles, stored: StoredBackups
) -> None:
    block = min(data_dir.iterdir())
    PREVENTS_START["index empty"](block)
    bad = tree(block)

    healed = command(data_dir, "--apply", env=repository_files.environment())

    place = Path(only_bad(healed)["quarantine"])
    assert tree(place) == bad
    note = json.loads(place.with_name(f"{place.name}.json").read_text())
    assert note["block"] == block.name
    assert "table of contents" in note["faults"][0] or "bytes" in note["faults"][0]
    assert stored.second in note["because"]


def test_bad_blocks_of_the_same_name_do_not_overwrite_each_other_in_the_quarantine(
    data_dir: Path, repository_files: LocalFiles
) -> None:
    block = min(data_dir.iterdir())
    for damage in ("index empty", "index missing", "segment empty"):
        PREVENTS_START[damage](block)
        command(data_dir, "--apply", env=repository_files.environment())

    moved = [p for p in (data_dir / ".prometheus-backup" / "quarantine").iterdir() if p.is_dir()]
    assert len(moved) == 3


def without(files: LocalFiles, backup: str, ulid: str) -> None:
    """Remove a block from a backup, as if the backup had been made before the block existed."""
    manifest = manifest_of(files, backup)
    manifest["blocks"] = [b for b in manifest["blocks"] if b["ulid"] != ulid]
    manifest["totals"]["blocks"] = len(manifest["blocks"])
    sizes = [f["size"] for b in manifest["blocks"] for f in b["files"]]
    manifest["totals"] |= {"files": len(sizes), "bytes": sum(sizes)}
    files.put(f"{backup}/metadata.json", json.dumps(manifest).encode())


def test_a_partly_served_block_stays_unless_without_copy_is_set(
    data_dir: Path, repository_files: LocalFiles, stored: StoredBackups
) -> None:
    block = min(data_dir.iterdir())
    FAILS_QUERIES["chunk bit flip"](block)
    for backup in (stored.first, stored.second):
        without(repository_files, backup, block.name)
    env = repository_files.environment()
    before = tree(data_dir)

    left = command(data_dir, "--apply", env=env, code=3)
    assert only_bad(left)["remedy"] == "leave"
    assert data_files(data_dir) == before

    moved = command(data_dir, "--apply", "--without-copy", env=env, code=3)
    assert only_bad(moved)["remedy"] == "move-away"
    assert not block.exists()


def test_an_unreadable_repository_stops_apply_but_not_a_scan(
    data_dir: Path, tmp_path: Path
) -> None:
    PREVENTS_START["index missing"](min(data_dir.iterdir()))
    before = tree(data_dir)
    env = {"REPOSITORY": f"file://{tmp_path}/a/b"}
    (tmp_path / "a").write_text("no directory")

    scanned = command(data_dir, env=env, code=41)
    assert "cannot" in scanned["no_copies"]
    for settings, kind, code in (
        (env, "RepositoryUnavailable", 13),
        ({"REPOSITORY": f"file://{tmp_path}"}, "BackupNotFound", 30),
        ({}, "UsageError", 2),
    ):
        assert command(data_dir, "--apply", env=settings, code=code)["kind"] == kind
        assert data_files(data_dir) == before

    forced = command(data_dir, "--apply", "--without-copy", env=env, code=3)
    assert only_bad(forced)["remedy"] == "move-away"


def test_a_repair_without_a_copy_needs_no_repository(data_dir: Path) -> None:
    (min(data_dir.iterdir()) / "tombstones").unlink()

    assert only_bad(command(data_dir, "--apply", env={}))["remedy"] == "mend"


def test_a_sound_copy_under_a_wrong_name_replaces_the_bad_block(data_dir: Path) -> None:
    before, block = tree(data_dir), min(data_dir.iterdir())
    shutil.copytree(block, data_dir / "01ARYZ6S41TSV4RRFFQ69G5FAV")
    PREVENTS_START["index missing"](block)

    healed = command(data_dir, "--apply", env={})

    assert [bad["remedy"] for bad in healed["bad"]] == ["drop", "rename"]
    assert data_files(data_dir) == before


@pytest.mark.parametrize("damage", [name for name in HIDES_DATA if name.startswith("meta")])
def test_without_any_backup_meta_json_is_rebuilt(
    damaged: DamagedDirectory, sound_samples: list[Any], tsdb_block_spec: BlockSpec, damage: str
) -> None:
    HIDES_DATA[damage](damaged.block)
    shutil.rmtree(damaged.repository)
    damaged.repository.mkdir()

    assert only_bad(damaged.heal("--apply"))["remedy"] == "mend"

    assert damaged.heal()["bad"] == []
    assert samples(damaged.start(), tsdb_block_spec) == sound_samples
    assert damaged.present(but=[damaged.block])


def test_series_that_were_deleted_stay_deleted(
    damaged: DamagedDirectory, tsdb_block_spec: BlockSpec
) -> None:
    spec = tsdb_block_spec
    before = damaged.start()
    before.delete_series(f'{spec.metric}{{series="0"}}')
    left = samples(before, spec)
    before.stop()
    FAILS_QUERIES["chunk bit flip"](damaged.block)
    meta = json.loads((damaged.block / "meta.json").read_text())
    assert meta["stats"]["numTombstones"] == 1
    # A failed compaction sets this, and Prometheus then never compacts the block again.
    change_meta(damaged.block, compaction=meta["compaction"] | {"failed": True})

    damaged.heal("--apply")

    assert samples(damaged.start(), spec) == left
    healed = json.loads((damaged.block / "meta.json").read_text())
    assert healed["stats"] == meta["stats"]
    assert healed["compaction"] == meta["compaction"]


def test_a_head_block_that_was_copied_by_hand_does_not_drop_samples_in_memory(
    damaged: DamagedDirectory, repository_files: LocalFiles, stored: StoredBackups
) -> None:
    server = damaged.start()
    at = datetime.now(UTC)
    server.fill_head(metric="own")
    own = server.query("count_over_time(own[1h])", at)
    server.stop()
    (head,) = {b["ulid"] for b in manifest_of(repository_files, stored.first)["blocks"]} - {
        block.name for block in damaged.blocks
    }
    whole, copied = repository_files.root / stored.first / head, damaged.data_dir / head
    shutil.copytree(whole, copied)
    HIDES_DATA["half copied"](copied)

    assert only_bad(damaged.heal("--apply", code=3))["remedy"] == "move-away"

    server = damaged.start()
    assert server.query("count_over_time(own[1h])", at) == own
    server.stop()
    shutil.copytree(whole, copied)  # show what replacing it with the copy would have done
    fewer = damaged.start().query("count_over_time(own[1h])", at)
    assert sum(float(one["value"][1]) for one in fewer) < sum(float(one["value"][1]) for one in own)


def test_a_directory_that_another_run_uses_is_exit_11(
    data_dir: Path, repository_files: LocalFiles
) -> None:
    PREVENTS_START["index missing"](min(data_dir.iterdir()))
    lock = HostLock.take(data_dir)

    refused = command(data_dir, "--apply", env=repository_files.environment(), code=11)

    lock.release()
    assert refused["kind"] == "RepositoryLocked"


def test_a_prometheus_that_uses_it_but_does_not_answer_is_exit_2(
    data_dir: Path, repository_files: LocalFiles
) -> None:
    PREVENTS_START["index missing"](min(data_dir.iterdir()))
    with (data_dir / "lock").open("w") as file:  # as Prometheus locks it
        fcntl.flock(file, fcntl.LOCK_EX)

        refused = command(data_dir, "--apply", env=repository_files.environment(), code=2)

    assert "it is in use by a Prometheus" in refused["error"]
    assert "--prometheus-url" in refused["hint"]


def test_replacements_get_the_owner_of_the_data(
    data_dir: Path, repository_files: LocalFiles
) -> None:
    block, owner = min(data_dir.iterdir()), 65534 if os.geteuid() == 0 else os.geteuid()
    PREVENTS_START["index missing"](block)
    for path in (data_dir, *data_dir.rglob("*")):
        os.chown(path, owner, -1)

    command(data_dir, "--apply", env=repository_files.environment())

    for path in (block, *block.rglob("*")):
        status = path.stat()
        assert (status.st_uid, status.st_mode & 0o777) == (owner, 0o755 if path.is_dir() else 0o644)
    own = data_dir / ".prometheus-backup"
    assert {path.stat().st_uid for path in (own, *own.rglob("*"))} == {owner}, "for later runs"
