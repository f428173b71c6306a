"""How long backup and restore are expected to take, by the size of the TSDB.

Computed from what was measured (docs/benchmarks.md, and HEAD_SERIES below) and from assumptions
that have names here. The first are of 2 cores; the second are to be replaced by your own.
"""

import re
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from prometheus_backup.cost.lifetimes import expected_workload

BENCHMARKS = Path(__file__).parent.parent / "docs" / "benchmarks.md"
MIB = 2**20

HEAD_SERIES = 20_000
"""Series a second that Prometheus writes from its head into a snapshot. Measured with Prometheus
3.5 on 2 busy cores: 50,000 series of 600 samples (two and a half hours) in 2.4 to 3.4 s."""
BYTES_OF_A_SAMPLE = 1.5
"""On disk; Prometheus' documentation says 1 to 2."""
SCRAPE_INTERVAL = timedelta(seconds=15)
RETENTION = timedelta(days=15)
USABLE = 0.9
"""Of a link's bits, for bytes of files."""
STORE_COPIES = 800 * MIB
"""Bytes a second that S3 copies by itself: 16 copies at once of 50 MiB a second each."""
REST = 5.0
"""Seconds for the checks, the listing, the manifest and retention."""


@dataclass(frozen=True)
class Measured:
    """Bytes a second that this program moved in the benchmark, client and server on 2 cores."""

    send: float
    read: float


@dataclass(frozen=True)
class Expected:
    """Seconds, for one TSDB over one link; `sent` and `series` are of a usual night."""

    series: int
    snapshot: float
    first_upload: float
    first_total: float
    sent: int
    night_upload: float
    night_total: float
    restore: float


def measured(page: str) -> Measured:
    """The rates that docs/benchmarks.md has."""
    data = float(_found(r"^- Data: (\d+) MiB", page)) * MIB
    row = r"^\| {} \| ([\d.]+) s"
    send = _found(row.format(r"ours, `--verify-level size`"), page)
    restore = page[page.index("## Restore into an empty directory") :]
    return Measured(data / float(send), data / float(_found(row.format("ours"), restore)))


def _found(pattern: str, text: str) -> str:
    match = re.search(pattern, text, re.MULTILINE)
    if match is None:
        raise ValueError(f"docs/benchmarks.md has no {pattern!r}")
    return match[1]


def durations(size: int, *, bits: float, rates: Measured) -> Expected:
    """What to expect for a TSDB of `size` bytes over a link of `bits` a second."""
    load = expected_workload(size, RETENTION)
    link = bits / 8 * USABLE
    up, down = min(link, rates.send), min(link, rates.read)
    series = round(size / BYTES_OF_A_SAMPLE / (RETENTION / SCRAPE_INTERVAL))
    snapshot = series / HEAD_SERIES
    copied = (size - load.upload) / STORE_COPIES

    def total(sent: int, copying: float) -> float:
        return REST + snapshot + sent / up + copying + sent / down  # read back at level checksum

    return Expected(
        series=series,
        snapshot=snapshot,
        first_upload=size / up,
        first_total=total(size, 0),
        sent=load.upload,
        night_upload=load.upload / up + copied,
        night_total=total(load.upload, copied),
        restore=REST + size / down,
    )
