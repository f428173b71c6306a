"""Decoding many entries at once gives the same result as decoding each alone."""

import random
import struct
from collections.abc import Iterator
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest

from bench.tsdb_writer import BlockSpec, Labels, write_block
from prometheus_backup.tsdb import series
from prometheus_backup.tsdb.entries import (
    NO_LABELS,
    SeriesBatch,
    decode_entries,
    split_entries,
)
from prometheus_backup.tsdb.faults import Fault, FaultKind, FaultLog
from prometheus_backup.tsdb.index import Index
from prometheus_backup.tsdb.postings import Postings
from prometheus_backup.tsdb.reading import ReadFile, aligned, crc32c, uvarint
from prometheus_backup.tsdb.series import SeriesWalk
from prometheus_backup.tsdb.varints import Ints

DAMAGES = 200
SERIES = 60
HOUR_MS = 3_600_000
SPEC = BlockSpec(
    min_time_ms=1_737_504_000_000,
    max_time_ms=1_737_504_000_000 + 2 * HOUR_MS,
    step_ms=60_000,
    level=1,
    segment_bytes=16 << 10,
)


def labels() -> list[Labels]:
    """Three targets with twenty metrics each. Some have one more label, one only a name."""
    return sorted(
        [
            (("__name__", "alone"),),
            *(
                (
                    ("__name__", f"metric_{number % 20:02d}"),
                    ("instance", f"10.0.0.{number // 20}:9100"),
                    *([("mode", "idle")] if number % 20 < 5 else []),
                    ("zone", "a"),
                )
                for number in range(SERIES - 1)
            ),
        ]
    )


@pytest.fixture(params=[1, 3], ids=["one chunk", "three chunks"])
def block(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A sound block whose series have this many chunks each."""
    spec = replace(SPEC, max_time_ms=SPEC.min_time_ms + request.param * 2 * HOUR_MS)
    return write_block(tmp_path, spec, labels(), random.Random(0))


def entries(index: bytes) -> Iterator[tuple[int, int]]:
    """Where the bodies of the entries begin and end."""
    _, position, end, *_ = struct.unpack(">6Q", index[-52:-4])
    while (position := aligned(position, 16)) < end:
        length, start = uvarint(index, position)
        position = start + length + 4
        yield start, start + length


def walk(block: Path) -> tuple[dict[str, list[int]], list[Fault]]:
    """All that is read of the series of a block, and what is wrong with them."""
    log = FaultLog(1000)
    found: dict[str, list[int]] = {item.name: [] for item in fields(SeriesBatch)}
    with ReadFile(block / "index") as file:
        index = Index(file, log)
        toc = index.read_toc()
        assert toc is not None
        assert index.check_symbols(toc)
        postings = Postings(index, toc)
        assert postings.check_table()
        for batch in SeriesWalk(index, toc, postings.all_series()).batches():
            before = len(found["references"])
            for name in found:
                found[name] += (getattr(batch, name) + (before if name == "ends" else 0)).tolist()
    return found, log.kept


def walk_one_at_a_time(
    block: Path, monkeypatch: pytest.MonkeyPatch
) -> tuple[dict[str, list[int]], list[Fault]]:
    """The same, with each entry decoded alone."""

    def none_of_them(window: bytes) -> tuple[Ints, list[bytes]]:
        del window
        return np.array([0]), []

    with monkeypatch.context() as patched:
        patched.setattr(series, "split_entries", none_of_them)
        return walk(block)


def test_all_entries_of_a_sound_block_are_decoded_at_once(block: Path) -> None:
    index = (block / "index").read_bytes()
    places = list(entries(index))
    base = places[0][0] - 1
    offsets, bodies = split_entries(index[base : places[-1][1] + 4] + bytes(16))
    decoded = decode_entries(bodies, 1000)
    assert decoded.in_order(NO_LABELS) == decoded.count == len(bodies) == SERIES == len(places)
    assert base + offsets[-1] == aligned(places[-1][1] + 4, 16)
    assert decoded.label_stops[-1] == sum(map(len, labels()))


def test_a_sound_block_gives_the_same_result_one_entry_at_a_time(
    block: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found, faults = walk(block)
    assert (found, faults) == walk_one_at_a_time(block, monkeypatch)
    assert faults == []


def test_wrong_entries_with_valid_checksums_give_the_same_result_one_at_a_time(
    block: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    choose = random.Random(7)
    sound = (block / "index").read_bytes()
    places = list(entries(sound))
    kinds = set()
    for _ in range(DAMAGES):
        index = bytearray(sound)
        for start, end in choose.sample(places, choose.choice([1, 1, 2, 5])):
            change = choose.choice([1, 2, 0x80, choose.randrange(1, 256)])
            index[choose.randrange(start, end)] ^= change
            index[end : end + 4] = crc32c(bytes(index[start:end])).to_bytes(4, "big")
        (block / "index").write_bytes(index)
        found, faults = walk(block)
        assert (found, faults) == walk_one_at_a_time(block, monkeypatch)
        kinds |= {fault.kind for fault in faults}
    assert kinds >= {FaultKind.SERIES_CORRUPT, FaultKind.SERIES_ORDER}
