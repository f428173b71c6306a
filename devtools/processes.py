"""Runs a server process: free loopback ports, a clean environment, a log, a clean stop.

A process is only stopped by its own pid. It is killed when the thread that started it ends
(`setpriv --pdeathsig`), so that a killed test run leaves no process behind.
"""

import os
import random
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Self, TypeVar

import psutil

T = TypeVar("T")

# Below Linux' range for outgoing connections (32768-60999), so that none of them takes a free port
# before the server binds it.
_PORTS = range(15000, 32000)
_port_choice = random.Random()

LOOPBACK = "127.0.0.1"


class ProcessFailedError(RuntimeError):
    """A process did not start or did not stop; the message quotes the end of its log."""


class PortTakenError(ProcessFailedError):
    """Another process has taken the port meanwhile: try again with other ports."""


def free_ports(count: int) -> list[int]:
    """Return `count` different ports that are free on all addresses of this machine."""
    found: list[int] = []
    while len(found) < count:
        port = _port_choice.choice(_PORTS)
        if port not in found and _is_free(port):
            found.append(port)
    return found


def free_port() -> int:
    """Return a free port."""
    return free_ports(1)[0]


def _is_free(port: int) -> bool:
    # Both addresses: despite a server on 0.0.0.0, some programs can bind 127.0.0.1.
    for address in (LOOPBACK, "0.0.0.0"):  # noqa: S104 - probed and closed, never served
        with socket.socket() as probe:
            try:
                probe.bind((address, port))
            except OSError:
                return False
    return True


def with_free_ports(count: int, start: Callable[[list[int]], T], attempts: int = 5) -> T:
    """Call `start` with free ports; on `PortTakenError`, try again with other ports."""
    for _ in range(attempts - 1):
        try:
            return start(free_ports(count))
        except PortTakenError:
            continue
    return start(free_ports(count))


def clean_environment(home: Path, **variables: str) -> dict[str, str]:
    """An environment without proxies, credentials, CA overrides or the user's own settings."""
    home.mkdir(parents=True, exist_ok=True)
    return {
        "PATH": os.environ.get("PATH", os.defpath),
        "HOME": str(home),
        "TMPDIR": str(home),
        "LC_ALL": "C.UTF-8",
        "TZ": "UTC",
        **variables,
    }


class Process:
    """A started program; a context manager that stops it."""

    def __init__(
        self,
        name: str,
        command: Sequence[str | Path],
        *,
        log: Path,
        environment: dict[str, str],
        user: int | None = None,
    ) -> None:
        """Start `command`, appending its output to `log`, as uid and gid `user` if given."""
        identity = [f"--reuid={user}", f"--regid={user}", "--clear-groups"] if user else []
        self.name = name
        self.log = log
        log.parent.mkdir(parents=True, exist_ok=True)
        self._log_start = log.stat().st_size if log.exists() else 0
        with log.open("ab") as output:
            self._child = subprocess.Popen(
                ["setpriv", *identity, "--pdeathsig", "KILL", "--", *map(str, command)],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=environment,
                cwd=log.parent,
                start_new_session=True,  # Ctrl-C goes to the test run, which then stops it
            )

    @property
    def pid(self) -> int:
        """The process id, valid until it is stopped."""
        return self._child.pid

    @property
    def running(self) -> bool:
        """Whether it is still running."""
        return self._child.poll() is None

    @property
    def exit_code(self) -> int | None:
        """The exit code, negative for a signal; None while it runs."""
        return self._child.poll()

    def log_text(self) -> str:
        """Return the log of this process, without that of earlier ones."""
        with self.log.open("rb") as log:
            log.seek(self._log_start)
            return log.read().decode(errors="replace")

    def wait_until(
        self, ready: Callable[[], bool], *, what: str = "is ready", deadline: float = 60
    ) -> None:
        """Wait until `ready()`; raise `ProcessFailedError` if the process ends or on timeout."""
        end = time.monotonic() + deadline
        pause = 0.01
        while not ready():
            if not self.running:
                raise self._failure(f"ended with {self.exit_code} before it {what}")
            if time.monotonic() > end:
                self.kill()
                raise self._failure(f"timed out after {deadline:.0f} s before it {what}")
            time.sleep(pause)
            pause = min(pause * 1.5, 0.1)

    def check_listens(self, *ports: int) -> None:
        """Raise `PortTakenError` unless this process listens on all these ports."""
        listening = {
            connection.laddr.port
            for connection in psutil.Process(self.pid).net_connections("tcp")
            if connection.status == psutil.CONN_LISTEN
        }
        missing = set(ports) - listening
        if missing:
            self.kill()
            raise PortTakenError(f"{self.name} (pid {self.pid}) does not listen on {missing}")

    def _failure(self, what: str) -> ProcessFailedError:
        text = self.log_text()
        lines = "\n".join(f"  {line}" for line in text.splitlines()[-30:])
        message = f"{self.name} (pid {self.pid}) {what}; the end of {self.log}:\n{lines}"
        if "address already in use" in text.lower():
            return PortTakenError(message)
        return ProcessFailedError(message)

    def pause(self) -> None:
        """Suspend it: connections stay open, but nothing answers, as in a network failure."""
        os.kill(self.pid, signal.SIGSTOP)

    def resume(self) -> None:
        """Resume a paused process."""
        os.kill(self.pid, signal.SIGCONT)

    def stop(self, deadline: float = 30) -> None:
        """Terminate it and wait; kill it after the deadline. Does nothing if it has ended."""
        if self.running:
            self._child.terminate()
            self.resume()  # a paused process would not handle the signal
            try:
                self._child.wait(deadline)
            except subprocess.TimeoutExpired:
                self.kill()

    def kill(self) -> None:
        """Kill it with SIGKILL, like a crash, and wait."""
        if self.running:
            self._child.kill()
            self._child.wait(30)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
