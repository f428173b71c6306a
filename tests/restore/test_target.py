"""Which targets are accepted, checked before the first byte is written, and who owns the files."""

import hashlib
import json
import os
import shutil
import stat
import subprocess
from pathlib import Path

import pytest

from prometheus_backup.datadir.lock import HostLock
from tests.support.contents import tree
from tests.support.restore_runs import expected, newest_first, placed
from tests.support.stored_backups import LocalFiles, StoredBackups, json_of, manifest_of, run_here

NOBODY = 65534


def test_files_get_the_owner_of_the_targets_newest_block_and_prometheus_modes(
    repository_files: LocalFiles, stored: StoredBackups, tmp_path: Path
) -> None:
    target = tmp_path / "target"
    env = repository_files.environment()
    order = newest_first(repository_files, stored.second)
    assert run_here("restore", stored.second, str(target), env=env).returncode == 0
    for path in (target / order[0], *(target / order[0]).rglob("*")):
        os.chown(path, NOBODY, NOBODY)
    shutil.rmtree(target / order[1])

    before = os.umask(0o077)
    try:
        done = run_here("restore", stored.second, str(target), "--merge", env=env)
    finally:
        os.umask(before)

    assert done.returncode == 0, done.stderr
    for path in (target / order[1], *(target / order[1]).rglob("*")):
        status = path.stat()
        assert (status.st_uid, status.st_gid) == (NOBODY, NOBODY)
        assert stat.S_IMODE(status.st_mode) == (0o755 if path.is_dir() else 0o644)
    ours = target / ".prometheus-backup"
    assert {p.stat().st_uid for p in (ours, *ours.rglob("*"))} == {NOBODY}, "its lock, too"


@pytest.mark.parametrize("owner", ["65534:65534", "nobody", "nobody:65534"])
def test_chown_sets_the_owner(
    repository_files: LocalFiles, stored: StoredBackups, tmp_path: Path, owner: str
) -> None:
    target = tmp_path / "target"
    command = ("restore", stored.second, str(target), f"--chown={owner}")

    assert run_here(*command, env=repository_files.environment()).returncode == 0

    blocks = [p for name in placed(target) for p in (target / name, *(target / name).rglob("*"))]
    assert {p.stat().st_uid for p in blocks} == {NOBODY}
    assert {p.stat().st_gid for p in blocks} == {NOBODY}


def test_an_unknown_owner_is_exit_2(repository_files: LocalFiles, tmp_path: Path) -> None:
    command = ("restore", "latest", str(tmp_path / "target"), "--chown=no-such-user")

    done = run_here(*command, env=repository_files.environment())

    assert done.returncode == 2
    assert "no-such-user" in done.stderr


def test_a_user_whose_files_prometheus_could_not_delete_is_refused(
    repository_files: LocalFiles,
    stored: StoredBackups,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    target = tmp_path / "target"
    env = repository_files.environment()
    order = newest_first(repository_files, stored.second)
    assert run_here("restore", stored.second, str(target), env=env).returncode == 0
    os.chown(target / order[0], NOBODY, NOBODY)
    shutil.rmtree(target / order[1])
    monkeypatch.setattr(os, "geteuid", lambda: 1000)

    done = run_here("restore", stored.second, str(target), "--merge", env=env)

    assert done.returncode == 33
    assert f"run as user {NOBODY}" in done.stderr
    assert not (target / order[1]).exists()


def test_a_read_only_mount_is_exit_33(repository_files: LocalFiles, tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "ro", "tmpfs", str(target)], check=True)
    try:
        done = run_here("restore", "latest", str(target), env=repository_files.environment())
    finally:
        subprocess.run(["umount", str(target)], check=True)

    assert done.returncode == 33
    assert "mounted read-only" in done.stderr


@pytest.mark.parametrize("how", ["mount", "link"])
def test_a_staging_folder_elsewhere_is_exit_33(
    repository_files: LocalFiles, stored: StoredBackups, tmp_path: Path, how: str
) -> None:
    target, elsewhere = tmp_path / "target", tmp_path / "elsewhere"
    folder = target / ".prometheus-backup"
    target.mkdir()
    elsewhere.mkdir()
    if how == "link":
        folder.symlink_to(elsewhere)
    else:
        folder.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "tmpfs", str(folder)], check=True)
    try:
        command = ("restore", stored.second, str(target))
        done = run_here(*command, env=repository_files.environment())
    finally:
        if how == "mount":
            subprocess.run(["umount", str(folder)], check=True)

    assert done.returncode == 33
    assert ("another file system" if how == "mount" else "is a link") in done.stderr
    assert tree(elsewhere) == {}
    assert placed(target) == set()


def test_a_link_in_the_staging_folder_is_not_followed(
    repository_files: LocalFiles, stored: StoredBackups, tmp_path: Path
) -> None:
    target, elsewhere = tmp_path / "target", tmp_path / "elsewhere"
    ulids = newest_first(repository_files, stored.second)
    staging = target / ".prometheus-backup" / "restore"
    (staging / ulids[1]).mkdir(parents=True)
    elsewhere.mkdir()
    (staging / ulids[0]).symlink_to(elsewhere)
    (staging / ulids[1] / "chunks").symlink_to(elsewhere)
    (staging / ulids[1] / "stranger").write_text("not of this block")

    done = run_here("restore", stored.second, str(target), env=repository_files.environment())

    assert done.returncode == 0, done.stderr
    assert tree(elsewhere) == {}
    assert tree(target) == expected(repository_files, stored.second)


@pytest.mark.parametrize("lie", ["parents", "sources", "max_time", "ulid"])
def test_a_block_that_does_not_match_the_manifest_is_not_placed(
    repository_files: LocalFiles, stored: StoredBackups, tmp_path: Path, lie: str
) -> None:
    # Prometheus deletes the parents that meta.json names, whatever the manifest says.
    target = tmp_path / "target"
    env = repository_files.environment()
    manifest = manifest_of(repository_files, stored.second)
    newest = max(manifest["blocks"], key=lambda b: str(b["max_time"]))
    victim = min(manifest["blocks"], key=lambda b: str(b["max_time"]))["ulid"]
    file = next(f for f in newest["files"] if f["path"] == "meta.json")
    meta = json.loads(repository_files.get(file["key"]))
    if lie == "parents":
        meta["compaction"]["parents"] = [{"ulid": victim, "minTime": 0, "maxTime": 1}]
    elif lie == "sources":
        meta["compaction"]["sources"] = [victim]
    elif lie == "ulid":
        meta["ulid"] = victim
    else:
        meta["maxTime"] += 10**9
    _replace(repository_files, manifest, file, json.dumps(meta).encode())

    done = run_here("restore", stored.second, str(target), env=env)

    assert done.returncode == 40, done.stderr
    assert "does not match the manifest" in done.stderr
    others = {str(b["ulid"]) for b in manifest["blocks"]} - {str(newest["ulid"])}
    assert placed(target) == others


def _replace(
    files: LocalFiles, manifest: dict[str, object], file: dict[str, object], body: bytes
) -> None:
    """Replace a file of a backup and update the manifest, as an attacker with write access can."""
    difference = len(body) - int(str(file["size"]))
    file |= {"size": len(body), "sha256": hashlib.sha256(body).hexdigest()}
    totals = manifest["totals"]
    assert isinstance(totals, dict)
    totals["bytes"] += difference
    files.put(str(file["key"]), body)
    files.put(f"{manifest['backup_id']}/metadata.json", json.dumps(manifest).encode())


def test_a_second_restore_into_the_same_target_is_exit_11(
    repository_files: LocalFiles, stored: StoredBackups, tmp_path: Path
) -> None:
    target = tmp_path / "target"
    target.mkdir()
    lock = HostLock.take(target)

    done = run_here("restore", stored.second, str(target), env=repository_files.environment())

    lock.release()
    assert done.returncode == 11
    assert "another prometheus-backup is using it" in done.stderr
    assert placed(target) == set()


def test_other_files_in_a_target_are_not_changed(
    repository_files: LocalFiles, stored: StoredBackups, tmp_path: Path
) -> None:
    target = tmp_path / "target"
    (target / "notes").mkdir(parents=True)
    (target / "notes" / "precious").write_text("precious")
    (target / "01JJ5W0B8ZC6X3M1S4T9Q2V7KD.tmp-for-creation").mkdir()
    env = repository_files.environment()

    done = run_here("restore", stored.second, str(target), "--merge", env=env)

    assert done.returncode == 0, done.stderr
    there = tree(target)
    assert there.pop("notes/precious") == b"precious"
    ours = {path: body for path, body in there.items() if not path.startswith(".prometheus-backup")}
    assert ours == expected(repository_files, stored.second)


@pytest.mark.parametrize("damage", ["other bytes", "no meta.json"])
def test_a_block_of_the_same_name_that_differs_is_left_out_and_reported(
    repository_files: LocalFiles, stored: StoredBackups, tmp_path: Path, damage: str
) -> None:
    target = tmp_path / "target"
    env = repository_files.environment()
    order = newest_first(repository_files, stored.second)
    assert run_here("restore", stored.second, str(target), env=env).returncode == 0
    if damage == "no meta.json":
        (target / order[0] / "meta.json").unlink()
    else:
        chunks = target / order[0] / "chunks" / "000001"
        chunks.write_bytes(chunks.read_bytes()[:-1] + b"\0")
    shutil.rmtree(target / order[1])
    before = tree(target / order[0])

    done = run_here("restore", stored.second, str(target), "--merge", "--json", env=env)

    document = json_of(done, code=3)
    (left_out,) = (block for block in document["skipped"] if block["left_out"])
    assert (left_out["ulid"], left_out["standing"]) == (order[0], "different")
    assert [block["ulid"] for block in document["place"]] == [order[1]]
    assert tree(target / order[0]) == before


def test_a_time_range_restores_only_the_blocks_that_overlap_it(
    repository_files: LocalFiles, stored: StoredBackups, tmp_path: Path
) -> None:
    env = repository_files.environment()
    blocks = manifest_of(repository_files, stored.second)["blocks"]
    chosen = sorted(blocks, key=lambda b: str(b["min_time"]))[1]
    target = str(tmp_path / "target")

    since = ("--from", chosen["min_time"], "--to", chosen["max_time"])
    document = json_of(run_here("restore", "latest", target, *since, "--json", env=env))

    assert [block["ulid"] for block in document["place"]] == [chosen["ulid"]]
    assert placed(tmp_path / "target") == {chosen["ulid"]}
    none = run_here("restore", "latest", f"{target}-2", "--from=2040-01-01", env=env)
    assert none.returncode == 2
    assert "the backup covers" in none.stderr
    assert not (tmp_path / "target-2").exists()
    backwards = ("--from=2025-01-02", "--to=2025-01-01")
    assert run_here("restore", "latest", f"{target}-2", *backwards, env=env).returncode == 2


def test_latest_with_at_is_the_newest_backup_made_before_that_time(
    repository_files: LocalFiles, stored: StoredBackups, tmp_path: Path
) -> None:
    env = repository_files.environment()
    at = manifest_of(repository_files, stored.first)["timestamp"]

    def chosen(*arguments: str, code: int = 0) -> str:
        command = ("restore", *arguments, "--dry-run", "--json")
        return str(json_of(run_here(*command, env=env), code=code).get("backup_id"))

    assert chosen("latest", str(tmp_path / "target"), f"--at={at}") == stored.first
    assert chosen("latest", str(tmp_path / "target")) == stored.second
    chosen("latest", str(tmp_path / "target"), "--at=2001-01-01", code=30)
    chosen(stored.first, str(tmp_path / "target"), f"--at={at}", code=2)


def test_too_little_free_space_is_exit_33_before_the_first_byte(
    repository_files: LocalFiles, stored: StoredBackups, tmp_path: Path
) -> None:
    manifest = manifest_of(repository_files, stored.second)
    file = manifest["blocks"][0]["files"][0]
    manifest["totals"]["bytes"] += 2**49 - file["size"]
    file["size"] = 2**49
    repository_files.put(f"{stored.second}/metadata.json", json.dumps(manifest).encode())

    target = tmp_path / "target"
    done = run_here("restore", stored.second, str(target), env=repository_files.environment())

    assert done.returncode == 33, done.stderr
    assert "and a reserve of 67,108,864; " in done.stderr
    assert not target.exists()
