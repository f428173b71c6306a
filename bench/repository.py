"""Measures what many backups cost those who look at them: `python -m bench.repository`.

The store is in memory and the program runs in this process, so that CPU seconds, requests and bytes
are the program's alone. A store that is far away adds its answering time to each request.
"""

import argparse
import contextlib
import gc
import io
import os
import random
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from bench.many_backups import fill, made_up_backup
from bench.report import Target, table
from bench.tsdb_writer import BlockSpec, Labels, write_block
from devtools.fetch_prometheus import fetch as fetch_prometheus
from devtools.prometheus import PrometheusOptions, PrometheusServer
from prometheus_backup.cli import context as cli_context
from prometheus_backup.cli.commands.metrics import _reading as reading
from prometheus_backup.cli.context import CommandContext
from prometheus_backup.cli.main import run as run_cli
from prometheus_backup.events import ignore
from prometheus_backup.model import Layout
from prometheus_backup.report.plan import Forecasts
from prometheus_backup.repository.catalog import CatalogMemory
from prometheus_backup.repository.layout import MANIFEST
from prometheus_backup.retention.policy import Policy
from prometheus_backup.settings import SETTINGS
from tests.support.counting_store import CountingStore
from tests.support.runs import bare_environment, options, take_backup

TITLE = "Repositories with many backups"
_INTRODUCTION = """\
By `python -m bench.repository`: made-up backups in layout `archive`, 12 new blocks a night, in a
store in memory; the program runs in the same process. So the CPU seconds are the program's alone,
without its start. A store adds its answering time to each request: 16 are made at once.
"""
ROUNDS = 3
MB = 1_000_000
TWO_HOURS_MS = 7_200_000
KEEP_ALL = {"RETENTION_DAILY": "9999"}
UNCHANGED = PrometheusOptions(
    scrape_interval=None,
    min_block_duration="2h",
    extra_flags=("--storage.tsdb.max-block-duration=2h",),
)
"""As in `run.py`: no head, and nothing is compacted."""


@dataclass(frozen=True)
class Cost:
    """What one command cost: CPU seconds, and what it asked the store for."""

    cpu_seconds: float
    requests: int
    bytes_read: int
    read: tuple[str, ...]

    @property
    def manifests(self) -> int:
        """Return how many manifests were read."""
        return sum(key.endswith(f"/{MANIFEST}") for key in self.read)


def cost_of(store: CountingStore, action: Callable[[], object]) -> Cost:
    """Return what an action costs."""
    gc.collect()
    store.reset()
    began = time.process_time()
    action()
    seconds = time.process_time() - began
    return Cost(seconds, store.requests.total(), store.bytes_read, tuple(store.read))


def median(costs: list[Cost]) -> Cost:
    """Return the one with the median of the CPU seconds."""
    return sorted(costs, key=lambda c: c.cpu_seconds)[len(costs) // 2]


@contextlib.contextmanager
def command_line(store: CountingStore) -> Iterator[None]:
    """Let the program find this store, and nothing of the user's settings."""
    name, variables = "open_settings_store", dict(os.environ)
    opened = getattr(cli_context, name)
    setattr(cli_context, name, lambda *_, **__: store)
    os.environ.clear()
    os.environ.update(bare_environment({"REPOSITORY": "file:///bench", **KEEP_ALL}))
    try:
        yield
    finally:
        setattr(cli_context, name, opened)
        os.environ.clear()
        os.environ.update(variables)


def command(store: CountingStore, *arguments: str) -> Cost:
    """Return what a command costs, without the start of the program."""

    def run() -> None:
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
            code = run_cli(arguments)
        if code:
            raise SystemExit(f"{arguments}: exit code {code}\n{printed.getvalue()}")

    with command_line(store):
        return median([cost_of(store, run) for _ in range(ROUNDS)])


def refresh(store: CountingStore) -> Cost:
    """Return what a refresh of the exporter costs if nothing has changed."""
    values = {name: setting.default for name, setting in SETTINGS.items()}
    values |= {"repository": "file:///bench", "retention_daily": 9999, "metrics_labels": ()}
    context, memory = CommandContext.of(values, ignore), CatalogMemory()
    forecasts: Forecasts = {}

    def read() -> None:
        reading(context, hurried=False, memory=memory, forecasts=forecasts)

    with command_line(store):
        read()
        return median([cost_of(store, read) for _ in range(ROUNDS)])


@contextlib.contextmanager
def source(blocks: int) -> Iterator[PrometheusServer]:
    """Start a Prometheus with so many small blocks and no head."""
    with tempfile.TemporaryDirectory() as work:
        data_dir = Path(work) / "prometheus"
        newest = int(time.time()) // 7200 * 7_200_000 - TWO_HOURS_MS
        series: list[Labels] = [(("__name__", "bench_total"), ("job", "bench"))]
        for number in range(blocks):
            end = newest - (blocks - 1 - number) * TWO_HOURS_MS
            spec = BlockSpec(end - TWO_HOURS_MS, end, 60_000, 1, 1 << 20)
            write_block(data_dir, spec, series, random.Random(number))
        with PrometheusServer(fetch_prometheus(3), data_dir, UNCHANGED) as prometheus:
            yield prometheus


def nights(backups: int, blocks: int) -> tuple[Cost, Cost]:
    """Return the cost of an unchanged night beside one backup, and beside many."""
    chosen = options(layout=Layout.ARCHIVE, policy=Policy(daily=9999, monthly=0, yearly=0))
    with source(blocks) as prometheus:
        first = CountingStore()
        manifest = take_backup(prometheus, first, chosen).manifest
        costs: dict[int, list[Cost]] = {1: [], backups: []}
        for count, found in costs.items():
            for _ in range(ROUNDS):
                store = CountingStore()
                fill(store, manifest, nights=count)
                found.append(cost_of(store, partial(take_backup, prometheus, store, chosen)))
        return median(costs[1]), median(costs[backups])


@dataclass(frozen=True)
class Scale:
    """A repository to look at, and the limits for `list` and for a refresh of the exporter."""

    backups: int
    blocks: int
    cpu_seconds: float
    megabytes: float
    refresh_seconds: float | None = None

    @property
    def text(self) -> str:
        """Return it in words."""
        return f"{self.backups:,} backups of {self.blocks} blocks"


def looks(scale: Scale) -> Iterator[str]:
    """Yield the rows of what reading commands cost."""
    log(scale.text)
    store = CountingStore()
    fill(store, made_up_backup(scale.blocks, at=datetime.now(UTC)), nights=scale.backups)
    listed = command(store, "list")
    yield row(f"`list`, {scale.text}: CPU", scale.cpu_seconds, listed.cpu_seconds, " s")
    yield row("the same: bytes read", scale.megabytes, listed.bytes_read / MB, " MB")
    yield f"| the same: requests | | {listed.requests:,} | |"
    seen = refresh(store)
    what = f"`metrics` refresh, {scale.text}, nothing new: CPU"
    if scale.refresh_seconds is None:
        yield f"| {what} | | {seen.cpu_seconds:.2f} s | |"
    else:
        yield row(what, scale.refresh_seconds, seen.cpu_seconds, " s")
    yield f"| the same: bytes read, requests | | {seen.bytes_read}, {seen.requests:,} | |"
    identifier = min(f for f in store.list_folders() if f.startswith("backup-"))
    restored = command(store, "restore", identifier, "/nonexistent/target", "--dry-run")
    yield row("`restore ID`: manifests read", 1, restored.manifests)


def backups_taken(backups: int, blocks: int) -> Iterator[str]:
    """Yield the rows of what an unchanged night costs."""
    log(f"nights beside 1 and {backups} backups of {blocks} blocks")
    one, many = nights(backups, blocks)
    slower = many.cpu_seconds / one.cpu_seconds
    yield row(
        f"unchanged night beside {backups} backups of {blocks} blocks / beside 1: CPU", 1.3, slower
    )
    for count, night in ((1, one), (backups, many)):
        yield (
            f"| beside {count}: CPU, bytes read, requests | | {night.cpu_seconds:.2f} s, "
            f"{night.bytes_read / MB:.1f} MB, {night.requests:,} | |"
        )


def unchanged(blocks: int) -> Iterator[str]:
    """Yield the rows of what a night costs that finds all blocks in the archive."""
    log(f"{blocks} unchanged blocks")
    (night, _), objects = nights(1, blocks), 5 * blocks
    limit = 25 + 3 * -(-objects // 1000)
    yield row(f"second backup of {blocks:,} unchanged blocks: requests", limit, night.requests)


def row(what: str, limit: float, measured: float, unit: str = "") -> str:
    """Return a row of the table, and print it."""
    text = Target(what, limit, measured, unit).row()
    log(text)
    return text


def run_benchmarks(*, quick: bool) -> str:
    """Measure everything; return the section of the report."""
    divisor = 10 if quick else 1
    blocks = 1000 // divisor
    scales = [
        Scale(150 // divisor, 800 // divisor, cpu_seconds=1.5, megabytes=3, refresh_seconds=0.5),
        Scale(2000 // divisor, 30, cpu_seconds=3, megabytes=4),
    ]
    rows = [*unchanged(blocks), *backups_taken(scales[0].backups, scales[0].blocks)]
    for scale in scales:
        rows += looks(scale)
    return f"## {TITLE}\n\n{_INTRODUCTION}\n{table('', ('what', 'target', 'median', ''), rows)}"


def log(text: str) -> None:
    """Tell what is being measured."""
    print(text, file=sys.stderr, flush=True)


def main() -> None:
    """Command line of the benchmark."""
    parser = argparse.ArgumentParser(prog="python -m bench.repository", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a tenth of the backups and blocks")
    print(run_benchmarks(quick=parser.parse_args().quick))


if __name__ == "__main__":
    main()
