"""What verification sees of real backups on SeaweedFS, what it records, and what follows."""

import json
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from devtools.prometheus import PrometheusFleet
from devtools.s3 import S3Bucket
from devtools.seaweedfs import SeaweedFS
from prometheus_backup.clock import SystemClock
from prometheus_backup.errors import RepositoryUnavailable
from prometheus_backup.events import FileCopied, FileUploaded
from prometheus_backup.model import Level, Outcome, Verdict
from prometheus_backup.repository.layout import CATALOG
from prometheus_backup.repository.manifest import decode
from prometheus_backup.repository.repository import Repository
from prometheus_backup.repository.verification import Verification
from prometheus_backup.stores.local import LocalStore
from prometheus_backup.verify.blocks import open_scratch_space
from prometheus_backup.verify.run import Verifier, VerifyReport, select_backups
from tests.support import manifests
from tests.support.runs import Recorder, cli, take_backup, transfer, without_privileges
from tests.support.store_wrappers import FlippingStore, ReadRecorder
from tests.support.stored_backups import (
    Files,
    LocalFiles,
    S3Files,
    StoredBackups,
    block_keys,
    flip_one_bit,
    json_of,
    manifest_of,
    run_here,
)

LEVELS = ("size", "checksum")


def verify(files: Files, *arguments: str, code: int) -> list[dict[str, Any]]:
    """Run `verify --json`, expect exit code `code`, return the results."""
    results = json_of(run_here("verify", "--json", *arguments, env=files.environment()), code=code)
    assert isinstance(results["results"], list)
    return results["results"]


def listed(files: Files) -> dict[str, dict[str, Any]]:
    """The entries of `list --json` by backup."""
    document = json_of(run_here("list", "--json", env=files.environment()))
    return {entry["backup_id"]: entry for entry in document["backups"]}


def recorded(files: Files, backup: str, level: str) -> Verification:
    result = decode(Verification, files.get(f"{backup}/verification-{level}.json"))
    assert result is not None
    return result


@pytest.mark.parametrize("level", LEVELS)
def test_a_sound_backup_passes_and_the_pass_is_recorded(
    files: S3Files, stored: StoredBackups, level: str
) -> None:
    (result,) = verify(files, stored.first, "--level", level, code=0)

    blocks = block_keys(files, stored.first)
    sums = len(files.get(f"{stored.first}/SHA256SUMS"))
    reads = manifest_of(files, stored.first)["totals"]["bytes"] + sums
    assert (result["verdict"], result["findings"], result["cause"]) == ("pass", [], "")
    assert result["objects"] == len(blocks) + 1
    assert result["bytes_read"] == (reads if level == "checksum" else 0)
    kept = recorded(files, stored.first, level)
    assert (kept.backup_id, kept.level, kept.verdict) == (stored.first, level, Verdict.PASS)
    assert kept.findings == ()
    assert listed(files)[stored.first]["good"] is True


Damage = Callable[[Files, str], None]


def _shorten(files: Files, key: str) -> None:
    files.put(key, files.get(key)[:-1])


def _lengthen(files: Files, key: str) -> None:
    files.put(key, files.get(key) + b"\0")


def _empty(files: Files, key: str) -> None:
    files.put(key, b"")


def _alter(files: Files, key: str) -> None:
    flip_one_bit(files, key)


def _remove(files: Files, key: str) -> None:
    files.delete(key)


FOUND_BY_SIZE: dict[str, tuple[Damage, str]] = {
    "missing": (_remove, "missing"),
    "short": (_shorten, "wrong-size"),
    "longer": (_lengthen, "wrong-size"),
    "emptied": (_empty, "wrong-size"),
}


@pytest.mark.parametrize("what", ["block file", "SHA256SUMS"])
@pytest.mark.parametrize("damage", FOUND_BY_SIZE)
def test_an_object_of_the_wrong_size_is_a_finding_at_every_level(
    files: S3Files, stored: StoredBackups, what: str, damage: str
) -> None:
    inflict, kind = FOUND_BY_SIZE[damage]
    sums = f"{stored.second}/SHA256SUMS"
    key = sums if what == "SHA256SUMS" else block_keys(files, stored.second)[3]
    inflict(files, key)

    for level in LEVELS:
        (result,) = verify(files, stored.second, "--level", level, code=41)

        assert result["verdict"] == "fail"
        assert [(f["kind"], f["key"]) for f in result["findings"]] == [(kind, key)]
        kept = recorded(files, stored.second, level)
        assert kept.verdict is Verdict.FAIL
        assert [(f.kind, f.key) for f in kept.findings] == [(kind, key)]


@pytest.mark.parametrize("what", ["block file", "SHA256SUMS"])
def test_one_altered_bit_is_found_by_checksum_and_not_by_size(
    files: S3Files, stored: StoredBackups, what: str
) -> None:
    sums = f"{stored.second}/SHA256SUMS"
    key = sums if what == "SHA256SUMS" else block_keys(files, stored.second)[-2]
    flip_one_bit(files, key)

    verify(files, stored.second, "--level", "size", code=0)
    (result,) = verify(files, stored.second, code=41)

    assert [(f["kind"], f["key"]) for f in result["findings"]] == [("altered", key)]


def test_every_fault_is_reported_not_only_the_first(files: S3Files, stored: StoredBackups) -> None:
    keys = block_keys(files, stored.second)
    _remove(files, keys[0])
    _shorten(files, keys[4])
    flip_one_bit(files, keys[9])

    (result,) = verify(files, stored.second, code=41)

    found = {f["key"]: f["kind"] for f in result["findings"]}
    assert found == {keys[0]: "missing", keys[4]: "wrong-size", keys[9]: "altered"}


@pytest.mark.parametrize("how", ["named", "--all"])
def test_an_unreadable_manifest_is_a_finding_and_the_other_backups_are_verified(
    files: S3Files, stored: StoredBackups, how: str
) -> None:
    key = f"{stored.first}/metadata.json"
    files.put(key, files.get(key)[:500])

    names = ["--all"] if how == "--all" else [stored.first, stored.second]
    broken, whole = verify(files, *names, code=41)

    assert (broken["backup_id"], broken["verdict"]) == (stored.first, "fail")
    assert [(f["kind"], f["key"]) for f in broken["findings"]] == [("unreadable-manifest", key)]
    assert (whole["backup_id"], whole["verdict"]) == (stored.second, "pass")
    assert recorded(files, stored.first, "checksum").verdict is Verdict.FAIL
    entry = listed(files)[stored.first]
    assert (entry["state"], entry["good"]) == ("unreadable", False)


def test_a_failed_backup_is_not_good_and_restore_latest_takes_the_one_before(
    files: S3Files, stored: StoredBackups, tmp_path: Any
) -> None:
    flip_one_bit(files, block_keys(files, stored.second)[0])
    latest = ("restore", "latest", str(tmp_path / "t"), "--dry-run", "--json")
    assert json_of(run_here(*latest, env=files.environment()))["backup_id"] == stored.second

    verify(files, stored.second, code=41)

    entries = listed(files)
    assert entries[stored.second]["good"] is False
    assert entries[stored.second]["failed"]["level"] == "checksum"
    assert entries[stored.first]["good"] is True
    assert json_of(run_here(*latest, env=files.environment()))["backup_id"] == stored.first
    table = run_here("list", env=files.environment()).stdout
    assert "FAILED checksum" in next(row for row in table.splitlines() if stored.second in row)


def test_the_next_backup_copies_nothing_from_a_failed_one(
    start_prometheus: PrometheusFleet, prometheus_2: Any, data_dir: Any, tmp_path: Any
) -> None:
    server = start_prometheus(prometheus_2, data_dir)
    (tmp_path / "repository").mkdir()
    files = LocalFiles(tmp_path / "repository")
    store = LocalStore(files.root)
    first = take_backup(server, store).manifest.backup_id
    flip_one_bit(files, block_keys(files, first)[0])
    verify(files, first, code=41)

    recorder = Recorder()
    second = take_backup(server, store, listener=recorder).manifest

    assert recorder.of(FileCopied) == []
    assert len(recorder.of(FileUploaded)) >= second.totals.files
    assert {f.key.partition("/")[0] for _, f in second.files()} == {second.backup_id}
    verify(files, second.backup_id, code=0)


def test_a_failure_is_cleared_by_a_pass_at_the_same_level_and_not_at_a_lower_one(
    files: S3Files, stored: StoredBackups
) -> None:
    key = block_keys(files, stored.second)[0]
    whole = flip_one_bit(files, key)
    verify(files, stored.second, code=41)
    files.put(key, whole)

    verify(files, stored.second, "--level", "size", code=0)
    assert listed(files)[stored.second]["good"] is False

    verify(files, stored.second, code=0)
    assert listed(files)[stored.second]["good"] is True


def test_a_failure_is_cleared_by_a_pass_at_a_higher_level(
    files: S3Files, stored: StoredBackups
) -> None:
    key = block_keys(files, stored.second)[0]
    whole = files.get(key)
    files.delete(key)
    verify(files, stored.second, "--level", "size", code=41)
    files.put(key, whole)

    verify(files, stored.second, "--level", "checksum", code=0)

    assert listed(files)[stored.second]["good"] is True


class _DiesMidway:
    """Allows some reads, then raises because the store does not respond."""

    def __init__(self, reads: int) -> None:
        self._left = reads

    def __call__(self, key: str) -> None:
        self._left -= 1
        if self._left < 0:
            raise RepositoryUnavailable(f"cannot read {key}: the store does not answer")


def _verify_with_dying_store(files: LocalFiles, backup: str, recorder: Recorder) -> VerifyReport:
    store = ReadRecorder(LocalStore(files.root), before=_DiesMidway(5))
    repository = Repository(store, clock=SystemClock())
    verifier = Verifier(repository, transfer(recorder), Level.CHECKSUM, recorder)
    return verifier.verify(select_backups(repository, [backup], every=False))


def test_a_store_that_fails_midway_is_inconclusive_with_its_cause(
    repository_files: LocalFiles, stored: StoredBackups
) -> None:
    recorder = Recorder()

    report = _verify_with_dying_store(repository_files, stored.second, recorder)

    (checked,) = report.checked
    assert report.outcome is Outcome.PARTIAL
    assert report.outcome.exit_code == 3
    assert checked.result.verdict is Verdict.INCONCLUSIVE
    assert "does not answer" in checked.cause
    assert f"cannot verify {stored.second}" in recorder.warnings
    assert recorded(repository_files, stored.second, "checksum").verdict is Verdict.INCONCLUSIVE
    assert listed(repository_files)[stored.second]["good"] is True


def test_a_fault_found_before_the_store_failed_counts(
    repository_files: LocalFiles, stored: StoredBackups
) -> None:
    gone = block_keys(repository_files, stored.second)[-1]
    repository_files.delete(gone)

    report = _verify_with_dying_store(repository_files, stored.second, Recorder())

    (checked,) = report.checked
    assert report.outcome is Outcome.FAULTY
    assert [f.key for f in checked.result.findings] == [gone]
    assert "does not answer" in checked.cause


@pytest.mark.parametrize("before", ["pass", "fail"])
def test_an_inconclusive_result_never_replaces_an_earlier_one(
    repository_files: LocalFiles, stored: StoredBackups, before: str
) -> None:
    if before == "fail":
        flip_one_bit(repository_files, block_keys(repository_files, stored.second)[-1])
    verify(repository_files, stored.second, code=41 if before == "fail" else 0)
    key = f"{stored.second}/verification-checksum.json"
    result = repository_files.get(key)

    _verify_with_dying_store(repository_files, stored.second, Recorder())

    assert repository_files.get(key) == result
    assert listed(repository_files)[stored.second]["good"] is (before == "pass")


def test_an_unreachable_store_is_exit_13_and_not_a_pass(
    own_seaweedfs: SeaweedFS,
) -> None:
    env = S3Files(own_seaweedfs.endpoint().new_bucket(), "prefix").environment()
    own_seaweedfs.kill()

    done = run_here("verify", "--all", "--json", env=env)

    assert json_of(done, code=13)["kind"] == "RepositoryUnavailable"
    assert "pass" not in done.stdout


def test_an_empty_repository_is_exit_3_and_nothing_was_verified(bucket: S3Bucket) -> None:
    env = S3Files(bucket, f"empty-{uuid4().hex[:8]}").environment()

    done = run_here("verify", "--all", env=env)

    assert done.returncode == 3
    assert "nothing was verified" in done.stdout
    assert json_of(run_here("verify", "--all", "--json", env=env), code=3)["results"] == []
    assert run_here("verify", env=env).returncode == 30


def test_the_default_is_latest_and_several_backups_keep_their_order(
    repository_files: LocalFiles, stored: StoredBackups
) -> None:
    (alone,) = verify(repository_files, code=0)
    (named,) = verify(repository_files, "latest", code=0)
    several = verify(repository_files, stored.second, stored.first, "--level", "size", code=0)

    assert alone["backup_id"] == named["backup_id"] == stored.second
    assert [r["backup_id"] for r in several] == [stored.second, stored.first]


def test_an_unknown_name_is_exit_30_and_names_the_nearest(
    repository_files: LocalFiles, stored: StoredBackups
) -> None:
    mistyped = stored.first.replace("backup-2", "backup-3")  # in the year 3000
    before = repository_files.all_keys()

    for name in (mistyped, "yesterday"):
        done = run_here("verify", name, "--json", env=repository_files.environment())
        error = json_of(done, code=30)
        assert name in error["error"]
        assert stored.second in error["hint"]
    assert repository_files.all_keys() == before


def _make_newer(files: Files, backup: str) -> None:
    """Turn a backup into one of a newer format."""
    document = manifest_of(files, backup) | {"format_version": 3}
    files.put(f"{backup}/metadata.json", json.dumps(document).encode())


def test_a_newer_format_is_exit_14_and_is_not_written_into(
    repository_files: LocalFiles, stored: StoredBackups
) -> None:
    _make_newer(repository_files, stored.first)
    before = repository_files.all_keys()

    done = run_here("verify", stored.first, "--json", env=repository_files.environment())
    newer, whole = verify(repository_files, "--all", code=3)

    assert json_of(done, code=14)["kind"] == "NewerFormat"
    assert "upgrade" in json_of(done, code=14)["hint"]
    assert (newer["verdict"], whole["verdict"]) == ("inconclusive", "pass")
    assert "format 3" in newer["cause"]
    added = set(repository_files.all_keys()) - set(before)
    assert added == {f"{stored.second}/verification-checksum.json"}


def test_all_skips_foreign_folders_and_naming_one_is_exit_30(
    repository_files: LocalFiles, stored: StoredBackups
) -> None:
    repository_files.put("backup-20240301-020000/metadata.json", manifests.OLD_SCRIPT)
    repository_files.put("backup-20240302-020000/leftover", b"")

    results = verify(repository_files, "--all", "--level", "size", code=0)
    named = run_here("verify", "backup-20240301-020000", env=repository_files.environment())

    assert [r["backup_id"] for r in results] == [stored.first, stored.second]
    assert named.returncode == 30
    assert "not written by this program" in named.stderr


def test_backups_and_all_together_are_refused(repository_files: LocalFiles) -> None:
    done = run_here("verify", "latest", "--all", env=repository_files.environment())

    assert done.returncode == 2
    assert "--all" in done.stderr


@pytest.mark.parametrize("level", [Level.CHECKSUM, Level.TSDB])
def test_a_bit_that_flips_once_on_the_way_is_no_finding(
    repository_files: LocalFiles, stored: StoredBackups, tmp_path: Path, level: Level
) -> None:
    store = FlippingStore(LocalStore(repository_files.root))
    repository = Repository(store, clock=SystemClock())
    with open_scratch_space(tmp_path / "scratch", processes=1) as scratch:
        verifier = Verifier(repository, transfer(), level, Recorder(), scratch=scratch)
        report = verifier.verify(select_backups(repository, [stored.second], every=False))

    assert report.outcome is Outcome.DONE
    assert store.flipped >= set(block_keys(repository_files, stored.second))


def test_a_backup_that_retention_deletes_meanwhile_is_no_finding(
    repository_files: LocalFiles, stored: StoredBackups
) -> None:
    """Its manifest goes first, then its objects."""

    going = [key for key in repository_files.all_keys() if key.startswith(stored.first)]
    deleting = threading.Lock()  # several workers read

    def delete(key: str) -> None:
        with deleting:
            while key.startswith(stored.first) and going:
                repository_files.delete(going.pop())

    store = ReadRecorder(LocalStore(repository_files.root), before=delete)
    repository = Repository(store, clock=SystemClock())
    verifier = Verifier(repository, transfer(), Level.CHECKSUM, Recorder())

    report = verifier.verify(select_backups(repository, [], every=True))

    assert report.outcome is Outcome.DONE
    assert [c.result.backup_id for c in report.checked] == [stored.second]


@pytest.mark.parametrize("what", ["its manifest", "its folder"])
def test_a_backup_that_cannot_be_read_leaves_the_other_backups_alone(
    repository_files: LocalFiles, stored: StoredBackups, what: str
) -> None:
    """As where a KMS key is disabled: it may be readable tomorrow, so it is no finding."""
    folder = repository_files.root / stored.first
    (folder if what == "its folder" else folder / "metadata.json").chmod(0)
    shutil.rmtree(repository_files.root / CATALOG)
    env = repository_files.environment()

    def run(*arguments: str) -> Any:
        done = cli(*arguments, "--json", env=env, prefix=without_privileges())
        assert "Traceback" not in done.stderr
        return done

    listed = json_of(run("list"), code=3)["backups"]
    verified = json_of(run("verify", "--all"), code=3)["results"]
    pruned = json_of(run("prune"), code=3)
    shown = run("show", stored.first)

    assert [(b["backup_id"], b["state"]) for b in listed] == [
        (stored.first, "unreadable"),
        (stored.second, "committed"),
    ]
    assert {r["backup_id"]: r["verdict"] for r in verified} == {
        stored.first: "inconclusive",
        stored.second: "pass",
    }
    assert pruned["unreadable"] == [stored.first]
    assert pruned["deleted"] == []
    assert shown.returncode == 12
    assert json_of(run("metrics"))
    folder.chmod(0o755)


def test_a_manifest_that_cannot_be_read_is_noticed_where_it_is_needed(
    repository_files: LocalFiles, stored: StoredBackups
) -> None:
    """The catalogue says what was in it, and its size and time have not changed."""
    (repository_files.root / stored.first / "metadata.json").chmod(0)
    env = repository_files.environment()

    def run(*arguments: str) -> Any:
        return cli(*arguments, "--json", env=env, prefix=without_privileges())

    listed = json_of(run("list"))["backups"]
    verified = json_of(run("verify", "--all"), code=3)["results"]

    assert [b["state"] for b in listed] == ["committed", "committed"]
    assert {r["backup_id"]: r["verdict"] for r in verified} == {
        stored.first: "inconclusive",
        stored.second: "pass",
    }
    assert run("show", stored.first).returncode == 12


def test_linked_backups_are_listed_and_one_whose_volume_is_not_mounted_is_named(
    repository_files: LocalFiles, stored: StoredBackups, tmp_path: Path
) -> None:
    """Somebody moved old backups to another disk, and left links."""
    env, root = repository_files.environment(), repository_files.root
    disk = tmp_path / "disk"
    disk.mkdir()
    (root / stored.first).rename(disk / stored.first)
    (root / stored.first).symlink_to(disk / stored.first)

    listed = json_of(run_here("list", "--json", env=env))["backups"]
    assert [(b["backup_id"], b["state"]) for b in listed] == [
        (stored.first, "committed"),
        (stored.second, "committed"),
    ]
    assert run_here("verify", "--all", env=env).returncode == 0

    disk.rename(tmp_path / "unmounted")
    again = run_here("list", env=env)
    assert again.returncode == 3
    assert f"cannot read {stored.first}" in again.stderr
    assert "which does not exist" in again.stderr
    assert json_of(run_here("prune", "--json", env=env), code=3)["unreadable"] == [stored.first]
    assert (root / stored.first).is_symlink()
