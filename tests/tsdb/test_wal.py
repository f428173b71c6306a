"""Damaged records of segments: what is found, what is lost, and that the rest can be read."""

import random
from pathlib import Path

import pytest

from prometheus_backup.tsdb.reading import ReadFile
from prometheus_backup.tsdb.snappy import is_snappy
from prometheus_backup.tsdb.wal import SegmentReport, filler, scan_segment
from tests.support.segments import (
    FIRST,
    FULL,
    LAST,
    MIDDLE,
    PAGE,
    SNAPPY,
    ZSTD,
    fragment,
    records,
    segment,
)

SAMPLES = b"\x02"
HEADER = 7
UNUSED = {(0, bit) for bit in (5, 6, 7)}
"""Bits of the first byte of a fragment that Prometheus does not read."""


def some_records(count: int = 40, *, length: int = 4000, seed: int = 1) -> list[bytes]:
    """Records of random samples of many lengths."""
    values = random.Random(seed)
    return [SAMPLES + values.randbytes(values.randrange(1, length)) for _ in range(count)]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the segment is."""
    return tmp_path / "00000000"


def scan(path: Path, data: bytes) -> SegmentReport:
    """What is found in a segment of these bytes."""
    path.write_bytes(data)
    with ReadFile(path) as file:
        return scan_segment(file)


def healed(path: Path, data: bytes) -> bytes:
    """The segment with all that was found to be damaged mended or replaced by filler."""
    report = scan(path, data)
    new = bytearray(data)
    for damage in report.damages:
        lost = b"".join(filler(damage.start, damage.stop))
        new[damage.start : damage.stop] = damage.mended or lost
    assert len(new) == len(data)
    assert scan(path, bytes(new)).damages == ()
    return bytes(new)


def test_records_of_every_length_are_sound(path: Path) -> None:
    for lengths in ([1, 2, 3], [PAGE - 7] * 3, [PAGE - 8, 5, PAGE - 13], [3 * PAGE, 1, 200_000]):
        data = segment(SAMPLES.ljust(length, b"x") for length in lengths)
        assert scan(path, data) == SegmentReport(len(data), len(data))


def test_records_in_a_file_larger_than_a_window_are_sound(path: Path) -> None:
    data = segment(some_records(900))
    assert len(data) > 1 << 20
    assert scan(path, data) == SegmentReport(len(data), len(data))


@pytest.mark.parametrize("size", [0, 100, PAGE, 5 * PAGE])
def test_segment_of_zeros_or_nothing_has_no_damaged_record(path: Path, size: int) -> None:
    assert scan(path, bytes(size)) == SegmentReport(size)


def test_what_a_crash_leaves_is_not_within_the_segment(path: Path) -> None:
    whole = segment(some_records())
    values = random.Random(2)
    for _ in range(100):
        torn = whole[: values.randrange(len(whole))] + bytes(values.choice((0, 100, 3 * PAGE)))
        assert scan(path, torn).within() == ()


def test_any_flipped_bit_is_turned_back(path: Path) -> None:
    whole = segment(some_records())
    values = random.Random(3)
    places = [(at, bit) for at in range(HEADER) for bit in range(8) if (at, bit) not in UNUSED]
    places += [(values.randrange(len(whole)), values.randrange(8)) for _ in range(150)]
    for at, bit in places:
        flipped = bytearray(whole)
        flipped[at] ^= 1 << bit
        assert healed(path, bytes(flipped)) == whole, (at, bit)


@pytest.mark.parametrize("kind", [FULL, FIRST, MIDDLE, LAST])
@pytest.mark.parametrize("bit", [1, 2, 4])
def test_the_wrong_type_of_a_fragment_loses_at_most_its_record(
    path: Path, kind: int, bit: int
) -> None:
    written = [SAMPLES + b"a" * 100, SAMPLES + b"b" * 3 * PAGE, SAMPLES + b"c" * 100]
    data = bytearray(segment(written))
    at = {FULL: 0, FIRST: 108, MIDDLE: PAGE, LAST: 3 * PAGE}[kind]
    assert data[at] == kind
    data[at] ^= bit
    kept = records(healed(path, bytes(data)))
    assert kept[0] == written[0]
    assert kept[-1] == written[-1]


SNAPPY_RECORD = b"\xc8\x01\x00\x02\xfe\x01\x00\xfe\x01\x00\xfe\x01\x00\x1a\x01\x00"
"""200 bytes: the type of the record, then copies of it."""


@pytest.mark.parametrize(
    ("flags", "record"),
    [(SNAPPY, SNAPPY_RECORD), (ZSTD, b"\x28\xb5\x2f\xfd and more"), (0, SAMPLES + b"x" * 30)],
)
def test_the_wrong_flag_of_a_compression_is_corrected(
    path: Path, flags: int, record: bytes
) -> None:
    whole = segment([record], flags=flags) + segment([SAMPLES])
    wrong = {flags ^ SNAPPY, flags ^ ZSTD} - {SNAPPY | ZSTD}
    for other in wrong:
        data = bytes([FULL | other]) + whole[1:]
        assert healed(path, data) == whole
    assert scan(path, whole).damages == ()


def test_records_of_unknown_types_are_sound(path: Path) -> None:
    data = segment([bytes([kind]) + b"record" for kind in range(256)])
    assert scan(path, data).damages == ()


def test_snappy_is_recognized() -> None:
    assert is_snappy(SNAPPY_RECORD)
    for wrong in (b"", b"\xff" * 11, SNAPPY_RECORD[:-1], SNAPPY_RECORD + b"x", b"\x05\x01\x01"):
        assert not is_snappy(wrong)


@pytest.mark.parametrize("garbage", [b"\0" * 600, b"\xff" * 600, random.Random(4).randbytes(600)])
@pytest.mark.parametrize("at", [0, 1, 3, 10_000, PAGE - 300, PAGE - 3, 2 * PAGE])
def test_everything_but_the_damaged_records_is_kept(path: Path, garbage: bytes, at: int) -> None:
    written = some_records()
    whole = segment(written)
    data = whole[:at] + garbage + whole[at + 600 :]
    kept = records(healed(path, data))
    ends = [0, *(len(segment(written[: n + 1])) for n in range(len(written)))]
    whole_ones = [
        record
        for record, begin, end in zip(written, ends, ends[1:], strict=False)
        if end <= at or begin >= at + len(garbage)
    ]
    assert [record for record in whole_ones if record not in kept] == []
    assert kept == [record for record in written if record in kept], "in order and unchanged"


@pytest.mark.parametrize("content", [bytes(PAGE), random.Random(5).randbytes(PAGE)])
def test_a_destroyed_page_loses_the_records_that_reach_into_it(path: Path, content: bytes) -> None:
    written = [SAMPLES + bytes([n]) * 10_000 for n in range(1, 15)]
    whole = segment(written)
    kept = records(healed(path, whole[:PAGE] + content + whole[2 * PAGE :]))
    # The fourth record begins in the first page, the seventh ends in the third one.
    assert kept == written[:3] + written[7:]


def test_a_record_does_not_continue_after_zeros(path: Path) -> None:
    long = SAMPLES + b"x" * 4 * PAGE
    whole = segment([long, SAMPLES + b"y"])
    data = whole[:PAGE] + bytes(PAGE) + whole[2 * PAGE :]
    report = scan(path, data)
    assert all(not damage.mended for damage in report.damages)
    assert records(healed(path, data)) == [SAMPLES + b"y"]


def test_a_truncated_segment_loses_its_last_record(path: Path) -> None:
    written = some_records()
    whole = segment(written)
    for size in (len(whole) - 1, len(whole) // 2, PAGE, PAGE + 3):
        kept = records(healed(path, whole[:size]))
        assert kept == written[: len(kept)]
        assert len(segment(written[: len(kept) + 1])) >= size


def test_a_fragment_that_continues_nothing_is_lost_alone(path: Path) -> None:
    data = fragment(FIRST, SAMPLES * 100) + fragment(FULL, SAMPLES * 3) + segment([SAMPLES * 4])
    assert records(healed(path, data)) == [SAMPLES * 3, SAMPLES * 4]


def test_random_bytes_are_one_damage(path: Path) -> None:
    data = random.Random(6).randbytes(20 * PAGE) + segment([SAMPLES])
    (damage,) = scan(path, data).damages
    assert (damage.start, damage.stop) == (0, 20 * PAGE)


@pytest.mark.parametrize(("start", "stop"), [(0, 7), (5, 9), (100, 3 * PAGE), (PAGE - 3, PAGE)])
def test_filler_is_read_as_records_of_an_unknown_type(start: int, stop: int) -> None:
    data = b"".join(filler(start, stop))
    assert len(data) == stop - start
    before = b"" if start < HEADER else fragment(FULL, SAMPLES.ljust(start - HEADER, b"x"))
    if start >= HEADER or start == 0:
        assert len(records(before + data)) == bool(before)
