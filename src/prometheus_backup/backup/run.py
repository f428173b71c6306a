"""One run of `backup`, from the lock to the clean-up (docs/design.md, "One run")."""

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from prometheus_backup.backup.describe import BackupOrigin, backup_tags, build_manifest
from prometheus_backup.backup.leftovers import Leftovers
from prometheus_backup.backup.plan import BackupPlan, plan_backup
from prometheus_backup.backup.snapshot import (
    Snapshot,
    SnapshotUnfinished,
    announce,
    begin_request,
    take_snapshot,
)
from prometheus_backup.backup.soundness import Faults, inspect_snapshot, known_faults
from prometheus_backup.backup.upload import StoredFile, Uploader
from prometheus_backup.datadir.lock import HostLock, Intent
from prometheus_backup.errors import (
    BackupToolError,
    NewerFormat,
    RepositoryLocked,
    SnapshotUnusable,
    StopRequest,
    UsageError,
)
from prometheus_backup.events import BackupCommitted, Listener, PlanMade, Step, Warned
from prometheus_backup.model import Level, Outcome, PutOptions
from prometheus_backup.prometheus.client import PrometheusClient, SourceStatus
from prometheus_backup.prometheus.fingerprints import FingerprintQueries
from prometheus_backup.prometheus.instance import require_usable_source
from prometheus_backup.repository.claim import Claim, claim_backup
from prometheus_backup.repository.fingerprint import Fingerprint
from prometheus_backup.repository.layout import MANIFEST, TOOL_FOLDER
from prometheus_backup.repository.manifest import Manifest
from prometheus_backup.repository.repository import (
    BackupEntry,
    Repository,
    State,
    committed,
    newest_intact,
)
from prometheus_backup.retention.policy import Policy
from prometheus_backup.retention.prune import PrunePlan, PruneReport, apply_prune, plan_prune
from prometheus_backup.transfer import Transfer
from prometheus_backup.tsdb.block import MUTABLE


@dataclass(frozen=True, slots=True)
class BackupOptions:
    """What the user chose. `verify` None commits unverified; the manifest then says so.

    `fingerprints` are the queries whose answers are recorded.
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
    """Blocks that are checked at once at level `tsdb`."""

    @property
    def inspects(self) -> bool:
        """Tell whether blocks are checked on their way in."""
        return self.verify is not None and self.verify.rank >= Level.TSDB.rank


@dataclass(frozen=True, slots=True)
class BackupReport:
    """What a run did. `problems` are why the outcome is PARTIAL; seconds by phase in `phases`."""

    manifest: Manifest
    prune: PruneReport
    problems: tuple[str, ...]
    phases: Mapping[str, float]

    @property
    def outcome(self) -> Outcome:
        """Return DONE, or PARTIAL where the backup is degraded or something was left undone."""
        return Outcome.PARTIAL if self.problems or self.manifest.degraded else Outcome.DONE


@dataclass(frozen=True, slots=True)
class BackupRun:
    """Everything one run needs."""

    client: PrometheusClient
    data_dir: Path
    repository: Repository
    transfer: Transfer
    options: BackupOptions
    run_id: str
    listener: Listener

    def run(self) -> BackupReport:
        """Make one backup. Raises any error of `errors`; then nothing was committed.

        Whatever happens, the snapshot is removed, and what could not be is said and remembered.
        """
        phases = _Phases(self)
        with contextlib.ExitStack() as stack:
            # Where runs have been, what dead ones left goes first, whatever comes after. Elsewhere
            # nothing is created before the directory has proved to be the right one.
            been_here = (self.data_dir / TOOL_FOLDER).is_dir()
            leftovers = self._lock(stack) if been_here else None
            with phases.phase("check", "checking Prometheus and the repository"):
                status = require_usable_source(
                    self.client, self.data_dir, clock=self.repository.clock
                )
                leftovers = leftovers or self._lock(stack)
                entries = self._require_usable_repository(alone=not leftovers.lock.held)
            attempt = _Attempt(self, leftovers, entries, status)
            try:
                manifest, prune = self._make(attempt, phases)
            except BaseException as error:
                _clean_up(attempt, error)
                raise
            left = _clean_up(attempt, None)
        return BackupReport(manifest, prune, (*left, *prune.problems), phases.seconds)

    def _lock(self, stack: contextlib.ExitStack) -> Leftovers:
        lock = HostLock.take(self.data_dir)
        stack.callback(lock.release)
        leftovers = Leftovers(lock, self.data_dir, run_id=self.run_id, listener=self.listener)
        leftovers.remove_dead_snapshots()
        return leftovers

    def _make(self, attempt: "_Attempt", phases: "_Phases") -> tuple[Manifest, PruneReport]:
        with phases.phase("claim", "claiming a backup id"):
            claim = attempt.claim()
        with claim.kept_alive():
            with self._asking(phases, "asking Prometheus the fingerprint queries"):
                asked = attempt.questions.ask(self.data_dir, skip_head=self.options.skip_head)
            with phases.phase("snapshot", "asking Prometheus for a snapshot"):
                snapshot = attempt.snapshot()
            with self._asking(phases, "asking the fingerprint queries again"):
                fingerprints = attempt.questions.ask_again(asked)
            plan = attempt.plan(snapshot)
            with phases.phase("transfer", "transferring the blocks"):
                placing = attempt.placing()
                placed = placing.place(plan, snapshot.path)
            faults = attempt.known_faults(placed)
            if self.options.inspects:
                with phases.phase("inspect", "looking whether the blocks are sound"):
                    faults = inspect_snapshot(
                        snapshot, faults, processes=self.options.processes, listener=self.listener
                    )
            with phases.phase("verify", "verifying before the commit"):
                placed = placing.prove(placed, snapshot.path)
            manifest = attempt.commit(snapshot, placed, faults=faults, fingerprints=fingerprints)
        with phases.phase("retention", "applying retention"):
            prune = attempt.prune(manifest)
        return manifest, prune

    def _asking(self, phases: "_Phases", text: str) -> contextlib.AbstractContextManager[object]:
        if not self.options.fingerprints:
            return contextlib.nullcontext()
        return phases.phase("fingerprints", text)

    def _require_usable_repository(self, *, alone: bool) -> tuple[BackupEntry, ...]:
        self.repository.store.ping()
        entries = self.repository.entries()
        self._require_own_repository(entries)
        if alone:
            self._require_alone(entries)
        return entries

    def _require_own_repository(self, entries: tuple[BackupEntry, ...]) -> None:
        for entry in entries:
            if entry.state is State.NEWER:
                raise NewerFormat(entry.problem)
            if entry.state in (State.UNREADABLE, State.ARCHIVED):
                self.listener(Warned(entry.problem))
        held = committed(entries)
        newest = held[-1].header if held else None
        if newest and dict(newest.labels) != dict(self.options.labels):
            raise UsageError(
                f"cannot back up into {self.repository.url}: its newest backup, "
                f"{newest.backup_id}, has labels {_labels(newest.labels)}, this run has "
                f"{_labels(self.options.labels)}",
                hint="give every Prometheus a prefix of its own (S3_PREFIX), or the same "
                "BACKUP_LABELS as before",
            )

    def _require_alone(self, entries: tuple[BackupEntry, ...]) -> None:
        """Without a host lock, somebody else's young incomplete.json means: a run is at work."""
        store_now = self.repository.store_now(run_id=self.run_id)
        for entry in entries:
            if entry.state is not State.INCOMPLETE or entry.incomplete is None:
                continue
            if not entry.is_dead(store_now=store_now, dead_runs=frozenset()):
                raise RepositoryLocked(
                    f"cannot back up into {self.repository.url}: {entry.backup_id} is being made "
                    f"by {entry.incomplete.host or 'another host'}, and {self.data_dir} is "
                    "read-only, so whether that run still lives cannot be told",
                )


class _Attempt:
    """The state of a run between its claim and its clean-up."""

    def __init__(
        self,
        run: BackupRun,
        leftovers: Leftovers,
        entries: tuple[BackupEntry, ...],
        status: SourceStatus,
    ) -> None:
        self._run = run
        self._leftovers = leftovers
        self._lock = leftovers.lock
        self._entries = entries
        self._status = status
        self._intent = Intent(run.run_id, repository=run.repository.url)
        self._claim: Claim | None = None
        self._claiming = False
        self._asked = False
        self._taken = False
        self._previous: Manifest | None = None

    def claim(self) -> Claim:
        self._lock.record(self._intent)
        self._claiming = True
        self._claim = claim_backup(
            self._run.repository,
            run_id=self._run.run_id,
            intent=f"backup of {self._run.client.url}",
        )
        self._intent = replace(self._intent, backup_id=self._claim.backup_id)
        self._lock.record(self._intent)
        return self._claim

    def snapshot(self) -> Snapshot:
        run = self._run
        request = begin_request(run.client, run.data_dir, skip_head=run.options.skip_head)
        self._intent = announce(self._intent, request)
        self._asked = True
        snapshot = take_snapshot(
            run.client,
            request,
            lock=self._lock,
            intent=self._intent,
            clock=run.repository.clock,
            listener=run.listener,
        )
        self._taken = True
        if not snapshot.blocks and not run.options.allow_empty:
            raise SnapshotUnusable(
                "Failed to create snapshot: it holds no block at all",
                hint="is this Prometheus new, or SKIP_HEAD set? --allow-empty commits it anyway",
            )
        return snapshot

    def plan(self, snapshot: Snapshot) -> BackupPlan:
        run = self._run
        previous = newest_intact(self._entries)
        store_now = self._claimed.store_now()
        dead = [
            e.incomplete
            for e in self._entries
            if e.state is State.INCOMPLETE
            and e.incomplete
            and e.is_dead(store_now=store_now, dead_runs=self._leftovers.dead_runs)
        ]
        self._previous = run.repository.manifest(previous.backup_id) if previous else None
        plan = plan_backup(
            snapshot.blocks,
            previous=self._previous,
            dead_runs=dead,
            mutable=MUTABLE,
            corrupt=previous.corrupt_blocks if previous else frozenset(),
        )
        uploads, copies = plan.uploads, plan.copies
        run.listener(
            PlanMade(
                len(uploads), sum(f.size for f in uploads), len(copies), sum(f.size for f in copies)
            )
        )
        return plan

    def placing(self) -> Uploader:
        run = self._run
        tags = {**self._tags(), "Content": "data"}
        return Uploader(
            repository=run.repository,
            claim=self._claimed,
            transfer=run.transfer,
            options=PutOptions(tags=tags, storage_class=run.options.storage_class),
            verify=run.options.verify,
            rehash=run.options.rehash,
        )

    @property
    def questions(self) -> FingerprintQueries:
        run = self._run
        return FingerprintQueries(
            run.client, run.options.fingerprints, run.repository.clock, run.listener
        )

    def known_faults(self, placed: tuple[StoredFile, ...]) -> Mapping[str, Faults]:
        """Return what the previous backup knew of the blocks."""
        return known_faults(placed, self._previous)

    def commit(
        self,
        snapshot: Snapshot,
        placed: tuple[StoredFile, ...],
        *,
        faults: Mapping[str, Faults],
        fingerprints: tuple[Fingerprint, ...],
    ) -> Manifest:
        run = self._run
        options = run.options
        manifest = build_manifest(
            self._claimed,
            snapshot,
            placed=placed,
            faults=faults,
            origin=BackupOrigin(
                run.client.url, self._status, options.labels, options.verify, fingerprints
            ),
            finished_at=run.repository.clock.now(),
        )
        run.listener(Step("commit", f"committing {manifest.backup_id}"))
        self._claimed.commit(manifest, options=PutOptions(tags=self._tags()))
        totals = manifest.totals
        run.listener(
            BackupCommitted(
                manifest.backup_id, totals.bytes, totals.uploaded_bytes, totals.copied_bytes
            )
        )
        return manifest

    def prune(self, manifest: Manifest) -> PruneReport:
        """Apply retention after the commit; a failure of it does not undo the backup."""
        run = self._run
        try:
            entries = run.repository.entries()
            store = run.repository.store
            committed_at = store.head(f"{manifest.backup_id}/{MANIFEST}").modified
            plan = plan_prune(
                entries,
                policy=run.options.policy,
                now=run.repository.clock.now(),
                store_now=committed_at,
                dead_runs=self._leftovers.dead_runs,
            )
            return apply_prune(run.repository, plan, run_id=run.run_id, listener=run.listener)
        except BackupToolError as error:
            problem = f"retention failed after the commit: {error.message}"
            run.listener(Warned(problem, error.hint))
            return PruneReport(PrunePlan.nothing(), (), (), (problem,))

    def clean_up(self, error: BaseException | None) -> tuple[str, ...]:
        """Remove our snapshot, tell the repository, forget what is done; return what is left."""
        unfinished = isinstance(error, StopRequest | SnapshotUnfinished)
        return self._leftovers.clean_up(
            settled=error is None or self._abandon(),
            pending=unfinished and self._asked and not self._taken,
            committed=error is None,
        )

    def _abandon(self) -> bool:
        if self._claim is None:
            return not self._claiming  # else incomplete.json may be there, and be ours
        try:
            self._claim.abandon()
        except BackupToolError as error:
            self._run.listener(Warned(f"the repository was not told of the end: {error.message}"))
            return False
        return True

    def _tags(self) -> Mapping[str, str]:
        return backup_tags(self._claimed, self._entries, policy=self._run.options.policy)

    @property
    def _claimed(self) -> Claim:
        assert self._claim is not None, "claim() comes first"  # noqa: S101 -- for the types
        return self._claim


def _clean_up(attempt: _Attempt, error: BaseException | None) -> tuple[str, ...]:
    """Clean up, also when the signal to stop comes only now: as an exception it comes once."""
    try:
        return attempt.clean_up(error)
    except StopRequest:
        attempt.clean_up(error)
        raise


class _Phases:
    """Announces the steps of a run and measures them."""

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


def _labels(labels: Mapping[str, str]) -> str:
    return ",".join(f"{k}={v}" for k, v in sorted(labels.items())) or "(none)"
