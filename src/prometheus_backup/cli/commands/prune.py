"""`prune`: apply retention."""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from prometheus_backup.cli.command import command, option
from prometheus_backup.cli.completion import backup_ids
from prometheus_backup.cli.context import CommandContext
from prometheus_backup.cli.output import Output
from prometheus_backup.cli.render import Document, Row, pruned_document
from prometheus_backup.cli.tables import Column, table
from prometheus_backup.model import counted, rfc3339, size
from prometheus_backup.repository.layout import is_backup_id

if TYPE_CHECKING:
    from prometheus_backup.repository.archive import ArchivedFolder
    from prometheus_backup.repository.repository import Repository
    from prometheus_backup.retention.prune import PrunePlan, PruneReport


_GRACE_TEXT = "24 hours"


@option("--dry-run", is_flag=True, help="Show what would be deleted, and why; delete nothing.")
@option(
    "--allow-many",
    is_flag=True,
    help="Delete also more than half of all backups, or those of more than seven days, at once.",
)
@option(
    "--forget",
    metavar="ID",
    multiple=True,
    shell_complete=backup_ids,
    help="Delete what is left of a backup whose manifest, or objects in the archive, are lost. "
    "Until then nothing is deleted from the archive.",
)
@command("repository", "retention", "monitoring", "reporting")
def prune(
    context: CommandContext,
    output: Output,
    *,
    dry_run: bool,
    allow_many: bool,
    forget: Sequence[str],
) -> int:
    """Delete backups outside the retention policy, and leftovers of interrupted runs."""
    from prometheus_backup.retention.prune import apply_prune, plan_prune

    policy = context.policy()
    repository = context.repository()
    now = context.clock.now()
    for backup_id in forget:
        _forget(context, repository, backup_id, dry_run=dry_run)
    # A dry run writes nothing, so it cannot ask the store for its time.
    store_now = now if dry_run else repository.store_now(run_id=context.run_id)
    view = repository.archive.view()
    entries = [e for e in repository.entries(view) if e.backup_id not in forget]
    plan = plan_prune(entries, policy=policy, now=now, store_now=store_now, archive=view.folders)
    report = None
    if not dry_run:
        report = apply_prune(
            repository,
            plan,
            run_id=context.run_id,
            listener=context.listener,
            limited=not allow_many,
        )
    done = "deleted" if report else "would delete"
    deleted, swept = (report.deleted, report.swept) if report else (plan.delete, plan.sweep)
    leftovers = f", {done} {counted(len(swept), 'leftover')}" if swept else ""
    output.result(
        {"forgotten": list(forget), **prune_document(plan, report)},
        tables=[table(PRUNE_COLUMNS, prune_rows(plan))],
        lines=[
            *(f"forget: {done} what is left of {backup_id}" for backup_id in forget),
            f"retention: {done} {counted(len(deleted), 'backup')}{leftovers}",
            *_archive_lines(plan, report.archived if report else plan.archive.delete, done),
            *_limits(plan, allow_many=allow_many),
        ],
    )
    return report.outcome.exit_code if report else 0


def _forget(
    context: CommandContext, repository: "Repository", backup_id: str, *, dry_run: bool
) -> None:
    from prometheus_backup.retention.forget import forget, require_lost

    entry = repository.entry(backup_id) if is_backup_id(backup_id) else None
    require_lost(entry, backup_id, today=context.clock.now().date())
    if not dry_run:
        forget(repository, backup_id, run_id=context.run_id)


def _archive_lines(plan: "PrunePlan", deleted: Sequence["ArchivedFolder"], done: str) -> list[str]:
    archive = plan.archive
    if archive.blocked:
        return [f"archive: nothing can be deleted: {archive.blocked}"]
    if not (archive.mark or archive.waiting or archive.delete):
        return []
    gone = f"{counted(len(deleted), 'block')}, {size(sum(f.size for f in deleted))}"
    waiting = counted(len(archive.mark) + len(archive.waiting), "more block")
    return [
        f"archive: {done} {gone}",
        f"archive: {waiting} that no backup names will be deleted after {_GRACE_TEXT}",
    ]


def _limits(plan: "PrunePlan", *, allow_many: bool) -> list[str]:
    if plan.clock_problem:
        return [f"nothing can be deleted: {plan.clock_problem}"]
    if plan.excess and not allow_many:
        return [f"only with --allow-many: {plan.excess}"]
    return []


def prune_document(plan: "PrunePlan", report: "PruneReport | None") -> Document:
    """Return what `prune --json` prints; `report` None is a dry run."""
    return {
        "dry_run": report is None,
        "decisions": [
            {
                "backup_id": d.backup_id,
                "keep": d.keep,
                "tiers": [t.value for t in d.tiers],
                "reasons": list(d.reasons),
            }
            for d in plan.decisions
        ],
        "would_sweep": list(plan.sweep),
        "unreadable": list(plan.unreadable),
        "foreign": list(plan.foreign),
        "doubt": plan.clock_problem,
        "excess": plan.excess,
        "archive": {
            "unwanted": [_folder_document(f) for f in plan.archive.mark],
            "marked": [_folder_document(f) for f in plan.archive.waiting],
            "due": [_folder_document(f) for f in plan.archive.delete],
            "blocked": plan.archive.blocked,
        },
        **({} if report is None else {"outcome": report.outcome.value, **pruned_document(report)}),
    }


def _folder_document(folder: "ArchivedFolder") -> Document:
    marked_at = folder.marked_at
    return {
        "folder": folder.name,
        "bytes": folder.size,
        "marked_at": rfc3339(marked_at) if marked_at else None,
    }


PRUNE_COLUMNS = (
    Column("backup"),
    Column("retention"),
    Column("because", text=True),
)


def prune_rows(plan: "PrunePlan") -> Iterable[Row]:
    """Yield a row for each decision."""
    for decision in plan.decisions:
        word = "keep" if decision.keep else "delete"
        yield decision.backup_id, word, "; ".join(decision.reasons)
    for backup_id in plan.sweep:
        yield backup_id, "sweep", "left by an interrupted run or deletion"
    for backup_id in plan.unreadable:
        yield backup_id, "keep", "its manifest cannot be read"
    for backup_id in plan.foreign:
        yield backup_id, "keep", "not made by this program"
    for folder in plan.archive.mark:
        yield folder.name, "mark", f"{_why(folder)}, {size(folder.size)}"
    for folder in plan.archive.waiting:
        marked_at = folder.marked_at
        since = f", marked {rfc3339(marked_at)}" if marked_at else ""
        yield folder.name, "wait", f"{_why(folder)}{since}, {size(folder.size)}"
    for folder in plan.archive.delete:
        yield folder.name, "delete", f"{_why(folder)}, {size(folder.size)}"


def _why(folder: "ArchivedFolder") -> str:
    return "erased by `history forget`" if folder.forgotten else "no backup names it"
