"""The backups of a repository: list them, read their manifests, delete whole backups.

Which backups to delete is decided in `retention`. New backups are created in `claim`.
"""

import contextlib
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import datetime

from prometheus_backup.clock import Clock
from prometheus_backup.errors import (
    BackupNotFound,
    NewerFormat,
    ObjectNotFound,
    RepositoryError,
    RepositoryFull,
    RepositoryUnavailable,
    UnreadableManifest,
)
from prometheus_backup.model import (
    CONTROL,
    Layout,
    ObjectInfo,
    rfc3339,
)
from prometheus_backup.repository.archive import Archive, ArchiveView
from prometheus_backup.repository.catalog import Catalog, CatalogMemory
from prometheus_backup.repository.entry import BackupEntry, State, committed, newest_good
from prometheus_backup.repository.hold import Holds
from prometheus_backup.repository.layout import (
    ARCHIVE,
    GUARD,
    MANIFEST,
    PROBE_PREFIX,
    claim_key,
    is_backup_id,
)
from prometheus_backup.repository.manifest import (
    MAX_DOCUMENT_SIZE,
    Incomplete,
    Manifest,
    decode_manifest,
    encode,
)
from prometheus_backup.repository.names import is_date, matching, neighbours
from prometheus_backup.repository.reading import EntryReader, Look
from prometheus_backup.repository.results import VerificationResults
from prometheus_backup.stores.archived import archived
from prometheus_backup.stores.base import NoAnswer, ObjectStore, delete_in_order, exists
from prometheus_backup.transfer import SMALL_WORKERS

_NO_BACKUP = "the repository contains no backups; check REPOSITORY (S3_BUCKET, S3_PREFIX)"
_LARGE_READS = 8


@dataclass(frozen=True, slots=True)
class DeletedObjects:
    """What was deleted: number of objects, and their bytes without the manifest."""

    objects: int
    size: int


class Repository:
    """The backups in a store. Store errors are passed on: a failed read never means absence.

    `memory` may come from an earlier use of the same repository; then only changes are read.
    """

    def __init__(
        self, store: ObjectStore, *, clock: Clock, memory: CatalogMemory | None = None
    ) -> None:
        self.store = store
        self.clock = clock
        self.results = VerificationResults(store)
        self.archive = Archive(store)
        self.catalog = Catalog(store, memory or CatalogMemory())
        self.holds = Holds(store)
        self._reader = EntryReader(
            store,
            self.results,
            self.catalog,
            self.holds,
            clock=clock,
            decoding=threading.Lock(),
            large_reads=threading.Semaphore(_LARGE_READS),
        )

    @property
    def url(self) -> str:
        """Return the address, for messages."""
        return self.store.url

    def entries(self, view: ArchiveView | None = None) -> tuple[BackupEntry, ...]:
        """Return every backup and every claim, oldest first, with what is known of the archive.

        `view` is the archive, if the caller has just listed it. A backup with an object that cannot
        be read is UNREADABLE. Only if this is so for every backup, the error is raised.
        """
        found = self._entries(view or self.archive.view())
        if not any(e.lost for e in found):
            return found
        # A backup committed since the archive was listed names folders that are newer: look again.
        return self._entries(self.archive.view())

    def backups(self, *, confirmed: bool = False) -> tuple[BackupEntry, ...]:
        """Return the same without the faults of the archive.

        With `confirmed`, manifests are read themselves, unless the catalogue's entry was compared
        with its manifest in the last week: enough to delete by.
        """
        return self._entries(None, confirmed=confirmed)

    def _entries(
        self, view: ArchiveView | None, *, confirmed: bool = False
    ) -> tuple[BackupEntry, ...]:
        # Claims are listed before manifests, so that no run which commits meanwhile is missed.
        look = Look(
            claims=self.archive.claims() if view is None else view.claims,
            catalogued=self.catalog.ids() if view is None else view.catalogued,
            view=view,
            confirmed=confirmed,
        )
        ids = sorted({*self.ids(), *look.claims, *look.catalogued})
        pool = ThreadPoolExecutor(SMALL_WORKERS, thread_name_prefix="repository")
        try:
            entries = pool.map(lambda one: self._reader.entry(one, look), ids)
            found = tuple(e for e in entries if e is not None)
        finally:  # after a signal or a failure, do not wait for a silent store
            pool.shutdown(wait=False, cancel_futures=True)
        self.catalog.retain(ids)
        errors = [e.read_error for e in found if e.read_error is not None]
        if errors and not any(e.state is State.COMMITTED for e in found):
            raise errors[0]
        return found

    def entry(self, backup_id: str) -> BackupEntry | None:
        """Return one backup, or None if it does not exist."""
        if backup_id == GUARD:
            return None
        look = Look(claims={}, catalogued=frozenset((backup_id,)))
        entry = self._reader.entry(backup_id, look)
        if entry is None or (entry.state is State.FOREIGN and not entry.problem):
            look = replace(look, claims=self.archive.claims())
        elif entry.folders:
            look = replace(look, view=self.archive.view())
        else:
            return entry
        return self._reader.entry(backup_id, look)

    def find(self, name: str, *, at: datetime | None = None) -> BackupEntry:
        """Return the committed backup that a name means (see `named`).

        Raises BackupNotFound, ObjectArchived, UnreadableManifest or NewerFormat.
        """
        entry = self.named(name, at=at)
        if entry.state is State.ARCHIVED:
            raise archived("read", f"{self.url}/{entry.backup_id}/{MANIFEST}")
        if entry.state is State.UNREADABLE:
            raise entry.read_error or UnreadableManifest(entry.problem)
        return entry

    def named(self, name: str, *, at: datetime | None = None) -> BackupEntry:
        """Return the backup that a name means, also if its manifest cannot be read.

        The name is an id, the beginning of one id only, a date (the newest good backup of that
        day) or `latest` (the newest good backup, not after `at`). If none of these is good, the
        newest is returned. Raises BackupNotFound or NewerFormat.
        """
        if name == "latest":
            return self._latest(at)
        entry = self.entry(name) if is_backup_id(name) else self._matching(name)
        if entry is None or entry.state in (State.INCOMPLETE, State.DELETING, State.FOREIGN):
            raise BackupNotFound(
                f"cannot find backup {name!r} in {self.url}{_why_absent(entry)}",
                hint=self._nearest(name),
            )
        if entry.state is State.NEWER:
            raise NewerFormat(entry.problem)
        return entry

    def ids(self) -> list[str]:
        """Return the ids of all `backup-*` folders, oldest first, by one listing."""
        folders = self.store.list_folders()
        self.holds.guarded = GUARD in folders
        return [f for f in folders if is_backup_id(f) and f != GUARD]

    def manifest(self, backup_id: str) -> Manifest:
        """Return the manifest of a committed backup."""
        body = self.store.get(f"{backup_id}/{MANIFEST}", limit=MAX_DOCUMENT_SIZE)
        return decode_manifest(body, backup_id=backup_id)

    def is_deleted(self, backup_id: str) -> bool:
        """Return whether a backup that was found has been deleted since: its manifest goes first.

        Ask this before an object that is missing counts as damage.
        """
        try:
            return not exists(self.store, f"{backup_id}/{MANIFEST}")
        except RepositoryError:
            return False

    def require_present(self, backup_id: str, *, verb: str) -> None:
        """Raise BackupNotFound if a backup has been deleted since it was found."""
        if self.is_deleted(backup_id):
            raise BackupNotFound(
                f"cannot {verb} {backup_id}: it was deleted meanwhile",
                hint="retention does not keep it; choose another backup with `prometheus-backup "
                "list`",
            )

    @contextlib.contextmanager
    def reading(self, backup_id: str, *, verb: str) -> Iterator[None]:
        """Raise BackupNotFound where the body misses an object because the backup was deleted."""
        try:
            yield
        except ObjectNotFound:
            self.require_present(backup_id, verb=verb)
            raise

    def learn(self, manifest: Manifest, info: ObjectInfo) -> None:
        """Remember a manifest that has just been committed, so that it need not be read."""
        self._reader.learn(manifest, info)

    def store_now(self, *, run_id: str) -> datetime:
        """Return the store's time."""
        return self.store.now(probe=f"{PROBE_PREFIX}{run_id}")

    def delete_backup(self, backup_id: str, *, run_id: str) -> DeletedObjects | None:
        """Delete a whole backup: write the mark, delete the manifest, the objects, then the mark.

        Returns None, and deletes nothing, if the backup is held: the hold may be younger than the
        decision to delete it.

        If interrupted at any point, it leaves a whole backup or a folder marked `deleting`; on a
        full store, where the mark cannot be written at first, perhaps a folder without a manifest.
        """
        marked = self._mark_deleting(backup_id, run_id, Layout.FULL)
        hold = self.holds.read(backup_id)
        if hold is not None and hold.in_force(self.clock.now().date()):
            self.remove_mark(backup_id)
            return None
        removed = self._delete_folder(backup_id, run_id, Layout.FULL, marked=marked)
        return DeletedObjects(removed.objects + 1, removed.size)

    def sweep(self, backup_id: str, *, run_id: str) -> DeletedObjects:
        """Delete what a dead run or an interrupted deletion left.

        The mark replaces the claim before the last check for a manifest, and a committing run
        checks its claim after it has written its manifest: at least one of them sees the other.
        """
        layout = self._claimed_in(backup_id)
        marked = self._mark_deleting(backup_id, run_id, layout)
        if any(o.key == f"{backup_id}/{MANIFEST}" for o in self.store.list_files(backup_id)):
            self.store.delete([claim_key(backup_id, layout)])
            return DeletedObjects(0, 0)
        return self._delete_folder(backup_id, run_id, layout, marked=marked)

    def remove_unfinished(self) -> None:
        """Remove what killed puts left and listings hide."""
        self.store.remove_unfinished(self._folders())

    def _folders(self) -> Iterator[str]:
        """Yield the folders of this program; nothing is listed before they are asked for."""
        yield from self.ids()
        yield ARCHIVE

    def remove_mark(self, backup_id: str) -> None:
        """Remove the claim that a run left although it committed its manifest."""
        self.store.delete([claim_key(backup_id, layout) for layout in Layout])

    def _claimed_in(self, backup_id: str) -> Layout:
        """Return the layout that an unfinished backup was claimed for."""
        claimed = exists(self.store, claim_key(backup_id, Layout.ARCHIVE))
        return Layout.ARCHIVE if claimed else Layout.FULL

    def _mark_deleting(self, backup_id: str, run_id: str, layout: Layout) -> bool:
        """Write the mark in the place of the claim; return whether there was room for it."""
        mark = Incomplete(run_id=run_id, state="deleting", started_at=self.clock.now())
        try:
            self.store.put_small(claim_key(backup_id, layout), encode(mark), options=CONTROL)
        except NoAnswer:
            raise
        except (RepositoryFull, RepositoryUnavailable):  # not all stores say that they are full
            return False
        return True

    def _delete_folder(
        self, backup_id: str, run_id: str, layout: Layout, *, marked: bool
    ) -> DeletedObjects:
        manifest, mark = f"{backup_id}/{MANIFEST}", claim_key(backup_id, layout)
        if not marked:  # an entry of the catalogue without manifest or mark would be a lost backup
            self.catalog.remove(backup_id)
        self.store.delete([manifest])
        # Listed after the manifest is deleted: from then on nobody adds to this folder.
        found = list(self.store.list(backup_id))
        rest = [o for o in found if o.key not in (manifest, mark)]
        rest.sort(key=lambda o: -o.size)
        if not marked and rest:
            self.store.delete([rest.pop(0).key])
            self._mark_deleting(backup_id, run_id, layout)  # there is room now
        delete_in_order(self.store, [o.key for o in rest])
        self.catalog.remove(backup_id)
        self.store.delete([mark])
        return DeletedObjects(len(found), sum(o.size for o in found))

    def _latest(self, at: datetime | None) -> BackupEntry:
        entries = self.entries()
        found = [e for e in committed(entries) if at is None or e.time <= at]
        if not found:
            before = f" from {rfc3339(at)} or before" if at else ""
            raise BackupNotFound(
                f"cannot find a backup in {self.url}: there is none{before}",
                hint=None if entries else _NO_BACKUP,
            )
        return newest_good(found) or found[-1]

    def _matching(self, name: str) -> BackupEntry | None:
        """Return the backup that a date or the beginning of an id means."""
        found = matching(name, self.ids())
        if is_date(name):
            entries = [e for e in map(self.entry, found) if e is not None]
            readable = committed(entries)
            return newest_good(readable) or next(reversed(readable or entries), None)
        if len(found) > 1:
            raise BackupNotFound(
                f"cannot find backup {name!r} in {self.url}: {len(found)} backups begin like this",
                hint=f"the first is {found[0]}, the last {found[-1]}",
            )
        return self.entry(found[0]) if found else None

    def _nearest(self, name: str) -> str:
        ids = self.ids()
        near = neighbours(name, ids) or tuple(ids[-1:])
        if not near:
            return _NO_BACKUP
        return f"the nearest: {' and '.join(near)}; run `prometheus-backup list` to see all backups"


def _why_absent(entry: BackupEntry | None) -> str:
    reasons = {
        State.INCOMPLETE: ": its run has not committed it",
        State.DELETING: ": it is being deleted",
        State.FOREIGN: ": its folder was not written by this program",
    }
    return reasons[entry.state] if entry else ""
