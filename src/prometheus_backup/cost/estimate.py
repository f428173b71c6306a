"""Estimate what backups cost, from a given size, a data directory or a repository."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path

from prometheus_backup.cost.forecast import Forecast, Plan, StoredBackup, forecast
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
from prometheus_backup.model import Layout, instant_from_ms
from prometheus_backup.prometheus.retention import parse_tsdb_retention
from prometheus_backup.repository.entry import BackupEntry, committed, newest_good
from prometheus_backup.repository.manifest import Header
from prometheus_backup.repository.repository import Repository
from prometheus_backup.retention.policy import Policy
from prometheus_backup.retention.prune import candidate
from prometheus_backup.tsdb.block import list_blocks

DEFAULT_RETENTION = timedelta(days=15)
"""The default of Prometheus."""
_RECENT = 30
"""Backups from which the nightly upload is estimated."""


@dataclass(frozen=True, slots=True)
class Basis:
    """What an estimate is based on: the workload, where it comes from, and the assumptions.

    `window_days` is how many days of samples a backup holds. `stored` are the backups that exist.
    """

    workload: Workload
    source: str
    assumptions: tuple[str, ...]
    window_days: float
    layout: Layout = Layout.FULL
    stored: tuple[StoredBackup, ...] = ()
    stored_bytes: int = 0


@dataclass(frozen=True, slots=True)
class EstimateReport:
    """The cost of a month for each strategy, with the basis and the policy of the estimate."""

    basis: Basis
    policy: Policy
    usage: Usage
    kept: KeptBackups
    months: tuple[Month, ...]
    forecast: Forecast


def estimate(
    basis: Basis, *, policy: Policy, usage: Usage, prices: Mapping[str, Price], today: date
) -> EstimateReport:
    """Calculate the cost of a month for every strategy, and that of the next twelve months."""
    kept = simulate_lifetimes(policy, noncurrent_days=usage.noncurrent_days)
    months = tuple(
        month(strategy, workload=basis.workload, kept=kept, usage=usage, prices=prices)
        for strategy in STRATEGIES
    )
    coming = forecast(
        plan_of(basis, policy=policy, today=today),
        strategies=STRATEGIES,
        usage=usage,
        prices=prices,
    )
    return EstimateReport(basis, policy, usage, kept, months, coming)


def plan_of(basis: Basis, *, policy: Policy, today: date) -> Plan:
    """Return what is forecast on this basis."""
    return Plan(basis.stored, basis.workload, basis.window_days, basis.layout, policy, today)


def basis_of_size(size: int, retention: timedelta, *, upload: int | None = None) -> Basis:
    """Return the basis for a TSDB of a given size.

    `upload` is how many bytes one night uploads; None estimates it from how Prometheus compacts.
    """
    days = retention / timedelta(days=1)
    expected = expected_workload(size, retention)
    assumption = f"{days:g} days of retention, and the TSDB does not grow"
    if upload is None:
        assumption += f"; {expected.upload / size:.1%} of it is new each night"
        return Basis(expected, "the given size", (assumption,), days)
    load = Workload(size, expected.blocks, expected.files, min(upload, size))
    return Basis(load, "the given sizes", (assumption,), days)


def basis_of_data_dir(data_dir: Path) -> Basis:
    """Return the basis for the blocks of a data directory. Raises SnapshotUnusable."""
    blocks = list_blocks(data_dir).blocks
    if not blocks:
        raise SnapshotUnusable(f"cannot estimate from {data_dir}: it contains no blocks")
    first = instant_from_ms(min(b.min_time_ms for b in blocks))
    span = instant_from_ms(max(b.max_time_ms for b in blocks)) - first
    size = sum(f.size for b in blocks for f in b.files)
    expected = expected_workload(size, span)
    load = Workload(size, len(blocks), sum(len(b.files) for b in blocks), expected.upload)
    assumption = (
        f"the blocks span the retention of {span / timedelta(days=1):.1f} days, and the TSDB does "
        f"not grow; {expected.upload / size if size else 0:.1%} of it is new each night; "
        "samples that are only in memory are not included"
    )
    return Basis(load, f"the blocks in {data_dir}", (assumption,), span / timedelta(days=1))


def basis_of_repository(repository: Repository) -> Basis | None:
    """Return the basis for the newest good backup and recent uploads; None without backups."""
    entries = repository.entries()
    archived = sum(f.size for f in repository.archive.folders().values())
    return basis_of_entries(entries, source=repository.url, archived=archived)


def basis_of_entries(
    entries: Sequence[BackupEntry], *, source: str, archived: int = 0
) -> Basis | None:
    """Return the same for entries that are read already; `archived` is the archive's size."""
    entries = committed(entries)
    newest = newest_good(entries) or (entries[-1] if entries else None)
    if newest is None or newest.header is None:
        return None
    header = newest.header
    headers = [e.header for e in entries if e.header is not None]
    whole = sum(h.totals.bytes for h in headers if h.layout is Layout.FULL)
    share, assumption = _nightly_share(headers)
    window = timedelta()
    if header.min_time and header.max_time:
        window = header.max_time - header.min_time
    totals = header.totals
    return Basis(
        Workload(totals.bytes, totals.blocks, totals.files, round(share * totals.bytes)),
        f"{newest.backup_id} in {source}",
        (assumption,),
        window / timedelta(days=1),
        headers[-1].layout,
        tuple(StoredBackup(candidate(e), e.header.totals.bytes) for e in entries if e.header),
        whole + archived,
    )


def _nightly_share(headers: Sequence[Header]) -> tuple[float, str]:
    """Return the share of a backup that is uploaded, not copied, and where that number is from."""
    totals = [
        h.totals
        for h in headers
        if h.totals.copied_bytes + h.totals.shared_bytes and h.totals.bytes
    ]
    shares = [t.uploaded_bytes / t.bytes for t in totals[-_RECENT:]]
    if shares:
        share = statistics.median(shares)
        return (
            share,
            f"{share:.1%} of a backup is new each night (median of the last {len(shares)})",
        )
    retention = parse_tsdb_retention(headers[-1].retention_time).time or DEFAULT_RETENTION
    size = headers[-1].totals.bytes
    share = expected_workload(size, retention).upload / size if size else 0.0
    return share, f"{share:.1%} of a backup is new each night (expected; no backup shows it yet)"
