"""Where a command's words go: results to standard output, all else to standard error."""

import json
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from prometheus_backup.errors import BackupToolError
from prometheus_backup.events import Listener, ignore

if TYPE_CHECKING:
    from rich.table import Table


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
        if not self._interactive:
            from prometheus_backup.cli.logs import configure

            configure(level=level, form=form)
        self._stop: Callable[[], None] = lambda: None
        self.listener = self._make_listener()

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
        from rich.console import Console

        # Not a terminal: as wide as the content, so that pipes see whole rows.
        console = Console(width=None if sys.stdout.isatty() else 10_000, highlight=False)
        for table in tables:
            console.print(table)
        for line in lines:
            console.print(line, soft_wrap=True, markup=False)

    def failure(self, error: BackupToolError) -> None:
        """Say why the command failed, and what to do."""
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
        if self._interactive:
            print(f"error: {error.message}", file=sys.stderr)  # noqa: T201
            if error.hint:
                print(f"hint: {error.hint}", file=sys.stderr)  # noqa: T201
            return
        import structlog

        structlog.get_logger().error(
            error.message,
            exit_code=error.exit_code,
            **({"hint": error.hint} if error.hint else {}),
        )

    def _make_listener(self) -> Listener:
        if not self._interactive:
            from prometheus_backup.cli.logs import LogListener

            return LogListener()
        if self._quiet:
            return ignore
        from rich.console import Console

        from prometheus_backup.cli.progress import ProgressListener

        listener = ProgressListener(Console(stderr=True))
        self._stop = listener.stop
        return listener

    def _document(self, document: Mapping[str, Any]) -> None:
        sys.stdout.write(json.dumps(document, indent=2) + "\n")


def table(headers: Sequence[str], rows: Iterable[Sequence[str]]) -> "Table":
    """Return a table with a header."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    result = Table(box=SIMPLE_HEAD, pad_edge=False)
    for header in headers:
        result.add_column(header, overflow="fold")
    for row in rows:
        result.add_row(*map(_plain, row))
    return result


def summary(rows: Iterable[Sequence[str]]) -> "Table":
    """Return a table of labels and values."""
    from rich.table import Table

    result = Table(box=None, show_header=False, pad_edge=False)
    result.add_column(style="bold")
    result.add_column(overflow="fold")
    for row in rows:
        result.add_row(*map(_plain, row))
    return result


def _plain(text: str) -> str:
    from rich.markup import escape

    return escape(text)
