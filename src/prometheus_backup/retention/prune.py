"""Delete the backups that retention does not keep, and what interrupted runs left behind."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import partial
from typing import Self

from prometheus_backup.errors import BackupToolError, NewerFormat
from prometheus_backup.events import BackupDeleted, BackupKept, Listener, Warned
from prometheus_backup.model import Outcome, counted
from prometheus_backup.repository.archive import ArchivedFolder
from prometheus_backup.repository.entry import BackupEntry, State, committed
from prometheus_backup.repository.layout import backup_time
from prometheus_backup.repository.repository import DeletedObjects, Repository
from prometheus_backup.retention.archive import ArchivePlan, ArchivePruner, plan_archive
from prometheus_backup.retention.hold import any_held, keep_guard
from prometheus_backup.retention.policy import Candidate, Decision, Policy, clock_problem, decide

_MAX_DAYS_AT_ONCE = 7
"""Days of which one run deletes backups unasked: a week in which no run succeeded."""


@dataclass(frozen=True, slots=True)
class PrunePlan:
    """What to prune: decisions, and ids of backups.

    `unreadable` backups are kept without a decision. Nothing is deleted if `clock_problem` is set.
    `guard`: a backup is held, so older programs must not delete any.
    """

    decisions: tuple[Decision, ...]
    sweep: tuple[str, ...]
    unmark: tuple[str, ...]
    unreadable: tuple[str, ...]
    foreign: tuple[str, ...]
    clock_problem: str | None
    archive: ArchivePlan = field(default_factory=ArchivePlan)
    guard: bool = False

    @classmethod
    def nothing(cls) -> Self:
        """Return the plan that does nothing."""
        return cls((), (), (), (), (), None)

    @property
    def delete(self) -> tuple[str, ...]:
        """Return the ids of the backups that retention does not keep, oldest first."""
        return tuple(d.backup_id for d in self.decisions if not d.keep)

    @property
    def excess(self) -> str | None:
        """Return why this deletes too much to be done unasked; None if it does not.

        So much is deleted at once after a change of the settings, or if the clock of this machine
        and of the store jumped ahead together.
        """
        days = {backup_time(i).date() for i in self.delete}
        most = len(self.delete) > len(self.decisions) / 2
        if len(days) > _MAX_DAYS_AT_ONCE or (most and len(days) > 1):
            total = counted(len(self.decisions), "backup")
            return (
                f"it would delete {len(self.delete)} of {total} at once, "
                f"{self.delete[0]} to {self.delete[-1]}"
            )
        return None


@dataclass(frozen=True, slots=True)
class PruneReport:
    """What was pruned: ids of deleted backups and swept leftovers, and the problems."""

    plan: PrunePlan
    deleted: tuple[str, ...]
    swept: tuple[str, ...]
    problems: tuple[str, ...]
    archived: tuple[ArchivedFolder, ...] = ()
    """Folders of the archive that were deleted."""

    @property
    def outcome(self) -> Outcome:
        """Return PARTIAL if not everything could be decided or deleted."""
        return Outcome.PARTIAL if self.problems else Outcome.DONE


def candidates(entries: Sequence[BackupEntry]) -> tuple[Candidate, ...]:
    """Return the backups that retention decides on."""
    return tuple(map(candidate, committed(entries)))


def candidate(entry: BackupEntry) -> Candidate:
    """Return a backup as retention sees it."""
    if entry.hold is None:
        return Candidate(entry.backup_id, entry.time, entry.good)
    hold = entry.hold
    return Candidate(entry.backup_id, entry.time, entry.good, hold.reason, hold.until)


def without_hold(entries: Sequence[BackupEntry], backup_id: str) -> tuple[BackupEntry, ...]:
    """Return the entries as they would be if this backup were not held."""
    return tuple(replace(e, hold=None) if e.backup_id == backup_id else e for e in entries)


def plan_prune(
    entries: Sequence[BackupEntry],
    *,
    policy: Policy,
    now: datetime,
    store_now: datetime,
    archive: Mapping[str, ArchivedFolder] | None = None,
    dead_runs: frozenset[str] = frozenset(),
) -> PrunePlan:
    """Decide what to delete. `store_now` is the store's time; `dead_runs` are known to be dead.

    `archive` are the folders of the archive, from a listing before the entries were read.

    Raises NewerFormat if a newer version has written backups here: its rules may differ.
    """
    for entry in entries:
        if entry.state is State.NEWER:
            raise NewerFormat(entry.problem)
    decided = candidates(entries)
    decisions = decide(decided, today=now.date(), policy=policy, now=now)
    deleted = {d.backup_id for d in decisions if not d.keep}

    def dead(entry: BackupEntry) -> bool:
        return entry.is_dead(store_now=store_now, dead_runs=dead_runs)

    return PrunePlan(
        decisions=decisions,
        sweep=tuple(
            e.backup_id
            for e in entries
            if e.state is State.DELETING or (e.state is State.INCOMPLETE and dead(e))
        ),
        unmark=tuple(
            e.backup_id
            for e in committed(entries)
            if e.incomplete and e.backup_id not in deleted and dead(e)
        ),
        unreadable=tuple(
            e.backup_id for e in entries if e.state in (State.UNREADABLE, State.ARCHIVED)
        ),
        foreign=tuple(e.backup_id for e in entries if e.state is State.FOREIGN),
        clock_problem=clock_problem(
            now=now, store_now=store_now, backup_times=[c.time for c in decided]
        ),
        archive=plan_archive(
            entries,
            archive or {},
            deleted=frozenset(deleted),
            store_now=store_now,
            history_for=policy.history,
        ),
        guard=any_held(entries, now.date()),
    )


def apply_prune(
    repository: Repository,
    plan: PrunePlan,
    *,
    run_id: str,
    listener: Listener,
    limited: bool = False,
) -> PruneReport:
    """Apply the plan. Report what cannot be deleted, and continue with the rest.

    With `limited`, a plan that deletes too much at once is reported and not applied.
    """
    run = _Pruning(repository, run_id, listener)
    for backup_id in plan.unreadable:
        run.problems.append(
            f"retention: cannot read the manifest of {backup_id}: the backup is kept"
        )
    if plan.clock_problem:
        run.problems.append(f"retention: nothing was deleted: {plan.clock_problem}")
    elif limited and plan.excess:
        run.problems.append(
            f"retention: nothing was deleted: {plan.excess}; check the clock and the settings with "
            "`prometheus-backup prune --dry-run`, then run `prometheus-backup prune --allow-many`"
        )
    else:
        run.delete(plan)
        run.attempt(partial(keep_guard, repository, wanted=plan.guard))
    run.attempt(repository.remove_unfinished)
    for problem in run.problems:
        listener(Warned(problem))
    write_catalog(repository, listener)
    return PruneReport(
        plan, tuple(run.deleted), tuple(run.swept), tuple(run.problems), tuple(run.archived)
    )


def write_catalog(repository: Repository, listener: Listener) -> None:
    """Bring the catalogue up to date. It saves time, so a failure is only a warning."""
    try:
        repository.catalog.write()
    except BackupToolError as error:
        listener(Warned(f"cannot write the catalogue of backups: {error.message}", error.hint))


class _Pruning:
    """What was done so far."""

    def __init__(self, repository: Repository, run_id: str, listener: Listener) -> None:
        self._repository = repository
        self._run_id = run_id
        self._listener = listener
        self.deleted: list[str] = []
        self.swept: list[str] = []
        self.archived: list[ArchivedFolder] = []
        self.problems: list[str] = []

    def attempt(self, action: Callable[[], object]) -> None:
        """Do one thing; if it fails, that is a problem, and the others continue."""
        try:
            action()
        except BackupToolError as error:
            self.problems.append(f"retention: {error.message}")

    def delete(self, plan: PrunePlan) -> None:
        for decision in plan.decisions:
            if decision.keep:
                self._listener(BackupKept(decision.backup_id, decision.reasons))
        if plan.archive.blocked:
            self.problems.append(f"retention: nothing was deleted: {plan.archive.blocked}")
            return
        if not self._remember(plan.archive):
            return
        for decision in plan.decisions:
            if not decision.keep:
                self.attempt(partial(self._delete, decision))
        for backup_id in plan.sweep:
            self.attempt(partial(self._sweep, backup_id))
        for backup_id in plan.unmark:
            self.attempt(partial(self._repository.remove_mark, backup_id))
        if not self.problems:
            self.attempt(partial(self._prune_archive, plan.archive))

    def _remember(self, plan: ArchivePlan) -> bool:
        """Record what the history holds of backups that go; return whether they may go."""
        before = len(self.problems)
        if plan.remember:
            pruner = ArchivePruner(self._repository, self._run_id, self._listener)
            self.attempt(partial(pruner.remember, plan))
        return len(self.problems) == before

    def _prune_archive(self, plan: ArchivePlan) -> None:
        pruner = ArchivePruner(self._repository, self._run_id, self._listener)
        pruner.mark(plan)
        blocked, deleted = pruner.delete(plan)
        self.archived += deleted
        if blocked:
            self.problems.append(f"retention: nothing was deleted from the archive: {blocked}")

    def _delete(self, decision: Decision) -> None:
        removed = self._repository.delete_backup(decision.backup_id, run_id=self._run_id)
        if removed is None:
            self._listener(BackupKept(decision.backup_id, ("held since retention decided",)))
            return
        self.deleted.append(decision.backup_id)
        self._removed(decision.backup_id, removed, decision.reasons[0])

    def _sweep(self, backup_id: str) -> None:
        removed = self._repository.sweep(backup_id, run_id=self._run_id)
        self.swept.append(backup_id)
        self._removed(backup_id, removed, "left by an interrupted run")

    def _removed(self, backup_id: str, removed: DeletedObjects, reason: str) -> None:
        self._listener(BackupDeleted(backup_id, removed.objects, removed.size, reason))
