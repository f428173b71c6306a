"""`heal`: find the bad blocks of a data directory, and replace them by sound ones."""

import os
from collections.abc import Iterable
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from prometheus_backup.cli.command import argument, command, option
from prometheus_backup.cli.context import CommandContext
from prometheus_backup.cli.output import Output, table
from prometheus_backup.cli.render import Document, Row, counted, fault_document, second, size
from prometheus_backup.model import rfc3339

if TYPE_CHECKING:
    from prometheus_backup.heal.plan import Repair
    from prometheus_backup.heal.run import HealReport

_EFFECTS = {
    "stops-start": "Prometheus does not start",
    "hides-data": "its samples are missing",
    "fails-queries": "queries and compaction fail",
    "breaks-snapshots": "no backup can be made",
    "misleads": "answers may be wrong",
    "none": "none",
    "unknown": "cannot be read",
}
_REMEDIES = {
    "nothing": "nothing to do",
    "drop": "move it away",
    "rename": "give it its name",
    "mend": "mend it",
    "splice": "replace it",
    "cover": "replace it by others",
    "move-away": "move it away",
    "leave": "leave it",
}


@argument("directory", metavar="DATA_DIR", type=click.Path(path_type=Path))
@option(
    "--wait",
    type=click.IntRange(min=0),
    default=180,
    show_default=True,
    metavar="SECONDS",
    help="How long to wait, each time, for a running Prometheus.",
)
@option(
    "--processes",
    type=click.IntRange(min=1),
    metavar="N",
    help="Blocks checked at once.  [default: as many as there are cores]",
)
@option("--accept-undeleted", is_flag=True, help="Use blocks that bring deleted series back, too.")
@option(
    "--without-copy",
    is_flag=True,
    help="Move away what no backup replaces, even if parts of it are still served.",
)
@option(
    "--quick",
    is_flag=True,
    help="Look only at what stops a start, hides a block or breaks snapshots: much faster.",
)
@option("--apply", is_flag=True, help="Do it. Without, nothing is written.")
@command("repository", "prometheus")
def heal(
    context: CommandContext, output: Output, *, directory: Path, apply: bool, **choices: Any
) -> int:
    """Find the bad blocks of a data directory; with --apply, replace them from backups.

    Bad blocks are moved into a quarantine in the data directory; nothing is deleted. Prometheus may
    be running, or fail to start. Cut off, the same command continues.
    """
    from prometheus_backup.heal.plan import HealRequest
    from prometheus_backup.heal.run import Heal, HealOptions

    request = HealRequest(choices["without_copy"], undelete=choices["accept_undeleted"])
    timeout = timedelta(seconds=choices["wait"])
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
        tables=[table(HEAL_HEADERS, heal_rows(report))] if report.plan.repairs else [],
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


HEAL_HEADERS = ("block", "from (UTC)", "to (UTC)", "effect", "what is wrong", "remedy")


def heal_rows(report: "HealReport") -> Iterable[Row]:
    """Yield a row for each bad block, the worst first."""
    for repair in report.plan.repairs:
        bad, seen = repair.bad, report.scan.reports[repair.bad.name]
        more = f" (and {seen.total_faults - 1:,} more)" if seen.total_faults > 1 else ""
        yield (
            bad.name,
            second(bad.span.start) if bad.span else "",
            second(bad.span.end) if bad.span else "",
            "it is never deleted" if bad.misnamed else _EFFECTS[bad.effect],
            f"{seen.faults[0]}{more}",
            f"{_REMEDIES[repair.remedy]}: {repair.reason}",
        )


def heal_lines(report: "HealReport", *, data_dir: Path) -> Iterable[str]:
    """Yield what `heal` says below its table."""
    bad = len(report.plan.repairs)
    if not bad and not report.scan.sound:
        yield f"nothing was looked at: {data_dir} holds no block"
        return
    yield f"{counted(bad + len(report.scan.sound), 'block')} in {data_dir}, {bad or 'none'} bad"
    if report.no_copies:
        yield f"no backup was looked at: {report.no_copies}"
    if report.applied:
        yield from _done_lines(report)
    else:
        yield from _plan_lines(report, data_dir=data_dir)
    for repair in report.plan.repairs:
        for gap in repair.gaps:
            yield f"no samples of {repair.bad.name} from {second(gap.start)} to {second(gap.end)}"


def _plan_lines(report: "HealReport", *, data_dir: Path) -> Iterable[str]:
    if report.pending:
        yield f"an interrupted heal waits to be finished: {', '.join(sorted(report.pending))}"
    if report.outcome.exit_code:
        yield f"to heal: prometheus-backup heal {data_dir} --apply"
    if report.running and report.plan.moves:
        yield "Prometheus runs: it will be without these blocks for one or two minutes"
    if report.plan.size:
        yield f"to bring from backups: {size(report.plan.size)} at most"


def _done_lines(report: "HealReport") -> Iterable[str]:
    repairs = [h for h in report.plan.repairs if h.remedy != "nothing"]
    healed = sum(h.heals for h in repairs)
    if repairs:
        yield f"healed {healed} of {len(repairs)} in {report.seconds:.1f} s"
    if report.pending:
        yield f"finished an interrupted heal: {', '.join(sorted(report.pending))}"
    for repair in repairs:
        if not repair.heals:
            yield f"not healed: {repair.bad.name}: {repair.reason}"
    if report.moved:
        yield f"bad blocks are in {next(iter(report.moved.values())).parent}"
    if report.placed and not report.running:
        yield "no Prometheus was found to run on it; one that does must be restarted"
    yield from (f"left undone: {problem}" for problem in report.problems)
