"""The systemd units run commands that exist, and are installed as the page says."""

import re
import shlex
from pathlib import Path

import pytest

from prometheus_backup.backup.schedule import FINAL_EXITS, MAX_TRIES
from prometheus_backup.config import read_file
from prometheus_backup.errors import RepositoryUnavailable, SourceUnavailable
from tests.support.command_lines import parse
from tests.support.pages import DOCS, ROOT

FOLDER = ROOT / "infrastructure" / "systemd"
SERVICES = sorted(FOLDER.glob("*.service"))


def values(path: Path, name: str) -> list[str]:
    """Return the values of a setting in a unit."""
    return re.findall(rf"^{name}=(.*)$", path.read_text(), re.MULTILINE)


@pytest.mark.parametrize("service", SERVICES, ids=lambda path: path.stem)
def test_service_runs_a_command_with_the_shipped_settings(service: Path) -> None:
    (line,) = values(service, "ExecStart")
    program, name, *arguments = shlex.split(line)
    config = arguments.pop()

    assert program == "/usr/local/bin/prometheus-backup"
    assert arguments.pop() == "--config"
    assert f"/systemd/config.yaml {config}" in (DOCS / "how-to" / "install.md").read_text()
    context = parse(line.replace(config, str(FOLDER / "config.yaml")))
    assert context.params["s3_bucket"] == "health-tracker-prometheus-backups"
    assert values(service, "Documentation") == [f"man:prometheus-backup-{name}(1)"]


@pytest.mark.parametrize("service", SERVICES, ids=lambda path: path.stem)
def test_service_repeats_only_what_another_try_may_cure(service: Path) -> None:
    (codes,) = values(service, "RestartPreventExitStatus")
    final = {int(code) for code in codes.split()}

    assert final >= FINAL_EXITS - {0}, "as `daily` and the CronJob"
    assert final.isdisjoint({RepositoryUnavailable.exit_code, SourceUnavailable.exit_code})
    assert values(service, "StartLimitBurst") == [str(MAX_TRIES)]


@pytest.mark.parametrize("service", SERVICES, ids=lambda path: path.stem)
def test_every_service_has_a_timer_that_the_page_enables(service: Path) -> None:
    timer = service.with_suffix(".timer")

    assert values(timer, "WantedBy") == ["timers.target"]
    assert values(timer, "OnCalendar")[0].endswith(" UTC")
    page = (DOCS / "how-to" / "install.md").read_text()
    assert re.search(rf"^systemctl enable --now .*{re.escape(timer.name)}", page, re.MULTILINE)


def test_backup_may_write_to_the_data_directory_of_the_settings() -> None:
    settings = read_file(FOLDER / "config.yaml")

    assert values(FOLDER / "prometheus-backup.service", "ReadWritePaths") == [settings["data_dir"]]
