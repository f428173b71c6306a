"""Heal a data directory: find its bad blocks, move them away, put sound ones in their places.

Cut off at any point, the next run finishes it. Nothing that is Prometheus' is ever deleted.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from prometheus_backup.clock import Clock
from prometheus_backup.datadir.filesystem import (
    chown,
    require_owner,
    require_room,
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
from prometheus_backup.heal.candidates import CandidateFinder
from prometheus_backup.heal.plan import (
    AS_IS,
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
from prometheus_backup.heal.scan import Scan, scan
from prometheus_backup.heal.swap import Swap
from prometheus_backup.model import Outcome
from prometheus_backup.prometheus.client import PrometheusClient
from prometheus_backup.prometheus.loading import PATIENCE, wait_until_dropped, wait_until_loaded
from prometheus_backup.repository.repository import Repository
from prometheus_backup.restore.placement import TargetBlock, TargetBlocks
from prometheus_backup.restore.target import TargetDirectory, read_target_block
from prometheus_backup.transfer import Transfer
from prometheus_backup.tsdb.block import read_block
from prometheus_backup.tsdb.parallel import block_size

_FROM_FILES = frozenset({Remedy.MEND, Remedy.SPLICE, Remedy.COVER})
"""Remedies that need files to be brought or made."""


@dataclass(frozen=True, slots=True)
class HealOptions:
    """How to heal. `quick` looks at no series and no chunk of a block that can be opened.

    `processes` check blocks at the same time.
    """

    wish: HealRequest = AS_IS
    quick: bool = False
    processes: int = 1
    patience: timedelta = PATIENCE


PLAIN = HealOptions()


@dataclass(frozen=True, slots=True)
class HealReport:
    """What was found, and what was done about it.

    `waiting` is what an interrupted heal left to be finished: the sound blocks, by the name of the
    bad one. `moved` is where in the quarantine bad blocks are, by name; `placed` are the blocks
    that took their places; `problems` are in words. A scan alone is not `applied`, and has none of
    these. `running` says that a Prometheus served the directory; `no_copies` is why no repository
    was looked at that should have been.
    """

    scan: Scan
    plan: HealPlan
    applied: bool
    running: bool
    no_copies: str = ""
    waiting: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    moved: Mapping[str, Path] = field(default_factory=dict)
    placed: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()
    seconds: float = 0.0

    @property
    def outcome(self) -> Outcome:
        """Return FAULTY where a scan found what is to be healed, PARTIAL where not all was.

        To have looked at nothing is PARTIAL too.
        """
        if not (self.scan.sound or self.scan.bad or self.waiting):
            return Outcome.PARTIAL
        if self.applied:
            healed = all(h.heals for h in self.plan.healings) and not self.problems
            return Outcome.DONE if healed else Outcome.PARTIAL
        ill = any(h.remedy is not Remedy.NOTHING for h in self.plan.healings)
        return Outcome.FAULTY if ill or self.waiting else Outcome.DONE


@dataclass(frozen=True, slots=True)
class Heal:
    """The healing of one data directory.

    `open_repository` is called where a block wants a copy; it raises where there is none. `client`
    is asked for the Prometheus that may run on the directory.
    """

    data_dir: Path
    open_repository: Callable[[], Repository]
    transfer: Transfer
    client: PrometheusClient | None
    clock: Clock
    options: HealOptions = PLAIN

    def look(self) -> HealReport:
        """Find what is bad and say what would be done; nothing is written.

        A repository that cannot be read is told of in the report. Raises TargetUnusable where the
        directory cannot be read, and UsageError where a Prometheus runs on it and not at the URL.
        """
        with target_errors(self.data_dir, verb="heal"):
            self._require_directory()
            return _Run(self).look()

    def apply(self) -> HealReport:
        """Heal what can be healed.

        Raises as `look` does, RepositoryLocked where another run is at work on the directory,
        TargetUnusable where it cannot be written to, and, unless it is to go on without copies,
        what the repository raises. Nothing that is Prometheus' was touched then.
        """
        with target_errors(self.data_dir, verb="heal"):
            self._require_directory()
            swap, cannot = Swap(self.data_dir), f"cannot heal {self.data_dir}"
            require_writable(self.data_dir, swap.folders(), cannot=cannot)
            lock = HostLock.take(self.data_dir)
            try:
                return _Run(self).apply()
            finally:
                lock.release()

    def _require_directory(self) -> None:
        if not self.data_dir.is_dir():
            raise TargetUnusable(
                f"cannot heal {self.data_dir}: there is no such directory",
                hint="give the directory that Prometheus stores its data in",
            )


class _Run:
    """One healing while it goes on."""

    def __init__(self, job: Heal) -> None:
        self._job = job
        self._listener = job.transfer.listener
        self._began = job.clock.monotonic()
        self._swap = Swap(job.data_dir)
        self._directory = TargetDirectory(job.data_dir, job.client, job.transfer, verb="heal")
        names = self._directory.names()
        self._running, warnings = self._directory.running(names)
        for warning in warnings:
            self._listener(Warned(warning))
        self._owner = self._directory.owner(names)
        self._waiting = dict(self._swap.waiting())
        self._listener(Step("scan", f"checking the blocks in {job.data_dir}"))
        self._scan = scan(
            job.data_dir,
            quick=job.options.quick,
            processes=job.options.processes,
            listener=self._listener,
        )
        self._offers: CandidateFinder | None = None
        self._no_copies = ""
        self._moved: dict[str, Path] = {}
        self._placed: list[str] = []
        self._problems: list[str] = []

    def look(self) -> HealReport:
        """Say what would be done."""
        return self._report(self._plan(self._job.options.wish), applied=False)

    def apply(self) -> HealReport:
        """Do it: all that takes time first, then renames alone."""
        require_owner(self._owner, cannot=f"cannot heal {self._job.data_dir}")
        self._swap.begin()
        self._shelve_what_is_not_needed()
        plan = self._make_ready()
        for healing in plan.moves:
            self._move(healing)
        for name in self._waiting:
            if (self._job.data_dir / name).exists():
                self._move_away(name, "an interrupted heal had made ready what replaces it")
        self._wait_until_dropped()
        self._place()
        self._wait_until_loaded()
        self._swap.end()
        if self._owner is not None:
            for path in (self._swap.own, *self._swap.own.rglob("*")):
                chown(path, self._owner)
        return self._report(plan, applied=True)

    def _plan(self, wish: HealRequest, *, strict: bool = False) -> HealPlan:
        """Decide about what is bad; if `strict`, raise where backups are missing for it."""
        bad = [b for b in self._scan.bad if b.name not in self._waiting]
        offers: tuple[CandidateBlocks, ...] = ()
        missing: BackupToolError | None = None
        try:
            offers = self._offered([b for b in bad if b.wants_copy], again=bool(wish.unsound))
            if self._offers and not offers:
                missing = BackupNotFound(
                    f"cannot heal from {self._offers.repository.url}: it holds no backup",
                    hint="check REPOSITORY (S3_BUCKET, S3_PREFIX); --without-copy moves bad blocks "
                    "away all the same",
                )
        except (RepositoryError, UsageError) as error:
            missing = error
        plan = plan_heal(bad, self._held(), offers, wish)
        if missing:
            self._no_copies = missing.message
            if strict and not all(h.heals for h in plan.healings):
                raise missing
        return plan

    def _offered(self, bad: Sequence[BadBlock], *, again: bool) -> tuple[CandidateBlocks, ...]:
        if not bad:
            return ()
        if self._offers is None:
            self._offers = CandidateFinder(self._job.open_repository(), bad)
        if again or not self._offers.each_has_a_copy():
            return self._offers.all()
        return self._offers.read()

    def _held(self) -> TargetBlocks:
        """Return the blocks that are sound or made ready, and where samples in memory begin."""
        ready = (
            self._swap.ready / name / ulid
            for name, ulids in self._waiting.items()
            for ulid in ulids
        )
        blocks = (*self._scan.sound, *(read_target_block(path, read_block(path)) for path in ready))
        known = [
            TargetBlock(b.name, b.span.start, b.span.end, b.sources)
            for b in self._scan.bad
            if b.span and b.in_order and b.served
        ]
        size = self._directory.head_size()
        try:
            begin = self._directory.memory_from(
                TargetBlocks((*blocks, *known)), self._running, size
            )
        except TargetWouldLoseData:
            begin = datetime.min.replace(tzinfo=UTC)  # nobody can tell: nothing may reach into it
        return TargetBlocks(blocks, memory_from=begin)

    def _make_ready(self) -> HealPlan:
        """Bring what replaces bad blocks, deciding anew where a copy turns out to be unsound."""
        wish, ready = self._job.options.wish, dict[str, Repair]()
        while True:
            plan = self._plan(wish, strict=not wish.without_copy)
            repository = self._offers.repository if self._offers else None
            replacements = Replacements(self._swap, repository, self._job.transfer, self._owner)
            self._require_room(plan, replacements)
            unsound = set[BlockCopy]()
            for healing in plan.healings:
                name = healing.bad.name
                if healing.remedy not in _FROM_FILES or name in ready:
                    continue
                found = replacements.make_ready(healing, self._scan.reports[name])
                unsound |= found
                if not found:
                    ready[name] = healing
            if not unsound:
                healings = tuple(ready.get(h.bad.name, h) for h in plan.healings)
                return HealPlan(healings)
            for copy in unsound:
                self._listener(Warned(f"{copy} is no sound block either"))
            wish = replace(wish, unsound=wish.unsound | unsound)

    def _require_room(self, plan: HealPlan, replacements: Replacements) -> None:
        cannot = f"cannot heal {self._job.data_dir}"
        size = sum(replacements.size(h, self._scan.reports[h.bad.name]) for h in plan.healings)
        require_room(self._job.data_dir, self._swap.staging, size, cannot=cannot)

    def _shelve_what_is_not_needed(self) -> None:
        """Put aside what an interrupted heal made ready, and somebody else put right since."""
        sound = {b.ulid for b in self._scan.sound}
        for name, ulids in self._waiting.items():
            for ulid in ulids:
                if not sound.isdisjoint((name, ulid)):
                    note = {"block": ulid, "because": f"{name} was put right by other means"}
                    self._swap.shelve(name, ulid, note=note, now=self._job.clock.now())
        self._waiting = dict(self._swap.waiting())

    def _move(self, healing: Repair) -> None:
        bad = healing.bad
        if not (self._job.data_dir / bad.name).exists():
            return  # retention was faster
        if healing.remedy is Remedy.RENAME:
            self._swap.take_out(bad.name, ulid=bad.ulid)
        else:
            self._move_away(bad.name, healing.reason)

    def _move_away(self, name: str, reason: str) -> None:
        report = self._scan.reports.get(name)
        faults = [str(fault) for fault in report.faults] if report else []
        note = {"block": name, "faults": faults, "because": reason}
        place = self._swap.move_away(name, note=note, now=self._job.clock.now())
        self._moved[name] = place
        self._listener(BlockMovedAway(name, str(place), reason))

    def _wait_until_dropped(self) -> None:
        """Wait until a running Prometheus has let go of what is not there any more.

        It keeps what it has mapped of a block, and takes no notice of another of the same name.
        """
        coming = {ulid for ulids in self._swap.waiting().values() for ulid in ulids}
        gone = {
            ulid for ulid in {*self._moved, *coming} if not (self._job.data_dir / ulid).exists()
        }
        if self._running is None or self._job.client is None or not gone:
            return
        self._listener(Step("drop", f"waiting until {self._job.client.url} has let go of them"))
        dropped = wait_until_dropped(
            self._job.client,
            self._job.data_dir,
            gone,
            clock=self._job.clock,
            patience=self._job.options.patience,
        )
        if not dropped.loaded:
            self._problems.append(
                f"Prometheus has not let go of the bad blocks ({dropped.trouble}): restart it"
            )

    def _place(self) -> None:
        for name, ulids in self._swap.waiting().items():
            for ulid in ulids:
                self._swap.place(name, ulid)
                self._placed.append(ulid)
                self._listener(BlockRestored(ulid, block_size(self._job.data_dir / ulid)))
            self._swap.close(name)

    def _wait_until_loaded(self) -> None:
        if self._running is None or self._job.client is None or not self._placed:
            return
        self._listener(Step("load", f"waiting until {self._job.client.url} has loaded the blocks"))
        loading = wait_until_loaded(
            self._job.client,
            self._job.data_dir,
            self._placed,
            clock=self._job.clock,
            patience=self._job.options.patience,
        )
        if not loading.loaded:
            self._problems.append(f"Prometheus has not loaded the blocks yet: {loading.trouble}")

    def _report(self, plan: HealPlan, *, applied: bool) -> HealReport:
        return HealReport(
            scan=self._scan,
            plan=plan,
            applied=applied,
            running=self._running is not None,
            no_copies=self._no_copies,
            waiting=self._waiting,
            moved=self._moved,
            placed=tuple(self._placed),
            problems=tuple(self._problems),
            seconds=self._job.clock.monotonic() - self._began,
        )
