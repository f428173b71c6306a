"""Check, read and write a block's tombstones.

The file is `magic | version | (uvarint series, varint from, varint to)... | CRC-32C`.
The checksum is of the entries alone (prometheus tsdb/tombstones/tombstones.go).
"""

from collections.abc import Iterable, Iterator
from pathlib import Path

from prometheus_backup.model import counted
from prometheus_backup.tsdb.faults import FaultKind, FaultLog
from prometheus_backup.tsdb.reading import (
    WINDOW,
    ReadFile,
    Unsound,
    crc32c,
    integer,
    uvarint,
    varint,
)

FILE = "tombstones"
_HEADER = b"\x01\x30\xba\x30\x01"
_CHECKSUM = 4
_LONGEST_ENTRY = 30


def check_tombstones(block: Path, log: FaultLog) -> int | None:
    """Return the number of deleted intervals. If it is not sound, log a fault and return None.

    Raises OSError.
    """
    try:
        file = ReadFile(block / FILE)
    except FileNotFoundError:
        log.add(FaultKind.TOMBSTONES_MISSING, FILE, "the file is missing")
        return None
    with file:
        try:
            _require_sound(file)
            return sum(1 for _ in _intervals(file))
        except Unsound as error:
            log.add(FaultKind.TOMBSTONES_CORRUPT, FILE, str(error))
            return None


def read_intervals(block: Path) -> tuple[bytes, ...]:
    """Return the deleted intervals of a block with sound tombstones, as they are stored.

    Raises OSError.
    """
    with ReadFile(block / FILE) as file:
        return tuple(_intervals(file))


def deleted_times(block: Path) -> tuple[int, int] | None:
    """Return the first and last deleted millisecond of a block; None if nothing is deleted.

    Raises OSError, and Unsound if the file is damaged.
    """
    times = [_times(interval) for interval in read_intervals(block)]
    return (min(t[0] for t in times), max(t[1] for t in times)) if times else None


def tombstones_of(intervals: Iterable[bytes]) -> bytes:
    """Return the file that deletes these intervals."""
    entries = b"".join(intervals)
    return _HEADER + entries + crc32c(entries).to_bytes(_CHECKSUM, "big")


def _times(interval: bytes) -> tuple[int, int]:
    _, at = uvarint(interval, 0)
    begin, at = varint(interval, at)
    return begin, varint(interval, at)[0]


def _require_sound(file: ReadFile) -> None:
    header, end = file.window(0, len(_HEADER)), file.size - _CHECKSUM
    if end < len(_HEADER):
        raise Unsound(f"it has {counted(file.size, 'byte')}, too few for tombstones")
    if header != _HEADER:
        raise Unsound(f"its magic number and version are {header.hex()}")
    if file.crc(len(_HEADER), end - len(_HEADER)) != integer(file.exactly(end, _CHECKSUM)):
        raise Unsound("invalid checksum")


def _intervals(file: ReadFile) -> Iterator[bytes]:
    """Yield the entries, in windows. Raises Unsound."""
    position, end = len(_HEADER), file.size - _CHECKSUM
    while position < end:
        buf, at = file.window(position, min(WINDOW, end - position)), 0
        limit = len(buf) if position + len(buf) == end else len(buf) - _LONGEST_ENTRY
        while at < limit:
            start = at
            _, at = uvarint(buf, at)
            begin, at = varint(buf, at)
            last, at = varint(buf, at)
            if begin > last:
                raise Unsound("an interval ends before it begins")
            yield buf[start:at]
        position += at
