"""Reads what the documents in a backup's folder say, or what the catalogue says of them."""

import contextlib
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from prometheus_backup.clock import Clock
from prometheus_backup.errors import (
    NewerFormat,
    ObjectArchived,
    ObjectNotFound,
    RepositoryDenied,
    RepositoryUnavailable,
    UnreadableManifest,
)
from prometheus_backup.model import Layout, ObjectInfo
from prometheus_backup.repository.archive import ArchiveView, lost_keys
from prometheus_backup.repository.catalog import Catalog, CatalogEntry, SeenFile, described
from prometheus_backup.repository.entry import BackupEntry, State
from prometheus_backup.repository.hold import Holds
from prometheus_backup.repository.layout import HOLD, INCOMPLETE, MANIFEST, is_result_name
from prometheus_backup.repository.manifest import (
    MAX_DOCUMENT_SIZE,
    ForeignManifest,
    Incomplete,
    Manifest,
    NamedFolder,
    decode,
    decode_manifest,
)
from prometheus_backup.repository.results import VerificationResults
from prometheus_backup.repository.verification import Verification
from prometheus_backup.stores.base import ObjectStore
from prometheus_backup.transfer import SMALL_FILE


@dataclass(frozen=True, slots=True)
class Look:
    """What was listed before backups are read: claims, ids in the catalogue, and the archive.

    Without `view`, faults of the archive are not looked for. With `confirmed`, manifests are read
    unless the catalogue's entry has been confirmed lately.
    """

    claims: Mapping[str, ObjectInfo]
    catalogued: frozenset[str]
    view: ArchiveView | None = None
    confirmed: bool = False


@dataclass(frozen=True, slots=True)
class EntryReader:
    """Reads single backups of a store."""

    store: ObjectStore
    results: VerificationResults
    catalog: Catalog
    holds: Holds
    clock: Clock
    decoding: threading.Lock
    """Held while a manifest is parsed: many files take much memory, so one at a time."""
    large_reads: threading.Semaphore
    """Held while a manifest of 1 MiB or more is in memory."""

    def learn(self, manifest: Manifest, info: ObjectInfo) -> None:
        """Remember what a manifest says."""
        self.catalog.learn(described(manifest, info), manifest.archived)

    def entry(self, backup_id: str, look: Look) -> BackupEntry | None:
        """Return a backup or a claim; None if there is neither."""
        try:
            entry = self._read(backup_id, look)
            claimed = backup_id in look.claims
            if not claimed or (entry is not None and entry.incomplete_modified is not None):
                return entry
            # Committed since the claim was listed, or given up: look again.
            return self._read(backup_id, replace(look, claims={}))
        except ObjectArchived as error:  # a lifecycle rule moved its control files
            hold = self.holds.known(backup_id)
            return BackupEntry(backup_id, State.ARCHIVED, problem=error.message, hold=hold)
        except (RepositoryDenied, RepositoryUnavailable) as error:
            return BackupEntry(backup_id, State.UNREADABLE, problem=error.message, read_error=error)

    def _read(self, backup_id: str, look: Look) -> BackupEntry | None:
        files = {o.key.rpartition("/")[2]: o for o in self.store.list_files(backup_id)}
        claim = files.get(INCOMPLETE) or look.claims.get(backup_id)
        incomplete, modified = self._incomplete(claim)
        if INCOMPLETE in files and modified is None:  # committed or deleted since the listing
            return self._read(backup_id, look)
        entry = self._of_manifest(backup_id, files, look) if MANIFEST in files else None
        if entry is None and incomplete is None and self._is_lost(backup_id, look):
            problem = f"cannot find {backup_id}/{MANIFEST}, although the catalogue has this backup"
            entry = BackupEntry(backup_id, State.UNREADABLE, problem=problem)
        if entry is None:
            if not files and claim is None and not any(self.store.list(backup_id)):
                return None
            state = State.FOREIGN
            if incomplete is not None:
                deleting = incomplete.state == "deleting"
                state = State.DELETING if deleting else State.INCOMPLETE
            entry = BackupEntry(backup_id, state)
        return replace(entry, incomplete=incomplete, incomplete_modified=modified)

    def _is_lost(self, backup_id: str, look: Look) -> bool:
        """Return whether the catalogue has a backup of the archive, whose manifest is gone.

        Our own deletion removes the entry before its mark, so the entry is looked up again.
        """
        if backup_id not in look.catalogued:
            return False
        entry = self.catalog.stored(backup_id, None)
        if entry is None or entry.header.layout is Layout.FULL:  # nothing depends on it
            self.catalog.discard(backup_id)
            return False
        return self.catalog.exists(backup_id)

    def _of_manifest(
        self, backup_id: str, files: Mapping[str, ObjectInfo], look: Look
    ) -> BackupEntry | None:
        """Return what the documents of a backup say; None if the manifest has just been deleted."""
        known = self._known(backup_id, files[MANIFEST], look)
        named = self._named(known) if known else None
        try:
            if known is None or named is None:
                if known is not None:
                    self.catalog.distrust(backup_id)
                manifest = self._manifest(backup_id, files[MANIFEST])
                known, named = described(manifest, files[MANIFEST]), manifest.archived
                if look.confirmed:
                    known = known.model_copy(update={"confirmed_at": self.clock.now()})
        except ObjectNotFound:
            return None
        except NewerFormat as error:
            return self._unusable(BackupEntry(backup_id, State.NEWER, problem=error.message), files)
        except UnreadableManifest as error:
            state = State.FOREIGN if isinstance(error, ForeignManifest) else State.UNREADABLE
            return self._unusable(BackupEntry(backup_id, state, problem=error.message), files)
        entry = self._with_results(known, files)
        self.catalog.learn(entry, named)
        return BackupEntry(
            backup_id,
            State.COMMITTED,
            entry.header,
            spans=entry.spans,
            folders=named,
            verifications=tuple(entry.verifications.values()),
            rotations=tuple(entry.rotations.values()),
            shared_failures=self._shared_failures(backup_id, files, named, look.view),
            hold=entry.hold,
        )

    def _known(self, backup_id: str, manifest: ObjectInfo, look: Look) -> CatalogEntry | None:
        known = self.catalog.entry(backup_id, manifest)
        if known is None and backup_id in look.catalogued:
            known = self.catalog.stored(backup_id, manifest)
        if known is None or (look.confirmed and not known.is_confirmed(self.clock.now())):
            return None
        return known

    def _named(self, known: CatalogEntry) -> Mapping[str, NamedFolder] | None:
        if known.header.layout is Layout.FULL:
            return {}
        return self.catalog.named(known)

    def _with_results(self, known: CatalogEntry, files: Mapping[str, ObjectInfo]) -> CatalogEntry:
        """Return the entry with the documents that have changed since it was made."""
        current = known.current(files)
        documents = {n: info for n, info in files.items() if n == HOLD or is_result_name(n)}
        changed = {n: info for n, info in documents.items() if n not in current}
        if not changed and len(documents) + 1 == len(known.seen):
            return known
        verifications, rotations = self.results.of(changed)
        kept = {n: v for n, v in known.verifications.items() if n in current}
        turned = {n: r for n, r in known.rotations.items() if n in current}
        seen = {n: SeenFile.of(i) for n, i in documents.items()}
        return known.model_copy(
            update={
                "seen": {MANIFEST: known.seen[MANIFEST], **seen},
                "verifications": dict(sorted({**kept, **verifications}.items())),
                "rotations": dict(sorted({**turned, **rotations}.items())),
                "hold": known.hold if HOLD in current else self.holds.of(known.backup_id, files),
            }
        )

    def _unusable(self, entry: BackupEntry, files: Mapping[str, ObjectInfo]) -> BackupEntry:
        """Return a backup without a usable manifest, with its results and its hold."""
        verifications, rotations = self.results.of(files)
        return replace(
            entry,
            verifications=tuple(verifications.values()),
            rotations=tuple(rotations.values()),
            hold=self.holds.of(entry.backup_id, files),
        )

    def _shared_failures(
        self,
        backup_id: str,
        files: Mapping[str, ObjectInfo],
        named: Mapping[str, NamedFolder],
        view: ArchiveView | None,
    ) -> tuple[Verification, ...]:
        if view is None or not named:
            return ()
        lost: Sequence[str] = ()
        if not view.has_all(named):  # only the manifest says which objects
            with contextlib.suppress(ObjectNotFound):
                lost = lost_keys(self._manifest(backup_id, files[MANIFEST]), view.folders)
        return view.failures(backup_id, named, lost=lost, now=self.clock.now())

    def _manifest(self, backup_id: str, info: ObjectInfo) -> Manifest:
        """Return the manifest. Raises ObjectNotFound, UnreadableManifest or NewerFormat."""
        if info.size > MAX_DOCUMENT_SIZE:
            raise UnreadableManifest(
                f"cannot read manifest {info.key}: {info.size:,} bytes is too large"
            )
        with self.large_reads if info.size >= SMALL_FILE else contextlib.nullcontext():
            body = self.store.get(info.key, limit=MAX_DOCUMENT_SIZE)
            with self.decoding:
                return decode_manifest(body, backup_id=backup_id)

    def _incomplete(self, info: ObjectInfo | None) -> tuple[Incomplete | None, datetime | None]:
        if info is None:
            return None, None
        if info.size > MAX_DOCUMENT_SIZE:
            return None, info.modified
        try:
            # It may have grown since the listing.
            body = self.store.get(info.key, limit=MAX_DOCUMENT_SIZE)
            return decode(Incomplete, body), info.modified
        except ObjectNotFound:
            return None, None
