"""`open`: look at a time in the past in a real Prometheus."""

from collections.abc import Iterable
from datetime import datetime
from typing import TYPE_CHECKING

import click

from prometheus_backup.cli.command import argument, command, option
from prometheus_backup.cli.completion import backup_ids
from prometheus_backup.cli.context import CommandContext
from prometheus_backup.cli.output import Output
from prometheus_backup.cli.render import Document, second
from prometheus_backup.errors import BackupNotFound, StopRequest, TargetUnusable, UsageError
from prometheus_backup.events import Step
from prometheus_backup.model import Outcome, counted, ms_from_instant, rfc3339, size

if TYPE_CHECKING:
    from prometheus_backup.repository.entry import BackupEntry
    from prometheus_backup.repository.repository import Repository
    from prometheus_backup.window.plan import WindowPlan
    from prometheus_backup.window.run import Room, WindowOpener

_NO_PROMETHEUS = (
    "set --prometheus-binary; the image of this program has none, but the pod of the drill does: "
    "docs/how-to/look-into-the-past.md"
)


@argument("backup", metavar="[BACKUP]", required=False, shell_complete=backup_ids)
@option(
    "--history",
    is_flag=True,
    help="Without BACKUP: what the archive holds of all times, also of deleted backups.",
)
@option("--from", "start", metavar="TIME", help="Fetch only blocks that end after this time.")
@option("--to", "end", metavar="TIME", help="Fetch only blocks that begin before this time.")
@option(
    "--port",
    type=click.IntRange(1, 65535),
    metavar="N",
    help="Port of the page, on 127.0.0.1 (default: a free one).",
)
@option("--dry-run", is_flag=True, help="Show what would be fetched and whether it fits.")
@command("repository", "scratch", "drill")
def open_(
    context: CommandContext,
    output: Output,
    *,
    backup: str | None,
    history: bool,
    port: int | None,
    dry_run: bool,
    **times: str | None,
) -> int:
    """Start a Prometheus on the blocks of a time range, and print the address of its page.

    Without BACKUP, the backup that has most of the time range; without a time range, `latest`.
    Prometheus answers on this machine only, scrapes nothing and deletes nothing. Ctrl-C stops it
    and removes the fetched blocks.
    """
    from prometheus_backup.prometheus.process import PrometheusBinary
    from prometheus_backup.retention.archive import history_manifest
    from prometheus_backup.window.plan import plan_window
    from prometheus_backup.window.run import WindowOpener, room_for

    start, end = context.instant(times["start"]), context.instant(times["end"])
    if start and end and start >= end:
        raise UsageError("cannot open: --to is not after --from")
    if history and backup is not None:
        raise UsageError(
            f"cannot open {backup} with --history: it opens what all backups held",
            hint="usage: open --history [--from TIME] [--to TIME]",
        )
    binary = None
    if not dry_run:
        binary = PrometheusBinary.at(context.prometheus_binary(hint=_NO_PROMETHEUS))
    repository, scratch = context.repository(), context.scratch()
    version = binary.version if binary else ""
    if history:
        since_ms = ms_from_instant(start) if start else -(1 << 63)
        manifest = history_manifest(repository, since_ms=since_ms)
    else:
        found = _entry(repository, backup, start, end).backup_id
        with repository.reading(found, verb="open"):
            manifest = repository.manifest(found)
    plan = plan_window(manifest, start, end, version=version)
    room = room_for(plan, scratch)
    if binary is None:
        output.result(window_document(plan, room), lines=plan_lines(plan, room, str(scratch)))
        return Outcome.DONE.exit_code if room.fits else TargetUnusable.exit_code
    for line in plan_lines(plan, room, str(scratch)):
        context.listener(Step("plan", line))
    opener = WindowOpener(
        repository, context.transfer(), binary, scratch, context.drill_wait, context.listener
    )
    return _show(context, output, opener, plan, room, port)


def _entry(
    repository: "Repository", backup: str | None, start: datetime | None, end: datetime | None
) -> "BackupEntry":
    from prometheus_backup.window.plan import best_backup

    if backup is not None or (start is None and end is None):
        return repository.find(backup or "latest")
    found = best_backup(repository.entries(), start, end)
    if found is None:
        raise BackupNotFound(
            f"cannot find a backup in {repository.url} with samples of this time range",
            hint="run `prometheus-backup timeline` to see what can be recovered",
        )
    return found


def _show(
    context: CommandContext,
    output: Output,
    opener: "WindowOpener",
    plan: "WindowPlan",
    room: "Room",
    port: int | None,
) -> int:
    """Open the window, print its address, and wait for the end."""
    outcome = None
    try:
        with opener.open(plan, port=port) as window:
            outcome = window.outcome
            output.result(
                {**window_document(plan, room), "outcome": outcome.value, "url": window.address},
                lines=window_lines(plan),
                verbatim=[window.address, _HOW_TO_END],
            )
            window.wait()
    except StopRequest:
        if outcome is None:
            raise
        context.listener(Step("stop", "the window is closed: its files are removed"))
    return (outcome or Outcome.DONE).exit_code


_HOW_TO_END = "Ctrl-C closes the window and removes the fetched blocks."


def window_document(plan: "WindowPlan", room: "Room") -> Document:
    """Return what `open --dry-run --json` prints; a window adds its outcome and address."""
    return {
        "backup_id": plan.backup_id,
        "from": rfc3339(plan.span.start),
        "to": rfc3339(plan.span.end),
        "blocks": len(plan.blocks),
        "files": plan.files,
        "bytes": plan.size,
        "needed_bytes": room.needed,
        "free_bytes": room.free,
        "fits": room.fits,
        "left_out": [{"block": p.block.ulid, "reason": p.reason} for p in plan.left_out],
    }


def plan_lines(plan: "WindowPlan", room: "Room", scratch: str) -> Iterable[str]:
    """Yield what would be fetched, and whether there is room for it."""
    blocks, files = counted(len(plan.blocks), "block"), counted(plan.files, "file")
    fits = "which is enough" if room.fits else f"but {size(room.needed)} are needed"
    yield f"{size(plan.size)} to fetch from {plan.backup_id}: {blocks}, {files}"
    yield f"{size(room.free)} are free in {scratch}, {fits}"
    for placement in plan.left_out:
        yield f"without block {placement.block.ulid}: {placement.reason}"


def window_lines(plan: "WindowPlan") -> Iterable[str]:
    """Yield what the window shows."""
    yield f"{plan.backup_id}: {second(plan.span.start)} to {second(plan.span.end)} (UTC)"
