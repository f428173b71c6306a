"""Check a block's tombstones, read and write them.

They are `magic | version | (uvarint series, varint from, varint to)... | CRC-32C`.
The checksum is of the entries alone (prometheus tsdb/tombstones/tombstones.go).
"""

from collections.abc import Iterable, Iterator
from pathlib import Path

from prometheus_backup.tsdb.faults import FaultKind, FaultLog
from prometheus_backup.tsdb.reading import Unsound, crc32c, u32, uvarint, varint

FILE = "tombstones"
_HEADER = b"\x01\x30\xba\x30\x01"
_CHECKSUM = 4


def check_tombstones(block: Path, log: FaultLog) -> int | None:
    """Return how many intervals are deleted; None, and a fault, where that cannot be told.

    Raises OSError.
    """
    try:
        data = (block / FILE).read_bytes()
    except FileNotFoundError:
        log.add(FaultKind.TOMBSTONES_MISSING, FILE, "the file is not there")
        return None
    if len(data) < len(_HEADER) + _CHECKSUM:
        detail = f"{len(data)} bytes are too few for tombstones"
        log.add(FaultKind.TOMBSTONES_CORRUPT, FILE, detail)
        return None
    if data[: len(_HEADER)] != _HEADER:
        detail = f"its magic number and version are {data[: len(_HEADER)].hex()}"
        log.add(FaultKind.TOMBSTONES_CORRUPT, FILE, detail, offset=0)
        return None
    entries = data[len(_HEADER) : -_CHECKSUM]
    if crc32c(entries) != u32(data, len(data) - _CHECKSUM)[0]:
        log.add(FaultKind.TOMBSTONES_CORRUPT, FILE, "invalid checksum", offset=len(_HEADER))
        return None
    try:
        return sum(1 for _ in _intervals(entries))
    except Unsound as error:
        log.add(FaultKind.TOMBSTONES_CORRUPT, FILE, f"{error}: an entry", offset=len(_HEADER))
        return None


def read_intervals(block: Path) -> tuple[bytes, ...]:
    """Return the intervals that are deleted from a block with sound tombstones, as they are stored.

    Raises OSError.
    """
    return tuple(_intervals((block / FILE).read_bytes()[len(_HEADER) : -_CHECKSUM]))


def tombstones_of(intervals: Iterable[bytes]) -> bytes:
    """Return the file that deletes these intervals."""
    entries = b"".join(intervals)
    checksum: bytes = crc32c(entries).to_bytes(_CHECKSUM, "big")
    return _HEADER + entries + checksum


def _intervals(entries: bytes) -> Iterator[bytes]:
    at = 0
    while at < len(entries):
        start = at
        _, at = uvarint(entries, at)
        begin, at = varint(entries, at)
        end, at = varint(entries, at)
        if begin > end:
            raise Unsound("it ends before it begins")
        yield entries[start:at]
