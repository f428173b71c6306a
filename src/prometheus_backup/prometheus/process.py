"""A Prometheus of our own: started on a directory, reachable on loopback only, ended with us.

It scrapes, compacts and drops nothing. Whether it is ready is for the caller to ask.
"""

import contextlib
import os
import re
import secrets
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from types import FrameType
from typing import Self

from prometheus_backup.errors import UsageError

_LOOPBACK = "127.0.0.1"
_FOREVER = "100y"
_ENVIRONMENT = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "TZ": "UTC"}
"""Not ours: what it does must not depend on that, and our credentials are none of its business."""
_LANGUAGE = ",".join(
    (
        "promql-experimental-functions",
        "promql-duration-expr",
        "promql-extended-range-selectors",
        "promql-binop-fill-modifiers",
    )
)
"""What a source's queries may use. They change no query that does without, and a Prometheus that
does not know one says so in its log, no more (cmd/prometheus/main.go, setFeatureListOptions)."""
_CAN_LEAVE_OVERLAPS = 3
"""The first major version of which every release has the flag. A 2.x merges blocks that overlap,
once it has run for a minute: the answers stay the same."""
_VERSION_WITHIN = 30.0  # seconds
_KILLED_WITHIN = 30.0
_LOG_END = 256 * 1024  # bytes of a log that are looked at

# The kernel kills it with us, also where we are killed by SIGKILL: prctl(2), PR_SET_PDEATHSIG.
_DIE_WITH_PARENT = f"""
import ctypes, os, sys
ctypes.CDLL(None).prctl(1, {int(signal.SIGKILL)})
if os.getppid() == int(sys.argv[1]):
    os.execv(sys.argv[2], sys.argv[2:])
"""


@contextlib.contextmanager
def undisturbed() -> Iterator[None]:
    """Let a signal to stop wait until the end of the block.

    A process that was started, and is not yet noted as started, would be left alone with it.
    """
    if threading.current_thread() is not threading.main_thread():
        yield  # signals come to the main thread only
        return
    came: list[tuple[int, FrameType | None]] = []

    def note(number: int, frame: FrameType | None) -> None:
        came.append((number, frame))

    before = {n: signal.signal(n, note) for n in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    for arrived, frame in came:
        handler = before[signal.Signals(arrived)]
        if callable(handler):
            handler(arrived, frame)


@dataclass(frozen=True, slots=True)
class PrometheusBinary:
    """A Prometheus that can be started, and its version."""

    path: Path
    version: str

    @property
    def major(self) -> int:
        """Return the major version, 0 where it is none that is known."""
        number = self.version.partition(".")[0]
        return int(number) if number.isdecimal() else 0

    @classmethod
    def at(cls, path: Path) -> Self:
        """Ask a program for its version. Raises UsageError where it is no working Prometheus."""
        try:
            done = subprocess.run(
                [path, "--version"],
                env=_ENVIRONMENT,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=_VERSION_WITHIN,
                check=False,
            )
            said = (done.stdout + done.stderr).decode(errors="replace")
            cause = f"it ended with {done.returncode}: {_printable(said.strip())[:200]!r}"
        except OSError as error:
            said, cause = "", error.strerror or str(error)
        except subprocess.TimeoutExpired:
            said, cause = "", f"it did not say its version in {_VERSION_WITHIN:.0f} s"
        found = re.search(r"^prometheus, version (\S+)", said, re.MULTILINE)
        if found is None:
            raise UsageError(
                f"cannot use {path} as Prometheus: {cause}",
                hint="name a Prometheus server with --prometheus-binary",
            )
        return cls(path, found[1])


class LocalPrometheus:
    """One process on one data directory; a context manager that kills it. Start it `undisturbed`.

    It is not asked to stop: that takes longer, and the directory is thrown away.
    """

    def __init__(
        self, binary: PrometheusBinary, data: Path, *, run: Path, lookback: timedelta
    ) -> None:
        """Start it. The configuration and the log are written below `run`."""
        self._log = run / "prometheus.log"
        config = run / "prometheus.yml"
        config.write_text("{}\n")
        port = _free_port()
        # A prefix that nobody else has: what answers below it is this process, and no other.
        prefix = f"/{secrets.token_hex(8)}"
        self.url = f"http://{_LOOPBACK}:{port}{prefix}"
        flags = [
            f"--config.file={config}",
            f"--storage.tsdb.path={data}",
            f"--storage.tsdb.retention.time={_FOREVER}",
            # Equal, and longer than any block: nothing is ever due to be compacted.
            f"--storage.tsdb.min-block-duration={_FOREVER}",
            f"--storage.tsdb.max-block-duration={_FOREVER}",
            f"--query.lookback-delta={lookback // timedelta(milliseconds=1)}ms",
            f"--web.listen-address={_LOOPBACK}:{port}",
            f"--web.route-prefix={prefix}",
            f"--enable-feature={_LANGUAGE}",
        ]
        if binary.major >= _CAN_LEAVE_OVERLAPS:
            flags.append("--no-storage.tsdb.allow-overlapping-compaction")
        with self._log.open("ab") as log:
            self._child = subprocess.Popen(
                [*_dying_with(os.getpid()), str(binary.path), *flags],
                env=_ENVIRONMENT,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=run,
                start_new_session=True,  # Ctrl-C is for us: we then end it in our order
            )

    @property
    def exit_code(self) -> int | None:
        """Return how it ended, negative for a signal; None while it runs."""
        return self._child.poll()

    def log(self) -> list[str]:
        """Return the last lines of its log, fit to be shown."""
        with self._log.open("rb") as log:
            log.seek(max(0, self._log.stat().st_size - _LOG_END))
            return [_printable(line) for line in log.read().decode(errors="replace").splitlines()]

    def kill(self) -> None:
        """End it, and wait until it has ended."""
        if self._child.poll() is None:
            self._child.kill()
            self._child.wait(_KILLED_WITHIN)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.kill()


def _dying_with(parent: int) -> list[str]:
    return [sys.executable, "-I", "-S", "-c", _DIE_WITH_PARENT, str(parent)]


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((_LOOPBACK, 0))
        port = probe.getsockname()[1]
    assert isinstance(port, int)  # noqa: S101 -- for the types
    return port


def _printable(text: str) -> str:
    return "".join(c if c.isprintable() else " " for c in text)
