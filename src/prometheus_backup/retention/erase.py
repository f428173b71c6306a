"""Erase a time range from the history of the archive, for instance because a law requires it.

A folder is never deleted in part. One that the history does not need goes if it has samples of the
range. One that the history needs goes only if all of its samples are in the range, unless whole
blocks were asked for. What a backup names stays until that backup is deleted, and no longer.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from prometheus_backup.events import Listener
from prometheus_backup.model import Outcome
from prometheus_backup.repository.archive import ArchivedFolder, ForgottenMark, UnwantedMark
from prometheus_backup.repository.entry import GRACE, BackupEntry, committed
from prometheus_backup.repository.repository import Repository
from prometheus_backup.retention.archive import ArchivePlan, ArchivePruner, unknown
from prometheus_backup.retention.contents import ALL_TIMES, StoredBlock
from prometheus_backup.retention.history import history
from prometheus_backup.spans import Span, clip, merge, subtract


@dataclass(frozen=True, slots=True)
class ErasePlan:
    """What to erase. `beyond` is left, because it also holds samples outside the time range.

    `also_lost` are times outside the range that the history then has no more. `backups` have
    samples of the range, and are not touched. `blocked` is why nothing may be done.
    """

    window: Span
    erase: tuple[StoredBlock, ...] = ()
    beyond: tuple[StoredBlock, ...] = ()
    also_lost: tuple[Span, ...] = ()
    backups: tuple[str, ...] = ()
    held: tuple[str, ...] = ()
    """Those of `backups` that are held."""
    blocked: str | None = None


@dataclass(frozen=True, slots=True)
class EraseReport:
    """The plan, and the folders that were deleted."""

    plan: ErasePlan
    deleted: tuple[ArchivedFolder, ...]
    blocked: str | None = None

    @property
    def outcome(self) -> Outcome:
        """Return PARTIAL if samples of the time range stay, other than for the grace period."""
        stay = self.plan.beyond or self.plan.backups or self.blocked
        return Outcome.PARTIAL if stay or self.plan.blocked else Outcome.DONE


def plan_erase(
    entries: Sequence[BackupEntry],
    blocks: Sequence[StoredBlock],
    window: Span,
    *,
    whole_blocks: bool,
) -> ErasePlan:
    """Decide what to erase."""
    if blocked := unknown(entries):
        return ErasePlan(window, blocked=blocked)
    found = [b for b in blocks if clip([b.span], window)]
    beyond = tuple(b for b in found if _is_needed_beyond(b, window) and not whole_blocks)
    erase = tuple(b for b in found if b not in beyond)
    backups = [e for e in committed(entries) if clip(e.spans, window)]
    return ErasePlan(
        window=window,
        erase=erase,
        beyond=beyond,
        also_lost=_also_lost(blocks, erase, window),
        backups=tuple(e.backup_id for e in backups),
        held=tuple(e.backup_id for e in backups if e.hold is not None),
    )


def apply_erase(
    repository: Repository, plan: ErasePlan, *, run_id: str, at_once: bool, listener: Listener
) -> EraseReport:
    """Apply the plan: first record what is erased, then mark it, then delete what may be deleted.

    Once it is recorded, no restore of the history has the folder and no new backup names it. With
    `at_once`, what nobody names is deleted without waiting for the grace period. Why claims and
    manifests, which are read again first, are enough: docs/design.md, "The archive".
    """
    if plan.blocked:
        return EraseReport(plan, ())
    now, archive = repository.clock.now(), repository.archive
    folders = [b.folder for b in plan.erase]
    for folder in folders:
        if not folder.forgotten:
            archive.forget(folder.name, ForgottenMark(run_id=run_id, forgotten_at=now))
    for folder in folders:
        if folder.marked_at is None:
            archive.mark(folder.name, UnwantedMark(run_id=run_id, marked_at=now))
    if not at_once:
        marked = [f for f in folders if f.marked_at is not None]
        store_now = repository.store_now(run_id=run_id) if marked else now
        folders = [f for f in marked if f.marked_at and store_now - f.marked_at > GRACE]
    pruner = ArchivePruner(repository, run_id, listener)
    blocked, deleted = pruner.delete(ArchivePlan(delete=tuple(folders)))
    return EraseReport(plan, tuple(deleted), blocked)


def _is_needed_beyond(block: StoredBlock, window: Span) -> bool:
    outside = block.span.start < window.start or block.span.end > window.end
    return outside and block.in_history


def _also_lost(
    blocks: Sequence[StoredBlock], erased: Sequence[StoredBlock], window: Span
) -> tuple[Span, ...]:
    gone = {b.folder.name for b in erased}
    left = [b for b in blocks if b.folder.name not in gone and not b.folder.forgotten]
    kept = history((b.held for b in left if b.held.held_by), since_ms=ALL_TIMES)
    before = merge(b.span for b in blocks if b.in_history)
    return subtract(before, [*(b.span for b in left if b.folder.name in kept), window])
