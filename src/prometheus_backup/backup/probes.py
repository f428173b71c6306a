"""The part of the preflight that uses the store: probe objects, stored exactly as a backup is.

If the store refuses one, find the settings with which it accepts it.
"""

from collections.abc import Callable, Collection, Iterator, Sequence
from itertools import combinations

from prometheus_backup.errors import (
    BackupToolError,
    BytesDiffer,
    ObjectExists,
    RepositoryDenied,
    RepositoryUnavailable,
    UsageError,
)
from prometheus_backup.model import BLOCK_TAGS, CONTROL, PutOptions
from prometheus_backup.repository.layout import PROBE_PREFIX
from prometheus_backup.repository.repository import Repository
from prometheus_backup.retention.policy import clock_problem
from prometheus_backup.stores.base import AdaptableStore, ObjectStore, exists

_PARTS = 8 * 1024 * 1024 + 1
"""Bytes of an object that S3 stores in parts."""
_STANDARD = "S3_STORAGE_CLASS=STANDARD"
_REFUSALS = (UsageError, RepositoryDenied, RepositoryUnavailable)

Probe = tuple[str, Callable[[], str]]
_Action = Callable[[ObjectStore, PutOptions], None]


class CheckWarning(Exception):
    """A problem that would make a backup end as PARTIAL; `hint` says how to fix it."""

    def __init__(self, message: str, *, hint: str) -> None:
        super().__init__(message)
        self.hint = hint


class StoreProbes:
    """Probes of one store. Settings that the store needs are also used for later probes."""

    def __init__(self, repository: Repository, *, run_id: str, block_class: str | None) -> None:
        self._repository = repository
        self._store = repository.store
        self._key = f"{PROBE_PREFIX}{run_id}"
        self._block_class = block_class
        self._needed: tuple[str, ...] = ()
        self.can_write = False
        """Whether the first probe could be written, perhaps with other settings."""

    def __iter__(self) -> Iterator[Probe]:
        """Yield subject and action of each probe."""
        yield "write", self._write
        yield "read", self._read
        yield "conditional create", self._create
        yield "block files", self._block_files
        yield "copy", self._copy
        yield "clock", self._clock
        yield "delete", self._delete

    def _write(self) -> str:
        def write(store: ObjectStore, options: PutOptions) -> None:
            del options
            store.put_small(self._key, _BODY, options=CONTROL)
            self.can_write = True

        self._try(write)
        return "objects can be written"

    def _read(self) -> str:
        if self._store.get(self._key, limit=100) != _BODY:
            raise BytesDiffer(
                f"cannot read back {self._key}: its content differs from what was written",
                hint="something between this machine and the store modifies objects",
            )
        return "objects can be read back"

    def _create(self) -> str:
        def create_again(store: ObjectStore, options: PutOptions) -> None:
            del options
            try:
                store.create(self._key, b"again\n", options=CONTROL)
            except ObjectExists:
                return
            raise CheckWarning(
                f"cannot rely on conditional writes in {self._repository.url}: an existing object "
                "was overwritten",
                hint="backups still detect each other by reading their claim again; make sure that "
                "only one job backs up into this repository",
            )

        self._try(create_again)
        return "creating an existing object is refused"

    def _block_files(self) -> str:
        def write(store: ObjectStore, options: PutOptions) -> None:
            store.put(f"{self._key}-block", [_BODY], size=len(_BODY), options=options)

        def write_parts(store: ObjectStore, options: PutOptions) -> None:
            body = bytes(_PARTS)
            store.put(f"{self._key}-parts", [body], size=len(body), options=options)

        self._try(write)
        self._try(write_parts)
        return "they can be written with tags, class and encryption, also in parts"

    def _copy(self) -> str:
        def copy(store: ObjectStore, options: PutOptions) -> None:
            source, target = f"{self._key}-block", f"{self._key}-copy"
            store.copy(source, target, size=len(_BODY), options=options)

        try:
            self._try(copy)
        except RepositoryDenied:
            raise
        except BackupToolError as error:
            raise CheckWarning(
                error.message,
                hint="backups work, but send every file again: this store must be able to copy",
            ) from error
        return "the store copies block files"

    def _clock(self) -> str:
        now = self._repository.clock.now()
        problem = clock_problem(
            now=now, store_now=self._store.head(self._key).modified, backup_times=[]
        )
        if problem:
            raise CheckWarning(
                f"cannot trust the clock: {problem}", hint="set this machine's clock (NTP)"
            )
        return "this machine's clock matches the store's"

    def _delete(self) -> str:
        keys = [f"{self._key}{end}" for end in ("", "-block", "-parts", "-copy")]
        self._store.delete(keys)
        if exists(self._store, self._key):
            raise CheckWarning(
                f"cannot delete {self._key}: it still exists after the deletion",
                hint="retention must be able to delete; is the bucket under a legal hold or object "
                "lock?",
            )
        if isinstance(self._store, AdaptableStore) and not self._store.deletes_in_bulk:
            return "objects can be deleted, one by one: the store refuses to delete several at once"
        return "objects can be deleted"

    @property
    def _options(self) -> PutOptions:
        """The properties of block files, as in backup/describe.py."""
        day = self._repository.clock.now().date()
        tags = {
            "Type": "daily",
            "Date": day.isoformat(),
            "Month": f"{day:%Y-%m}",
            "Year": f"{day:%Y}",
            "SnapshotName": "backup-19700101-000000",
            **BLOCK_TAGS,
        }
        standard = _STANDARD in self._needed
        return PutOptions(tags=tags, storage_class=None if standard else self._block_class)

    def _try(self, action: _Action) -> None:
        """Run the action; if the store refuses, raise an error that names the settings it needs."""
        try:
            action(self._store, self._options)
        except _REFUSALS as error:
            needed = self._find_needed(action)
            if not needed:
                raise
            denied = isinstance(error, RepositoryDenied)
            grant = f"{error.hint}; or " if denied else ""
            kind = RepositoryDenied if denied else UsageError
            raise kind(
                error.message,
                hint=f"{grant}set {' and '.join(needed)}: this store accepts it then "
                "(docs/stores.md)",
            ) from error

    def _find_needed(self, action: _Action) -> Sequence[str]:
        """Find the fewest settings with which the store accepts this; empty if there are none."""
        store = self._repository.store
        if not isinstance(store, AdaptableStore):
            return ()
        known = self._needed
        others = [s for s in (*store.adaptations, *self._class_setting) if s not in known]
        for count in range(1, len(others) + 1):
            for chosen in combinations(others, count):
                if self._accepts(action, store.adapted({*known, *chosen}), {*known, *chosen}):
                    return chosen
        return ()

    @property
    def _class_setting(self) -> Sequence[str]:
        return () if self._block_class in (None, "STANDARD") else (_STANDARD,)

    def _accepts(self, action: _Action, store: ObjectStore, needed: Collection[str]) -> bool:
        before = self._store, self._needed
        self._store, self._needed = store, tuple(needed)
        try:
            action(store, self._options)
        except (BackupToolError, CheckWarning):
            self._store, self._needed = before
            return False
        return True


_BODY = b"probe\n"
