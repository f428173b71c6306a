"""Heal a data directory: find bad blocks, move them to a quarantine, and replace them.

An interrupted run is finished by the next one. Prometheus' own files are never deleted.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from prometheus_backup.clock import Clock
from prometheus_backup.datadir.filesystem import (
    require_free_space,
    require_owner,
    require_writable,
    target_errors,
)
from prometheus_backup.datadir.lock import HostLock
from prometheus_backup.errors import (
    BackupNotFound,
    BackupToolError,
    RepositoryError,
    TargetUnusable,
    TargetWouldLoseData,
    UsageError,
)
from prometheus_backup.events import BlockMovedAway, BlockRestored, Step, Warned
from prometheus_backup.folder import Folder
from prometheus_backup.heal.candidates import CandidateFinder
from prometheus_backup.heal.head import HeadRepair, find_head_faults, mended_size
from prometheus_backup.heal.plan import (
    DEFAULT_REQUEST,
    BadBlock,
    BlockCopy,
    CandidateBlocks,
    HealPlan,
    HealRequest,
    Remedy,
    Repair,
    plan_heal,
)
from prometheus_backup.heal.replacement import Replacements
from prometheus_backup.heal.report import HealReport
from prometheus_backup.heal.scan import scan
from prometheus_backup.heal.second_opinion import with_second_opinion
from prometheus_backup.heal.swap import Swap
from prometheus_backup.model import ms_from_instant
from prometheus_backup.prometheus.client import PrometheusClient
from prometheus_backup.prometheus.encodings import strictest
from prometheus_backup.prometheus.loading import (
    reload_timeout,
    wait_until_dropped,
    wait_until_loaded,
)
from prometheus_backup.prometheus.retention import far_ahead
from prometheus_backup.repository.layout import TOOL_FOLDER
from prometheus_backup.repository.repository import Repository
from prometheus_backup.restore.placement import needed_release
from prometheus_backup.restore.target import TargetDirectory, read_target_block
from prometheus_backup.restore.target_blocks import TargetBlock, TargetBlocks
from prometheus_backup.transfer import Transfer
from prometheus_backup.tsdb.block import read_block
from prometheus_backup.tsdb.parallel import block_size

_NEEDS_FILES = frozenset({Remedy.REBUILD, Remedy.REPLACE, Remedy.COVER})
"""Remedies that download or rebuild files."""


@dataclass(frozen=True, slots=True)
class HealOptions:
    """How to heal. `quick` skips series and chunks of blocks that can be opened.

    `processes` is the number of blocks to check in parallel.
    """

    request: HealRequest = DEFAULT_REQUEST
    quick: bool = False
    processes: int = 1
    timeout: timedelta | None = None


DEFAULTS = HealOptions()


@dataclass(frozen=True, slots=True)
class Heal:
    """Heals one data directory.

    `open_repository` is called only if a block needs a copy, and may raise. `client` connects to
    the Prometheus that may be using the directory.
    """

    data_dir: Path
    open_repository: Callable[[], Repository]
    transfer: Transfer
    client: PrometheusClient | None
    clock: Clock
    options: HealOptions = DEFAULTS

    def preview(self) -> HealReport:
        """Find bad blocks and plan their repair without writing anything.

        If the repository cannot be read, the report says so. Raises TargetUnusable if the directory
        cannot be read, UsageError if a Prometheus that is not at the URL uses it.
        """
        with target_errors(self.data_dir, verb="heal"):
            self._require_directory()
            with Folder.hold(self.data_dir) as data:
                return _Run(self, Swap(data)).preview()

    def apply(self) -> HealReport:
        """Heal what can be healed.

        Raises the errors of `preview`, RepositoryLocked if another run uses the directory,
        TargetUnusable if it cannot be written to, and, unless `without_copy` is set, the errors of
        the repository. In these cases no block was changed.
        """
        with target_errors(self.data_dir, verb="heal"):
            self._require_directory()
            with Folder.hold(self.data_dir) as data:
                swap, cannot = Swap(data), f"cannot heal {self.data_dir}"
                require_writable(self.data_dir, swap.folders(), cannot=cannot)
                lock = HostLock.take(self.data_dir)
                try:
                    return _Run(self, swap).apply()
                finally:
                    lock.release()

    def _require_directory(self) -> None:
        if not self.data_dir.is_dir():
            raise TargetUnusable(
                f"cannot heal {self.data_dir}: no such directory",
                hint="pass the data directory of Prometheus",
            )


class _Run:
    """One run of `heal`."""

    def __init__(self, job: Heal, swap: Swap) -> None:
        self._job = job
        self._listener = job.transfer.listener
        self._began = job.clock.monotonic()
        self._swap = swap
        self._directory = TargetDirectory(job.data_dir, job.client, job.transfer, verb="heal")
        names = self._directory.names()
        self._running, warnings = self._directory.running(names)
        for warning in warnings:
            self._listener(Warned(warning))
        timeout, running = job.options.timeout, self._running
        if timeout is None:
            timeout = reload_timeout(running.reload_interval) if running else timedelta()
        self._timeout = timeout
        self._owner = self._directory.owner(names)
        self._pending = dict(self._swap.pending())
        self._listener(Step("scan", f"checking the blocks in {job.data_dir}"))
        self._scan = scan(
            job.data_dir,
            quick=job.options.quick,
            processes=job.options.processes,
            listener=self._listener,
        )
        if self._running is not None and job.client is not None:
            self._scan = with_second_opinion(self._scan, job.client)
        self._warn_of_future_blocks()
        self._head = find_head_faults(
            job.data_dir,
            quick=job.options.quick,
            running=self._running is not None,
            clock=job.clock,
            listener=self._listener,
        )
        self._head_moved: dict[str, Path] = {}
        self._finder: CandidateFinder | None = None
        self._no_copies = ""
        self._moved: dict[str, Path] = {}
        self._placed: list[str] = []
        self._problems: list[str] = []

    def preview(self) -> HealReport:
        """Return what would be done."""
        return self._report(self._plan(self._job.options.request), applied=False)

    def apply(self) -> HealReport:
        """Prepare all replacements, which takes time, then only rename."""
        require_owner(self._owner, cannot=f"cannot heal {self._job.data_dir}")
        with self._swap.staging() as staging:
            self._shelve_unneeded()
            plan = self._prepare_replacements(staging)
            self._apply(plan)
            head = HeadRepair(self._swap, self._owner, self._job.clock.now())
            self._head_moved = head.apply(staging, self._head)
        self._swap.clean_up()
        if self._owner is not None:
            self._swap.data.give_ours(TOOL_FOLDER, self._owner)
        return self._report(plan, applied=True)

    def _apply(self, plan: HealPlan) -> None:
        """Move bad blocks away and their replacements into place."""
        for repair in plan.moves:
            self._move(repair)
        for name in self._pending:
            if (self._job.data_dir / name).exists():
                self._move_away(name, "an interrupted heal has prepared its replacement")
        self._wait_until_dropped()
        self._place()
        self._wait_until_loaded()

    def _plan(self, request: HealRequest, *, strict: bool = False) -> HealPlan:
        """Plan the repairs; if `strict`, raise if backups that they need cannot be read."""
        bad = [b for b in self._scan.bad if b.name not in self._pending]
        candidates: tuple[CandidateBlocks, ...] = ()
        missing: BackupToolError | None = None
        try:
            candidates = self._search([b for b in bad if b.needs_copy], again=bool(request.unsound))
            if self._finder and not candidates:
                missing = BackupNotFound(
                    f"cannot heal from {self._finder.repository.url}: it contains no backup",
                    hint="check REPOSITORY (S3_BUCKET, S3_PREFIX), or use --without-copy to move "
                    "bad blocks away without a replacement",
                )
        except (RepositoryError, UsageError) as error:
            missing = error
        plan = plan_heal(bad, self._sound_blocks(), candidates, request)
        if missing:
            self._no_copies = missing.message
            if strict and not all(r.heals for r in plan.repairs):
                raise missing
        return plan

    def _search(self, bad: Sequence[BadBlock], *, again: bool) -> tuple[CandidateBlocks, ...]:
        if not bad:
            return ()
        if self._finder is None:
            self._finder = CandidateFinder(self._job.open_repository(), bad)
        if again or not self._finder.find_copies():
            return self._finder.all()
        return self._finder.found()

    def _sound_blocks(self) -> TargetBlocks:
        """Return the blocks that are sound or ready, and the start of the samples in memory."""
        ready = (
            self._swap.ready_path(name, ulid)
            for name, ulids in self._pending.items()
            for ulid in ulids
        )
        blocks = (*self._scan.sound, *(read_target_block(path, read_block(path)) for path in ready))
        served = [
            TargetBlock(b.name, b.span.start, b.span.end, b.sources)
            for b in self._scan.bad
            if b.span and b.in_order and b.served
        ]
        size = self._directory.head_size()
        try:
            begin = self._directory.memory_from((*blocks, *served), self._running, size)
        except TargetWouldLoseData:
            begin = datetime.min.replace(tzinfo=UTC)  # unknown: no block may end after it
        version = self._running.version if self._running else ""
        return TargetBlocks(blocks, memory_from=begin, version=version)

    def _prepare_replacements(self, staging: Folder) -> HealPlan:
        """Prepare all replacements; if a copy turns out to be unsound, plan again without it."""
        request, ready = self._job.options.request, dict[str, Repair]()
        while True:
            plan = self._plan(request, strict=not request.without_copy)
            repository = self._finder.repository if self._finder else None
            replacements = Replacements(
                self._swap, staging, repository, self._job.transfer, self._owner
            )
            self._require_room(plan, replacements, staging)
            unsound = set[BlockCopy]()
            for repair in plan.repairs:
                name = repair.bad.name
                if repair.remedy not in _NEEDS_FILES or name in ready:
                    continue
                found = replacements.prepare(repair, self._scan.reports[name])
                unsound |= found
                if not found:
                    ready[name] = repair
            if not unsound:
                return HealPlan(tuple(ready.get(r.bad.name, r) for r in plan.repairs))
            for copy in unsound:
                self._listener(Warned(f"{copy} is not a sound block either"))
            request = replace(request, unsound=request.unsound | unsound)

    def _require_room(self, plan: HealPlan, replacements: Replacements, staging: Folder) -> None:
        cannot = f"cannot heal {self._job.data_dir}"
        size = sum(replacements.size(r, self._scan.reports[r.bad.name]) for r in plan.repairs)
        size += mended_size(self._job.data_dir, self._head)
        require_free_space(self._job.data_dir, staging.path, size, cannot=cannot)

    def _shelve_unneeded(self) -> None:
        """Quarantine ready replacements of blocks that were repaired by other means since."""
        sound = {b.ulid for b in self._scan.sound}
        for name, ulids in self._pending.items():
            for ulid in ulids:
                if not sound.isdisjoint((name, ulid)):
                    note = {"block": ulid, "because": f"{name} was repaired by other means"}
                    self._swap.shelve(name, ulid, note=note, now=self._job.clock.now())
        self._pending = dict(self._swap.pending())

    def _move(self, repair: Repair) -> None:
        bad = repair.bad
        if not (self._job.data_dir / bad.name).exists():
            return  # deleted by retention in the meantime
        if repair.remedy is Remedy.RENAME:
            self._swap.queue_rename(bad.name, ulid=bad.ulid)
        else:
            self._move_away(bad.name, repair.reason)

    def _move_away(self, name: str, reason: str) -> None:
        report = self._scan.reports.get(name)
        faults = [str(fault) for fault in report.faults] if report else []
        note = {"block": name, "faults": faults, "because": reason}
        path = self._swap.move_away(name, note=note, now=self._job.clock.now())
        self._moved[name] = path
        self._listener(BlockMovedAway(name, str(path), reason))

    def _wait_until_dropped(self) -> None:
        """Wait until a running Prometheus no longer has the removed blocks loaded.

        It keeps a loaded block mapped and does not notice another block of the same name.
        """
        coming = {ulid for ulids in self._swap.pending().values() for ulid in ulids}
        gone = {
            ulid for ulid in {*self._moved, *coming} if not (self._job.data_dir / ulid).exists()
        }
        if self._running is None or self._job.client is None or not gone:
            return
        url = self._job.client.url
        self._listener(Step("drop", f"waiting until {url} has dropped the bad blocks"))
        dropped = wait_until_dropped(
            self._job.client,
            self._job.data_dir,
            gone,
            clock=self._job.clock,
            timeout=self._timeout,
        )
        if not dropped.done:
            self._problems.append(
                f"Prometheus has not dropped the bad blocks yet ({dropped.problem}): restart it"
            )

    def _place(self) -> None:
        for name, ulids in self._swap.pending().items():
            for ulid in ulids:
                self._swap.place(name, ulid)
                self._placed.append(ulid)
                self._listener(BlockRestored(ulid, block_size(self._job.data_dir / ulid)))
            self._swap.finish(name)

    def _wait_until_loaded(self) -> None:
        if self._running is None or self._job.client is None or not self._placed:
            return
        self._listener(Step("load", f"waiting until {self._job.client.url} has loaded the blocks"))
        loaded = wait_until_loaded(
            self._job.client,
            self._job.data_dir,
            self._placed,
            clock=self._job.clock,
            timeout=self._timeout,
        )
        if not loaded.done:
            self._problems.append(f"Prometheus has not loaded the blocks yet: {loaded.problem}")

    def _warn_of_future_blocks(self) -> None:
        ends = {b.ulid: b.max_time for b in self._scan.sound}
        ends |= {b.name: b.span.end for b in self._scan.bad if b.span}
        for ulid, end in ends.items():
            if warning := far_ahead(ulid, ms_from_instant(end), now=self._job.clock.now()):
                self._listener(Warned(warning))

    def _warn_of_newer_chunks(self, plan: HealPlan) -> None:
        needed = strictest(needed_release(c.block, version="") for c in plan.copies)
        if self._running is None and needed is not None:
            self._listener(Warned(f"a copy {needed}: use no older Prometheus on this directory"))

    def _report(self, plan: HealPlan, *, applied: bool) -> HealReport:
        self._warn_of_newer_chunks(plan)
        return HealReport(
            scan=self._scan,
            plan=plan,
            applied=applied,
            running=self._running is not None,
            no_copies=self._no_copies,
            pending=self._pending,
            moved=self._moved,
            placed=tuple(self._placed),
            head=self._head,
            head_moved=self._head_moved,
            problems=tuple(self._problems),
            seconds=self._job.clock.monotonic() - self._began,
        )
