"""`hold`: keep a backup beyond retention."""

from typing import TYPE_CHECKING

from prometheus_backup.cli.command import argument, command, option
from prometheus_backup.cli.completion import backup_ids
from prometheus_backup.cli.context import CommandContext
from prometheus_backup.cli.output import Output
from prometheus_backup.cli.render import Document, hold_document
from prometheus_backup.model import Outcome

if TYPE_CHECKING:
    from prometheus_backup.retention.hold import HoldPlan


@argument("backup", metavar="BACKUP", shell_complete=backup_ids)
@option("--reason", metavar="TEXT", required=True, help="Why it is held; shown with the backup.")
@option(
    "--until",
    metavar="DATE",
    help="The last day of the hold (UTC). Without it, only `release` ends the hold.",
)
@option("--dry-run", is_flag=True, help="Show the hold; write nothing.")
@command("repository")
def hold(
    context: CommandContext,
    output: Output,
    *,
    backup: str,
    reason: str,
    until: str | None,
    dry_run: bool,
) -> int:
    """Keep a backup whatever the retention policy says, until a date or until it is released."""
    from prometheus_backup.repository.hold import Hold
    from prometheus_backup.retention.hold import place_hold, plan_hold

    now, last = context.clock.now(), context.instant(until)
    repository = context.repository()
    entry = repository.named(backup)
    if entry.read_error is not None:
        raise entry.read_error
    wanted = Hold.model_construct(
        backup_id=entry.backup_id,
        reason=reason.strip(),
        held_at=now,
        until=last.date() if last else None,
    )
    plan = plan_hold(wanted, entry.hold, today=now.date())
    safe = dry_run or place_hold(repository, plan, run_id=context.run_id)
    outcome = Outcome.DONE if safe else Outcome.PARTIAL
    output.result(
        hold_report(plan, dry_run=dry_run, outcome=outcome),
        lines=hold_lines(plan, dry_run=dry_run, safe=safe),
    )
    return outcome.exit_code


def hold_report(plan: "HoldPlan", *, dry_run: bool, outcome: Outcome) -> Document:
    """Return what `hold --json` prints."""
    return {
        "backup_id": plan.hold.backup_id,
        "dry_run": dry_run,
        "outcome": outcome.value,
        "hold": hold_document(plan.hold),
        "replaced": hold_document(plan.replaced),
    }


def hold_lines(plan: "HoldPlan", *, dry_run: bool, safe: bool) -> list[str]:
    """Return the result as text."""
    lines = [f"{plan.hold.backup_id} {'would be' if dry_run else 'is'} {plan.hold.text}"]
    lines.append("version 1.0.0 deletes and makes no backups while one is held: upgrade it first")
    if plan.replaced is not None:
        lines.append(f"this replaces: {plan.replaced.text}")
    if not safe:
        lines.append(
            "a deletion of this backup had begun and may still be at work: if `show` still finds "
            "the backup in 24 hours, it is kept"
        )
    return lines
