"""Check the postings of an index: for each label pair, the list of series with that pair.

A list is `u32 length | u32 count | u32 series... | CRC-32C`, where a series is its offset / 16. The
table `u32 count | (2, name, value, offset)...` gives the offset of each list. The first one, of the
pair ("", ""), is the list of all series (prometheus tsdb/index/index.go writePosting,
writePostingsOffsetTable).
"""

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import NamedTuple

import numpy as np

from prometheus_backup.tsdb.faults import FaultKind
from prometheus_backup.tsdb.index import SERIES_ALIGNMENT, Index, Toc
from prometheus_backup.tsdb.reading import (
    WINDOW,
    ReadFile,
    Unsound,
    aligned,
    crc32c,
    integer,
    uvarint,
)
from prometheus_backup.tsdb.varints import Ints, first_false, groups_before_false, ranges

_KIND = FaultKind.INDEX_POSTINGS
_ALL = (b"", b"")
_AT_ONCE = 1 << 12
"""Entries of the table whose lists are checked together at most."""
_LAST_LIST = 1 << 10
"""Bytes to read for the last list of these, whose length is not known yet."""


class Entry(NamedTuple):
    """One entry of the table: a label pair, and the offset of its list."""

    pair: tuple[bytes, bytes]
    offset: int

    def __str__(self) -> str:
        if self.pair == _ALL:
            return "all series"
        name, value = (text.decode(errors="replace") for text in self.pair)
        return f"the postings of {name}={value!r}"


class AllSeries:
    """The list of all series, which is read as needed and not kept in memory."""

    def __init__(self, index: Index, start: int, count: int) -> None:
        self._index = index
        self._start = start
        self._count = count
        self._compared = 0
        self._differs = False

    def compare(self, offsets: Sequence[int] | Ints) -> None:
        """Compare the next series with these offsets in the index; log the first difference."""
        if self._differs:
            return
        found = self._references(self._compared, len(offsets))
        if not np.array_equal(found, np.asarray(offsets) // SERIES_ALIGNMENT):
            self._differs = True
            detail = "the list of all series differs from the series in the index"
            self._index.fault(_KIND, detail, self._start + 4 * self._compared)
        self._compared += len(offsets)

    def end(self) -> None:
        """Log a fault if the list has more series than were compared."""
        if not self._differs and self._compared != self._count:
            detail = f"the list of all series has {self._count:,}, the index {self._compared:,}"
            self._index.fault(_KIND, detail, self._start)

    def next_after(self, offset: int) -> int | None:
        """Return the offset of the next series after an offset, None if there is none."""
        low, high = 0, self._count
        while low < high:
            middle = (low + high) // 2
            if int(self._references(middle, 1)[0]) * SERIES_ALIGNMENT > offset:
                high = middle
            else:
                low = middle + 1
        return int(self._references(low, 1)[0]) * SERIES_ALIGNMENT if low < self._count else None

    def _references(self, first: int, count: int) -> Ints:
        count = min(count, self._count - first)
        return _references(self._index.file, self._start + 4 * first, count)


class Postings:
    """The postings of an open index.

    Two sums show that the lists contain the right series: the number of series in all lists but the
    first, and the sum of their references. The series entries give the expected sums. A list of
    another index would change both.
    """

    def __init__(self, index: Index, toc: Toc) -> None:
        self._found = [0, 0]
        self._expected = [0, 0]
        self._index = index
        self._file = index.file
        self._toc = toc
        self._table: tuple[int, int] | None = None

    def check_table(self) -> bool:
        """Check the checksum of the table."""
        toc = self._toc
        self._table = self._index.section(
            toc.postings_table, toc.end, FaultKind.INDEX_POSTINGS_TABLE, "the postings table"
        )
        return self._table is not None

    def all_series(self) -> AllSeries | None:
        """Return the list of all series. If it is not sound, log a fault and return None."""
        first = next(self._entries(), None)
        detail = "the postings table does not begin with the list of all series"
        if first and first.pair == _ALL:
            try:
                count = self._check_list(first)
            except Unsound as error:
                detail = f"{error}: all series"
            else:
                return AllSeries(self._index, first.offset + 8, count)
        self._index.fault(_KIND, detail, first.offset if first else None)
        return None

    def expect(self, labels: Ints, offsets: Ints) -> None:
        """Add series that were read to the expected sums: number of labels and offset of each."""
        self._expected[0] += int(labels.sum())
        self._expected[1] += int((labels * (offsets // SERIES_ALIGNMENT)).sum())

    def check_lists(self, *, complete: bool) -> None:
        """Check every list, and that they fill the section; `complete`: all series were read."""
        toc = self._toc
        position = aligned(toc.postings, 4)
        self._index.padding(toc.postings, min(position, toc.label_table), "the label indices")
        self._found = [0, 0]
        sound = True
        last = _ALL
        entries = self._entries()
        while some := list(islice(entries, _AT_ONCE)):
            for entry in some:
                if entry.pair != _ALL and entry.pair <= last:
                    detail = f"{entry} are not sorted after the ones before"
                    self._index.fault(FaultKind.INDEX_POSTINGS_TABLE, detail, entry.offset)
                last = entry.pair
            at = 0
            while at < len(some):
                count, position = self._check_many(some[at:], position)
                at += count
                if not count:
                    well, position = self._check_one(some[at], position)
                    sound = sound and well
                    at += 1
        self._index.padding(min(position, toc.label_table), toc.label_table, "the postings")
        if complete and sound and self._found != self._expected:
            detail = "the postings do not match the labels of the series"
            self._index.fault(_KIND, detail, toc.postings)

    def check_label_indices(self) -> None:
        """Check what only Prometheus 2 writes, and nothing reads any more."""
        toc, kind = self._toc, FaultKind.INDEX_LABEL_INDICES
        position = aligned(toc.label_indices, 4)
        self._index.padding(toc.label_indices, min(position, toc.postings), "the series")
        while position + 8 <= toc.postings:
            try:
                _, stop = self._file.section(position, toc.postings)
            except Unsound as error:
                self._index.fault(kind, f"{error}: a label index", position)
                break
            following = min(aligned(stop + 4, 4), toc.postings)
            self._index.padding(stop + 4, following, "a label index")
            position = following
        if toc.label_table < toc.postings_table:
            self._index.section(toc.label_table, toc.postings_table, kind, "the label index table")

    def _check_many(self, entries: Sequence[Entry], position: int) -> tuple[int, int]:
        """Check lists within a window, up to one that is incomplete or has a fault.

        Return how many were checked, and where the last of them ends.
        """
        base = entries[0].offset
        if entries[0].pair == _ALL or base != position:
            return 0, position
        size = min(WINDOW, entries[-1].offset - base + _LAST_LIST, self._toc.label_table - base)
        buf = self._file.window(base, size)
        words = np.frombuffer(buf, ">u4", len(buf) // 4).astype(np.int64)
        offsets = np.fromiter((entry.offset for entry in entries), np.int64, len(entries)) - base
        starts = offsets // 4
        starts = starts[: first_false((starts >= 0) & (starts < len(words) - 1))]
        counts = words[starts + 1]
        stops = starts + 2 + counts  # where the checksum is
        following = np.concatenate(([0], 4 * stops + 4))
        regular = (
            (offsets[: len(starts)] == following[:-1])
            & (words[starts] == 4 + 4 * counts)
            & (stops < len(words))
        )
        count = first_false(regular)
        starts, counts, stops = starts[:count], counts[:count], stops[:count]
        bodies = zip((4 * starts + 4).tolist(), (4 * stops).tolist(), strict=True)
        checksums = np.array([crc32c(buf[begin:stop]) for begin, stop in bodies], np.int64)
        series, ends = words[ranges(starts + 2, counts)], np.cumsum(counts)
        sorted_ = np.ones(len(series), np.bool_)
        sorted_[1:] = series[1:] >= series[:-1]
        sorted_[(ends - counts)[counts > 0]] = True  # the first of a list
        count = min(first_false(checksums == words[stops]), groups_before_false(sorted_, ends))
        total = int(ends[count - 1]) if count else 0
        self._found[0] += total
        self._found[1] += int(series[:total].sum())
        return count, base + int(following[count])

    def _check_one(self, entry: Entry, position: int) -> tuple[bool, int]:
        """Check one list and report what is wrong with it.

        Return whether it is sound, and where it ends.
        """
        if entry.offset != position:
            detail = f"{entry} begin at {entry.offset:,}, not at the end of the ones before"
            self._index.fault(_KIND, detail, position)
        try:
            return True, entry.offset + 12 + 4 * self._check_list(entry)
        except Unsound as error:
            if entry.pair != _ALL:  # already reported
                self._index.fault(_KIND, f"{error}: {entry}", entry.offset)
        try:
            count = integer(self._file.exactly(entry.offset + 4, 4))
        except Unsound:
            count = 0
        return False, entry.offset + 12 + 4 * count

    def _entries(self) -> Iterator[Entry]:
        """Yield the entries of the table, whose checksum is known to be right."""
        assert self._table is not None, "check_table() comes first"  # noqa: S101 -- for the types
        position, end = self._table
        count = integer(self._file.exactly(position, 4))
        position += 4
        buf, base = b"", position
        for _ in range(count):
            try:
                entry, stop = _entry(buf, position - base)
            except Unsound:
                try:
                    buf, entry, stop = self._read_entry(position, end)
                except Unsound:
                    detail = "the postings table has fewer entries than its count"
                    self._index.fault(FaultKind.INDEX_POSTINGS_TABLE, detail, position)
                    return
                base = position
            position = base + stop
            yield entry
        if position != end:
            detail = "the postings table has bytes after its last entry"
            self._index.fault(FaultKind.INDEX_POSTINGS_TABLE, detail, position)

    def _read_entry(self, position: int, end: int) -> tuple[bytes, Entry, int]:
        """Read a window that begins with an entry. It grows until the entry fits: label values may
        be of any length. Raises Unsound.
        """
        size = WINDOW
        while True:
            buf = self._file.window(position, min(size, end - position))
            try:
                return buf, *_entry(buf, 0)
            except Unsound:
                if len(buf) < size:
                    raise
            size *= 4

    def _check_list(self, entry: Entry) -> int:
        """Check one list and return its count. Raises Unsound, with the cause if any."""
        toc, file = self._toc, self._file
        offset = entry.offset
        if not toc.postings <= offset <= toc.label_table - 12:
            raise Unsound("wrong offset")
        body, stop = file.section(offset, toc.label_table)
        count = integer(file.exactly(body, 4))
        if stop - body != 4 + 4 * count:
            raise Unsound("wrong count")
        last = 0
        for first in range(0, count, WINDOW // 4):
            some = _references(file, offset + 8 + 4 * first, min(WINDOW // 4, count - first))
            if some[0] < last or (some[1:] < some[:-1]).any():
                raise Unsound("not in order")
            last = some[-1]
            if entry.pair != _ALL:
                self._found[0] += len(some)
                self._found[1] += int(some.sum())
        return count


_KEYS = 2


def _entry(buf: bytes, at: int) -> tuple[Entry, int]:
    if at >= len(buf) or buf[at] != _KEYS:
        raise Unsound
    name, at = _text(buf, at + 1)
    value, at = _text(buf, at)
    offset, at = uvarint(buf, at)
    return Entry((name, value), offset), at


def _text(buf: bytes, at: int) -> tuple[bytes, int]:
    length, start = uvarint(buf, at)
    if start + length > len(buf):
        raise Unsound
    return buf[start : start + length], start + length


def _references(file: ReadFile, offset: int, count: int) -> Ints:
    return np.frombuffer(file.exactly(offset, 4 * count), ">u4").astype(np.int64)
