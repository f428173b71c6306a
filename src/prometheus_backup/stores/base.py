"""The contract of an object store. tests/stores/ tests every store against it."""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Protocol, runtime_checkable

from prometheus_backup.errors import ObjectNotFound, RepositoryUnavailable
from prometheus_backup.model import ObjectInfo, PutOptions
from prometheus_backup.stores.lifecycle import ExpiryRule

_BATCH = 1000
"""Objects that one request deletes."""


class NoAnswer(RepositoryUnavailable):
    """The connection failed: whether the store did what was asked is unknown."""


class ObjectStore(Protocol):
    """Objects under keys, below one repository's root.

    Keys are relative: `/`-separated, without a leading or trailing slash. A store promises:

    - A put is atomic: readers see the whole new object or the previous one. A put that fails or is
      killed leaves nothing visible.
    - Read after write: every get, head and list that starts after a put sees its object.
    - Listings are complete and sorted by key, bytewise.
    - get, stream, head and copy of a missing key raise ObjectNotFound. No other failure is ever
      taken for absence. Delete of a missing key succeeds.
    - Only `create` may raise ObjectExists. It also does so if its own earlier attempt succeeded and
      the response was lost, so callers must read the existing object.
    - Other failures are RepositoryNotFound (no bucket), RepositoryDenied, RepositoryUnavailable.
    - Transient failures are retried in the store, and nowhere else.
    - All methods are safe to call from several threads.
    """

    @property
    def url(self) -> str:
        """Return the repository's address, without secrets, for messages."""
        ...

    @property
    def keeps_checksums(self) -> bool:
        """Return whether uploads get a checksum that `stored_checksum` returns."""
        ...

    def ping(self) -> None:
        """Access the repository with few retries, so that a wrong setting is reported quickly.

        Raises RepositoryNotFound, RepositoryDenied, RepositoryUnavailable or UsageError.
        """
        ...

    def now(self, *, probe: str) -> datetime:
        """Return the store's own time. It may write and delete an object with the key `probe`.

        If possible it writes nothing, since a store that is full must still be able to delete.
        """
        ...

    def put(self, key: str, body: Iterable[bytes], *, size: int, options: PutOptions) -> None:
        """Store an object of `size` bytes from chunks. Memory use does not depend on the size."""
        ...

    def put_small(self, key: str, body: bytes, *, options: PutOptions) -> None:
        """Store a small object, replacing an existing one."""
        ...

    def create(self, key: str, body: bytes, *, options: PutOptions) -> None:
        """Store a small object. Raises ObjectExists if the key exists."""
        ...

    def get(self, key: str, *, limit: int) -> bytes:
        """Return a whole object; raise RepositoryUnavailable if it has over `limit` bytes."""
        ...

    def stream(self, key: str) -> Iterator[bytes]:
        """Yield an object in chunks."""
        ...

    def head(self, key: str) -> ObjectInfo:
        """Return size and LastModified."""
        ...

    def list(self, folder: str = "") -> Iterator[ObjectInfo]:
        """Yield every object below `folder` (no trailing slash; empty for all), sorted by key."""
        ...

    def list_folders(self) -> Sequence[str]:
        """Return the names of the folders directly below the root, sorted.

        One that cannot be listed itself is included. One that has just become empty may be:
        SeaweedFS keeps it for a while.
        """
        ...

    def list_files(self, folder: str) -> Sequence[ObjectInfo]:
        """Return the objects directly in `folder`, not in its subfolders, sorted by key."""
        ...

    def copy(self, source: str, target: str, *, size: int, options: PutOptions) -> None:
        """Copy an object inside the store. The target gets `options`, not those of the source."""
        ...

    def delete(self, keys: Sequence[str]) -> None:
        """Delete objects. If some cannot be deleted, try all of them, then raise."""
        ...

    def remove_unfinished(self, folders: Iterable[str]) -> None:
        """Remove what killed puts left at the root and in these folders, if listings hide it.

        `folders` are not asked for if there is nothing to remove.
        """
        ...

    def stored_checksum(self, key: str) -> str | None:
        """Return the store's own checksum of the whole object (`name:value`), if it keeps one.

        Objects with equal checksums have equal bytes. None means that the store has no checksum.
        """
        ...


@runtime_checkable
class ExpiringStore(ObjectStore, Protocol):
    """A store that can have rules by which it deletes objects when they are old."""

    def expiry_rules(self, folder: str, *, tags: Mapping[str, str]) -> Sequence[ExpiryRule]:
        """Return the rules for objects below `folder` that have these tags, some of them, or none.

        Raises RepositoryDenied or RepositoryUnavailable if the rules cannot be read.
        """
        ...


@runtime_checkable
class AdaptableStore(ObjectStore, Protocol):
    """A store of a kind with many implementations, some of which lack features."""

    @property
    def adaptations(self) -> Sequence[str]:
        """Return the settings, as `NAME=value`, that would go without a feature now in use."""
        ...

    def adapted(self, settings: Collection[str]) -> "ObjectStore":
        """Return the same store with some of these settings; others are ignored."""
        ...

    @property
    def deletes_in_bulk(self) -> bool:
        """Return False once the store has refused to delete several objects with one request."""
        ...


def exists(store: ObjectStore, key: str) -> bool:
    """Return whether there is an object. A failed request is an error, not absence."""
    try:
        store.head(key)
    except ObjectNotFound:
        return False
    return True


def delete_in_order(store: ObjectStore, keys: Sequence[str]) -> None:
    """Delete any number of objects: each batch once the one before is deleted."""
    for start in range(0, len(keys), _BATCH):
        store.delete(keys[start : start + _BATCH])
