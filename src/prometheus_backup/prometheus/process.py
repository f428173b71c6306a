"""Start a Prometheus server on a data directory. It listens on loopback only and ends with us.

It does not scrape, compact, or delete data. The caller must wait until it is ready.
"""

import contextlib
import json
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
from prometheus_backup.folder import Folder
from prometheus_backup.prometheus.query_settings import QuerySettings

_LOOPBACK = "127.0.0.1"
_FOREVER = "100y"
_ENVIRONMENT = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "TZ": "UTC"}
"""Not our own environment: it could change the server's behaviour, and contains credentials."""
_FEATURES = (
    "promql-experimental-functions",
    "promql-duration-expr",
    "promql-extended-range-selectors",
    "promql-binop-fill-modifiers",
)
"""PromQL features that the source's queries may use. They do not change other queries, and a
Prometheus that does not know one only logs it (cmd/prometheus/main.go, setFeatureListOptions)."""
_OVERLAP_FLAG_MAJOR = 3
"""The first major version in which every release has the flag. A 2.x merges overlapping blocks
after a minute, which does not change query results."""
_VERSION_TIMEOUT = 30.0  # seconds
_KILL_TIMEOUT = 30.0
_CONFIG, _LOG = "prometheus.yml", "prometheus.log"
_LOG_TAIL = 256 * 1024  # bytes

# The kernel kills it with us, even if we are killed by SIGKILL: prctl(2), PR_SET_PDEATHSIG.
_DIE_WITH_PARENT = f"""
import ctypes, os, sys
ctypes.CDLL(None).prctl(1, {int(signal.SIGKILL)})
os.fchdir(int(sys.argv[2]))
if os.getppid() == int(sys.argv[1]):
    os.execv(sys.argv[3], sys.argv[3:])
"""


@contextlib.contextmanager
def deferred_signals() -> Iterator[None]:
    """Defer SIGINT, SIGTERM and SIGHUP until the end of the block.

    Otherwise a signal could leave a process running that was started but is not registered yet.
    """
    if threading.current_thread() is not threading.main_thread():
        yield  # Python handles signals in the main thread only
        return
    received: list[tuple[int, FrameType | None]] = []

    def defer(number: int, frame: FrameType | None) -> None:
        received.append((number, frame))

    stops = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    handlers = {n: signal.signal(n, defer) for n in stops}
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    for deferred, frame in received:
        handler = handlers[signal.Signals(deferred)]
        if callable(handler):
            handler(deferred, frame)


@dataclass(frozen=True, slots=True)
class PrometheusBinary:
    """A Prometheus server binary and its version."""

    path: Path
    version: str

    @property
    def major(self) -> int:
        """Return the major version, 0 if it is unknown."""
        number = self.version.partition(".")[0]
        return int(number) if number.isdecimal() else 0

    @classmethod
    def at(cls, path: Path) -> Self:
        """Run a program for its version. Raises UsageError if it is not a working Prometheus."""
        try:
            done = subprocess.run(
                [path, "--version"],
                env=_ENVIRONMENT,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=_VERSION_TIMEOUT,
                check=False,
            )
            output = (done.stdout + done.stderr).decode(errors="replace")
            cause = f"exit code {done.returncode}: {_printable(output.strip())[:200]!r}"
        except OSError as error:
            output, cause = "", error.strerror or str(error)
        except subprocess.TimeoutExpired:
            output, cause = "", f"it did not print its version within {_VERSION_TIMEOUT:.0f} s"
        found = re.search(r"^prometheus, version (\S+)", output, re.MULTILINE)
        if found is None:
            raise UsageError(
                f"cannot use {path} as Prometheus: {cause}",
                hint="set --prometheus-binary to the path of a Prometheus server",
            )
        return cls(path, found[1])


class LocalPrometheus:
    """A Prometheus process. Start it inside `deferred_signals`; as a context manager, it is killed.

    It is not stopped gracefully: that takes longer, and its data directory is discarded anyway.
    """

    def __init__(
        self,
        binary: PrometheusBinary,
        data: str,
        *,
        run: Folder,
        queries: QuerySettings,
        port: int | None = None,
    ) -> None:
        """Start the process in `run`, where its configuration and log are written.

        `data` is the path of its data directory, seen from there. Without a port, a free one and a
        random path prefix are chosen: with the prefix, a response can only come from this process.
        With a port there is no prefix: the address is for people.
        """
        self._run = run
        interval = queries.evaluation_interval
        settings = {"evaluation_interval": _milliseconds(interval)} if interval else {}
        run.write(_CONFIG, json.dumps({"global": settings}).encode() + b"\n")
        self._features = tuple(dict.fromkeys((*_FEATURES, *queries.features)))
        prefix = f"/{secrets.token_hex(8)}" if port is None else ""
        port = free_port() if port is None else port
        self.url = f"http://{_LOOPBACK}:{port}{prefix}"
        flags = [
            f"--config.file={_CONFIG}",
            f"--storage.tsdb.path={data}",
            f"--storage.tsdb.retention.time={_FOREVER}",
            # Equal, and longer than any block: no compaction is ever due.
            f"--storage.tsdb.min-block-duration={_FOREVER}",
            f"--storage.tsdb.max-block-duration={_FOREVER}",
            f"--query.lookback-delta={_milliseconds(queries.lookback)}",
            f"--web.listen-address={_LOOPBACK}:{port}",
            f"--web.route-prefix={prefix or '/'}",
            f"--enable-feature={','.join(self._features)}",
        ]
        if binary.major >= _OVERLAP_FLAG_MAJOR:
            flags.append("--no-storage.tsdb.allow-overlapping-compaction")
        program = str(binary.path.absolute())
        with run.create(_LOG) as log:
            self._child = subprocess.Popen(
                [*_die_with_parent(os.getpid(), run.fileno()), program, *flags],
                env=_ENVIRONMENT,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                pass_fds=[run.fileno()],
                start_new_session=True,  # Ctrl-C must reach only us: we kill it during clean-up
            )

    @property
    def exit_code(self) -> int | None:
        """Return the exit code, negative for a signal; None while it runs."""
        return self._child.poll()

    def log(self) -> list[str]:
        """Return the last lines of its log, without control characters."""
        with self._run.reader(_LOG) as log:
            log.seek(max(0, os.fstat(log.fileno()).st_size - _LOG_TAIL))
            return [_printable(line) for line in log.read().decode(errors="replace").splitlines()]

    @property
    def port_was_taken(self) -> bool:
        """Return whether it could not listen because another process does."""
        return any("address already in use" in line for line in self.log())

    def unknown_features(self) -> tuple[str, ...]:
        """Return the features that it was started with and that it says it does not know.

        Only those of the source: it may well not know those that queries may use.
        """
        with self._run.reader(_LOG) as log:
            text = log.read(_LOG_TAIL).decode(errors="replace")
        named = set(re.findall(r"Unknown option for --enable-feature.*option=(\S+)", text))
        return tuple(f for f in self._features if f in named and f not in _FEATURES)

    def kill(self) -> None:
        """Kill the process and wait for it."""
        if self._child.poll() is None:
            self._child.kill()
            self._child.wait(_KILL_TIMEOUT)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.kill()


def _die_with_parent(parent: int, folder: int) -> list[str]:
    return [sys.executable, "-I", "-S", "-c", _DIE_WITH_PARENT, str(parent), str(folder)]


def _milliseconds(duration: timedelta) -> str:
    return f"{duration // timedelta(milliseconds=1)}ms"


def free_port() -> int:
    """Return a port of the loopback address that is free now."""
    with socket.socket() as probe:
        probe.bind((_LOOPBACK, 0))
        port = probe.getsockname()[1]
    assert isinstance(port, int)  # noqa: S101 -- for the types
    return port


def _printable(text: str) -> str:
    return "".join(c if c.isprintable() else " " for c in text)
