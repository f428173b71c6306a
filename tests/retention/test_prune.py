"""`prune` on the command line: what is deleted and why, what is never touched, its output."""

import json
import os
import time
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from prometheus_backup.clock import SystemClock
from prometheus_backup.errors import RepositoryDenied
from prometheus_backup.events import BackupDeleted, BackupKept
from prometheus_backup.model import FindingKind, Level, Outcome, Verdict
from prometheus_backup.repository.manifest import Incomplete, encode
from prometheus_backup.repository.repository import Repository
from prometheus_backup.repository.verification import RecordedFinding, Verification
from prometheus_backup.retention.policy import Candidate, Policy, decide
from prometheus_backup.retention.prune import PrunePlan, apply_prune, plan_prune
from prometheus_backup.stores.local import LocalStore
from tests.support import manifests
from tests.support.contents import tree
from tests.support.runs import Recorder
from tests.support.store_wrappers import StoreWrapper
from tests.support.stored_backups import LocalFiles, json_of, put_small_backup, run_here

TWO_DAYS = {"RETENTION_DAILY": "2", "RETENTION_MONTHLY": "0", "RETENTION_YEARLY": "0"}


@pytest.fixture
def files(tmp_path: Path) -> LocalFiles:
    (tmp_path / "repository").mkdir()
    return LocalFiles(tmp_path / "repository")


def backup_of(files: LocalFiles, *, days_ago: int, **changes: Any) -> str:
    # Whole days before now, so that ages do not depend on the time of day.
    return put_small_backup(files, datetime.now(UTC) - timedelta(days=days_ago), **changes)


def prune(files: LocalFiles, *arguments: str, code: int = 0, **env: str) -> dict[str, Any]:
    done = run_here("prune", "--json", *arguments, env=files.environment() | TWO_DAYS | env)
    document = json_of(done, code=code)
    assert isinstance(document, dict)
    return document


def put_mark(files: LocalFiles, backup: str, state: str, *, age: timedelta) -> None:
    """Write the incomplete.json of a run whose last heartbeat was `age` ago."""
    now = datetime.now(UTC)
    mark = Incomplete.model_validate({"run_id": "another", "state": state, "started_at": now})
    files.put(f"{backup}/incomplete.json", encode(mark))
    at = time.time() - age.total_seconds()
    os.utime(files.root / backup / "incomplete.json", (at, at))


def decisions(document: dict[str, Any]) -> dict[str, bool]:
    return {d["backup_id"]: d["keep"] for d in document["decisions"]}


def test_expired_backups_are_deleted_completely_and_the_rest_is_untouched(
    files: LocalFiles,
) -> None:
    old = [backup_of(files, days_ago=days) for days in (9, 3)]
    kept = [backup_of(files, days_ago=days) for days in (1, 0)]
    before = tree(files.root)

    document = prune(files)

    assert document["deleted"] == old
    assert decisions(document) == dict.fromkeys(old, False) | dict.fromkeys(kept, True)
    assert document["outcome"] == "done"
    left = {key: body for key, body in before.items() if key.partition("/")[0] in kept}
    assert tree(files.root) == left


def test_a_dry_run_decides_the_same_and_writes_nothing(files: LocalFiles) -> None:
    old, new = backup_of(files, days_ago=5), backup_of(files, days_ago=0)
    (files.root / old / "metadata.json").chmod(0o444)
    before, changed = tree(files.root), files.root.stat().st_mtime_ns

    document = prune(files, "--dry-run")

    assert document["dry_run"] is True
    assert decisions(document) == {old: False, new: True}
    assert "deleted" not in document
    assert tree(files.root) == before
    assert files.root.stat().st_mtime_ns == changed, "no probe object came and went"


def test_every_decision_carries_its_reasons(files: LocalFiles) -> None:
    old, new = backup_of(files, days_ago=5), backup_of(files, days_ago=0)
    env = files.environment() | TWO_DAYS

    done = run_here("prune", "--dry-run", env=env)
    rows = {row.split()[0]: row for row in done.stdout.splitlines() if row.startswith("backup-")}

    for decision in prune(files, "--dry-run")["decisions"]:
        assert decision["reasons"], decision
        assert "; ".join(decision["reasons"]) in rows[decision["backup_id"]]
    assert " delete " in rows[old]
    assert " keep " in rows[new]
    assert "retention: would delete 1 backup\n" in done.stdout
    listed = run_here("list", env=env).stdout
    assert "will be pruned" in next(r for r in listed.splitlines() if r.startswith(old))
    assert "will be pruned" not in next(r for r in listed.splitlines() if new in r)


def test_log_lines_of_a_deletion_contain_retention(files: LocalFiles) -> None:
    old, _ = backup_of(files, days_ago=5), backup_of(files, days_ago=0)

    done = run_here("prune", env=files.environment() | TWO_DAYS)

    (line,) = [line for line in done.stderr.splitlines() if old in line]
    assert "retention" in line
    assert "retention: deleted 1 backup\n" in done.stdout


def test_foreign_and_unreadable_folders_are_never_touched(files: LocalFiles) -> None:
    old, new = backup_of(files, days_ago=50), backup_of(files, days_ago=0)
    unreadable = backup_of(files, days_ago=60)
    files.put(f"{unreadable}/metadata.json", b'{"format_version": 1, "blocks": ')
    files.put("backup-20200301-020000/metadata.json", manifests.OLD_SCRIPT)
    files.put("backup-20200302-020000/data.tar", b"of nobody we know")
    files.put("backup-20209999-020000/metadata.json", manifests.encoded())
    files.put("other-tool/backup-20200101-000000/metadata.json", b"{}")
    files.put("notes.txt", b"keep me")
    before = tree(files.root)

    document = prune(files, code=3)

    gone = set(before) - set(tree(files.root))
    assert gone == {key for key in before if key.startswith(f"{old}/")}
    assert document["unreadable"] == [unreadable]
    assert document["foreign"] == ["backup-20200301-020000", "backup-20200302-020000"]
    (problem,) = document["problems"]
    assert problem.startswith("retention: ")
    assert unreadable in problem
    assert decisions(document) == {old: False, new: True}


def test_an_interrupted_deletion_is_completed_and_a_dead_run_is_swept(files: LocalFiles) -> None:
    new = backup_of(files, days_ago=0)
    deleting, dead, young = (f"backup-2025010{n}-000000" for n in (1, 2, 3))
    for backup in (deleting, dead, young):
        files.put(f"{backup}/{manifests.ULID}/index", b"left")
    put_mark(files, deleting, "deleting", age=timedelta(0))
    put_mark(files, dead, "running", age=timedelta(hours=25))
    put_mark(files, young, "running", age=timedelta(hours=23))

    planned = prune(files, "--dry-run")["would_sweep"]
    document = prune(files)

    assert planned == document["swept"] == [deleting, dead]
    assert {key.partition("/")[0] for key in files.all_keys()} == {new, young}


def test_a_dead_mark_next_to_a_manifest_is_removed_and_the_backup_kept(files: LocalFiles) -> None:
    new = backup_of(files, days_ago=0)
    before = tree(files.root)
    put_mark(files, new, "running", age=timedelta(hours=25))

    document = prune(files)

    assert document["deleted"] == document["swept"] == []
    assert tree(files.root) == before


def test_the_newest_good_backup_is_kept_at_any_age_and_failed_ones_do_not_count(
    files: LocalFiles,
) -> None:
    older, good, failed = (backup_of(files, days_ago=days) for days in (90, 80, 70))
    degraded = backup_of(files, days_ago=60, degraded=["a block is missing"])
    finding = RecordedFinding(kind=FindingKind.ALTERED, key="k", detail="d")
    failure = Verification(
        backup_id=failed,
        level=Level.CHECKSUM,
        verdict=Verdict.FAIL,
        verified_at=datetime.now(UTC),
        tool_version="1.0.0",
        objects=2,
        bytes_read=2,
        findings=(finding,),
    )
    files.put(f"{failed}/verification-checksum.json", encode(failure))

    document = prune(files)

    assert decisions(document)[good] is True
    assert decisions(document)[older] is False
    assert decisions(document)[failed] is False
    assert decisions(document)[degraded] is True, "the newest of all stays, too"
    assert {key.partition("/")[0] for key in files.all_keys()} == {good, degraded}


def test_a_wrong_clock_deletes_nothing_and_is_exit_3(files: LocalFiles) -> None:
    old, _ = backup_of(files, days_ago=50), backup_of(files, days_ago=1)
    backup_of(files, days_ago=-3)
    before = tree(files.root)

    document = prune(files, code=3)
    done = run_here("prune", env=files.environment() | TWO_DAYS)

    assert tree(files.root) == before
    assert document["deleted"] == []
    assert document["doubt"]
    assert decisions(document)[old] is False
    assert f"nothing can be deleted: {document['doubt']}" in done.stdout
    assert "retention: nothing was deleted" in done.stderr


def test_a_newer_format_is_exit_14_and_deletes_nothing(files: LocalFiles) -> None:
    backup_of(files, days_ago=50)
    backup_of(files, days_ago=0)
    newer = backup_of(files, days_ago=10)
    document = json.loads(files.get(f"{newer}/metadata.json")) | {"format_version": 3}
    files.put(f"{newer}/metadata.json", json.dumps(document).encode())
    before = tree(files.root)

    assert prune(files, code=14)["kind"] == "NewerFormat"
    assert prune(files, "--dry-run", code=14)["kind"] == "NewerFormat"
    assert tree(files.root) == before


class _Guarded(StoreWrapper):
    """Refuses to delete anything of one backup."""

    def __init__(self, store: LocalStore, backup: str) -> None:
        super().__init__(store)
        self._backup = backup

    def delete(self, keys: Sequence[str]) -> None:
        if any(key.startswith(self._backup) for key in keys):
            raise RepositoryDenied(f"cannot delete {keys[0]}: access denied")
        super().delete(keys)


def test_a_failed_deletion_is_reported_and_the_others_continue(files: LocalFiles) -> None:
    first, stuck, third = (backup_of(files, days_ago=days) for days in (9, 8, 7))
    new = backup_of(files, days_ago=0)
    repository = Repository(_Guarded(LocalStore(files.root), stuck), clock=SystemClock())
    now = datetime.now(UTC)
    plan = plan_prune(repository.entries(), policy=Policy(2, 0, 0), now=now, store_now=now)
    recorder = Recorder()

    report = apply_prune(repository, plan, run_id="this", listener=recorder)

    assert report.outcome is Outcome.PARTIAL
    assert report.deleted == (first, third)
    (problem,) = report.problems
    assert problem.startswith("retention: cannot delete")
    assert problem in recorder.warnings
    assert [e.backup_id for e in recorder.of(BackupDeleted)] == [first, third]
    assert [e.backup_id for e in recorder.of(BackupKept)] == [new]
    assert f"{stuck}/metadata.json" in files.all_keys()

    assert prune(files)["deleted"] == [stuck], "the next run deletes it"
    assert {key.partition("/")[0] for key in files.all_keys()} == {new}


def test_prune_removes_staged_files_of_dead_runs(files: LocalFiles) -> None:
    kept = backup_of(files, days_ago=0)
    name = f".staged-{'0' * 32}"
    for folder in ("", f"{kept}/", f"{kept}/verifications/"):
        files.put(f"{folder}{name}", b"left by kill -9")

    prune(files, "--dry-run")
    assert sum(name in key for key in files.all_keys()) == 3
    prune(files)
    assert not [key for key in files.all_keys() if name in key]


def test_prune_deletes_most_backups_only_when_told_to(files: LocalFiles) -> None:
    """A timer may run `prune`, too."""
    kept, *_, newest = [backup_of(files, days_ago=days) for days in (9, 8, 7, 1, 0)]

    dry = run_here(
        "prune", "--dry-run", env=files.environment() | TWO_DAYS | {"RETENTION_DAILY": "1"}
    )
    refused = prune(files, code=3, RETENTION_DAILY="1")
    left = {key.partition("/")[0] for key in files.all_keys()}

    assert dry.returncode == 0
    assert "only with --allow-many: it would delete 4 of 5 backups at once" in dry.stdout
    assert refused["deleted"] == []
    assert kept in refused["excess"]
    assert "prometheus-backup prune --allow-many" in refused["problems"][0]
    assert len(left) == 5

    assert len(prune(files, "--allow-many", RETENTION_DAILY="1")["deleted"]) == 4
    assert {key.partition("/")[0] for key in files.all_keys()} == {newest}


def test_pruning_an_empty_repository_does_nothing(files: LocalFiles) -> None:
    document = prune(files)

    assert document["deleted"] == document["swept"] == document["problems"] == []
    assert run_here("prune", env=files.environment()).returncode == 0
    assert "no backups" in run_here("list", env=files.environment()).stdout


def plan_of(*days_ago: int, policy: Policy, per_day: int = 1) -> PrunePlan:
    """What is decided about good backups of these days."""
    today = datetime(2025, 3, 15, 12, tzinfo=UTC)
    times = [today - timedelta(days=d, hours=h) for d in days_ago for h in range(per_day)]
    judged = [Candidate(f"backup-{t:%Y%m%d-%H%M%S}", t, good=True) for t in times]
    decisions = decide(judged, today=today.date(), policy=policy)
    return replace(PrunePlan.nothing(), decisions=decisions)


@pytest.mark.parametrize(
    ("days_ago", "per_day", "excessive"),
    [
        (range(31), 1, False),
        (range(37), 1, False),
        (range(38), 1, True),
        (range(60, 95), 1, True),
        ([0, 31, 32], 1, True),
        ([0, 31], 1, False),
        (range(32), 24, False),
    ],
    ids=str,
)
def test_more_than_half_or_more_than_a_week_is_too_much_at_once(
    days_ago: Sequence[int], per_day: int, *, excessive: bool
) -> None:
    policy = Policy(daily=30, monthly=0, yearly=0)
    assert (plan_of(*days_ago, policy=policy, per_day=per_day).excess is not None) == excessive


def test_a_clock_that_jumped_ahead_deletes_nothing_by_a_timer(files: LocalFiles) -> None:
    """The store shares the clock, so nothing contradicts it."""
    for days in range(60, 95):
        backup_of(files, days_ago=days)
    repository = Repository(LocalStore(files.root), clock=SystemClock())
    now = datetime.now(UTC)
    policy = Policy(monthly=0, yearly=0)
    plan = plan_prune(repository.entries(), policy=policy, now=now, store_now=now)
    recorder = Recorder()

    report = apply_prune(repository, plan, run_id="this", listener=recorder, limited=True)

    assert report.outcome is Outcome.PARTIAL
    assert report.deleted == ()
    (problem,) = report.problems
    assert problem.startswith("retention: nothing was deleted: it would delete 34 of 35 backups")
    assert "prometheus-backup prune --allow-many" in problem
    assert len(apply_prune(repository, plan, run_id="this", listener=recorder).deleted) == 34
