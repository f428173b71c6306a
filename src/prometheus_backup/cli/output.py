"""The output of a command: results to standard output, everything else to standard error."""

import json
import shutil
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from prometheus_backup.cli.logs import Log, LogListener
from prometheus_backup.cli.tables import Table, wrapped
from prometheus_backup.errors import BackupToolError
from prometheus_backup.events import Listener, ignore


class Output:
    """The output of one command, in the requested form.

    On a terminal the listener draws progress; elsewhere, or with JSON logs, it writes log lines.
    """

    def __init__(self, values: Mapping[str, Any]) -> None:
        self._json = bool(values.get("as_json"))
        self._wide = bool(values.get("wide"))
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
        tables: Sequence[Table] = (),
        lines: Iterable[str] = (),
        verbatim: Iterable[str] = (),
    ) -> None:
        """Write the result of the command.

        On a terminal, lines are wrapped between words, except those that begin with a space
        (commands and flags to copy) and those in `verbatim`.
        """
        self._stop()
        if self._json:
            self._document(document)
            return
        width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
        written: list[str] = []
        for table in tables:
            if written and width:
                written.append("")
            written += table.lines(None if self._wide else width)
        for line in lines:
            written += wrapped(line, width) if width and line[:1].strip() else [line]
        for line in (*written, *verbatim):
            sys.stdout.write(f"{line}\n")
        sys.stdout.flush()  # the command may go on, as `open` does

    def failure(self, error: BackupToolError) -> None:
        """Print why the command failed, and a hint."""
        self._stop()
        if self._json:
            self._document(
                {
                    "error": error.message,
                    "hint": error.hint,
                    "kind": error.published_name,
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
        sys.stdout.flush()
