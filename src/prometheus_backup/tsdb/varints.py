"""Decode many variable-length integers at once, with NumPy.

A number is stored in groups of 7 bits, the lowest group first. The top bit of a byte is set if
another byte follows. Signed numbers are zigzag encoded: 0, -1, 1, -2 are stored as 0, 1, 2, 3.
This is `Uvarint` and `Varint` of Go's encoding/binary, which Prometheus uses: at most ten bytes,
for 64 bits. `reading.uvarint` decodes a single one.
"""

import numpy as np
from numpy.typing import NDArray

from prometheus_backup.tsdb.reading import LONGEST_VARINT

Bytes = NDArray[np.uint8]
Ints = NDArray[np.int64]
Uints = NDArray[np.uint64]
Mask = NDArray[np.bool_]

_MORE = 0x80
_GROUP = 0x7F
_GREATEST = (1 << 64) - 1
_SHIFTS = np.arange(0, 7 * LONGEST_VARINT, 7, dtype=np.uint64)[:, None]


def decode_all(data: Bytes) -> tuple[Uints, Ints, Mask]:
    """Decode bytes that consist of numbers only.

    Return the numbers, the offset of the last byte of each, and whether each fits into 64 bits.
    """
    ends = np.flatnonzero(data < _MORE)
    sizes = np.diff(ends, prepend=-1)
    values = data[ends].astype(np.uint64)
    # From the last group of each number to its first.
    longer = np.flatnonzero(sizes > 1)
    for back in range(1, min(int(sizes.max(initial=0)), LONGEST_VARINT)):
        values[longer] = values[longer] << 7 | data[ends[longer] - back] & _GROUP
        longer = longer[sizes[longer] > back + 1]
    valid = (sizes < LONGEST_VARINT) | ((sizes == LONGEST_VARINT) & (data[ends] <= 1))
    return values, ends, valid


def decode_at(data: Bytes, offsets: Ints, *, longest: int = LONGEST_VARINT) -> tuple[Uints, Ints]:
    """Decode the number at each offset. Return the numbers, and the offset after each.

    A number of more than `longest` bytes is returned as the greatest of 64 bits. If the data ends
    within a number, its value is arbitrary, and its end is after that of the data.
    """
    groups = data.take(offsets + np.arange(longest)[:, None], mode="clip")
    more = np.logical_and.accumulate(groups >= _MORE)
    groups &= _GROUP
    groups[1:] *= more[:-1]
    values = np.bitwise_or.reduce(groups.astype(np.uint64) << _SHIFTS[:longest])
    values[more[-1]] = _GREATEST
    return values, offsets + 1 + np.count_nonzero(more, axis=0)


def signed(values: Uints) -> Ints:
    """Return the numbers that zigzag encoded ones stand for."""
    return (values >> 1).view(np.int64) ^ -(values & 1).view(np.int64)


def ranges(starts: Ints, lengths: Ints, step: int = 1) -> Ints:
    """Return `lengths[i]` integers from `starts[i]` in steps, one range after the other."""
    stops = np.cumsum(lengths)
    total = int(stops[-1]) if len(stops) else 0
    within = np.arange(total) - np.repeat(stops - lengths, lengths)
    return np.repeat(starts, lengths) + step * within


LENGTH = 3
"""Bytes of the length of something that fits into a window."""


def first_false(mask: Mask) -> int:
    """Return the index of the first element that is not true, the length if all are."""
    return int(np.argmin(mask)) if len(mask) and not mask.all() else len(mask)


def groups_before_false(mask: Mask, stops: Ints) -> int:
    """Return how many groups, from the first, are all true. Group i ends at `stops[i]`."""
    return int(np.searchsorted(stops, first_false(mask), side="right"))


def uint32_at(data: Bytes, offsets: Ints) -> NDArray[np.uint32]:
    """Return the big-endian 32-bit number at each offset, which must lie within the data."""
    numbers: NDArray[np.uint32] = data[offsets[:, None] + np.arange(4)].view(">u4")[:, 0]
    return numbers
