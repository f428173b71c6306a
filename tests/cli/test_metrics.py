"""`metrics`: metrics of the repository, printed or served."""

import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from devtools.s3 import S3Bucket
from devtools.seaweedfs import READ_ONLY, SeaweedFS
from tests.support.exporter import Served, values
from tests.support.s3 import PREFIX
from tests.support.started_cli import StartedCli
from tests.support.stored_backups import LocalFiles, S3Files, StoredBackups, copy_to, run_here
from tests.support.waiting import wait_until


def test_metrics_need_only_the_repository(repository_files: LocalFiles) -> None:
    done = run_here("metrics", env=repository_files.environment())

    assert done.returncode == 0
    found = values(done.stdout)
    assert found["prometheus_backup_good_backups"] == 2
    assert found["prometheus_backup_expected_interval_seconds"] == 86400
    assert "# HELP prometheus_backup_good_backups " in done.stdout
    assert "# TYPE prometheus_backup_good_backups gauge" in done.stdout


def test_list_and_read_permissions_are_enough_for_metrics(
    seaweedfs: SeaweedFS, s3_bucket: S3Bucket, stored: StoredBackups
) -> None:
    copy_to(S3Files(s3_bucket, PREFIX), stored.root)
    reader = seaweedfs.endpoint(READ_ONLY).environment() | {"S3_BUCKET": s3_bucket.name}

    done = run_here("metrics", env=reader)

    assert done.returncode == 0, done.stderr
    assert values(done.stdout)["prometheus_backup_good_backups"] == 2
    verified = run_here("verify", "latest", "--level=size", env=reader)
    assert "needs s3:PutObject" in verified.stderr, "it may not write the result"


def test_expected_interval_is_a_metric(repository_files: LocalFiles) -> None:
    env = {**repository_files.environment(), "BACKUP_INTERVAL": "1w"}
    found = values(run_here("metrics", env=env).stdout)
    assert found["prometheus_backup_expected_interval_seconds"] == 7 * 86400

    env["BACKUP_INTERVAL"] = "nightly"
    assert run_here("metrics", env=env).returncode == 2


def test_unreadable_repository_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "repository").touch()

    done = run_here("metrics", env={"REPOSITORY": f"file://{tmp_path}/repository"})

    assert done.returncode == 13
    assert done.stdout == ""


@pytest.fixture
def served(repository_files: LocalFiles, tmp_path: Path) -> Iterator[Served]:
    with Served.over(repository_files.root, tmp_path / "run") as served:
        yield served


def test_exporter_serves_metrics_and_refreshes_them(
    served: Served, repository_files: LocalFiles, stored: StoredBackups
) -> None:
    answer = served.get("/metrics")
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    assert served.values["prometheus_backup_good_backups"] == 2
    assert served.values["prometheus_backup_repository_readable"] == 1
    assert (served.get("/healthz").status_code, served.get("/nothing").status_code) == (200, 404)

    shutil.rmtree(repository_files.root / stored.first)

    wait_until(lambda: served.values["prometheus_backup_good_backups"] == 1)


def test_exporter_serves_old_metrics_while_the_repository_is_unreachable(
    served: Served, repository_files: LocalFiles
) -> None:
    before = served.values
    away = repository_files.root.with_name("away")
    repository_files.root.rename(away)
    repository_files.root.touch()

    wait_until(lambda: served.values["prometheus_backup_repository_readable"] == 0)
    during = served.values
    kept = "prometheus_backup_last_good_backup_timestamp_seconds"
    assert during[kept] == before[kept]
    assert served.get("/healthz").status_code == 200, "a restart would lose what it knows"
    assert "cannot read the repository for metrics" in served.started.log()

    repository_files.root.unlink()
    away.rename(repository_files.root)

    wait_until(lambda: served.values["prometheus_backup_repository_readable"] == 1)


def test_probe_fails_if_the_exporter_hangs(own_seaweedfs: SeaweedFS, tmp_path: Path) -> None:
    bucket = own_seaweedfs.endpoint().new_bucket()
    with Served.over(bucket, tmp_path / "run") as served:
        assert served.get("/healthz").status_code == 200
        own_seaweedfs.pause()

        wait_until(lambda: served.get("/healthz").status_code == 503)
        assert served.values["prometheus_backup_repository_readable"] == 1, "it still serves"

        own_seaweedfs.resume()
        wait_until(lambda: served.get("/healthz").status_code == 200)


def test_exporter_listens_on_ipv6(repository_files: LocalFiles, tmp_path: Path) -> None:
    command = ("metrics", "--listen=[::1]:0")
    with StartedCli(*command, env=repository_files.environment(), directory=tmp_path) as started:
        served = Served(started)
        assert served.url.startswith("http://[::1]:")
        assert served.values["prometheus_backup_good_backups"] == 2


def test_exporter_starts_while_the_repository_is_unreachable(tmp_path: Path) -> None:
    (tmp_path / "repository").touch()
    with Served.over(tmp_path / "repository", tmp_path / "run") as served:
        assert served.values == {"prometheus_backup_repository_readable": 0}

        (tmp_path / "repository").unlink()
        (tmp_path / "repository").mkdir()

        wait_until(lambda: served.values["prometheus_backup_repository_readable"] == 1)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_stopping_the_exporter_is_exit_0(served: Served, number: int) -> None:
    served.started.send(number)

    ended = served.started.end(deadline=20)

    assert ended.code == 0
    assert "Traceback" not in ended.log


def test_unknown_host_and_taken_port_are_usage_errors(
    served: Served, repository_files: LocalFiles
) -> None:
    port = served.url.rpartition(":")[2]
    for listen in (f"127.0.0.1:{port}", "192.0.2.1:0", "127.0.0.1", "127.0.0.1:70000", "a b:1"):
        done = run_here("metrics", f"--listen={listen}", env=repository_files.environment())
        assert done.returncode == 2, listen
        assert "hint" in done.stderr


def test_exporter_does_not_start_with_invalid_settings() -> None:
    done = run_here("metrics", "--listen=127.0.0.1:0", env={})

    assert done.returncode == 2
    assert "cannot determine the repository: no address is set" in done.stderr
    assert os.environ.get("REPOSITORY") is None
