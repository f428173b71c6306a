"""Each run reports its result to monitoring, and monitoring never changes the result."""

import signal
import stat
from pathlib import Path

import pytest

from devtools.fetch_prometheus import PrometheusBinaries
from devtools.prometheus import PrometheusFleet
from devtools.pushgateway import Pushgateway
from prometheus_backup.metrics.exposition import parse
from prometheus_backup.metrics.families import PREFIX
from tests.support.faulty_http import Answer, FaultyServer
from tests.support.runs import settings
from tests.support.started_cli import StartedCli
from tests.support.stored_backups import LocalFiles, StoredBackups, run_here


def textfile_samples(path: Path) -> dict[tuple[str, ...], float]:
    """Return a metrics file: values by short name and label values, without `repository`."""
    return {
        (
            s.name.removeprefix(PREFIX),
            *(v for k, v in sorted(s.labels.items()) if k != "repository"),
        ): s.value
        for s in parse(path.read_text())
    }


@pytest.fixture
def textfile(tmp_path: Path) -> Path:
    return tmp_path / "backup.prom"


def test_backup_reports_the_run_and_the_repository_afterwards(
    start_prometheus: PrometheusFleet,
    prometheus_3: PrometheusBinaries,
    data_dir: Path,
    tmp_path: Path,
    textfile: Path,
) -> None:
    (tmp_path / "repository").mkdir()
    source = start_prometheus(prometheus_3, data_dir)
    source.fill_head()
    env = settings(source, tmp_path / "repository", METRICS_TEXTFILE=str(textfile))

    done = run_here("backup", env=env)
    first = textfile_samples(textfile)
    source.stop()
    failed = run_here("backup", env=env)
    second = textfile_samples(textfile)

    assert (done.returncode, failed.returncode) == (0, 20)
    assert first["last_run_exit_code", "backup"] == 0
    assert first["last_run_uploaded_bytes", "backup"] == first["last_backup_size_bytes",] > 0
    assert first["last_run_uploaded_files", "backup"] == first["last_backup_files",]
    phases = {key[2] for key in first if key[0] == "last_run_phase_duration_seconds"}
    assert phases >= {"check", "snapshot", "transfer", "verify", "commit", "retention"}
    assert (
        first["good_backups",]
        == first["backups", "daily"] + first["backups", "yearly"] + first["backups", "monthly"]
        == 1
    )
    assert second["last_run_exit_code", "backup"] == 20
    assert second["last_run_uploaded_bytes", "backup"] == 0
    kept = ("last_success_timestamp_seconds", "backup")
    assert second[kept] == first[kept] < second["last_attempt_timestamp_seconds", "backup"]
    assert second["good_backups",] == 1, "the repository can still be read"


def test_verification_with_findings_is_reported(
    repository_files: LocalFiles, stored: StoredBackups, textfile: Path
) -> None:
    index = next(k for k in repository_files.all_keys() if k.startswith(stored.second))
    repository_files.delete(index)
    env = {**repository_files.environment(), "METRICS_TEXTFILE": str(textfile)}

    done = run_here("verify", "latest", env=env)

    found = textfile_samples(textfile)
    assert done.returncode == 41
    assert found["last_run_findings", "verify"] == found["findings",] == 1
    assert found["last_verification_verdict", "checksum", "fail"] == 1
    assert found["unusable_backups", "verification_failed"] == 1


def test_prune_reports_what_it_deleted(
    repository_files: LocalFiles, stored: StoredBackups, textfile: Path
) -> None:
    env = {**repository_files.environment(), "METRICS_TEXTFILE": str(textfile)}
    held = [k for k in repository_files.all_keys() if k.startswith(stored.first)]
    size = sum(len(repository_files.get(k)) for k in held if not k.endswith("metadata.json"))

    run_here(
        "prune", "--retention-daily=0", "--retention-monthly=1", "--retention-yearly=0", env=env
    )

    found = textfile_samples(textfile)
    if not found["last_run_deleted_backups", "prune"]:
        assert stored.first[:15] == stored.second[:15], "both are the earliest of their month"
    assert found["last_run_deleted_objects", "prune"] in (0, len(held) + 1)
    assert found["last_run_deleted_bytes", "prune"] in (0, size)


def test_restore_reports_the_run_without_reading_the_repository(
    repository_files: LocalFiles, textfile: Path, tmp_path: Path
) -> None:
    env = {**repository_files.environment(), "METRICS_TEXTFILE": str(textfile)}

    run_here("restore", "latest", str(tmp_path / "target"), env=env)

    found = textfile_samples(textfile)
    assert found["last_run_restored_files", "restore"] > 0
    assert found["last_run_restored_bytes", "restore"] > 0
    assert ("good_backups",) not in found


def test_dry_run_is_not_reported(repository_files: LocalFiles, textfile: Path) -> None:
    env = {**repository_files.environment(), "METRICS_TEXTFILE": str(textfile)}

    assert run_here("prune", "--dry-run", env=env).returncode == 0

    assert not textfile.exists()


@pytest.mark.parametrize("labels", ["", "cluster=eu,repository=mine", "not a label"])
def test_unwritable_metrics_are_a_warning_and_change_no_exit_code(
    repository_files: LocalFiles, tmp_path: Path, labels: str
) -> None:
    env = {
        **repository_files.environment(),
        "METRICS_TEXTFILE": str(tmp_path / "absent" / "backup.prom"),
        "METRICS_LABELS": labels,
    }

    done = run_here("verify", "latest", "--level=size", env=env)

    assert done.returncode == 0
    assert "warning" in done.stderr
    assert ("cannot make metrics" if labels else "cannot write metrics to") in done.stderr


def test_every_metric_has_the_configured_labels(
    repository_files: LocalFiles, textfile: Path
) -> None:
    env = {
        **repository_files.environment(),
        "METRICS_TEXTFILE": str(textfile),
        "METRICS_LABELS": "namespace=observability,cronjob=prometheus-backup",
    }

    run_here("verify", "latest", "--level=size", env=env)

    samples = list(parse(textfile.read_text()))
    assert len(samples) > 20
    for one in samples:
        assert (one.labels["namespace"], one.labels["cronjob"]) == (
            "observability",
            "prometheus-backup",
        )


def test_stopped_run_is_reported(
    start_prometheus: PrometheusFleet,
    prometheus_3: PrometheusBinaries,
    data_dir: Path,
    tmp_path: Path,
    textfile: Path,
) -> None:
    (tmp_path / "repository").mkdir()
    source = start_prometheus(prometheus_3, data_dir)
    env = settings(
        source, tmp_path / "repository", METRICS_TEXTFILE=str(textfile), MAX_BANDWIDTH="10kB"
    )

    with StartedCli("backup", env=env, directory=tmp_path / "run") as started:
        started.wait_for_log("transferring the blocks")
        started.send(signal.SIGTERM)
        ended = started.end()

    assert ended.code == 143
    assert textfile_samples(textfile)["last_run_exit_code", "backup"] == 143
    assert stat.S_IMODE(textfile.stat().st_mode) == 0o644


def test_pushgateway_and_health_check_receive_success_and_failure(
    start_prometheus: PrometheusFleet,
    prometheus_3: PrometheusBinaries,
    data_dir: Path,
    tmp_path: Path,
    pushgateway: Pushgateway,
) -> None:
    (tmp_path / "repository").mkdir()
    source = start_prometheus(prometheus_3, data_dir)
    with FaultyServer(otherwise=Answer(status=200)) as switch:
        env = settings(
            source,
            tmp_path / "repository",
            PUSHGATEWAY_URL=pushgateway.url,
            HEALTHCHECK_URL=f"{switch.url}/a-secret",
        )
        done = run_here("backup", env=env)
        source.stop()  # the Prometheus that is backed up may be the one that would alert
        failed = run_here("backup", env=env)

    assert (done.returncode, failed.returncode) == (0, 20)
    assert [r.path for r in switch.requests] == ["/a-secret", "/a-secret/fail"]
    assert "a-secret" not in done.stderr + failed.stderr
    found = {s.name.removeprefix(PREFIX): s.value for s in parse(pushgateway.metrics())}
    assert found["last_run_exit_code"] == 20
    assert found["good_backups"] == 1
    assert found["last_success_timestamp_seconds"] < found["last_attempt_timestamp_seconds"]


def test_unreachable_pushgateway_and_health_check_change_no_exit_code(
    start_prometheus: PrometheusFleet,
    prometheus_3: PrometheusBinaries,
    data_dir: Path,
    tmp_path: Path,
) -> None:
    (tmp_path / "repository").mkdir()
    env = settings(
        start_prometheus(prometheus_3, data_dir),
        tmp_path / "repository",
        PUSHGATEWAY_URL="http://127.0.0.1:9",
        HEALTHCHECK_URL="http://127.0.0.1:9/a-secret",
    )

    done = run_here("backup", env=env)

    assert done.returncode == 0
    assert "cannot ping HEALTHCHECK_URL" in done.stderr
    assert "cannot push metrics to PUSHGATEWAY_URL" in done.stderr
    assert "a-secret" not in done.stderr


def test_run_without_monitoring_imports_no_monitoring_library() -> None:
    import subprocess
    import sys

    script = (
        "import sys; from prometheus_backup.cli.main import run; run(['backup', '--help']);"
        "run(['list', '--repository', 'file:///tmp']);"
        "assert 'prometheus_client' not in sys.modules, 'imported'"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
