"""Create a backup: claim an id, keep the claim alive with a heartbeat, commit.

Every step re-reads what it depends on (docs/design.md, "Interruption and concurrent runs"), so that
at most one run commits under an id, even on stores without conditional writes. Files of the run
that lost may remain in the folder.
"""

import contextlib
import os
import socket
import threading
from collections.abc import Iterable, Iterator
from datetime import datetime, timedelta

from prometheus_backup.errors import (
    BackupToolError,
    ObjectExists,
    ObjectNotFound,
    RepositoryLocked,
    RepositoryUnavailable,
)
from prometheus_backup.model import CONTROL, Layout, ObjectInfo, PutOptions
from prometheus_backup.repository.archive import ArchiveView, lost_keys
from prometheus_backup.repository.entry import GRACE
from prometheus_backup.repository.layout import (
    MANIFEST,
    RESTORE_SCRIPT,
    SUMS,
    backup_id,
    claim_key,
)
from prometheus_backup.repository.manifest import (
    MAX_DOCUMENT_SIZE,
    FinishedFile,
    Incomplete,
    Manifest,
    decode,
    decode_manifest,
    encode,
    sha256sums,
)
from prometheus_backup.repository.plain_restore import restore_script
from prometheus_backup.repository.repository import Repository

_MAX_IDS = 120
_TICK = 5.0  # seconds between checks for finished files to record
_HEARTBEAT = 60.0  # seconds; the format promises at most five minutes
_STOP_TIMEOUT = 2.0  # seconds; a heartbeat stuck in the network must not delay the clean-up


class _NotStored(RepositoryUnavailable):
    """The store acknowledged an object that it does not have."""


class Claim:
    """A backup id that belongs to this run until it commits or gives up."""

    def __init__(
        self, repository: Repository, *, identifier: str, document: Incomplete, layout: Layout
    ) -> None:
        self.backup_id = identifier
        self.layout = layout
        self.key = claim_key(identifier, layout)
        self._repository = repository
        self._store = repository.store
        self._clock = repository.clock
        self._document = document
        self._finished: list[FinishedFile] = []
        self._written = 0
        self._heartbeat_at = self._clock.now()
        self._taken_over = False
        self._ended = False
        self.committed_at: datetime | None = None
        """The store's time of the manifest, once it is committed."""
        self.archive: ArchiveView | None = None
        """The archive right after the commit, in layout `archive`."""
        # Held while incomplete.json is written, so that no late heartbeat follows the end.
        self._lock = threading.Lock()

    @property
    def run_id(self) -> str:
        """Return the id of the run that holds the claim."""
        return self._document.run_id

    @property
    def started_at(self) -> datetime:
        """Return when the run began."""
        return self._document.started_at

    def store_now(self) -> datetime:
        """Return the store's time of the last heartbeat; right after the claim, the time of now."""
        return self._store.head(self.key).modified

    def say(self, folders: Iterable[str]) -> None:
        """Write down which folders of the archive the backup will name. Look at them afterwards.

        A prune that marks one of them before we look is seen by us; one that marks it later sees
        this claim (docs/design.md, "The archive"). Raises RepositoryLocked if it is not ours.
        """
        self._document = self._document.model_copy(update={"names": tuple(sorted(folders))})
        self._rewrite()

    def add_finished(self, file: FinishedFile) -> None:
        """Record a file that is in the store, so that a later run can reuse it if this one dies.

        Raises RepositoryLocked if a heartbeat found that another run has taken over the claim.
        """
        if self._taken_over:
            raise self._taken_over_error()
        self._finished.append(file)

    @contextlib.contextmanager
    def heartbeat(self) -> Iterator[None]:
        """Rewrite incomplete.json in the background while the body runs.

        Failures are ignored: the next heartbeat tries again, and the commit checks in any case.
        """
        stop = threading.Event()

        def beat() -> None:
            written_at = self._clock.monotonic()
            while not stop.wait(_TICK):
                due = self._clock.monotonic() - written_at >= _HEARTBEAT
                if due or len(self._finished) > self._written:
                    with contextlib.suppress(BackupToolError):
                        self._rewrite()
                    written_at = self._clock.monotonic()

        thread = threading.Thread(target=beat, name="heartbeat", daemon=True)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join(timeout=_STOP_TIMEOUT)

    def commit(self, manifest: Manifest, *, options: PutOptions) -> tuple[str, ...]:
        """Write SHA256SUMS and the manifest; after that the backup exists.

        Returns what went wrong after the manifest was written: the backup is committed all the
        same. Raises, with nothing committed, RepositoryLocked if another run has taken over the
        claim, and the failures of the store.
        """
        with self._lock:
            problems = self._commit(manifest, options)
            self._ended = True
            return problems

    def _commit(self, manifest: Manifest, options: PutOptions) -> tuple[str, ...]:
        controls = {SUMS: sha256sums(manifest)}
        if manifest.layout is Layout.ARCHIVE:
            controls[RESTORE_SCRIPT] = restore_script(manifest)
        body = encode(manifest)
        self._require_ours()
        for name, content in controls.items():
            self._store.put_small(self._key(name), content, options=options)
        listed = {o.key: o for o in self._store.list_files(self.backup_id)}
        for name, content in controls.items():
            self._require_stored(name, len(content), listed.get(self._key(name)))
        self._require_ours()
        self._create_manifest(body, options)
        try:
            self._require_ours()
            stored = self._stored_manifest()
            self._require_stored(MANIFEST, len(body), stored)
            self._require_archived(manifest)
            self._store.delete([self.key])
        except RepositoryLocked:
            # A sweep began between the last check and the manifest: see Repository.sweep.
            self._store.delete([self._key(MANIFEST)])
            self._repository.catalog.remove(self.backup_id)
            raise
        except _NotStored:
            raise
        except BackupToolError as error:
            return (f"{self.backup_id} is committed, but not all was done: {error.message}",)
        if stored is not None:
            self.committed_at = stored.modified
            self._repository.learn(decode_manifest(body, backup_id=self.backup_id), stored)
        return ()

    def _create_manifest(self, body: bytes, options: PutOptions) -> None:
        """Create the manifest. If the response to an attempt was lost, it may be there already."""
        try:
            self._store.create(self._key(MANIFEST), body, options=options)
        except (ObjectExists, RepositoryUnavailable) as error:
            try:
                found = self._store.get(self._key(MANIFEST), limit=MAX_DOCUMENT_SIZE)
            except BackupToolError:
                raise error from None
            if decode_manifest(found, backup_id=self.backup_id).run_id != self.run_id:
                raise self._taken_over_error() from None

    def _stored_manifest(self) -> ObjectInfo | None:
        try:
            return self._store.head(self._key(MANIFEST))
        except ObjectNotFound:
            return None

    def _require_stored(self, name: str, size: int, found: ObjectInfo | None) -> None:
        """Raise _NotStored if the store does not have an object that it acknowledged."""
        if found is None or found.size != size:
            self._require_ours()  # else a sweep has deleted it
            raise _NotStored(
                f"cannot commit {self.backup_id}: the store acknowledged {self._key(name)}, but "
                + ("does not have it" if found is None else f"has only {found.size:,} bytes of it"),
                hint="nothing was committed; check the health of the store",
            )

    def _require_archived(self, manifest: Manifest) -> None:
        """Raise RepositoryLocked if the archive lacks an object that the manifest names.

        It can: if this run was suspended between its last check and the manifest, for so long that
        it counted as dead, a prune may have deleted what nobody else named.
        """
        if manifest.layout is Layout.FULL:
            return
        view = self._repository.archive.view()
        lost = lost_keys(manifest, view.folders)
        if lost:
            raise RepositoryLocked(
                f"cannot commit {self.backup_id}: {lost[0]} was deleted from the archive",
                hint="nothing was committed; start the backup again",
            )
        self.archive = view.without_claim(self.backup_id)

    def abandon(self) -> None:
        """Record that this run will not continue, and which files the next one can reuse."""
        with self._lock:
            self._ended = True
            document = self._document.model_copy(
                update={"state": "abandoned", "finished": tuple(self._finished)}
            )
            if self._owner() == self.run_id:
                self._store.put_small(self.key, encode(document), options=CONTROL)

    def _rewrite(self) -> None:
        with self._lock:
            if self._ended:
                return
            # The time before the check counts: if the machine was suspended between the check and
            # the put, the put may have overwritten the mark of a sweep, and we must not commit.
            checked_at = self._clock.now()
            self._require_ours()
            document = self._document.model_copy(update={"finished": tuple(self._finished)})
            self._store.put_small(self.key, encode(document), options=CONTROL)
            self._written = len(document.finished)
            self._heartbeat_at = checked_at

    def _require_ours(self) -> None:
        # Give up after half the grace period without a heartbeat, for instance after the machine
        # was suspended: a sweep considers a run dead only after the whole grace period.
        if self._clock.now() - self._heartbeat_at > GRACE / 2 or self._owner() != self.run_id:
            self._taken_over = True
            raise self._taken_over_error()

    def _taken_over_error(self) -> RepositoryLocked:
        return RepositoryLocked(
            f"cannot commit {self.backup_id}: another run has taken it over",
            hint="nothing was committed; start the backup again",
        )

    def _owner(self) -> str | None:
        return _owner(self._repository, self.key)

    def _key(self, name: str) -> str:
        return f"{self.backup_id}/{name}"


def claim_backup(
    repository: Repository, *, run_id: str, intent: str, layout: Layout = Layout.FULL
) -> Claim:
    """Claim the id of this UTC second, or the next free one.

    Raises RepositoryLocked if every second of the next two minutes is taken.
    """
    started_at = repository.clock.now()
    document = Incomplete(
        run_id=run_id,
        state="running",
        host=socket.gethostname(),
        pid=os.getpid(),
        started_at=started_at,
        intent=intent,
    )
    for offset in range(_MAX_IDS):
        identifier = backup_id(started_at + timedelta(seconds=offset))
        if _try_claim(repository, identifier, document, layout):
            return Claim(repository, identifier=identifier, document=document, layout=layout)
    raise RepositoryLocked(
        f"cannot begin a backup in {repository.url}: all {_MAX_IDS} ids from "
        f"{backup_id(started_at)} are taken"
    )


def _try_claim(
    repository: Repository, identifier: str, document: Incomplete, layout: Layout
) -> bool:
    store, key = repository.store, claim_key(identifier, layout)
    # In layout `archive`, the claim is not in the folder, so that a look after it is enough.
    if layout is Layout.FULL and any(store.list(identifier)):
        return False
    with contextlib.suppress(ObjectExists):
        store.create(key, encode(document), options=CONTROL)
    if _owner(repository, key) != document.run_id:
        return False
    others = {o.key for o in store.list(identifier)} - {key}
    if layout is Layout.FULL and not others and _owner(repository, _archive_claim(identifier)):
        others.add(_archive_claim(identifier))
    if not others:
        return True
    # Another run claimed and committed this id before our claim, or claimed it in the other layout:
    # then both give way, since each looks after its own claim.
    store.delete([key])
    return False


def _archive_claim(identifier: str) -> str:
    return claim_key(identifier, Layout.ARCHIVE)


def _owner(repository: Repository, key: str) -> str | None:
    try:
        body = repository.store.get(key, limit=MAX_DOCUMENT_SIZE)
    except ObjectNotFound:
        return None
    document = decode(Incomplete, body)
    return document.run_id if document else None
