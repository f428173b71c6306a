"""In a pod or a pipe: log lines, quiet, JSON logs, and readers that leave early."""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from devtools.moto_server import MotoServer
from devtools.prometheus import PASSWORD, USERNAME, PrometheusFleet, PrometheusOptions
from devtools.s3 import Credentials, S3Bucket, S3Endpoint
from tests.support.runs import bare_environment, cli, command, settings
from tests.support.stored_backups import LocalFiles, StoredBackups, block_keys, run_here


@pytest.mark.parametrize(
    "arguments", [["list"], ["show", "latest", "--json"], ["--help"], ["list", "-h"]]
)
def test_a_reader_that_has_left_is_no_failure(
    repository_files: LocalFiles, arguments: list[str]
) -> None:
    read_end, write_end = os.pipe()
    os.close(read_end)
    done = subprocess.run(
        command(*arguments),
        env=bare_environment(repository_files.environment()),
        stdout=write_end,
        stderr=subprocess.PIPE,
        text=True,
        timeout=60,
        check=False,
    )
    os.close(write_end)

    assert done.returncode == 0, done.stderr
    assert done.stderr == ""


def test_rows_in_a_pipe_are_complete_and_aligned(
    repository_files: LocalFiles, stored: StoredBackups
) -> None:
    header, first, second = run_here("list", env=repository_files.environment()).stdout.splitlines()

    assert first.startswith(stored.first)
    assert second.startswith(stored.second)
    column = header.index("retention")
    assert first[column:].startswith("daily: ")
    assert second[column:].startswith("daily: ")
    assert "\x1b" not in header + first + second


def test_backup_in_a_pod_logs_each_step(
    start_prometheus: PrometheusFleet, prometheus_3: Any, data_dir: Path, tmp_path: Path
) -> None:
    server = start_prometheus(prometheus_3, data_dir)
    (tmp_path / "repository").mkdir()
    env = settings(server, tmp_path / "repository")

    text = run_here("backup", env=env)
    logged = run_here("backup", "--log-format=json", "--log-level=debug", env=env)
    quiet = run_here("backup", "--quiet", env=env)

    assert text.returncode == logged.returncode == quiet.returncode == 0
    steps = [
        "checking Prometheus",
        "claiming a backup id",
        "requesting a snapshot from Prometheus",
        "snapshot taken",
        "transferring",
        "verifying before the commit",
        "backup committed",
        "retention",
        "snapshot removed",
    ]
    places = [text.stderr.index(step) for step in steps]
    assert places == sorted(places)
    for line in text.stderr.splitlines():
        at, level, _ = line.split(maxsplit=2)
        assert at.endswith("Z")
        assert level == "info"
    assert "copied by the store" in text.stdout

    lines = [json.loads(line) for line in logged.stderr.splitlines()]
    assert all({"time", "level", "message"} <= {*line} for line in lines)
    assert {line["level"] for line in lines} == {"debug", "info"}
    assert any(line["message"] == "copied by the store" and line["bytes"] >= 0 for line in lines)
    assert quiet.stderr == ""
    assert "backup-" in quiet.stdout


def test_failed_snapshot_logs_the_documented_phrase(
    start_prometheus: PrometheusFleet, prometheus_3: Any, data_dir: Path, tmp_path: Path
) -> None:
    server = start_prometheus(prometheus_3, data_dir, PrometheusOptions(admin_api=False))
    (tmp_path / "repository").mkdir()

    done = run_here("backup", env=settings(server, tmp_path / "repository"))

    assert done.returncode == 21
    (line,) = [line for line in done.stderr.splitlines() if "Failed to create snapshot" in line]
    assert " error " in line
    assert "--web.enable-admin-api" in line
    assert done.stdout == ""


def test_failed_upload_logs_the_documented_phrase(
    start_prometheus: PrometheusFleet,
    prometheus_3: Any,
    data_dir: Path,
    moto: MotoServer,
    moto_bucket: S3Bucket,
) -> None:
    server = start_prometheus(prometheus_3, data_dir)
    # Everything except writing block files.
    user = moto.new_user(
        {"Effect": "Allow", "Action": "s3:*", "Resource": "*"},
        {"Effect": "Deny", "Action": "s3:PutObject", "Resource": "arn:aws:s3:::*/index"},
    )
    bucket = S3Bucket(moto.endpoint(user), moto_bucket.name)

    with moto.enforcing_iam():
        done = run_here("backup", env=settings(server, bucket))

    assert done.returncode == 12
    (line,) = [line for line in done.stderr.splitlines() if "Upload failed" in line]
    assert " error " in line
    assert not any(key.endswith("metadata.json") for key in moto_bucket.keys(""))


def test_failed_verification_logs_the_documented_phrase(
    repository_files: LocalFiles, stored: StoredBackups
) -> None:
    key = block_keys(repository_files, stored.second)[0]
    repository_files.delete(key)

    command = ("verify", stored.second)
    done = run_here(*command, env=repository_files.environment())
    quiet = run_here(*command, "--quiet", env=repository_files.environment())

    assert done.returncode == quiet.returncode == 41
    assert f"Verification failed: {key}" in done.stderr
    assert any(
        " error " in line and "Verification failed" in line for line in quiet.stderr.splitlines()
    )
    assert key in quiet.stdout
    assert "`restore latest` skips it" in quiet.stdout


def test_no_log_level_shows_secrets(
    start_prometheus: PrometheusFleet,
    prometheus_3: Any,
    data_dir: Path,
    tmp_path: Path,
    s3_bucket: S3Bucket,
) -> None:
    server = start_prometheus(prometheus_3, data_dir, PrometheusOptions(basic_auth=True))
    (tmp_path / "password").write_text(f"{PASSWORD}\n")
    (tmp_path / "token").write_text("token-hunter2\n")
    wrong = Credentials(s3_bucket.endpoint.credentials.access_key, "wrong-hunter2")
    elsewhere = S3Bucket(
        S3Endpoint(s3_bucket.endpoint.url, s3_bucket.endpoint.region, wrong), s3_bucket.name
    )
    right = settings(server, s3_bucket, PROMETHEUS_USERNAME=USERNAME, LOG_LEVEL="debug")
    right["PROMETHEUS_PASSWORD_FILE"] = str(tmp_path / "password")
    secrets = (PASSWORD, "hunter2", s3_bucket.endpoint.credentials.secret_key)
    token = settings(server, s3_bucket, LOG_LEVEL="debug")
    token["PROMETHEUS_BEARER_TOKEN_FILE"] = str(tmp_path / "token")
    in_url = right | {"PROMETHEUS_URL": server.url.replace("://", "://me:hunter2@")}
    in_endpoint = right | {
        "S3_ENDPOINT_URL": s3_bucket.endpoint.url.replace("://", "://me:hunter2@")
    }

    for env, code in (
        (right, 0),
        (token, 20),
        (right | settings(server, elsewhere), 12),
        (in_url, 2),
        (in_endpoint, 2),
    ):
        for arguments in (["check"], ["backup"], ["backup", "--json"], ["list"]):
            done = run_here(*arguments, env=env)
            if arguments != ["list"]:
                assert done.returncode == code, done.stderr
            for secret in secrets:
                assert secret not in done.stdout + done.stderr, (arguments, env)
    stored = b"".join(s3_bucket.get(k) for k in s3_bucket.keys("") if k.endswith("json"))
    assert stored
    assert not any(secret.encode() in stored for secret in secrets)


def test_sigterm_ends_with_143_after_cleaning_up(repository_files: LocalFiles) -> None:
    """Checks the message and the code; the tests of `backup` check the cleanup."""
    process = subprocess.Popen(
        command("verify", "--max-bandwidth=1kB"),
        env=bare_environment(repository_files.environment()),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    assert "verifying" in process.stderr.readline()
    process.terminate()
    _, err = process.communicate(timeout=60)

    assert process.returncode == 143
    assert "SIGTERM" in err


def test_module_runs_like_the_program(repository_files: LocalFiles, stored: StoredBackups) -> None:
    done = cli("show", "latest", env=repository_files.environment())

    assert done.returncode == 0, done.stderr
    assert stored.second in done.stdout
