"""Store a snapshot's files in the repository, and verify them before the commit."""

import contextlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from prometheus_backup.backup.plan import BackupPlan, PlannedFile, StoredCopy
from prometheus_backup.errors import (
    BackupToolError,
    BytesDiffer,
    ObjectNotFound,
    RepositoryDenied,
    RepositoryError,
    RepositoryFull,
    RepositoryLocked,
)
from prometheus_backup.events import FileCopied, FileUploaded, Warned, long_step
from prometheus_backup.model import Layout, Level, PutOptions
from prometheus_backup.repository.claim import Claim
from prometheus_backup.repository.layout import ARCHIVE
from prometheus_backup.repository.manifest import FinishedFile
from prometheus_backup.repository.repository import Repository
from prometheus_backup.transfer import HashedFile, HashedStream, Transfer, WorkerContext

_MAX_LISTINGS = 16
"""A listing of each new folder is cheaper than one of the whole archive up to this number."""


@dataclass(frozen=True, slots=True)
class StoredFile:
    """A file that is in the repository. `source` is what it was copied from; None if uploaded.

    `stored_checksum` is the store's checksum of the object, added once its bytes are verified.
    """

    ulid: str
    path: str
    size: int
    sha256: str
    key: str
    source: StoredCopy | None
    stored_checksum: str | None = None

    @property
    def shared(self) -> bool:
        """Return whether the archive had its object already."""
        return self.source is not None and self.source.key == self.key

    @property
    def copied(self) -> bool:
        """Return whether the store copied it."""
        return self.source is not None and not self.shared


@dataclass(frozen=True, slots=True)
class Uploader:
    """Stores files in a claimed backup. With `verify` None, only sizes are checked."""

    repository: Repository
    claim: Claim
    transfer: Transfer
    options: PutOptions
    verify: Level | None
    rehash: bool
    _checksums: dict[str, str | None] = field(default_factory=dict)

    def store(self, plan: BackupPlan, folder: Path) -> tuple[StoredFile, ...]:
        """Store every file of the plan in the repository; `folder` is the snapshot.

        Copies go first, many at once, since the store does the work; then uploads, largest first.
        """
        with long_step(self.transfer.listener, "transfer", sum(f.size for f in plan.files)):
            copies = sorted(plan.copies, key=_largest_first)
            copied = self.transfer.store_side().all(copies, lambda f, w: self._copy(f, folder, w))
            failed = [file for file, stored in copied if stored is None]
            uploads = sorted([*plan.uploads, *failed], key=_largest_first)
            uploaded = self.transfer.all(
                uploads, lambda f, w: self._store(f, folder, w), size=lambda f: f.size
            )
            shared = self.transfer.all(plan.shared, lambda f, w: self._share(f, folder, w))
        stored = [s for _, s in [*copied, *uploaded, *shared] if s is not None]
        return tuple(sorted(stored, key=lambda s: s.key))

    def _share(self, file: PlannedFile, folder: Path, worker: WorkerContext) -> StoredFile:
        """Name an object of the archive."""
        known = file.known
        if known is None or (self.rehash and not self._is_unchanged(file, known, folder, worker)):
            raise BytesDiffer(
                f"cannot name {file.key}: the bytes of {file.ulid}/{file.path} on the source are "
                "others, although Prometheus never changes such a file",
                hint="check the block with `prometheus-backup inspect`, and the disk",
            )
        worker.advance(file.size, limited=False)
        return StoredFile(
            file.ulid, file.path, file.size, known.sha256, known.key, known, known.stored_checksum
        )

    def _store(self, file: PlannedFile, folder: Path, worker: WorkerContext) -> StoredFile:
        """Upload a file, or name its newest version in the archive if it did not change."""
        version = file.version
        if version is not None:
            found = HashedFile(_local_path(file, folder), size=file.size, worker=worker).read()
            if found.sha256 == version.sha256 and file.sha256:
                return self._upload(replace(file, key=version.key), folder, worker)
            if found.sha256 == version.sha256:
                return StoredFile(
                    file.ulid, file.path, file.size, version.sha256, version.key, version
                )
            worker.advance(-file.size, limited=False)
            file = replace(file, sha256=None)
        return self._upload(file, folder, worker)

    def _upload(self, file: PlannedFile, folder: Path, worker: WorkerContext) -> StoredFile:
        """Upload one file, hashing it on the way."""
        key = file.key
        self._checksums.pop(key, None)
        path = _local_path(file, folder)
        body = HashedFile(path, size=file.size, worker=worker, sha256=file.sha256)
        try:
            self.repository.store.put(key, body, size=file.size, options=self.options)
        except BackupToolError as error:
            error.message = f"Upload failed: {error.message}"
            raise
        self.transfer.listener(FileUploaded(key, file.size))
        return self._record(StoredFile(file.ulid, file.path, file.size, body.sha256, key, None))

    def verify_stored(self, stored: Sequence[StoredFile], folder: Path) -> tuple[StoredFile, ...]:
        """Verify the stored files; upload those that differ once more, from the snapshot.

        Raises BytesDiffer if they still differ, RepositoryLocked if another run wrote here.
        """
        bad = self._mismatches(stored, check_foreign=True)
        if not bad:
            return self._with_checksums(stored)
        for file in bad:
            self.transfer.listener(
                Warned(
                    f"Verification failed: {file.key} differs from the snapshot; uploading it again"
                )
            )
        again = [PlannedFile(s.ulid, s.path, s.size, s.key) for s in bad]
        replaced = {
            new.key: new
            for _, new in self.transfer.all(
                again, lambda f, w: self._upload(f, folder, w), size=lambda f: f.size
            )
        }
        still_bad = self._mismatches(list(replaced.values()), check_foreign=False)
        if still_bad:
            raise BytesDiffer(
                f"Verification failed: {', '.join(s.key for s in still_bad)} still differ from "
                "the snapshot after a second upload"
            )
        return self._with_checksums([replaced.get(s.key, s) for s in stored])

    def _with_checksums(self, stored: Sequence[StoredFile]) -> tuple[StoredFile, ...]:
        """Add the store's checksums of these verified objects, for later verification."""
        if not self.repository.store.keeps_checksums:
            return tuple(stored)
        keys = [s.key for s in stored if not s.shared]
        try:
            checksums = dict(
                self.transfer.store_side().all(keys, lambda key, _: self._stored_checksum(key))
            )
        except RepositoryError as error:  # such as credentials that may only write
            text = f"verification at level stored will not be possible: {error.message}"
            self.transfer.listener(Warned(text, error.hint))
            return tuple(stored)
        return tuple(
            replace(s, stored_checksum=checksums[s.key]) if s.key in checksums else s
            for s in stored
        )

    def _stored_checksum(self, key: str) -> str | None:
        """Return the store's checksum of an object; each is requested once."""
        if key not in self._checksums:
            self._checksums[key] = self.repository.store.stored_checksum(key)
        return self._checksums[key]

    def _copy(self, file: PlannedFile, folder: Path, worker: WorkerContext) -> StoredFile | None:
        """Have the store copy a file; return None if it must be uploaded instead."""
        known = file.known
        if known is None or (self.rehash and not self._is_unchanged(file, known, folder, worker)):
            return None
        key = file.key
        try:
            self.repository.store.copy(known.key, key, size=file.size, options=self.options)
        except RepositoryDenied:
            raise
        except BackupToolError as error:
            if known.disposable and isinstance(error, RepositoryFull):
                self._dispose(known)  # there is no room for both
            cause = "it no longer exists" if isinstance(error, ObjectNotFound) else error.message
            self.transfer.listener(
                Warned(f"cannot copy {known.key}: {cause}; uploading the file instead")
            )
            return None
        worker.advance(file.size, limited=False)
        self.transfer.listener(FileCopied(key, file.size))
        if known.disposable:
            self._dispose(known)
        return self._record(StoredFile(file.ulid, file.path, file.size, known.sha256, key, known))

    def _dispose(self, copy: StoredCopy) -> None:
        with contextlib.suppress(RepositoryError):  # retention deletes it after the commit
            self.repository.store.delete([copy.key])

    def _is_unchanged(
        self, file: PlannedFile, known: StoredCopy, folder: Path, worker: WorkerContext
    ) -> bool:
        on_disk = HashedFile(_local_path(file, folder), size=file.size, worker=worker).read()
        worker.advance(-file.size, limited=False)  # counted again once it is in the repository
        if on_disk.sha256 == known.sha256:
            return True
        self.transfer.listener(
            Warned(f"{file.ulid}/{file.path} changed, but not its name or size; uploading it again")
        )
        return False

    def _record(self, stored: StoredFile) -> StoredFile:
        """Record a stored file in the claim, so that a later run can copy it if this one dies."""
        self.claim.add_finished(
            FinishedFile(
                ulid=stored.ulid,
                path=stored.path,
                size=stored.size,
                sha256=stored.sha256,
                key=stored.key,
            )
        )
        return stored

    def _mismatches(self, stored: Sequence[StoredFile], *, check_foreign: bool) -> list[StoredFile]:
        """Return the files whose objects are missing or differ in size or bytes."""
        stored = [s for s in stored if not s.shared]  # seen complete after they were claimed
        listed = self._listed(stored)
        if check_foreign:
            mine = f"/{self.claim.backup_id}/"
            ours = {key for key in listed if mine in f"/{key}"}
            self._require_no_foreign(ours - {s.key for s in stored})
        wrong_size = [s for s in stored if listed.get(s.key) != s.size]
        right_size = [s for s in stored if listed.get(s.key) == s.size]
        return wrong_size + self._wrong_bytes(right_size)

    def _listed(self, stored: Sequence[StoredFile]) -> dict[str, int]:
        """Return the sizes of the objects where this run writes, by key."""
        store, name = self.repository.store, self.claim.backup_id
        prefixes, repaired = {name}, set[str]()
        if self.claim.layout is Layout.ARCHIVE:
            prefixes = {_up_to(s.key, name) for s in stored}
            repaired = {s.key for s in stored if s.key in prefixes}  # in the folder of another run
        if len(prefixes) > _MAX_LISTINGS:
            prefixes, repaired = {ARCHIVE}, set()
        listed = [o for prefix in prefixes - repaired for o in store.list(prefix)]
        return {o.key: o.size for o in [*listed, *map(store.head, repaired)]}

    def _require_no_foreign(self, keys: set[str]) -> None:
        keys.discard(self.claim.key)
        if keys:
            raise RepositoryLocked(
                f"cannot commit {self.claim.backup_id}: another run wrote {min(keys)} into it",
                hint="the store does not support conditional writes; run one backup at a time",
            )

    def _wrong_bytes(self, stored: Sequence[StoredFile]) -> list[StoredFile]:
        by_bytes = [s for s in stored if self._must_read(s)]
        by_checksum = [s for s in stored if self._verifies_bytes and not self._must_read(s)]
        with long_step(self.transfer.listener, "verify", sum(s.size for s in by_bytes)):
            return [
                *_failed(self.transfer.all(by_bytes, self._bytes_match, size=lambda s: s.size)),
                *_failed(self.transfer.store_side().all(by_checksum, self._checksums_match)),
            ]

    @property
    def _verifies_bytes(self) -> bool:
        return self.verify is not None and self.verify.rank >= Level.CHECKSUM.rank

    def _must_read(self, stored: StoredFile) -> bool:
        """Return whether to read it back: files of a dead run always, since never verified."""
        if stored.source is not None:
            return stored.source.salvaged
        return self._verifies_bytes

    def _bytes_match(self, stored: StoredFile, worker: WorkerContext) -> bool:
        try:
            found = HashedStream(self.repository.store.stream(stored.key), worker=worker).read()
        except ObjectNotFound:
            return False
        return (found.sha256, found.size) == (stored.sha256, stored.size)

    def _checksums_match(self, stored: StoredFile, worker: WorkerContext) -> bool:
        if stored.source is None:
            return True
        copy = self._stored_checksum(stored.key)
        if copy is None:
            return True
        try:
            original = stored.source.stored_checksum or self._stored_checksum(stored.source.key)
        except ObjectNotFound:  # deleted since it was copied
            return self._bytes_match(stored, worker)
        return original is None or copy == original


def _local_path(file: PlannedFile, folder: Path) -> Path:
    return folder / file.ulid / file.path


def _up_to(key: str, name: str) -> str:
    """Return the part of a key that ends with this folder; the key itself if it has none."""
    before, found, _ = f"/{key}".partition(f"/{name}/")
    return f"{before}/{name}".lstrip("/") if found else key


def _largest_first(file: PlannedFile) -> int:
    return -file.size


def _failed(results: Iterable[tuple[StoredFile, bool]]) -> list[StoredFile]:
    return [stored for stored, matches in results if not matches]
