"""Blocks with valid checksums and wrong contents, and sound ones with unusual contents."""

import os
import random
import struct
import tracemalloc
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from bench.tsdb_writer import (
    BlockSpec,
    ChunkMeta,
    Labels,
    RandomChunks,
    _index,
    write_block,
)
from prometheus_backup.model import Verdict
from prometheus_backup.tsdb.faults import FaultKind
from prometheus_backup.tsdb.reading import crc32c
from prometheus_backup.tsdb.verification import check_block

STEP_MS = 60_000
CHUNK_MS = 120 * STEP_MS
SPEC = BlockSpec(
    min_time_ms=1_737_504_000_000,
    max_time_ms=1_737_504_000_000 + 2 * CHUNK_MS,
    step_ms=STEP_MS,
    level=1,
    segment_bytes=1 << 20,
)
SERIES: list[Labels] = [(("__name__", "m"), ("series", f"{n:03d}")) for n in range(8)]


def _chunks() -> list[list[ChunkMeta]]:
    """The chunks in the index: two per series, one after the other in one segment."""
    size = len(RandomChunks(random.Random(0), STEP_MS).framed(SPEC.min_time_ms))
    return [
        [
            (
                SPEC.min_time_ms + chunk * CHUNK_MS,
                SPEC.min_time_ms + (chunk + 1) * CHUNK_MS - STEP_MS,
                8 + (2 * number + chunk) * size,
            )
            for chunk in range(2)
        ]
        for number in range(len(SERIES))
    ]


@dataclass
class Contents:
    """The contents of an index, for a test to change."""

    series: list[Labels] = field(default_factory=lambda: list(SERIES))
    chunks: list[list[ChunkMeta]] = field(default_factory=_chunks)

    def index(self) -> bytes:
        """The index, with valid checksums."""

        def each() -> Iterator[list[ChunkMeta]]:
            yield from self.chunks

        return _index(self.series, each())


@pytest.fixture
def block(tmp_path: Path) -> Path:
    """A sound block of eight series."""
    return write_block(tmp_path, SPEC, SERIES, random.Random(0))


def test_the_unchanged_block_is_sound(block: Path) -> None:
    assert Contents().index() == (block / "index").read_bytes()
    assert check_block(block).faults == ()


def _two_series_swapped(contents: Contents) -> None:
    contents.series[3], contents.series[4] = contents.series[4], contents.series[3]


def _a_series_twice(contents: Contents) -> None:
    contents.series[4] = contents.series[3]


def _labels_not_sorted(contents: Contents) -> None:
    contents.series[4] = (("series", "004"), ("__name__", "m"))


def _a_label_name_twice(contents: Contents) -> None:
    contents.series[4] = (("__name__", "m"), ("series", "003"), ("series", "004"))


def _a_reference_into_a_chunk(contents: Contents) -> None:
    begin, end, reference = contents.chunks[4][0]
    contents.chunks[4][0] = (begin, end, reference + 1)


def _a_chunk_of_another_series(contents: Contents) -> None:
    contents.chunks[4] = contents.chunks[3]


def _a_reference_to_a_segment_that_is_missing(contents: Contents) -> None:
    begin, end, _ = contents.chunks[7][1]
    contents.chunks[7][1] = (begin, end, 1 << 32 | 8)


def _a_chunk_that_begins_later_than_the_index_says(contents: Contents) -> None:
    begin, end, reference = contents.chunks[4][0]
    contents.chunks[4][0] = (begin + 1, end, reference)


def _chunks_that_overlap(contents: Contents) -> None:
    begin, _, reference = contents.chunks[4][0]
    contents.chunks[4][0] = (begin, contents.chunks[4][1][0], reference)


def _a_chunk_beyond_the_block(contents: Contents) -> None:
    begin, _, reference = contents.chunks[4][1]
    contents.chunks[4][1] = (begin, SPEC.max_time_ms, reference)


def _a_series_less(contents: Contents) -> None:
    del contents.series[4], contents.chunks[4]


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        (_two_series_swapped, FaultKind.SERIES_ORDER),
        (_a_series_twice, FaultKind.SERIES_ORDER),
        (_labels_not_sorted, FaultKind.SERIES_ORDER),
        (_a_label_name_twice, FaultKind.SERIES_ORDER),
        (_a_reference_into_a_chunk, FaultKind.CHUNK_REFERENCE),
        (_a_chunk_of_another_series, FaultKind.CHUNK_REFERENCE),
        (_a_reference_to_a_segment_that_is_missing, FaultKind.SEGMENT_MISSING),
        (_a_chunk_that_begins_later_than_the_index_says, FaultKind.CHUNK_START),
        (_chunks_that_overlap, FaultKind.CHUNK_ORDER),
        (_a_chunk_beyond_the_block, FaultKind.META_TIMES),
        (_a_series_less, FaultKind.CHUNK_UNREFERENCED),
    ],
)
def test_wrong_contents_of_an_index_with_valid_checksums_are_found(
    block: Path, change: Callable[[Contents], None], kind: FaultKind
) -> None:
    contents = Contents()
    change(contents)
    (block / "index").write_bytes(contents.index())
    report = check_block(block)
    assert kind in report.counts, report.faults
    # Only this place is reported, nothing around it.
    assert set(report.counts) <= {kind, FaultKind.META_COUNTS, FaultKind.CHUNK_UNREFERENCED}


def test_a_series_is_named_in_the_fault_of_its_chunk(block: Path) -> None:
    contents = Contents()
    _a_chunk_that_begins_later_than_the_index_says(contents)
    (block / "index").write_bytes(contents.index())
    (fault,) = check_block(block).faults
    assert fault.series == 'm{series="004"}'
    assert fault.offset == contents.chunks[4][0][2]


def _replace_section(index: bytes, old: bytes, new: bytes) -> bytes:
    """Replace the body of a section and fix its checksum."""
    assert index.count(old) == 1
    at = index.index(old)
    stop = at + len(old)
    return index[:at] + new + crc32c(new).to_bytes(4, "big") + index[stop + 4 :]


def test_postings_with_another_series_are_found(block: Path) -> None:
    index = (block / "index").read_bytes()
    lists = [index[i : i + 8] for i in range(len(index) - 8) if index[i - 4 : i + 4] == ONE_SERIES]
    first, second = lists[0], lists[1]
    (block / "index").write_bytes(_replace_section(index, first, second))
    (fault,) = check_block(block).faults
    assert fault.kind is FaultKind.INDEX_POSTINGS


ONE_SERIES = struct.pack(">II", 8, 1)
"""The beginning of a list of one series: its length and count."""


def test_a_list_of_all_series_that_lacks_one_is_found(block: Path) -> None:
    index = (block / "index").read_bytes()
    references = _all_series(index)
    wrong = [*references[:-1], references[-1] + 1]
    body = struct.pack(">I8I", 8, *references)
    at = index.index(struct.pack(">I", len(body)) + body) + 4
    new = struct.pack(">I8I", 8, *wrong)
    changed = index[:at] + new + crc32c(new).to_bytes(4, "big") + index[at + len(new) + 4 :]
    (block / "index").write_bytes(changed)
    report = check_block(block)
    assert set(report.counts) == {FaultKind.INDEX_POSTINGS}
    assert "all series" in report.faults[0].detail


def _all_series(index: bytes) -> tuple[int, ...]:
    """The first list of the postings: all series."""
    at = struct.unpack(">6QI", index[-52:])[4]
    return struct.unpack(">8I", index[at + 8 : at + 40])


def test_symbols_that_are_not_sorted_are_found(block: Path) -> None:
    index = (block / "index").read_bytes()
    length = int.from_bytes(index[5:9], "big")
    body = index[9 : 9 + length]
    wrong = body.replace(b"\x03003", b"\x03XXX").replace(b"\x03004", b"\x03003")
    wrong = wrong.replace(b"\x03XXX", b"\x03004")
    (block / "index").write_bytes(_replace_section(index, body, wrong))
    assert check_block(block).faults[0].kind is FaultKind.INDEX_SYMBOLS


def test_a_tombstone_that_ends_before_it_begins_is_found(block: Path) -> None:
    entry = bytes((1, 10, 8))  # of series 1, from 5 to 4
    header = bytes.fromhex("0130ba3001")
    (block / "tombstones").write_bytes(header + entry + crc32c(entry).to_bytes(4, "big"))
    assert check_block(block).faults[0].kind is FaultKind.TOMBSTONES_CORRUPT


def test_faults_beyond_the_limit_are_counted(block: Path) -> None:
    segment = block / "chunks/000001"
    body = bytearray(segment.read_bytes())
    size = (len(body) - 8) // 16
    for number in range(16):
        body[8 + number * size + 50] ^= 1
    segment.write_bytes(body)
    report = check_block(block, keep=5)
    assert len(report.faults) == 5
    assert report.counts == {FaultKind.CHUNK_CORRUPT: 16}
    assert report.total_faults == 16
    assert report.total_chunks == 0
    assert report.series == len(SERIES)


def test_pipes_are_not_waited_for(block: Path) -> None:
    for name in ("index", "tombstones", "meta.json"):
        (block / name).unlink()
        os.mkfifo(block / name)
    report = check_block(block)
    assert report.verdict is Verdict.INCONCLUSIVE
    assert report.counts == {FaultKind.UNREADABLE: 3}
    assert "not a regular file" in report.faults[0].detail


def test_an_index_of_prometheus_2_0_is_not_called_corrupt(block: Path) -> None:
    index = bytearray((block / "index").read_bytes())
    index[4] = 1
    (block / "index").write_bytes(index)
    assert check_block(block).verdict is Verdict.INCONCLUSIVE


def test_memory_does_not_grow_with_the_block(tmp_path: Path) -> None:
    peaks = []
    series: list[Labels] = [(("__name__", "m"), ("series", f"{n:05d}")) for n in range(500)]
    for hours in (20, 80):
        spec = replace(SPEC, max_time_ms=SPEC.min_time_ms + hours * 3_600_000)
        folder = write_block(tmp_path, spec, series, random.Random(0))
        tracemalloc.start()
        report = check_block(folder)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert report.verdict is Verdict.PASS
    assert report.chunk_bytes > 20_000_000
    assert max(peaks) < 8_000_000


def test_an_index_of_version_3_is_read_as_prometheus_reads_it(block: Path) -> None:
    index = bytearray((block / "index").read_bytes())
    index[4] = 3
    (block / "index").write_bytes(index)
    report = check_block(block)
    assert report.verdict is Verdict.PASS
    assert report.series == len(SERIES)


@pytest.mark.parametrize("count", [1, 127, 128, 20_000])
def test_a_series_may_have_any_number_of_labels(tmp_path: Path, count: int) -> None:
    series: list[Labels] = [
        (("__name__", "a"), ("job", "x")),
        tuple((f"label_{number:06d}", "x") for number in range(count)),
    ]
    report = check_block(write_block(tmp_path, SPEC, series, random.Random(0)))
    assert report.faults == ()
    assert report.series == 2


@pytest.mark.parametrize("size", [100, 1 << 20, 5 << 20])
def test_a_label_value_may_have_any_length(tmp_path: Path, size: int) -> None:
    series: list[Labels] = [
        (("__name__", "m"), ("job", "x")),
        (("__name__", "m"), ("job", "y" * size)),
        (("__name__", "m"), ("job", "z")),
    ]
    block = write_block(tmp_path, SPEC, series, random.Random(0))
    assert check_block(block).faults == ()
    contents = Contents(series, _chunks()[:3])
    contents.chunks[1][0] = (contents.chunks[1][0][0] + 1, *contents.chunks[1][0][1:])
    (block / "index").write_bytes(contents.index())
    (fault,) = check_block(block).faults
    assert len(fault.series) > size


def test_a_series_may_have_more_chunks_than_fit_into_a_window(tmp_path: Path) -> None:
    series: list[Labels] = [(("__name__", "a"),)]
    spec = replace(SPEC, max_time_ms=SPEC.min_time_ms + 70_000 * 120, step_ms=1)
    block = write_block(tmp_path, spec, series, random.Random(0))
    assert (block / "index").stat().st_size > 1 << 18
    report = check_block(block)
    assert report.faults == ()
    assert report.total_chunks == 70_000


def test_many_faults_in_a_row_are_all_found(tmp_path: Path) -> None:
    series: list[Labels] = [(("__name__", "m"), ("series", f"{n:05d}")) for n in range(300)]
    block = write_block(tmp_path, SPEC, series, random.Random(0))
    (block / "index").write_bytes(Contents(series[::-1], _chunks()[:1] * 300).index())
    assert check_block(block).counts[FaultKind.SERIES_ORDER] == 299
