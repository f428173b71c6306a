"""Estimate what backups cost in both layouts, from a size, a data directory or a repository."""

import statistics
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path

from prometheus_backup.cost.compaction import LONGEST, Compactor, SimulatedBlock
from prometheus_backup.cost.forecast import (
    Forecast,
    Plan,
    StoredBackup,
    forecast,
    growth_of,
    pace_of,
)
from prometheus_backup.cost.lifetimes import Archived, Kept, steady
from prometheus_backup.cost.model import (
    STRATEGIES,
    Month,
    Requests,
    Strategy,
    Usage,
    month,
    requests_of,
)
from prometheus_backup.cost.prices import Price
from prometheus_backup.cost.simulation import DAY
from prometheus_backup.cost.tsdb import Tsdb, Workload, expected_workload, upload_share
from prometheus_backup.errors import SnapshotUnusable
from prometheus_backup.model import Layout, instant_from_ms, ms_from_instant, size
from prometheus_backup.prometheus.retention import parse_tsdb_retention
from prometheus_backup.repository.archive import ArchivedFolder
from prometheus_backup.repository.entry import BackupEntry, committed, newest_good
from prometheus_backup.repository.layout import backup_time
from prometheus_backup.repository.manifest import ArchivedTimes, Header
from prometheus_backup.repository.repository import Repository
from prometheus_backup.retention.archive import held_blocks
from prometheus_backup.retention.policy import Policy
from prometheus_backup.retention.prune import candidate
from prometheus_backup.tsdb.block import list_blocks

DEFAULT_RETENTION = timedelta(days=15)
"""The default of Prometheus."""
_RECENT = 30
"""Backups from which the nightly upload is estimated."""


@dataclass(frozen=True, slots=True)
class Basis:
    """What an estimate is based on: one backup, the TSDB, what exists, and the assumptions.

    `layout` is that of the newest backup; None if there is none. `stored_bytes` is what the
    repository has now.
    """

    workload: Workload
    source: str
    assumptions: tuple[str, ...]
    tsdb: Tsdb
    layout: Layout | None = None
    stored: tuple[StoredBackup, ...] = ()
    archived: Archived = field(default_factory=Archived)
    stored_bytes: int = 0


@dataclass(frozen=True, slots=True)
class LayoutEstimate:
    """What one layout comes to: a month once the number of backups is steady, and the next twelve.

    `months` has the strategies that were asked for.
    """

    layout: Layout
    history: timedelta
    in_use: bool
    kept: Kept
    nightly: Requests
    copied: float
    months: tuple[Month, ...]
    forecast: Forecast

    @property
    def name(self) -> str:
        """Return how it is called in tables."""
        return f"{self.layout} + history" if self.history else f"{self.layout}"

    def month(self, strategy: str) -> Month:
        """Return the month of a strategy."""
        return next(m for m in self.months if m.strategy.name == strategy)


@dataclass(frozen=True, slots=True)
class EstimateReport:
    """Both layouts, with the basis and the policy of the estimate."""

    basis: Basis
    policy: Policy
    usage: Usage
    layouts: tuple[LayoutEstimate, ...]

    @property
    def used(self) -> LayoutEstimate:
        """Return the layout of new backups."""
        return next(x for x in self.layouts if x.in_use)


def estimate(
    basis: Basis,
    *,
    policy: Policy,
    usage: Usage,
    prices: Mapping[str, Price],
    today: date,
    in_use: Layout | None = None,
    storage_class: str | None = "STANDARD",
) -> EstimateReport:
    """Calculate a month of both layouts, and the next twelve months.

    `in_use` is the layout of new backups; None: that of the newest one, or `full`. It is calculated
    for every strategy, the other one for the storage class in use only. Without one, nothing is
    said of the cost.
    """
    basis = replace(basis, tsdb=_growing(basis, today))
    plain = policy.without_history
    variants = [(Layout.FULL, plain)]
    variants += [(Layout.ARCHIVE, plain)] if not plain.history else []
    variants += [(Layout.ARCHIVE, policy)] if policy.history else []
    newest = in_use or basis.layout or Layout.FULL
    used = [v for v in variants if v[0] is newest][-1]

    def of(layout: Layout, kept_as: Policy, *, is_used: bool) -> LayoutEstimate:
        load, tsdb = basis.workload, basis.tsdb
        wanted = STRATEGIES if is_used and storage_class else _strategies(storage_class)
        kept = steady(
            kept_as,
            layout=layout,
            tsdb=tsdb,
            load=load,
            noncurrent_days=usage.noncurrent_days,
        )
        plan = plan_of(basis, policy=kept_as, today=today, layout=layout)
        months = (month(s, workload=load, kept=kept, usage=usage, prices=prices) for s in wanted)
        return LayoutEstimate(
            layout,
            kept_as.history if layout is Layout.ARCHIVE else timedelta(0),
            is_used,
            kept,
            requests_of(load, kept),
            load.size - load.upload if layout is Layout.FULL else 0,
            tuple(months),
            forecast(plan, strategies=wanted, usage=usage, prices=prices),
        )

    found = [of(layout, kept_as, is_used=(layout, kept_as) == used) for layout, kept_as in variants]
    return EstimateReport(basis, policy, usage, tuple(found))


@dataclass(frozen=True, slots=True)
class Saving:
    """What the layouts `full` and `archive` come to, once the number of backups is stable.

    Bytes, and dollars a month if there is a storage class with known prices.
    """

    stored: tuple[float, float]
    dollars: tuple[float, float] | None

    @property
    def more_than_half(self) -> bool:
        """Return whether the archive saves more than half of the money, or else of the bytes."""
        full, archive = self.dollars or self.stored
        return archive < full / 2

    def __str__(self) -> str:
        full, archive = self.stored
        text = f"would store {size(archive)} instead of {size(full)}"
        if self.dollars:
            whole, shared = self.dollars
            text += f", for {shared:,.2f} instead of {whole:,.2f} US dollars a month"
        return text


def saving_of(
    basis: Basis, *, policy: Policy, storage_class: str | None, prices: Mapping[str, Price]
) -> Saving:
    """Compare both layouts. `storage_class` is that of new backups on S3, None elsewhere."""
    load, tsdb = basis.workload, basis.tsdb
    full, archive = (
        steady(kept_as, layout=layout, tsdb=tsdb, load=load)
        for layout, kept_as in ((Layout.FULL, policy.without_history), (Layout.ARCHIVE, policy))
    )
    dollars = None
    for strategy in _strategies(storage_class):
        whole, shared = (
            month(strategy, workload=load, kept=kept, usage=Usage(), prices=prices).total
            for kept in (full, archive)
        )
        dollars = (whole, shared)
    return Saving((full.stored, archive.stored), dollars)


def plan_of(basis: Basis, *, policy: Policy, today: date, layout: Layout | None = None) -> Plan:
    """Return what is forecast on this basis."""
    return Plan(
        basis.stored,
        basis.workload,
        _growing(basis, today),
        layout or basis.layout or Layout.FULL,
        policy,
        today,
        basis.archived,
    )


def _strategies(storage_class: str | None) -> Sequence[Strategy]:
    """Return the strategy that only has this class; none if its prices are not known."""
    return [s for s in STRATEGIES if s.name == storage_class]


def _growing(basis: Basis, today: date) -> Tsdb:
    growth = growth_of(basis.stored).bytes_per_day
    midnight = ms_from_instant(datetime.combine(today, time(), UTC))
    return replace(basis.tsdb, growth=growth, today_ms=midnight)


def basis_of_size(size: int, retention: timedelta, *, upload: int | None = None) -> Basis:
    """Return the basis for a TSDB of a given size.

    `upload` is how many bytes one night uploads; None estimates it from how Prometheus compacts.
    """
    compactor = Compactor.of(retention)
    expected = expected_workload(size, compactor)
    assumption = f"{retention / DAY:g} days of retention, and the TSDB does not grow"
    if upload is None:
        share = upload_share(compactor, Tsdb(size, compactor).pace)
        assumption += f"; {share:.1%} of it is new each night"
        return Basis(expected, "the given size", (assumption,), Tsdb(size, compactor))
    load = replace(expected, upload=min(upload, size))
    return Basis(load, "the given sizes", (assumption,), _tsdb(load, compactor))


def basis_of_data_dir(data_dir: Path) -> Basis:
    """Return the basis for the blocks of a data directory. Raises SnapshotUnusable."""
    blocks = list_blocks(data_dir).blocks
    if not blocks:
        raise SnapshotUnusable(f"cannot estimate from {data_dir}: it contains no blocks")
    first = instant_from_ms(min(b.min_time_ms for b in blocks))
    span = instant_from_ms(max(b.max_time_ms for b in blocks)) - first
    size = sum(f.size for b in blocks for f in b.files)
    compactor = Compactor.of(span)
    load = replace(
        expected_workload(size, compactor),
        blocks=len(blocks),
        files=sum(len(b.files) for b in blocks),
    )
    assumption = (
        f"the blocks span the retention of {span / DAY:.1f} days, and the TSDB does "
        f"not grow; {load.upload / size if size else 0:.1%} of it is new each night; "
        "samples that are only in memory are not included"
    )
    tsdb = Tsdb(size, compactor)
    return Basis(load, f"the blocks in {data_dir}", (assumption,), tsdb)


def basis_of_repository(repository: Repository) -> Basis | None:
    """Return the basis for the newest good backup and recent uploads; None without backups."""
    view = repository.archive.view()
    entries = repository.entries(view)
    return basis_of_entries(entries, source=repository.url, folders=view.folders)


def basis_of_entries(
    entries: Sequence[BackupEntry],
    *,
    source: str,
    folders: Mapping[str, ArchivedFolder] | None = None,
) -> Basis | None:
    """Return the same for entries that are read already; `folders` are those of the archive."""
    entries = committed(entries)
    newest = newest_good(entries) or (entries[-1] if entries else None)
    if newest is None or newest.header is None:
        return None
    headers = [e.header for e in entries if e.header is not None]
    stored = tuple(
        StoredBackup(
            candidate(e),
            e.header.totals.bytes,
            e.header.layout,
            tuple(dict.fromkeys(_simulated(f.times) for f in e.folders.values())),
        )
        for e in entries
        if e.header
    )
    totals, pace = newest.header.totals, pace_of(stored)
    compactor = _compactor_of(newest.header)
    share, assumption = _nightly_share(headers, upload_share(compactor, pace))
    load = replace(
        expected_workload(totals.bytes, compactor, pace),
        blocks=totals.blocks,
        files=totals.files,
        upload=round(share * totals.bytes),
    )
    folders = folders or {}
    return Basis(
        load,
        f"{newest.backup_id} in {source}",
        (assumption, *_filling(newest.header, compactor)),
        replace(_tsdb(load, compactor), pace=pace),
        headers[-1].layout,
        stored,
        _archived(entries, folders),
        sum(s.size for s in stored if s.layout is Layout.FULL)
        + sum(f.size for f in folders.values()),
    )


def _tsdb(load: Workload, compactor: Compactor) -> Tsdb:
    """Return the TSDB; what a night uploads beyond the expected belongs to its backup alone."""
    tsdb = Tsdb(load.size, compactor)
    measured = load.upload / load.size if load.size else 0.0
    return replace(tsdb, own=max(measured - upload_share(compactor, tsdb.pace), 0.0))


def _compactor_of(header: Header) -> Compactor:
    """Return the compactor of a source whose backup has this header.

    A limit in bytes may delete before the time of its retention is over.
    """
    given = parse_tsdb_retention(header.retention_time)
    if given.size is None and given.percentage is None:
        return Compactor.of(given.time or DEFAULT_RETENTION)
    retention = given.time or LONGEST * 10
    return Compactor(retention, min(_window(header), retention))


def _window(header: Header) -> timedelta:
    if header.min_time and header.max_time:
        return header.max_time - header.min_time
    return timedelta(0)


def _filling(header: Header, compactor: Compactor) -> Iterable[str]:
    """Yield that the TSDB has not reached its retention, if that is so."""
    window = _window(header)
    if window < 0.9 * compactor.window:
        yield (
            f"the backup has {window / DAY:.1f} days of samples, and Prometheus keeps "
            f"{compactor.window / DAY:g}: until then, backups grow"
        )


def _archived(entries: Iterable[BackupEntry], folders: Mapping[str, ArchivedFolder]) -> Archived:
    """Return the blocks of an archive, and which of them no backup names."""
    times = {name: f.times for e in entries for name, f in e.folders.items()}
    unnamed: dict[SimulatedBlock, int] = {}
    for name, held in held_blocks(entries, folders).items():
        if name not in times:
            times[name] = ArchivedTimes(held.begin_ms, held.end_ms, held.partial)
            unnamed[_simulated(times[name])] = ms_from_instant(backup_time(held.held_by))
    sizes: dict[SimulatedBlock, float] = defaultdict(float)
    for name, folder in folders.items():
        if name in times:
            sizes[_simulated(times[name])] += folder.size
    return Archived(sizes, unnamed)


def _simulated(times: ArchivedTimes) -> SimulatedBlock:
    return SimulatedBlock.of(times.begin_ms, times.end_ms)


def _nightly_share(headers: Sequence[Header], expected: float) -> tuple[float, str]:
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
    return (
        expected,
        f"{expected:.1%} of a backup is new each night (expected; no backup shows it yet)",
    )
