"""Starts the real command line in the background, so that a test can signal or kill it."""

import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from tests.support.runs import bare_environment, command
from tests.support.waiting import wait_until


@dataclass(frozen=True)
class CliResult:
    """Its exit code and output; a negative code is a signal."""

    code: int
    output: str
    log: str


class StartedCli:
    """A running command; a context manager that kills it if it is still running at the end."""

    def __init__(
        self,
        *arguments: str,
        env: Mapping[str, str],
        directory: Path,
        prefix: tuple[str, ...] = (),
    ) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self._output = directory / "stdout"
        self._log = directory / "stderr"
        with self._output.open("wb") as output, self._log.open("wb") as log:
            self._child = subprocess.Popen(
                [*prefix, *command(*arguments)],
                env=bare_environment(env),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=log,
            )

    @property
    def pid(self) -> int:
        """Return the process id."""
        return self._child.pid

    def log(self) -> str:
        """Return the log so far."""
        return self._log.read_text()

    def wait_for_log(self, text: str) -> None:
        """Wait until it logs this text; fail if it ends without it."""
        wait_until(lambda: text in self.log() or self._child.poll() is not None)
        assert text in self.log(), f"it did not log {text!r}:\n{self.log()}"

    def wait_for_output(self, text: str) -> str:
        """Wait until it has written this text to standard output; return all that it wrote."""
        wait_until(lambda: text in self._output.read_text() or self._child.poll() is not None)
        assert text in self._output.read_text(), f"it did not write {text!r}:\n{self.log()}"
        return self._output.read_text()

    def send(self, signal_number: int) -> None:
        """Send a signal."""
        self._child.send_signal(signal_number)

    def kill(self) -> None:
        """Kill it, like a crash."""
        self._child.kill()

    def end(self, *, deadline: float = 60) -> CliResult:
        """Wait until it ends; return the result."""
        code = self._child.wait(deadline)
        return CliResult(code, self._output.read_text(), self.log())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._child.poll() is None:
            self._child.kill()
            self._child.wait(30)
