"""Decide which folders of the archive nobody wants, and delete those in a safe order.

The plan is pure. Why the order is safe, with the scenarios that it rules out: docs/design.md, "The
archive".
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from prometheus_backup.errors import BackupNotFound
from prometheus_backup.events import ArchiveFolderDeleted, Listener
from prometheus_backup.model import instant_from_ms, ms_from_instant
from prometheus_backup.repository.archive import ArchivedFolder, UnwantedMark
from prometheus_backup.repository.entry import CANNOT_BE_READ, GRACE, BackupEntry
from prometheus_backup.repository.manifest import ArchivedTimes, Block, Manifest, Totals
from prometheus_backup.repository.repository import Repository
from prometheus_backup.retention.history import HeldBlock, history
from prometheus_backup.spans import Span, merge


@dataclass(frozen=True, slots=True)
class ArchivePlan:
    """What to do in the archive: folders to mark as unwanted, and marked ones to delete.

    `remember`: folders of the history, with the last backup that names them, which is deleted.
    `blocked` is why neither may be done; None if it may.
    """

    remember: Mapping[str, str] = field(default_factory=dict)
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
        wanted |= entry.folders.keys()
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
    history_for: timedelta = timedelta(0),
) -> ArchivePlan:
    """Decide what to mark and delete. `folders` must be older than the entries.

    So the claim or the manifest of every run that wrote one of the folders is among the entries.
    `deleted` are the backups that retention deletes first.
    """
    if not folders:
        return ArchivePlan()
    if blocked := unknown(entries):
        return ArchivePlan(blocked=blocked)
    rest = [e for e in entries if e.backup_id not in deleted]
    wanted = wanted_folders(rest, folders.values())
    remember: dict[str, str] = {}
    if history_for:
        held = held_blocks(entries, folders)
        kept = history(held.values(), since_ms=ms_from_instant(store_now - history_for))
        remember = {
            name: held[name].held_by for name in kept - wanted if held[name].held_by in deleted
        }
        wanted |= kept
    unwanted = [f for name, f in sorted(folders.items()) if name not in wanted]
    due = tuple(f for f in unwanted if f.marked_at and store_now - f.marked_at > GRACE)
    return ArchivePlan(
        remember=remember,
        mark=tuple(f for f in unwanted if f.marked_at is None),
        delete=due,
        waiting=tuple(f for f in unwanted if f.marked_at is not None and f not in due),
    )


def held_blocks(
    entries: Iterable[BackupEntry], folders: Mapping[str, ArchivedFolder]
) -> Mapping[str, HeldBlock]:
    """Return the folders that a backup names or was the last one to name, unless forgotten."""
    kept = {name: f for name, f in folders.items() if not f.forgotten}
    return all_held_blocks(entries, kept)


def all_held_blocks(
    entries: Iterable[BackupEntry], folders: Mapping[str, ArchivedFolder]
) -> Mapping[str, HeldBlock]:
    """Return the same with those that a user erased from the history."""
    newest = _newest(entries)
    held: dict[str, HeldBlock] = {}
    for name, folder in folders.items():
        candidates = [newest[name]] if name in newest else []
        # What is left of a folder whose deletion was interrupted holds nothing.
        if folder.complete and (last := folder.last):
            candidates.append((last[0], last[2]))
        if candidates:
            held_by, times = max(candidates)
            partial = times.partial or bool(folder.verdict_keys)
            held[name] = HeldBlock(name, times.begin_ms, times.end_ms, held_by, partial)
    return held


def _newest(entries: Iterable[BackupEntry]) -> Mapping[str, tuple[str, ArchivedTimes]]:
    """Return the newest backup that names each folder, and the times that it says."""
    newest: dict[str, tuple[str, ArchivedTimes]] = {}
    for entry in sorted(entries, key=lambda e: e.backup_id):
        newest |= {name: (entry.backup_id, f.times) for name, f in entry.folders.items()}
    return newest


def history_spans(
    folders: Mapping[str, ArchivedFolder], entries: Sequence[BackupEntry]
) -> tuple[Span, ...]:
    """Return the times that the archive holds of backups that are deleted."""
    named = {name for e in entries for name in e.folders}
    return merge(
        Span(instant_from_ms(b.begin_ms), instant_from_ms(b.end_ms))
        for b in held_blocks(entries, folders).values()
        if b.folder not in named and folders[b.folder].marked_at is None
    )


def history_manifest(repository: Repository, *, since_ms: int) -> Manifest:
    """Return the history as one manifest: of each block, what the newest backup had of it.

    Blocks that a backup names and that are gone from the archive are in it, so that their loss is
    said; they cover nothing. Everything else in it is that of the newest archive backup. Raises
    BackupNotFound if there is none.
    """
    entries = [e for e in repository.backups() if e.folders]
    folders = repository.archive.folders()
    if not entries:
        raise BackupNotFound(
            f"cannot restore the history from {repository.url}: no backup has layout archive",
            hint="set LAYOUT=archive for new backups; restore a full backup by its id",
        )
    gone = {
        name: HeldBlock(name, times.begin_ms, times.end_ms, held_by, partial=True)
        for name, (held_by, times) in _newest(entries).items()
        if name not in folders
    }
    held = {**held_blocks(entries, folders), **gone}
    wanted = history(held.values(), since_ms=since_ms)
    by_backup: dict[str, list[str]] = {}
    blocks: list[Block] = []
    known = {e.backup_id for e in entries}
    for name in sorted(wanted):
        if held[name].held_by in known:
            by_backup.setdefault(held[name].held_by, []).append(name)
        elif (block := repository.archive.remembered(folders[name])) is not None:
            blocks.append(block)
    for backup_id, names in by_backup.items():
        blocks += [b for b in repository.manifest(backup_id).blocks if b.folder in names]
    return _with_blocks(repository.manifest(entries[-1].backup_id), blocks)


def _with_blocks(newest: Manifest, blocks: Sequence[Block]) -> Manifest:
    found = sorted(blocks, key=lambda b: (b.times_ms, b.ulid))
    size = sum(b.size for b in found)
    return newest.model_copy(
        update={
            "run_id": "history",
            "degraded": (),
            "blocks": tuple(found),
            "fingerprints": (),
            "storage_size_bytes": size,
            "min_time": min((b.min_time for b in found), default=None),
            "max_time": max((b.max_time for b in found), default=None),
            "totals": Totals(
                blocks=len(found),
                files=sum(len(b.files) for b in found),
                bytes=size,
                uploaded_bytes=0,
                copied_bytes=0,
            ),
        }
    )


def unknown(entries: Iterable[BackupEntry]) -> str | None:
    """Return why it is not known which folders are wanted; None if it is."""
    for entry in entries:
        if entry.state in CANNOT_BE_READ:
            return (
                f"the manifest of {entry.backup_id} cannot be read, so its blocks are not known; "
                f"if it is lost, run `prometheus-backup prune --forget {entry.backup_id}`"
            )
        if entry.incomplete_modified is not None and entry.incomplete is None:
            return (
                f"the claim of {entry.backup_id} cannot be read, so its blocks are not known; "
                f"if no run makes it, run `prometheus-backup prune --forget {entry.backup_id}`"
            )
        if entry.lost:
            return (
                f"{entry.backup_id} names {entry.lost[0]}, which is not in the archive; "
                "if the next backup does not bring it back, run "
                f"`prometheus-backup prune --forget {entry.backup_id}`"
            )
    return None


@dataclass(frozen=True, slots=True)
class ArchivePruner:
    """Carries out an ArchivePlan."""

    repository: Repository
    run_id: str
    listener: Listener

    def remember(self, plan: ArchivePlan) -> None:
        """Record which backup was the last to name each folder of the history, before it goes."""
        for backup_id in sorted(set(plan.remember.values())):
            for block in self.repository.manifest(backup_id).blocks:
                if block.folder and plan.remember.get(block.folder) == backup_id:
                    self.repository.archive.remember(backup_id, block)

    def mark(self, plan: ArchivePlan) -> None:
        """Mark what nobody wants. From then on no new backup names these folders."""
        mark = UnwantedMark(run_id=self.run_id, marked_at=self.repository.clock.now())
        for folder in plan.mark:
            self.repository.archive.mark(folder.name, mark)

    def delete(self, plan: ArchivePlan) -> tuple[str | None, Sequence[ArchivedFolder]]:
        """Delete the folders that are still wanted by nobody; return them.

        Claims and manifests are read again, because a run may have claimed a folder just before it
        was marked, and because the catalogue may have been wrong when it was marked. The first
        value is why nothing was deleted.
        """
        if not plan.delete:
            return None, ()
        entries = self.repository.backups(confirmed=True)
        if blocked := unknown(entries):
            return blocked, ()
        wanted = wanted_folders(entries, plan.delete)
        deleted = [f for f in plan.delete if f.name not in wanted]
        for folder in deleted:
            self.repository.archive.delete(folder)
            self.listener(ArchiveFolderDeleted(folder.name, len(folder.objects), folder.size))
        return None, deleted
