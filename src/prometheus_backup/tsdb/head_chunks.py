"""Find damaged chunks in a file of `chunks_head`, where Prometheus keeps full chunks of the head.

After the header of the file, each chunk is `series | first time | last time | encoding |
uvarint length | data | CRC-32C`. Zeros instead of the first three are the end of the file, which is
longer than what is written to it (prometheus tsdb/chunks/head_chunks.go IterateAllChunks).
"""

from dataclasses import dataclass

from prometheus_backup.tsdb.reading import WINDOW, ReadFile, Unsound, crc32c, integer, uvarint

HEADER_SIZE = 8
_META = 8 + 8 + 8 + 1
_LONGEST_LENGTH = 5
_CRC = 4
_SHORTEST = _META + _LONGEST_LENGTH + _CRC


@dataclass(frozen=True, slots=True)
class ChunkFileReport:
    """The first damage of a file: at which offset, and what it is; "" if there is none.

    `hides`: Prometheus takes the damage for the end of the file, although data follows. `chunks` is
    the number of sound chunks before it.
    """

    chunks: int
    at: int = 0
    cause: str = ""
    hides: bool = False


def scan_chunk_file(file: ReadFile) -> ChunkFileReport:
    """Read a file until its first damage. Raises OSError."""
    at, chunks = HEADER_SIZE, 0
    while at + _SHORTEST <= file.size:
        head = file.some(at, _SHORTEST)
        if not any(head[: _META - 1]):
            if _is_zero(file, at):
                break
            return ChunkFileReport(chunks, at, "zeros where a chunk should begin", hides=True)
        try:
            length, body = uvarint(head, _META)
            stop = at + body + length
            checksum = integer(file.exactly(stop, _CRC))
        except Unsound:
            return _damage(file, chunks, at, file.size)
        found = crc32c(file.some(at, stop - at)) if stop - at <= WINDOW else file.crc(at, stop - at)
        if found != checksum:
            return _damage(file, chunks, at, stop + _CRC)
        chunks, at = chunks + 1, stop + _CRC
    return ChunkFileReport(chunks)


def _damage(file: ReadFile, chunks: int, at: int, stop: int) -> ChunkFileReport:
    """Return the damage of a chunk, unless it is the last one: a crash leaves such a chunk."""
    if _is_zero(file, stop):
        return ChunkFileReport(chunks)
    return ChunkFileReport(chunks, at, "invalid checksum of a chunk")


def _is_zero(file: ReadFile, at: int) -> bool:
    """Return whether only zeros follow."""
    return all(not file.window(begin).strip(b"\0") for begin in range(at, file.size, WINDOW))
