"""Delete what retention lets go, and what dead runs and interrupted deletions left."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Self

from prometheus_backup.errors import BackupToolError, NewerFormat
from prometheus_backup.events import BackupDeleted, BackupKept, Listener, Warned
from prometheus_backup.model import Outcome
from prometheus_backup.repository.repository import BackupEntry, Repository, State, committed
from prometheus_backup.retention.policy import Candidate, Decision, Policy, clock_doubt, decide


@dataclass(frozen=True, slots=True)
class PrunePlan:
    """What pruning would do. `doubt` says why it must not be done; `unreadable` was not judged."""

    decisions: tuple[Decision, ...]
    sweep: tuple[str, ...]
    unmark: tuple[str, ...]
    unreadable: tuple[str, ...]
    foreign: tuple[str, ...]
    doubt: str | None

    @classmethod
    def nothing(cls) -> Self:
        """Return the plan that does nothing."""
        return cls((), (), (), (), (), None)

    @property
    def delete(self) -> tuple[str, ...]:
        """Return the ids of the backups that retention lets go, oldest first."""
        return tuple(d.backup_id for d in self.decisions if not d.keep)


@dataclass(frozen=True, slots=True)
class PruneReport:
    """What pruning did: ids of backups deleted, leftovers swept, and what went wrong."""

    plan: PrunePlan
    deleted: tuple[str, ...]
    swept: tuple[str, ...]
    problems: tuple[str, ...]

    @property
    def outcome(self) -> Outcome:
        """Return PARTIAL where not all could be judged or deleted."""
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
    """Decide what to delete. `store_now` is the store's own time; `dead_runs` are proved dead.

    Raises NewerFormat where a newer version has written backups here: their rules are not ours.
    """
    for entry in entries:
        if entry.state is State.NEWER:
            raise NewerFormat(entry.problem)
    judged = candidates(entries)
    decisions = decide(judged, today=now.date(), policy=policy)
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
        doubt=clock_doubt(now=now, store_now=store_now, backup_times=[c.time for c in judged]),
    )


def apply_prune(
    repository: Repository, plan: PrunePlan, *, run_id: str, listener: Listener
) -> PruneReport:
    """Delete as planned. What cannot be deleted is reported, and the rest goes on."""
    problems = [
        f"retention: the manifest of {backup_id} cannot be read; it is kept and was not judged"
        for backup_id in plan.unreadable
    ]
    deleted: list[str] = []
    swept: list[str] = []
    if plan.doubt:
        problems.append(f"retention: nothing was deleted: {plan.doubt}")
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
