"""Turns measurements into the Markdown of `docs/benchmarks.md`, targets included."""

import os
import platform
import statistics
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from bench.measure import Usage, ratio
from bench.scenarios import OURS, OURS_SIZE, Scenario

MIB = 1 << 20
Usages = dict[str, list[Usage]]
Results = list[tuple[Scenario, Usages]]

PLAIN_UPLOADERS = ("s5cmd cp", "rclone copy", "aws s3 cp")
PEAK_LIMIT_BYTES = 256 * MIB
START_LIMIT_SECONDS = 0.25


@dataclass(frozen=True)
class Setting:
    """What was measured on."""

    data_bytes: int
    blocks: int
    files: int
    rounds: int
    versions: dict[str, str]


@dataclass(frozen=True)
class Target:
    """One thing that the project set out to reach. `allowed` adds what counts as equal."""

    what: str
    limit: float
    reached: float
    unit: str = ""
    allowed: float = 0.0

    def row(self) -> str:
        """A line of the table of targets."""
        good = self.reached <= self.limit + self.allowed
        equal = f" ({self.limit + self.allowed:g} counts as equal)" if self.allowed else ""
        limit = f"at most {self.limit:g}{self.unit}{equal}"
        answer = "reached" if good else "**not reached**"
        return f"| {self.what} | {limit} | {self.reached:.2f}{self.unit} | {answer} |"


_AXES: dict[str, Callable[[Usage], float]] = {
    "wall time": lambda usage: usage.wall_seconds,
    "client CPU": lambda usage: usage.cpu_seconds,
    "peak memory": lambda usage: float(usage.peak_bytes),
}


def render(setting: Setting, results: Results) -> str:
    """The whole document."""
    parts = [_HEAD, _machine(setting)]
    targets = _targets({scenario.key: usages for scenario, usages in results})
    if targets:
        parts.append(_table("Targets", ("what", "target", "median", ""), targets))
    for scenario, usages in results:
        parts.append(f"## {scenario.title}\n")
        parts += _ratios(scenario, usages)
        parts.append(_absolute(scenario, usages))
    if targets:
        parts.append(_WHY)
    return "\n".join(parts)


_HEAD = """\
# Benchmarks

Made by `python -m bench.run --output docs/benchmarks.md` (see `bench/README.md`); do not edit.

Whole processes are compared, from start to exit: for ours that includes the snapshot call, hashing,
the manifest, verification before the commit, and removing the snapshot. All programs send the same
files to the same SeaweedFS on the same machine, in turns, and none is told anything but where the
server is. Ratios are ours divided by the peer's, taken round by round: median (lowest-highest).
Below 1 is in our favour. On few cores the server itself limits the wall time, so the CPU ratios
and the local store tell more. The check of blocks is measured in
[benchmarks-inspect.md](benchmarks-inspect.md).
"""


_WHY = """\
## Reading the targets

- **First backup.** The server writes every byte on the same two cores, so the wall time of all
  uploaders is mostly the server's and differs from run to run; the CPU that the client takes is
  the steadier figure. At the default level `checksum` everything that was sent is read back, which
  no peer does.
- **Unchanged second backup.** The time is the server's, copying; ours adds the start of Python, of
  the HTTP and AWS clients, and the snapshot call, about half a second in all. Against a store on
  other machines, and with blocks of more than a gibibyte, that half second is what remains of the
  difference. It buys copies that carry tags, class and encryption.
- **Restore.** Every file is checked against its SHA-256 while it is written, and synced before its
  block appears; `s5cmd cp` does neither. Client and server share two cores, which are busy
  throughout, so all of it shows in the wall time. Measured apart, without both it took 1.2 of
  `s5cmd cp`, and most of that rest is the start of Python; syncing took it from there to 1.3,
  hashing to 1.7; on a machine that is shared, whole runs of this comparison gave 1.6 to 2.2. Beside
  the same download followed by `sha256sum` it is the other way round.
"""


def _machine(setting: Setting) -> str:
    kernel = ".".join(platform.release().split(".")[:2])
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / (1 << 30)
    python = ".".join(str(number) for number in sys.version_info[:3])
    data = f"{setting.data_bytes / MIB:.0f} MiB in {setting.blocks} blocks, {setting.files} files"
    versions = [f"Python {python}"]
    versions += [v if n in v else f"{n} {v}" for n, v in setting.versions.items()]
    return (
        f"- Machine: {os.cpu_count()} cores, {memory:.0f} GiB, Linux {kernel}\n"
        f"- Data: {data}, incompressible\n"
        f"- Rounds: {setting.rounds}, after one warm-up\n"
        f"- Versions: {', '.join(versions)}\n"
    )


def _targets(usages: dict[str, Usages]) -> list[str]:
    rows = []
    first, second = usages.get("first", {}), usages.get("second", {})
    if OURS_SIZE in first:
        fastest = min(PLAIN_UPLOADERS, key=lambda name: _median(first[name], "wall time"))
        what = f"first backup, wall time beside the fastest plain uploader (`{fastest}`)"
        reached = _ratio(first, OURS_SIZE, fastest, "wall time")
        rows.append(Target(what, 1.0, reached, allowed=0.05).row())
        cpu = _ratio(first, OURS_SIZE, "s5cmd cp", "client CPU")
        rows.append(Target("first backup, client CPU beside `s5cmd cp`", 0.8, cpu).row())
    if OURS_SIZE in second:
        reached = _ratio(second, OURS_SIZE, "vmbackup -origin", "wall time")
        what = "unchanged second backup, wall time beside `vmbackup -origin`"
        rows.append(Target(what, 1.0, reached).row())
    if OURS in usages.get("restore", {}):
        reached = _ratio(usages["restore"], OURS, "s5cmd cp", "wall time")
        what = "restore, wall time beside `s5cmd cp`"
        rows.append(Target(what, 1.0, reached).row())
    peaks = [
        usage.peak_bytes
        for of_scenario in usages.values()
        for name, of_contender in of_scenario.items()
        for usage in of_contender
        if name.startswith(OURS)
    ]
    if peaks:
        limit, highest = PEAK_LIMIT_BYTES / MIB, max(peaks) / MIB
        rows.append(Target("peak memory, highest of all runs", limit, highest, " MiB").row())
    if OURS in usages.get("help", {}):
        seconds = _median(usages["help"][OURS], "wall time")
        rows.append(Target("`--help`", START_LIMIT_SECONDS, seconds, " s").row())
    return rows


def _ratios(scenario: Scenario, usages: Usages) -> list[str]:
    """One table for each way that ours was run."""
    axes = list(_AXES) if scenario.compares_memory else list(_AXES)[:2]
    tables = []
    peers = [name for name in usages if not name.startswith(OURS)]
    for ours in sorted((name for name in usages if name.startswith(OURS)), reverse=True):
        rows = []
        for peer in sorted(peers, key=lambda name: _median(usages[name], "wall time")):
            quotients = [ratio(_values(usages[ours], a), _values(usages[peer], a)) for a in axes]
            rows.append(f"| {peer} | {' | '.join(str(quotient) for quotient in quotients)} |")
        tables.append(_table("", (f"{ours} / peer", *axes), rows))
    return tables


def _absolute(scenario: Scenario, usages: Usages) -> str:
    rows = []
    for contender in scenario.contenders:
        of_contender = usages[contender.name]
        wall, cpu = (_median(of_contender, axis) for axis in ("wall time", "client CPU"))
        peak = max(usage.peak_bytes for usage in of_contender) / MIB
        rows.append(f"| {contender.name} | {wall:.2f} s | {cpu:.2f} s | {peak:.0f} MiB |")
    return _table("", ("medians on this machine", "wall time", "client CPU", "highest peak"), rows)


def _table(title: str, head: Sequence[str], rows: Sequence[str]) -> str:
    lines = [f"## {title}\n"] if title else []
    lines += [f"| {' | '.join(head)} |", "|" + " --- |" * len(head), *rows, ""]
    return "\n".join(lines)


def _values(usages: Sequence[Usage], axis: str) -> list[float]:
    return [_AXES[axis](usage) for usage in usages]


def _median(usages: Sequence[Usage], axis: str) -> float:
    return statistics.median(_values(usages, axis))


def _ratio(usages: Usages, ours: str, peer: str, axis: str) -> float:
    return ratio(_values(usages[ours], axis), _values(usages[peer], axis)).median
