"""Wrappers around a store that record, fail or delay operations."""

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import datetime

from prometheus_backup.model import ObjectInfo, PutOptions
from prometheus_backup.stores.base import ObjectStore


class StoreWrapper:
    """Forwards everything to another store; subclasses override single methods."""

    def __init__(self, store: ObjectStore) -> None:
        self.inner = store

    @property
    def url(self) -> str:
        return self.inner.url

    @property
    def keeps_checksums(self) -> bool:
        return self.inner.keeps_checksums

    def ping(self) -> None:
        self.inner.ping()

    def now(self, *, probe: str) -> datetime:
        return self.inner.now(probe=probe)

    def put(self, key: str, body: Iterable[bytes], *, size: int, options: PutOptions) -> None:
        self.inner.put(key, body, size=size, options=options)

    def put_small(self, key: str, body: bytes, *, options: PutOptions) -> None:
        self.inner.put_small(key, body, options=options)

    def create(self, key: str, body: bytes, *, options: PutOptions) -> None:
        self.inner.create(key, body, options=options)

    def get(self, key: str, *, limit: int) -> bytes:
        return self.inner.get(key, limit=limit)

    def stream(self, key: str) -> Iterator[bytes]:
        return self.inner.stream(key)

    def head(self, key: str) -> ObjectInfo:
        return self.inner.head(key)

    def list(self, folder: str = "") -> Iterator[ObjectInfo]:
        return self.inner.list(folder)

    def list_folders(self) -> Sequence[str]:
        return self.inner.list_folders()

    def list_files(self, folder: str) -> Sequence[ObjectInfo]:
        return self.inner.list_files(folder)

    def copy(self, source: str, target: str, *, size: int, options: PutOptions) -> None:
        self.inner.copy(source, target, size=size, options=options)

    def delete(self, keys: Sequence[str]) -> None:
        self.inner.delete(keys)

    def remove_unfinished(self, folders: Iterable[str]) -> None:
        self.inner.remove_unfinished(folders)

    def stored_checksum(self, key: str) -> str | None:
        return self.inner.stored_checksum(key)


class ReadRecorder(StoreWrapper):
    """Records which objects are read. Calls `before` with each key first; it may raise or wait."""

    def __init__(self, store: ObjectStore, *, before: Callable[[str], None] | None = None) -> None:
        super().__init__(store)
        self.read: list[str] = []
        self._before = before
        self._lock = threading.Lock()

    def stream(self, key: str) -> Iterator[bytes]:
        if self._before:
            self._before(key)
        with self._lock:
            self.read.append(key)
        return self.inner.stream(key)


class FlippingStore(StoreWrapper):
    """Flips a bit of each object when it is read for the first time, as a bad cable does."""

    def __init__(self, store: ObjectStore) -> None:
        super().__init__(store)
        self.flipped: set[str] = set()
        self._lock = threading.Lock()

    def stream(self, key: str) -> Iterator[bytes]:
        with self._lock:
            first_time = key not in self.flipped
            self.flipped.add(key)
        for number, chunk in enumerate(self.inner.stream(key)):
            yield bytes([chunk[0] ^ 1]) + chunk[1:] if first_time and not number else chunk
