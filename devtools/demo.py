"""`make demo`: a real Prometheus backed up to a real S3 server, verified, restored and compared.

Everything runs on 127.0.0.1 in a temporary directory and is removed at the end, also after Ctrl-C.
The commands are those that users type. The exit code is 1 if any result is not as expected.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import FrameType

from devtools import fetch_prometheus
from devtools.blocks import BLOCK_LENGTH, BlockSpec, write_openmetrics_blocks
from devtools.processes import clean_environment
from devtools.prometheus import PrometheusOptions, PrometheusServer
from devtools.seaweedfs import SeaweedFS

BUCKET = "health-tracker-prometheus-backups"
PREFIX = "prometheus-snapshots"
METRIC = "health_tracker_active_users"

_WIDTH = 100
_BLOCKS = 8
_SERIES = 200
_STEP = timedelta(seconds=15)
# Prevents compaction, so that the second backup has the same blocks as the first.
_SOURCE = PrometheusOptions(extra_flags=("--storage.tsdb.max-block-duration=2h",))
_SETTLED = timedelta(seconds=2)  # older scrapes are certainly in the head
_QUERIES = (
    f"sum_over_time({METRIC}[30h])",
    f"quantile_over_time(0.99, {METRIC}[30h])",
    '{job="self"}',
)


class DemoError(Exception):
    """A result is not as expected."""


@dataclass(frozen=True)
class Shell:
    """Runs the installed command line as a user would, and shows its output."""

    directory: Path
    environment: dict[str, str]

    def __call__(self, command: str, *, skip: int = 0, lines: int | None = None) -> str:
        """Run `prometheus-backup COMMAND`; show at most `lines` lines of output, after `skip`."""
        print(f"$ prometheus-backup {command}", flush=True)
        output = self.run(command)
        shown = [line.rstrip() for line in output.splitlines() if line.strip()]
        last = len(shown) if lines is None else min(skip + lines, len(shown))
        _print_omitted(skip)
        for line in shown[skip:last]:
            _print_line(line)
        _print_omitted(len(shown) - last)
        return output

    def run(self, command: str) -> str:
        """Run it and return its standard output; raise DemoError if it fails."""
        program = Path(sys.executable).with_name("prometheus-backup")
        child = subprocess.Popen(
            ["setpriv", "--pdeathsig", "TERM", "--", program, *command.split()],
            cwd=self.directory,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,  # Ctrl-C goes to the demo, which then stops it cleanly
        )
        try:
            output, log = child.communicate(timeout=120)
        except BaseException:
            child.terminate()
            child.communicate(timeout=60)
            raise
        if child.returncode != 0:
            raise DemoError(
                f"`prometheus-backup {command}` ended with {child.returncode}:\n{output}{log}"
            )
        return output


class Stop:
    """Turns the first SIGINT or SIGTERM into KeyboardInterrupt, but never between the start of a
    server and the registration of its cleanup."""

    def __init__(self) -> None:
        """Install the signal handlers."""
        self._requested = False
        self._deferring = False
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._on_signal)

    @contextlib.contextmanager
    def deferred(self) -> Iterator[None]:
        """Defer a signal until the end of the block."""
        self._deferring = True
        try:
            yield
        finally:
            self._deferring = False
        if self._requested:
            raise KeyboardInterrupt

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        del number, frame
        first, self._requested = not self._requested, True
        if first and not self._deferring:
            raise KeyboardInterrupt


def main() -> int:
    """Run the demo; return the exit code."""
    stop = Stop()
    began = time.monotonic()
    try:
        with tempfile.TemporaryDirectory(prefix="prometheus-backup-demo-") as directory:
            _demo(Path(directory), stop)
    except KeyboardInterrupt:
        print("\nstopped; everything was cleaned up", file=sys.stderr)
        return 130
    except (DemoError, RuntimeError, OSError) as error:
        print(f"\nthe demo failed: {error}", file=sys.stderr)
        return 1
    print(
        f"All results as expected, in {time.monotonic() - began:.0f} s. Everything was cleaned up."
    )
    return 0


def _demo(directory: Path, stop: Stop) -> None:
    binaries = fetch_prometheus.find(max(fetch_prometheus.MAJORS))
    print(
        f"Starting Prometheus {binaries.version} and an S3 server (SeaweedFS) on 127.0.0.1."
        f"\nPrometheus has {_BLOCKS} blocks of two hours, and newer samples in memory.",
        flush=True,
    )
    blocks_end = _write_blocks(directory / "data", binaries.promtool)
    with contextlib.ExitStack() as servers:
        with stop.deferred():
            storage = servers.enter_context(SeaweedFS(directory / "s3"))
        storage.endpoint().new_bucket(BUCKET)
        with stop.deferred():
            source = PrometheusServer(binaries, directory / "data", _SOURCE)
            servers.callback(source.kill)  # faster than a clean stop; the data is deleted anyway
        # Immediately: after its first scrape, Prometheus rejects samples more than an hour older.
        source.fill_head(
            series=_SERIES,
            span=datetime.now(UTC) - blocks_end - _STEP,
            step=_STEP,
            metric=METRIC,
        )
        settings = {
            "PROMETHEUS_URL": source.url,
            "PROMETHEUS_DATA_DIR": "data",
            "S3_BUCKET": BUCKET,
            "S3_ENDPOINT_URL": storage.url,
            "FINGERPRINT_QUERY": f"sum(count_over_time({METRIC}[30h]))",
        }
        words = [f"{name}={value}" for name, value in settings.items()]
        print(*(f"$ export {' '.join(words[n : n + 2])}" for n in (0, 2, 4)), sep="\n")
        environment = clean_environment(
            directory / "home",
            PATH=f"{binaries.prometheus.parent}:{os.environ.get('PATH', os.defpath)}",
            **settings,
            **storage.endpoint().environment(),
        )
        shell = Shell(directory, environment)
        at = _back_up(shell, source)
        _drill(shell)
        flag = _restore(shell)
        print(f"$ prometheus --storage.tsdb.path=restored {flag} ...", flush=True)
        options = PrometheusOptions(
            scrape_interval=None, admin_api=False, retention=None, extra_flags=(flag,)
        )
        with stop.deferred():
            restored = PrometheusServer(binaries, directory / "restored", options)
            servers.callback(restored.kill)
        _compare(source, restored, at)


def _write_blocks(data_dir: Path, promtool: Path) -> datetime:
    """Write blocks up to the recent past, as Prometheus would have; return their end."""
    recent = datetime.now(UTC) - timedelta(minutes=30)
    end = recent - (recent - datetime(1970, 1, 1, tzinfo=UTC)) % BLOCK_LENGTH
    spec = BlockSpec(
        start=end - _BLOCKS * BLOCK_LENGTH,
        blocks=_BLOCKS,
        series=_SERIES,
        step=_STEP,
        metric=METRIC,
    )
    write_openmetrics_blocks(data_dir, promtool, spec)
    return end


def _back_up(shell: Shell, source: PrometheusServer) -> datetime:
    """Make two backups and show them; return an instant that the second one certainly covers."""
    shell("check", lines=1)
    shell("backup", lines=3)
    source.wait_until_scraped()
    at = datetime.now(UTC)
    time.sleep(_SETTLED.total_seconds())
    print("Prometheus keeps scraping. The second backup uploads only what is new:")
    shell("backup", skip=1, lines=3)
    totals = json.loads(shell.run("show latest --json"))["manifest"]["totals"]
    if not 0 < totals["uploaded_bytes"] < totals["copied_bytes"]:
        raise DemoError(f"the second backup was not incremental: {totals}")
    shell("list")
    shell("verify --all")
    shell("prune --dry-run", skip=3)
    left = list((shell.directory / "data" / "snapshots").iterdir())
    if left:
        raise DemoError(f"snapshots were left in the data directory: {left}")
    return at


def _drill(shell: Shell) -> None:
    """Drill the newest backup: restore it, start Prometheus on it and compare query results."""
    shell("drill latest --scratch scratch", skip=1, lines=3)
    result = json.loads(shell.run("show latest --json"))["verifications"]
    if [one["verdict"] for one in result if one["level"] == "drill"] != ["pass"]:
        raise DemoError(f"the drill did not pass: {result}")
    left = list((shell.directory / "scratch").iterdir())
    if left:
        raise DemoError(f"the drill left something behind: {left}")


def _restore(shell: Shell) -> str:
    """Restore the newest backup; return the Prometheus flag that the command prints."""
    output = shell("restore latest restored", lines=3, skip=_BLOCKS + 2)
    flags = [word for word in output.split() if word.startswith("--storage.tsdb.retention.time=")]
    if len(flags) != 1:
        raise DemoError(f"`restore` did not print the retention flag:\n{output}")
    return flags[0]


def _compare(source: PrometheusServer, restored: PrometheusServer, at: datetime) -> None:
    print(f"Comparing query results of both at {at:%Y-%m-%d %H:%M:%S} UTC, series by series:")
    for query in _QUERIES:
        expected, found = _answers(source, query, at), _answers(restored, query, at)
        if not expected:
            raise DemoError(f"{query}: the source returns no result")
        if expected != found:
            differ = [k for k in expected.keys() | found.keys() if expected.get(k) != found.get(k)]
            raise DemoError(
                f"{query}: {len(differ)} of {len(expected)} series differ, the first is {differ[0]}"
                f": expected {expected.get(differ[0])}, got {found.get(differ[0])}"
            )
        _print_line(f"{query:<60}  {len(found):>3} series, every value equal")


def _answers(server: PrometheusServer, query: str, at: datetime) -> dict[str, str]:
    return {json.dumps(one["metric"]): str(one["value"][1]) for one in server.query(query, at)}


def _print_line(line: str) -> None:
    """Print one line of output, truncated to the screen width."""
    print("  " + (line if len(line) <= _WIDTH - 2 else line[: _WIDTH - 5] + "..."), flush=True)


def _print_omitted(count: int) -> None:
    if count:
        _print_line(f"... ({count} more {'line' if count == 1 else 'lines'})")


if __name__ == "__main__":
    sys.exit(main())
