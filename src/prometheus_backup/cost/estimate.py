"""What backups cost: look at what there is to be backed up, or what is kept already, and reckon."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from prometheus_backup.cost.lifetimes import (
    KeptBackups,
    Workload,
    expected_workload,
    simulate_lifetimes,
)
from prometheus_backup.cost.model import (
    STRATEGIES,
    Month,
    Usage,
    month,
)
from prometheus_backup.cost.prices import Price
from prometheus_backup.errors import SnapshotUnusable
from prometheus_backup.model import instant_from_ms
from prometheus_backup.prometheus.retention import parse_tsdb_retention
from prometheus_backup.repository.manifest import Header, Totals
from prometheus_backup.repository.repository import Repository, committed, newest_good
from prometheus_backup.retention.policy import Policy
from prometheus_backup.tsdb.block import read_blocks

DEFAULT_RETENTION = timedelta(days=15)
"""Prometheus' own, where none is set."""
_RECENT = 30


@dataclass(frozen=True, slots=True)
class Basis:
    """What an estimate rests on: the workload, where it was seen, and how that was done."""

    workload: Workload
    source: str
    assumptions: tuple[str, ...]
    stored_backups: int = 0
    stored_bytes: int = 0


@dataclass(frozen=True, slots=True)
class EstimateReport:
    """A month of each strategy, on what it rests, and under which policy."""

    basis: Basis
    policy: Policy
    habits: Usage
    kept: KeptBackups
    months: tuple[Month, ...]


def estimate(
    basis: Basis, *, policy: Policy, habits: Usage, prices: Mapping[str, Price]
) -> EstimateReport:
    """Reckon a month of every strategy."""
    kept = simulate_lifetimes(policy, noncurrent_days=habits.noncurrent_days)
    months = tuple(
        month(strategy, workload=basis.workload, kept=kept, habits=habits, prices=prices)
        for strategy in STRATEGIES
    )
    return EstimateReport(basis, policy, habits, kept, months)


def basis_of_size(size: int, retention: timedelta, *, upload: int | None = None) -> Basis:
    """Return the basis for a TSDB of which only the size is known, and perhaps its nightly growth.

    `upload` is what one night sends, in bytes; None takes what the compactor is expected to leave.
    """
    days = retention / timedelta(days=1)
    known = expected_workload(size, retention)
    said = f"a TSDB of this size with {days:g} days of retention has the blocks of a steady one"
    if upload is None:
        said += f", and {known.upload / size:.1%} of it is new each night"
        return Basis(known, "the size that was given", (said,))
    load = Workload(size, known.blocks, known.files, min(upload, size))
    return Basis(load, "the sizes that were given", (said,))


def basis_of_data_dir(data_dir: Path) -> Basis:
    """Return the basis for the blocks of a data directory. Raises SnapshotUnusable."""
    blocks = read_blocks(data_dir)
    if not blocks:
        raise SnapshotUnusable(f"cannot estimate from {data_dir}: it holds no block")
    first = instant_from_ms(min(b.min_time_ms for b in blocks))
    span = instant_from_ms(max(b.max_time_ms for b in blocks)) - first
    size = sum(f.size for b in blocks for f in b.files)
    usual = expected_workload(size, span)
    load = Workload(size, len(blocks), sum(len(b.files) for b in blocks), usual.upload)
    said = (
        f"they span {span / timedelta(days=1):.1f} days, taken for the retention of a TSDB that no "
        f"longer grows; {usual.upload / size if size else 0:.1%} of it is new each night; what is "
        "in memory only is left out"
    )
    return Basis(load, f"the blocks in {data_dir}", (said,))


def basis_of_repository(repository: Repository) -> Basis | None:
    """Return the basis for the newest good backup, and what the last nights sent; None if empty."""
    entries = committed(repository.entries())
    newest = newest_good(entries) or (entries[-1] if entries else None)
    if newest is None or newest.header is None:
        return None
    headers = [e.header for e in entries if e.header is not None]
    totals = newest.header.totals
    share, said = _nightly_share(headers)
    return Basis(
        Workload(totals.bytes, totals.blocks, totals.files, round(share * totals.bytes)),
        f"{newest.backup_id} in {repository.url}",
        (said, "the TSDB does not grow"),
        len(headers),
        sum(h.totals.bytes for h in headers),
    )


def _nightly_share(headers: Sequence[Header]) -> tuple[float, str]:
    """Return which share of a backup is sent, not copied, and how that is known."""
    shares = [_sent(h.totals) for h in headers if h.totals.copied_bytes and h.totals.bytes][
        -_RECENT:
    ]
    if shares:
        share = statistics.median(shares)
        return share, f"{share:.1%} of a backup is new each night: median of the last {len(shares)}"
    retention = parse_tsdb_retention(headers[-1].retention_time).time or DEFAULT_RETENTION
    size = headers[-1].totals.bytes
    share = expected_workload(size, retention).upload / size if size else 0.0
    return share, f"{share:.1%} of a backup is new each night: no backup yet that shows it"


def _sent(totals: Totals) -> float:
    return totals.uploaded_bytes / totals.bytes
