"""Renders measurements as the Markdown of `docs/benchmarks.md`, including the targets."""

import os
import platform
import re
import statistics
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from bench.measure import Usage, ratio
from bench.scenarios import LAYOUT_FULL, OURS, OURS_ARCHIVE, OURS_SIZE, Scenario

MIB = 1 << 20
Usages = dict[str, list[Usage]]
Results = list[tuple[Scenario, Usages]]

TARGETS = "Targets"
_PEAK = "peak memory, highest of all runs"
_READING = "Reading the targets"
_SECTION = re.compile(r"^## ", re.MULTILINE)

PLAIN_UPLOADERS = ("s5cmd cp", "rclone copy", "aws s3 cp")
PEAK_LIMIT_BYTES = 256 * MIB
START_LIMIT_SECONDS = 0.25


@dataclass(frozen=True)
class Setup:
    """The data, number of rounds and program versions of a benchmark."""

    data_bytes: int
    blocks: int
    files: int
    rounds: int
    versions: dict[str, str]


@dataclass(frozen=True)
class Target:
    """A target of the project: an upper limit. A value up to `allowed` above it counts as equal."""

    what: str
    limit: float
    measured: float
    unit: str = ""
    allowed: float = 0.0

    def row(self) -> str:
        """Return its row in the table of targets."""
        reached = self.measured <= self.limit + self.allowed
        equal = f" ({self.limit + self.allowed:g} counts as equal)" if self.allowed else ""
        limit = f"at most {self.limit:g}{self.unit}{equal}"
        result = "reached" if reached else "**not reached**"
        return f"| {self.what} | {limit} | {self.measured:.2f}{self.unit} | {result} |"


_AXES: dict[str, Callable[[Usage], float]] = {
    "wall time": lambda usage: usage.wall_seconds,
    "client CPU": lambda usage: usage.cpu_seconds,
    "peak memory": lambda usage: float(usage.peak_bytes),
}


def merged(page: str, part: str) -> str:
    """Return a page with the sections of a later report, and its rows in the table of targets."""
    head, *sections = _SECTION.split(page)
    by_title = {_first_line(s): s for s in sections}
    for section in _SECTION.split(part)[1:]:
        title = _first_line(section)
        lines = section.splitlines()
        if title == TARGETS and title in by_title:
            # The peak memory is that of all sections.
            lines = [row for row in lines if not row.startswith(f"| {_PEAK}")]
            rows = {row.split(" | ")[0]: row for row in [*by_title[title].splitlines(), *lines]}
            lines = [*rows.values(), ""]
        by_title[title] = "\n".join(lines).rstrip("\n") + "\n\n"
    last = by_title.pop(_READING, None)
    text = "".join(f"## {s}" for s in [*by_title.values(), *([last] if last else [])])
    return f"{head}{text}".rstrip("\n") + "\n"


def _first_line(text: str) -> str:
    return text.partition("\n")[0]


def render(setup: Setup, results: Results) -> str:
    """Return the whole page."""
    parts = [_HEAD, _machine(setup)]
    targets = _targets({scenario.key: usages for scenario, usages in results})
    if targets:
        parts.append(table(TARGETS, ("what", "target", "median", ""), targets))
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

Each measurement covers a whole process, from start to exit. For prometheus-backup ("ours") this
includes the snapshot call, hashing, the manifest, verification before the commit, and removing
the snapshot. All programs transfer the same files to or from the same SeaweedFS on the same
machine, in turns, with default settings except for the server address. Ratios are ours divided by
the other program's, calculated per round: median (lowest-highest). Below 1 is better for us. With
few cores the server limits the wall time, so the CPU ratios and the local store are more
meaningful. The block verification is measured in [benchmarks-inspect.md](benchmarks-inspect.md).
Many small files in a store that is far away are in [benchmarks-latency.md](benchmarks-latency.md).
"""


_WHY = f"""\
## {_READING}

- **First backup.** The server writes every byte on the same two cores. The wall time of all
  uploaders is therefore mostly the server's and varies from run to run; client CPU is the more
  stable figure. At the default level `checksum` everything that was uploaded is read back, which
  no other program does.
- **Unchanged second backup.** In layout `full`, most of the time is spent by the server, copying.
  Ours adds the startup of Python and of the HTTP and AWS clients, and the snapshot call: about
  half a second in total. With a store on other machines and blocks of more than a gibibyte, that
  half second is the only difference. In return, the copies have tags, storage class and
  encryption. In layout `archive`, nothing is copied, and that half second is nearly all. On a
  shared machine the absolute times of this comparison vary by half, its ratios little.
- **Restore.** Every file is checked against its SHA-256 while it is written, and synced before
  its block is renamed into place; `s5cmd cp` does neither. Client and server share two cores,
  which are busy all the time, so this work adds to the wall time. In a separate measurement a
  restore without hashing and syncing took 1.2 times as long as `s5cmd cp`, mostly because of
  Python's startup. Syncing raised this to 1.3, and hashing to 1.7. On a shared machine, whole
  runs of this comparison gave 1.6 to 2.2. Compared with the same download followed by
  `sha256sum`, ours is faster.
"""


def _machine(setup: Setup) -> str:
    kernel = ".".join(platform.release().split(".")[:2])
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / (1 << 30)
    python = ".".join(str(number) for number in sys.version_info[:3])
    data = f"{setup.data_bytes / MIB:.0f} MiB in {setup.blocks} blocks, {setup.files} files"
    versions = [f"Python {python}"]
    versions += [v if n in v else f"{n} {v}" for n, v in setup.versions.items()]
    return (
        f"- Machine: {os.cpu_count()} cores, {memory:.0f} GiB, Linux {kernel}\n"
        f"- Data: {data}, incompressible\n"
        f"- Rounds: {setup.rounds}, after one warm-up\n"
        f"- Versions: {', '.join(versions)}\n"
    )


def _targets(usages: dict[str, Usages]) -> list[str]:
    rows = []
    first, second = usages.get("first", {}), usages.get("second", {})
    if OURS_SIZE in first:
        fastest = min(PLAIN_UPLOADERS, key=lambda name: _median(first[name], "wall time"))
        what = f"first backup, wall time compared with the fastest plain uploader (`{fastest}`)"
        wall = _ratio(first, OURS_SIZE, fastest, "wall time")
        rows.append(Target(what, 1.0, wall, allowed=0.05).row())
        cpu = _ratio(first, OURS_SIZE, "s5cmd cp", "client CPU")
        rows.append(Target("first backup, client CPU compared with `s5cmd cp`", 0.8, cpu).row())
    if OURS_SIZE in second:
        wall = _ratio(second, OURS_SIZE, "vmbackup -origin", "wall time")
        what = "unchanged second backup, wall time compared with `vmbackup -origin`"
        rows.append(Target(what, 1.0, wall).row())
    second_archive = "unchanged second backup in layout `archive`"
    if OURS_ARCHIVE in second:
        for peer, limit in (("vmbackup -origin", 0.5), ("restic backup", 1.0)):
            wall = _ratio(second, OURS_ARCHIVE, peer, "wall time")
            what = f"{second_archive}, wall time compared with `{peer}`"
            rows.append(Target(what, limit, wall).row())
    if OURS_ARCHIVE in usages.get("layouts", {}):
        wall = _ratio(usages["layouts"], OURS_ARCHIVE, LAYOUT_FULL, "wall time")
        what = "first backup in layout `archive`, wall time compared with layout `full`"
        rows.append(Target(what, 1.0, wall, allowed=0.05).row())
    if OURS in usages.get("restore", {}):
        wall = _ratio(usages["restore"], OURS, "s5cmd cp", "wall time")
        what = "restore, wall time compared with `s5cmd cp`"
        rows.append(Target(what, 1.0, wall).row())
    peaks = [
        usage.peak_bytes
        for by_contender in usages.values()
        for name, rounds in by_contender.items()
        for usage in rounds
        if name.startswith(OURS)
    ]
    if peaks:
        limit, highest = PEAK_LIMIT_BYTES / MIB, max(peaks) / MIB
        rows.append(Target(_PEAK, limit, highest, " MiB").row())
    if OURS in usages.get("help", {}):
        seconds = _median(usages["help"][OURS], "wall time")
        rows.append(Target("`--help`", START_LIMIT_SECONDS, seconds, " s").row())
    return rows


def _ratios(scenario: Scenario, usages: Usages) -> list[str]:
    """Return one table for each way in which ours was run."""
    axes = list(_AXES) if scenario.compares_memory else list(_AXES)[:2]
    tables = []
    peers = [name for name in usages if not name.startswith(OURS)]
    for ours in sorted((name for name in usages if name.startswith(OURS)), reverse=True):
        rows = []
        for peer in sorted(peers, key=lambda name: _median(usages[name], "wall time")):
            ratios = [ratio(_values(usages[ours], a), _values(usages[peer], a)) for a in axes]
            rows.append(f"| {peer} | {' | '.join(map(str, ratios))} |")
        tables.append(table("", (f"{ours} / peer", *axes), rows))
    return tables


def _absolute(scenario: Scenario, usages: Usages) -> str:
    rows = []
    for contender in scenario.contenders:
        rounds = usages[contender.name]
        wall, cpu = (_median(rounds, axis) for axis in ("wall time", "client CPU"))
        peak = max(usage.peak_bytes for usage in rounds) / MIB
        rows.append(f"| {contender.name} | {wall:.2f} s | {cpu:.2f} s | {peak:.0f} MiB |")
    return table("", ("medians on this machine", "wall time", "client CPU", "highest peak"), rows)


def table(title: str, head: Sequence[str], rows: Sequence[str]) -> str:
    """Return a table in Markdown, below its title if it has one."""
    lines = [f"## {title}\n"] if title else []
    lines += [f"| {' | '.join(head)} |", "|" + " --- |" * len(head), *rows, ""]
    return "\n".join(lines)


def _values(usages: Sequence[Usage], axis: str) -> list[float]:
    return [_AXES[axis](usage) for usage in usages]


def _median(usages: Sequence[Usage], axis: str) -> float:
    return statistics.median(_values(usages, axis))


def _ratio(usages: Usages, ours: str, peer: str, axis: str) -> float:
    return ratio(_values(usages[ours], axis), _values(usages[peer], axis)).median
