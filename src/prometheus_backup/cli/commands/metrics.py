"""`metrics`: metrics computed from the repository."""

import re
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import click

from prometheus_backup.cli.command import command, option
from prometheus_backup.cli.context import CommandContext
from prometheus_backup.cli.monitoring import repository_state, state_of
from prometheus_backup.cli.options import Count
from prometheus_backup.cli.output import Output
from prometheus_backup.cli.render import Document
from prometheus_backup.cli.reporting import report_of
from prometheus_backup.errors import RepositoryError, StopRequest, UsageError
from prometheus_backup.events import Step, Warned
from prometheus_backup.model import Outcome

if TYPE_CHECKING:
    from prometheus_backup.metrics.exporter import Reading
    from prometheus_backup.metrics.families import Sample
    from prometheus_backup.report.plan import Forecasts
    from prometheus_backup.repository.catalog import CatalogMemory

_T = TypeVar("_T")

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
@option(
    "--repositories",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="YAML file that names several repositories, each with labels of its own.",
)
@command("repository", "retention", "rotation", "monitoring")
def metrics(
    context: CommandContext,
    output: Output,
    *,
    listen: str | None,
    refresh: int,
    repositories: Path | None,
) -> int:
    """Print the metrics of the repository, or serve them and the report as an exporter."""
    if repositories is None:
        if listen is not None:
            _serve([context], listen, refresh)
        else:
            _print(output, _samples(context))
        return 0
    from prometheus_backup.cli.repositories import repository_contexts

    contexts = repository_contexts(context, repositories)
    if listen is not None:
        _serve(contexts, listen, refresh)
        return 0
    read = [_tried(c, _samples) for c in contexts]
    _print(output, [s for samples in read for s in samples or ()])
    return Outcome.PARTIAL.exit_code if None in read else 0


def _samples(context: CommandContext) -> "list[Sample]":
    from prometheus_backup.metrics.families import labelled

    return labelled(repository_state(context), context.metrics_labels())


def _reading(
    context: CommandContext, *, hurried: bool, memory: "CatalogMemory", forecasts: "Forecasts"
) -> "Reading":
    """Read what has changed in the repository, for the metrics and the report."""
    from prometheus_backup.metrics.exporter import Reading
    from prometheus_backup.metrics.families import labelled
    from prometheus_backup.report.page import render

    repository = context.repository(hurried=hurried, memory=memory)
    view = repository.archive.view()
    entries = repository.entries(view)
    page = render(report_of(context, repository, entries, view.folders, forecasts))
    samples = labelled(state_of(context, entries, view.folders), context.metrics_labels())
    return Reading(samples, page.html, page.policy)


def _tried(context: CommandContext, read: Callable[[CommandContext], _T]) -> _T | None:
    """Return what was read; None, with a warning that names the repository, if that failed."""
    try:
        return read(context)
    except RepositoryError as error:
        context.listener(
            Warned(f"cannot read the repository for metrics: {error.message}", error.hint)
        )
        return None


def _print(output: Output, samples: "list[Sample]") -> None:
    from prometheus_backup.metrics.exposition import text

    output.result(metrics_document(samples), verbatim=text(samples).splitlines())


def metrics_document(samples: "list[Sample]") -> Document:
    """Return what `metrics --json` prints."""
    return {
        "metrics": [{"name": s.name, "labels": dict(s.labels), "value": s.value} for s in samples]
    }


def _serve(contexts: Sequence[CommandContext], listen: str, refresh: int) -> None:
    from prometheus_backup.metrics.exporter import CachedMetrics, Exporter, Page
    from prometheus_backup.repository.catalog import CatalogMemory

    host, port = _parse(listen)
    several, context = len(contexts) > 1, contexts[0]
    # A silent store must not keep the other repositories waiting.
    cached = [
        CachedMetrics(
            partial(
                _tried,
                c,
                partial(_reading, hurried=several, memory=CatalogMemory(), forecasts={}),
            ),
            c.metrics_labels(),
            c.clock,
        )
        for c in contexts
    ]
    page = Page(cached, context.clock, float(refresh))
    if not several:
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
