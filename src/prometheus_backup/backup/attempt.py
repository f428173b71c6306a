"""The steps of a run of `backup` from its claim to its clean-up, and what they leave to undo."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from prometheus_backup.backup.archive import ArchivedBlocks, find_archived, unrepairable
from prometheus_backup.backup.blocks import HeldBlocks
from prometheus_backup.backup.describe import (
    BackupOrigin,
    backup_tags,
    build_manifest,
    future_blocks,
)
from prometheus_backup.backup.leftovers import Leftovers
from prometheus_backup.backup.options import RunParts
from prometheus_backup.backup.ownership import remember
from prometheus_backup.backup.plan import BackupPlan, plan_archive_backup, plan_backup
from prometheus_backup.backup.salvage import Salvage
from prometheus_backup.backup.snapshot import (
    Snapshot,
    SnapshotUnfinished,
    new_request,
    take_snapshot,
    with_request,
)
from prometheus_backup.backup.soundness import (
    Contents,
    known_contents,
    with_encodings,
)
from prometheus_backup.backup.upload import StoredFile, Uploader
from prometheus_backup.datadir.lock import Intent
from prometheus_backup.errors import (
    BackupToolError,
    ObjectNotFound,
    RepositoryFull,
    SnapshotUnusable,
    StopRequest,
)
from prometheus_backup.events import BackupCommitted, PlanMade, Step, Warned, ignore
from prometheus_backup.model import BLOCK_TAGS, Layout, Level, PutOptions, SnapshotMode
from prometheus_backup.prometheus.fingerprints import FingerprintQueries
from prometheus_backup.prometheus.status import SourceStatus
from prometheus_backup.repository.claim import Claim, claim_backup
from prometheus_backup.repository.entry import BackupEntry, State, newest_intact
from prometheus_backup.repository.fingerprint import Fingerprint
from prometheus_backup.repository.layout import MANIFEST
from prometheus_backup.repository.manifest import Block, Incomplete, Manifest
from prometheus_backup.retention.prune import PrunePlan, PruneReport, apply_prune, plan_prune
from prometheus_backup.stores.calls import interruptibly
from prometheus_backup.transfer import HashedFile, WorkerContext
from prometheus_backup.tsdb.block import MUTABLE

_ABANDON_TIMEOUT = 8.0  # seconds; a silent store must not delay the end of a run


class Attempt:
    """The state of a run between its claim and its clean-up."""

    def __init__(
        self,
        run: RunParts,
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
        self._salvage = Salvage(run.repository, entries, leftovers.dead_runs, run.listener)
        self._claim: Claim | None = None
        self._claiming = False
        self._held: HeldBlocks | None = None
        self._snapshot_requested = False
        self._snapshot_taken = False
        self._archived = ArchivedBlocks()
        self.known_blocks: tuple[Block, ...] = ()
        """The blocks of this snapshot that the repository has already."""
        self.problems: tuple[str, ...] = ()
        """What is wrong although the backup is committed."""

    def claim(self) -> Claim:
        """Claim a backup id; if there is no room even for that, free what dead runs left."""
        self._lock.record(self._intent)
        self._claiming = True
        self._salvage.remove_unfinished()
        try:
            self._claim = self._claim_id()
        except RepositoryFull:
            swept = self._salvage.sweep(run_id=self._run.run_id)
            self._entries = tuple(e for e in self._entries if e.backup_id not in swept)
            self._claim = self._claim_id()
        self._intent = replace(self._intent, backup_id=self._claim.backup_id)
        self._lock.record(self._intent)
        return self._claim

    def _claim_id(self) -> Claim:
        return claim_backup(
            self._run.repository,
            run_id=self._run.run_id,
            intent=f"backup of {self._run.client.url}",
            layout=self._run.options.layout,
        )

    def snapshot(self) -> Snapshot:
        """Return the blocks to back up. Raises SnapshotUnusable if there are none."""
        run = self._run
        if run.options.mode is SnapshotMode.BLOCKS:
            clock = run.repository.clock
            self._held = HeldBlocks(run.data_dir, self._lock.held, clock, run.listener)
            snapshot = self._held.hold()
        else:
            snapshot = self._take_snapshot()
        self.problems = future_blocks(snapshot.blocks, now=run.repository.clock.now())
        for problem in self.problems:
            run.listener(Warned(problem))
        if not snapshot.blocks and not run.options.allow_empty:
            raise SnapshotUnusable(
                "Failed to create snapshot: it contains no blocks",
                hint="is this Prometheus new, or is SKIP_HEAD or SNAPSHOT_MODE=blocks set? use "
                "--allow-empty to commit an empty backup",
            )
        return snapshot

    def _take_snapshot(self) -> Snapshot:
        run = self._run
        request = new_request(run.client, run.data_dir, skip_head=run.options.skip_head)
        self._intent = with_request(self._intent, request)
        self._snapshot_requested = True
        snapshot = take_snapshot(
            run.client,
            request,
            lock=self._lock,
            intent=self._intent,
            clock=run.repository.clock,
            listener=run.listener,
        )
        self._snapshot_taken = True
        return snapshot

    def plan(self, snapshot: Snapshot) -> BackupPlan:
        """Decide which files to send, to copy, or to name in the archive."""
        run, claim = self._run, self._claimed
        intact = newest_intact(self._entries)
        dead = self._dead()
        previous = self._manifest(intact)
        is_archive = previous is not None and previous.layout is Layout.ARCHIVE
        corrupt = intact.corrupt_blocks if intact else frozenset()
        if claim.layout is Layout.FULL:
            self.known_blocks = previous.blocks if previous else ()
            plan = plan_backup(
                snapshot.blocks,
                backup_id=claim.backup_id,
                previous=previous,
                dead_runs=dead,
                mutable=MUTABLE,
                corrupt=corrupt,
                disposable=self._salvage.keys,
            )
        else:
            self._archived = self._find_archived(snapshot, previous, corrupt)
            archived = self._archived.blocks
            self.known_blocks = (*(previous.blocks if previous else ()), *archived.values())
            plan = plan_archive_backup(
                snapshot.blocks,
                backup_id=claim.backup_id,
                previous=None if is_archive else previous,
                dead_runs=dead,
                mutable=MUTABLE,
                corrupt=corrupt,
                archived=archived,
                damaged=self._archived.damaged,
                disposable=self._salvage.keys,
            )
        self._salvage.free(plan)
        uploads, copies = plan.uploads, plan.copies
        run.listener(
            PlanMade(
                len(uploads), sum(f.size for f in uploads), len(copies), sum(f.size for f in copies)
            )
        )
        return plan

    def _manifest(self, entry: BackupEntry | None) -> Manifest | None:
        """Return the manifest of a backup; None without one, or if it was deleted meanwhile."""
        try:
            return self._run.repository.manifest(entry.backup_id) if entry else None
        except ObjectNotFound:
            return None

    def _dead(self) -> Sequence[Incomplete]:
        """Return what runs left that will never continue."""
        begun = [(e, e.incomplete) for e in self._entries if e.state is State.INCOMPLETE]
        if not begun:
            return ()
        store_now, dead_runs = self._claimed.store_now(), self._leftovers.dead_runs
        return [
            incomplete
            for e, incomplete in begun
            if incomplete and e.is_dead(store_now=store_now, dead_runs=dead_runs)
        ]

    def _find_archived(
        self, snapshot: Snapshot, intact: Manifest | None, corrupt: frozenset[str]
    ) -> ArchivedBlocks:
        """Return the blocks that are in the archive, but none that cannot be made sound again."""
        repository = self._run.repository
        newest = next((e for e in reversed(self._entries) if e.folders), None)
        if newest is not None and (intact is None or newest.backup_id != intact.backup_id):
            intact = self._manifest(newest)
        archived = find_archived(
            repository, self._claimed, snapshot.blocks, previous=intact, corrupt=corrupt
        )
        worker = WorkerContext(self._run.transfer.limit, ignore)

        def is_same(ulid: str, path: str, size: int, sha256: str) -> bool:
            file = HashedFile(snapshot.path / ulid / path, size=size, worker=worker)
            return file.read().sha256 == sha256

        return archived.without(unrepairable(archived, is_same))

    def uploader(self) -> Uploader:
        """Return what stores the files of the plan."""
        run = self._run
        # What backups share has no tags of one of them.
        own = self._tags() if run.options.layout is Layout.FULL else {}
        tags = {**own, **BLOCK_TAGS}
        return Uploader(
            repository=run.repository,
            claim=self._claimed,
            transfer=run.transfer,
            options=PutOptions(tags=tags, storage_class=run.options.storage_class),
            verify=run.options.verify,
            rehash=run.options.rehash,
        )

    def contents(
        self, snapshot: Snapshot, stored: tuple[StoredFile, ...]
    ) -> Mapping[str, Contents]:
        """Return what is known about the contents of the blocks without reading them."""
        known = known_contents(stored, self.known_blocks)
        return with_encodings(
            known, snapshot.blocks, status=self._status, earlier=self.known_blocks
        )

    @property
    def queries(self) -> FingerprintQueries:
        """Return the fingerprint queries; none if this Prometheus cannot answer any."""
        run = self._run
        queries = run.options.fingerprints if self._status.is_known else ()
        return FingerprintQueries(run.client, queries, run.repository.clock, run.listener)

    def commit(
        self,
        snapshot: Snapshot,
        stored: tuple[StoredFile, ...],
        *,
        contents: Mapping[str, Contents],
        fingerprints: tuple[Fingerprint, ...],
    ) -> Manifest:
        """Commit the backup and return its manifest; `problems` says what failed afterwards."""
        run = self._run
        options = run.options
        manifest = build_manifest(
            self._claimed,
            snapshot,
            stored=stored,
            contents=contents,
            origin=BackupOrigin(
                run.client.url, self._status, options.labels, options.verify, fingerprints
            ),
            finished_at=run.repository.clock.now(),
        )
        run.listener(Step("commit", f"committing {manifest.backup_id}"))
        self._complete_folders(manifest)
        problems = self._claimed.commit(manifest, options=PutOptions(tags=self._tags()))
        if self._lock.held:
            try:
                remember(run.data_dir, run.repository.url, manifest.backup_id)
            except SnapshotUnusable as error:
                problems = (*problems, error.message)
        sound = {f.key for _, f in manifest.files()}
        for folder in self._archived.healed.values():
            run.repository.archive.clear(folder, Level.DRILL, sound=sound)
        for problem in problems:
            run.listener(Warned(problem))
        self.problems += problems
        totals = manifest.totals
        run.listener(
            BackupCommitted(
                manifest.backup_id, totals.bytes, totals.uploaded_bytes, totals.copied_bytes
            )
        )
        return manifest

    def _complete_folders(self, manifest: Manifest) -> None:
        """Write block.json into the folders that this run has filled, or made whole again."""
        archive = self._run.repository.archive
        healed = self._archived.healed
        blocks = [
            b
            for b in manifest.blocks
            if b.folder is not None
            and (b.folder in healed or b.folder.endswith(f"/{manifest.backup_id}"))
        ]
        options = PutOptions(tags=BLOCK_TAGS)
        self._run.transfer.store_side().all(
            blocks, lambda block, _: archive.complete(block, options=options)
        )

    def prune(self, manifest: Manifest) -> PruneReport:
        """Apply retention after the commit; if it fails, the backup remains."""
        run = self._run
        try:
            # Not if a verdict has been cleared since.
            listed = None if self._archived.healed else self._claimed.archive
            view = listed or run.repository.archive.view()
            entries = run.repository.entries(view)
            committed_at = self._claimed.committed_at
            if committed_at is None:
                store = run.repository.store
                committed_at = store.head(f"{manifest.backup_id}/{MANIFEST}").modified
            plan = plan_prune(
                entries,
                policy=run.options.policy,
                now=run.repository.clock.now(),
                store_now=committed_at,
                archive=view.folders,
                dead_runs=self._leftovers.dead_runs,
            )
            return apply_prune(
                run.repository,
                plan,
                run_id=run.run_id,
                listener=run.listener,
                limited=True,
            )
        except BackupToolError as error:
            problem = f"retention failed after the commit: {error.message}"
            run.listener(Warned(problem, error.hint))
            return PruneReport(PrunePlan.nothing(), (), (), (problem,))

    def clean_up(self, error: BaseException | None) -> tuple[str, ...]:
        """Remove our snapshot, end our claim, remove intents; return a message per leftover.

        The snapshot goes first: it uses Prometheus' disk, and the store may be silent.
        """
        linked = self._held.release() if self._held else ()
        removed = self._leftovers.remove_own_snapshot()
        mine = self._lock.recorded
        left = () if removed else (f"the snapshot {mine and mine.snapshot} could not be removed",)
        # Prometheus may still complete a snapshot that it was asked for: a later run looks again.
        unfinished = isinstance(error, StopRequest | SnapshotUnfinished)
        pending = unfinished and self._snapshot_requested and not self._snapshot_taken
        others = self._leftovers.forget(
            removed=removed and not pending,
            end_recorded=error is None or self._abandon(),
            committed=error is None,
        )
        return (*others, *linked, *left)

    def _abandon(self) -> bool:
        if self._claim is None:
            return not self._claiming  # else there may be an incomplete.json of ours
        try:
            interruptibly(self._claim.abandon, seconds=_ABANDON_TIMEOUT)
        except (BackupToolError, TimeoutError) as error:
            cause = error if str(error) else f"no answer within {_ABANDON_TIMEOUT:g} s"
            self._run.listener(
                Warned(f"cannot record the end of this run in the repository: {cause}")
            )
            return False
        return True

    def _tags(self) -> Mapping[str, str]:
        return backup_tags(self._claimed, self._entries, policy=self._run.options.policy)

    @property
    def _claimed(self) -> Claim:
        assert self._claim is not None, "call claim() first"  # noqa: S101 -- for the types
        return self._claim
