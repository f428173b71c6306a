"""The output of a command: results to standard output, everything else to standard error."""

import json
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from prometheus_backup.cli.logs import Log, LogListener
from prometheus_backup.errors import BackupToolError
from prometheus_backup.events import Listener, ignore


class Output:
    """The output of one command, in the form that was asked for.

    On a terminal the listener draws progress; elsewhere, or with JSON logs, it writes log lines.
    """

    def __init__(self, values: Mapping[str, Any]) -> None:
        self._json = bool(values.get("as_json"))
        self._quiet = bool(values.get("quiet"))
        level = "error" if self._quiet else str(values.get("log_level", "info"))
        form = str(values.get("log_format", "text"))
        self._interactive = sys.stderr.isatty() and form == "text"
        self._log = Log(level=level, form=form)
        self._stop: Callable[[], None] = lambda: None
        self.listener = self._make_listener()

    def end(self) -> None:
        """Remove the progress bar."""
        self._stop()

    def result(
        self,
        document: Mapping[str, Any],
        *,
        tables: Sequence["Table"] = (),
        lines: Iterable[str] = (),
    ) -> None:
        """Write the result of the command."""
        self._stop()
        if self._json:
            self._document(document)
            return
        for table in tables:
            table.show()
        for line in lines:
            sys.stdout.write(f"{line}\n")

    def failure(self, error: BackupToolError) -> None:
        """Print why the command failed, and a hint."""
        self._stop()
        if self._json:
            self._document(
                {
                    "error": error.message,
                    "hint": error.hint,
                    "kind": type(error).__name__,
                    "exit_code": error.exit_code,
                }
            )
        self.refusal(error)

    def refusal(self, error: BackupToolError) -> None:
        """Print an error without JSON, after a result that includes it."""
        if self._interactive:
            print(f"error: {error.message}", file=sys.stderr)  # noqa: T201
            if error.hint:
                print(f"hint: {error.hint}", file=sys.stderr)  # noqa: T201
            return
        hint = {"hint": error.hint} if error.hint else {}
        self._log.error(error.message, exit_code=error.exit_code, **hint)

    def _make_listener(self) -> Listener:
        if not self._interactive:
            return LogListener(self._log)
        if self._quiet:
            return ignore
        from rich.console import Console

        from prometheus_backup.cli.progress import ProgressListener

        listener = ProgressListener(Console(stderr=True))
        self._stop = listener.stop
        return listener

    def _document(self, document: Mapping[str, Any]) -> None:
        sys.stdout.write(json.dumps(document, indent=2) + "\n")


@dataclass(frozen=True, slots=True)
class Table:
    """Rows under headers; without headers, labels and values.

    Drawn on a terminal. Elsewhere columns are aligned with spaces, so that `grep` and `awk` work.
    """

    headers: Sequence[str]
    rows: Sequence[Sequence[str]]

    def show(self) -> None:
        """Write the table to standard output."""
        if sys.stdout.isatty():
            self._draw()
        else:
            self._align()

    def _draw(self) -> None:
        from rich.box import SIMPLE_HEAD
        from rich.console import Console
        from rich.markup import escape
        from rich.table import Table as Drawn

        drawn = Drawn(
            box=SIMPLE_HEAD if self.headers else None,
            show_header=bool(self.headers),
            pad_edge=False,
        )
        # The first column is what gets copied: where room is short, the others are folded.
        first = max((len(row[0]) for row in self.rows), default=0)
        for index, header in enumerate(self.headers):
            drawn.add_column(header, overflow="fold", min_width=None if index else first)
        for row in self.rows:
            drawn.add_row(*map(escape, row))
        Console(highlight=False).print(drawn)

    def _align(self) -> None:
        rows = [self.headers, *self.rows] if self.headers else [*self.rows]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        for row in rows:
            cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
            sys.stdout.write("  ".join(cells).rstrip() + "\n")


def table(headers: Sequence[str], rows: Iterable[Sequence[str]]) -> Table:
    """Return a table with a header."""
    return Table(headers, [*rows])


def summary(rows: Iterable[Sequence[str]]) -> Table:
    """Return a table of labels and values."""
    return Table((), [*rows])
