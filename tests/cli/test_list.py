"""`list`: which backups it shows, in which order, and what it says if there is none."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prometheus_backup.cli.render import STATE_WORDS, AsOf
from prometheus_backup.cli.selection import Selection, select
from prometheus_backup.errors import UsageError
from prometheus_backup.repository.entry import BackupEntry, State
from prometheus_backup.spans import Span
from tests.support import manifests
from tests.support.stored_backups import LocalFiles, json_of, put_small_backup, run_here

MARCH = ("backup-20250301-020000", "backup-20250315-020000")
BAD = "backup-20250401-020000"
NEW = "backup-20260101-020000"
NOW = AsOf(datetime(2026, 1, 2, tzinfo=UTC), timedelta(days=30))
OLD_SCRIPT = "backup-20240301-020000"


def blocks(identifier: str, begin: str, end: str) -> list[dict[str, Any]]:
    key = f"{identifier}/{manifests.ULID}/index"
    return [manifests.block(manifests.file(key=key), min_time=f"{begin}Z", max_time=f"{end}Z")]


@pytest.fixture
def files(tmp_path: Path) -> LocalFiles:
    """Four backups, each of the two days before it, and a folder of another program."""
    files = LocalFiles(tmp_path / "repository")
    for identifier in (*MARCH, BAD, NEW):
        taken = datetime.strptime(identifier, "backup-%Y%m%d-%H%M%S").replace(tzinfo=UTC)
        begin, end = (f"{taken - days:%Y-%m-%dT%H:%M:%S}" for days in (timedelta(2), timedelta(0)))
        degraded = ["a block is missing"] if identifier == BAD else []
        held = blocks(identifier, begin, end)
        put_small_backup(files, taken, degraded=degraded, blocks=held)
    files.put(f"{OLD_SCRIPT}/metadata.json", manifests.OLD_SCRIPT)
    return files


def listed(files: LocalFiles, *arguments: str) -> list[str]:
    done = run_here("list", "--ids", *arguments, env=files.environment())
    assert (done.returncode, done.stderr) == (0, "")
    assert json_of(run_here("list", "--json", *arguments, env=files.environment()))["backups"] == [
        b
        for i in done.stdout.splitlines()
        for b in json_of(run_here("list", "--json", env=files.environment()))["backups"]
        if b["backup_id"] == i
    ]
    return done.stdout.splitlines()


@pytest.mark.parametrize(
    ("arguments", "shown"),
    [
        ((), (OLD_SCRIPT, *MARCH, BAD, NEW)),
        (("--since", "2025-03-15"), (MARCH[1], BAD, NEW)),
        (("--since", "2025-03-15T02:00:01Z"), (BAD, NEW)),
        (("--until", "2025-03-15"), (OLD_SCRIPT, *MARCH)),
        (("--until", "2025-03-15T02:00:00Z"), (OLD_SCRIPT, *MARCH)),
        (("--until", "2025-03-15T01:59:59Z"), (OLD_SCRIPT, MARCH[0])),
        (("--since", "2025-03-01", "--until", "2025-03-01"), (MARCH[0],)),
        (("--state", "degraded"), (BAD,)),
        (("--state", "Foreign", "--state", "degraded"), (OLD_SCRIPT, BAD)),
        (("--state", "good"), (*MARCH, NEW)),
        (("--state", "failed"), ()),
        (("--layout", "full"), (*MARCH, BAD, NEW)),
        (("--limit", "2"), (BAD, NEW)),
        (("--limit", "99", "--state", "good"), (*MARCH, NEW)),
        (("--limit", "1", "--until", "2025-03-31"), (MARCH[1],)),
        (("--holding", "2025-03-14T00:00:00Z"), (MARCH[1],)),
        (("--holding", "2025-03-10"), ()),
    ],
)
def test_only_what_matches_is_shown(
    files: LocalFiles, arguments: tuple[str, ...], shown: tuple[str, ...]
) -> None:
    assert listed(files, *arguments) == [*shown]


def test_tiers_are_those_that_retention_decides_by_today(files: LocalFiles) -> None:
    now = datetime.now(UTC)
    today = put_small_backup(files, now)
    keep = {"RETENTION_DAILY": "1", "RETENTION_MONTHLY": "0", "RETENTION_YEARLY": "1"}

    def of_tier(*tiers: str) -> list[str]:
        env = files.environment() | keep
        chosen = [argument for tier in tiers for argument in ("--tier", tier)]
        return run_here("list", "--ids", *chosen, env=env).stdout.splitlines()

    assert of_tier("daily") == [today]
    assert of_tier("monthly") == []
    yearly = min(i for i in (NEW, today) if i.startswith(f"backup-{now:%Y}"))
    assert of_tier("yearly") == [yearly]
    assert of_tier("daily", "yearly") == sorted({today, yearly})


def test_the_best_backup_with_an_instant_comes_first(files: LocalFiles) -> None:
    at = "2025-03-14T00:00:00"
    begin, end = "2025-03-13T00:00:00", "2025-03-15T00:00:00"
    names = ("backup-20250316-020000", "backup-20250317-020000", "backup-20250318-020000")
    for identifier, degraded in zip(names, ([], [], ["a block is missing"]), strict=True):
        taken = datetime.strptime(identifier, "backup-%Y%m%d-%H%M%S").replace(tzinfo=UTC)
        put_small_backup(files, taken, blocks=blocks(identifier, begin, end), degraded=degraded)
    (files.root / names[1] / manifests.ULID).mkdir(parents=True, exist_ok=True)
    files.put(f"{names[1]}/{manifests.ULID}/index", b"damaged!!!")
    run_here("verify", names[1], env=files.environment())

    best_first = [names[0], MARCH[1], names[2], names[1]]
    assert listed(files, "--holding", f"{at}Z") == best_first
    assert listed(files, "--holding", f"{at}Z", "--limit", "1") == best_first[:1]
    # Ranges are half-open: the first instant belongs to them, the last does not.
    assert MARCH[1] in listed(files, "--holding", "2025-03-13T02:00:00Z")
    assert MARCH[1] not in listed(files, "--holding", "2025-03-15T02:00:00Z")


def test_an_instant_that_no_backup_has_names_the_nearest_samples(files: LocalFiles) -> None:
    done = run_here("list", "--holding", "2025-03-10", env=files.environment())

    assert done.returncode == 0
    assert "none of 5 backups" in done.stdout
    assert f"before: until 2025-03-01 02:00 in {MARCH[0]}" in done.stdout
    assert f"after: from 2025-03-13 02:00 in {MARCH[1]}" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--since", "2025-03-02", "--until", "2025-03-01"), "--until is before --since"),
        (("--since", "yesterday"), "cannot read time 'yesterday'"),
        (("--holding", "25:00"), "cannot read time '25:00'"),
        (("--state", "bad"), "cannot use --state"),
        (("--tier", "hourly"), "cannot use --tier"),
        (("--limit", "0"), "cannot use --limit"),
        (("--limit", "some"), "cannot use --limit"),
    ],
)
def test_what_cannot_be_selected_is_refused(
    files: LocalFiles, arguments: tuple[str, ...], message: str
) -> None:
    done = run_here("list", "--ids", *arguments, env=files.environment())

    assert (done.returncode, done.stdout) == (2, "")
    assert message in done.stderr


def test_a_backup_that_cannot_be_read_counts_only_if_it_is_in_the_time_range(
    files: LocalFiles,
) -> None:
    (files.root / NEW / "metadata.json").unlink()
    (files.root / NEW / "metadata.json").symlink_to("metadata.json")

    found = run_here("list", "--ids", "--state", "good", env=files.environment())
    before = run_here("list", "--ids", "--until", "2025-12-31", env=files.environment())

    assert found.returncode == 3
    assert f"cannot read {NEW}" in found.stderr
    assert found.stdout.splitlines() == [*MARCH]
    assert (before.returncode, before.stderr) == (0, "")


def test_every_state_can_be_selected() -> None:
    assert set(STATE_WORDS) >= {s.value for s in State if s is not State.COMMITTED}


_TIMES = st.integers(0, 40).map(lambda n: datetime(2025, 3, 1, tzinfo=UTC) + timedelta(hours=n))
_SPANS = st.tuples(_TIMES, _TIMES).map(lambda ends: Span(min(ends), max(ends)))


@given(st.lists(st.lists(_SPANS, max_size=3), max_size=5), _TIMES)
def test_holding_is_what_every_span_says(spans: list[list[Span]], at: datetime) -> None:
    entries = [
        BackupEntry(f"backup-2025041{n}-000000", State.COMMITTED, spans=tuple(held))
        for n, held in enumerate(spans)
    ]
    holding = {e.backup_id for e in entries for s in e.spans if s.start <= at and at < s.end}

    assert {e.backup_id for e in select(entries, (), Selection(NOW, holding=at))} == holding


def test_an_impossible_range_is_refused() -> None:
    with pytest.raises(UsageError, match="--until is before --since"):
        Selection(
            NOW, since=datetime(2025, 1, 2, tzinfo=UTC), until=datetime(2025, 1, 1, tzinfo=UTC)
        )
