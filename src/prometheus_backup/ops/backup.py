"""One run of `backup`, from the lock to the clean-up (docs/design.md, "One run")."""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path

from prometheus_backup import __version__
from prometheus_backup.claim import Claim, claim_backup
from prometheus_backup.errors import (
    BackupToolError,
    NewerFormat,
    RepositoryLocked,
    SnapshotUnusable,
    StopRequest,
    UsageError,
)
from prometheus_backup.events import BackupCommitted, Listener, PlanMade, Step, Warned
from prometheus_backup.lock import HostLock, Intent
from prometheus_backup.manifest import Block, File, Manifest, Prometheus, Totals
from prometheus_backup.model import (
    Level,
    Outcome,
    PutOptions,
    SourceBlock,
    instant_from_ms,
)
from prometheus_backup.ops.place import Placed, Placing
from prometheus_backup.ops.prune import PrunePlan, PruneReport, apply_prune, candidates, plan_prune
from prometheus_backup.ops.snapshot import (
    Snapshot,
    announce,
    begin_request,
    remove_lost_snapshot,
    take_snapshot,
)
from prometheus_backup.ops.source import require_usable_source
from prometheus_backup.plan import BackupPlan, plan_backup
from prometheus_backup.prometheus import PrometheusClient, SourceStatus
from prometheus_backup.repository import Entry, Repository, State, committed, newest_good
from prometheus_backup.retention import Candidate, Policy, decide
from prometheus_backup.transfer import Transfer
from prometheus_backup.tsdb.block import MUTABLE


@dataclass(frozen=True, slots=True)
class BackupOptions:
    """What the user chose. `verify` None commits unverified; the manifest then says so."""

    labels: Mapping[str, str]
    policy: Policy
    storage_class: str | None
    verify: Level | None
    skip_head: bool
    rehash: bool
    allow_empty: bool


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
        lock = HostLock.take(self.data_dir) if self.data_dir.is_dir() else None
        try:
            return self._run_locked(lock)
        finally:
            if lock is not None:
                lock.release()

    def _run_locked(self, lock: HostLock | None) -> BackupReport:
        watch = _Phases(self)
        with watch.phase("check", "checking Prometheus and the repository"):
            status = require_usable_source(self.client, self.data_dir, clock=self.repository.clock)
            assert lock is not None, "the data directory exists"  # noqa: S101 -- for the types
            self.repository.store.ping()
            entries = self.repository.entries()
            self._require_own_repository(entries)
            if not lock.held:
                self._require_alone(entries)
        attempt = _Attempt(self, lock, entries, status)
        try:
            with watch.phase("claim", "claiming a backup id"):
                claim = attempt.claim()
            with claim.kept_alive():
                with watch.phase("snapshot", "asking Prometheus for a snapshot"):
                    snapshot = attempt.snapshot()
                plan = attempt.plan(snapshot)
                with watch.phase("transfer", "transferring the blocks"):
                    placing = attempt.placing()
                    placed = placing.place(plan, snapshot.path)
                with watch.phase("verify", "verifying before the commit"):
                    placed = placing.prove(placed, snapshot.path)
                manifest = attempt.commit(snapshot, placed)
            with watch.phase("retention", "applying retention"):
                prune = attempt.prune(manifest)
        except BaseException as error:
            _clean_up(attempt, committed=False, stopped=isinstance(error, StopRequest))
            raise
        left = _clean_up(attempt, committed=True, stopped=False)
        problems = (*left, *prune.problems)
        return BackupReport(manifest, prune, problems, watch.seconds)

    def _require_own_repository(self, entries: tuple[Entry, ...]) -> None:
        for entry in entries:
            if entry.state is State.NEWER:
                raise NewerFormat(entry.problem)
            if entry.state is State.UNREADABLE:
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

    def _require_alone(self, entries: tuple[Entry, ...]) -> None:
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
        self, run: BackupRun, lock: HostLock, entries: tuple[Entry, ...], status: SourceStatus
    ) -> None:
        self._run = run
        self._lock = lock
        self._entries = entries
        self._status = status
        self._dead_intents = lock.dead_intents(own_run_id=run.run_id)
        self._intent = Intent(run.run_id, repository=run.repository.url)
        self._claim: Claim | None = None
        self._claiming = False
        self._options: PutOptions = PutOptions()
        self._plan: BackupPlan = BackupPlan(())

    @property
    def _dead_runs(self) -> frozenset[str]:
        return frozenset(i.run_id for i in self._dead_intents)

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
        snapshot, self._intent = take_snapshot(
            run.client,
            request,
            lock=self._lock,
            intent=self._intent,
            clock=run.repository.clock,
            listener=run.listener,
        )
        if not snapshot.blocks and not run.options.allow_empty:
            raise SnapshotUnusable(
                "Failed to create snapshot: it holds no block at all",
                hint="is this Prometheus new, or SKIP_HEAD set? --allow-empty commits it anyway",
            )
        return snapshot

    def plan(self, snapshot: Snapshot) -> BackupPlan:
        run = self._run
        previous = newest_good(self._entries)
        store_now = self._claimed.store_now()
        dead = [
            e.incomplete
            for e in self._entries
            if e.state is State.INCOMPLETE
            and e.incomplete
            and e.is_dead(store_now=store_now, dead_runs=self._dead_runs)
        ]
        self._plan = plan_backup(
            snapshot.blocks,
            previous=run.repository.manifest(previous.backup_id) if previous else None,
            dead_runs=dead,
            mutable=MUTABLE,
        )
        uploads, copies = self._plan.uploads, self._plan.copies
        run.listener(
            PlanMade(
                len(uploads), sum(f.size for f in uploads), len(copies), sum(f.size for f in copies)
            )
        )
        return self._plan

    def placing(self) -> Placing:
        run = self._run
        self._options = PutOptions(tags=self._tags())
        return Placing(
            repository=run.repository,
            claim=self._claimed,
            transfer=run.transfer,
            options=replace(
                self._options,
                tags={**self._options.tags, "Content": "data"},
                storage_class=run.options.storage_class,
            ),
            verify=run.options.verify,
            rehash=run.options.rehash,
        )

    def commit(self, snapshot: Snapshot, placed: tuple[Placed, ...]) -> Manifest:
        run = self._run
        manifest = self._manifest(snapshot, placed)
        run.listener(Step("commit", f"committing {manifest.backup_id}"))
        self._claimed.commit(manifest, options=self._options)
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
            committed_at = store.head(f"{manifest.backup_id}/metadata.json").modified
            plan = plan_prune(
                entries,
                policy=run.options.policy,
                now=run.repository.clock.now(),
                store_now=committed_at,
                dead_runs=self._dead_runs,
            )
            return apply_prune(run.repository, plan, run_id=run.run_id, listener=run.listener)
        except BackupToolError as error:
            problem = f"retention failed after the commit: {error.message}"
            run.listener(Warned(problem, error.hint))
            return PruneReport(PrunePlan.nothing(), (), (), (problem,))

    def clean_up(self, *, committed: bool, stopped: bool) -> tuple[str, ...]:
        """Remove our snapshot and those of dead runs; return what is left, in words.

        `stopped`: by a signal, so that a snapshot without a name may still be in the making.
        """
        run = self._run
        left = []
        mine = self._lock.recorded or self._intent
        gone = True
        if mine.asked_at:
            gone = remove_lost_snapshot(run.data_dir, mine, listener=run.listener)
            if not gone:
                left.append(f"the snapshot {mine.snapshot} could not be removed")
        unnamed = stopped and bool(mine.asked_at) and not mine.snapshot
        abandoned = committed or self._abandon()
        if gone and abandoned and not unnamed:
            self._lock.forget(run.run_id)
        for intent in _by_certainty(self._dead_intents):
            if remove_lost_snapshot(run.data_dir, intent, listener=run.listener):
                if committed or not intent.backup_id:
                    self._lock.forget(intent.run_id)
            else:
                left.append(f"the snapshot of the dead run {intent.run_id} could not be removed")
        return tuple(left)

    def _abandon(self) -> bool:
        if self._claim is None:
            return not self._claiming  # else incomplete.json may be there, and be ours
        try:
            self._claim.abandon()
        except BackupToolError as error:
            self._run.listener(Warned(f"the repository was not told of the end: {error.message}"))
            return False
        return True

    @property
    def _claimed(self) -> Claim:
        assert self._claim is not None, "claim() comes first"  # noqa: S101 -- for the types
        return self._claim

    def _tags(self) -> Mapping[str, str]:
        run = self._run
        made = self._claimed.started_at.date()
        mine = Candidate(self._claimed.backup_id, self._claimed.started_at, good=True)
        decisions = decide(
            [*candidates(self._entries), mine], today=made, policy=run.options.policy
        )
        tier = next(d.highest_tier for d in decisions if d.backup_id == mine.backup_id)
        return {
            "Type": tier.value,
            "Date": made.isoformat(),
            "Month": f"{made:%Y-%m}",
            "Year": f"{made:%Y}",
            "SnapshotName": self._claimed.backup_id,
        }

    def _manifest(self, snapshot: Snapshot, placed: tuple[Placed, ...]) -> Manifest:
        run, status = self._run, self._status
        began = self._claimed.started_at.replace(microsecond=0)
        files: dict[str, list[File]] = {b.ulid: [] for b in snapshot.blocks}
        for p in placed:
            files[p.ulid].append(File(path=p.path, size=p.size, sha256=p.sha256, key=p.key))
        blocks = tuple(_block(block, tuple(files[block.ulid])) for block in snapshot.blocks)
        size = sum(block.size for block in blocks)
        return Manifest(
            snapshot_name=snapshot.name,
            backup_id=self._claimed.backup_id,
            timestamp=began,
            prometheus_url=run.client.url,
            retention_time=status.retention,
            storage_size_bytes=size,
            format_version=1,
            tool_version=__version__,
            run_id=run.run_id,
            started_at=self._claimed.started_at,
            finished_at=run.repository.clock.now(),
            labels=dict(run.options.labels),
            degraded=tuple(
                f"block {ulid} is live but not in the snapshot: Prometheus cannot read it"
                for ulid in snapshot.missing
            ),
            verified=run.options.verify,
            prometheus=Prometheus(
                version=status.version,
                revision=status.revision,
                hostname=status.hostname,
                retention=status.retention,
                out_of_order=status.out_of_order,
            ),
            min_time=min((b.min_time for b in blocks), default=None),
            max_time=max((b.max_time for b in blocks), default=None),
            blocks=blocks,
            totals=Totals(
                blocks=len(blocks),
                files=len(placed),
                bytes=size,
                uploaded_bytes=sum(p.size for p in placed if not p.copied),
                copied_bytes=sum(p.size for p in placed if p.copied),
            ),
        )


def _clean_up(attempt: _Attempt, *, committed: bool, stopped: bool) -> tuple[str, ...]:
    """Clean up, also when the signal to stop comes only now: as an exception it comes once."""
    try:
        return attempt.clean_up(committed=committed, stopped=stopped)
    except StopRequest:
        attempt.clean_up(committed=committed, stopped=stopped)
        raise


def _by_certainty(intents: Sequence[Intent]) -> Sequence[Intent]:
    """Return those first that name their snapshot, then the latest, which knew the others'.

    So each one's snapshot is gone before it could be taken for that of the next.
    """
    latest_first = sorted(intents, key=lambda i: (i.asked_at, len(i.known)), reverse=True)
    return sorted(latest_first, key=lambda i: not i.snapshot)


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
        self.seconds[name] = round(timedelta(seconds=clock.monotonic() - began).total_seconds(), 3)


def _block(block: SourceBlock, files: tuple[File, ...]) -> Block:
    return Block(
        ulid=block.ulid,
        min_time=instant_from_ms(block.min_time_ms),
        max_time=instant_from_ms(block.max_time_ms),
        level=block.level,
        sources=block.sources,
        parents=block.parents,
        stats=dict(block.stats),
        files=files,
    )


def _labels(labels: Mapping[str, str]) -> str:
    return ",".join(f"{k}={v}" for k, v in sorted(labels.items())) or "(none)"
