"""Hold a backup beyond retention, and release it.

A hold and a deletion may meet: a hold is written before the look for a deletion, and a deletion is
marked before the look for a hold. In any order, at least one of them sees the other.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta

from prometheus_backup.errors import BackupNotFound, UsageError
from prometheus_backup.repository.entry import PRESENT, BackupEntry
from prometheus_backup.repository.hold import Hold
from prometheus_backup.repository.repository import Repository

_WAIT = timedelta(seconds=30)
"""How long to wait for a deletion that has begun: it deletes the manifest within seconds."""
_POLL_SECONDS = 1.0
_MAX_REASON = 500


@dataclass(frozen=True, slots=True)
class HoldPlan:
    """A hold to write, and the one that it replaces, if that is still in force."""

    hold: Hold
    replaced: Hold | None


def plan_hold(hold: Hold, present: Hold | None, *, today: date) -> HoldPlan:
    """Check a hold. Raises UsageError for one that ends before today or before the present one."""
    cannot = f"cannot hold {hold.backup_id}"
    reason = hold.reason
    if not reason.strip() or not reason.isprintable() or len(reason) > _MAX_REASON:
        raise UsageError(
            f"{cannot}: the reason is empty, too long, or has characters that cannot be printed",
            hint=f"say why in one line of {_MAX_REASON} characters at most",
        )
    if not hold.in_force(today):
        raise UsageError(
            f"{cannot}: --until {hold.until} is in the past", hint="give a later date, or none"
        )
    if present is None or not present.in_force(today):
        return HoldPlan(hold, None)
    if hold.until is not None and (present.until is None or hold.until < present.until):
        raise UsageError(
            f"{cannot}: it is {present.text}; a new hold cannot end earlier",
            hint="run `prometheus-backup release` first, or leave out --until",
        )
    return HoldPlan(hold, present)


def place_hold(repository: Repository, plan: HoldPlan, *, run_id: str) -> bool:
    """Write a hold. Return False if a deletion that began before may still be at work.

    Raises BackupNotFound if the backup has been deleted meanwhile.
    """
    backup_id, clock = plan.hold.backup_id, repository.clock
    repository.holds.put(plan.hold)
    deadline = clock.monotonic() + _WAIT.total_seconds()
    while True:
        entry = repository.entry(backup_id)
        if entry is not None and entry.read_error is not None:
            raise entry.read_error
        if entry is None or entry.state not in PRESENT:
            release(repository, backup_id)
            raise BackupNotFound(f"cannot hold {backup_id}: it has been deleted")
        if entry.incomplete is None or entry.incomplete.state != "deleting":
            return True
        if clock.monotonic() >= deadline:
            store_now = repository.store_now(run_id=run_id)
            return entry.is_dead(store_now=store_now, dead_runs=frozenset())
        clock.sleep(_POLL_SECONDS)


def release(repository: Repository, backup_id: str) -> None:
    """Remove the hold of a backup, and the guard if no other backup is held."""
    repository.holds.remove(backup_id)
    today = repository.clock.now().date()
    keep_guard(repository, wanted=any_held(repository.entries(), today))


def keep_guard(repository: Repository, *, wanted: bool) -> None:
    """Write or remove the guard. `wanted`: a backup was held in the last listing."""
    holds, today = repository.holds, repository.clock.now().date()
    if wanted and not holds.guarded:
        holds.put_guard()
    elif holds.guarded and not wanted:
        holds.remove_guard()
        # A hold that was written meanwhile either comes before this look or writes the guard later.
        if any_held(repository.entries(), today):
            holds.put_guard()


def any_held(entries: Sequence[BackupEntry], today: date) -> bool:
    """Return whether a backup is held on this day, or may be: one that could not be read."""
    return any(e.read_error is not None or e.held(today) for e in entries)
