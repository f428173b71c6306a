"""`backup`: take a backup."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

from prometheus_backup.cli.command import command, option
from prometheus_backup.cli.context import CommandContext
from prometheus_backup.cli.output import Output
from prometheus_backup.cli.render import (
    Document,
    Row,
    fingerprints,
    instant,
    left_out,
    pruned_document,
    span,
)
from prometheus_backup.cli.tables import summary
from prometheus_backup.model import counted, rfc3339, size

if TYPE_CHECKING:
    from prometheus_backup.backup.options import BackupReport


@option(
    "--new-repository",
    is_flag=True,
    help="Begin again in a repository that is empty but had backups before.",
)
@command(
    "prometheus",
    "source",
    "repository",
    "retention",
    "backup",
    "monitoring",
    "reporting",
    "healthcheck",
)
def backup(context: CommandContext, output: Output, *, new_repository: bool) -> int:
    """Take a backup: snapshot, transfer, verify, commit, apply retention, clean up."""
    from prometheus_backup.backup.run import BackupRun

    options = context.backup_options(new_repository=new_repository)
    context.require_apart(context.data_dir, "data directory")
    repository = context.unchecked_repository()
    with context.client() as client:
        report = BackupRun(
            client=client,
            data_dir=context.data_dir,
            repository=repository,
            transfer=context.transfer(),
            options=options,
            run_id=context.run_id,
            listener=context.listener,
        ).run()
    output.result(
        backup_document(report),
        tables=[summary(backup_rows(report, url=repository.url))],
    )
    return report.outcome.exit_code


def backup_document(report: "BackupReport") -> Document:
    """Return what `backup --json` prints."""
    manifest = report.manifest
    return {
        "backup_id": manifest.backup_id,
        "outcome": report.outcome.value,
        "problems": list(report.problems),
        "degraded": list(manifest.degraded),
        "snapshot_name": manifest.snapshot_name,
        "verified": manifest.verified,
        "totals": manifest.totals.model_dump(),
        "min_time": instant(manifest.min_time),
        "max_time": instant(manifest.max_time),
        "snapshot_mode": manifest.snapshot_mode,
        "recoverable_until": instant(manifest.newest),
        "started_at": rfc3339(manifest.started_at),
        "finished_at": rfc3339(manifest.finished_at),
        "fingerprints": {
            "answered": sum(f.answer is not None for f in manifest.fingerprints),
            "inconclusive": sum(f.answer is None for f in manifest.fingerprints),
        },
        "phase_seconds": dict(report.phases),
        "retention": pruned_document(report.prune),
    }


def backup_rows(report: "BackupReport", *, url: str) -> Iterable[Row]:
    """Yield the summary of a backup, label and value."""
    manifest, totals = report.manifest, report.manifest.totals
    yield "backup", f"{url}/{manifest.backup_id}"
    yield "contents", f"{size(totals.bytes)} in {counted(totals.blocks, 'block')}, {span(manifest)}"
    if missing := left_out(manifest):
        yield "left out", missing
    yield "uploaded", size(totals.uploaded_bytes)
    yield "copied by the store", size(totals.copied_bytes)
    if totals.shared_bytes:
        yield "already in the archive", size(totals.shared_bytes)
    yield "verified", manifest.verified.value if manifest.verified else "no (unverified)"
    yield "fingerprints", fingerprints(manifest)
    yield "retention", f"{counted(len(report.prune.deleted), 'backup')} deleted"
    yield "took", f"{sum(report.phases.values()):.1f} s"
    for reason in manifest.degraded:
        yield "degraded", reason
    for problem in report.problems:
        yield "left undone", problem
