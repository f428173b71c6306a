"""Blocks of real Prometheus servers: sound ones pass, and all flipped bits are found except where
documented.
"""

import json
import random
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from devtools.fetch_prometheus import PrometheusBinaries
from devtools.processes import clean_environment
from prometheus_backup.model import Verdict
from prometheus_backup.tsdb.faults import FaultKind
from prometheus_backup.tsdb.reading import crc32c, uvarint
from prometheus_backup.tsdb.verification import BlockReport, check_block, check_mutable
from tests.support.contents import live_blocks
from tests.support.pages import DOCS
from tests.support.real_blocks import make_real_blocks

FLIPS = 1000
"""Of each Prometheus: 2.x and 3.x."""
NO_DAMAGE = ("index", 4, 0)
"""The bit that makes version 2 of an index version 3: Prometheus reads both in the same way."""

# The bytes of meta.json in which changes are not detected, as listed in
# docs/explanation/verification.md.
UNCOVERED = {
    "times": rb'"(?:min|max)Time": (\d+)',
    "level": rb'"level": (\d+)',
    "sources": rb'"sources": (\[[^\]]*\])',
    "parents": rb'"parents": (\[[^\]]*\])',
    "optional": rb'("(?:parents|hints|failed|deletable)")',
    "hints": rb'"hints": (\[[^\]]*\])',
    "floats": rb'"(numFloatSamples)"',
    "space": rb"(\s+)",
}


@pytest.fixture(scope="session")
def real_blocks(
    tmp_path_factory: pytest.TempPathFactory,
    prometheus_binaries: PrometheusBinaries,
    tsdb_blocks: Path,
) -> Path:
    """Snapshots of 2.x and 3.x with blocks of every kind. Tests must not change them."""
    directory = tmp_path_factory.mktemp("real-blocks")
    return make_real_blocks(directory, prometheus_binaries, tsdb_blocks)


def metas(blocks: Path) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Each block with its meta.json."""
    for block in live_blocks(blocks):
        yield block, json.loads((block / "meta.json").read_bytes())


def promtool(binaries: PrometheusBinaries, *arguments: str, home: Path) -> str:
    """The output of promtool, which must succeed."""
    done = subprocess.run(
        [str(binaries.promtool), "tsdb", *arguments],
        env=clean_environment(home),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_blocks_are_of_every_kind(real_blocks: Path) -> None:
    reports = [check_block(block) for block in live_blocks(real_blocks)]
    texts = [(block / "meta.json").read_text() for block in live_blocks(real_blocks)]
    met = {encoding for report in reports for encoding in report.chunks}
    assert met == {"xor", "histogram", "float-histogram"}
    assert sum("from-out-of-order" in text for text in texts) == 1
    assert sum('"level": 2' in text for text in texts) == 2
    assert sum((b / "chunks/000002").exists() for b in live_blocks(real_blocks)) == 2
    assert sum(report.tombstones for report in reports) >= 3


def test_sound_blocks_pass_with_the_counts_that_promtool_has(
    real_blocks: Path, prometheus_binaries: PrometheusBinaries, tmp_path: Path
) -> None:
    blocks = tmp_path / "blocks"
    shutil.copytree(real_blocks, blocks)  # promtool writes into the directory
    listed = promtool(prometheus_binaries, "list", str(blocks), home=tmp_path)
    rows = {row.split()[0]: row.split() for row in listed.splitlines()[1:]}
    for block in live_blocks(real_blocks):
        report = check_block(block)
        assert report.faults == ()
        assert report.verdict is Verdict.PASS
        counts = [report.total_samples, report.total_chunks, report.series]
        assert [int(cell) for cell in rows[block.name][4:7]] == counts
        analysed = promtool(
            prometheus_binaries, "analyze", "--extended", str(blocks), block.name, home=tmp_path
        )
        (series,) = re.findall(r"^(?:Total )?Series: (\d+)$", analysed, re.MULTILINE)
        assert int(series) == report.series


@contextmanager
def flipped(path: Path, offset: int, bit: int) -> Iterator[None]:
    """Flip one bit of a file, and flip it back at the end."""
    with path.open("r+b", buffering=0) as file:
        file.seek(offset)
        (byte,) = file.read(1)
        for value in (byte ^ 1 << bit, byte):
            file.seek(offset)
            file.write(bytes((value,)))
            if value != byte:
                yield


def uncovered(meta: bytes) -> dict[int, str]:
    """The offsets in a meta.json where changes are not detected, each with the name of its rule."""
    return {
        offset: name
        for name, pattern in UNCOVERED.items()
        for match in re.finditer(pattern, meta)
        for offset in range(*match.span(1))
    }


def escapes(block: Path, flips: Iterator[tuple[Path, int, int]]) -> list[tuple[Path, int]]:
    """The flips that the check of the block does not find."""
    missed = []
    for path, offset, bit in flips:
        if (path.name, offset, bit) == NO_DAMAGE:
            continue
        with flipped(path, offset, bit):
            # What the check of meta.json and tombstones finds, the whole check finds, too.
            if not check_mutable(block).counts and not check_block(block).counts:
                missed.append((path, offset))
    return missed


def random_flips(block: Path, count: int, seed: int) -> Iterator[tuple[Path, int, int]]:
    """Flips of random bits, spread evenly over the files of a block."""
    choose = random.Random(seed)
    files = sorted(path for path in block.rglob("*") if path.is_file())
    for _ in range(count):
        path = choose.choice(files)
        yield path, choose.randrange(path.stat().st_size), choose.randrange(8)


def test_random_bit_flips_are_found_except_where_documented(
    real_blocks: Path, tmp_path: Path
) -> None:
    shutil.copytree(real_blocks, tmp_path / "blocks")
    blocks = live_blocks(tmp_path / "blocks")
    assert len(blocks) == 5
    for number, block in enumerate(blocks):
        escaped = escapes(block, random_flips(block, FLIPS // len(blocks), number))
        allowed = uncovered((block / "meta.json").read_bytes())
        assert [(p.name, o) for p, o in escaped if p.name != "meta.json"] == []
        assert [offset for _, offset in escaped if offset not in allowed] == []
        assert check_block(block).faults == (), "every flip was undone"


def test_a_flip_in_any_byte_of_index_or_tombstones_is_found(
    real_blocks: Path, tmp_path: Path
) -> None:
    block = min(live_blocks(real_blocks), key=lambda b: (b / "index").stat().st_size)
    shutil.copytree(block, tmp_path / block.name)
    block = tmp_path / block.name
    choose = random.Random(0)
    each_byte = (
        (block / name, offset, choose.randrange(8))
        for name in ("index", "tombstones")
        for offset in range((block / name).stat().st_size)
    )
    assert escapes(block, each_byte) == []


def test_undetected_changes_of_meta_json_are_documented(real_blocks: Path, tmp_path: Path) -> None:
    seen = set()
    late = [b for b, m in metas(real_blocks) if "hints" in m["compaction"]]
    compacted = [b for b, m in metas(real_blocks) if m["compaction"]["level"] == 2]
    for block in (*late, min(compacted, key=lambda b: (b / "index").stat().st_size)):
        shutil.copytree(block, tmp_path / block.name)
        meta = tmp_path / block.name / "meta.json"
        allowed = uncovered(meta.read_bytes())
        every_bit = ((meta, o, bit) for o in range(meta.stat().st_size) for bit in range(8))
        escaped = {offset for _, offset in escapes(tmp_path / block.name, every_bit)}
        assert escaped <= set(allowed)
        seen |= {allowed[offset] for offset in escaped}
    assert seen >= {"times", "level", "sources", "parents", "optional", "hints", "space"}


def two_segments(blocks: Path) -> Path:
    """A block with two segments."""
    return next(b for b in live_blocks(blocks) if (b / "chunks/000002").exists())


@pytest.fixture
def own_blocks(real_blocks: Path, tmp_path: Path) -> Path:
    """A copy of the blocks that the test may change."""
    shutil.copytree(real_blocks, tmp_path / "blocks")
    return tmp_path / "blocks"


def test_swapped_segments_are_found(own_blocks: Path) -> None:
    chunks = two_segments(own_blocks) / "chunks"
    (chunks / "000001").rename(chunks / "aside")
    (chunks / "000002").rename(chunks / "000001")
    (chunks / "aside").rename(chunks / "000002")
    report = check_block(chunks.parent)
    assert {FaultKind.CHUNK_REFERENCE, FaultKind.SEGMENT_TRUNCATED} <= set(report.counts)
    assert report.faults[0].file == "chunks/000001"
    assert report.faults[0].series.startswith("devtools_")


@pytest.mark.parametrize("name", ["000001", "000002"])
def test_a_removed_segment_is_found(own_blocks: Path, name: str) -> None:
    block = two_segments(own_blocks)
    (block / "chunks" / name).unlink()
    (fault,) = check_block(block).faults
    assert (fault.kind, fault.file) == (FaultKind.SEGMENT_MISSING, f"chunks/{name}")


def test_an_extra_segment_is_found(own_blocks: Path) -> None:
    chunks = two_segments(own_blocks) / "chunks"
    shutil.copy(chunks / "000002", chunks / "000003")
    (fault,) = check_block(chunks.parent).faults
    assert (fault.kind, fault.file) == (FaultKind.CHUNK_UNREFERENCED, "chunks/000003")


def test_the_index_of_another_block_is_found(own_blocks: Path) -> None:
    late, *_ = [b for b, m in metas(own_blocks) if "hints" in m["compaction"]]
    block = two_segments(own_blocks)
    for mine, other in ((block, late), (late, block)):
        index = (other / "index").read_bytes()
        kept = (mine / "index").read_bytes()
        (mine / "index").write_bytes(index)
        kinds = set(check_block(mine).counts)
        chunks = {FaultKind.CHUNK_UNREFERENCED, FaultKind.SEGMENT_TRUNCATED}
        assert kinds & chunks, "its chunks are not those in the index"
        assert FaultKind.META_TIMES in kinds, "nor are its times"
        (mine / "index").write_bytes(kept)


def test_the_meta_json_of_another_block_is_found(own_blocks: Path) -> None:
    first, second = live_blocks(own_blocks)[:2]
    shutil.copy(first / "meta.json", second / "meta.json")
    report = check_block(second)
    assert report.faults[0].kind is FaultKind.META_ULID
    assert first.name in report.faults[0].detail
    assert {FaultKind.META_TIMES, FaultKind.META_COUNTS} <= set(report.counts)


def test_tombstones_of_another_block_are_found_by_their_count(own_blocks: Path) -> None:
    with_some, *_ = [b for b, m in metas(own_blocks) if m["stats"].get("numTombstones")]
    without, *_ = [b for b, m in metas(own_blocks) if not m["stats"].get("numTombstones")]
    shutil.copy(with_some / "tombstones", without / "tombstones")
    (fault,) = check_block(without).faults
    assert fault.kind is FaultKind.META_COUNTS
    assert "tombstones" in fault.detail


def test_chunks_of_unknown_encoding_are_checked_by_checksum_and_reported_as_not_decoded(
    own_blocks: Path,
) -> None:
    late, *_ = [b for b, m in metas(own_blocks) if "hints" in m["compaction"]]
    segment = late / "chunks/000001"
    body = bytearray(segment.read_bytes())
    length, start = uvarint(bytes(body), 8)
    body[start] = 77
    stop = start + 1 + length
    body[stop : stop + 4] = crc32c(bytes(body[start:stop])).to_bytes(4, "big")
    segment.write_bytes(body)
    report = check_block(late)
    assert report.verdict is Verdict.PASS
    assert report.not_decoded == ("encoding-77",)
    body[start + 5] ^= 1
    segment.write_bytes(body)
    assert [fault.kind for fault in check_block(late).faults] == [FaultKind.CHUNK_CORRUPT]


@pytest.mark.parametrize(
    ("encoding", "name", "flags"),
    [(4, "xor2", 0), (5, "histogram-st", 0xC0), (6, "float-histogram-st", 0x80)],
)
def test_the_encodings_of_newer_versions_are_counted(
    own_blocks: Path, encoding: int, name: str, flags: int
) -> None:
    late, *_ = [b for b, m in metas(own_blocks) if "hints" in m["compaction"]]
    stats = json.loads((late / "meta.json").read_bytes())["stats"]
    segment = late / "chunks/000001"
    body = bytearray(segment.read_bytes())
    at = 8
    while at < len(body):
        length, start = uvarint(bytes(body), at)
        body[start] = encoding
        body[start + 1] |= flags  # counter reset, in the same bytes as the number of samples
        at = start + 1 + length + 4
        body[at - 4 : at] = crc32c(bytes(body[start : at - 4])).to_bytes(4, "big")
    segment.write_bytes(body)
    report = check_block(late)
    assert report.faults == ()
    assert report.samples == {name: stats["numSamples"]}
    assert report.chunks == {name: stats["numChunks"]}
    assert report.not_decoded == ()


def test_floats_and_histograms_are_compared_separately_if_meta_json_has_both(
    own_blocks: Path,
) -> None:
    block = two_segments(own_blocks)
    report = check_block(block)
    floats = report.samples["xor"]
    meta = json.loads((block / "meta.json").read_bytes())
    # Prometheus writes both since 3.6.
    for wrong, kinds in ((0, set()), (1, {FaultKind.META_COUNTS})):
        apart = {
            "numFloatSamples": floats - wrong,
            "numHistogramSamples": report.total_samples - floats + wrong,
        }
        meta["stats"] |= apart
        (block / "meta.json").write_text(json.dumps(meta))
        assert set(check_block(block).counts) == kinds


def test_the_page_lists_all_undetected_changes() -> None:
    page = (DOCS / "explanation" / "verification.md").read_text()
    section = page[page.index("## What it cannot see") :].split("\n## ")[0]
    listed = set(re.findall(r'`"(\w+)":?`', section))
    rules = b" ".join(UNCOVERED.values()).decode().replace("(?:min|max)Time", "minTime maxTime")
    assert listed == set(re.findall(r"[A-Za-z]{5,}", rules))


def test_samples_are_counted_by_encoding(real_blocks: Path) -> None:
    reports: list[BlockReport] = [check_block(block) for block in live_blocks(real_blocks)]
    for report in reports:
        assert report.samples.get("histogram") == report.samples.get("float-histogram")
    assert sum("histogram" in report.samples for report in reports) == 2
