"""Delete the backups that retention does not keep, and what interrupted runs left behind."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Self

from prometheus_backup.errors import BackupToolError, NewerFormat
from prometheus_backup.events import BackupDeleted, BackupKept, Listener, Warned
from prometheus_backup.model import Outcome, counted
from prometheus_backup.repository.layout import backup_time
from prometheus_backup.repository.repository import BackupEntry, Repository, State, committed
from prometheus_backup.retention.policy import Candidate, Decision, Policy, clock_problem, decide

_MAX_DAYS_AT_ONCE = 7
"""Days of which a timer deletes backups in one run: a week in which it was down."""


@dataclass(frozen=True, slots=True)
class PrunePlan:
    """What to prune. All fields but the first and the last contain ids of backups.

    `unreadable` backups are kept without a decision. Nothing is deleted if `clock_problem` is set.
    """

    decisions: tuple[Decision, ...]
    sweep: tuple[str, ...]
    unmark: tuple[str, ...]
    unreadable: tuple[str, ...]
    foreign: tuple[str, ...]
    clock_problem: str | None

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
        """Return why this deletes too much to be done by a timer; None if it does not.

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

    @property
    def outcome(self) -> Outcome:
        """Return PARTIAL if not everything could be decided or deleted."""
        return Outcome.PARTIAL if self.problems else Outcome.DONE


def candidates(entries: Sequence[BackupEntry]) -> tuple[Candidate, ...]:
    """Return the backups that retention decides on."""
    return tuple(Candidate(e.backup_id, e.time, e.good) for e in committed(entries))


def plan_prune(
    entries: Sequence[BackupEntry],
    *,
    policy: Policy,
    now: datetime,
    store_now: datetime,
    dead_runs: frozenset[str] = frozenset(),
) -> PrunePlan:
    """Decide what to delete. `store_now` is the store's time; `dead_runs` are known to be dead.

    Raises NewerFormat if a newer version has written backups here: its rules may differ.
    """
    for entry in entries:
        if entry.state is State.NEWER:
            raise NewerFormat(entry.problem)
    decided = candidates(entries)
    decisions = decide(decided, today=now.date(), policy=policy)
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
    )


def apply_prune(
    repository: Repository,
    plan: PrunePlan,
    *,
    run_id: str,
    listener: Listener,
    by_timer: bool = False,
) -> PruneReport:
    """Apply the plan. Report what cannot be deleted, and continue with the rest.

    If nobody watches (`by_timer`), a plan that deletes too much is reported instead.
    """
    problems = [
        f"retention: cannot read the manifest of {backup_id}: the backup is kept"
        for backup_id in plan.unreadable
    ]
    deleted: list[str] = []
    swept: list[str] = []
    if plan.clock_problem:
        problems.append(f"retention: nothing was deleted: {plan.clock_problem}")
    elif by_timer and plan.excess:
        problems.append(
            f"retention: nothing was deleted: {plan.excess}; check the clock and the retention "
            "settings, then run `prometheus-backup prune --dry-run` and `prometheus-backup prune`"
        )
    else:
        reasons = {d.backup_id: d.reasons[0] for d in plan.decisions}
        for decision in plan.decisions:
            if decision.keep:
                listener(BackupKept(decision.backup_id, decision.reasons))
        for backup_id, done, action, reason in [
            *((i, deleted, repository.delete_backup, reasons[i]) for i in plan.delete),
            *((i, swept, repository.sweep, "left by an interrupted run") for i in plan.sweep),
        ]:
            try:
                removed = action(backup_id, run_id=run_id)
            except BackupToolError as error:
                problems.append(f"retention: {error.message}")
                continue
            done.append(backup_id)
            listener(BackupDeleted(backup_id, removed.objects, removed.size, reason))
        for backup_id in plan.unmark:
            try:
                repository.remove_mark(backup_id)
            except BackupToolError as error:
                problems.append(f"retention: {error.message}")
    for problem in problems:
        listener(Warned(problem))
    return PruneReport(plan, tuple(deleted), tuple(swept), tuple(problems))
