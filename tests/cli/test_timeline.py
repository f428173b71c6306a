"""`timeline`: sample times that can be recovered, the holes, and missing backups."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from prometheus_backup.cli.commands.timeline import bar
from prometheus_backup.spans import Span
from tests.support.stored_backups import (
    LocalFiles,
    json_of,
    manifest_of,
    put_small_backup,
    run_here,
)
from tests.support.terminal import on_terminal

DAY = timedelta(days=1)


def backup_of_15_days(files: LocalFiles, taken: datetime) -> str:
    identifier = put_small_backup(files, taken)
    manifest = manifest_of(files, identifier)
    times = {"min_time": f"{taken - 15 * DAY:%FT%TZ}", "max_time": f"{taken:%FT%TZ}"}
    manifest["blocks"][0] |= times
    for exact in ("min_time_ms", "max_time_ms"):
        manifest["blocks"][0].pop(exact, None)
    manifest |= times
    files.put(f"{identifier}/metadata.json", json.dumps(manifest).encode())
    return identifier


@pytest.fixture
def night() -> datetime:
    """The newest night at 02:00."""
    now = datetime.now(UTC)
    return now.replace(hour=2, minute=0, second=0, microsecond=0) - (
        DAY if now.hour < 3 else 0 * DAY
    )


@pytest.fixture
def files(tmp_path: Path, night: datetime) -> LocalFiles:
    """Thirty nights without three, and a backup of a hundred days ago."""
    files = LocalFiles(tmp_path / "repository")
    for age in range(30):
        if age not in (5, 10, 11):
            backup_of_15_days(files, night - age * DAY)
    backup_of_15_days(files, night - 100 * DAY)
    return files


def shown(files: LocalFiles, *arguments: str) -> Any:
    return json_of(run_here("timeline", "--json", *arguments, env=files.environment()))


def test_holes_and_missing_nights_are_named(files: LocalFiles, night: datetime) -> None:
    document = shown(files)

    hole, last = document["holes"]
    assert hole["from"] == f"{night - 100 * DAY:%FT%TZ}"
    assert hole["to"] == f"{night - 44 * DAY:%FT%TZ}"
    assert last["from"] == f"{night:%FT%TZ}"
    due = [m["due"] for m in document["missing"] if m["period"] == "backup"]
    assert due == [f"{night - age * DAY:%FT%TZ}" for age in (11, 10, 5)]
    assert document["continuous"] == {
        "from": f"{night - 44 * DAY:%FT%TZ}",
        "to": f"{night:%FT%TZ}",
    }


def test_a_backup_that_failed_its_verification_recovers_nothing(
    files: LocalFiles, night: datetime
) -> None:
    old = night - 100 * DAY
    files.delete(f"backup-{old:%Y%m%d-%H%M%S}/SHA256SUMS")
    assert run_here("verify", "--all", "--level=size", env=files.environment()).returncode == 41

    assert shown(files)["from"] == f"{night - 44 * DAY:%FT%TZ}"


def test_a_window_is_shown_alone(files: LocalFiles, night: datetime) -> None:
    begin, end = night - 110 * DAY, night - 90 * DAY
    document = shown(files, f"--from={begin:%FT%TZ}", f"--to={end:%FT%TZ}")

    assert (document["from"], document["to"]) == (f"{begin:%FT%TZ}", f"{end:%FT%TZ}")
    assert [s["to"] for s in document["stretches"]] == [f"{night - 100 * DAY:%FT%TZ}"]
    wrong = run_here("timeline", "--from=-1d", "--to=-2d", env=files.environment())
    assert wrong.returncode == 2


def test_rows_in_a_pipe_and_a_bar_on_a_terminal(files: LocalFiles) -> None:
    piped = run_here("timeline", env=files.environment()).stdout
    screen = on_terminal("timeline", env=files.environment(), columns=80)

    assert [line.split()[0] for line in piped.splitlines()[1:5]] == [
        "recoverable",
        "MISSING",
        "recoverable",
        "MISSING",
    ]
    assert "recoverable without a hole: " in piped
    assert "###" not in piped
    (drawn,) = [line for line in screen.text.splitlines() if line.startswith("###")]
    assert len(drawn) <= 80
    assert set(drawn) <= set("#+.")
    assert screen.code == 0


def test_an_empty_repository_recovers_nothing(tmp_path: Path) -> None:
    (tmp_path / "repository").mkdir()
    env = {"REPOSITORY": f"file://{tmp_path}/repository"}
    assert "nothing can be recovered" in run_here("timeline", env=env).stdout


def test_each_character_of_the_bar_is_its_share_of_the_time() -> None:
    start = datetime(2025, 1, 1, tzinfo=UTC)
    covered = [Span(start + 2 * DAY, start + 4.5 * DAY)]
    assert bar(covered, Span(start, start + 8 * DAY), 8) == "..##+..."
