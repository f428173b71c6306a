"""A store in memory that lists many objects fast, and counts requests and the bytes read."""

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator, Sequence

from prometheus_backup.model import ObjectInfo, PutOptions
from tests.support.memory_store import MemoryStore

_PAGE = 1000
"""Objects of one answer to a listing on S3, which costs one request."""


class CountingStore(MemoryStore):
    """Counts what S3 would count, by kind of request. `bytes_read` are those of whole objects."""

    def __init__(self) -> None:
        super().__init__()
        self._keys: list[str] = []
        self.reset()

    def reset(self) -> None:
        """Begin to count again."""
        self.requests: Counter[str] = Counter()
        self.read: list[str] = []
        self.bytes_read = 0

    def ping(self) -> None:
        """Count a listing."""
        self.requests["list"] += 1

    def put_small(self, key: str, body: bytes, *, options: PutOptions) -> None:
        """Store an object."""
        self.requests["put"] += 1
        self._add(key)
        super().put_small(key, body, options=options)

    def create(self, key: str, body: bytes, *, options: PutOptions) -> None:
        """Store an object if the key is free."""
        self.requests["put"] += 1
        super().create(key, body, options=options)
        self._add(key)

    def get(self, key: str, *, limit: int) -> bytes:
        """Return a whole object."""
        self.requests["get"] += 1
        body = super().get(key, limit=limit)
        self._count(key, len(body))
        return body

    def stream(self, key: str) -> Iterator[bytes]:
        """Yield an object in chunks."""
        self.requests["get"] += 1
        for chunk in super().stream(key):
            self._count(key, len(chunk))
            yield chunk

    def head(self, key: str) -> ObjectInfo:
        """Return size and LastModified."""
        self.requests["head"] += 1
        return super().head(key)

    def list(self, folder: str = "") -> Iterator[ObjectInfo]:
        """Yield every object below `folder`."""
        start = f"{folder}/" if folder else ""
        with self._lock:
            first = bisect_left(self._keys, start)
            last = bisect_left(self._keys, f"{folder}0") if folder else len(self._keys)
            found = [self._objects[key].info(key) for key in self._keys[first:last]]
        self._count_pages(len(found))
        yield from found

    def list_folders(self) -> Sequence[str]:
        """Return the names of the folders directly below the root."""
        folders = []
        with self._lock:
            place = 0
            while place < len(self._keys):
                folder, slash, _ = self._keys[place].partition("/")
                folders += [folder] if slash else []
                place = bisect_left(self._keys, f"{folder}0") if slash else place + 1
        self._count_pages(len(folders))
        return folders

    def list_files(self, folder: str) -> Sequence[ObjectInfo]:
        """Return the objects directly in `folder`."""
        files = []
        with self._lock:
            start = f"{folder}/"
            place, end = bisect_left(self._keys, start), bisect_left(self._keys, f"{folder}0")
            while place < end:
                key = self._keys[place]
                name, slash, _ = key[len(start) :].partition("/")
                files += [] if slash else [self._objects[key].info(key)]
                place = bisect_left(self._keys, f"{start}{name}0") if slash else place + 1
        self._count_pages(len(files))
        return files

    def delete(self, keys: Sequence[str]) -> None:
        """Delete objects."""
        self.requests["delete"] += -(-len(keys) // _PAGE)
        super().delete(keys)
        with self._lock:
            for key in keys:
                place = bisect_left(self._keys, key)
                if self._keys[place : place + 1] == [key]:
                    del self._keys[place]

    def _add(self, key: str) -> None:
        with self._lock:
            place = bisect_left(self._keys, key)
            if self._keys[place : place + 1] != [key]:
                self._keys.insert(place, key)

    def _count(self, key: str, size: int) -> None:
        with self._lock:
            self.read.append(key)
            self.bytes_read += size

    def _count_pages(self, entries: int) -> None:
        self.requests["list"] += max(1, -(-entries // _PAGE))
