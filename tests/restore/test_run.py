"""Restore into an empty directory: what is written, in which order, and what is refused."""

import json
import threading
from pathlib import Path

import pytest

from prometheus_backup.events import BlockRestored, Event, FileRestored
from prometheus_backup.stores.local import LocalStore
from tests.support.contents import tree
from tests.support.restore_runs import expected, newest_first, placed, restore
from tests.support.runs import Recorder, cli, without_privileges
from tests.support.store_wrappers import FlippingStore, ReadRecorder
from tests.support.stored_backups import (
    LocalFiles,
    StoredBackups,
    flip_one_bit,
    json_of,
    manifest_of,
    run_here,
)


@pytest.mark.parametrize("there", ["absent", "empty", "with lost+found", "nested and absent"])
def test_exactly_the_files_of_the_backup_are_restored(
    repository_files: LocalFiles, stored: StoredBackups, tmp_path: Path, there: str
) -> None:
    target = tmp_path / ("a/b/target" if there.startswith("nested") else "target")
    if there == "empty":
        target.mkdir()
    elif there == "with lost+found":
        (target / "lost+found").mkdir(parents=True)

    done = run_here("restore", stored.first, str(target), env=repository_files.environment())

    assert done.returncode == 0, done.stderr
    assert tree(target) == expected(repository_files, stored.first)
    assert not (target / ".prometheus-backup").exists()


def test_latest_is_the_newest_good_backup(
    repository_files: LocalFiles, stored: StoredBackups, tmp_path: Path
) -> None:
    command = ("restore", "latest", str(tmp_path / "target"), "--json")

    document = json_of(run_here(*command, env=repository_files.environment()))

    assert document["backup_id"] == stored.second
    assert document["dry_run"] is False
    assert [b["ulid"] for b in document["place"]] == newest_first(repository_files, stored.second)
    assert document["files"] == len(expected(repository_files, stored.second))
    assert document["bytes"] == sum(map(len, tree(tmp_path / "target").values()))


def test_blocks_appear_newest_first_even_if_an_older_one_is_complete_first(
    repository_files: LocalFiles, stored: StoredBackups, tmp_path: Path
) -> None:
    order = newest_first(repository_files, stored.first)
    recorder = Recorder()
    older = threading.Event()

    def hold_back_the_newest(key: str) -> None:
        """Delay a file of the newest block until the index of the second is restored."""
        if f"/{order[0]}/" in key and key.endswith("index"):
            assert older.wait(30)

    def listen(event: Event) -> None:
        recorder(event)
        if isinstance(event, FileRestored) and event.path == f"{order[1]}/index":
            older.set()

    store = ReadRecorder(LocalStore(repository_files.root), before=hold_back_the_newest)
    restore(store, stored.first, tmp_path / "target", listen)

    files = [event.path for event in recorder.of(FileRestored)]
    assert files.index(f"{order[0]}/index") > files.index(f"{order[1]}/index"), "held back"
    assert [event.ulid for event in recorder.of(BlockRestored)] == order


def test_a_corrupt_object_is_exit_40_and_its_block_is_not_placed(
    repository_files: LocalFiles, stored: StoredBackups, tmp_path: Path
) -> None:
    target = tmp_path / "target"
    order = newest_first(repository_files, stored.first)
    key = next(
        f["key"]
        for b in manifest_of(repository_files, stored.first)["blocks"]
        if b["ulid"] == order[2]
        for f in b["files"]
        if f["path"] == "chunks/000001"
    )
    body = repository_files.get(key)
    for wrong in (body[:-1] + bytes([body[-1] ^ 1]), body[:-1], body + b"x"):
        repository_files.put(key, wrong)
        command = ("restore", stored.first, str(target))
        done = run_here(*command, env=repository_files.environment())
        assert done.returncode == 40
        assert f"{key}: its bytes differ from those that were backed up" in done.stderr
        assert f"DAMAGED: block {order[2]}" in done.stdout
        assert placed(target) == {*order} - {order[2]}, "all others are restored"

    repository_files.put(key, body)
    assert run_here(*command, env=repository_files.environment()).returncode == 0
    assert tree(target) == expected(repository_files, stored.first)


@pytest.mark.parametrize("what", ["target", "its parent"])
def test_a_target_without_permission_is_exit_33(
    repository_files: LocalFiles, tmp_path: Path, what: str
) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o555)
    target = closed if what == "target" else closed / "target"

    done = cli(
        "restore",
        "latest",
        str(target),
        env=repository_files.environment(),
        prefix=without_privileges(),
    )

    assert done.returncode == 33, done.stderr
    assert "permission" in done.stderr
    assert list(closed.iterdir()) == []


def test_a_target_that_is_a_file_is_exit_33(repository_files: LocalFiles, tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.write_text("precious")

    done = run_here("restore", "latest", str(target), env=repository_files.environment())

    assert done.returncode == 33
    assert target.read_text() == "precious"


@pytest.mark.parametrize("name", ["wal/00000000", "01JJ5W0B8ZC6X3M1S4T9Q2V7KD/index", "notes"])
def test_a_target_that_is_not_empty_is_exit_31_and_is_not_changed(
    repository_files: LocalFiles, tmp_path: Path, name: str
) -> None:
    target = tmp_path / "target"
    (target / name).parent.mkdir(parents=True)
    (target / name).write_text("precious")

    for dry in ([], ["--dry-run"]):
        command = ("restore", "latest", str(target), *dry)
        done = run_here(*command, env=repository_files.environment())
        assert done.returncode == 31
        assert name.partition("/")[0] in done.stderr
        assert tree(target) == {name: b"precious"}


def test_a_dry_run_prints_the_plan_and_writes_nothing(
    repository_files: LocalFiles, stored: StoredBackups, tmp_path: Path
) -> None:
    target = tmp_path / "target"
    before = tree(tmp_path)
    command = ("restore", stored.first, str(target), "--dry-run")

    done = run_here(*command, env=repository_files.environment())
    document = json_of(run_here(*command, "--json", env=repository_files.environment()))

    assert done.returncode == 0
    assert not target.exists()
    assert tree(tmp_path) == before
    assert "would restore" in done.stdout
    assert document["dry_run"] is True
    assert "files" not in document
    for ulid in newest_first(repository_files, stored.first):
        assert ulid in done.stdout
    for flag in document["required_flags"]:
        assert flag in done.stdout
    assert len(document["required_flags"]) == 2


def test_a_backup_that_failed_verification_is_restored_by_name_with_a_warning(
    repository_files: LocalFiles, stored: StoredBackups, tmp_path: Path
) -> None:
    sums = f"{stored.second}/SHA256SUMS"
    repository_files.delete(sums)
    env = repository_files.environment()
    assert run_here("verify", stored.second, env=env).returncode == 41

    done = run_here("restore", stored.second, str(tmp_path / "target"), "--json", env=env)

    (warning,) = json_of(done)["warnings"]
    assert warning == "verification at level checksum found faults in this backup"
    assert warning in done.stderr
    assert tree(tmp_path / "target") == expected(repository_files, stored.second)


def test_a_restore_that_misses_an_object_can_be_resumed_once_it_is_back(
    repository_files: LocalFiles, stored: StoredBackups, tmp_path: Path
) -> None:
    key = manifest_of(repository_files, stored.second)["blocks"][0]["files"][0]["key"]
    body = repository_files.get(key)
    repository_files.delete(key)
    command = ("restore", stored.second, str(tmp_path / "target"))

    failed = run_here(*command, env=repository_files.environment())
    assert failed.returncode == 40
    assert key in failed.stderr

    repository_files.put(key, body)
    assert run_here(*command, env=repository_files.environment()).returncode == 0
    assert tree(tmp_path / "target") == expected(repository_files, stored.second)


def test_a_backup_that_retention_deletes_soon_is_restored_with_a_warning(
    repository_files: LocalFiles, stored: StoredBackups, tmp_path: Path
) -> None:
    env = repository_files.environment() | {
        "RETENTION_DAILY": "1",
        "RETENTION_MONTHLY": "0",
        "RETENTION_YEARLY": "0",
    }

    going = run_here("restore", stored.first, str(tmp_path / "a"), "--json", env=env)
    kept = run_here("restore", stored.second, str(tmp_path / "b"), "--json", env=env)

    (warning,) = json_of(going)["warnings"]
    assert "retention deletes this backup within 48 hours" in warning
    assert "retention deletes" in going.stderr
    assert json_of(kept)["warnings"] == []


def _set(path: str, value: object) -> str:
    """A change to the first file of the first block, as JSON."""
    return json.dumps({"file": {path: value}})


HOSTILE = {
    "path upwards": _set("path", "../../../escaped"),
    "path with a folder upwards": _set("path", "chunks/../../../escaped"),
    "absolute path": _set("path", "/tmp/prometheus-backup-escaped"),  # noqa: S108 -- never written
    "path of another file": _set("path", "index"),
    "path below another file": _set("path", "index/000001"),
    "path with a line break": _set("path", "index\n"),
    "key outside the repository": _set("key", "../secret"),
    "key outside any backup": _set("key", "other/secret"),
    "huge size": _set("size", 2**60),
    "negative size": _set("size", -1),
    "no hash": _set("sha256", ""),
    "ulid upwards": json.dumps({"block": {"ulid": "../../escaped"}}),
    "block twice": json.dumps({"repeat": "block"}),
    "file twice": json.dumps({"repeat": "file"}),
}


@pytest.mark.parametrize("change", HOSTILE)
def test_a_hostile_manifest_is_exit_41_and_writes_nothing(
    repository_files: LocalFiles, stored: StoredBackups, tmp_path: Path, change: str
) -> None:
    document = manifest_of(repository_files, stored.second)
    changes = json.loads(HOSTILE[change])
    block = document["blocks"][0]
    block.update(changes.get("block", {}))
    block["files"][0].update(changes.get("file", {}))
    if changes.get("repeat") == "block":
        document["blocks"].append(block)
    elif changes.get("repeat") == "file":
        block["files"].append(block["files"][0])
    repository_files.put(f"{stored.second}/metadata.json", json.dumps(document).encode())
    before = tree(tmp_path)

    command = ("restore", stored.second, str(tmp_path / "target"), "--json")
    done = run_here(*command, env=repository_files.environment())

    assert json_of(done, code=41)["kind"] == "UnreadableManifest"
    assert tree(tmp_path) == before
    assert not (tmp_path / "target").exists()


def test_damaged_blocks_are_named_with_a_backup_that_has_them(
    repository_files: LocalFiles, stored: StoredBackups, tmp_path: Path
) -> None:
    block = next(
        b
        for b in manifest_of(repository_files, stored.second)["blocks"]
        if b["ulid"] in {x["ulid"] for x in manifest_of(repository_files, stored.first)["blocks"]}
    )
    repository_files.delete(block["files"][0]["key"])
    target, env = tmp_path / "target", repository_files.environment()

    done = run_here("restore", stored.second, str(target), "--json", env=env)

    (damaged,) = json_of(done, code=40)["damaged"]
    assert damaged["ulid"] == block["ulid"]
    assert damaged["other_backup"] == stored.first
    assert f"restore {stored.first} with --merge" in done.stderr
    assert run_here("restore", stored.first, str(target), "--merge", env=env).returncode == 0
    assert block["ulid"] in placed(target)


def test_a_restore_stops_at_the_first_damaged_block_on_request(
    repository_files: LocalFiles, stored: StoredBackups, tmp_path: Path
) -> None:
    newest = newest_first(repository_files, stored.first)[0]
    key = f"{stored.first}/{newest}/index"
    flip_one_bit(repository_files, key)
    target = tmp_path / "target"

    command = ("restore", stored.first, str(target), "--stop-on-damage")
    done = run_here(*command, env=repository_files.environment())

    assert done.returncode == 40
    assert f"{key}: its bytes differ" in done.stderr
    assert placed(target) == set()


def test_a_bit_that_flips_once_on_the_way_does_not_harm_a_restore(
    repository_files: LocalFiles, stored: StoredBackups, tmp_path: Path
) -> None:
    store = FlippingStore(LocalStore(repository_files.root))
    restore(store, stored.first, tmp_path / "target", Recorder())
    assert store.flipped
    assert tree(tmp_path / "target") == expected(repository_files, stored.first)


@pytest.mark.parametrize("name", ["id", "latest"])
def test_another_backup_that_cannot_be_read_does_not_stop_a_restore(
    repository_files: LocalFiles, stored: StoredBackups, tmp_path: Path, name: str
) -> None:
    (repository_files.root / stored.first / "metadata.json").chmod(0)
    backup = stored.second if name == "id" else "latest"

    done = cli(
        "restore",
        backup,
        str(tmp_path / "target"),
        env=repository_files.environment(),
        prefix=without_privileges(),
    )

    assert done.returncode == 0, done.stderr
    assert tree(tmp_path / "target") == expected(repository_files, stored.second)
