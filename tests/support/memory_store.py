"""A store in memory: the contract in its simplest form."""

import threading
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from prometheus_backup.clock import Clock, SystemClock
from prometheus_backup.errors import ObjectExists, ObjectNotFound, RepositoryUnavailable
from prometheus_backup.model import ObjectInfo, PutOptions


@dataclass(frozen=True, slots=True)
class _Stored:
    body: bytes
    modified: datetime
    options: PutOptions
    version: str = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "version", f"{zlib.crc32(self.body):08x}")

    def info(self, key: str) -> ObjectInfo:
        """Return what a listing says of it."""
        return ObjectInfo(key, len(self.body), self.modified, self.version)


class MemoryStore:
    """Objects in a dictionary; LastModified from the clock it is given."""

    def __init__(self, *, clock: Clock | None = None) -> None:
        self._objects: dict[str, _Stored] = {}
        self._clock = clock or SystemClock()
        self._lock = threading.Lock()

    def copy_all(self, other: "MemoryStore") -> None:
        """Take over all objects of another store, with their times."""
        self._objects = dict(other._objects)

    @property
    def url(self) -> str:
        """Return a name for messages."""
        return "memory:"

    @property
    def keeps_checksums(self) -> bool:
        """Return False: objects have no checksums."""
        return False

    def ping(self) -> None:
        """Do nothing: memory is always available."""

    def now(self, *, probe: str) -> datetime:
        """Return the time of its clock."""
        del probe
        return self._clock.now()

    def put(self, key: str, body: Iterable[bytes], *, size: int, options: PutOptions) -> None:
        """Store an object from chunks."""
        del size
        self.put_small(key, b"".join(body), options=options)

    def put_small(self, key: str, body: bytes, *, options: PutOptions) -> None:
        """Store an object, replacing an existing one."""
        with self._lock:
            self._objects[key] = _Stored(body, self._clock.now(), options)

    def create(self, key: str, body: bytes, *, options: PutOptions) -> None:
        """Store an object if the key is free."""
        with self._lock:
            if key in self._objects:
                raise ObjectExists(f"cannot create {key}: it exists")
            self._objects[key] = _Stored(body, self._clock.now(), options)

    def get(self, key: str, *, limit: int) -> bytes:
        """Return a whole object."""
        body = self._stored(key).body
        if len(body) > limit:
            raise RepositoryUnavailable(f"cannot read {key}: larger than {limit:,} bytes")
        return body

    def stream(self, key: str) -> Iterator[bytes]:
        """Yield an object in chunks."""
        body = self._stored(key).body
        for start in range(0, len(body), 1 << 20):
            yield body[start : start + (1 << 20)]

    def head(self, key: str) -> ObjectInfo:
        """Return size and LastModified."""
        stored = self._stored(key)
        return stored.info(key)

    def list(self, folder: str = "") -> Iterator[ObjectInfo]:
        """Yield every object below `folder`."""
        start = f"{folder}/" if folder else ""
        with self._lock:
            items = sorted((k, v) for k, v in self._objects.items() if k.startswith(start))
        for key, stored in items:
            yield stored.info(key)

    def list_folders(self) -> Sequence[str]:
        """Return the names of the folders directly below the root."""
        with self._lock:
            return sorted({k.partition("/")[0] for k in self._objects if "/" in k})

    def list_files(self, folder: str) -> Sequence[ObjectInfo]:
        """Return the objects directly in `folder`."""
        return [o for o in self.list(folder) if "/" not in o.key[len(folder) + 1 :]]

    def copy(self, source: str, target: str, *, size: int, options: PutOptions) -> None:
        """Copy an object."""
        del size
        self.put_small(target, self._stored(source).body, options=options)

    def delete(self, keys: Sequence[str]) -> None:
        """Delete objects."""
        with self._lock:
            for key in keys:
                self._objects.pop(key, None)

    def remove_unfinished(self, folders: Iterable[str]) -> None:
        """Do nothing: a put is complete at once."""

    def stored_checksum(self, key: str) -> str | None:
        """Return None: objects have no checksums."""
        self._stored(key)
        return None

    def options(self, key: str) -> PutOptions:
        """Return the options that an object was put with."""
        return self._stored(key).options

    def _stored(self, key: str) -> _Stored:
        with self._lock:
            try:
                return self._objects[key]
            except KeyError:
                raise ObjectNotFound(f"cannot find {key}: no such object") from None
