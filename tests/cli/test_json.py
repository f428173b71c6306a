"""`--json`: one document on standard output, the rest on standard error; its keys are stable."""

import json
import platform
from pathlib import Path
from typing import Any

import pytest

from devtools.prometheus import PrometheusFleet
from prometheus_backup import __version__
from prometheus_backup.cli import commands as cli_commands
from prometheus_backup.cli.context import CommandContext
from tests.support import manifests
from tests.support.runs import settings
from tests.support.stored_backups import LocalFiles, StoredBackups, json_of, run_here

LISTED = {
    "backup_id",
    "time",
    "state",
    "good",
    "layout",
    "problem",
    "size_bytes",
    "blocks",
    "min_time",
    "max_time",
    "snapshot_mode",
    "recoverable_until",
    "labels",
    "degraded",
    "verified",
    "failed",
    "last_read",
    "stale",
    "hold",
    "keep",
    "tiers",
    "reasons",
}
VERIFICATION = {
    "backup_id",
    "level",
    "verdict",
    "verified_at",
    "tool_version",
    "objects",
    "bytes_read",
    "findings",
}
BLOCK = {"ulid", "min_time", "max_time", "bytes"}
RESTORE = {"history", "dry_run", "backup_id", "target", "place", "deleted", "present", "bytes"}
RESTORE |= {"skipped", "gaps", "in_memory_from", "retention"}
RESTORE |= {"warnings", "required_flags", "required_configuration", "refused", "needs_version"}
RESTORED = {"outcome", "files", "damaged", "seconds", "loaded", "loading"}
PRUNE = {"forgotten", "dry_run", "decisions", "would_sweep", "unreadable", "foreign", "doubt"}
PRUNE |= {"excess", "archive"}
PRUNED = {"deleted", "swept", "problems", "archive_deleted"}
HEAL = {"data_dir", "applied", "outcome", "running", "sound", "bad", "waiting", "head", "no_copies"}
HEAL |= {"placed", "problems", "seconds"}
HEALED = {"block", "effect", "min_time", "max_time", "fault_counts", "faults", "remedy", "because"}
HEALED |= {"heals", "copies", "gaps", "quarantine"}
ERROR = {"error", "hint", "kind", "exit_code"}


def document(files: LocalFiles, *arguments: str, code: int = 0) -> dict[str, Any]:
    """Return the document of a command, which is all that it wrote to standard output."""
    done = run_here(arguments[0], "--json", *arguments[1:], env=files.environment())
    value = json_of(done, code=code)
    assert isinstance(value, dict)
    assert done.stdout == json.dumps(value, indent=2) + "\n"
    return value


def test_list(repository_files: LocalFiles, stored: StoredBackups) -> None:
    repository_files.put("backup-20240301-020000/metadata.json", manifests.OLD_SCRIPT)

    value = document(repository_files, "list")

    assert {*value} == {"repository", "backups"}
    assert value["repository"] == f"file://{repository_files.root}"
    foreign, first, second = value["backups"]
    assert {*foreign} == {*first} == {*second} == LISTED
    assert [foreign["state"], first["state"]] == ["foreign", "committed"]
    assert {*second["verified"]} == {"level", "at"}
    assert first["time"] == _time_of(stored.first)


def _time_of(backup: str) -> str:
    day, clock = backup.removeprefix("backup-").split("-")
    return f"{day[:4]}-{day[4:6]}-{day[6:]}T{clock[:2]}:{clock[2:4]}:{clock[4:]}Z"


def test_show(repository_files: LocalFiles, stored: StoredBackups) -> None:
    document(repository_files, "verify", stored.first)

    value = document(repository_files, "show", stored.first)

    assert {*value} == LISTED | {"manifest", "verifications", "rotations"}
    stored_manifest = json.loads(repository_files.get(f"{stored.first}/metadata.json"))
    assert value["manifest"] == stored_manifest, "as it is stored"
    assert {*value["verifications"][0]} == VERIFICATION | {"rotation", "part", "seconds"}
    assert value["rotations"] == []


def test_verify(repository_files: LocalFiles, stored: StoredBackups) -> None:
    index = next(k for k in repository_files.all_keys() if k.startswith(stored.second))
    repository_files.delete(index)

    value = document(repository_files, "verify", "--all", code=41)

    assert {*value} == {"outcome", "results"}
    assert value["outcome"] == "faulty"
    for result in value["results"]:
        assert {*result} == VERIFICATION | {"cause", "rotation"}
    finding = {"kind", "key", "detail", "offset", "series"}
    assert {*value["results"][1]["findings"][0]} == finding


def test_verify_in_parts(repository_files: LocalFiles, stored: StoredBackups) -> None:
    value = document(repository_files, "verify", stored.first, "--subset", "next/3")
    shown = document(repository_files, "show", stored.first)

    (result,) = value["results"]
    assert {*result} == VERIFICATION | {"cause", "rotation"}
    progress = {"part": 1, "parts": 3, "parts_passed": 1, "passed_at": None}
    assert result["rotation"] == progress
    (rotation,) = shown["rotations"]
    assert {*rotation} == {"backup_id", "level", "parts", "looked", "passed_at"}
    assert {*rotation["looked"][0]} == {"part", "at", "verdict", "objects", "bytes_read"}


def test_prune(repository_files: LocalFiles) -> None:
    planned = document(repository_files, "prune", "--dry-run")
    done = document(repository_files, "prune")

    assert {*planned} == PRUNE
    assert {*done} == PRUNE | PRUNED | {"outcome"}
    assert {*done["decisions"][0]} == {"backup_id", "keep", "tiers", "reasons"}


def test_hold_and_release(repository_files: LocalFiles, stored: StoredBackups) -> None:
    command = ("hold", stored.first, "--reason=audit", "--until=2200-01-01")

    held = document(repository_files, *command)
    shown = document(repository_files, "show", stored.first)
    released = document(repository_files, "release", stored.first)

    assert {*held} == {"backup_id", "dry_run", "outcome", "hold", "replaced"}
    assert {*held["hold"]} == {"reason", "until", "held_at"}
    assert (held["hold"]["until"], held["replaced"]) == ("2200-01-01", None)
    assert {*released} == {"backup_id", "dry_run", "released", "keep", "reasons"}
    assert released["released"] == shown["hold"] == held["hold"]


def test_restore(repository_files: LocalFiles, tmp_path: Any) -> None:
    command = ("restore", "latest", str(tmp_path / "target"))

    planned = document(repository_files, *command, "--dry-run")
    done = document(repository_files, *command)

    assert {*planned} == RESTORE
    assert {*done} == RESTORE | RESTORED
    assert {*done["place"][0]} == BLOCK | {"copy"}


def test_heal(repository_files: LocalFiles, data_dir: Path) -> None:
    block = min(data_dir.iterdir())
    (block / "index").unlink()
    command = ("heal", str(data_dir), "--prometheus-url=http://127.0.0.1:9")

    planned = document(repository_files, *command, code=41)
    done = document(repository_files, *command, "--apply")

    assert {*planned} == {*done} == HEAL
    (bad,) = done["bad"]
    assert {*bad} == HEALED
    assert {*bad["faults"][0]} == {"kind", "effect", "file", "offset", "series", "detail"}
    assert {*bad["copies"][0]} == {"backup_id", "ulid", "bytes"}
    assert (planned["applied"], done["applied"], done["placed"]) == (False, True, [block.name])


def test_metrics(repository_files: LocalFiles) -> None:
    value = document(repository_files, "metrics")

    assert {*value} == {"metrics"}
    for metric in value["metrics"]:
        assert {*metric} == {"name", "labels", "value"}
        assert metric["labels"]["repository"] == f"file://{repository_files.root}"
    held = {m["name"]: m["value"] for m in value["metrics"]}
    assert held["prometheus_backup_good_backups"] == 2


def test_version(repository_files: LocalFiles) -> None:
    value = document(repository_files, "version")

    assert value == {"version": __version__, "python": platform.python_version()}


def test_backup_and_check(
    start_prometheus: PrometheusFleet, prometheus_3: Any, data_dir: Any, tmp_path: Any
) -> None:
    (tmp_path / "repository").mkdir()
    env = settings(start_prometheus(prometheus_3, data_dir), tmp_path / "repository")

    checked = json_of(run_here("check", "--json", env=env))
    done = run_here("backup", "--json", env=env)
    value = json_of(done)

    assert {*checked} == {"ok", "checks", "advice", "settings"}
    assert {*checked["checks"][0]} == {"subject", "ok", "detail", "fix"}
    assert {*checked["settings"][0]} == {"name", "value", "source", "place"}
    assert "snapshot taken" in done.stderr, "the log is on standard error"
    assert {*value} == {
        "backup_id",
        "outcome",
        "problems",
        "degraded",
        "snapshot_name",
        "verified",
        "totals",
        "min_time",
        "max_time",
        "snapshot_mode",
        "recoverable_until",
        "started_at",
        "finished_at",
        "fingerprints",
        "phase_seconds",
        "retention",
    }
    assert {*value["totals"]} == {"blocks", "files", "bytes", "uploaded_bytes", "copied_bytes"}
    assert {*value["retention"]} == PRUNED
    assert {*value["fingerprints"]} == {"answered", "inconclusive"}
    phases = {"check", "fingerprints", "snapshot", "transfer", "verify", "retention"}
    assert {*value["phase_seconds"]} >= phases


FAILURES = {
    "backup": (["backup", "--prometheus-url=http://127.0.0.1:9"], 20, "SourceUnavailable"),
    "list": (["list", "--repository=file:///etc/passwd"], 13, "RepositoryUnavailable"),
    "show": (["show", "backup-20010101-000000"], 30, "BackupNotFound"),
    "verify": (["verify", "backup-20010101-000000"], 30, "BackupNotFound"),
    "drill": (["drill", "latest", "--prometheus-binary=/nonexistent"], 2, "UsageError"),
    "prune": (["prune", "--retention-daily=-1"], 2, "UsageError"),
    "report": (["report", "--output=/nonexistent/report.html"], 33, "TargetUnusable"),
    "restore": (["restore", "latest", "/proc/target"], 33, "TargetUnusable"),
    "heal": (["heal", "/nonexistent/data"], 33, "TargetUnusable"),
    "estimate": (["estimate", "--tsdb-size=much"], 2, "UsageError"),
    "metrics": (["metrics", "--listen=nowhere"], 2, "UsageError"),
    "daily": (["daily", "noon"], 2, "UsageError"),
    "hold": (["hold", "latest", "--reason="], 2, "UsageError"),
    "history": (["history", "forget"], 2, "UsageError"),
    "release": (["release", "backup-20010101-000000"], 30, "BackupNotFound"),
    "open": (["open", "--prometheus-binary=/nonexistent"], 2, "UsageError"),
    "inspect": (["inspect", "/nowhere"], 2, "UsageError"),
    "timeline": (["timeline", "--from=-1d", "--to=-2d"], 2, "UsageError"),
    "job": (["job", "list"], 2, "UsageError"),
}


@pytest.mark.parametrize("name", FAILURES)
def test_failure_is_one_document_too(repository_files: LocalFiles, name: str) -> None:
    arguments, code, kind = FAILURES[name]

    value = document(repository_files, *arguments, code=code)

    assert {*value} == ERROR
    assert (value["kind"], value["exit_code"]) == (kind, code)
    assert value["error"]


def test_every_command_has_a_test_here() -> None:
    assert {*cli_commands.commands.commands} == {*FAILURES, "check", "version"}


@pytest.mark.parametrize("as_json", [False, True])
def test_an_unexpected_exception_is_exit_1_with_a_traceback(
    repository_files: LocalFiles, monkeypatch: pytest.MonkeyPatch, as_json: bool
) -> None:
    def broken(context: CommandContext) -> Any:
        del context
        raise ZeroDivisionError("a bug of ours")

    monkeypatch.setattr(CommandContext, "policy", broken)

    if as_json:
        value = document(repository_files, "list", code=1)
        assert {*value} == ERROR
        assert "a bug of ours" in value["error"]
    done = run_here("list", env=repository_files.environment())

    assert done.returncode == 1
    assert done.stdout == ""
    assert "Traceback (most recent call last)" in done.stderr
    assert "ZeroDivisionError: a bug of ours" in done.stderr
    assert "please report it" in done.stderr.splitlines()[-1]
