"""`list`: all backups in the repository."""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import click

from prometheus_backup.cli.command import command, option
from prometheus_backup.cli.context import CommandContext
from prometheus_backup.cli.options import Count
from prometheus_backup.cli.output import Output
from prometheus_backup.cli.render import (
    STATE_WORDS,
    AsOf,
    Document,
    Row,
    day,
    entry_document,
    last_read,
    state_text,
    verified,
)
from prometheus_backup.cli.tables import Column, table
from prometheus_backup.events import Warned
from prometheus_backup.model import Layout, Outcome, Tier, counted, size

if TYPE_CHECKING:
    from prometheus_backup.cli.selection import Selection
    from prometheus_backup.repository.entry import BackupEntry
    from prometheus_backup.retention.policy import Decision


@option("--since", metavar="TIME", help="Only backups made at this time or later (-7d).")
@option("--until", metavar="TIME", help="Only backups made at this time or earlier (2025-01-22).")
@option(
    "--state",
    "states",
    type=click.Choice(STATE_WORDS, case_sensitive=False),
    multiple=True,
    metavar="STATE",
    help=f"Only backups in this state; repeatable: {', '.join(STATE_WORDS)}.",
)
@option(
    "--tier",
    "tiers",
    type=click.Choice([*Tier], case_sensitive=False),
    multiple=True,
    help="Only backups that this retention tier keeps; repeatable.",
)
@option(
    "--layout",
    "layouts",
    type=click.Choice([*Layout], case_sensitive=False),
    multiple=True,
    help="Only backups with this layout.",
)
@option("--holding", metavar="TIME", help="Only backups with samples of this instant, best first.")
@option(
    "--limit",
    type=Count(min=1),
    metavar="N",
    help="Only the newest N of them; with --holding, the best N.",
)
@option("--ids", is_flag=True, help="Print only ids, one on each line, for scripts.")
@command("repository", "retention", "rotation")
def list_(context: CommandContext, output: Output, *, ids: bool, **filters: Any) -> int:
    """List backups with their status and why each is kept."""
    from prometheus_backup.cli.selection import select
    from prometheus_backup.retention.policy import decide
    from prometheus_backup.retention.prune import candidates

    policy, selection = context.policy(), _selection(context, **filters)
    as_of = selection.as_of
    repository = context.repository(hurried=True)
    entries = repository.entries()
    decisions = decide(candidates(entries), today=as_of.now.date(), policy=policy, now=as_of.now)
    shown = select(entries, decisions, selection)
    rows = [table(LIST_COLUMNS, list_rows(shown, decisions, as_of))] if shown else []
    output.result(
        list_document(shown, decisions, as_of, url=repository.url),
        tables=[] if ids else rows,
        lines=[] if ids or shown else _none(entries, selection, url=repository.url),
        verbatim=[e.backup_id for e in shown] if ids else [],
    )
    unread = [e for e in entries if e.read_error is not None and selection.is_in_time(e)]
    for entry in unread:
        context.listener(Warned(f"cannot read {entry.backup_id}: {entry.problem}"))
    return (Outcome.PARTIAL if unread else Outcome.DONE).exit_code


def _selection(
    context: CommandContext,
    *,
    since: str | None,
    until: str | None,
    holding: str | None,
    limit: int | None,
    **words: Any,
) -> "Selection":
    from prometheus_backup.cli.selection import Selection

    return Selection(
        context.as_of_now(),
        since=context.instant(since),
        until=context.instant(until, end_of_day=True),
        holding=context.instant(holding),
        limit=limit,
        **{name: frozenset(given) for name, given in words.items()},
    )


def _none(entries: Sequence["BackupEntry"], selection: "Selection", *, url: str) -> Iterable[str]:
    """Yield why nothing is shown."""
    from prometheus_backup.cli.selection import nearest

    if not entries:
        yield f"no backups in {url}"
        yield _NONE
        return
    yield f"none of {counted(len(entries), 'backup')} in {url} matches"
    if selection.holding is not None:
        before, after = nearest(entries, selection.holding)
        if before:
            yield f"the nearest samples before: until {day(before[1].end)} in {before[0].backup_id}"
        if after:
            yield f"the nearest samples after: from {day(after[1].start)} in {after[0].backup_id}"


_NONE = "hint: if there should be some, check the bucket and the prefix (REPOSITORY, S3_PREFIX)"


def list_document(
    entries: Sequence["BackupEntry"], decisions: Sequence["Decision"], as_of: AsOf, *, url: str
) -> Document:
    """Return what `list --json` prints."""
    by_id = {d.backup_id: d for d in decisions}
    return {
        "repository": url,
        "backups": [entry_document(e, by_id.get(e.backup_id), as_of) for e in entries],
    }


LIST_COLUMNS = (
    Column("backup"),
    Column("size", hide=1),
    Column("blocks", hide=4),
    Column("oldest (UTC)", hide=3),
    Column("newest (UTC)", hide=2),
    Column("verified"),
    Column("last read"),
    Column("state"),
    Column("retention", text=True),
)


def list_rows(
    entries: Sequence["BackupEntry"], decisions: Sequence["Decision"], as_of: AsOf
) -> Iterable[Row]:
    """Yield a row for each backup."""
    by_id = {d.backup_id: d for d in decisions}
    for entry in entries:
        decision = by_id.get(entry.backup_id)
        why = "; ".join(decision.reasons) if decision else ""
        if decision and not decision.keep:
            why = f"will be pruned: {why}"
        manifest = entry.header
        if manifest is None:
            yield entry.backup_id, *[""] * 6, state_text(entry, as_of), entry.problem
            continue
        yield (
            entry.backup_id,
            size(manifest.totals.bytes),
            str(manifest.totals.blocks),
            day(manifest.min_time),
            day(manifest.newest) + (" (no head)" if manifest.recoverable_until else ""),
            verified(entry),
            last_read(entry, as_of.now),
            state_text(entry, as_of),
            why,
        )
