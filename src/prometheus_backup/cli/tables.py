"""Lays out tables as lines of text for a given width. Nothing that a reader needs is cut.

In a narrow terminal, optional columns are hidden first. If the others still do not fit, the last
ones of each row go on lines of their own below it.
"""

import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import zip_longest

_GAP = "  "
_READABLE = 30
"""Minimum width of a column of sentences; a narrower one is hard to read."""
_LEAST = 20
"""A narrower terminal is treated as one of this width."""


@dataclass(frozen=True, slots=True)
class Column:
    """One column.

    `hide` is 0 if it is always shown; the column with the highest number is hidden first.
    Columns of `text` are wrapped.
    """

    header: str
    hide: int = 0
    text: bool = False


@dataclass(frozen=True, slots=True)
class Table:
    """Rows under headers; without headers, labels and values."""

    columns: Sequence[Column]
    rows: Sequence[Sequence[str]]

    def lines(self, width: int | None) -> list[str]:
        """Return the lines; None is for pipes: all columns, each row on one line."""
        everything = range(len(self.columns))
        if width is None:
            return self._grid(everything, self._natural(everything), rule=False)
        width = max(width, _LEAST)
        used = [i for i in everything if not self.rows or any(row[i] for row in self.rows)]
        lines, hidden = self._arrange(used, width)
        names = ", ".join(self.columns[i].header for i in hidden)
        return [*lines, *(wrapped(f"not shown: {names} (use --wide)", width) if names else [])]

    def _arrange(self, used: Sequence[int], width: int) -> tuple[list[str], Sequence[int]]:
        """Return the lines, and the columns that are hidden."""
        shown, hidden = used, used[:0]
        for hidden in self._choices(used):
            shown = [i for i in used if i not in hidden]
            if (widths := self._fit(shown, width)) is not None:
                return self._grid(shown, widths), sorted(hidden)
        return self._split(shown, width), sorted(hidden)

    def _choices(self, used: Sequence[int]) -> Iterable[Sequence[int]]:
        """Yield the columns to hide: none, then one more each time."""
        optional = [i for i in used if self.columns[i].hide]
        optional.sort(key=lambda i: -self.columns[i].hide)
        return (optional[:count] for count in range(len(optional) + 1))

    def _natural(self, shown: Sequence[int]) -> list[int]:
        return [max(len(row[i]) for row in [self._headers, *self.rows]) for i in shown]

    def _fit(self, shown: Sequence[int], width: int) -> list[int] | None:
        """Return the widths of the columns; None if they do not fit next to each other."""
        natural = self._natural(shown)
        spare = width - len(_GAP) * (len(shown) - 1)
        least = [
            min(n, _READABLE) if self.columns[i].text else n
            for i, n in zip(shown, natural, strict=True)
        ]
        spare -= sum(least)
        if spare < 0:
            return None
        widths = []
        for wanted, given in zip(natural, least, strict=True):
            more = min(wanted - given, spare)
            widths.append(given + more)
            spare -= more
        return widths

    def _split(self, shown: Sequence[int], width: int) -> list[str]:
        """Return the first columns as a table, with the others below each row."""
        inline = shown[:1]
        for column in shown[1:]:
            more = [*inline, column]
            if self.columns[column].text or self._fit(more, width) is None:
                break
            inline = more
        widths = self._fit(inline, width) or [width]
        lines = self._header(inline, widths)
        for row in self.rows:
            lines += self._cells(row, inline, widths)
            lines += self._below(row, shown[len(inline) :], width)
        return lines

    def _below(self, row: Sequence[str], columns: Sequence[int], width: int) -> Iterable[str]:
        for index in columns:
            header = self.columns[index].header
            if row[index]:
                text = f"{header}: {row[index]}" if header else row[index]
                yield from wrapped(text, width, indent="  ")

    def _grid(self, shown: Sequence[int], widths: Sequence[int], *, rule: bool = True) -> list[str]:
        lines = self._header(shown, widths, rule=rule)
        for row in self.rows:
            lines += self._cells(row, shown, widths)
        return lines

    def _header(
        self, shown: Sequence[int], widths: Sequence[int], *, rule: bool = True
    ) -> list[str]:
        if not any(self._headers):
            return []
        line = "-" * (sum(widths) + len(_GAP) * (len(widths) - 1))
        return self._cells(self._headers, shown, widths) + ([line] if rule else [])

    @property
    def _headers(self) -> Sequence[str]:
        return [column.header for column in self.columns]

    @staticmethod
    def _cells(row: Sequence[str], shown: Sequence[int], widths: Sequence[int]) -> list[str]:
        """Return a row, on several lines if a cell is wider than its column."""
        cells = [_words(row[i], width) for i, width in zip(shown, widths, strict=True)]
        return [
            _GAP.join(c.ljust(w) for c, w in zip(line, widths, strict=True)).rstrip()
            for line in zip_longest(*cells, fillvalue="")
        ]


def wrapped(text: str, width: int, *, indent: str = "") -> list[str]:
    """Return text in lines of at most this width, broken between words; later lines are indented.

    A word longer than a line is broken, and never cut.
    """
    return textwrap.wrap(
        text,
        width,
        initial_indent=indent,
        subsequent_indent=f"{indent}  ",
        break_on_hyphens=False,
    )


def _words(text: str, width: int) -> list[str]:
    if len(text) <= width:
        return [text]  # as it is, with all its spaces
    return textwrap.wrap(text, width, break_on_hyphens=False)


def table(columns: Sequence[Column], rows: Iterable[Sequence[str]]) -> Table:
    """Return a table with a header."""
    return Table(columns, [*rows])


def summary(rows: Iterable[Sequence[str]]) -> Table:
    """Return a table of labels and values."""
    return Table((Column(""), Column("", text=True)), [*rows])
