"""Decide which folders of the archive nobody wants, and delete those in a safe order.

The plan is pure. Why the order is safe, with the scenarios that it rules out: docs/design.md, "The
archive".
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from prometheus_backup.events import ArchiveFolderDeleted, Listener
from prometheus_backup.model import counted
from prometheus_backup.repository.archive import ArchivedFolder, UnwantedMark
from prometheus_backup.repository.repository import GRACE, BackupEntry, Repository, State

_UNKNOWN = (State.UNREADABLE, State.ARCHIVED, State.NEWER)


@dataclass(frozen=True, slots=True)
class ArchivePlan:
    """What to do in the archive: folders to mark as unwanted, and marked ones to delete.

    `blocked` is why neither may be done; None if it may.
    """

    mark: tuple[ArchivedFolder, ...] = ()
    delete: tuple[ArchivedFolder, ...] = ()
    waiting: tuple[ArchivedFolder, ...] = ()
    blocked: str | None = None


def wanted_folders(
    entries: Iterable[BackupEntry], folders: Iterable[ArchivedFolder]
) -> frozenset[str]:
    """Return the folders that a manifest names, or the claim of a run that has not ended.

    A run wants those that its claim names, and all that it writes: they carry the id of its backup.
    """
    wanted: set[str] = set()
    keepers: set[str] = set()
    for entry in entries:
        wanted |= entry.folders
        if entry.incomplete is not None and entry.incomplete.state != "deleting":
            wanted |= set(entry.incomplete.names)
            keepers.add(entry.backup_id)
    return frozenset(wanted | {f.name for f in folders if f.keeper in keepers})


def plan_archive(
    entries: Sequence[BackupEntry],
    folders: Mapping[str, ArchivedFolder],
    *,
    deleted: frozenset[str],
    store_now: datetime,
) -> ArchivePlan:
    """Decide what to mark and delete. `folders` must be older than the entries.

    So the claim or the manifest of every run that wrote one of the folders is among the entries.
    `deleted` are the backups that retention deletes first.
    """
    if not folders:
        return ArchivePlan()
    if blocked := _unknown(entries):
        return ArchivePlan(blocked=blocked)
    rest = [e for e in entries if e.backup_id not in deleted]
    wanted = wanted_folders(rest, folders.values())
    unwanted = [f for name, f in sorted(folders.items()) if name not in wanted]
    due = tuple(f for f in unwanted if f.marked_at and store_now - f.marked_at > GRACE)
    return ArchivePlan(
        mark=tuple(f for f in unwanted if f.marked_at is None),
        delete=due,
        waiting=tuple(f for f in unwanted if f.marked_at is not None and f not in due),
    )


def _unknown(entries: Iterable[BackupEntry]) -> str | None:
    """Return why it is not known which folders are wanted; None if it is."""
    for entry in entries:
        if entry.state in _UNKNOWN:
            return f"the manifest of {entry.backup_id} cannot be read, so its blocks are not known"
        if entry.incomplete_modified is not None and entry.incomplete is None:
            return f"the claim of {entry.backup_id} cannot be read, so its blocks are not known"
        if entry.lost:
            return f"{entry.backup_id} names {entry.lost[0]}, which is not in the archive"
    return None


@dataclass(frozen=True, slots=True)
class ArchivePruner:
    """Carries out an ArchivePlan."""

    repository: Repository
    run_id: str
    listener: Listener

    def mark(self, plan: ArchivePlan) -> None:
        """Mark what nobody wants. From then on no new backup names these folders."""
        mark = UnwantedMark(run_id=self.run_id, marked_at=self.repository.clock.now())
        for folder in plan.mark:
            self.repository.archive.mark(folder.name, mark)

    def delete(self, plan: ArchivePlan) -> tuple[str | None, Sequence[ArchivedFolder]]:
        """Delete the folders that are still wanted by nobody; return them.

        Claims and manifests are read again, because a run may have claimed a folder just before it
        was marked. The first value is why nothing was deleted.
        """
        if not plan.delete:
            return None, ()
        entries = self.repository.backups()
        if blocked := _unknown(entries):
            return blocked, ()
        wanted = wanted_folders(entries, plan.delete)
        deleted = [f for f in plan.delete if f.name not in wanted]
        for folder in deleted:
            self.repository.archive.delete(folder)
            self.listener(ArchiveFolderDeleted(folder.name, len(folder.objects), folder.size))
        return None, deleted


def described(folders: Sequence[ArchivedFolder]) -> str:
    """Return the number of folders and their size as text."""
    return f"{counted(len(folders), 'block')}, {sum(f.size for f in folders):,} bytes"
