"""Shell completion, as the shells request it."""

import pytest

from tests.support.runs import cli
from tests.support.stored_backups import LocalFiles, StoredBackups


def completions(line: str, incomplete: str = "", **env: str) -> list[str]:
    """Return what bash would offer after this line."""
    words = ["prometheus-backup", *line.split(), *([incomplete] if incomplete else [])]
    request = {
        "_PROMETHEUS_BACKUP_COMPLETE": "bash_complete",
        "COMP_WORDS": " ".join(words) + ("" if incomplete else " "),
        "COMP_CWORD": str(len(line.split()) + 1),
    }
    done = cli(env={**request, **env})
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return [item.partition(",")[2] for item in done.stdout.split()]


@pytest.mark.parametrize("line", ["show", "restore", "drill", "verify", "verify --level size"])
def test_backup_ids_are_completed_newest_first(
    repository_files: LocalFiles, stored: StoredBackups, line: str
) -> None:
    offered = completions(line, **repository_files.environment())

    assert offered == ["latest", stored.second, stored.first]


def test_only_matching_ids_are_offered(repository_files: LocalFiles, stored: StoredBackups) -> None:
    env = repository_files.environment()

    assert completions("show", stored.first, **env) == [stored.first]
    assert completions("show", "la", **env) == ["latest"]
    assert completions("show", "x", **env) == []


def test_repository_on_the_command_line_is_used(
    repository_files: LocalFiles, stored: StoredBackups
) -> None:
    line = f"show --repository file://{repository_files.root}"

    assert stored.first in completions(line)


@pytest.mark.parametrize(
    "env",
    [
        {},
        {"REPOSITORY": "file:///nonexistent"},
        {"REPOSITORY": "ftp://x"},
        {"S3_BUCKET": "b", "AWS_ENDPOINT_URL": "http://127.0.0.1:9", "AWS_ACCESS_KEY_ID": "k"},
        {"CONCURRENCY": "many"},
    ],
    ids=["unset", "absent", "invalid", "unreachable", "bad-setting"],
)
def test_unusable_repository_shows_no_error(env: dict[str, str]) -> None:
    assert completions("show", **env) == ["latest"]


def test_commands_and_options_are_completed() -> None:
    assert completions("", "rest") == ["restore"]
    assert "--dry-run" in completions("restore", "--d")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_script_for_each_shell_is_printed(shell: str) -> None:
    done = cli(env={"_PROMETHEUS_BACKUP_COMPLETE": f"{shell}_source"})

    assert done.returncode == 0
    assert "prometheus-backup" in done.stdout
