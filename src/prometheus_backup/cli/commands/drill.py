"""`drill`: prove that a backup can be restored, by doing it."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

from prometheus_backup.cli.command import argument, command, option
from prometheus_backup.cli.completion import backup_ids
from prometheus_backup.cli.context import CommandContext
from prometheus_backup.cli.output import Output
from prometheus_backup.cli.render import Document, Row, between, instant, ready_after
from prometheus_backup.cli.tables import Column, summary, table
from prometheus_backup.errors import UsageError
from prometheus_backup.model import counted, size

if TYPE_CHECKING:
    from prometheus_backup.drill.plan import Comparison
    from prometheus_backup.drill.run import DrillReport


@argument("backup", metavar="BACKUP", shell_complete=backup_ids)
@option("--from", "start", metavar="TIME", help="Drill only blocks that end after this time.")
@option("--to", "end", metavar="TIME", help="Drill only blocks that begin before this time.")
@command("repository", "scratch", "drill", "retention", "monitoring", "reporting")
def drill(
    context: CommandContext, output: Output, *, backup: str, start: str | None, end: str | None
) -> int:
    """Restore a backup to a scratch directory, start Prometheus on it and compare query results.

    Times are 2025-01-22, 2025-01-22T02:00:00Z or -7d. Prometheus is stopped and the scratch data
    removed in any case. The result is recorded in the repository.
    """
    from prometheus_backup.drill.run import Drill
    from prometheus_backup.prometheus.process import PrometheusBinary

    after, before = context.instant(start), context.instant(end)
    if after and before and after >= before:
        raise UsageError("cannot drill: --to is not after --from")
    binary = PrometheusBinary.at(context.prometheus_binary())
    wait, scratch = context.drill_wait, context.scratch()
    repository = context.repository()
    job = Drill(repository, context.transfer(), binary, scratch, wait, context.listener)
    report = job.run(repository.find(backup), start=after, end=before)
    output.result(
        drill_document(report),
        tables=[
            summary(drill_rows(report)),
            table(QUERY_COLUMNS, query_rows(report)),
        ],
        lines=drill_lines(report),
    )
    return report.outcome.exit_code


def drill_document(report: "DrillReport") -> Document:
    """Return what `drill --json` prints."""
    return {
        "outcome": report.outcome.value,
        **report.result.model_dump(mode="json", exclude={"rotation"}),
        "cause": report.cause,
        "prometheus_version": report.version,
        "blocks": len(report.plan.blocks),
        "fingerprints": [_fingerprint(c) for c in report.comparisons],
        "log": list(report.log),
    }


def drill_rows(report: "DrillReport") -> Iterable[Row]:
    """Yield the summary of a drill, label and value."""
    result, plan = report.result, report.plan
    yield "backup", result.backup_id
    yield "result", result.verdict.value + (f": {report.cause}" if report.cause else "")
    if part := plan.part:
        yield "part", between(part)
    yield "restored", f"{size(result.bytes_read)} in {counted(len(plan.blocks), 'block')}"
    yield "Prometheus", report.version
    took = ", ".join(f"{name} {seconds:.1f} s" for name, seconds in result.seconds.items())
    if (ready := ready_after(result)) is not None:
        took += f"; ready for queries after {ready:.1f} s"
    if took:
        yield "took", took
    for finding in result.findings:
        yield f"finding ({finding.kind.value})", f"{finding.key}: {finding.detail}"


QUERY_COLUMNS = (
    Column("fingerprint", text=True),
    Column("at (UTC)", hide=1),
    Column("series", hide=2),
    Column("result"),
    Column("", text=True),
)


def query_rows(report: "DrillReport") -> Iterable[Row]:
    """Yield a row for each fingerprint."""
    for compared in report.comparisons:
        at = instant(compared.at) or ""
        yield compared.query, at, f"{compared.series:,}", compared.verdict.value, compared.detail


def drill_lines(report: "DrillReport") -> list[str]:
    """Return the end of the Prometheus log, if the drill failed."""
    if not report.log:
        return []
    return ["last lines of the Prometheus log:", *(f"  {line}" for line in report.log)]


def _fingerprint(compared: "Comparison") -> Document:
    return {
        "query": compared.query,
        "at": instant(compared.at),
        "verdict": compared.verdict.value,
        "detail": compared.detail,
        "series": compared.series,
    }
