"""`daily`, the built-in timer, next to a real Prometheus."""

import os
import signal
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from devtools.fetch_prometheus import PrometheusBinaries
from devtools.prometheus import PrometheusFleet
from tests.support.runs import cli, settings
from tests.support.started_cli import StartedCli


@pytest.fixture
def environment(
    tmp_path: Path,
    data_dir: Path,
    start_prometheus: PrometheusFleet,
    prometheus_3: PrometheusBinaries,
) -> dict[str, str]:
    return settings(start_prometheus(prometheus_3, data_dir), tmp_path / "repository")


def _backups(folder: Path) -> int:
    return len(list((folder / "repository").glob("backup-*/metadata.json")))


def test_first_backup_starts_immediately_and_the_next_at_the_set_time(
    environment: dict[str, str], tmp_path: Path
) -> None:
    later = (datetime.now(UTC) + timedelta(hours=2)).strftime("%H:%M")
    with StartedCli("daily", later, env=environment, directory=tmp_path / "run") as daily:
        daily.wait_for_log("backup ended with exit 0")
        daily.wait_for_log(f"T{later}:00Z")
        assert _backups(tmp_path) == 1
        daily.send(signal.SIGTERM)
        assert daily.end().code == 143


def test_backup_starts_at_the_set_time(environment: dict[str, str], tmp_path: Path) -> None:
    assert cli("backup", env=environment).returncode == 0
    soon = (datetime.now(UTC) + timedelta(seconds=15)).strftime("%H:%M:%S")
    flags = ("--log-format=json",)
    with StartedCli("daily", soon, *flags, env=environment, directory=tmp_path / "run") as daily:
        daily.wait_for_log(f"T{soon}Z")
        daily.wait_for_log("backup ended with exit 0")
        assert all(line.startswith("{") for line in daily.log().splitlines())
    assert _backups(tmp_path) == 2


def test_sigterm_lets_a_running_backup_clean_up(
    environment: dict[str, str], tmp_path: Path, data_dir: Path
) -> None:
    slow = {**environment, "MAX_BANDWIDTH": "1kB"}
    with StartedCli("daily", "02:00", env=slow, directory=tmp_path / "run") as daily:
        daily.wait_for_log("transferring the blocks")
        daily.send(signal.SIGTERM)
        ended = daily.end()
    assert ended.code == 143
    assert "snapshot removed" in ended.log
    assert list((data_dir / "snapshots").iterdir()) == []


def test_backups_use_the_given_configuration_file(
    environment: dict[str, str], tmp_path: Path
) -> None:
    file = tmp_path / "settings.yaml"
    file.write_text(f"repository: {environment.pop('REPOSITORY')}\n")
    arguments = ("daily", "02:00", f"--config={file}")
    with StartedCli(*arguments, env=environment, directory=tmp_path / "run") as daily:
        daily.wait_for_log("backup ended with exit 0")
    assert _backups(tmp_path) == 1


def test_a_backup_that_cannot_be_read_is_not_taken_for_a_missed_one(
    environment: dict[str, str], tmp_path: Path
) -> None:
    """Else each restart of the container would make another backup."""
    assert cli("backup", env=environment).returncode == 0
    assert cli("backup", env=environment).returncode == 0
    first, _ = sorted((tmp_path / "repository").glob("backup-*"))
    (first / "metadata.json").unlink()
    os.mkfifo(first / "metadata.json")

    later = (datetime.now(UTC) + timedelta(hours=2)).strftime("%H:%M")
    with StartedCli("daily", later, env=environment, directory=tmp_path / "run") as daily:
        daily.wait_for_log(f"T{later}:00Z")
        assert "backup ended" not in daily.log()
    assert _backups(tmp_path) == 2


@pytest.mark.parametrize("text", ["2:00", "25:00", "noon", "02:00Z", ""])
def test_invalid_time_of_day_is_refused(text: str) -> None:
    done = cli("daily", text, env={"REPOSITORY": "file:///nonexistent/x"})
    assert done.returncode == 2
    assert "give it as HH:MM" in done.stderr
