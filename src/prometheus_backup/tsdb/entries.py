"""Decode series entries of an index: hundreds of thousands a second, in plain Python.

The body of an entry is made of LEB128 numbers only: label count, (name, value) as symbols, chunk
count, then for the first chunk time, duration and reference, for the others the same as
differences (prometheus tsdb/index/index.go AddSeries). What is regular is read by a loop that
leaves the work to C: regular expressions split, dictionaries decode. It stops at anything else, and
says nothing.
"""

import re
from bisect import bisect_right
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import accumulate, repeat
from operator import lt, rshift

from prometheus_backup.tsdb.reading import crc32c, u32

ALIGNMENT = 16
"""Entries begin at multiples of it, so that a series is named by its offset / 16 in 32 bits."""
_LONGEST = 1 << 62
"""Milliseconds. A time step beyond it is a negative one that was written as unsigned."""
_REMEMBERED = 1 << 16
_ZEROS = [bytes(length) for length in range(ALIGNMENT + 4)]
_NUMBER = rb"[\x80-\xff]*[\x00-\x7f]"
_split = re.compile(_NUMBER).findall
_UNKNOWN = -1
"""The code of a label whose symbols are not in the table: less than any, so never in order."""


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


class EntryDecoder:
    """Decodes the entries of one index, which has so many symbols.

    A label is the number name << 32 | value. Symbols are sorted, so lists of labels compare as
    Prometheus sorts series.
    """

    def __init__(self, symbols: int) -> None:
        self.last: list[int] = []
        """The labels of the last entry."""
        self._labels = _Labels(symbols)
        self._numbers = _Numbers()
        self._signed = _Signed()
        self._patterns = _Patterns()
        self._names: list[int] = []

    def run(self, buf: bytes, base: int, batch: SeriesBatch) -> int:
        """Add entries to a batch until one is not regular, or not whole; return the bytes read.

        `buf` begins with an entry, at offset `base` of the index. One loop, since each call in it
        would cost as much as the work.
        """
        patterns, label, crc, zeros = self._patterns, self._labels.__getitem__, crc32c, _ZEROS
        signed, number = self._signed, self._numbers
        last, names = self.last, self._names
        add_offset, add_count, add_end = (
            batch.offsets.append,
            batch.labels.append,
            batch.ends.append,
        )
        references, min_times, max_times = batch.references, batch.min_times, batch.max_times
        position, limit = 0, len(buf) - 2 * ALIGNMENT
        while position < limit:
            length = buf[position]
            start = position + 1
            if length > 0x7F:
                length += (buf[start] << 7) - 0x80
                start += 1
            stop = start + length
            following = stop + 19 & -16
            if following > limit or not buf.startswith(zeros[following - stop - 4], stop + 4):
                break
            body = buf[start:stop]
            sound = length and crc(body) == u32(buf, stop)[0]
            match = patterns[body[0]](body, 1) if sound else None
            if match is None:
                break
            *tokens, time_token, duration, reference = match.groups()
            labels = [*map(label, tokens)]
            if labels <= last:
                break
            if [*map(rshift, labels, _SHIFTS)] != names:
                names = names_of(labels)
                if not ascending(names):
                    names = []
                    break
            if reference is not None:  # of one chunk, which is the most common
                time = signed[time_token]
                min_times.append(time)
                max_times.append(time + number[duration])
                references.append(_decoded(reference))
            elif not self._place(body, match.end(), batch):
                break
            last = labels
            add_offset(base + position)
            add_count(body[0])
            add_end(len(references))
            position = following
        self.last, self._names = last, names
        return position

    def decode(self, body: bytes, batch: SeriesBatch) -> tuple[list[int], bool] | None:
        """Add one entry, whatever it holds, to a batch; return its labels, and whether its chunks
        are in order. None, and nothing is added, where it is not an entry.
        """
        values = [*map(self._numbers.__getitem__, _split(body))]
        if not values or values[0] > 0x7F or not (match := self._patterns[values[0]](body, 1)):
            return None
        labels = [*map(self._labels.__getitem__, match.groups()[:-3])]
        chunks = values[2 * values[0] + 1 :]
        if not labels or _UNKNOWN in labels or not chunks or len(chunks) != 3 * chunks[0] + 1:
            return None
        in_order = self._place(body, match.end(values[0]), batch)
        if not in_order:
            _place_odd(chunks, batch)
        return labels, in_order

    def symbols_of(self, body: bytes) -> list[int]:
        """Return the symbols of an entry's labels: name, value, name, value and so on."""
        values = [*map(self._numbers.__getitem__, _split(body))]
        return values[1 : 2 * values[0] + 1]

    def _place(self, body: bytes, at: int, batch: SeriesBatch) -> bool:
        """Add the chunks of an entry to a batch; False where they are not in order, or not whole,
        and nothing is added then.
        """
        tokens = _split(body, at)
        if not tokens or body[-1] > 0x7F:
            return False
        count = self._numbers[tokens[0]]
        if len(tokens) != 3 * count + 1:
            return False
        if not count:
            return True
        number = self._numbers.__getitem__
        steps = [*map(self._signed.__getitem__, tokens[6::3])]
        times = [0] * (2 * count)
        times[::2], times[1::2] = map(number, tokens[1::3]), map(number, tokens[2::3])
        # A chunk begins after the one before it ends, in time and in its segment.
        if min(steps, default=1) < 1 or min(times[2::2], default=1) < 1 or max(times) > _LONGEST:
            return False
        times[0] = self._signed[tokens[1]]
        times = [*accumulate(times)]
        batch.min_times += times[::2]
        batch.max_times += times[1::2]
        batch.references += accumulate(steps, initial=_decoded(tokens[3]))
        return True


_SHIFTS = repeat(32)


def names_of(labels: list[int]) -> list[int]:
    """Return the symbols of the names of labels."""
    return [label >> 32 for label in labels]


def ascending(numbers: list[int]) -> bool:
    """Tell whether each number is greater than the one before it."""
    return all(map(lt, numbers, numbers[1:]))


def _decoded(token: bytes) -> int:
    if len(token) == 4:  # what most references in a segment take
        a, b, c, d = token
        return a & 0x7F | (b & 0x7F) << 7 | (c & 0x7F) << 14 | d << 21
    value = 0
    for byte in reversed(token):
        value = value << 7 | byte & 0x7F
    return value


class _Numbers(dict[bytes, int]):
    """LEB128 numbers decoded: most of an index are the same few thousand."""

    def __missing__(self, token: bytes) -> int:
        if len(self) >= _REMEMBERED:
            self.clear()
        self[token] = value = _decoded(token)
        return value


class _Signed(dict[bytes, int]):
    """Likewise, of numbers with a sign (zigzag)."""

    def __missing__(self, token: bytes) -> int:
        if len(self) >= _REMEMBERED:
            self.clear()
        number = _decoded(token)
        self[token] = value = number >> 1 ^ -(number & 1)
        return value


class _Labels(dict[bytes, int]):
    """Labels decoded: most series share most of theirs with others."""

    def __init__(self, symbols: int) -> None:
        super().__init__()
        self._symbols = symbols

    def __missing__(self, token: bytes) -> int:
        if len(self) >= _REMEMBERED:
            self.clear()
        name, value = map(_decoded, _split(token))
        known = name < self._symbols and value < self._symbols
        self[token] = label = name << 32 | value if known else _UNKNOWN
        return label


class _Patterns(dict[int, Callable[[bytes, int], "re.Match[bytes] | None"]]):
    """Regular expressions that take so many labels apart, and the chunk behind them if it is one.

    Their last three groups are the chunk's time, duration and reference, or None.
    """

    def __missing__(self, count: int) -> Callable[[bytes, int], "re.Match[bytes] | None"]:
        one = b"(" + _NUMBER + _NUMBER + b")"
        chunk = b"(?:\x01(" + b")(".join([_NUMBER] * 3) + b")\\Z)?"
        self[count] = match = re.compile(one * count + chunk).match
        return match


def _place_odd(chunks: list[int], batch: SeriesBatch) -> None:
    """Add chunks that are not in order: their count, then three numbers of each."""
    time = reference = 0
    for number in range(chunks[0]):
        begin, duration, place = chunks[3 * number + 1 : 3 * number + 4]
        time += _negative(begin) if number else begin >> 1 ^ -(begin & 1)
        batch.min_times.append(time)
        time += _negative(duration)
        batch.max_times.append(time)
        reference = reference + (place >> 1 ^ -(place & 1)) if number else place
        batch.references.append(reference)


def _negative(number: int) -> int:
    return number - (1 << 64) if number >> 63 else number
