"""`report`: one page about the repository."""

import os
from pathlib import Path
from typing import TYPE_CHECKING

from prometheus_backup.cli.command import command, option
from prometheus_backup.cli.context import CommandContext
from prometheus_backup.cli.output import Output
from prometheus_backup.cli.reporting import report_of
from prometheus_backup.errors import TargetUnusable
from prometheus_backup.events import Warned
from prometheus_backup.model import Outcome

if TYPE_CHECKING:
    from prometheus_backup.report.page import Page

_STDOUT = "-"


@option(
    "--output",
    "target",
    required=True,
    metavar="FILE",
    help="File to write the page to, such as report.html; - writes to standard output.",
)
@command("repository", "retention", "rotation", "monitoring")
def report(context: CommandContext, output: Output, *, target: str) -> int:
    """Write a page that shows whether backups protect you: one HTML file to mail or print.

    It has the nights, what can be recovered, drills, failed verifications, all backups, their size
    and their cost. It loads nothing and needs no script.
    """
    from prometheus_backup.report.document import report_document
    from prometheus_backup.report.page import render

    repository = context.repository(hurried=True)
    view = repository.archive.view()
    entries = repository.entries(view)
    found = report_of(context, repository, entries, view.folders)
    page = render(found)
    document = {"output": target, "sha256": page.sha256, **report_document(found)}
    if target == _STDOUT:
        output.result(document, verbatim=page.html.split("\n"))
    else:
        _write(Path(target), page)
        verdict = found.verdict
        reasons = "; ".join(verdict.reasons)
        output.result(document, lines=[f"{verdict.protection}: {reasons}", f"wrote {target}"])
    unread = [e for e in entries if e.read_error is not None]
    for entry in unread:
        context.listener(Warned(f"cannot read {entry.backup_id}: {entry.problem}"))
    return (Outcome.PARTIAL if unread else Outcome.DONE).exit_code


def _write(target: Path, page: "Page") -> None:
    """Write the page whole or not at all."""
    staged = target.with_name(f".{target.name}.{os.getpid()}.new")
    try:
        try:
            with staged.open("w", encoding="utf-8") as file:
                file.write(page.html)
                file.flush()
                os.fsync(file.fileno())
            staged.replace(target)
        finally:
            staged.unlink(missing_ok=True)
    except OSError as error:
        raise TargetUnusable(
            f"cannot write report {target}: {error.strerror or error}",
            hint="give --output a file in a directory that exists and has room",
        ) from None
