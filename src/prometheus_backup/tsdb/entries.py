"""Decode series entries of an index: hundreds of thousands a second, in plain Python.

The body of an entry is made of LEB128 numbers only: label count, (name, value) as symbols, chunk
count, then for the first chunk time, duration and reference, for the others the same as
differences (prometheus tsdb/index/index.go AddSeries). What is regular is read by loops that do
little for each entry: series are sorted, so that most begin as the one before, and most of what
follows was decoded before. They stop at anything else, and say nothing.
"""

import re
from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from operator import lt
from struct import error as struct_error

from prometheus_backup.tsdb.leb128 import (
    LANES,
    NUMBER,
    REMEMBERED,
    Numbers,
    Signed,
    decode,
    decode_equal,
    split,
)
from prometheus_backup.tsdb.reading import Frames, crc32c

ALIGNMENT = 16
"""Entries begin at multiples of it, so that a series is named by its offset / 16 in 32 bits."""
_LONGEST = 1 << 62
"""Milliseconds. A time step beyond it is a negative one that was written as unsigned."""
_ZEROS = bytes(ALIGNMENT)
_UNKNOWN = -1
"""The code of a label whose symbols are not in the table: less than any, so never in order."""
_NO_ENTRY = b""

_first_label = re.compile(rb"[\x01-\x7f]" + NUMBER * 2).match
"""Match the label count and the first label of an entry. A byte is enough for the count: Prometheus
takes no more labels by default than a sample may have, 64."""
_labels = re.compile(NUMBER * 2).findall


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
        self.last: tuple[int, ...] = ()
        """The labels of the last entry."""
        self._frames = Frames(alignment=ALIGNMENT)
        self._labels = _Labels(symbols)
        self._rests = _Rests(self._labels)
        self._chunks = _Chunks()

    def run(self, buf: bytes, base: int, batch: SeriesBatch) -> int:
        """Add entries to a batch until one is not regular, or not whole; return the bytes read.

        `buf` begins with an entry, at offset `base` of the index. In three steps, each of which
        goes as far as all is well with what the one before it let pass.
        """
        starts, bodies = self._frame(buf)
        counts, tails = self._sort_out(bodies)
        good = self._chunks.place_all(tails, batch)
        if good:
            self.last = self._labels_of(bodies[good - 1])
        batch.offsets += [base + start for start in starts[:good]]
        batch.labels += counts[:good]
        return starts[good]

    def _frame(self, buf: bytes) -> tuple[list[int], list[bytes]]:
        """Return the bodies of the entries whose checksum and padding are right, and where these
        entries begin, and where the next one does.
        """
        frames, crc, zeros = self._frames, crc32c, _ZEROS
        starts, bodies, position = [0], [], 0
        try:
            while True:
                length = buf[position]
                if length > 0x7F:
                    length += (buf[position + 1] << 7) - 0x80
                unpack, size = frames[length]
                body, stored, padding = unpack(buf, position)
                if crc(body) != stored or padding not in zeros:
                    break
                position += size
                bodies.append(body)
                starts.append(position)
        except (IndexError, struct_error):  # the window ends
            pass
        return starts, bodies

    def _sort_out(self, bodies: Sequence[bytes]) -> tuple[list[int], list[bytes]]:
        """Return how many labels entries have, and what is behind these, for as long as labels and
        entries are in order.
        """
        counts: list[int] = []
        tails: list[bytes] = []
        first, last = self.last[0] if self.last else _UNKNOWN, self.last[1:]
        head, count, known = _NO_ENTRY, 0, {}
        start, end = 0, -1
        after_last = True
        for body in bodies:
            if not (head and body.startswith(head)):  # most often, another metric
                match = _first_label(body)
                if match is None:
                    break
                head, start = match.group(), match.end()
                counts += [count] * (len(tails) - len(counts))
                label, count = self._labels[head[1:]], head[0]
                if label < first or label == _UNKNOWN:
                    break
                after_last = label > first
                first, known = label, self._rests.of(label >> 32, count - 1)
            rest = known.get(body[start:end])
            if rest is None:  # it ends elsewhere, or is new
                match = self._rests.match(body, start, count - 1)
                if match is None:
                    break
                end = match.end() - len(body)
                rest = known.get(body[start:end])
                if rest is None:
                    rest = self._rests.learn(known, match.group(), first >> 32)
                if rest is None:
                    break
            if not (after_last or rest > last):
                break
            last, after_last = rest, False
            tails.append(body[end:])
        counts += [count] * (len(tails) - len(counts))
        return counts, tails

    def decode(self, body: bytes, batch: SeriesBatch) -> tuple[tuple[int, ...], bool] | None:
        """Add one entry, whatever it holds, to a batch; return its labels, and whether its chunks
        are in order. None, and nothing is added, where it is not an entry.
        """
        match = _first_label(body) and self._rests.match(body, 1, body[0])
        if not match:
            return None
        labels, tail = self._labels_of(body), body[match.end() :]
        if _UNKNOWN in labels or not is_chunks(tail):
            return None
        in_order = self._chunks.place(tail, batch)
        if not in_order:
            _place_odd(tail, batch)
        return labels, in_order

    def symbols_of(self, body: bytes) -> list[int]:
        """Return the symbols of an entry's labels: name, value, name, value and so on."""
        values = [*map(decode, split(body))]
        return values[1 : 2 * values[0] + 1]

    def _labels_of(self, body: bytes) -> tuple[int, ...]:
        return tuple(map(self._labels.__getitem__, _labels(body, 1)[: body[0]]))


class _Chunks:
    """Decodes what is behind the labels of entries: chunk count, and where and when chunks are."""

    def __init__(self) -> None:
        self._numbers = Numbers()
        self._signed = Signed()
        self._spans: dict[bytes, tuple[int, int]] = {}
        """The times of one chunk, by all that stands before its reference."""
        self._width = 1
        """Bytes of the reference of the last chunk that was alone."""

    def place_all(self, tails: Sequence[bytes], batch: SeriesBatch) -> int:
        """Add the chunks of entries to a batch until those of one are not in order, or not whole;
        return how many entries these were.
        """
        number = 0
        while number < len(tails):
            reached = number + self._place_known(tails[number : number + LANES], batch)
            if reached == number:
                if not self.place(tails[number], batch):
                    break
                batch.ends.append(len(batch.references))
                reached += 1
            number = reached
        return number

    def _place_known(self, tails: Sequence[bytes], batch: SeriesBatch) -> int:
        """Likewise, until an entry has not one chunk, or not at a time that was met before."""
        spans, references, end = self._spans, [], -self._width
        times = []
        for tail in tails:
            span = spans.get(tail[:end])
            if span is None:
                break
            times.append(span)
            references.append(tail[end:])
        decoded = decode_equal(references) if references else None
        if decoded is None:
            return 0
        begins, finishes = zip(*times, strict=True)
        batch.min_times += begins
        batch.max_times += finishes
        ends = len(batch.references) + 1
        batch.references += decoded
        batch.ends += range(ends, ends + len(decoded))
        return len(decoded)

    def place(self, tail: bytes, batch: SeriesBatch) -> bool:
        """Add the chunks of an entry to a batch; False where they are not in order, or not whole,
        and nothing is added then.
        """
        tokens = split(tail)
        if not tokens or tail[-1] > 0x7F:
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
        batch.references += accumulate(steps, initial=decode(tokens[3]))
        if count == 1:
            self._width = len(tokens[3])
            if len(self._spans) >= REMEMBERED:
                self._spans.clear()
            self._spans[tail[: -self._width]] = times[0], times[1]
        return True


def names_of(labels: Sequence[int]) -> list[int]:
    """Return the symbols of the names of labels."""
    return [label >> 32 for label in labels]


def ascending(numbers: Sequence[int]) -> bool:
    """Tell whether each number is greater than the one before it."""
    return all(map(lt, numbers, numbers[1:]))


class _Labels(dict[bytes, int]):
    """Labels decoded: most series share most of theirs with others."""

    def __init__(self, symbols: int) -> None:
        super().__init__()
        self._symbols = symbols

    def __missing__(self, token: bytes) -> int:
        if len(self) >= REMEMBERED:
            self.clear()
        name, value = map(decode, split(token))
        known = name < self._symbols and value < self._symbols
        self[token] = label = name << 32 | value if known else _UNKNOWN
        return label


_Known = dict[bytes, tuple[int, ...]]


class _Rests:
    """The labels behind the first, decoded: the series of a target have the same in each metric."""

    def __init__(self, labels: _Labels) -> None:
        self._labels = labels
        self._known: dict[tuple[int, int], _Known] = {}
        self._held = 0
        self._matches: dict[int, Callable[[bytes, int], re.Match[bytes] | None]] = {}

    def of(self, name: int, count: int) -> _Known:
        """Return what is known of so many labels behind one of a name. All are in order."""
        found = self._known.get((name, count))
        if found is None:
            self._held += 1
            found = self._known[name, count] = {}
        return found

    def match(self, body: bytes, start: int, count: int) -> re.Match[bytes] | None:
        """Match so many labels at a place of an entry."""
        match = self._matches.get(count)
        if match is None:
            match = self._matches[count] = re.compile(NUMBER * (2 * count)).match
        return match(body, start)

    def learn(self, known: _Known, text: bytes, name: int) -> tuple[int, ...] | None:
        """Decode labels that are new and keep them; None where they are not in order behind a name,
        or have no symbols.
        """
        rest = tuple(map(self._labels.__getitem__, _labels(text)))
        if not ascending([name, *names_of(rest)]):
            return None
        if self._held >= REMEMBERED:
            self._known.clear()
            known.clear()
            self._held = 0
        if text:
            known[text] = rest
            self._held += 1
        return rest


def is_chunks(tail: bytes) -> bool:
    """Tell whether what is behind the labels of an entry is as many chunks as it says."""
    tokens = split(tail)
    return bool(tokens) and tail[-1] < 0x80 and len(tokens) == 3 * decode(tokens[0]) + 1


def _place_odd(tail: bytes, batch: SeriesBatch) -> None:
    """Add chunks that are not in order to a batch."""
    count, *numbers = map(decode, split(tail))
    time = reference = 0
    for number in range(count):
        begin, duration, place = numbers[3 * number : 3 * number + 3]
        time += _negative(begin) if number else begin >> 1 ^ -(begin & 1)
        batch.min_times.append(time)
        time += _negative(duration)
        batch.max_times.append(time)
        reference = reference + (place >> 1 ^ -(place & 1)) if number else place
        batch.references.append(reference)


def _negative(number: int) -> int:
    return number - (1 << 64) if number >> 63 else number
