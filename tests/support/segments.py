"""Writes segments of a write-ahead log, as Prometheus does (tsdb/wlog/wlog.go log)."""

from collections.abc import Iterable, Sequence

import google_crc32c

PAGE = 1 << 15
FULL, FIRST, MIDDLE, LAST = 1, 2, 3, 4
SNAPPY, ZSTD = 8, 16


def segment(records: Iterable[bytes], *, flags: int = 0) -> bytes:
    """A segment of these records, which are compressed as the flags say."""
    data = bytearray()
    for record in records:
        data += _fragments(record, flags, len(data))
    return bytes(data)


def _fragments(record: bytes, flags: int, at: int) -> bytes:
    written = bytearray()
    first = True
    while True:
        room = PAGE - (at + len(written)) % PAGE
        if room < 7:
            written += bytes(room)
            continue
        part, record = record[: room - 7], record[room - 7 :]
        kind = (FULL if first else LAST) if not record else (FIRST if first else MIDDLE)
        written += fragment(kind | flags, part)
        first = False
        if not record:
            return bytes(written)


def fragment(kind: int, data: bytes) -> bytes:
    """One fragment of a record with its header."""
    return bytes([kind]) + len(data).to_bytes(2, "big") + checksum(data) + data


def checksum(data: bytes) -> bytes:
    """The CRC-32C of bytes, as it is stored."""
    return int(google_crc32c.value(data)).to_bytes(4, "big")


def parts(data: bytes) -> Sequence[tuple[int, bytes]]:
    """The type and data of each fragment, as Prometheus' reader takes them; asserts that it can."""
    data += bytes(-len(data) % PAGE)
    found, at = [], 0
    while at < len(data):
        kind = data[at] & 7
        if kind == 0:
            end = -(-(at + 1) // PAGE) * PAGE
            assert not data[at:end].strip(b"\0")
            at = end
            continue
        body = at + 7
        end = body + int.from_bytes(data[at + 1 : at + 3], "big")
        assert checksum(data[body:end]) == data[at + 3 : body]
        found.append((data[at], data[body:end]))
        at = end
    return found


def records(data: bytes) -> list[bytes]:
    """The records that Prometheus reads from a segment, without those of unknown types."""
    found, part = [], b""
    for kind, content in parts(data):
        assert (kind & 7 in (FULL, FIRST)) == (part == b"")
        part += content
        if kind & 7 in (FULL, LAST):
            found.append(part)
            part = b""
    assert not part
    return [record for record in found if record[:1] > b"\0"]
