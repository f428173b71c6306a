"""On a terminal: progress, a summary at the end, and errors with hints."""

import re
from pathlib import Path
from typing import Any

import pytest

from devtools.prometheus import PrometheusFleet
from prometheus_backup.cli.commands.list_ import LIST_COLUMNS
from tests.support.contents import tree
from tests.support.faulty_stores import flip_a_bit
from tests.support.runs import settings
from tests.support.stored_backups import LocalFiles, StoredBackups, block_keys, run_here
from tests.support.terminal import on_terminal

HIDE_CURSOR, SHOW_CURSOR = "\x1b[?25l", "\x1b[?25h"


def test_a_backup_shows_progress_and_a_summary(
    start_prometheus: PrometheusFleet, prometheus_3: Any, data_dir: Path, tmp_path: Path
) -> None:
    server = start_prometheus(prometheus_3, data_dir)
    (tmp_path / "repository").mkdir()
    env = settings(server, tmp_path / "repository", MAX_BANDWIDTH="150kB")

    screen = on_terminal("backup", env=env)

    assert screen.code == 0, screen.text
    size = r"[\d.]+ (?:B|KiB)"
    bar = rf"transferring +\S+ +{size} of {size}  ([\d.]+) KiB/s  [\d:]+ left"
    rates = [float(rate) for rate in re.findall(bar, screen.text)]
    assert 0 < max(rates) <= 150_000 / 1024, "the rate stays within the limit"
    assert "verifying" in screen.text
    assert screen.raw.count(SHOW_CURSOR) == screen.raw.count(HIDE_CURSOR) > 0
    summary = screen.text[screen.text.rindex("\nbackup ") :]
    for label in ("backup", "contents", "uploaded", "copied by the store", "verified", "took"):
        assert re.search(rf"^{label} ", summary, re.MULTILINE), label
    assert f"file://{tmp_path}/repository/backup-" in summary.replace("\n", "")
    assert not re.search(r"^\d{4}-\d\d-\d\dT", screen.text, re.MULTILINE), "no log lines"


def test_an_error_is_an_error_line_and_a_hint_line(repository_files: LocalFiles) -> None:
    screen = on_terminal("show", "backup-20010101-000000", env=repository_files.environment())

    assert screen.code == 30
    error, hint = screen.text.splitlines()
    assert error.startswith("error: cannot find backup 'backup-20010101-000000'")
    assert hint.startswith("hint: the nearest: backup-")


def test_a_usage_error_is_an_error_line_and_a_hint_line() -> None:
    screen = on_terminal("restore", env={})

    assert screen.code == 2
    error, hint = screen.text.splitlines()
    assert error.startswith("error: cannot run `prometheus-backup restore`: missing argument")
    assert hint == "hint: see `prometheus-backup restore --help`"


def test_a_restore_shows_the_flags_and_its_warnings(
    repository_files: LocalFiles, stored: StoredBackups, tmp_path: Path
) -> None:
    env = repository_files.environment() | {"RETENTION_DAILY": "1", "RETENTION_MONTHLY": "0"}
    env |= {"RETENTION_YEARLY": "0", "MAX_BANDWIDTH": "300kB"}

    screen = on_terminal("restore", stored.first, str(tmp_path / "target"), env=env)

    assert screen.code == 0
    assert "restoring" in screen.text
    assert "warning: retention deletes this backup within 48 hours" in screen.text
    assert re.search(r"^  --storage\.tsdb\.retention\.time=\d+d$", screen.text, re.MULTILINE)
    assert "--storage.tsdb.retention.size=1GB" in screen.text


def test_names_that_look_like_markup_are_not_interpreted(
    repository_files: LocalFiles, tmp_path: Path
) -> None:
    target = tmp_path / "a[red]b[/bold]"

    screen = on_terminal(
        "restore", "latest", str(target), env=repository_files.environment(), columns=250
    )

    assert screen.code == 0, screen.text
    assert screen.text.count(f"into {target}") == 2, "in the progress and in the result"
    assert tree(target)


def test_quiet_shows_the_result_only(repository_files: LocalFiles, stored: StoredBackups) -> None:
    command = ("verify", stored.first)

    loud = on_terminal(*command, env=repository_files.environment(), stdout_too=False)
    quiet = on_terminal(*command, "--quiet", env=repository_files.environment(), stdout_too=False)

    assert (loud.code, quiet.code) == (0, 0)
    assert "verifying" in loud.text
    assert quiet.raw == ""


def test_json_logs_are_written_on_a_terminal_too(repository_files: LocalFiles) -> None:
    screen = on_terminal(
        "verify", "--log-format=json", env=repository_files.environment(), stdout_too=False
    )

    assert screen.code == 0
    assert all(line.startswith("{") for line in screen.text.splitlines())
    assert "\x1b" not in screen.raw


@pytest.mark.parametrize("columns", [60, 80, 120])
def test_results_fit_the_terminal_and_keep_what_decides(
    repository_files: LocalFiles, stored: StoredBackups, columns: int, tmp_path: Path
) -> None:
    def words(*arguments: str) -> str:
        screen = on_terminal(
            *arguments, "--quiet", env=repository_files.environment(), columns=columns
        )
        assert screen.code == 0, screen.text
        assert max(map(len, screen.text.splitlines())) <= columns
        return " ".join(screen.text.split())

    target = str(tmp_path / "target")

    assert "newest good backup" in words("list")
    assert stored.first in words("show", stored.first)
    assert "--storage.tsdb.retention.time=" in words("restore", "latest", target, "--dry-run")
    assert "assumed: 15 days of retention" in words("estimate", "--tsdb-size=100GB")


def test_wide_shows_all_columns_on_a_narrow_terminal(repository_files: LocalFiles) -> None:
    screen = on_terminal("list", "--wide", env=repository_files.environment(), columns=60)

    assert screen.code == 0
    assert screen.text.splitlines()[0].split() == " ".join(c.header for c in LIST_COLUMNS).split()


def test_verification_ends_with_a_total(
    repository_files: LocalFiles, stored: StoredBackups
) -> None:
    env = repository_files.environment()
    sound = run_here("verify", "--all", env=env)
    key = block_keys(repository_files, stored.first)[0]
    repository_files.put(key, flip_a_bit(repository_files.get(key)))
    damaged = run_here("verify", "--all", env=env)

    assert sound.stdout.splitlines()[-1] == "verified 2 backups: 2 passed"
    assert "verified 2 backups: 1 passed, 1 failed" in damaged.stdout.splitlines()
