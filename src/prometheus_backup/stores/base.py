"""The contract of an object store. tests/stores/ holds every store to it."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Protocol

from prometheus_backup.model import ObjectInfo, PutOptions


class ObjectStore(Protocol):
    """Objects under keys, below one repository's root.

    Keys are relative: `/`-separated, without a leading or trailing slash. A store promises:

    - A put is atomic: readers see the whole object, or what was there before. A put that fails, or
      is killed, leaves nothing to be seen.
    - What was put is there for the next get, head and list, by anyone.
    - Listings are sorted by key, bytewise, and complete.
    - get, stream, head and copy of an absent key raise ObjectNotFound; absence is never guessed
      from another failure. Delete of an absent key is silent.
    - Only `create` may raise ObjectExists; it does so also when its own earlier attempt won and the
      answer was lost, so callers look at what is there.
    - Other failures are RepositoryNotFound (no bucket), RepositoryDenied, RepositoryUnavailable.
    - Passing failures are retried inside, and nowhere else.
    - Calls may come from several threads at once.
    """

    @property
    def url(self) -> str:
        """Return the repository's address, without secrets, for messages."""
        ...

    @property
    def keeps_checksums(self) -> bool:
        """Tell whether what is put here gets a checksum that `stored_checksum` returns."""
        ...

    def ping(self) -> None:
        """Look at the repository once, impatiently, so that a wrong setting shows at once.

        Raises RepositoryNotFound, RepositoryDenied, RepositoryUnavailable or UsageError.
        """
        ...

    def put(self, key: str, body: Iterable[bytes], *, size: int, options: PutOptions) -> None:
        """Store an object of `size` bytes from chunks; memory use does not grow with size."""
        ...

    def put_small(self, key: str, body: bytes, *, options: PutOptions) -> None:
        """Store a small object, replacing what was there."""
        ...

    def create(self, key: str, body: bytes, *, options: PutOptions) -> None:
        """Store a small object if the key is free. Raises ObjectExists if it is not."""
        ...

    def get(self, key: str, *, limit: int) -> bytes:
        """Return an object whole; raise RepositoryUnavailable if it has over `limit` bytes."""
        ...

    def stream(self, key: str) -> Iterator[bytes]:
        """Yield an object in chunks."""
        ...

    def head(self, key: str) -> ObjectInfo:
        """Return size and LastModified."""
        ...

    def list(self, folder: str = "") -> Iterator[ObjectInfo]:
        """Yield every object below `folder` (no slash at its end; empty: all), sorted by key."""
        ...

    def list_folders(self) -> Sequence[str]:
        """Return the names of the folders directly below the root, sorted.

        One that was emptied a moment ago may be among them: SeaweedFS keeps it for a while.
        """
        ...

    def list_files(self, folder: str) -> Sequence[ObjectInfo]:
        """Return the objects directly in `folder`, not below it, sorted by key."""
        ...

    def copy(self, source: str, target: str, *, size: int, options: PutOptions) -> None:
        """Copy an object inside the store; the target carries `options`, not the source's."""
        ...

    def delete(self, keys: Sequence[str]) -> None:
        """Delete objects. Raises after all were tried if some could not be deleted."""
        ...

    def stored_checksum(self, key: str) -> str | None:
        """Return the store's own checksum of the whole object (`name:value`), if it keeps one.

        Two objects whose checksums are equal hold equal bytes. None says nothing.
        """
        ...
