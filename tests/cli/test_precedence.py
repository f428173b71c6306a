"""Flags override the environment, which overrides the file, which overrides defaults."""

import os
from pathlib import Path
from typing import Any

import pytest

from prometheus_backup.cli.commands import commands
from prometheus_backup.config import parse_labels
from tests.support.stored_backups import run_here

# Setting: default, then the same in file, environment and flag, each with the value it gives.
KINDS: dict[str, tuple[Any, tuple[str, Any], tuple[str, str, Any], tuple[str, Any]]] = {
    "prometheus_url": (
        "http://localhost:9090",
        ("prometheus_url: http://file:1", "http://file:1"),
        ("PROMETHEUS_URL", "http://env:1", "http://env:1"),
        ("--prometheus-url=http://flag:1", "http://flag:1"),
    ),
    "data_dir": (
        "/prometheus",
        ("data_dir: /file", "/file"),
        ("PROMETHEUS_DATA_DIR", "/env", "/env"),
        ("--data-dir=/flag", "/flag"),
    ),
    "retention_daily": (
        30,
        ("retention-daily: 7", 7),
        ("RETENTION_DAILY", "8", 8),
        ("--retention-daily=0", 0),
    ),
    "skip_head": (
        False,
        ("SKIP_HEAD: true", True),
        ("SKIP_HEAD", "false", False),
        ("--skip-head", True),
    ),
    "verify_backup": (
        True,
        ("verify_backup: no", False),
        ("VERIFY_BACKUP", "true", True),
        ("--no-verify-backup", False),
    ),
    "verify_level": (
        "checksum",
        ("verify_level: size", "size"),
        ("VERIFY_LEVEL", "checksum", "checksum"),
        ("--verify-level=size", "size"),
    ),
    "max_bandwidth": (
        None,
        ("max_bandwidth: 10MB", "10MB"),
        ("MAX_BANDWIDTH", "20MB", "20MB"),
        ("--max-bandwidth=30MB", "30MB"),
    ),
    "s3_region": (
        "us-east-1",
        ("AWS_REGION: file-1", "file-1"),
        ("AWS_REGION", "env-1", "env-1"),
        ("--s3-region=flag-1", "flag-1"),
    ),
    "fingerprint_queries": (
        (),
        ("fingerprint_queries: [count(up), 'sum(a, b)']", ("count(up)", "sum(a, b)")),
        ("FINGERPRINT_QUERY", "sum by (a, b) (up)\nup", ("sum by (a, b) (up)\nup",)),
        ("--fingerprint-query=sum(up{a='b c'})", ("sum(up{a='b c'})",)),
    ),
    "labels": (
        (),
        ("labels: {cluster: file}", ("cluster=file",)),
        ("BACKUP_LABELS", "cluster=env,replica=a", ("cluster=env,replica=a",)),
        ("--label=cluster=flag", ("cluster=flag",)),
    ),
}


@pytest.fixture(autouse=True)
def _bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name != "PATH":
            monkeypatch.delenv(name)


def parsed(*arguments: str) -> dict[str, Any]:
    """Return the values that a command receives from a command line."""
    return dict(commands.commands["backup"].make_context("backup", [*arguments]).params)


@pytest.mark.parametrize("name", KINDS)
def test_flag_overrides_environment_overrides_file_overrides_default(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    default, (in_file, of_file), (variable, in_env, of_env), (flag, of_flag) = KINDS[name]
    (tmp_path / "settings.yaml").write_text(f"{in_file}\n")
    config = f"--config={tmp_path}/settings.yaml"

    assert parsed()[name] == default
    assert parsed(config)[name] == of_file
    assert parsed(config, flag)[name] == of_flag
    monkeypatch.setenv(variable, in_env)
    assert parsed()[name] == of_env
    assert parsed(config)[name] == of_env
    assert parsed(config, flag)[name] == of_flag
    # Also if the flag comes first.
    assert parsed(flag, config)[name] == of_flag


def test_file_can_be_named_in_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "settings.yaml").write_text("retention_daily: 7\n")
    monkeypatch.setenv("PROMETHEUS_BACKUP_CONFIG", str(tmp_path / "settings.yaml"))

    assert parsed()["retention_daily"] == 7


def test_own_variable_overrides_the_aws_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_DEFAULT_REGION", "default-1")
    assert parsed()["s3_region"] == "default-1"
    monkeypatch.setenv("AWS_REGION", "aws-1")
    assert parsed()["s3_region"] == "aws-1"
    monkeypatch.setenv("S3_REGION", "own-1")
    assert parsed()["s3_region"] == "own-1"


def test_empty_variable_counts_as_unset(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RETENTION_DAILY", "")
    monkeypatch.setenv("S3_BUCKET", "")

    assert parsed()["retention_daily"] == 30
    assert parsed()["s3_bucket"] is None


def test_label_with_spaces_can_come_from_every_source(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = {"cluster": "eu 1", "replica": "a"}
    assert parse_labels(parsed("--label=cluster=eu 1", "--label", "replica=a")["labels"]) == wanted

    monkeypatch.setenv("BACKUP_LABELS", "cluster=eu 1,replica=a")
    assert parse_labels(parsed()["labels"]) == wanted
    monkeypatch.delenv("BACKUP_LABELS")

    config = tmp_path / "settings.yaml"
    for text in (
        "labels: {cluster: eu 1, replica: a}",
        "labels: [cluster=eu 1, replica=a]",
        "labels: cluster=eu 1,replica=a",
        "label: cluster=eu 1,replica=a",
        "BACKUP_LABELS: cluster=eu 1,replica=a",
    ):
        config.write_text(text)
        assert parse_labels(parsed(f"--config={config}")["labels"]) == wanted, text


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        ("retention_daily: -1", "-1"),
        ("retention_daily: soon", "soon"),
        ("verify_level: drill", "drill"),
        ("skip_head: perhaps", "perhaps"),
        ("retention_dayly: 3", "did you mean retention_daily?"),
        ("- a list", "not a mapping"),
        ("a: [", "settings.yaml"),
        ("prometheus_url: [a, b]", "must have one value"),
        ("fingerprint_queries: {a: b}", "must have one value"),
        ('fingerprint_queries: ["up\\tup"]', "characters that cannot be printed"),
        ("fingerprint_file: /nonexistent", "cannot read fingerprint file /nonexistent"),
    ],
)
def test_invalid_file_is_exit_2(tmp_path: Path, text: str, cause: str) -> None:
    config = tmp_path / "settings.yaml"
    config.write_text(text)

    done = run_here("backup", f"--config={config}", env={"REPOSITORY": "file:///nowhere"})

    assert done.returncode == 2
    assert cause in done.stderr
    assert "Traceback" not in done.stderr


def test_missing_file_is_exit_2(tmp_path: Path) -> None:
    done = run_here("list", "--config", str(tmp_path / "absent.yaml"))

    assert done.returncode == 2
    assert "absent.yaml: No such file" in done.stderr


def test_file_may_contain_settings_of_other_commands(tmp_path: Path) -> None:
    (tmp_path / "repository").mkdir()
    config = tmp_path / "settings.yaml"
    config.write_text(
        f"repository: file://{tmp_path}/repository\nlabels: {{a: b}}\nlog_level: debug\n"
    )

    done = run_here("list", f"--config={config}")

    assert done.returncode == 0, done.stderr
    assert "no backups" in done.stdout
