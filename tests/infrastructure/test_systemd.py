"""The systemd units run commands that exist, and are installed as the page says."""

import json
import re
import shlex
from collections.abc import Mapping
from pathlib import Path

import pytest

from devtools.s3 import S3Bucket
from prometheus_backup.backup.schedule import FINAL_EXITS, MAX_TRIES
from prometheus_backup.config import read_file
from prometheus_backup.errors import RepositoryUnavailable, SourceUnavailable
from tests.support.command_lines import parse
from tests.support.pages import DOCS, ROOT
from tests.support.stored_backups import run_here

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
    is_template = "@" in timer.name
    page = (DOCS / "how-to" / ("fleet.md" if is_template else "install.md")).read_text()
    name = timer.name.replace("@", "@payments")
    assert re.search(rf"^systemctl enable --now .*{re.escape(name)}", page, re.MULTILINE)


def test_backup_may_write_to_the_data_directory_of_the_settings() -> None:
    settings = read_file(FOLDER / "config.yaml")

    assert values(FOLDER / "prometheus-backup.service", "ReadWritePaths") == [settings["data_dir"]]


_OF_NAME = {
    "Description",
    "Environment",
    "EnvironmentFile",
    "OnCalendar",
    "RandomizedDelaySec",
    "FixedRandomDelay",
    "ReadWritePaths",
}
"""What a template unit sets for each NAME; everything else is as in the unit for one Prometheus."""


@pytest.mark.parametrize("template", sorted(FOLDER.glob("*@.*")), ids=lambda path: path.name)
def test_template_differs_from_the_unit_only_in_what_belongs_to_a_name(template: Path) -> None:
    unit = template.with_name(template.name.replace("@", ""))

    def lines(path: Path) -> list[str]:
        kept = re.findall(r"^[^#\n].*", path.read_text(), re.MULTILINE)
        return [line for line in kept if line.partition("=")[0] not in _OF_NAME]

    assert lines(template) == lines(unit)


def environment_of(service: Path, name: str, files: Mapping[str, str]) -> dict[str, str]:
    """Return the variables that systemd sets for an instance: files count before the unit."""
    settings = [line.partition("=") for line in values(service, "Environment")]
    found = {key: value.replace("%i", name) for key, _, value in settings}
    for path in values(service, "EnvironmentFile"):
        text = files.get(path.replace("%i", name).lstrip("-"))
        assert text is not None or path.startswith("-"), path
        found |= dict(line.split("=", 1) for line in (text or "").splitlines())
    return found


def test_instances_share_no_repository_directory_or_label(s3_bucket: S3Bucket) -> None:
    service = FOLDER / "prometheus-backup@.service"
    files = {
        "/etc/prometheus-backup/payments.env": "PROMETHEUS_URL=http://localhost:9091",
        "/etc/prometheus-backup/batch.env": "S3_PREFIX=elsewhere",
    }
    payments, batch = (environment_of(service, name, files) for name in ("payments", "batch"))
    assert payments["PROMETHEUS_DATA_DIR"] == "/var/lib/prometheus/payments"
    assert values(service, "ReadWritePaths") == ["/var/lib/prometheus/%i"]
    assert payments["BACKUP_LABELS"] == "replica=payments"
    verified = environment_of(FOLDER / "prometheus-backup-verify@.service", "payments", files)
    assert verified["S3_PREFIX"] == payments["S3_PREFIX"]

    common = {**s3_bucket.endpoint.environment(), "S3_BUCKET": s3_bucket.name}
    config = f"--config={FOLDER / 'config.yaml'}"
    listed = [
        json.loads(run_here("list", "--json", config, env={**common, **own}).stdout)["repository"]
        for own in (payments, batch)
    ]
    prefixes = ["prometheus-snapshots-payments", "elsewhere"]
    assert listed == [f"s3://{s3_bucket.name}/{prefix}" for prefix in prefixes]


def test_starts_of_instances_are_spread_and_stay() -> None:
    for timer in FOLDER.glob("*@.timer"):
        assert values(timer, "RandomizedDelaySec") == ["3h"]
        assert values(timer, "FixedRandomDelay") == ["yes"]
