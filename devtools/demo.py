"""`make demo`: a real Prometheus backed up to a real S3 server, verified, restored and compared.

Everything runs on 127.0.0.1 in a temporary directory and is gone at the end, also after Ctrl-C.
The commands are the ones that users type; the exit code is 1 where anything is not as it must be.
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
# With one length alone nothing is compacted: the second backup finds the blocks of the first.
_SOURCE = PrometheusOptions(extra_flags=("--storage.tsdb.max-block-duration=2h",))
_SETTLED = timedelta(seconds=2)  # scrapes of that age are in the head for sure
_QUERIES = (
    f"sum_over_time({METRIC}[30h])",
    f"quantile_over_time(0.99, {METRIC}[30h])",
    '{job="self"}',
)


class DemoError(Exception):
    """Something is not as it must be."""


@dataclass(frozen=True)
class Shell:
    """Runs the installed command line as a user would, and shows what it says."""

    directory: Path
    environment: dict[str, str]

    def __call__(self, command: str, *, skip: int = 0, lines: int | None = None) -> str:
        """Run `prometheus-backup COMMAND`; show its output, at most `lines` after `skip`."""
        print(f"$ prometheus-backup {command}", flush=True)
        output = self.run(command)
        shown = [line.rstrip() for line in output.splitlines() if line.strip()]
        last = len(shown) if lines is None else min(skip + lines, len(shown))
        _say_left_out(skip)
        for line in shown[skip:last]:
            _say(line)
        _say_left_out(len(shown) - last)
        return output

    def run(self, command: str) -> str:
        """Run it, and return its standard output; raise DemoError if it fails."""
        program = Path(sys.executable).with_name("prometheus-backup")
        child = subprocess.Popen(
            ["setpriv", "--pdeathsig", "TERM", "--", program, *command.split()],
            cwd=self.directory,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,  # Ctrl-C is for us: we then end it in good order
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
    """Turns the first SIGINT or SIGTERM into KeyboardInterrupt, but never between a server's start
    and the note that it must be stopped."""

    def __init__(self) -> None:
        """Take both signals over."""
        self._asked = False
        self._shielded = False
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._hear)

    @contextlib.contextmanager
    def held_back(self) -> Iterator[None]:
        """Let a signal wait until the end of the block."""
        self._shielded = True
        try:
            yield
        finally:
            self._shielded = False
        if self._asked:
            raise KeyboardInterrupt

    def _hear(self, number: int, frame: FrameType | None) -> None:
        del number, frame
        first, self._asked = not self._asked, True
        if first and not self._shielded:
            raise KeyboardInterrupt


def main() -> int:
    """Run the demo; return the exit code."""
    stop = Stop()
    began = time.monotonic()
    try:
        with tempfile.TemporaryDirectory(prefix="prometheus-backup-demo-") as directory:
            _demo(Path(directory), stop)
    except KeyboardInterrupt:
        print("\nstopped; everything that was started is gone", file=sys.stderr)
        return 130
    except (DemoError, RuntimeError, OSError) as error:
        print(f"\nthe demo failed: {error}", file=sys.stderr)
        return 1
    print(f"All as it must be, in {time.monotonic() - began:.0f} s. Everything is cleaned up.")
    return 0


def _demo(directory: Path, stop: Stop) -> None:
    binaries = fetch_prometheus.find(max(fetch_prometheus.MAJORS))
    print(
        f"Prometheus {binaries.version} and an S3 server (SeaweedFS) start on 127.0.0.1. Prometheus"
        f"\nhas {_BLOCKS} blocks of two hours, and in memory what came after them.",
        flush=True,
    )
    blocks_end = _write_blocks(directory / "data", binaries.promtool)
    with contextlib.ExitStack() as servers:
        with stop.held_back():
            storage = servers.enter_context(SeaweedFS(directory / "s3"))
        storage.endpoint().new_bucket(BUCKET)
        with stop.held_back():
            source = PrometheusServer(binaries, directory / "data", _SOURCE)
            servers.callback(source.kill)  # an orderly stop takes longer; the data is thrown away
        # At once: after the first scrape of itself, it takes no samples that are an hour older.
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
        with stop.held_back():
            restored = PrometheusServer(binaries, directory / "restored", options)
            servers.callback(restored.kill)
        _compare(source, restored, at)


def _write_blocks(data_dir: Path, promtool: Path) -> datetime:
    """Write blocks that end lately, as Prometheus itself would have; return their end."""
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
    """Take two backups, look at them; return an instant that the second one holds for sure."""
    shell("check", lines=1)
    shell("backup", lines=3)
    source.wait_until_scraped()
    at = datetime.now(UTC)
    time.sleep(_SETTLED.total_seconds())
    print("Prometheus went on scraping. The second backup sends only what is new:")
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
    """Have the program restore the newest backup aside, start Prometheus on it, and compare."""
    shell("drill latest --scratch scratch", skip=1, lines=4)
    result = json.loads(shell.run("show latest --json"))["verifications"]
    if [one["verdict"] for one in result if one["level"] == "drill"] != ["pass"]:
        raise DemoError(f"the drill did not pass: {result}")
    left = list((shell.directory / "scratch").iterdir())
    if left:
        raise DemoError(f"the drill left something behind: {left}")


def _restore(shell: Shell) -> str:
    """Restore the newest backup; return the flag that the command says Prometheus needs."""
    output = shell("restore latest restored", skip=_BLOCKS + 2)
    flags = [word for word in output.split() if word.startswith("--storage.tsdb.retention.time=")]
    if len(flags) != 1:
        raise DemoError(f"`restore` did not say which retention is needed:\n{output}")
    return flags[0]


def _compare(source: PrometheusServer, restored: PrometheusServer, at: datetime) -> None:
    print(f"Both are asked the same at {at:%Y-%m-%d %H:%M:%S} UTC, series by series:")
    for query in _QUERIES:
        expected, found = _answers(source, query, at), _answers(restored, query, at)
        if not expected:
            raise DemoError(f"{query}: the source has no answer")
        if expected != found:
            differ = [k for k in expected.keys() | found.keys() if expected.get(k) != found.get(k)]
            raise DemoError(
                f"{query}: {len(differ)} of {len(expected)} series differ, the first is {differ[0]}"
                f": {expected.get(differ[0])} before, {found.get(differ[0])} after"
            )
        _say(f"{query:<60}  {len(found):>3} series, every value equal")


def _answers(server: PrometheusServer, query: str, at: datetime) -> dict[str, str]:
    return {json.dumps(one["metric"]): str(one["value"][1]) for one in server.query(query, at)}


def _say(line: str) -> None:
    """Print one line of output, cut to the width of the screen."""
    print("  " + (line if len(line) <= _WIDTH - 2 else line[: _WIDTH - 5] + "..."), flush=True)


def _say_left_out(count: int) -> None:
    if count:
        _say(f"... ({count} more {'line' if count == 1 else 'lines'})")


if __name__ == "__main__":
    sys.exit(main())
