"""Decode LEB128 numbers, which TSDB files are full of: one at a time, or many of one width."""

import re
from collections.abc import Sequence
from struct import unpack

NUMBER = rb"[\x80-\xff]*[\x00-\x7f]"
"""A regular expression of one number, however long."""
split = re.compile(NUMBER).findall
"""Return the numbers of some bytes, each as its bytes."""

REMEMBERED = 1 << 16
"""Entries of a table of what was decoded before, so that memory stays bounded."""
LANES = 512
"""How many numbers `decode_equal` takes at once."""
_LANE = 8


def decode(token: bytes) -> int:
    """Return the number that is all of some bytes."""
    if len(token) == 4:  # what most references in a segment take
        a, b, c, d = token
        return a & 0x7F | (b & 0x7F) << 7 | (c & 0x7F) << 14 | d << 21
    value = 0
    for byte in reversed(token):
        value = value << 7 | byte & 0x7F
    return value


class Numbers(dict[bytes, int]):
    """Numbers decoded: most of an index are the same few thousand."""

    def __missing__(self, token: bytes) -> int:
        if len(self) >= REMEMBERED:
            self.clear()
        self[token] = value = decode(token)
        return value


class Signed(dict[bytes, int]):
    """Likewise, of numbers with a sign (zigzag)."""

    def __missing__(self, token: bytes) -> int:
        if len(self) >= REMEMBERED:
            self.clear()
        number = decode(token)
        self[token] = value = number >> 1 ^ -(number & 1)
        return value


def _lanes(pattern: int) -> int:
    return int.from_bytes(pattern.to_bytes(_LANE, "little") * LANES, "little")


_MORE = _lanes(0x8080808080808080)
"""The bit of each byte that says that its number goes on."""
_WIDTHS = [_lanes(0x8080808080808080 >> 8 * (_LANE + 1 - width)) for width in range(1, _LANE + 1)]
_FOLDS = [
    (_lanes(0x007F007F007F007F), _lanes(0x7F007F007F007F00), 1),
    (_lanes(0x00003FFF00003FFF), _lanes(0x3FFF00003FFF0000), 2),
    (_lanes(0x000000000FFFFFFF), _lanes(0x0FFFFFFF00000000), 4),
]


def decode_equal(tokens: Sequence[bytes]) -> tuple[int, ...] | None:
    """Decode up to LANES numbers that are written in equally many bytes; None where one is not one
    number, or too long.

    All stand side by side in one large integer, 64 bits each, so that a few operations on it close
    the gaps between their 7-bit groups: pairs of groups, pairs of pairs, and so on.
    """
    width = len(tokens[0])
    if width > _LANE:
        return None
    wide = int.from_bytes(bytes(_LANE - width).join(tokens), "little")
    if wide & _MORE != _WIDTHS[width - 1] & ((1 << 8 * _LANE * len(tokens)) - 1):
        return None
    for low, high, shift in _FOLDS:
        wide = wide & low | (wide & high) >> shift
    return unpack(f"<{len(tokens)}Q", wide.to_bytes(_LANE * len(tokens), "little"))
