"""Help: every option with its environment variable and default, as the documentation promises."""

import re

import pytest

from prometheus_backup import __version__
from prometheus_backup.cli.commands import commands
from prometheus_backup.cli.manual import MANUAL, exits
from prometheus_backup.settings import SETTINGS
from tests.support.command_lines import parse
from tests.support.runs import cli
from tests.support.stored_backups import run_here

# The table in the documentation: environment variables, flag, default.
PROMISED = [
    ("PROMETHEUS_URL", "--prometheus-url", "http://localhost:9090"),
    ("PROMETHEUS_DATA_DIR", "--data-dir", "/prometheus"),
    ("PROMETHEUS_USERNAME", "--prometheus-username", "(none)"),
    ("PROMETHEUS_PASSWORD_FILE", "--prometheus-password-file", "(none)"),
    ("PROMETHEUS_BEARER_TOKEN_FILE", "--prometheus-bearer-token-file", "(none)"),
    ("PROMETHEUS_CA_FILE", "--prometheus-ca-file", "(the system's)"),
    ("SKIP_HEAD", "--skip-head", "no-skip-head"),
    ("REPOSITORY", "--repository", "(s3://S3_BUCKET/S3_PREFIX)"),
    ("S3_BUCKET", "--s3-bucket", "(none)"),
    ("S3_PREFIX", "--s3-prefix", "(prometheus-snapshots)"),
    ("S3_REGION, AWS_REGION, AWS_DEFAULT_REGION", "--s3-region", "us-east-1"),
    ("S3_ENDPOINT_URL, AWS_ENDPOINT_URL_S3, AWS_ENDPOINT_URL", "--s3-endpoint-url", "(AWS)"),
    ("S3_STORAGE_CLASS", "--storage-class", "STANDARD"),
    ("S3_SSE", "--sse", "AES256"),
    ("S3_SSE_KMS_KEY_ID", "--sse-kms-key-id", "(none)"),
    ("VERIFY_BACKUP", "--verify-backup", "verify-backup"),
    ("VERIFY_LEVEL", "--verify-level", "checksum"),
    ("RETENTION_DAILY", "--retention-daily", "30"),
    ("RETENTION_MONTHLY", "--retention-monthly", "12"),
    ("RETENTION_YEARLY", "--retention-yearly", "3"),
    ("BACKUP_LABELS", "--label", "(none)"),
    ("CONCURRENCY", "--concurrency", "(based on the number of cores)"),
    ("MAX_BANDWIDTH", "--max-bandwidth", "(unlimited)"),
    ("BACKUP_INTERVAL", "--backup-interval", "1d"),
    ("METRICS_LABELS", "--metrics-label", "(none)"),
    ("PUSHGATEWAY_URL", "--pushgateway-url", "(none)"),
    ("HEALTHCHECK_URL", "--healthcheck-url", "(none)"),
    ("METRICS_TEXTFILE", "--metrics-textfile", "(none)"),
    ("FINGERPRINTS", "--fingerprints", "fingerprints"),
    ("FINGERPRINT_QUERY", "--fingerprint-query", "(none)"),
    ("FINGERPRINT_FILE", "--fingerprint-file", "(none)"),
    ("LOG_LEVEL", "--log-level", "info"),
    ("LOG_FORMAT", "--log-format", "text"),
    ("QUIET", "--quiet", "no-quiet"),
]

DOCUMENTED_CODES = {0, 1, 2, 3, 10, 14, 11, 20, 22, 30, 33, 40, 41, 130, 143}


def _squeezed(text: str) -> str:
    """Return text without white space: help wraps lines, also at hyphens."""
    return re.sub(r"\s+", "", text)


def _entries(help_text: str) -> dict[str, str]:
    """Return the help of each option, without white space, by the option's first name."""
    parts = re.split(r"\n  (?=-)|\n(?=\S)", help_text)
    return {re.split(r"[\s,/]", p)[0]: _squeezed(p) for p in parts if p.startswith("-")}


def _sections(help_text: str) -> dict[str, str]:
    """Return the text under each heading."""
    parts = re.split(r"^([A-Z][\w ]+):\n", help_text, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


@pytest.mark.parametrize(("env", "flag", "default"), PROMISED)
def test_backup_help_shows_the_documented_variables_and_defaults(
    env: str, flag: str, default: str
) -> None:
    entry = _entries(run_here("backup", "--help").stdout)[flag]

    assert _squeezed(f"[env var: {env}; default: {default}") in entry


@pytest.mark.parametrize("name", commands.commands)
def test_every_setting_of_every_command_shows_its_variables_and_its_default(name: str) -> None:
    entries = _entries(run_here(name, "--help").stdout)

    settings = [SETTINGS[p.name] for p in commands.commands[name].params if p.name in SETTINGS]
    assert len(settings) >= 3
    for setting in settings:
        entry = entries[setting.option]
        assert ",".join([setting.env, *setting.also_env]) in entry
        assert "default:" in entry
        assert _squeezed(setting.help) in entry
    for always in ("--config", "--json", "--log-level", "--log-format", "--quiet", "-h"):
        assert always in entries


def test_no_arguments_print_help_and_exit_2() -> None:
    done = run_here()

    assert done.returncode == 2
    assert done.stdout == ""
    assert "Usage:" in done.stderr
    for name in ("backup", "list", "show", "verify", "drill", "prune", "restore", "check"):
        assert re.search(rf"^  {name} ", done.stderr, re.MULTILINE)


@pytest.mark.parametrize("flag", ["-h", "--help"])
def test_help_is_printed_to_standard_output_with_exit_0(flag: str) -> None:
    done = run_here(flag)

    assert done.returncode == 0
    assert "Usage:" in done.stdout
    assert done.stderr == ""


def test_module_prints_the_version() -> None:
    done = cli("--version")

    assert done.returncode == 0
    assert done.stdout == f"prometheus-backup, version {__version__}\n"


def test_options_are_in_groups_with_the_command_own_first_and_the_general_last() -> None:
    sections = _sections(run_here("backup", "--help").stdout)

    assert [*sections] == [
        "Options",
        "Prometheus",
        "Repository",
        "S3",
        "Transfer",
        "Retention",
        "Backup",
        "Monitoring",
        "General options",
        "Examples",
        "Exit codes",
    ]
    assert "--prometheus-url" in sections["Prometheus"]
    assert "--s3-bucket" in sections["S3"]
    assert "--max-bandwidth" in sections["Transfer"]
    assert "--retention-daily" in sections["Retention"]
    assert next(iter(_sections(run_here("restore", "--help").stdout))) == "Options"


@pytest.mark.parametrize("name", commands.commands)
def test_help_has_examples_that_parse_and_the_exit_codes(name: str) -> None:
    sections = _sections(run_here(name, "--help").stdout)

    examples = re.findall(rf"^  prometheus-backup ({name}.*)$", sections["Examples"], re.MULTILINE)
    assert len(examples) >= (1 if name == "version" else 2)
    for example in examples:
        parse(f"prometheus-backup {example}")
    codes = {int(c) for c in re.findall(r"\d+", re.sub(r"  [A-Z].*", "", sections["Exit codes"]))}
    assert {1, 2, 130, 143} <= codes <= DOCUMENTED_CODES


@pytest.mark.parametrize("columns", ["40", "80", "200"])
def test_list_of_commands_shortens_no_summary(columns: str) -> None:
    text = cli("--help", env={"COLUMNS": columns}).stdout

    assert "..." not in _sections(text)["Commands"]
    for command in commands.commands.values():
        assert _squeezed(command.get_short_help_str(limit=1000)) in _squeezed(text)


def test_version_is_a_command_too() -> None:
    assert run_here("version").stdout == f"prometheus-backup {__version__}\n"


def test_every_command_has_a_manual_and_no_other_does() -> None:
    assert {*MANUAL} == {*commands.commands}
    assert [*exits("drill")] == sorted(exits("drill"), key=lambda c: int(re.split(r"\D", c)[0]))
