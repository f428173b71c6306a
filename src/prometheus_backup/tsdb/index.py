"""Check the header, table of contents and symbols of a block's index, and its sections.

Format: prometheus tsdb/docs/format/index.md and tsdb/index/index.go. Series entries are checked in
`series.py`, postings in `postings.py`.
"""

import struct
from array import array
from collections.abc import Iterator
from dataclasses import dataclass

from prometheus_backup.model import counted
from prometheus_backup.tsdb.faults import FaultKind, FaultLog
from prometheus_backup.tsdb.reading import WINDOW, ReadFile, Unsound, crc32c, integer, uvarint

FILE = "index"
_MAGIC = b"\xba\xaa\xd7\x00"
_VERSIONS = (2, 3)
"""Prometheus writes 2, and reads 3 in the same way."""
_OLD_VERSION = 1
_HEADER = 5
_TOC = struct.Struct(">6QI")
SERIES_ALIGNMENT = 16
"""Series entries begin at multiples of it: in postings, a series is its offset / 16, in 32 bits."""
_SPARSE = 1024
"""The offset of every 1024th symbol is kept, to find those after it."""


@dataclass(frozen=True, slots=True)
class Toc:
    """The offsets of the sections, and where the last one ends."""

    symbols: int
    series: int
    label_indices: int
    label_table: int
    postings: int
    postings_table: int
    end: int

    @property
    def in_order(self) -> bool:
        """Return whether the sections are in the order in which Prometheus writes them."""
        return (
            _HEADER
            == self.symbols
            <= self.series
            <= self.label_indices
            <= self.postings
            <= self.label_table
            <= self.postings_table
            <= self.end
        )


class Index:
    """An open index. `symbols` is their number, once `check_symbols` was called."""

    def __init__(self, file: ReadFile, log: FaultLog) -> None:
        self.file = file
        self.log = log
        self.symbols = 0
        self._places = array("Q")

    def read_toc(self) -> Toc | None:
        """Check the header and the table of contents. Return None if the rest is unreadable."""
        size = self.file.size
        if size < _HEADER + _TOC.size:
            self.fault(
                FaultKind.INDEX_TRUNCATED, f"it has {counted(size, 'byte')}, too few for an index"
            )
            return None
        header = self.file.exactly(0, _HEADER)
        if header[:4] != _MAGIC:
            self.fault(FaultKind.INDEX_HEADER, f"its magic number is {header[:4].hex()}", 0)
        if header[4] == _OLD_VERSION:
            detail = "its version is 1, of Prometheus 2.0, which this program cannot read"
            self.fault(FaultKind.UNREADABLE, detail, 4)
            return None
        if header[4] not in _VERSIONS:
            detail = f"its version is {header[4]}, which is unknown, so it was not checked"
            self.fault(FaultKind.INDEX_HEADER, detail, 4)
            return None
        at = size - _TOC.size
        data = self.file.exactly(at, _TOC.size)
        *places, checksum = _TOC.unpack(data)
        if crc32c(data[:-4]) == checksum:
            toc = Toc(*(*places, at))
            if toc.in_order:
                return toc
            self.fault(FaultKind.INDEX_TOC, "its table of contents is not in order", at)
        # With flipped bits, most offsets still lie within the file. In other bytes they do not.
        elif sum(place < at for place in places) >= len(places) - 1:
            self.fault(FaultKind.INDEX_TOC, "invalid checksum of its table of contents", at)
        else:
            self.fault(FaultKind.INDEX_TRUNCATED, "it does not end with a table of contents", at)
        return None

    def check_symbols(self, toc: Toc) -> bool:
        """Check the symbol table: checksum, order, and that it fills its section."""
        body = self.section(toc.symbols, toc.series, FaultKind.INDEX_SYMBOLS, "the symbol table")
        if body is None:
            return False
        try:
            detail = self._walk_symbols(*body)
        except Unsound:
            detail = "a symbol goes beyond the table"
        if detail:
            self.fault(FaultKind.INDEX_SYMBOLS, detail, toc.symbols)
        return not detail

    def _walk_symbols(self, start: int, end: int) -> str:
        count, last, number = integer(self.file.exactly(start, 4)), b"", 0
        for place, text in self._texts(start + 4, end):
            if number and text <= last:
                return f"symbol {number:,} is not after the one before it"
            if not number % _SPARSE:
                self._places.append(place)
            last, number = text, number + 1
        if number != count:
            return f"it contains {number:,} symbols, its header says {count:,}"
        self.symbols = number
        return ""

    def _texts(self, position: int, end: int) -> Iterator[tuple[int, bytes]]:
        """Yield the offset and the bytes of each symbol between two offsets. Raises Unsound."""
        while position < end:
            base, buf, at = position, self.file.window(position, min(WINDOW, end - position)), 0
            limit = len(buf) - 10 if base + len(buf) < end else len(buf)
            while at < limit:
                length, begin = uvarint(buf, at)
                stop = begin + length
                if stop > len(buf):
                    break
                yield base + at, buf[begin:stop]
                at = stop
            position = base + at
            if not at:  # longer than a window, or than the table
                length, begin = uvarint(buf, 0)
                if position + begin + length > end:
                    raise Unsound
                yield position, self.file.exactly(position + begin, length)
                position += begin + length

    def symbol(self, number: int) -> str:
        """Return a symbol. Slow: for messages. Raises Unsound."""
        if number >= self.symbols:
            raise Unsound
        position = self._places[number // _SPARSE]
        for _ in range(number % _SPARSE):
            length, end = uvarint(self.file.some(position, 10), 0)
            position += end + length
        length, end = uvarint(self.file.some(position, 10), 0)
        return self.file.exactly(position + end, length).decode(errors="replace")

    def section(self, start: int, end: int, kind: FaultKind, name: str) -> tuple[int, int] | None:
        """Check a section (length, body, checksum) and that only padding follows up to `end`.

        Return where its body begins and ends; None, and a fault is logged, if it is not sound.
        """
        try:
            body, stop = self.file.section(start, end)
        except Unsound as error:
            self.fault(kind, f"{error}: {name}", start)
            return None
        self.padding(stop + 4, end, name)
        return body, stop

    def padding(self, start: int, end: int, name: str) -> None:
        """Check that there are only zeros, and less than 16, up to the next section."""
        if end - start >= 16:
            detail = f"unknown content: {counted(end - start, 'byte')} after {name}"
            self.fault(FaultKind.PADDING, detail, start)
        elif any(self.file.exactly(start, end - start)):
            self.fault(FaultKind.PADDING, f"the padding after {name} is not zero", start)

    def fault(
        self, kind: FaultKind, detail: str, offset: int | None = None, *, series: str = ""
    ) -> None:
        """Log a fault of the index."""
        self.log.add(kind, FILE, detail, offset=offset, series=series)
