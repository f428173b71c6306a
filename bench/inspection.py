"""Compares block verification with promtool's: `python -m bench.inspection`.

Three blocks: a deep one, mostly chunks, a wide one, mostly series, and one whose series have label
values of their own. Both programs read each block completely in one process, in turns: `inspect`,
and `promtool tsdb analyze --extended`, the only promtool command that checks the checksum of every
chunk.
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
# Benchmark of block verification

Made by `python -m bench.inspection --output docs/benchmarks-inspect.md`; do not edit.

`prometheus-backup inspect BLOCK --processes 1` compared with `promtool tsdb analyze --extended`.
Each measurement covers a whole process; the two take turns on the same block. promtool decodes
every series and checks the checksum of every chunk. It does not check postings, order, chunks
without a series, counts or times. Rates are per second of CPU time, that is for one core, and
include the startup of Python. Ratios are ours divided by promtool's, calculated per round: median
(lowest-highest).

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

Every series in these blocks has eight labels and samples for the whole time range, in chunks of
120 random samples (about a kilobyte). The wide block resembles what Prometheus writes every two
hours, the deep one the result of compaction. In the unique block, every series has a label value
that no other series has, and every four share a second one: its symbols and postings are as many
as its series.

All numbers of the index are decoded with NumPy, a window at once, and checksums are calculated in
C. What remains in Python is to cut the bytes of each series and chunk out for its checksum, and to
read each symbol and each entry of the postings table. On the deep block, about a third of the CPU
time is the startup of Python, the program and NumPy; promtool is compiled and starts at once.
"""


@dataclass(frozen=True)
class Shape:
    """A block: its name, number of series, and hours with one sample per minute.

    `unique`: every series has a label value that no other series has.
    """

    name: str
    series: int
    hours: int
    unique: bool = False


@dataclass(frozen=True)
class Measurement:
    """A block, its contents, and the usage of both programs in each round."""

    shape: Shape
    report: BlockReport
    ours: Sequence[Usage]
    promtool: Sequence[Usage]

    def rate(self, amount: float) -> float:
        """Return `amount` per second of CPU time of our program, including its startup."""
        return amount / statistics.median(usage.cpu_seconds for usage in self.ours)


def _series(count: int) -> list[Labels]:
    """Return label sets like those of a Kubernetes cluster: a few hundred metrics of many pods."""
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


def _unique_series(count: int) -> list[Labels]:
    """Label sets of short-lived requests, jobs or containers, each with an identifier."""
    return [
        (
            ("__name__", "http_request_seconds_total"),
            ("cluster", "production"),
            ("code", "200"),
            ("id", f"{number:032x}"),
            ("job", "api"),
            ("method", "GET"),
            ("namespace", f"ns-{number % 50}"),
            ("pod", f"pod-{number // 4:05d}-x7f9k"),
        )
        for number in range(count)
    ]


def run(shape: Shape, *, rounds: int, work: Path) -> Measurement:
    """Write a block and measure both programs on it."""
    data = work / shape.name
    spec = BlockSpec(
        min_time_ms=START_MS,
        max_time_ms=START_MS + shape.hours * HOUR_MS,
        step_ms=60_000,
        level=1,
        segment_bytes=128 << 20,
    )
    series = _unique_series(shape.series) if shape.unique else _series(shape.series)
    block = write_block(data, spec, series, random.Random(1))
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
    usages: tuple[list[Usage], list[Usage]] = ([], [])
    for number in range(rounds + 1):
        for command, measured in zip(commands, usages, strict=True):
            usage = measure(command, work / "log")
            if number:  # the first is a warm-up
                measured.append(usage)
    return Measurement(shape, report, *usages)


def render(measurements: Sequence[Measurement], rounds: int) -> str:
    """Return the whole page."""
    deep, wide, _ = measurements
    chunk_rate = deep.rate(deep.report.chunk_bytes / MB)
    series_rate = wide.rate(wide.report.series / 1000)
    return _PAGE.format(
        machine=f"{platform.system()} {platform.release()}, Python {platform.python_version()}",
        rounds=rounds,
        targets="\n".join(
            [
                _target("chunk data per second, deep block", CHUNK_TARGET, chunk_rate, "MB"),
                _target("series per second, wide block", SERIES_TARGET, series_rate, "thousand"),
            ]
        ),
        content="\n".join(map(_content, measurements)),
        costs="\n".join(map(_cost, measurements)),
    )


def _target(what: str, least: float, measured: float, unit: str) -> str:
    result = "reached" if measured >= least else "**not reached**"
    return f"| {what} | at least {least} {unit} | {measured:.0f} {unit} | {result} |"


def _content(one: Measurement) -> str:
    report = one.report
    return (
        f"| {one.shape.name} | {report.series:,} | {report.total_chunks:,} "
        f"| {report.total_samples:,} | {report.index_bytes / MB:.0f} MB "
        f"| {report.chunk_bytes / MB:.0f} MB |"
    )


def _cost(one: Measurement) -> str:
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
    parser.add_argument("--output", type=Path, help="also write the page to this file")
    arguments = parser.parse_args()
    divisor, rounds = (10, 2) if arguments.quick else (1, 5)
    shapes = (
        Shape("deep", 10_000 // divisor, 54),
        Shape("wide", 400_000 // divisor, 2),
        Shape("unique", 100_000 // divisor, 2, unique=True),
    )
    # As in an installation: modules are not compiled again at each start.
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
