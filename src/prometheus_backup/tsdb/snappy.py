"""Recognize data that is compressed with Snappy's block format, without decompressing it."""

from prometheus_backup.tsdb.reading import Unsound, uvarint

_LITERAL = 0
_COPY_SIZES = {1: 2, 2: 3, 3: 5}
"""The length of a copy element, by its tag."""


def is_snappy(data: bytes) -> bool:
    """Return whether the elements of the data add up to the size that it begins with."""
    try:
        size, at = uvarint(data, 0)
    except Unsound:
        return False
    written = 0
    while at < len(data) and written < size:
        tag = data[at]
        if tag & 3 == _LITERAL:
            length, at = tag >> 2, at + 1
            if (extra := length - 59) > 0:
                length = int.from_bytes(data[at : at + extra], "little")
                at += extra
            written += length + 1
            at += length + 1
            continue
        element = data[at : at + _COPY_SIZES[tag & 3]]
        at += len(element)
        if tag & 3 == 1:
            length, offset = (tag >> 2 & 7) + 4, tag >> 5 << 8 | element[-1]
        else:
            length, offset = (tag >> 2) + 1, int.from_bytes(element[1:], "little")
        if len(element) < _COPY_SIZES[tag & 3] or not 0 < offset <= written:
            return False
        written += length
    return at == len(data) and written == size
