"""One run of `backup`, from the host lock to the clean-up (docs/design.md, "One run")."""

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from prometheus_backup.backup.attempt import Attempt
from prometheus_backup.backup.expiry import require_kept
from prometheus_backup.backup.leftovers import Leftovers
from prometheus_backup.backup.options import BackupReport, RunParts
from prometheus_backup.backup.ownership import (
    require_no_other_run,
    require_not_lost,
    require_readable,
    require_same_source,
)
from prometheus_backup.backup.soundness import inspect_snapshot
from prometheus_backup.datadir.lock import HostLock
from prometheus_backup.errors import StopRequest
from prometheus_backup.events import Step
from prometheus_backup.model import Layout, SnapshotMode
from prometheus_backup.prometheus.instance import require_usable_source, source_of_blocks
from prometheus_backup.prometheus.status import SourceStatus
from prometheus_backup.repository.entry import BackupEntry
from prometheus_backup.repository.layout import TOOL_FOLDER
from prometheus_backup.repository.manifest import Manifest
from prometheus_backup.retention.prune import PruneReport

_TAKING = {
    SnapshotMode.ADMIN_API: "requesting a snapshot from Prometheus",
    SnapshotMode.BLOCKS: "holding the blocks on disk",
}


@dataclass(frozen=True, slots=True)
class BackupRun(RunParts):
    """One run of `backup`."""

    def run(self) -> BackupReport:
        """Make one backup. If this raises an error, nothing was committed.

        The snapshot is removed in every case. If that fails, it is reported, and a later run tries
        again.
        """
        phases = _Phases(self)
        with contextlib.ExitStack() as stack:
            # If there were runs before, remove the snapshots of dead ones even if this run fails.
            # Else create nothing until the directory is known to be the right one.
            used_before = (self.data_dir / TOOL_FOLDER).is_dir()
            leftovers = self._lock(stack) if used_before else None
            with phases.phase("check", "checking Prometheus and the repository"):
                status = self._usable_source()
                leftovers = leftovers or self._lock(stack)
                entries = self._require_usable_repository(status, locked=leftovers.lock.held)
                self._require_kept(entries)
            attempt = Attempt(self, leftovers, entries, status)
            try:
                manifest, prune = self._make(attempt, phases)
            except BaseException as error:
                _clean_up(attempt, error)
                raise
            left = _clean_up(attempt, None)
        problems = (*attempt.problems, *left, *prune.problems)
        return BackupReport(manifest, prune, problems, phases.seconds)

    def _usable_source(self) -> SourceStatus:
        client, data_dir, clock = self.client, self.data_dir, self.repository.clock
        if self.options.mode is SnapshotMode.BLOCKS:
            return source_of_blocks(client, data_dir, clock=clock, listener=self.listener)
        return require_usable_source(client, data_dir, clock=clock)

    def _lock(self, stack: contextlib.ExitStack) -> Leftovers:
        lock = HostLock.take(self.data_dir)
        stack.callback(lock.release)
        leftovers = Leftovers(lock, self.data_dir, run_id=self.run_id, listener=self.listener)
        leftovers.remove_dead_snapshots()
        return leftovers

    def _make(self, attempt: Attempt, phases: "_Phases") -> tuple[Manifest, PruneReport]:
        with phases.phase("claim", "claiming a backup id"):
            claim = attempt.claim()
        with claim.heartbeat():
            with self._queries(phases, attempt, "running the fingerprint queries"):
                first = attempt.queries.run(self.data_dir, skip_head=not self.options.with_head)
            with phases.phase("snapshot", _TAKING[self.options.mode]):
                snapshot = attempt.snapshot()
            with self._queries(phases, attempt, "running the fingerprint queries again"):
                fingerprints = attempt.queries.confirm(first)
            plan = attempt.plan(snapshot)
            with phases.phase("transfer", "transferring the blocks"):
                uploader = attempt.uploader()
                stored = uploader.store(plan, snapshot.path)
            contents = attempt.contents(snapshot, stored)
            if self.options.inspects:
                with phases.phase("inspect", "checking the contents of the blocks"):
                    contents = inspect_snapshot(
                        snapshot, contents, processes=self.options.processes, listener=self.listener
                    )
            with phases.phase("verify", "verifying before the commit"):
                stored = uploader.verify_stored(stored, snapshot.path)
            manifest = attempt.commit(
                snapshot, stored, contents=contents, fingerprints=fingerprints
            )
        with phases.phase("retention", "applying retention"):
            prune = attempt.prune(manifest)
        return manifest, prune

    def _queries(
        self, phases: "_Phases", attempt: Attempt, text: str
    ) -> contextlib.AbstractContextManager[object]:
        if not attempt.queries.queries:
            return contextlib.nullcontext()
        return phases.phase("fingerprints", text)

    def _require_usable_repository(
        self, status: SourceStatus, *, locked: bool
    ) -> tuple[BackupEntry, ...]:
        repository, data_dir = self.repository, self.data_dir
        repository.store.ping()
        # In layout `archive`, faults of the archive are looked up once its folders are claimed.
        is_full = self.options.layout is Layout.FULL
        entries = repository.entries() if is_full else repository.backups()
        if not self.options.new_repository:
            require_not_lost(data_dir, repository.url, entries)
        require_readable(entries, listener=self.listener)
        require_same_source(
            repository, entries, labels=self.options.labels, status=status, data_dir=data_dir
        )
        if not locked:
            require_no_other_run(repository, entries, run_id=self.run_id, data_dir=data_dir)
        return entries

    def _require_kept(self, entries: Sequence[BackupEntry]) -> None:
        """Look at the rules of the bucket before the first archive backup; later, `check` does."""
        if self.options.layout is Layout.ARCHIVE and not any(e.folders for e in entries):
            require_kept(self.repository)


def _clean_up(attempt: Attempt, error: BaseException | None) -> tuple[str, ...]:
    """Clean up; if a stop signal interrupts this, start over: it is raised only once."""
    try:
        return attempt.clean_up(error)
    except StopRequest:
        attempt.clean_up(error)
        raise


class _Phases:
    """Announces the phases of a run and measures their duration."""

    def __init__(self, run: BackupRun) -> None:
        self._run = run
        self.seconds: dict[str, float] = {}

    @contextlib.contextmanager
    def phase(self, name: str, text: str) -> Iterator[None]:
        clock = self._run.repository.clock
        self._run.listener(Step(name, text))
        began = clock.monotonic()
        yield
        took = clock.monotonic() - began
        self.seconds[name] = round(self.seconds.get(name, 0.0) + took, 3)
