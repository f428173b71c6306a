"""`inspect`: check local TSDB blocks completely."""

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from prometheus_backup.cli.command import argument, command, option
from prometheus_backup.cli.context import CommandContext
from prometheus_backup.cli.options import Count
from prometheus_backup.cli.output import Output
from prometheus_backup.cli.render import Document, Row, fault_document, second
from prometheus_backup.cli.tables import Column, table
from prometheus_backup.model import counted, instant_from_ms, rfc3339, size

if TYPE_CHECKING:
    from prometheus_backup.tsdb.verification import BlockReport
    from prometheus_backup.verify.inspect import InspectReport


@argument("path", type=click.Path(path_type=Path))
@option(
    "--processes",
    type=Count(min=1),
    metavar="N",
    help="Blocks to check in parallel.  [default: number of cores, at most 4]",
)
@command()
def inspect(context: CommandContext, output: Output, *, path: Path, processes: int | None) -> int:
    """Check TSDB blocks on this machine: a block, a data directory or a snapshot."""
    from prometheus_backup.verify.inspect import inspect_blocks

    report = inspect_blocks(
        path.resolve(), processes=processes or context.processes, listener=context.listener
    )
    output.result(
        inspect_document(report, path=path),
        tables=[table(INSPECT_COLUMNS, inspect_rows(report))] if report.blocks else [],
        lines=inspect_lines(report, path=path),
    )
    return report.outcome.exit_code


def inspect_document(report: "InspectReport", *, path: Path) -> Document:
    """Return what `inspect --json` prints."""
    return {
        "path": str(path),
        "outcome": report.outcome.value,
        "blocks": [_block(block) for block in report.blocks],
    }


def _block(block: "BlockReport") -> Document:
    return {
        "ulid": block.ulid,
        "verdict": block.verdict.value,
        "series": block.series,
        "chunks": dict(block.chunks),
        "samples": dict(block.samples),
        "tombstones": block.tombstones,
        "min_time": _instant(block.min_time_ms),
        "max_time": _instant(block.max_time_ms),
        "index_bytes": block.index_bytes,
        "chunk_bytes": block.chunk_bytes,
        "not_decoded": list(block.not_decoded),
        "fault_counts": {kind.value: count for kind, count in block.counts.items()},
        "faults": [fault_document(fault) for fault in block.faults],
    }


INSPECT_COLUMNS = (
    Column("block"),
    Column("first (UTC)", hide=3),
    Column("last (UTC)", hide=2),
    Column("series", hide=5),
    Column("samples", hide=4),
    Column("size", hide=1),
    Column("result"),
)


def inspect_rows(report: "InspectReport") -> Iterable[Row]:
    """Yield a row for each block."""
    for block in report.blocks:
        faults = f": {counted(block.total_faults, 'fault')}" if block.counts else ""
        yield (
            block.ulid,
            "" if block.min_time_ms is None else second(instant_from_ms(block.min_time_ms)),
            "" if block.max_time_ms is None else second(instant_from_ms(block.max_time_ms)),
            f"{block.series:,}",
            f"{block.total_samples:,}",
            size(block.index_bytes + block.chunk_bytes),
            block.verdict.value + faults,
        )


def inspect_lines(report: "InspectReport", *, path: Path) -> list[str]:
    """Return the recorded faults, the encodings that were not decoded, and all encodings found."""
    lines = []
    for block in report.blocks:
        for fault in block.faults:
            kind = fault.kind
            lines.append(f"{block.ulid}: {fault} [{kind.value}; Prometheus: {kind.effect.value}]")
        if block.total_faults > len(block.faults):
            lines.append(f"{block.ulid}: and {block.total_faults - len(block.faults):,} more")
        lines += [f"{block.ulid}: {name} is not decoded" for name in block.not_decoded]
    encodings = sorted({name for block in report.blocks for name in block.chunks})
    if encodings:
        lines.append(f"chunk encodings: {', '.join(encodings)}")
    return lines if report.blocks else [f"nothing to check: {path} contains no blocks"]


def _instant(time_ms: int | None) -> str | None:
    return None if time_ms is None else rfc3339(instant_from_ms(time_ms))
