"""What a program run costs, and what it costs beside another one."""

import json
import statistics
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

_STOPWATCH = Path(__file__).with_name("stopwatch.py")
TIMEOUT_SECONDS = 1800


class ProgramFailedError(Exception):
    """A program that was to be measured failed; the message ends with what it said."""


@dataclass(frozen=True)
class Command:
    """A program with its arguments and its whole environment."""

    argv: tuple[str, ...]
    environment: dict[str, str]


@dataclass(frozen=True)
class Usage:
    """Cost of one run of a process tree; CPU is user and system time together."""

    wall_seconds: float
    cpu_seconds: float
    peak_bytes: int


@dataclass(frozen=True)
class Ratio:
    """Ours divided by the peer's, run by run."""

    median: float
    lowest: float
    highest: float

    def __str__(self) -> str:
        return f"{self.median:.2f} ({self.lowest:.2f}-{self.highest:.2f})"


def measure(command: Command, log: Path) -> Usage:
    """Run a program to its end and return its cost; its output goes to `log`."""
    report = log.with_suffix(".json")
    stopwatch = [sys.executable, "-I", "-S", str(_STOPWATCH), str(report)]
    with log.open("wb") as output:
        done = subprocess.run(
            [*stopwatch, *command.argv],
            env=command.environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            timeout=TIMEOUT_SECONDS,
            check=False,
        )
    if done.returncode != 0:
        words = log.read_text(errors="replace")[-3000:]
        called = " ".join(command.argv)
        raise ProgramFailedError(f"exit code {done.returncode}: {called}\n{words}")
    cost = json.loads(report.read_text())
    return Usage(cost["wall"], cost["cpu"], cost["peak"])


def ratio(ours: Sequence[float], theirs: Sequence[float]) -> Ratio:
    """Compare values of the same rounds."""
    quotients = [our / their for our, their in zip(ours, theirs, strict=True)]
    return Ratio(statistics.median(quotients), min(quotients), max(quotients))
