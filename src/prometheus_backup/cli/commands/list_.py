"""`list`: all backups in the repository."""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from prometheus_backup.cli.command import command
from prometheus_backup.cli.context import CommandContext
from prometheus_backup.cli.output import Output
from prometheus_backup.cli.render import (
    Document,
    Row,
    day,
    entry_document,
    size,
    state_text,
    verified,
)
from prometheus_backup.cli.tables import Column, table
from prometheus_backup.events import Warned
from prometheus_backup.model import Outcome

if TYPE_CHECKING:
    from prometheus_backup.repository.repository import BackupEntry
    from prometheus_backup.retention.policy import Decision


@command("repository", "retention")
def list_(context: CommandContext, output: Output) -> int:
    """List backups with their status and why each is kept."""
    from prometheus_backup.retention.policy import decide
    from prometheus_backup.retention.prune import candidates

    policy = context.policy()
    repository = context.repository(hurried=True)
    entries = repository.entries()
    decisions = decide(candidates(entries), today=context.clock.now().date(), policy=policy)
    output.result(
        list_document(entries, decisions, url=repository.url),
        tables=[table(LIST_COLUMNS, list_rows(entries, decisions))] if entries else [],
        lines=[] if entries else [f"no backups in {repository.url}", _NONE],
    )
    unread = [e for e in entries if e.read_error is not None]
    for entry in unread:
        context.listener(Warned(f"cannot read {entry.backup_id}: {entry.problem}"))
    return (Outcome.PARTIAL if unread else Outcome.DONE).exit_code


_NONE = "hint: if there should be some, check the bucket and the prefix (REPOSITORY, S3_PREFIX)"


def list_document(
    entries: Sequence["BackupEntry"], decisions: Sequence["Decision"], *, url: str
) -> Document:
    """Return what `list --json` prints."""
    by_id = {d.backup_id: d for d in decisions}
    return {
        "repository": url,
        "backups": [entry_document(e, by_id.get(e.backup_id)) for e in entries],
    }


LIST_COLUMNS = (
    Column("backup"),
    Column("size", hide=1),
    Column("blocks", hide=4),
    Column("oldest (UTC)", hide=3),
    Column("newest (UTC)", hide=2),
    Column("verified"),
    Column("state"),
    Column("retention", text=True),
)


def list_rows(entries: Sequence["BackupEntry"], decisions: Sequence["Decision"]) -> Iterable[Row]:
    """Yield a row for each backup."""
    by_id = {d.backup_id: d for d in decisions}
    for entry in entries:
        decision = by_id.get(entry.backup_id)
        why = "; ".join(decision.reasons) if decision else ""
        if decision and not decision.keep:
            why = f"will be pruned: {why}"
        manifest = entry.header
        if manifest is None:
            yield entry.backup_id, "", "", "", "", "", entry.state.value, entry.problem
            continue
        yield (
            entry.backup_id,
            size(manifest.totals.bytes),
            str(manifest.totals.blocks),
            day(manifest.min_time),
            day(manifest.max_time),
            verified(entry),
            state_text(entry),
            why,
        )
