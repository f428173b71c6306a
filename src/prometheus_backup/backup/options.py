"""What a run of `backup` is asked to do, works with, and reports."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from prometheus_backup.events import Listener
from prometheus_backup.model import Layout, Level, Outcome, SnapshotMode
from prometheus_backup.prometheus.client import PrometheusClient
from prometheus_backup.repository.manifest import Manifest
from prometheus_backup.repository.repository import Repository
from prometheus_backup.retention.policy import Policy
from prometheus_backup.retention.prune import PruneReport
from prometheus_backup.transfer import Transfer


@dataclass(frozen=True, slots=True)
class BackupOptions:
    """The options of a run. With `verify` None, the manifest marks the backup as unverified.

    `fingerprints` are the queries to record.
    """

    labels: Mapping[str, str]
    policy: Policy
    storage_class: str | None
    verify: Level | None
    skip_head: bool
    rehash: bool
    allow_empty: bool
    fingerprints: tuple[str, ...] = ()
    processes: int = 1
    """Number of blocks that are checked in parallel at level `tsdb`."""
    layout: Layout = Layout.FULL
    mode: SnapshotMode = SnapshotMode.ADMIN_API
    new_repository: bool = False
    """Allow an empty repository that had backups before."""

    @property
    def with_head(self) -> bool:
        """Return whether samples that are only in memory are saved."""
        return self.mode is SnapshotMode.ADMIN_API and not self.skip_head

    @property
    def inspects(self) -> bool:
        """Return whether the contents of blocks are checked."""
        return self.verify is not None and self.verify.rank >= Level.TSDB.rank


@dataclass(frozen=True, slots=True)
class BackupReport:
    """The result of a run. `problems` make the outcome PARTIAL; `phases` has seconds by phase."""

    manifest: Manifest
    prune: PruneReport
    problems: tuple[str, ...]
    phases: Mapping[str, float]

    @property
    def outcome(self) -> Outcome:
        """Return DONE, or PARTIAL if the backup is degraded or there were problems."""
        return Outcome.PARTIAL if self.problems or self.manifest.degraded else Outcome.DONE


@dataclass(frozen=True, slots=True)
class RunParts:
    """What a run works with."""

    client: PrometheusClient
    data_dir: Path
    repository: Repository
    transfer: Transfer
    options: BackupOptions
    run_id: str
    listener: Listener
