"""What several commands say of a repository: the report, the class in use, advice."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from prometheus_backup.cli.context import CommandContext
from prometheus_backup.cli.store import address
from prometheus_backup.errors import SnapshotUnusable, UsageError
from prometheus_backup.model import Layout

if TYPE_CHECKING:
    from prometheus_backup.report.plan import Forecasts, Report
    from prometheus_backup.repository.archive import ArchivedFolder
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


def advice_of(context: CommandContext, entries: "Sequence[BackupEntry] | None") -> tuple[str, ...]:
    """Return what could be better but is not wrong, one line each.

    `entries` are the backups of the repository; None if they could not be listed.
    """
    from prometheus_backup.cost.estimate import basis_of_data_dir, basis_of_entries, saving_of
    from prometheus_backup.cost.prices import PRICES

    if entries is None or Layout(context.values["layout"]) is Layout.ARCHIVE:
        return ()
    try:
        basis = basis_of_entries(entries, source="") or basis_of_data_dir(context.data_dir)
        if basis.layout is Layout.ARCHIVE:
            return ()
        saving = saving_of(
            basis,
            policy=context.policy(),
            storage_class=class_in_use(context) if _is_aws(context) else None,
            prices=PRICES,
        )
    except (OSError, SnapshotUnusable, UsageError):
        return ()  # there is nothing to compare, or a check says what is wrong
    if not saving.more_than_half:
        return ()
    return (f'LAYOUT=archive {saving} (docs/explanation/cost.md, "Which layout")',)


def _is_aws(context: CommandContext) -> bool:
    """Return whether the list prices are those of the store, if it is S3."""
    endpoint = context.values["s3_endpoint_url"]
    return not endpoint or "amazonaws.com" in endpoint


def report_of(
    context: CommandContext,
    repository: "Repository",
    entries: "Sequence[BackupEntry]",
    folders: "Mapping[str, ArchivedFolder]",
    forecasts: "Forecasts | None" = None,
) -> "Report":
    """Return the report about these backups of a repository, and the folders of its archive.

    `forecasts` is what is known from an earlier report.
    """
    from prometheus_backup.report.plan import Expected, plan_report
    from prometheus_backup.retention.archive import history_spans

    as_of = context.as_of_now()
    return plan_report(
        entries,
        repository=repository.url,
        expected=Expected(context.policy(), context.interval, as_of.rotation),
        storage_class=class_in_use(context),
        now=as_of.now,
        history=history_spans(folders, entries),
        forecasts=forecasts,
    )
