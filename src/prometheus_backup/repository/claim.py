"""How a backup comes to be: claim an id, keep the claim alive, commit.

Every step that matters reads again what it depends on (docs/design.md, "Interruption and concurrent runs"),
so on stores without conditional writes, too, at most one run commits under an id; files of the one
that lost may then stay beside those of the other.
"""

import contextlib
import os
import socket
import threading
from collections.abc import Iterator
from datetime import datetime, timedelta

from prometheus_backup.errors import BackupToolError, ObjectExists, ObjectNotFound, RepositoryLocked
from prometheus_backup.model import CONTROL, PutOptions
from prometheus_backup.repository.layout import INCOMPLETE, MANIFEST, SUMS, backup_id
from prometheus_backup.repository.manifest import (
    MAX_DOCUMENT_SIZE,
    FinishedFile,
    Incomplete,
    Manifest,
    decode_incomplete,
    decode_manifest,
    encode,
    sha256sums,
)
from prometheus_backup.repository.repository import GRACE, Repository

_TRIES = 120
_TICK = 5.0  # seconds between looks at whether finished files must be noted
_HEARTBEAT = 60.0  # seconds; the format promises five minutes
_STOP_PATIENCE = 5.0  # seconds; a beat stuck in the network must not hold up the clean-up


class Claim:
    """A backup id that is this run's, until it commits or gives up."""

    def __init__(self, repository: Repository, *, identifier: str, document: Incomplete) -> None:
        self.backup_id = identifier
        self._repository = repository
        self._store = repository.store
        self._clock = repository.clock
        self._document = document
        self._finished: list[FinishedFile] = []
        self._written = 0
        self._beat_at = self._clock.now()
        self._taken_over = False
        self._ended = False
        # Held by whoever writes incomplete.json, so that no late heartbeat follows the end.
        self._lock = threading.Lock()

    @property
    def run_id(self) -> str:
        """Return the id of the run that claimed."""
        return self._document.run_id

    @property
    def started_at(self) -> datetime:
        """Return when the run began."""
        return self._document.started_at

    def store_now(self) -> datetime:
        """Return the store's time of the last heartbeat; right after the claim, its present."""
        return self._store.head(self._key(INCOMPLETE)).modified

    def finished(self, file: FinishedFile) -> None:
        """Note a file that is in the store, for a later run to reuse if this one dies.

        Raises RepositoryLocked where a heartbeat saw that the claim is no longer ours.
        """
        if self._taken_over:
            raise self._lost()
        self._finished.append(file)

    @contextlib.contextmanager
    def kept_alive(self) -> Iterator[None]:
        """Rewrite incomplete.json in the background while the body runs.

        Failures to do so are passed over: the next beat tries again, and the commit looks anyway.
        """
        stop = threading.Event()

        def beat() -> None:
            since = self._clock.monotonic()
            while not stop.wait(_TICK):
                due = self._clock.monotonic() - since >= _HEARTBEAT
                if due or len(self._finished) > self._written:
                    with contextlib.suppress(BackupToolError):
                        self._rewrite()
                    since = self._clock.monotonic()

        thread = threading.Thread(target=beat, name="heartbeat", daemon=True)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join(timeout=_STOP_PATIENCE)

    def commit(self, manifest: Manifest, *, options: PutOptions) -> None:
        """Write SHA256SUMS and the manifest: from then on the backup exists.

        Raises RepositoryLocked, with nothing committed, where the claim is no longer ours.
        """
        with self._lock:
            self._commit(manifest, options)
            self._ended = True

    def _commit(self, manifest: Manifest, options: PutOptions) -> None:
        self._require_ours()
        self._store.put_small(self._key(SUMS), sha256sums(manifest), options=options)
        self._require_ours()
        try:
            self._store.create(self._key(MANIFEST), encode(manifest), options=options)
        except ObjectExists:
            # Ours, if the answer to an earlier attempt was lost.
            body = self._store.get(self._key(MANIFEST), limit=MAX_DOCUMENT_SIZE)
            if decode_manifest(body, backup_id=self.backup_id).run_id != self.run_id:
                raise self._lost() from None
        try:
            self._require_ours()
        except RepositoryLocked:
            # A sweep began between our last look and the manifest: see Repository.sweep.
            self._store.delete([self._key(MANIFEST)])
            raise
        self._store.delete([self._key(INCOMPLETE)])

    def abandon(self) -> None:
        """Say that this run will not go on, and what it leaves for the next one."""
        with self._lock:
            self._ended = True
            document = self._document.model_copy(
                update={"state": "abandoned", "finished": tuple(self._finished)}
            )
            if self._owner() == self.run_id:
                self._store.put_small(self._key(INCOMPLETE), encode(document), options=CONTROL)

    def _rewrite(self) -> None:
        with self._lock:
            if self._ended:
                return
            # The beat counts from before the look: were we suspended between the look and the
            # put, we may have overwritten the mark of a sweep, and must not commit.
            began = self._clock.now()
            self._require_ours()
            document = self._document.model_copy(update={"finished": tuple(self._finished)})
            self._store.put_small(self._key(INCOMPLETE), encode(document), options=CONTROL)
            self._written = len(document.finished)
            self._beat_at = began

    def _require_ours(self) -> None:
        # Half the grace period: long before a sweep may take us for dead, we give up ourselves,
        # for instance after the machine was suspended.
        if self._clock.now() - self._beat_at > GRACE / 2 or self._owner() != self.run_id:
            self._taken_over = True
            raise self._lost()

    def _lost(self) -> RepositoryLocked:
        return RepositoryLocked(
            f"cannot commit {self.backup_id}: another run has taken it over",
            hint="start again; nothing was committed",
        )

    def _owner(self) -> str | None:
        return _owner(self._repository, self.backup_id)

    def _key(self, name: str) -> str:
        return f"{self.backup_id}/{name}"


def claim_backup(repository: Repository, *, run_id: str, intent: str) -> Claim:
    """Claim the id of this UTC second, or the next free one.

    Raises RepositoryLocked where none of the next two minutes is free.
    """
    began = repository.clock.now()
    document = Incomplete(
        run_id=run_id,
        state="running",
        host=socket.gethostname(),
        pid=os.getpid(),
        started_at=began,
        intent=intent,
    )
    for offset in range(_TRIES):
        identifier = backup_id(began + timedelta(seconds=offset))
        if _try_claim(repository, identifier, document):
            return Claim(repository, identifier=identifier, document=document)
    raise RepositoryLocked(
        f"cannot begin a backup in {repository.url}: {_TRIES} ids from {backup_id(began)} are taken"
    )


def _try_claim(repository: Repository, identifier: str, document: Incomplete) -> bool:
    store = repository.store
    if any(store.list(identifier)):
        return False
    key = f"{identifier}/{INCOMPLETE}"
    with contextlib.suppress(ObjectExists):
        store.create(key, encode(document), options=CONTROL)
    if _owner(repository, identifier) != document.run_id:
        return False
    if all(o.key == key for o in store.list(identifier)):
        return True
    # Somebody claimed, committed and let go of this id between our first look and our claim.
    store.delete([key])
    return False


def _owner(repository: Repository, identifier: str) -> str | None:
    try:
        body = repository.store.get(f"{identifier}/{INCOMPLETE}", limit=MAX_DOCUMENT_SIZE)
    except ObjectNotFound:
        return None
    document = decode_incomplete(body)
    return document.run_id if document else None
