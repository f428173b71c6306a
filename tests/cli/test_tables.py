"""Tables at every width: nothing is cut, and what decides stays visible."""

import re
from typing import Any

import pytest

from prometheus_backup.cli.commands.drill import QUERY_COLUMNS
from prometheus_backup.cli.commands.estimate import ESTIMATE_COLUMNS
from prometheus_backup.cli.commands.heal import HEAL_COLUMNS
from prometheus_backup.cli.commands.inspect import INSPECT_COLUMNS
from prometheus_backup.cli.commands.list_ import LIST_COLUMNS
from prometheus_backup.cli.commands.prune import PRUNE_COLUMNS
from prometheus_backup.cli.commands.restore import RESTORE_COLUMNS
from prometheus_backup.cli.commands.show import BLOCK_COLUMNS, LEVEL_COLUMNS
from prometheus_backup.cli.commands.verify import VERIFY_COLUMNS
from prometheus_backup.cli.tables import Column, summary, table, wrapped

WIDTHS = (60, 80, 100, 120, 200)
BACKUP, ULID = "backup-20250122-020000", "01JJ6M3T0W4G1M149V9Z4B36B8"
START, END = "2025-01-22 00:00:00", "2025-01-22 02:00:08"
SENTENCE = "it ends after 2025-01-22T01:59:01.549Z, the start of the samples in memory"
# Columns, a row with long cells, and the headers that must be visible at every width.
TABLES: dict[str, tuple[tuple[Column, ...], tuple[str, ...], set[str]]] = {
    "list": (
        LIST_COLUMNS,
        (
            BACKUP,
            "1,023.9 GiB",
            "1,234",
            START,
            END,
            "FAILED checksum 2025-01-22",
            "729 days ago",
            "failed, degraded, stale, held",
            f"will be pruned: {SENTENCE}",
        ),
        {"backup", "verified", "last read", "state", "retention"},
    ),
    "show levels": (
        LEVEL_COLUMNS,
        (
            f"tsdb of {START} to {END}",
            "pass before the commit",
            f"since {START}",
            "123,456",
            "1,023.9 GiB",
            "12",
        ),
        {"level", "result", "at (UTC)", "findings"},
    ),
    "show blocks": (
        BLOCK_COLUMNS,
        (ULID, START, END, "1", "1,234,567", "123,456,789,012", "1,023.9 GiB", "not checked"),
        {"block", "from (UTC)", "to (UTC)"},
    ),
    "verify": (
        VERIFY_COLUMNS,
        (BACKUP, "checksum 12/30", "inconclusive", "123,456", "1,023.9 GiB", SENTENCE),
        {"backup", "level", "result", "findings"},
    ),
    "heal": (
        HEAL_COLUMNS,
        (ULID, START, END, "queries and compaction fail", SENTENCE, f"replace it: {SENTENCE}"),
        {"block", "from (UTC)", "to (UTC)", "effect", "what is wrong", "remedy"},
    ),
    "drill": (
        QUERY_COLUMNS,
        ("sum by (job) (count_over_time(up[1h]))", "2025-01-22T02:00:00Z", "12", "fail", SENTENCE),
        {"fingerprint", "result"},
    ),
    "inspect": (
        INSPECT_COLUMNS,
        (ULID, START, END, "1,234,567", "123,456,789,012", "1,023.9 GiB", "fail: 1,234 faults"),
        {"block", "result"},
    ),
    "prune": (PRUNE_COLUMNS, (BACKUP, "delete", SENTENCE), {"backup", "retention", "because"}),
    "restore": (
        RESTORE_COLUMNS,
        (ULID, START, END, "1,023.9 GiB", f"SKIPPED: {SENTENCE}"),
        {"block", "from (UTC)", "to (UTC)"},
    ),
    "estimate": (
        ESTIMATE_COLUMNS,
        (
            "STANDARD, STANDARD_IA after 35 days, GLACIER_IR after 90 days",
            "12,345.67",
            "12,345.67",
            "12,345.67",
            "12,345.67",
            "148,148.04",
            "67,890.12",
            "345.67",
            "1,345.67",
            "12 h",
        ),
        {"storage class", "month", "thaw time"},
    ),
}


def _words(lines: list[str]) -> str:
    return " ".join(" ".join(lines).split())


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("name", TABLES)
def test_no_line_is_too_long_and_no_shown_cell_is_cut(name: str, width: int) -> None:
    columns, row, _ = TABLES[name]
    drawn = table(columns, [row]).lines(width)
    assert max(map(len, drawn)) <= width
    hidden = _hidden(drawn)

    for column, cell in zip(columns, row, strict=True):
        if column.header in hidden:
            continue
        # Alone in the table, so that no other cell is printed between its lines.
        alone = [cell if c is column else "" for c in columns]
        alone[0] = row[0]
        assert cell in _words(table(columns, [alone]).lines(width)), column.header


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("name", TABLES)
def test_the_columns_that_decide_are_shown_at_every_width(name: str, width: int) -> None:
    columns, row, essential = TABLES[name]

    lines = table(columns, [row]).lines(width)

    assert not essential & _hidden(lines)
    for header in essential:
        assert header in _words(lines)


def _hidden(lines: list[str]) -> set[str]:
    note = re.search(r"not shown: (.*) \(use --wide\)$", _words(lines))
    return set(note[1].split(", ")) if note else set()


@pytest.mark.parametrize("name", TABLES)
def test_pipes_and_wide_get_every_column_on_one_line_per_row(name: str) -> None:
    columns, row, _ = TABLES[name]

    header, line = table(columns, [row]).lines(None)

    assert re.split(" {2,}", header) == [c.header for c in columns if c.header]
    assert re.split(" {2,}", line) == [*row]


def test_columns_are_hidden_in_the_given_order() -> None:
    columns = (Column("id"), Column("first", hide=2), Column("second", hide=1))
    rows = [("x" * 10, "y" * 20, "z" * 20)]

    assert table(columns, rows).lines(60)[0] == "id          first                 second"
    assert table(columns, rows).lines(40)[-1] == "not shown: first (use --wide)"
    assert _hidden(table(columns, rows).lines(30)) == {"first", "second"}


def test_columns_that_do_not_fit_go_below_their_row() -> None:
    columns = (Column("id"), Column("cause", text=True))
    rows = [("a" * 20, "one two three four five six seven eight nine ten"), ("b", "")]

    assert table(columns, rows).lines(40) == [
        "id",
        "--------------------",
        "a" * 20,
        "  cause: one two three four five six",
        "    seven eight nine ten",
        "b",
    ]


def test_labels_and_values_keep_the_values_apart_from_the_labels() -> None:
    rows = [("backup", BACKUP), ("retention of the source", SENTENCE)]

    lines = summary(rows).lines(60)

    assert lines[0].startswith("backup ")
    assert lines[0].endswith(BACKUP)
    assert {line.index(line.split("  ")[-1].strip()) for line in lines} == {25}


@pytest.mark.parametrize("width", [20, 60])
def test_words_longer_than_a_line_are_broken_and_not_lost(width: int) -> None:
    path = "/srv/" + "x" * 100

    lines = wrapped(f"cannot read {path}", width)

    assert max(map(len, lines)) <= width
    assert "".join("".join(lines).split()) == f"cannotread{path}"


def test_table_without_rows_is_its_header() -> None:
    rows: list[Any] = []

    assert table(PRUNE_COLUMNS, rows).lines(None) == ["backup  retention  because"]
