"""`metrics`: metrics computed from the repository."""

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

from prometheus_backup.cli.command import command, option
from prometheus_backup.cli.context import CommandContext
from prometheus_backup.cli.monitoring import repository_state, state_of
from prometheus_backup.cli.options import Count
from prometheus_backup.cli.output import Output
from prometheus_backup.cli.render import Document
from prometheus_backup.cli.reporting import report_of
from prometheus_backup.errors import RepositoryError, StopRequest, UsageError
from prometheus_backup.events import Step, Warned

if TYPE_CHECKING:
    from prometheus_backup.metrics.exporter import CachedMetrics, Reading
    from prometheus_backup.metrics.families import Sample

_ADDRESS = re.compile(r"(?:(?P<host>[^\s:\[\]]*|\[[0-9a-fA-F:.]+\]):)?(?P<port>\d{1,5})")


@option(
    "--refresh",
    type=Count(min=1),
    default=600,
    metavar="SECONDS",
    show_default=True,
    help="With --listen: minimum time between reads of the repository.",
)
@option(
    "--listen",
    metavar="ADDR:PORT",
    help="Serve the metrics at /metrics, and the report at /, until stopped.",
)
@command("repository", "retention", "rotation", "monitoring")
def metrics(context: CommandContext, output: Output, *, listen: str | None, refresh: int) -> int:
    """Print the metrics of the repository, or serve them and the report as an exporter."""
    from prometheus_backup.metrics.exposition import text
    from prometheus_backup.metrics.families import labelled

    common = context.metrics_labels()
    if listen is None:
        samples = labelled(repository_state(context), common)
        output.result(metrics_document(samples), verbatim=text(samples).splitlines())
        return 0
    from prometheus_backup.metrics.exporter import CachedMetrics

    def read() -> "Reading | None":
        try:
            return _reading(context, common)
        except RepositoryError as error:
            context.listener(
                Warned(f"cannot read the repository for metrics: {error.message}", error.hint)
            )
            return None

    page = CachedMetrics(read, dict(common), context.clock, float(refresh))
    _serve(context, page, listen)
    return 0


def _reading(context: CommandContext, common: Mapping[str, str]) -> "Reading":
    """Read the repository once, for the metrics and the report."""
    from prometheus_backup.metrics.exporter import Reading
    from prometheus_backup.metrics.families import labelled
    from prometheus_backup.report.page import render

    entries = context.repository().entries()
    page = render(report_of(context, entries))
    samples = labelled(state_of(context, entries), common)
    return Reading(samples, page.html, page.policy)


def metrics_document(samples: "list[Sample]") -> Document:
    """Return what `metrics --json` prints."""
    return {
        "metrics": [{"name": s.name, "labels": dict(s.labels), "value": s.value} for s in samples]
    }


def _serve(context: CommandContext, page: "CachedMetrics", listen: str) -> None:
    from prometheus_backup.metrics.exporter import Exporter

    host, port = _parse(listen)
    page.read_now()
    try:
        exporter = Exporter(page, host=host, port=port)
    except OSError as error:
        raise UsageError(
            f"cannot listen on {listen}: {error.strerror or error}",
            hint="give an address of this machine and a free port, such as 127.0.0.1:9879",
        ) from None
    address = exporter.address
    context.listener(
        Step(
            "serve", f"serving metrics at http://{address}/metrics, the report at http://{address}/"
        )
    )
    try:
        exporter.serve()
    except StopRequest as stop:
        # Being stopped is the normal end of a server, not a failure.
        context.listener(Step("stop", stop.error.message.replace(" after cleaning up", "")))


def _parse(listen: str) -> tuple[str, int]:
    match = _ADDRESS.fullmatch(listen)
    if match is None or int(match["port"]) > 65535:
        raise UsageError(
            f"cannot read address {listen!r}", hint="give it as ADDR:PORT, such as 127.0.0.1:9879"
        )
    return (match["host"] or "").strip("[]"), int(match["port"])
