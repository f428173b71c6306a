"""Memory stores for tests: one that records requests, and others that each have one fault."""

import hashlib
import threading
from collections.abc import Callable, Iterable

from prometheus_backup.errors import RepositoryUnavailable
from prometheus_backup.model import PutOptions
from tests.support.memory_store import MemoryStore


class RecordingStore(MemoryStore):
    """Records the keys of uploads and the sources of copies."""

    def __init__(self) -> None:
        super().__init__()
        self.puts: list[str] = []
        self.copied_from: list[str] = []

    def put(self, key: str, body: Iterable[bytes], *, size: int, options: PutOptions) -> None:
        self.puts.append(key)
        super().put(key, body, size=size, options=options)

    def copy(self, source: str, target: str, *, size: int, options: PutOptions) -> None:
        self.copied_from.append(source)
        super().copy(source, target, size=size, options=options)


class DamagingStore(RecordingStore):
    """Damages the first `times` uploads whose keys end in `ending`."""

    def __init__(self, damage: Callable[[bytes], bytes], *, ending: str, times: int) -> None:
        super().__init__()
        self._damage = damage
        self._ending = ending
        self.times = times
        self._counting = threading.Lock()

    def put(self, key: str, body: Iterable[bytes], *, size: int, options: PutOptions) -> None:
        sent = b"".join(body)
        with self._counting:
            damaged = key.endswith(self._ending) and self.times > 0
            self.times -= damaged
        if damaged:
            sent = self._damage(sent)
        super().put(key, [sent], size=size, options=options)


class CannotCopyStore(RecordingStore):
    """Refuses to copy, like some S3-compatible stores."""

    def copy(self, source: str, target: str, *, size: int, options: PutOptions) -> None:
        del target, size, options
        raise RepositoryUnavailable(f"cannot copy {source}: 501 NotImplemented")


class DamagingCopyStore(RecordingStore):
    """Keeps checksums like AWS, and flips a bit when it copies an index."""

    def copy(self, source: str, target: str, *, size: int, options: PutOptions) -> None:
        super().copy(source, target, size=size, options=options)
        if target.endswith("/index"):
            self.put_small(target, flip_a_bit(self.get(target, limit=1 << 30)), options=options)

    def stored_checksum(self, key: str) -> str | None:
        return f"SHA256:{hashlib.sha256(b''.join(self.stream(key))).hexdigest()}"


def flip_a_bit(body: bytes) -> bytes:
    """Flip one bit in the middle."""
    middle = len(body) // 2
    return body[:middle] + bytes([body[middle] ^ 1]) + body[middle + 1 :]


def truncate(body: bytes) -> bytes:
    """Remove the last byte."""
    return body[:-1]
