"""Checks of whole blocks: sound ones pass, and each kind of damage is reported as what it is."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from prometheus_backup.model import Verdict
from prometheus_backup.tsdb.faults import FaultKind
from prometheus_backup.tsdb.parallel import check_blocks
from prometheus_backup.tsdb.verification import check_block
from tests.support.contents import live_blocks


def flip(path: Path, offset: int, mask: int = 1) -> None:
    """Flip bits of one byte; a negative offset counts from the end."""
    data = bytearray(path.read_bytes())
    data[offset] ^= mask
    path.write_bytes(data)


def cut(path: Path, size: int) -> None:
    """Keep this many bytes; a negative size counts from the end."""
    path.write_bytes(path.read_bytes()[:size])


def change_meta(block: Path, **changes: object) -> None:
    """Change fields of meta.json."""
    meta = json.loads((block / "meta.json").read_bytes()) | changes
    (block / "meta.json").write_text(json.dumps(meta))


def change_stats(block: Path, **changes: int) -> None:
    """Change counts of meta.json."""
    stats = json.loads((block / "meta.json").read_bytes())["stats"]
    change_meta(block, stats=stats | changes)


def test_sound_blocks_pass_with_the_counts_of_their_meta_json(tsdb_blocks: Path) -> None:
    for block in live_blocks(tsdb_blocks):
        report = check_block(block)
        meta = json.loads((block / "meta.json").read_bytes())
        assert report.faults == ()
        assert report.verdict is Verdict.PASS
        assert report.series == meta["stats"]["numSeries"]
        assert report.chunks == {"xor": meta["stats"]["numChunks"]}
        assert report.samples == {"xor": meta["stats"]["numSamples"]}
        assert report.min_time_ms is not None
        assert report.max_time_ms is not None
        assert meta["minTime"] <= report.min_time_ms <= report.max_time_ms < meta["maxTime"]
        assert report.index_bytes == (block / "index").stat().st_size
        assert report.chunk_bytes == (block / "chunks" / "000001").stat().st_size


K = FaultKind
SEGMENT = "chunks/000001"
DAMAGES: list[tuple[str, Callable[[Path], object], FaultKind]] = [
    ("no meta.json", lambda b: (b / "meta.json").unlink(), K.META_MISSING),
    ("empty meta.json", lambda b: cut(b / "meta.json", 0), K.META_UNREADABLE),
    ("truncated meta.json", lambda b: cut(b / "meta.json", 60), K.META_UNREADABLE),
    ("meta.json of version 3", lambda b: change_meta(b, version=3), K.META_VERSION),
    ("wrong number of series", lambda b: change_stats(b, numSeries=7), K.META_COUNTS),
    ("wrong number of chunks", lambda b: change_stats(b, numChunks=7), K.META_COUNTS),
    ("wrong number of samples", lambda b: change_stats(b, numSamples=7), K.META_COUNTS),
    ("wrong number of tombstones", lambda b: change_stats(b, numTombstones=7), K.META_COUNTS),
    ("wrong times", lambda b: change_meta(b, maxTime=0, minTime=0), K.META_TIMES),
    ("no index", lambda b: (b / "index").unlink(), K.INDEX_MISSING),
    ("empty index", lambda b: cut(b / "index", 0), K.INDEX_TRUNCATED),
    ("truncated index", lambda b: cut(b / "index", -100), K.INDEX_TRUNCATED),
    ("index without its last byte", lambda b: cut(b / "index", -1), K.INDEX_TRUNCATED),
    ("wrong magic of the index", lambda b: flip(b / "index", 0), K.INDEX_HEADER),
    ("wrong version of the index", lambda b: flip(b / "index", 4, 4), K.INDEX_HEADER),
    ("table of contents", lambda b: flip(b / "index", -20), K.INDEX_TOC),
    ("symbols", lambda b: flip(b / "index", 20), K.INDEX_SYMBOLS),
    ("postings table", lambda b: flip(b / "index", -60), K.INDEX_POSTINGS_TABLE),
    ("no chunks", lambda b: shutil.rmtree(b / "chunks"), K.CHUNKS_MISSING),
    ("no segment", lambda b: (b / SEGMENT).unlink(), K.SEGMENT_MISSING),
    ("empty segment", lambda b: cut(b / SEGMENT, 0), K.SEGMENT_HEADER),
    ("wrong magic of a segment", lambda b: flip(b / SEGMENT, 1), K.SEGMENT_HEADER),
    ("truncated segment", lambda b: cut(b / SEGMENT, -20), K.SEGMENT_TRUNCATED),
    ("half a segment", lambda b: cut(b / SEGMENT, 4000), K.SEGMENT_TRUNCATED),
    ("a chunk", lambda b: flip(b / SEGMENT, 100), K.CHUNK_CORRUPT),
    ("the length of a chunk", lambda b: flip(b / SEGMENT, 8, 4), K.CHUNK_CORRUPT),
    ("no tombstones", lambda b: (b / "tombstones").unlink(), K.TOMBSTONES_MISSING),
    ("empty tombstones", lambda b: cut(b / "tombstones", 0), K.TOMBSTONES_CORRUPT),
    ("tombstones", lambda b: flip(b / "tombstones", -1), K.TOMBSTONES_CORRUPT),
]


@pytest.mark.parametrize(
    ("damage", "kind"), [row[1:] for row in DAMAGES], ids=[row[0] for row in DAMAGES]
)
def test_each_kind_of_damage_is_reported_as_what_it_is(
    data_dir: Path, damage: Callable[[Path], object], kind: FaultKind
) -> None:
    block = live_blocks(data_dir)[0]
    damage(block)
    report = check_block(block)
    assert report.faults[0].kind is kind, report.faults
    assert report.verdict is Verdict.FAIL


def test_the_fault_of_a_chunk_has_file_offset_and_series(data_dir: Path) -> None:
    block = live_blocks(data_dir)[0]
    flip(block / "chunks/000001", 100)
    (fault,) = check_block(block).faults
    assert (fault.file, fault.offset) == ("chunks/000001", 8)
    assert fault.series == 'devtools_value{series="0"}'


@pytest.mark.usefixtures("small_blocks_in_processes")
def test_blocks_are_checked_by_several_processes(data_dir: Path) -> None:
    blocks = live_blocks(data_dir)
    flip(blocks[1] / "chunks/000001", 100)
    read: list[int] = []
    reports = {r.folder: r for r in check_blocks(blocks, processes=2, watch=read.append)}
    assert [reports[b].verdict for b in blocks] == ["pass", "fail", "pass", "pass"]
    assert [reports[b] for b in blocks] == [check_block(b) for b in blocks]
    assert sum(read) >= sum(r.index_bytes + r.chunk_bytes for r in reports.values())
