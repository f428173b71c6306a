"""`heal`: find bad blocks in a data directory and replace them with good ones."""

import os
from collections.abc import Iterable
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from prometheus_backup.cli.command import argument, command, option
from prometheus_backup.cli.context import CommandContext
from prometheus_backup.cli.options import Count
from prometheus_backup.cli.output import Output
from prometheus_backup.cli.render import Document, Row, fault_document, second
from prometheus_backup.cli.tables import Column, table
from prometheus_backup.model import counted, rfc3339, size

if TYPE_CHECKING:
    from prometheus_backup.heal.plan import Repair
    from prometheus_backup.heal.report import HealReport

_EFFECTS = {
    "stops-start": "Prometheus does not start",
    "hides-data": "its samples are missing",
    "fails-queries": "queries and compaction fail",
    "breaks-snapshots": "no backup is possible",
    "misleads": "answers may be wrong",
    "none": "none",
    "unknown": "cannot be read",
}
_REMEDIES = {
    "nothing": "nothing to do",
    "drop": "move it away",
    "rename": "rename it",
    "mend": "rebuild it",
    "splice": "replace it",
    "cover": "replace it with other blocks",
    "move-away": "move it away",
    "leave": "leave it",
}


@argument("directory", metavar="DATA_DIR", type=click.Path(path_type=Path))
@option(
    "--wait",
    type=Count(min=0),
    metavar="SECONDS",
    help="How long to wait for a running Prometheus at each step.  "
    "[default: three times its reload interval, at least 180]",
)
@option(
    "--processes",
    type=Count(min=1),
    metavar="N",
    help="Blocks to check in parallel.  [default: number of cores]",
)
@option("--accept-undeleted", is_flag=True, help="Also use blocks that bring deleted series back.")
@option(
    "--without-copy",
    is_flag=True,
    help="Also move away bad blocks that no backup can replace, even if parts are still readable.",
)
@option(
    "--quick",
    is_flag=True,
    help="Find only faults that stop Prometheus, hide blocks or break snapshots: much faster.",
)
@option("--apply", is_flag=True, help="Apply the changes (the default is a dry run).")
@command("repository", "prometheus")
def heal(
    context: CommandContext, output: Output, *, directory: Path, apply: bool, **choices: Any
) -> int:
    """Find what is bad in a data directory; with --apply, repair it.

    Bad blocks are replaced from backups. What is bad is moved to a quarantine in the data
    directory; nothing is deleted. It does not matter whether Prometheus is running, but the WAL is
    repaired only while it is stopped. If interrupted, run the same command again to resume.
    """
    from prometheus_backup.heal.plan import HealRequest
    from prometheus_backup.heal.run import Heal, HealOptions

    request = HealRequest(choices["without_copy"], undelete=choices["accept_undeleted"])
    timeout = None if choices["wait"] is None else timedelta(seconds=choices["wait"])
    processes = choices["processes"] or os.cpu_count() or 1
    options = HealOptions(request, choices["quick"], processes, timeout)
    with context.client() as client:
        job = Heal(
            directory,
            context.repository,
            context.transfer(),
            client,
            context.clock,
            options,
        )
        report = job.apply() if apply else job.preview()
    output.result(
        heal_document(report, data_dir=directory),
        tables=[table(HEAL_COLUMNS, rows)] if (rows := list(heal_rows(report))) else [],
        lines=heal_lines(report, data_dir=directory),
    )
    return report.outcome.exit_code


def heal_document(report: "HealReport", *, data_dir: Path) -> Document:
    """Return what `heal --json` prints."""
    return {
        "data_dir": str(data_dir),
        "applied": report.applied,
        "outcome": report.outcome.value,
        "running": report.running,
        "sound": len(report.scan.sound),
        "bad": [_bad(h, report) for h in report.plan.repairs],
        "head": [
            {
                "path": fault.path,
                "effect": fault.effect.value,
                "fault": fault.detail,
                "remedy": fault.remedy,
                "lost": fault.lost or None,
                "quarantine": [
                    str(report.head_moved[step.path])
                    for step in fault.steps
                    if step.path in report.head_moved
                ],
            }
            for fault in report.head
        ],
        "waiting": {name: list(ulids) for name, ulids in report.pending.items()},
        "no_copies": report.no_copies or None,
        "placed": list(report.placed),
        "problems": list(report.problems),
        "seconds": round(report.seconds, 3),
    }


def _bad(repair: "Repair", report: "HealReport") -> Document:
    bad, seen = repair.bad, report.scan.reports[repair.bad.name]
    return {
        "block": bad.name,
        "effect": bad.effect.value,
        "min_time": rfc3339(bad.span.start) if bad.span else None,
        "max_time": rfc3339(bad.span.end) if bad.span else None,
        "fault_counts": {kind.value: count for kind, count in seen.counts.items()},
        "faults": [fault_document(fault) for fault in seen.faults],
        "remedy": repair.remedy.value,
        "because": repair.reason,
        "heals": repair.heals,
        "copies": [
            {"backup_id": c.backup_id, "ulid": c.block.ulid, "bytes": c.block.size}
            for c in repair.copies
        ],
        "gaps": [{"from": rfc3339(g.start), "to": rfc3339(g.end)} for g in repair.gaps],
        "quarantine": str(report.moved[bad.name]) if bad.name in report.moved else None,
    }


HEAL_COLUMNS = (
    Column("block"),
    Column("from (UTC)"),
    Column("to (UTC)"),
    Column("effect"),
    Column("what is wrong", text=True),
    Column("remedy", text=True),
)


def heal_rows(report: "HealReport") -> Iterable[Row]:
    """Yield a row for each fault of the head, and for each bad block, the worst first."""
    for fault in report.head:
        yield fault.path, "", "", _EFFECTS[fault.effect], fault.detail, fault.remedy
    for repair in report.plan.repairs:
        bad, seen = repair.bad, report.scan.reports[repair.bad.name]
        more = f" (and {seen.total_faults - 1:,} more)" if seen.total_faults > 1 else ""
        yield (
            bad.name,
            second(bad.span.start) if bad.span else "",
            second(bad.span.end) if bad.span else "",
            "retention never deletes it" if bad.misnamed else _EFFECTS[bad.effect],
            f"{seen.faults[0]}{more}",
            f"{_REMEDIES[repair.remedy]}: {repair.reason}",
        )


def heal_lines(report: "HealReport", *, data_dir: Path) -> Iterable[str]:
    """Yield the lines that `heal` prints below its table."""
    found = len(report.plan.repairs)
    bad = sum(repair.bad.effect != "none" for repair in report.plan.repairs)
    if not found and not report.scan.sound and not report.head:
        yield f"nothing to check: {data_dir} contains no blocks"
        return
    yield f"{counted(found + len(report.scan.sound), 'block')} in {data_dir}, {bad or 'none'} bad"
    if report.head:
        yield f"{counted(len(report.head), 'fault')} in wal, wbl and chunks_head"
    if report.no_copies:
        yield f"backups were not searched: {report.no_copies}"
    if report.applied:
        yield from _done_lines(report)
    else:
        yield from _plan_lines(report, data_dir=data_dir)
    for repair in report.plan.repairs:
        for gap in repair.gaps:
            yield f"no samples of {repair.bad.name} from {second(gap.start)} to {second(gap.end)}"
    for fault in report.head:
        if fault.lost:
            yield f"lost in {fault.path}: {fault.lost}, unless a block has them"


def _plan_lines(report: "HealReport", *, data_dir: Path) -> Iterable[str]:
    if report.pending:
        yield f"an interrupted heal is not finished: {', '.join(sorted(report.pending))}"
    if report.outcome.exit_code:
        yield "to heal, run:"
        yield f"  prometheus-backup heal {data_dir} --apply"
    if report.running and report.plan.moves:
        yield "Prometheus is running: queries will miss these blocks for one or two minutes"
    if report.plan.size:
        yield f"Download: up to {size(report.plan.size)}"


def _done_lines(report: "HealReport") -> Iterable[str]:
    repairs = [h for h in report.plan.repairs if h.remedy != "nothing"]
    healed = sum(h.heals for h in repairs)
    for fault in report.head:
        if fault.steps:
            yield f"repaired {fault.path}: {fault.remedy}"
        elif fault.effect != "none":
            yield f"not repaired: {fault.path}: {fault.remedy}"
    if repairs:
        yield f"healed {healed} of {len(repairs)} in {report.seconds:.1f} s"
    if report.pending:
        yield f"finished an interrupted heal: {', '.join(sorted(report.pending))}"
    for repair in repairs:
        if not repair.heals:
            yield f"not healed: {repair.bad.name}: {repair.reason}"
    if moved := {**report.moved, **report.head_moved}:
        yield f"what was bad is in {next(iter(moved.values())).parent}"
    if report.placed and not report.running:
        yield "No running Prometheus was found; if one uses this directory, restart it."
    yield from (f"left undone: {problem}" for problem in report.problems)
