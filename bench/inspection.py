"""Measures the check of blocks beside promtool's: `python -m bench.inspection`.

Two blocks: a deep one, mostly chunks, and a wide one, mostly series. Both programs read each block
whole in one process, in turns: `inspect`, and `promtool tsdb analyze --extended`, the only promtool
command that looks at the checksum of every chunk.
"""

import argparse
import compileall
import platform
import random
import shutil
import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import prometheus_backup
from bench.fetch_peers import TOOLS
from bench.measure import Command, Usage, measure, ratio
from bench.tsdb_writer import BlockSpec, Labels, write_block
from devtools.fetch_prometheus import fetch as fetch_prometheus
from devtools.processes import clean_environment
from prometheus_backup.tsdb.verification import BlockReport, check_block

MB = 1_000_000
START_MS = 1_737_504_000_000
HOUR_MS = 3_600_000
CHUNK_TARGET, SERIES_TARGET = 400, 300


_PAGE = """\
# Benchmark of the check of blocks

Made by `python -m bench.inspection --output docs/benchmarks-inspect.md`; do not edit.

`prometheus-backup inspect BLOCK --processes 1` beside `promtool tsdb analyze --extended`, whole
processes, on the same block, in turns. promtool decodes every series and looks at the checksum of
every chunk, but not at postings, order, chunks that no series has, counts or times. Rates are for a
second of CPU time, so for one core, the start of Python included. Ratios are ours divided by
promtool's, round by round: median (lowest-highest).

- Machine: {machine}
- Rounds: {rounds}, after one warm-up

| what | target | median |  |
| --- | --- | --- | --- |
{targets}

| block | series | chunks | samples | index | chunk data |
| --- | --- | --- | --- | --- | --- |
{content}

| block | CPU | CPU of promtool | CPU ratio | wall ratio | peak | peak of promtool |
| --- | --- | --- | --- | --- | --- | --- |
{costs}

Every series of these blocks has eight labels and all its chunks, of 120 random samples in about a
kilobyte each: the wide block is what Prometheus writes every two hours, the deep one what
compaction leaves. The check is plain Python but for the checksums; promtool is compiled.

As in a real Prometheus, most series share all labels but the first with others: sets of labels
that were decoded are not decoded again. Where no two series share any, it is about a sixth as fast:
59 thousand series a second, without the start of Python. On half as many series, that start takes
the rate of the wide block to about 300 thousand.
"""


@dataclass(frozen=True)
class Shape:
    """A block: its name, series, and hours at a sample a minute."""

    name: str
    series: int
    hours: int


@dataclass(frozen=True)
class Measured:
    """A block, what is in it, and the cost of each round of both programs."""

    shape: Shape
    report: BlockReport
    ours: Sequence[Usage]
    promtool: Sequence[Usage]

    def rate(self, amount: float) -> float:
        """Return so much in a second of ours on one core, start of the program included."""
        return amount / statistics.median(usage.cpu_seconds for usage in self.ours)


def _series(count: int) -> list[Labels]:
    """Label sets as a Kubernetes cluster has them: a few hundred metrics of many pods."""
    metrics = 500
    return sorted(
        (
            ("__name__", f"http_requests_{metric:03d}_total"),
            ("cluster", "production"),
            ("code", str(200 + metric % 5)),
            ("instance", f"10.0.{pod // 250}.{pod % 250}:9100"),
            ("job", f"job-{pod % 20}"),
            ("method", "GET"),
            ("namespace", f"ns-{pod % 50}"),
            ("pod", f"pod-{pod:05d}-x7f9k"),
        )
        for pod in range(count // metrics)
        for metric in range(metrics)
    )


def run(shape: Shape, *, rounds: int, work: Path) -> Measured:
    """Write a block and measure both programs on it."""
    data = work / shape.name
    spec = BlockSpec(
        min_time_ms=START_MS,
        max_time_ms=START_MS + shape.hours * HOUR_MS,
        step_ms=60_000,
        level=1,
        segment_bytes=128 << 20,
    )
    block = write_block(data, spec, _series(shape.series), random.Random(1))
    report = check_block(block)
    assert not report.faults, report.faults
    environment = clean_environment(work / "home")
    promtool = fetch_prometheus(3).promtool
    tool = Path(sys.executable).with_name("prometheus-backup")
    commands = (
        Command((str(tool), "inspect", str(block), "--processes", "1", "--quiet"), environment),
        Command(
            (str(promtool), "tsdb", "analyze", "--extended", str(data), block.name), environment
        ),
    )
    costs: tuple[list[Usage], list[Usage]] = ([], [])
    for number in range(rounds + 1):
        for command, cost in zip(commands, costs, strict=True):
            usage = measure(command, work / "log")
            if number:  # the first is a warm-up
                cost.append(usage)
    return Measured(shape, report, *costs)


def render(measured: Sequence[Measured], rounds: int) -> str:
    """The whole page."""
    deep, wide = measured
    chunk_rate = deep.rate(deep.report.chunk_bytes / MB)
    series_rate = wide.rate(wide.report.series / 1000)
    return _PAGE.format(
        machine=f"{platform.system()} {platform.release()}, Python {platform.python_version()}",
        rounds=rounds,
        targets="\n".join(
            [
                _target("chunk data a second, deep block", CHUNK_TARGET, chunk_rate, "MB"),
                _target("series a second, wide block", SERIES_TARGET, series_rate, "thousand"),
            ]
        ),
        content="\n".join(map(_content, measured)),
        costs="\n".join(map(_cost, measured)),
    )


def _target(what: str, least: float, reached: float, unit: str) -> str:
    answer = "reached" if reached >= least else "**not reached**"
    return f"| {what} | at least {least} {unit} | {reached:.0f} {unit} | {answer} |"


def _content(one: Measured) -> str:
    report = one.report
    return (
        f"| {one.shape.name} | {report.series:,} | {report.total_chunks:,} "
        f"| {report.total_samples:,} | {report.index_bytes / MB:.0f} MB "
        f"| {report.chunk_bytes / MB:.0f} MB |"
    )


def _cost(one: Measured) -> str:
    cpu = [[usage.cpu_seconds for usage in side] for side in (one.ours, one.promtool)]
    wall = [[usage.wall_seconds for usage in side] for side in (one.ours, one.promtool)]
    peaks = [max(usage.peak_bytes for usage in side) >> 20 for side in (one.ours, one.promtool)]
    return (
        f"| {one.shape.name} | {statistics.median(cpu[0]):.2f} s "
        f"| {statistics.median(cpu[1]):.2f} s | {ratio(*cpu)} | {ratio(*wall)} "
        f"| {peaks[0]} MiB | {peaks[1]} MiB |"
    )


def main() -> None:
    """Command line of the benchmark."""
    parser = argparse.ArgumentParser(prog="python -m bench.inspection", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="small blocks, two rounds")
    parser.add_argument("--output", type=Path, help="write the page there")
    arguments = parser.parse_args()
    divisor, rounds = (10, 2) if arguments.quick else (1, 5)
    shapes = (
        Shape("deep", 10_000 // divisor, 54),
        Shape("wide", 400_000 // divisor, 2),
    )
    # As an installation has it: modules are not compiled anew at each start.
    compileall.compile_dir(Path(prometheus_backup.__path__[0]), quiet=1)
    work = TOOLS / "inspect"
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    try:
        page = render([run(shape, rounds=rounds, work=work) for shape in shapes], rounds)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    if arguments.output:
        arguments.output.write_text(page)
    print(page)


if __name__ == "__main__":
    main()
