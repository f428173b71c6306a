"""Makes the report of a repository, for `report` and for the exporter."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from prometheus_backup.cli.context import CommandContext
from prometheus_backup.cli.store import address

if TYPE_CHECKING:
    from prometheus_backup.report.plan import Report
    from prometheus_backup.repository.entry import BackupEntry
    from prometheus_backup.repository.repository import Repository


def class_in_use(context: CommandContext) -> str | None:
    """Return the storage class of new backups; None if the repository is not on S3.

    Without a repository it is S3: an estimate is wanted before there is one.
    """
    from prometheus_backup.stores.location import parse_location

    values = context.values
    given = values["repository"] or values["s3_bucket"]
    if given and parse_location(address(values)).scheme != "s3":
        return None
    return str(values["storage_class"]).strip()


def report_of(
    context: CommandContext, repository: "Repository", entries: "Sequence[BackupEntry]"
) -> "Report":
    """Return the report about these backups of a repository."""
    from prometheus_backup.report.plan import Expected, plan_report
    from prometheus_backup.retention.archive import history_spans

    as_of = context.as_of_now()
    return plan_report(
        entries,
        repository=repository.url,
        expected=Expected(context.policy(), context.interval, as_of.rotation),
        storage_class=class_in_use(context),
        now=as_of.now,
        history=history_spans(repository, entries),
    )
