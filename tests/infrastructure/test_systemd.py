"""The systemd units run commands that exist, and are installed as the page says."""

import json
import re
import shlex
import signal
from collections.abc import Mapping
from pathlib import Path

import pytest

from devtools.s3 import S3Bucket
from prometheus_backup.backup.schedule import FINAL_EXITS, MAX_TRIES
from prometheus_backup.config import read_file
from prometheus_backup.errors import RepositoryUnavailable, SourceUnavailable, UsageError
from prometheus_backup.metrics.exposition import parse as exposed
from tests.support.command_lines import parse
from tests.support.exporter import Served
from tests.support.pages import DOCS, ROOT
from tests.support.started_cli import StartedCli
from tests.support.stored_backups import run_here
from tests.support.waiting import wait_until

FOLDER = ROOT / "infrastructure" / "systemd"
SERVICES = sorted(FOLDER.glob("*.service"))
EXPORTERS = [service for service in SERVICES if "-exporter" in service.stem]
JOBS = [service for service in SERVICES if service not in EXPORTERS]


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


@pytest.mark.parametrize("service", JOBS, ids=lambda path: path.stem)
def test_service_repeats_only_what_another_try_may_cure(service: Path) -> None:
    (codes,) = values(service, "RestartPreventExitStatus")
    final = {int(code) for code in codes.split()}

    assert final >= FINAL_EXITS - {0}, "as `daily` and the CronJob"
    assert final.isdisjoint({RepositoryUnavailable.exit_code, SourceUnavailable.exit_code})
    assert values(service, "StartLimitBurst") == [str(MAX_TRIES)]


@pytest.mark.parametrize("service", JOBS, ids=lambda path: path.stem)
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
        text = path.read_text().replace(" --repositories /etc/prometheus-backup/%i.yaml", "")
        kept = re.findall(r"^[^#\n].*", text, re.MULTILINE)
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


@pytest.mark.parametrize("service", EXPORTERS, ids=lambda path: path.stem)
def test_exporter_starts_with_the_machine_and_writes_nowhere(service: Path) -> None:
    assert values(service, "WantedBy") == ["multi-user.target"]
    assert values(service, "Restart") == ["on-failure"]
    assert values(service, "RestartPreventExitStatus") == [str(UsageError.exit_code)]
    assert values(service, "ProtectSystem") == ["strict"]
    assert values(service, "ReadWritePaths") == []
    name = service.name.replace("@", "@fleet")
    page = (DOCS / "how-to" / ("fleet.md" if "@" in service.name else "monitoring.md")).read_text()
    assert re.search(rf"^systemctl enable --now {re.escape(name)}$", page, re.MULTILINE)


@pytest.mark.parametrize("service", EXPORTERS, ids=lambda path: path.stem)
def test_exporter_restricts_at_least_what_the_jobs_do(service: Path) -> None:
    def restrictions(path: Path) -> set[str]:
        lines = path.read_text().splitlines()
        return {
            line for line in lines if re.match("Protect|Private|NoNew|Capab|Restrict|Lock", line)
        }

    for job in JOBS:
        assert {r for r in restrictions(job) if "ExitStatus" not in r} <= restrictions(service)


@pytest.mark.parametrize("service", EXPORTERS, ids=lambda path: path.stem)
def test_exporter_serves_the_repositories_of_its_files(
    service: Path, s3_bucket: S3Bucket, tmp_path: Path
) -> None:
    """Its command, with the shipped configuration, and the address of the test's store."""
    (line,) = values(service, "ExecStart")
    prefixes = {"prometheus-snapshots"}
    if "@" in service.name:
        prefixes = {f"prometheus-snapshots-{name}" for name in ("payments", "batch")}
        entries = [{"repository": f"s3://{s3_bucket.name}/{prefix}"} for prefix in prefixes]
        (tmp_path / "fleet.yaml").write_text(json.dumps({"repositories": entries}))
        line = line.replace("/etc/prometheus-backup/%i.yaml", str(tmp_path / "fleet.yaml"))
    line = line.replace("/etc/prometheus-backup/config.yaml", str(FOLDER / "config.yaml"))
    _, *arguments = shlex.split(line.replace("127.0.0.1:9879", "127.0.0.1:0"))
    env = {**s3_bucket.endpoint.environment(), "S3_BUCKET": s3_bucket.name}
    with StartedCli(*arguments, env=env, directory=tmp_path / "run") as started:
        served = Served(started)
        wait_until(lambda: len(_readable(served)) == len(prefixes))
        assert _readable(served) == {f"s3://{s3_bucket.name}/{prefix}" for prefix in prefixes}
        started.send(signal.SIGTERM)
        assert started.end().code == 0, "being stopped is no failure"


def _readable(served: Served) -> set[str]:
    samples = exposed(served.get("/metrics").text)
    name = "prometheus_backup_repository_readable"
    return {s.labels["repository"] for s in samples if s.name == name and s.value == 1}
