"""Measures many small files in a store that is far away: `python -m bench.latency`.

`restore` and `verify` run through a proxy that adds a round trip (`distance.py`), in turns with the
default settings and with CONCURRENCY=4, by which small files get no more workers than large ones.
"""

import argparse
import compileall
import platform
import random
import shutil
import statistics
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import prometheus_backup
from bench.distance import Distance
from bench.fetch_peers import TOOLS
from bench.generate import directory_bytes
from bench.measure import Command, Usage, measure, ratio
from bench.tsdb_writer import BlockSpec, Labels, write_block
from devtools.processes import clean_environment
from devtools.s3 import S3Endpoint
from devtools.seaweedfs import SeaweedFS
from prometheus_backup.transfer import SMALL_WORKERS

OURS = Path(sys.executable).with_name("prometheus-backup")
NARROW = "4"
"""CONCURRENCY of the comparison: the number of large files that are transferred at once."""
LIMIT = 1 / 3
BLOCKS, QUICK_BLOCKS = 800, 80
ROUNDS, QUICK_ROUNDS = 3, 1
ROUND_TRIP = 0.05  # seconds
_HOURS = timedelta(hours=2)
_STEP = timedelta(minutes=1)

_PAGE = """\
# Benchmark of small files in a store that is far away

Made by `python -m bench.latency --output docs/benchmarks-latency.md`; do not edit.

A proxy before the store delays every byte by half a round trip of {round_trip:.0f} ms. By default,
{wide} files under 1 MiB are transferred at once; with `CONCURRENCY={narrow}` it is {narrow}, the
default for large files. Each measurement covers a whole process; the two take turns. Ratios are
the default divided by `CONCURRENCY={narrow}`, calculated per round: median (lowest-highest).

- Machine: {machine}
- Data: {size:.1f} MB in {blocks} blocks, {files:,} files
- Rounds: {rounds}, after one warm-up

| what | target | wall time |  |
| --- | --- | --- | --- |
{targets}

| command | `CONCURRENCY` | wall time | CPU | highest peak |
| --- | --- | --- | --- | --- |
{costs}
"""


@dataclass(frozen=True)
class Measurement:
    """A command, and its usage in each round by default and with few workers."""

    name: str
    wide: Sequence[Usage]
    narrow: Sequence[Usage]


def write_blocks(folder: Path, count: int) -> int:
    """Write blocks of two hours and a few kilobytes that end yesterday; return their bytes."""
    first = datetime.now(UTC).replace(minute=0, second=0, microsecond=0) - count * _HOURS
    begin = int((first - timedelta(days=1)).timestamp() * 1000)
    hours, step = _HOURS // timedelta(milliseconds=1), _STEP // timedelta(milliseconds=1)
    begin -= begin % hours
    series: list[Labels] = [
        (("__name__", "up"), ("instance", f"node-{number}")) for number in range(5)
    ]
    for number in range(count):
        start = begin + number * hours
        spec = BlockSpec(start, start + hours, step, level=1, segment_bytes=128 << 20)
        write_block(folder, spec, series, random.Random(number))
    return directory_bytes(folder)


def run(
    server: S3Endpoint, work: Path, *, blocks: int, rounds: int, round_trip: float
) -> tuple[list[Measurement], int]:
    """Back up the blocks, then measure both commands; return the usages and the bytes."""
    data = work / "data"
    size = write_blocks(data, blocks)
    home, bucket = work / "home", server.new_bucket()
    settings = {**server.environment(), "S3_BUCKET": bucket.name, "S3_SSE": "none"}

    def command(*arguments: str | Path, endpoint: str, **more: str) -> Command:
        environment = clean_environment(home, **settings, S3_ENDPOINT_URL=endpoint, **more)
        return Command((str(OURS), *map(str, arguments)), environment)

    source = {"PROMETHEUS_DATA_DIR": str(data), "SNAPSHOT_MODE": "blocks"}
    measure(command("backup", endpoint=server.url, **source), work / "backup.log")
    target = work / "target"
    commands: Mapping[str, tuple[str | Path, ...]] = {
        "restore": ("restore", "latest", target, "--ignore-retention"),
        "verify": ("verify", "latest"),
    }
    found = []
    with Distance(server.url, round_trip=round_trip) as distance:
        for name, arguments in commands.items():
            sides: tuple[list[Usage], list[Usage]] = ([], [])
            for number in range(rounds + 1):
                for side, more in zip(sides, ({}, {"CONCURRENCY": NARROW}), strict=True):
                    usage = measure(
                        command(*arguments, endpoint=distance.url, **more), work / "run.log"
                    )
                    _log(f"{name} {more or 'default'}: {usage.wall_seconds:.2f} s")
                    if name == "restore":
                        assert directory_bytes(target) == size
                        shutil.rmtree(target)
                    if number:  # the first is a warm-up
                        side.append(usage)
            found.append(Measurement(name, *sides))
    return found, size


def render(
    measurements: Sequence[Measurement], *, size: int, blocks: int, rounds: int, round_trip: float
) -> str:
    """Return the whole page."""
    return _PAGE.format(
        round_trip=round_trip * 1000,
        narrow=NARROW,
        wide=SMALL_WORKERS,
        machine=f"{platform.system()} {platform.release()}, Python {platform.python_version()}",
        size=size / 1e6,
        blocks=blocks,
        files=4 * blocks,
        rounds=rounds,
        targets="\n".join(map(_target, measurements)),
        costs="\n".join(map(_costs, measurements)),
    )


def _walls(usages: Sequence[Usage]) -> list[float]:
    return [usage.wall_seconds for usage in usages]


def _target(one: Measurement) -> str:
    found = ratio(_walls(one.wide), _walls(one.narrow))
    result = "reached" if found.median <= LIMIT else "**not reached**"
    return f"| `{one.name}` | at most {LIMIT:.2f} | {found} | {result} |"


def _costs(one: Measurement) -> str:
    return "\n".join(
        f"| `{one.name}` | {width} | {statistics.median(_walls(side)):.1f} s "
        f"| {statistics.median(u.cpu_seconds for u in side):.1f} s "
        f"| {max(u.peak_bytes for u in side) >> 20} MiB |"
        for width, side in (("default", one.wide), (NARROW, one.narrow))
    )


def _log(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def main() -> None:
    """Command line of the benchmark."""
    parser = argparse.ArgumentParser(prog="python -m bench.latency", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="80 blocks, one round")
    parser.add_argument("--output", type=Path, help="also write the page to this file")
    arguments = parser.parse_args()
    blocks, rounds = (QUICK_BLOCKS, QUICK_ROUNDS) if arguments.quick else (BLOCKS, ROUNDS)
    # As in an installation: modules are not compiled again at each start.
    compileall.compile_dir(Path(prometheus_backup.__path__[0]), quiet=1)
    work = TOOLS / "latency"
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    try:
        with SeaweedFS(work / "seaweedfs") as seaweedfs:
            measured, size = run(
                seaweedfs.endpoint(), work, blocks=blocks, rounds=rounds, round_trip=ROUND_TRIP
            )
    finally:
        shutil.rmtree(work, ignore_errors=True)
    page = render(measured, size=size, blocks=blocks, rounds=rounds, round_trip=ROUND_TRIP)
    if arguments.output:
        arguments.output.write_text(page)
    print(page)


if __name__ == "__main__":
    main()
