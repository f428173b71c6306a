"""Makes the report of a repository, for `report` and for the exporter."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from prometheus_backup.cli.context import CommandContext

if TYPE_CHECKING:
    from prometheus_backup.report.plan import Report
    from prometheus_backup.repository.repository import BackupEntry


def report_of(context: CommandContext, entries: "Sequence[BackupEntry]") -> "Report":
    """Return the report about these backups."""
    from prometheus_backup.report.plan import Expected, plan_report

    as_of = context.as_of_now()
    return plan_report(
        entries,
        repository=context.unchecked_repository().url,
        expected=Expected(context.policy(), context.interval, as_of.rotation),
        now=as_of.now,
    )
