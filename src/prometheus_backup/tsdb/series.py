"""Check the series entries of an index, and hand on where they say that chunks lie.

An entry is `uvarint length | body | CRC-32C`, aligned to 16 bytes. Its body is made of LEB128
numbers only: label count, (name, value) as symbols, chunk count, then for the first chunk time,
duration and reference, for the others time, duration and reference as differences
(prometheus tsdb/index/index.go AddSeries).

Hundreds of thousands of entries a second are read here, so what is regular is read by a loop that
leaves the work to C: a regular expression splits numbers, a dictionary decodes them. What that loop
does not like is looked at again, slowly, to say what is wrong with it.
"""

import json
import re
from bisect import bisect_right
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import accumulate
from operator import lt

from prometheus_backup.tsdb.faults import FaultKind
from prometheus_backup.tsdb.index import Index, Toc
from prometheus_backup.tsdb.postings import AllSeries
from prometheus_backup.tsdb.reading import WINDOW, Unsound, aligned, crc32c, u32, uvarint

ALIGNMENT = 16
"""Entries begin at multiples of it, so that a series is named by its offset / 16 in 32 bits."""
_MAX_ENTRY = 1 << 28
"""Bytes. A length beyond it is taken for a damaged one."""
_LONGEST = 1 << 62
"""Milliseconds. A time step beyond it is a negative one that was written as unsigned."""
_REMEMBERED = 1 << 16
_split = re.compile(rb"[\x80-\xff]*[\x00-\x7f]").findall


class _Numbers(dict[bytes, int]):
    """LEB128 numbers decoded: most of an index are the same few thousand."""

    def __missing__(self, token: bytes) -> int:
        value = 0
        for byte in reversed(token):
            value = value << 7 | byte & 0x7F
        if len(self) >= _REMEMBERED:
            self.clear()
        self[token] = value
        return value


@dataclass(slots=True)
class SeriesBatch:
    """Some entries in a row: offset in the index and number of labels of each, then their chunks.

    `ends` says for each series how many chunks of the batch are its own or of one before it.
    References are segment << 32 | offset, times in TSDB milliseconds, both inclusive.
    """

    offsets: list[int] = field(default_factory=list)
    labels: list[int] = field(default_factory=list)
    ends: list[int] = field(default_factory=list)
    references: list[int] = field(default_factory=list)
    min_times: list[int] = field(default_factory=list)
    max_times: list[int] = field(default_factory=list)

    def series_of(self, chunk: int) -> int:
        """Return the offset of the series that a chunk of the batch belongs to."""
        return self.offsets[bisect_right(self.ends, chunk)]


class SeriesWalk:
    """Reads every entry once, in order. `corrupt` is how many could not be read."""

    def __init__(self, index: Index, toc: Toc, all_series: AllSeries | None) -> None:
        self.corrupt = 0
        self._index = index
        self._start = aligned(toc.series, ALIGNMENT)
        self._symbols_end, self._end = toc.series, toc.label_indices
        self._all = all_series
        self._numbers = _Numbers()
        self._last: list[int] = []
        self._names: list[int] = []

    def batches(self) -> Iterator[SeriesBatch]:
        """Yield the sound entries, a few thousand at a time. Raises OSError."""
        position = stop = self._start
        self._index.padding(self._symbols_end, min(stop, self._end), "the symbol table")
        while position < self._end:
            batch = SeriesBatch()
            buf = self._index.file.window(position, min(WINDOW, self._end - position))
            used = self._regular(buf, position, batch)
            if used:
                position = stop = position + used
            else:
                position, stop = self._irregular(position, batch)
            self._take(batch.offsets)
            if batch.offsets:
                yield batch
        self._index.padding(min(stop, self._end), self._end, "the series")
        if self._all:
            self._all.end()

    def _regular(self, buf: bytes, base: int, batch: SeriesBatch) -> int:
        """Read entries until one is not regular, or not whole; return the bytes that were read.

        One loop, since each call in it would cost as much as the work.
        """
        numbers, crc, split = self._numbers.__getitem__, crc32c, _split
        symbols, last, names = self._index.symbols, self._last, self._names
        position, limit = 0, len(buf) - 2 * ALIGNMENT
        while position < limit:
            length = buf[position]
            start = position + 1
            if length > 0x7F:
                length += (buf[start] << 7) - 0x80
                start += 1
            stop = start + length
            following = stop + 19 & -16
            if following > limit:
                break
            body = buf[start:stop]
            if not body or crc(body) != u32(buf, stop)[0] or any(buf[stop + 4 : following]):
                break
            values = [*map(numbers, split(body))]
            chunks_at = 2 * values[0] + 1
            labels, chunks = values[1:chunks_at], values[chunks_at:]
            if not labels or labels <= last or max(labels) >= symbols:
                break
            if labels[::2] != names:
                if not _ascending(labels[::2]):
                    break
                names = labels[::2]
            if not _place_chunks(chunks, batch):
                break
            last = labels
            batch.offsets.append(base + position)
            batch.labels.append(values[0])
            batch.ends.append(len(batch.references))
            position = following
        self._last, self._names = last, names
        return position

    def _irregular(self, position: int, batch: SeriesBatch) -> tuple[int, int]:
        """Read one entry and say what is wrong with it; return where the next one is looked for,
        and where this one ends.
        """
        index = self._index
        try:
            body, stop = self._entry(position)
        except Unsound as error:
            detail = f"{error}: a series entry"
            index.fault(FaultKind.SERIES_CORRUPT, detail, position)
            return self._skip(position)
        following = aligned(stop, ALIGNMENT)
        if following < self._end and any(index.file.exactly(stop, following - stop)):
            detail = "the padding after a series entry is not zero"
            index.fault(FaultKind.PADDING, detail, stop, series=self.text(position))
        self._decode(position, body, batch)
        return following, stop

    def _entry(self, position: int) -> tuple[bytes, int]:
        file = self._index.file
        length, size = uvarint(file.window(position, 10), 0)
        start, stop = position + size, position + size + length
        if stop + 4 > self._end or length > _MAX_ENTRY:
            raise Unsound("it goes beyond the series")
        body = file.exactly(start, length)
        if crc32c(body) != u32(file.exactly(stop, 4), 0)[0]:
            raise Unsound("invalid checksum")
        return body, stop + 4

    def _skip(self, position: int) -> tuple[int, int]:
        """Go on behind an entry that cannot be read: where the list of all series says."""
        self.corrupt += 1
        self._take([position])
        following = self._all.next_after(position) if self._all else None
        if following is None:
            following = self._end
        return following, following

    def _take(self, offsets: list[int]) -> None:
        if self._all:
            self._all.take(offsets)

    def _decode(self, position: int, body: bytes, batch: SeriesBatch) -> None:
        """Decode an entry whose checksum is right, whatever it holds."""
        values = [*map(self._numbers.__getitem__, _split(body))] if body else [0]
        chunks_at = 2 * values[0] + 1
        labels, chunks = values[1:chunks_at], values[chunks_at:]
        known = bool(labels) and max(labels) < self._index.symbols
        if not known or not chunks or len(chunks) != 3 * chunks[0] + 1:
            self.corrupt += 1
            detail = "a series entry has a right checksum and cannot be decoded"
            self._index.fault(FaultKind.SERIES_CORRUPT, detail, position)
            self._take([position])
            return
        series = self.text(position)
        if labels <= self._last:
            detail = "a series is not after the one before it"
            self._index.fault(FaultKind.SERIES_ORDER, detail, position, series=series)
        if not _ascending(labels[::2]):
            detail = "the labels of a series are not sorted by name"
            self._index.fault(FaultKind.SERIES_ORDER, detail, position, series=series)
        if not _place_chunks(chunks, batch):
            _place_odd_chunks(chunks, batch)
            detail = "the chunks of a series are not in the order of time or of place"
            self._index.fault(FaultKind.CHUNK_ORDER, detail, position, series=series)
        self._last = labels
        batch.offsets.append(position)
        batch.labels.append(values[0])
        batch.ends.append(len(batch.references))

    def text(self, position: int) -> str:
        """Return the labels of the series at an offset as PromQL writes them, "" if unreadable."""
        if not self._index.log.has_room:
            return ""
        try:
            body, _ = self._entry(position)
            values = [self._numbers[token] for token in _split(body)]
            texts = [self._index.symbol(number) for number in values[1 : 2 * values[0] + 1]]
        except (Unsound, OSError, IndexError):
            return ""
        return series_text(dict(zip(texts[::2], texts[1::2], strict=False)))


def series_text(labels: Mapping[str, str]) -> str:
    """Return labels as PromQL writes a series."""
    others = ", ".join(f"{k}={json.dumps(v)}" for k, v in labels.items() if k != "__name__")
    return labels.get("__name__", "") + (f"{{{others}}}" if others else "")


def _ascending(numbers: list[int]) -> bool:
    return all(map(lt, numbers, numbers[1:]))


def _place_chunks(chunks: list[int], batch: SeriesBatch) -> bool:
    """Add the chunks of a series to a batch: count, then three numbers for each. False where they
    are not in order; nothing is added then.
    """
    if not chunks or len(chunks) != 3 * chunks[0] + 1:
        return False
    if chunks[0] == 1:
        _, time, duration, reference = chunks
        time = time >> 1 ^ -(time & 1)
        batch.min_times.append(time)
        batch.max_times.append(time + duration)
        batch.references.append(reference)
        return True
    if not chunks[0]:
        return True
    times = [0] * (2 * chunks[0])
    times[::2], times[1::2] = chunks[1::3], chunks[2::3]
    steps = chunks[6::3]
    # A later chunk begins after the one before ends; a step that is odd is a negative number.
    if min(times[2::2]) < 1 or max(times[1:]) > _LONGEST or any(step & 1 for step in steps):
        return False
    times[0] = times[0] >> 1 ^ -(times[0] & 1)
    times = [*accumulate(times)]
    batch.min_times += times[::2]
    batch.max_times += times[1::2]
    batch.references += accumulate([step >> 1 for step in steps], initial=chunks[3])
    return True


def _place_odd_chunks(chunks: list[int], batch: SeriesBatch) -> None:
    """Likewise where they are not in order."""
    time = reference = 0
    for number in range(chunks[0]):
        begin, duration, place = chunks[3 * number + 1 : 3 * number + 4]
        time += _signed(begin) if number else begin >> 1 ^ -(begin & 1)
        batch.min_times.append(time)
        time += _signed(duration)
        batch.max_times.append(time)
        reference = reference + (place >> 1 ^ -(place & 1)) if number else place
        batch.references.append(reference)


def _signed(number: int) -> int:
    return number - (1 << 64) if number >> 63 else number
