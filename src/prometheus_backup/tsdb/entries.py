"""Decode series entries of an index, many at once.

The body of an entry consists of varints only: label count, for each label its name and value (as
symbols), chunk count, for the first chunk its start, duration and reference, for each other chunk
the same as differences (prometheus tsdb/index/index.go, AddSeries and Decoder.Series). So all
numbers of a window are decoded at once, and the checks are done on the resulting arrays.

All labels, or all chunks, of some entries are one flat array: those of entry i end at `stops[i]`.
Checks return how many entries, from the first, are sound. The next one is then decoded alone, to
report its fault (`series.py`).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from prometheus_backup.tsdb.index import SERIES_ALIGNMENT
from prometheus_backup.tsdb.reading import crc32c
from prometheus_backup.tsdb.varints import (
    LENGTH,
    Ints,
    Uints,
    decode_all,
    decode_at,
    first_false,
    groups_before_false,
    ranges,
    signed,
    uint32_at,
)

_CRC = 4
_SYMBOL_BITS = np.uint64(32)
_Number = TypeVar("_Number", np.int64, np.uint64)


def split_entries(window: bytes) -> tuple[Ints, list[bytes]]:
    """Return where the entries of a window begin, and the bodies of those that are sound.

    An entry is `uvarint length | body | CRC-32C | zeros up to the alignment`. The last offset is
    where the bodies stop: at an entry that is incomplete, or has a wrong checksum or padding.
    """
    data = np.frombuffer(window, np.uint8)
    # For each aligned offset, where an entry that begins there would end. Then follow the entries.
    lengths, begins = decode_at(data, np.arange(0, len(window), SERIES_ALIGNMENT), longest=LENGTH)
    stops = begins + np.minimum(lengths, len(window)).astype(np.int64)
    following = (stops + _CRC + SERIES_ALIGNMENT - 1) // SERIES_ALIGNMENT
    next_of = following.tolist()
    entry, chain = 0, [0]
    while entry < len(next_of):
        entry = next_of[entry]
        chain.append(entry)
    offsets = np.array(chain) * SERIES_ALIGNMENT
    offsets = offsets[offsets <= len(window)]
    entries = offsets[:-1] // SERIES_ALIGNMENT
    begins, stops = begins[entries], stops[entries]
    places = zip(begins.tolist(), stops.tolist(), strict=True)
    bodies = [window[begin:stop] for begin, stop in places]

    checksums = np.fromiter(map(crc32c, bodies), np.uint32, len(bodies))
    padding = offsets[1:] - stops - _CRC
    zero = data[ranges(stops + _CRC, padding)] == 0
    sound = min(
        first_false(checksums == uint32_at(data, stops)),
        groups_before_false(zero, np.cumsum(padding)),
    )
    return offsets[: sound + 1], bodies[:sound]


@dataclass(frozen=True, slots=True)
class SeriesBatch:
    """Some series in a row: offset in the index and number of labels of each, then their chunks.

    The chunks of series i end at `ends[i]`. References are segment << 32 | offset, times are TSDB
    milliseconds, both inclusive.
    """

    offsets: Ints
    labels: Ints
    ends: Ints
    references: Uints
    min_times: Ints
    max_times: Ints

    def series_of(self, chunk: int) -> int:
        """Return the offset of the series that a chunk of the batch belongs to."""
        return int(self.offsets[np.searchsorted(self.ends, chunk, side="right")])


NO_LABELS: Uints = np.zeros(0, np.uint64)


@dataclass(frozen=True, slots=True)
class Entries:
    """Decoded entries: `count` of them, up to the first that cannot be decoded.

    A label is the number name << 32 | value. Symbols are sorted, so lists of labels compare as
    Prometheus sorts series. The flat arrays may be longer than `count` entries.
    """

    count: int
    label_stops: Ints
    labels: Uints
    chunk_stops: Ints
    references: Uints
    min_times: Ints
    max_times: Ints

    def labels_of(self, entry: int) -> Uints:
        """Return the labels of one entry."""
        start = self.label_stops[entry - 1] if entry else 0
        return self.labels[start : self.label_stops[entry]]

    def batch(self, count: int, offsets: Ints) -> SeriesBatch:
        """Return the first entries as a batch, given their offsets in the index."""
        chunks = self.chunk_stops[count - 1]
        return SeriesBatch(
            offsets,
            np.diff(self.label_stops[:count], prepend=0),
            self.chunk_stops[:count],
            self.references[:chunks],
            self.min_times[:chunks],
            self.max_times[:chunks],
        )

    def in_order(self, last: Uints) -> int:
        """Return how many entries, from the first, are in order in every way, after `last`."""
        return min(self.with_sorted_labels(), self.sorted_after(last), self.with_sorted_chunks())

    def with_sorted_labels(self) -> int:
        """Return how many entries, from the first, have their labels sorted by name."""
        names = self.labels >> _SYMBOL_BITS
        sorted_by_name = np.ones(len(names), np.bool_)
        sorted_by_name[1:] = names[1:] > names[:-1]
        sorted_by_name[self.label_stops[:-1]] = True  # the first of an entry
        return min(self.count, groups_before_false(sorted_by_name, self.label_stops))

    def sorted_after(self, last: Uints) -> int:
        """Return how many entries, from the first, are greater than the one before, or than `last`.

        All pairs of neighbours are compared at once: their first labels, then the second labels of
        those with equal first ones, and so on.
        """
        labels = np.concatenate((last, self.labels))
        stops = np.concatenate(([0, len(last)], len(last) + self.label_stops[: self.count]))
        starts, lengths = stops[:-1], np.diff(stops)
        equal = np.arange(self.count)  # entries that are equal to the one before so far
        greater = np.zeros(self.count, np.bool_)
        place = 0
        while equal.size:
            # If the one before has no more labels, the entry is greater if it has more.
            ended = lengths[equal] <= place
            greater[equal[ended]] = lengths[equal[ended] + 1] > place
            equal = equal[~ended & (lengths[equal + 1] > place)]
            before, label = labels[starts[equal] + place], labels[starts[equal + 1] + place]
            greater[equal[label > before]] = True
            equal = equal[label == before]
            place += 1
        return first_false(greater)

    def with_sorted_chunks(self) -> int:
        """Return how many entries, from the first, have their chunks in order.

        A chunk begins after the one before it ends, in time and in the segments.
        """
        places = self.references.view(np.int64)  # one that fell below 0 is before the others
        in_order = self.max_times >= self.min_times
        after = (places[1:] > places[:-1]) & (self.min_times[1:] > self.max_times[:-1])
        firsts = self.chunk_stops[self.chunk_stops < len(in_order)]
        after[firsts[firsts > 0] - 1] = True  # the first of an entry
        in_order[1:] &= after
        return min(self.count, groups_before_false(in_order, self.chunk_stops))


def decode_entries(bodies: Sequence[bytes], symbols: int) -> Entries:
    """Decode the bodies of entries of an index that has so many symbols."""
    values, stops = _decode_bodies(bodies)
    numbers = np.diff(stops, prepend=0)
    starts = stops - numbers
    labels = np.minimum(values[starts], len(values)).astype(np.int64)
    chunks_at = np.minimum(starts + 1 + 2 * labels, stops - 1)
    chunks = np.minimum(values[chunks_at], len(values)).astype(np.int64)
    count = first_false((labels > 0) & (numbers == 2 + 2 * labels + 3 * chunks))
    labels, chunks = labels[:count], chunks[:count]

    names_at = ranges(starts[:count] + 1, labels, step=2)
    names, label_values = values[names_at], values[names_at + 1]
    label_stops = np.cumsum(labels)
    known = np.maximum(names, label_values) < symbols
    return Entries(
        groups_before_false(known, label_stops),
        label_stops,
        names << _SYMBOL_BITS | label_values,
        *_decode_chunks(values, chunks_at[:count] + 1, chunks),
    )


def _decode_bodies(bodies: Sequence[bytes]) -> tuple[Uints, Ints]:
    """Return all numbers of the bodies, and how many there are up to the end of each body.

    Stops before a body that is empty, that ends within a number, or that has a number of more than
    64 bits.
    """
    data = np.frombuffer(b"".join(bodies), np.uint8)
    sizes = np.fromiter(map(len, bodies), np.int64, len(bodies))
    body_stops = np.cumsum(sizes)
    whole = sizes > 0
    whole[whole] = data[body_stops[whole] - 1] < 0x80
    body_stops = body_stops[: first_false(whole)]
    values, ends, valid = decode_all(data[: body_stops[-1] if len(body_stops) else 0])
    stops = np.searchsorted(ends, body_stops)
    return values, stops[: groups_before_false(valid, stops)]


def _decode_chunks(values: Uints, starts: Ints, counts: Ints) -> tuple[Ints, Uints, Ints, Ints]:
    """Decode `counts[i]` chunks whose numbers begin at `starts[i]`, for each entry i.

    Return where those of each entry end, and of each chunk its reference and first and last time.
    """
    stops = np.cumsum(counts)
    at = ranges(starts, counts, step=3)
    begins, durations, references = values[at], values[at + 1].view(np.int64), values[at + 2]
    # All but the first chunk of an entry: time since the end of the chunk before, bytes since its
    # beginning. Only the former has no sign (a negative one is the same 64 bits).
    first = (stops - counts)[counts > 0]
    time_steps, reference_steps = begins.view(np.int64), signed(references).view(np.uint64)
    time_steps[first], reference_steps[first] = signed(begins[first]), references[first]
    max_times = _running_sums(time_steps + durations, stops, counts)
    return (
        stops,
        _running_sums(reference_steps, stops, counts),
        max_times - durations,
        max_times,
    )


def _running_sums(steps: NDArray[_Number], stops: Ints, counts: Ints) -> NDArray[_Number]:
    """Return sums that start again in each entry. They wrap around at 64 bits, as in Prometheus."""
    sums = np.zeros(len(steps) + 1, steps.dtype)
    np.cumsum(steps, out=sums[1:])
    result: NDArray[_Number] = sums[1:] - np.repeat(sums[stops - counts], counts)
    return result
