"""Reading block directories, and other files that may be in them or next to them."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from devtools.blocks import BlockSpec
from prometheus_backup.errors import SnapshotUnusable
from prometheus_backup.model import ms_from_instant
from prometheus_backup.tsdb.block import MUTABLE, list_blocks, live_ulids, read_block, read_meta
from tests.support.contents import live_blocks, tree
from tests.support.runs import bare_environment, without_privileges

ULID = "01JJ5W0B8ZC6X3M1S4T9Q2V7KD"


def change_meta(block: Path, **changes: Any) -> None:
    """Rewrite fields of a block's meta.json; None removes one."""
    meta = json.loads((block / "meta.json").read_bytes()) | changes
    kept = {name: value for name, value in meta.items() if value is not None}
    (block / "meta.json").write_text(json.dumps(kept))


def test_blocks_are_read_from_meta_json_and_sorted_by_time(
    tsdb_blocks: Path, tsdb_block_spec: BlockSpec
) -> None:
    blocks = list_blocks(tsdb_blocks).blocks
    assert {b.ulid for b in blocks} == {path.name for path in live_blocks(tsdb_blocks)}
    assert len(blocks) == tsdb_block_spec.blocks
    assert blocks[0].min_time_ms == ms_from_instant(tsdb_block_spec.min_time)
    assert [b.min_time_ms for b in blocks] == sorted(b.min_time_ms for b in blocks)
    for block in blocks:
        meta = json.loads((tsdb_blocks / block.ulid / "meta.json").read_bytes())
        assert (block.min_time_ms, block.max_time_ms) == (meta["minTime"], meta["maxTime"])
        assert (block.level, block.sources, block.parents) == (1, (block.ulid,), ())
        assert block.stats == meta["stats"]
        assert block.stats["numSeries"] == tsdb_block_spec.series


def test_all_files_of_a_block_are_listed_with_their_sizes(tsdb_blocks: Path) -> None:
    for block in list_blocks(tsdb_blocks).blocks:
        on_disk = tree(tsdb_blocks / block.ulid)
        assert {f.path: f.size for f in block.files} == {k: len(v) for k, v in on_disk.items()}
        assert {f.path for f in block.files} == {*MUTABLE, "index", "chunks/000001"}
        assert block.size == sum(map(len, on_disk.values()))


def test_sources_and_parents_of_a_compacted_block_are_read(data_dir: Path) -> None:
    block = live_blocks(data_dir)[0]
    parents = [{"ulid": ULID, "minTime": 0, "maxTime": 1}]
    change_meta(block, compaction={"level": 2, "sources": [ULID, block.name], "parents": parents})
    read = read_block(block)
    assert (read.level, read.sources, read.parents) == (2, (ULID, block.name), (ULID,))


def test_entries_that_are_not_named_like_a_block_are_ignored(data_dir: Path) -> None:
    names = live_ulids(data_dir)
    for name in ("wal", "chunks_head", f"{ULID}.tmp-for-creation", f"{ULID}.tmp", "snapshots"):
        (data_dir / name).mkdir()
    (data_dir / "lock").write_text("")
    assert {b.ulid for b in list_blocks(data_dir).blocks} == names == live_ulids(data_dir)


def test_files_that_prometheus_does_not_know_are_part_of_the_block(data_dir: Path) -> None:
    block = live_blocks(data_dir)[0]
    (block / "no-compact-mark.json").write_text("{}")
    (block / "chunks" / "000002").write_bytes(b"abc")
    found = {f.path: f.size for f in read_block(block).files}
    assert found["no-compact-mark.json"] == 2
    assert found["chunks/000002"] == 3


@pytest.mark.parametrize(
    ("meta", "reason"),
    [
        (None, "meta.json is missing"),
        (b"", "not valid JSON"),
        (b'{"ulid": "01J', "not valid JSON"),
        (bytes(300), "not valid JSON"),
        (b"[" * 100_000, "nested too deeply"),
        (b'{"minTime": NaN}', "not valid JSON"),
        (b"[]", "not a JSON object"),
        (b'{"ulid": "../../x"}', "not a ULID"),
        (b"\xef\xbb\xbf{}", "not valid JSON"),
        ("{}".encode("utf-16"), "byte order mark"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_a_block_without_a_readable_meta_json_is_unusable(
    data_dir: Path, meta: bytes | None, reason: str
) -> None:
    block = live_blocks(data_dir)[2]
    (block / "meta.json").unlink()
    if meta is not None:
        (block / "meta.json").write_bytes(meta)
    assert read_meta(block) is None
    listed = list_blocks(data_dir)
    assert len(listed.blocks) == 3
    assert reason in listed.unusable[block.name]
    assert "Error(" not in listed.unusable[block.name]
    # Its name still counts as an existing block.
    assert live_ulids(data_dir) >= {block.name}
    assert len(live_ulids(data_dir)) == 4


@pytest.mark.parametrize(
    "changes",
    [
        {"minTime": None},
        {"maxTime": "soon"},
        {"minTime": 4102444800000},
        {"minTime": 1 << 63},
        {"version": 2},
        {"version": None},
        {"compaction": {"level": "x"}},
        {"compaction": {"sources": ["garbage"]}},
        {"compaction": {"parents": ["x"]}},
        {"stats": {"numSeries": "many"}},
        {"stats": {"numSeries": -1}},
        {"stats": 7},
    ],
    ids=str,
)
def test_a_meta_json_that_prometheus_would_not_load_is_unusable(
    data_dir: Path, changes: dict[str, Any]
) -> None:
    block = live_blocks(data_dir)[0]
    change_meta(block, **changes)
    with pytest.raises(
        SnapshotUnusable, match=rf"cannot read block {block}: its meta\.json"
    ) as got:
        read_block(block)
    assert got.value.exit_code == 22
    assert set(list_blocks(data_dir).unusable) == {block.name}


@pytest.mark.parametrize(
    "changes",
    [{"compaction": None}, {"compaction": {"level": -1}}, {"compaction": {"sources": None}}],
    ids=str,
)
def test_what_prometheus_loads_all_the_same_is_read(
    data_dir: Path, changes: dict[str, Any]
) -> None:
    block = live_blocks(data_dir)[0]
    change_meta(block, **changes)
    read = read_block(block)
    assert read.level >= 0
    assert read.sources == ()


def test_a_block_without_its_chunk_files_is_unusable(data_dir: Path) -> None:
    block = live_blocks(data_dir)[0]
    for segment in (block / "chunks").iterdir():
        segment.unlink()
    assert "has no chunk file" in list_blocks(data_dir).unusable[block.name]


def test_a_folder_that_cannot_be_listed_is_an_error(data_dir: Path) -> None:
    """A walk that passes over it would find a block without chunks."""
    block = live_blocks(data_dir)[0]
    (block / "chunks").chmod(0)
    script = "import sys; from pathlib import Path; from prometheus_backup.tsdb.block import *\n"
    script += "from prometheus_backup.errors import SnapshotUnusable\n"
    script += "try: list_blocks(Path(sys.argv[1]))\nexcept SnapshotUnusable as e: print(e.message)"
    done = subprocess.run(
        [*without_privileges(), sys.executable, "-c", script, str(data_dir)],
        env=bare_environment({}),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout == f"cannot read block {block}: Permission denied\n", done.stderr


def test_a_block_is_identified_by_its_meta_json_not_by_its_directory(data_dir: Path) -> None:
    block = live_blocks(data_dir)[0]
    block.rename(data_dir / ULID)
    assert block.name in live_ulids(data_dir)
    assert ULID not in live_ulids(data_dir)


def test_links_and_pipes_in_a_block_are_refused_not_followed(data_dir: Path) -> None:
    first, second = live_blocks(data_dir)[:2]
    (first / "chunks" / "000002").symlink_to("/etc/hostname")
    os.mkfifo(second / "chunks" / "000002")
    for block in (first, second):
        with pytest.raises(SnapshotUnusable, match="chunks/000002 is not a regular file"):
            read_block(block)


def test_a_file_name_that_is_not_allowed_in_a_manifest_is_refused(data_dir: Path) -> None:
    block = live_blocks(data_dir)[0]
    (block / "a\nb").write_text("")
    with pytest.raises(SnapshotUnusable, match="control characters"):
        read_block(block)


def test_a_missing_directory_is_reported(tmp_path: Path) -> None:
    for look in (list_blocks, live_ulids):
        with pytest.raises(SnapshotUnusable, match=f"cannot read {tmp_path / 'absent'}: No such"):
            look(tmp_path / "absent")
    assert list_blocks(tmp_path).blocks == ()
