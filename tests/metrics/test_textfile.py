"""The metrics file: complete, readable by all users, always with the last success."""

import os
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from prometheus_backup.metrics.exposition import parse
from prometheus_backup.metrics.families import Sample, labelled, sample
from prometheus_backup.metrics.run import RunRecorder
from prometheus_backup.metrics.textfile import update_textfile
from tests.support.repositories import NOON, ManualClock

HERE = {"repository": "s3://bucket/a"}


def run_samples(
    command: str, code: int, *, hours: int = 0, where: dict[str, str] = HERE
) -> list[Sample]:
    """Return the samples of a run that ended this many hours after noon."""
    clock = ManualClock()
    clock.sleep(hours * 3600)
    return labelled(RunRecorder(command, clock).samples(code), where)


def written(path: Path) -> dict[tuple[str, str, str], float]:
    """Return the values in a file, by short name, command and repository."""
    return {
        (
            s.name.removeprefix("prometheus_backup_"),
            s.labels.get("command", ""),
            s.labels["repository"],
        ): s.value
        for s in parse(path.read_text())
    }


def success(command: str) -> tuple[str, str, str]:
    return "last_success_timestamp_seconds", command, HERE["repository"]


def test_failed_run_keeps_the_time_of_the_last_success(tmp_path: Path) -> None:
    path = tmp_path / "backup.prom"
    update_textfile(path, run_samples("backup", 0), None)

    update_textfile(path, run_samples("backup", 20, hours=24), None)
    update_textfile(path, run_samples("backup", 13, hours=48), None)

    found = written(path)
    assert found[success("backup")] == NOON.timestamp()
    assert found["last_run_exit_code", "backup", HERE["repository"]] == 13
    attempt = found["last_attempt_timestamp_seconds", "backup", HERE["repository"]]
    assert attempt == NOON.timestamp() + 48 * 3600


def test_commands_and_repositories_do_not_replace_each_other(tmp_path: Path) -> None:
    path = tmp_path / "backup.prom"
    other = {"repository": "s3://bucket/b"}

    update_textfile(path, run_samples("backup", 0), labelled([sample("good_backups", 4)], HERE))
    update_textfile(path, run_samples("verify", 41), None)
    update_textfile(path, run_samples("backup", 12, where=other), None)

    found = written(path)
    codes = {k[1:]: v for k, v in found.items() if k[0] == "last_run_exit_code"}
    assert codes == {
        ("backup", "s3://bucket/a"): 0,
        ("verify", "s3://bucket/a"): 41,
        ("backup", "s3://bucket/b"): 12,
    }
    assert found["good_backups", "", "s3://bucket/a"] == 4, "kept while it cannot be read"


def test_repository_metrics_are_replaced_together(tmp_path: Path) -> None:
    path = tmp_path / "backup.prom"
    both = [sample("good_backups", 1), sample("last_backup_blocks", 9)]
    update_textfile(path, run_samples("backup", 0), labelled(both, HERE))

    update_textfile(path, run_samples("prune", 0), labelled([sample("good_backups", 0)], HERE))

    found = written(path)
    assert found["good_backups", "", "s3://bucket/a"] == 0
    assert ("last_backup_blocks", "", "s3://bucket/a") not in found


def test_file_is_readable_by_all_users_with_any_umask(tmp_path: Path) -> None:
    path = tmp_path / "backup.prom"
    before = os.umask(0o077)
    try:
        update_textfile(path, run_samples("backup", 0), None)
    finally:
        os.umask(before)

    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    assert [p.name for p in tmp_path.iterdir()] == ["backup.prom"]


def test_unreadable_file_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "backup.prom"
    path.write_text("half a li{")

    update_textfile(path, run_samples("backup", 0), None)

    assert success("backup") in written(path)


def test_runs_that_end_at_the_same_time_lose_no_metrics(tmp_path: Path) -> None:
    path = tmp_path / "backup.prom"
    commands = [f"c{n}" for n in range(24)]

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda c: update_textfile(path, run_samples(c, 0), None), commands))

    assert {key[1] for key in written(path)} == {*commands}


def test_missing_folder_is_an_error_for_the_caller(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        update_textfile(tmp_path / "absent" / "backup.prom", run_samples("backup", 0), None)
