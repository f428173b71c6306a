"""Many LEB128 numbers at once: as one at a time, and none that is not one number."""

import random

import pytest

from prometheus_backup.tsdb.leb128 import LANES, decode, decode_equal


def encoded(number: int, width: int) -> bytes:
    """A number in so many bytes, as the format says: 7 bits each, the lowest first."""
    groups = [number >> 7 * at & 0x7F for at in range(width)]
    return bytes([*(group | 0x80 for group in groups[:-1]), groups[-1]])


@pytest.mark.parametrize("width", range(1, 9))
@pytest.mark.parametrize("count", [1, 2, LANES - 1, LANES])
def test_numbers_of_one_width_are_decoded_at_once(width: int, count: int) -> None:
    choose = random.Random(width)
    numbers = [0, (1 << 7 * width) - 1, *(choose.getrandbits(7 * width) for _ in range(count))]
    tokens = [encoded(number, width) for number in numbers[:count]]
    assert decode_equal(tokens) == tuple(numbers[:count])
    assert [decode(token) for token in tokens] == numbers[:count]


@pytest.mark.parametrize("width", range(1, 9))
def test_bytes_that_are_not_one_number_each_are_refused(width: int) -> None:
    choose = random.Random(width)
    tokens = [encoded(choose.getrandbits(7 * width), width) for _ in range(20)]
    for at in range(width):
        changed = list(tokens)
        wrong = bytearray(changed[choose.randrange(20)])
        wrong[at] ^= 0x80
        changed[choose.randrange(20)] = bytes(wrong)
        assert decode_equal(changed) is None


def test_numbers_of_more_than_56_bits_are_left_to_decode() -> None:
    assert decode_equal([encoded(1, 9)]) is None
    assert decode(encoded(1 << 62, 9)) == 1 << 62
