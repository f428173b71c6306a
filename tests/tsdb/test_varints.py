"""Many numbers decoded at once are those that are decoded one at a time."""

import random

import numpy as np
import pytest

from prometheus_backup.tsdb.reading import Unsound, uvarint, varint
from prometheus_backup.tsdb.varints import decode_all, decode_at, first_false, ranges, signed

WIDTHS = range(1, 11)


def encoded(number: int, width: int) -> bytes:
    """A number in so many bytes, as the format says: 7 bits each, the lowest first."""
    groups = [number >> 7 * at & 0x7F for at in range(width)]
    return bytes([*(group | 0x80 for group in groups[:-1]), groups[-1]])


def some_numbers(count: int) -> list[tuple[int, int]]:
    """Numbers of at most 64 bits, each with the bytes that it is to take."""
    choose = random.Random(count)
    widths = [choose.choice(WIDTHS) for _ in range(count)]
    return [(choose.getrandbits(min(7 * width, 64)), width) for width in widths]


@pytest.mark.parametrize("count", [0, 1, 2, 1000])
def test_all_numbers_of_some_bytes_are_decoded(count: int) -> None:
    numbers = some_numbers(count)
    data = b"".join(encoded(*number) for number in numbers)
    values, ends, valid = decode_all(np.frombuffer(data, np.uint8))
    assert values.tolist() == [number for number, _ in numbers]
    assert ends.tolist() == [*(np.cumsum([width for _, width in numbers]) - 1)]
    assert valid.all()


def test_numbers_at_offsets_are_decoded_and_end_where_they_do() -> None:
    numbers = some_numbers(1000)
    data = b"".join(b"\xff" + encoded(*number) for number in numbers)
    offsets = np.cumsum([1, *(width + 1 for _, width in numbers[:-1])])
    values, ends = decode_at(np.frombuffer(data, np.uint8), offsets)
    assert values.tolist() == [number for number, _ in numbers]
    assert ends.tolist() == [uvarint(data, offset)[1] for offset in offsets.tolist()]
    assert signed(values).tolist() == [varint(data, offset)[0] for offset in offsets.tolist()]


@pytest.mark.parametrize("width", WIDTHS)
def test_limits_of_each_width_are_decoded(width: int) -> None:
    for number in (0, (1 << min(7 * width, 64)) - 1):
        data = np.frombuffer(encoded(number, width), np.uint8)
        assert [values.tolist() for values in decode_all(data)] == [[number], [width - 1], [True]]
        assert [values.tolist() for values in decode_at(data, np.array([0]))] == [[number], [width]]


def test_numbers_of_more_than_64_bits_are_not_valid() -> None:
    for too_long in (encoded(1 << 64, 10), encoded(0, 11), encoded(1, 30)):
        data = encoded(5, 1) + too_long + encoded(1 << 60, 9)
        values, _, valid = decode_all(np.frombuffer(data, np.uint8))
        assert (values[0], values[2]) == (5, 1 << 60)
        assert valid.tolist() == [True, False, True]
        with pytest.raises(Unsound):
            uvarint(data, 1)


def test_a_number_that_the_data_ends_within_ends_after_the_data() -> None:
    for data in (b"\x80", b"\x01\xff\xff"):
        _, ends = decode_at(np.frombuffer(data, np.uint8), np.array([len(data) - 1]))
        assert ends[0] > len(data)
        with pytest.raises(Unsound):
            uvarint(data, len(data) - 1)


def test_a_number_longer_than_expected_is_greater_than_any_other() -> None:
    data = np.frombuffer(encoded(1, 3) + encoded(1, 4), np.uint8)
    values, _ = decode_at(data, np.array([0, 3]), longest=3)
    assert values.tolist() == [1, (1 << 64) - 1]


def test_ranges_follow_each_other() -> None:
    starts, lengths = np.array([5, 7, 100, 1]), np.array([2, 0, 3, 1])
    assert ranges(starts, lengths).tolist() == [5, 6, 100, 101, 102, 1]
    assert ranges(starts, lengths, step=10).tolist() == [5, 15, 100, 110, 120, 1]
    assert ranges(starts[:0], lengths[:0]).tolist() == []


def test_the_first_false_element_is_found() -> None:
    assert first_false(np.array([True, False, False])) == 1
    assert first_false(np.array([True, True])) == 2
    assert first_false(np.array([], np.bool_)) == 0
