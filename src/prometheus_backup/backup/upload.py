"""Bring a snapshot's files into the repository, and prove before the commit that they are there."""

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
    RepositoryLocked,
)
from prometheus_backup.events import (
    FileCopied,
    FileUploaded,
    LongStepBegan,
    LongStepEnded,
    Warned,
)
from prometheus_backup.model import Level, PutOptions
from prometheus_backup.repository.claim import Claim
from prometheus_backup.repository.layout import INCOMPLETE
from prometheus_backup.repository.manifest import FinishedFile
from prometheus_backup.repository.repository import Repository
from prometheus_backup.transfer import HashedFile, Transfer, WorkerContext, hash_stream


@dataclass(frozen=True, slots=True)
class StoredFile:
    """A file that is in the repository. `source` is what it was copied from, if it was.

    `stored_checksum` is what the store says of the object, once it was proven right.
    """

    ulid: str
    path: str
    size: int
    sha256: str
    key: str
    source: StoredCopy | None
    stored_checksum: str | None = None

    @property
    def copied(self) -> bool:
        """Tell whether the store copied it."""
        return self.source is not None


@dataclass(frozen=True, slots=True)
class Uploader:
    """How files are brought into a claimed backup. `verify` None looks at sizes only."""

    repository: Repository
    claim: Claim
    transfer: Transfer
    options: PutOptions
    verify: Level | None
    rehash: bool
    _told: dict[str, str | None] = field(default_factory=dict)

    def place(self, plan: BackupPlan, folder: Path) -> tuple[StoredFile, ...]:
        """Bring every file of the plan into the repository; `folder` is the snapshot.

        Copies first, many at once, since they cost us nothing; then uploads, large ones first.
        """
        self.transfer.listener(LongStepBegan("transfer", sum(f.size for f in plan.files)))
        try:
            return self._placed(plan, folder)
        finally:
            self.transfer.listener(LongStepEnded("transfer"))

    def _placed(self, plan: BackupPlan, folder: Path) -> tuple[StoredFile, ...]:
        copies = sorted(plan.copies, key=_largest_first)
        copied = self.transfer.wide().all(copies, lambda f, w: self._copy(f, folder, w))
        failed = [file for file, placed in copied if placed is None]
        uploads = sorted([*plan.uploads, *failed], key=_largest_first)
        sent = self.transfer.all(uploads, lambda f, w: self.upload(f, folder, w))
        placed = [p for _, p in [*copied, *sent] if p is not None]
        return tuple(sorted(placed, key=lambda p: p.key))

    def upload(self, file: PlannedFile, folder: Path, watch: WorkerContext) -> StoredFile:
        """Send one file, hashing it on the way."""
        key = self._key(file)
        self._told.pop(key, None)
        body = HashedFile(self._disk(file, folder), size=file.size, watch=watch)
        try:
            self.repository.store.put(key, body, size=file.size, options=self.options)
        except BackupToolError as error:
            error.message = f"Upload failed: {error.message}"
            raise
        self.transfer.listener(FileUploaded(key, file.size))
        return self._noted(StoredFile(file.ulid, file.path, file.size, body.sha256, key, None))

    def prove(self, placed: Sequence[StoredFile], folder: Path) -> tuple[StoredFile, ...]:
        """Look whether everything arrived; send what did not once more, from the snapshot.

        Raises BytesDiffer where that does not help, RepositoryLocked where others wrote here.
        """
        bad = self._bad(placed)
        if not bad:
            return self._with_checksums(placed)
        for file in bad:
            self.transfer.listener(
                Warned(f"Verification failed: {file.key} is not what was sent; sending it again")
            )
        again = [PlannedFile(p.ulid, p.path, p.size, None) for p in bad]
        resent = {
            new.key: new
            for _, new in self.transfer.all(again, lambda f, w: self.upload(f, folder, w))
        }
        still = self._bad(list(resent.values()), strangers=False)
        if still:
            raise BytesDiffer(
                f"Verification failed: {', '.join(p.key for p in still)} differ from the snapshot "
                "after they were sent twice"
            )
        return self._with_checksums([resent.get(p.key, p) for p in placed])

    def _with_checksums(self, placed: Sequence[StoredFile]) -> tuple[StoredFile, ...]:
        """Add what the store says of these objects, which are right, for later verification."""
        if not self.repository.store.keeps_checksums:
            return tuple(placed)
        keys = [p.key for p in placed]
        try:
            told = dict(self.transfer.wide().all(keys, lambda key, _: self._stored_checksum(key)))
        except RepositoryError as error:  # such as credentials that may only write
            text = f"verification at level stored will not be possible: {error.message}"
            self.transfer.listener(Warned(text, error.hint))
            return tuple(placed)
        return tuple(replace(p, stored_checksum=told[p.key]) for p in placed)

    def _stored_checksum(self, key: str) -> str | None:
        """Return what the store says of an object; it is asked once."""
        if key not in self._told:
            self._told[key] = self.repository.store.stored_checksum(key)
        return self._told[key]

    def _copy(self, file: PlannedFile, folder: Path, watch: WorkerContext) -> StoredFile | None:
        """Have the store copy a file; None where it must be uploaded instead."""
        known = file.known
        if known is None or (self.rehash and not self._is_unchanged(file, known, folder, watch)):
            return None
        key = self._key(file)
        try:
            self.repository.store.copy(known.key, key, size=file.size, options=self.options)
        except RepositoryDenied:
            raise
        except BackupToolError as error:
            cause = "is gone" if isinstance(error, ObjectNotFound) else f"stays: {error.message}"
            self.transfer.listener(Warned(f"{known.key} {cause}; uploading the file instead"))
            return None
        watch.passed(file.size, limited=False)
        self.transfer.listener(FileCopied(key, file.size))
        return self._noted(StoredFile(file.ulid, file.path, file.size, known.sha256, key, known))

    def _is_unchanged(
        self, file: PlannedFile, known: StoredCopy, folder: Path, watch: WorkerContext
    ) -> bool:
        on_disk = HashedFile(self._disk(file, folder), size=file.size, watch=watch)
        on_disk.read()
        watch.passed(-file.size, limited=False)  # it is counted when it is in the repository
        if on_disk.sha256 == known.sha256:
            return True
        self.transfer.listener(
            Warned(f"{file.ulid}/{file.path} changed under an unchanged name; sending it again")
        )
        return False

    def _noted(self, placed: StoredFile) -> StoredFile:
        self.claim.finished(
            FinishedFile(
                ulid=placed.ulid,
                path=placed.path,
                size=placed.size,
                sha256=placed.sha256,
                key=placed.key,
            )
        )
        return placed

    def _bad(self, placed: Sequence[StoredFile], *, strangers: bool = True) -> list[StoredFile]:
        """Return the files whose objects are missing, of another size, or of other bytes."""
        listed = {o.key: o.size for o in self.repository.store.list(self.claim.backup_id)}
        if strangers:
            self._require_no_strangers(set(listed) - {p.key for p in placed})
        bad = [p for p in placed if listed.get(p.key) != p.size]
        rest = [p for p in placed if listed.get(p.key) == p.size]
        return bad + self._different(rest)

    def _require_no_strangers(self, keys: set[str]) -> None:
        keys.discard(f"{self.claim.backup_id}/{INCOMPLETE}")
        if keys:
            raise RepositoryLocked(
                f"cannot commit {self.claim.backup_id}: another run wrote {min(keys)} into it",
                hint="the store does not keep create-only writes apart; run one backup at a time",
            )

    def _different(self, placed: Sequence[StoredFile]) -> list[StoredFile]:
        by_bytes = [p for p in placed if self._must_read(p)]
        by_checksum = [p for p in placed if self._reads and not self._must_read(p)]
        self.transfer.listener(LongStepBegan("verify", sum(p.size for p in by_bytes)))
        try:
            return [
                *_failing(self.transfer.all(by_bytes, self._bytes_are_right)),
                *_failing(self.transfer.wide().all(by_checksum, self._checksums_match)),
            ]
        finally:
            self.transfer.listener(LongStepEnded("verify"))

    @property
    def _reads(self) -> bool:
        return self.verify is not None and self.verify.rank >= Level.CHECKSUM.rank

    def _must_read(self, placed: StoredFile) -> bool:
        """Salvage of a dead run was never verified by anybody: it is read back at every level."""
        if placed.source is not None:
            return placed.source.salvaged
        return self._reads

    def _bytes_are_right(self, placed: StoredFile, watch: WorkerContext) -> bool:
        try:
            found = hash_stream(self.repository.store.stream(placed.key), watch=watch)
        except ObjectNotFound:
            return False
        return found == (placed.sha256, placed.size)

    def _checksums_match(self, placed: StoredFile, watch: WorkerContext) -> bool:
        del watch
        if placed.source is None:
            return True
        mine = self._stored_checksum(placed.key)
        if mine is None:
            return True
        theirs = placed.source.stored_checksum or self._stored_checksum(placed.source.key)
        return theirs is None or mine == theirs

    def _key(self, file: PlannedFile) -> str:
        return f"{self.claim.backup_id}/{file.ulid}/{file.path}"

    def _disk(self, file: PlannedFile, folder: Path) -> Path:
        return folder / file.ulid / file.path


def _largest_first(file: PlannedFile) -> int:
    return -file.size


def _failing(results: Iterable[tuple[StoredFile, bool]]) -> list[StoredFile]:
    return [placed for placed, right in results if not right]
