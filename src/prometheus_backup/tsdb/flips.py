"""Find the one bit of checksummed bytes that is flipped. CRC-32C tells which, up to 2^31 bits."""

from typing import NamedTuple

_POLYNOMIAL = 0x82F63B78


class Bit(NamedTuple):
    """The byte at an offset, and the bit in it."""

    at: int
    mask: int


def is_one_bit(difference: int) -> bool:
    """Return whether two numbers with this difference (XOR) differ in one bit."""
    return difference.bit_count() == 1


def flipped_bit(difference: int, size: int) -> Bit | None:
    """Return which bit of `size` bytes makes this difference of checksums, None if none does.

    If several bits are damaged, one bit explains it by chance: in 1 of 16,000 cases at most in a
    page of the WAL, and never if two are damaged.
    """
    effect = _POLYNOMIAL  # of the last bit
    for at in range(size - 1, -1, -1):
        for shift in range(7, -1, -1):
            if effect == difference:
                return Bit(at, 1 << shift)
            effect = (effect >> 1) ^ (_POLYNOMIAL if effect & 1 else 0)
    return None
