"""`history`: what the archive holds of all times; with `forget`, erase a time range from it."""

from collections.abc import Iterable, Sequence
from datetime import datetime
from itertools import pairwise
from typing import TYPE_CHECKING

import click

from prometheus_backup.cli.command import argument, command, option
from prometheus_backup.cli.context import CommandContext
from prometheus_backup.cli.output import Output
from prometheus_backup.cli.render import Document, Row, instant, second
from prometheus_backup.cli.tables import Column, table
from prometheus_backup.errors import UsageError
from prometheus_backup.model import Outcome, counted, rfc3339, size
from prometheus_backup.spans import Span

if TYPE_CHECKING:
    from prometheus_backup.repository.archive import ArchivedFolder
    from prometheus_backup.retention.contents import StoredBlock
    from prometheus_backup.retention.erase import ErasePlan, EraseReport

_USAGE = "usage: history forget --from TIME --to TIME [--whole-blocks] [--apply [--at-once]]"
_MOST_NAMED = 4
"""Backups that are named in a line of text; of more, the first and the last."""


@option(
    "--apply",
    is_flag=True,
    help="With `forget`: erase the time range. Without this, only show what would be erased.",
)
@option(
    "--at-once",
    is_flag=True,
    help="With `forget --apply`: delete now what no backup has, instead of after 24 hours.",
)
@option(
    "--whole-blocks",
    is_flag=True,
    help="With `forget`: also erase blocks that have samples outside the time range.",
)
@option("--to", "until", metavar="TIME", help="End of the time range.")
@option("--from", "since", metavar="TIME", help="Start of the time range (2025-01-22, -90d).")
@argument("action", metavar="[show|forget]", type=click.Choice(["show", "forget"]), default="show")
@command("repository")
def history(
    context: CommandContext,
    output: Output,
    *,
    action: str,
    since: str | None,
    until: str | None,
    **flags: bool,
) -> int:
    """Show the history of the archive, or erase a time range from it.

    With `forget`, show what would be erased of the time range from --from to --to, and with --apply
    erase it. Backups that are kept stay as they are.
    """
    start, end = context.instant(since), context.instant(until)
    if start is not None and end is not None and end <= start:
        raise UsageError("cannot use this time range: --to is not after --from")
    if action == "show":
        if any(flags.values()):
            given = next(name for name, on in flags.items() if on).replace("_", "-")
            raise UsageError(f"cannot use --{given} without forget", hint=_USAGE)
        return _show(context, output, start, end)
    if start is None or end is None:
        raise UsageError("cannot forget: --from or --to is missing", hint=_USAGE)
    if flags["at_once"] and not flags["apply"]:
        raise UsageError("cannot use --at-once without --apply", hint=_USAGE)
    return _forget(context, output, Span(start, end), **flags)


def _show(
    context: CommandContext, output: Output, start: datetime | None, end: datetime | None
) -> int:
    from prometheus_backup.retention.contents import stored_blocks

    repository = context.repository()
    view = repository.archive.view()
    blocks = stored_blocks(repository.entries(view), view.folders)
    shown = [
        b
        for b in blocks
        if b.in_history and (not start or b.span.end > start) and (not end or b.span.start < end)
    ]
    leaving = [f for f in view.folders.values() if f.marked_at]
    output.result(
        history_document(shown, leaving, url=repository.url),
        tables=[table(HISTORY_COLUMNS, map(_history_row, shown))] if shown else [],
        lines=history_lines(shown, leaving),
    )
    return 0


def _forget(
    context: CommandContext,
    output: Output,
    window: Span,
    *,
    apply: bool,
    at_once: bool,
    whole_blocks: bool,
) -> int:
    from prometheus_backup.retention.contents import describe_others, stored_blocks
    from prometheus_backup.retention.erase import apply_erase, plan_erase

    repository = context.repository()
    view = repository.archive.view()
    entries = repository.entries(view)
    others = describe_others(repository, entries, view.folders)
    blocks = stored_blocks(entries, view.folders, others)
    plan = plan_erase(entries, blocks, window, whole_blocks=whole_blocks)
    report = None
    if apply:
        report = apply_erase(
            repository,
            plan,
            run_id=context.run_id,
            at_once=at_once,
            listener=context.listener,
        )
    output.result(
        forget_document(plan, report),
        tables=[table(FORGET_COLUMNS, rows)] if (rows := [*forget_rows(plan)]) else [],
        lines=forget_lines(plan, report),
    )
    outcome = report.outcome if report else Outcome.PARTIAL if plan.blocked else Outcome.DONE
    return outcome.exit_code


def history_document(
    shown: Sequence["StoredBlock"], leaving: Sequence["ArchivedFolder"], *, url: str
) -> Document:
    """Return what `history --json` prints."""
    return {
        "repository": url,
        "blocks": [_block(b) for b in shown],
        "bytes": sum(b.folder.size for b in shown),
        "holes": [_times(h) for h in holes(shown)],
        "marked": [
            {
                "folder": f.name,
                "bytes": f.size,
                "marked_at": instant(f.marked_at),
                "forgotten": f.forgotten,
            }
            for f in leaving
        ],
    }


def history_lines(
    shown: Sequence["StoredBlock"], leaving: Sequence["ArchivedFolder"]
) -> Iterable[str]:
    """Yield the lines that `history` prints below its table."""
    if not shown:
        yield "the archive has no history of this time"
    else:
        alone = [b for b in shown if not b.named_by]
        yield f"history: {_sum(b.folder for b in shown)}"
        if alone:
            yield f"in no kept backup: {_sum(b.folder for b in alone)}"
    for hole in holes(shown):
        yield f"no samples from {second(hole.start)} to {second(hole.end)} (UTC)"
    if leaving:
        yield f"marked for deletion: {_sum(leaving)}"


def forget_document(plan: "ErasePlan", report: "EraseReport | None") -> Document:
    """Return what `history forget --json` prints. `report` is None without --apply."""
    return {
        **_times(plan.window),
        "applied": report is not None,
        "forget": [_block(b) for b in plan.erase],
        "left": [_block(b) for b in plan.beyond],
        "also_lost": [_times(s) for s in plan.also_lost],
        "backups": list(plan.backups),
        "held": list(plan.held),
        "blocked": plan.blocked or (report.blocked if report else None),
        **(
            {}
            if report is None
            else {"outcome": report.outcome.value, "deleted": [f.name for f in report.deleted]}
        ),
    }


def forget_lines(plan: "ErasePlan", report: "EraseReport | None") -> Iterable[str]:
    """Yield the lines that `history forget` prints below its table."""
    window = f"{second(plan.window.start)} to {second(plan.window.end)} (UTC)"
    if blocked := plan.blocked or (report.blocked if report else None):
        yield f"nothing can be deleted: {blocked}"
    if plan.blocked:
        return
    if plan.erase:
        verb = "would forget" if report is None else "forgot"
        yield f"{verb} {_sum(b.folder for b in plan.erase)}: {window}"
    else:
        yield f"nothing to forget: {window}"
    for span in plan.also_lost:
        yield f"also lost: {second(span.start)} to {second(span.end)} (UTC)"
    if plan.beyond:
        left = counted(len(plan.beyond), "block")
        yield f"not forgotten: {left} with samples outside this time range; see --whole-blocks"
    if report is not None:
        yield from _deletion_lines(plan, report)
    yield from _backup_lines(plan)
    if report is None and plan.erase:
        yield "nothing was changed: add --apply to erase this"


def _deletion_lines(plan: "ErasePlan", report: "EraseReport") -> Iterable[str]:
    if report.deleted:
        yield f"deleted now: {_sum(report.deleted)}"
    gone = {f.name for f in report.deleted}
    rest = [b.folder for b in plan.erase if not b.named_by and b.folder.name not in gone]
    if rest:
        yield f"a `prune` after 24 hours deletes {_sum(rest)}; --at-once does so now"


def _backup_lines(plan: "ErasePlan") -> Iterable[str]:
    if not plan.backups:
        return
    have = "backup still has" if len(plan.backups) == 1 else "backups still have"
    yield f"{len(plan.backups):,} {have} samples of this time: {_names(plan.backups)}"
    yield (
        "retention deletes them; to delete them sooner: "
        "`prometheus-backup prune --retention-daily DAYS --allow-many`"
    )
    if plan.held:
        yield f"held, so run `prometheus-backup release` first: {_names(plan.held)}"


HISTORY_COLUMNS = (
    Column("block"),
    Column("from (UTC)"),
    Column("to (UTC)"),
    Column("size", hide=1),
    Column("in backups", text=True),
)
FORGET_COLUMNS = (*HISTORY_COLUMNS[:4], Column("", text=True))


def _history_row(block: "StoredBlock") -> Row:
    names = _names(block.named_by) if block.named_by else f"none; last in {block.held.held_by}"
    return *_cells(block), names


def forget_rows(plan: "ErasePlan") -> Iterable[Row]:
    """Yield a row for each block with samples of the time range."""
    for block in plan.erase:
        text = "forget"
        if block.named_by:
            text = (
                f"forget; it is deleted with the last backup that has it: {_names(block.named_by)}"
            )
        yield *_cells(block), text
    for block in plan.beyond:
        yield *_cells(block), "LEFT: it has samples outside the time range"


def holes(shown: Sequence["StoredBlock"]) -> Sequence[Span]:
    """Return the time between blocks of which the history does not hold all samples."""
    from prometheus_backup.retention.contents import covered_by

    return [Span(a.end, b.start) for a, b in pairwise(covered_by(b.held for b in shown))]


def _cells(block: "StoredBlock") -> tuple[str, str, str, str]:
    span = block.span
    return block.ulid, second(span.start), second(span.end), size(block.folder.size)


def _names(backups: Sequence[str]) -> str:
    if len(backups) <= _MOST_NAMED:
        return ", ".join(backups)
    return f"{backups[0]} to {backups[-1]} ({len(backups):,})"


def _sum(folders: Iterable["ArchivedFolder"]) -> str:
    sizes = [f.size for f in folders]
    return f"{counted(len(sizes), 'block')}, {size(sum(sizes))}"


def _times(span: Span) -> Document:
    return {"from": rfc3339(span.start), "to": rfc3339(span.end)}


def _block(block: "StoredBlock") -> Document:
    return {
        "ulid": block.ulid,
        "folder": block.folder.name,
        "min_time": rfc3339(block.span.start),
        "max_time": rfc3339(block.span.end),
        "bytes": block.folder.size,
        "backups": list(block.named_by),
        "last_backup": block.held.held_by or None,
    }
