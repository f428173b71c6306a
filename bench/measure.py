"""Measures the resource usage of a program run and compares it with that of another."""

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
    """A program that was to be measured failed; the message ends with its output."""


@dataclass(frozen=True)
class Command:
    """A program with its arguments and its complete environment."""

    argv: tuple[str, ...]
    environment: dict[str, str]


@dataclass(frozen=True)
class Usage:
    """Resource usage of one run of a process tree; CPU is user plus system time."""

    wall_seconds: float
    cpu_seconds: float
    peak_bytes: int


@dataclass(frozen=True)
class Ratio:
    """Ours divided by the other program's, calculated per round."""

    median: float
    lowest: float
    highest: float

    def __str__(self) -> str:
        return f"{self.median:.2f} ({self.lowest:.2f}-{self.highest:.2f})"


def measure(command: Command, log: Path) -> Usage:
    """Run a program until it exits and return its usage; its output goes to `log`."""
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
        output_text = log.read_text(errors="replace")[-3000:]
        command_line = " ".join(command.argv)
        raise ProgramFailedError(f"exit code {done.returncode}: {command_line}\n{output_text}")
    usage = json.loads(report.read_text())
    return Usage(usage["wall"], usage["cpu"], usage["peak"])


def ratio(ours: Sequence[float], theirs: Sequence[float]) -> Ratio:
    """Divide the values of the same rounds."""
    quotients = [our / their for our, their in zip(ours, theirs, strict=True)]
    return Ratio(statistics.median(quotients), min(quotients), max(quotients))
