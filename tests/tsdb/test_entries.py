"""Entries are decoded fast where they are regular: with the same outcome as with care."""

import random
import struct
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from bench.tsdb_writer import BlockSpec, Labels, write_block
from prometheus_backup.tsdb import series
from prometheus_backup.tsdb.entries import EntryDecoder, SeriesBatch
from prometheus_backup.tsdb.faults import Fault, FaultKind, FaultLog
from prometheus_backup.tsdb.index import Index
from prometheus_backup.tsdb.postings import Postings
from prometheus_backup.tsdb.reading import ReadFile, aligned, crc32c, uvarint
from prometheus_backup.tsdb.series import SeriesWalk

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
    """Three targets with twenty metrics each; some have a label more, and one only its name."""
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
    """A sound block, each of its series with so many chunks."""
    spec = replace(SPEC, max_time_ms=SPEC.min_time_ms + request.param * 2 * HOUR_MS)
    return write_block(tmp_path, spec, labels(), random.Random(0))


def entries(index: bytes) -> Iterator[tuple[int, int]]:
    """Where the bodies of the entries begin and end."""
    _, position, end, *_ = struct.unpack(">6Q", index[-52:-4])
    while (position := aligned(position, 16)) < end:
        length, start = uvarint(index, position)
        position = start + length + 4
        yield start, start + length


class Careful(EntryDecoder):
    """Looks at each entry alone."""

    def run(self, buf: bytes, base: int, batch: SeriesBatch) -> int:
        del buf, base, batch
        return 0


def walk(block: Path) -> tuple[SeriesBatch, list[Fault]]:
    """All that is read of the series of a block, and what is wrong with them."""
    log, whole = FaultLog(1000), SeriesBatch()
    with ReadFile(block / "index") as file:
        index = Index(file, log)
        toc = index.read_toc()
        assert toc is not None
        assert index.check_symbols(toc)
        postings = Postings(index, toc)
        assert postings.check_table()
        for batch in SeriesWalk(index, toc, postings.all_series()).batches():
            before = len(whole.references)
            whole.offsets += batch.offsets
            whole.labels += batch.labels
            whole.ends += [before + end for end in batch.ends]
            whole.references += batch.references
            whole.min_times += batch.min_times
            whole.max_times += batch.max_times
    return whole, log.kept


def walk_with_care(block: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[SeriesBatch, list[Fault]]:
    """The same, without what is fast."""
    with monkeypatch.context() as patched:
        patched.setattr(series, "EntryDecoder", Careful)
        return walk(block)


def test_all_entries_of_a_sound_block_are_decoded_fast(block: Path) -> None:
    index = (block / "index").read_bytes()
    places = list(entries(index))
    base = places[0][0] - 1
    batch = SeriesBatch()
    window = index[base : places[-1][1] + 4] + bytes(16)
    used = EntryDecoder(1000).run(window, base, batch)
    assert len(batch.offsets) == SERIES == len(places)
    assert base + used == aligned(places[-1][1] + 4, 16)
    assert sum(batch.labels) == sum(map(len, labels()))


def test_a_sound_block_is_read_as_it_is_with_care(
    block: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found, faults = walk(block)
    assert (found, faults) == walk_with_care(block, monkeypatch)
    assert faults == []


def test_wrong_entries_with_right_checksums_are_judged_as_they_are_with_care(
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
        assert (found, faults) == walk_with_care(block, monkeypatch)
        kinds |= {fault.kind for fault in faults}
    assert kinds >= {FaultKind.SERIES_CORRUPT, FaultKind.SERIES_ORDER}
