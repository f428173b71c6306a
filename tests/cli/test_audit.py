"""The questions of docs/how-to/audit.md, on a repository of three years with holes."""

import re
from datetime import UTC, datetime, timedelta

import pytest

from prometheus_backup.retention.policy import Candidate, Policy, decide
from tests.support import manifests
from tests.support.stored_backups import LocalFiles, put_small_backup, run_here

NOW = datetime.now(UTC).replace(hour=2, minute=0, second=0, microsecond=0)
DAY = timedelta(days=1)
MISSED = {3, 4, 5, *range(200, 230)}
"""Nights without a backup, counted from today."""


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> LocalFiles:
    """What the default retention keeps of three years of nights, each backup of 15 days."""
    files = LocalFiles(tmp_path_factory.mktemp("audit") / "repository")
    nights = [NOW - n * DAY for n in range(3 * 365) if n not in MISSED]
    made = [Candidate(f"backup-{n:%Y%m%d-%H%M%S}", n, good=True) for n in nights]
    for decision in decide(made, today=NOW.date(), policy=Policy()):
        taken = datetime.strptime(decision.backup_id, "backup-%Y%m%d-%H%M%S").replace(tzinfo=UTC)
        key = f"{decision.backup_id}/{manifests.ULID}/index"
        begin, end = (f"{t:%Y-%m-%dT%H:%M:%SZ}" for t in (taken - 15 * DAY, taken))
        block = manifests.block(manifests.file(key=key), min_time=begin, max_time=end)
        if decision.keep:
            put_small_backup(files, taken, blocks=[block], finished_at=end)
    return files


def answer(files: LocalFiles, *arguments: str) -> str:
    done = run_here(*arguments, env=files.environment())
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_can_the_backup_of_a_day_still_be_restored(files: LocalFiles) -> None:
    first = (NOW.replace(day=1) - DAY).replace(day=1)
    shown = answer(files, "show", f"{first:%Y-%m-%d}")

    assert f"backup                   backup-{first:%Y%m%d}-020000\n" in shown
    assert "state                    good" in shown
    assert "last read whole          " in shown


def test_how_far_back_without_a_gap_and_what_is_missing(files: LocalFiles) -> None:
    shown = answer(files, "timeline")

    found = re.search(r"recoverable without a hole: (\S+) \S+ to (\S+) ", shown)
    assert found
    assert found[1] <= f"{NOW - 44 * DAY:%Y-%m-%d}", "29 nights ago there were 15 days before it"
    assert found[2] == f"{NOW:%Y-%m-%d}"
    assert shown.count("\nMISSING ") > 5
    for night in (3, 4, 5):
        assert f"{NOW - night * DAY:%Y-%m-%d}" in shown.partition("\nmissing ")[2]


def test_which_backup_has_an_instant_and_which_are_stale(files: LocalFiles) -> None:
    best = answer(files, "list", "--holding", f"{NOW - 7.5 * DAY:%Y-%m-%dT%H:%M:%SZ}", "--ids")
    stale = answer(files, "list", "--state", "stale", "--ids").split()

    assert best.split()[0] == f"backup-{NOW:%Y%m%d}-020000"
    assert len(best.split()) == 8 - 3
    everything = answer(files, "list", "--ids").split()
    assert stale
    assert stale == everything[: len(stale)], "the oldest ones"


def test_what_the_next_year_costs(files: LocalFiles) -> None:
    assert answer(files, "estimate")
