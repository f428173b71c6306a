"""Estimates how long backup and restore take, from the size of the TSDB.

The estimates use measurements on 2 cores (docs/benchmarks.md, and HEAD_SERIES below) and the
assumptions named below.
"""

import re
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from prometheus_backup.cost.compaction import Compactor
from prometheus_backup.cost.tsdb import expected_workload

BENCHMARKS = Path(__file__).parent.parent / "docs" / "benchmarks.md"
MIB = 2**20

HEAD_SERIES = 20_000
"""Series per second that Prometheus writes from its head into a snapshot. Measured with Prometheus
3.5 on 2 busy cores: 50,000 series of 600 samples (two and a half hours) took 2.4 to 3.4 s."""
BYTES_OF_A_SAMPLE = 1.5
"""On disk; Prometheus' documentation says 1 to 2."""
SCRAPE_INTERVAL = timedelta(seconds=15)
RETENTION = timedelta(days=15)
USABLE = 0.9
"""Share of a link's bandwidth that is available for file content."""
STORE_COPIES = 800 * MIB
"""Bytes per second that S3 copies internally: 16 parallel copies of 50 MiB per second each."""
OVERHEAD = 5.0
"""Seconds for checks, listing, manifest and retention."""


@dataclass(frozen=True)
class Measured:
    """Bytes per second in the benchmark, with client and server on the same 2 cores."""

    send: float
    read: float


@dataclass(frozen=True)
class Expected:
    """Seconds for one TSDB over one link. `sent` (bytes) and `series` are for a typical night."""

    series: int
    snapshot: float
    first_upload: float
    first_total: float
    sent: int
    night_upload: float
    night_total: float
    restore: float


def measured(page: str) -> Measured:
    """Read the rates from docs/benchmarks.md."""
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
    """Estimate the durations for a TSDB of `size` bytes over a link of `bits` per second."""
    load = expected_workload(size, Compactor.of(RETENTION))
    link = bits / 8 * USABLE
    up, down = min(link, rates.send), min(link, rates.read)
    series = round(size / BYTES_OF_A_SAMPLE / (RETENTION / SCRAPE_INTERVAL))
    snapshot = series / HEAD_SERIES
    copied = (size - load.upload) / STORE_COPIES

    def total(sent: int, copying: float) -> float:
        return (
            OVERHEAD + snapshot + sent / up + copying + sent / down
        )  # level checksum reads it back

    return Expected(
        series=series,
        snapshot=snapshot,
        first_upload=size / up,
        first_total=total(size, 0),
        sent=load.upload,
        night_upload=load.upload / up + copied,
        night_total=total(load.upload, copied),
        restore=OVERHEAD + size / down,
    )
