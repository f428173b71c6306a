"""`release`: end the hold of a backup."""

from typing import TYPE_CHECKING

from prometheus_backup.cli.command import argument, command, option
from prometheus_backup.cli.completion import backup_ids
from prometheus_backup.cli.context import CommandContext
from prometheus_backup.cli.output import Output
from prometheus_backup.cli.render import Document, hold_document

if TYPE_CHECKING:
    from prometheus_backup.repository.entry import BackupEntry
    from prometheus_backup.retention.policy import Decision


@argument("backup", metavar="BACKUP", shell_complete=backup_ids)
@option("--dry-run", is_flag=True, help="Show what retention would then do; change nothing.")
@command("repository", "retention")
def release(context: CommandContext, output: Output, *, backup: str, dry_run: bool) -> int:
    """End the hold of a backup: retention decides on it again."""
    from prometheus_backup.retention.hold import release as end_hold
    from prometheus_backup.retention.policy import decide
    from prometheus_backup.retention.prune import candidates, without_hold

    policy, today = context.policy(), context.clock.now().date()
    repository = context.repository()
    entry = repository.named(backup)
    if entry.read_error is not None:
        raise entry.read_error
    entries = without_hold(repository.entries(), entry.backup_id)
    decisions = decide(candidates(entries), today=today, policy=policy)
    decision = next((d for d in decisions if d.backup_id == entry.backup_id), None)
    if entry.hold is not None and not dry_run:
        end_hold(repository, entry.backup_id)
    output.result(
        release_document(entry, decision, dry_run=dry_run),
        lines=release_lines(entry, decision, dry_run=dry_run),
    )
    return 0


def release_document(
    entry: "BackupEntry", decision: "Decision | None", *, dry_run: bool
) -> Document:
    """Return what `release --json` prints."""
    return {
        "backup_id": entry.backup_id,
        "dry_run": dry_run,
        "released": hold_document(entry.hold),
        "keep": decision.keep if decision else None,
        "reasons": list(decision.reasons) if decision else [],
    }


def release_lines(entry: "BackupEntry", decision: "Decision | None", *, dry_run: bool) -> list[str]:
    """Return the result as text."""
    if entry.hold is None:
        return [f"{entry.backup_id} is not held"]
    done = "would be released" if dry_run else "is released"
    lines = [f"{entry.backup_id} {done}; it was {entry.hold.text}"]
    if decision is not None:
        then = "keeps it" if decision.keep else "deletes it at the next run"
        lines.append(f"retention {then}: {'; '.join(decision.reasons)}")
    return lines
