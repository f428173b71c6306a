"""Which files are uploaded and which the store copies."""

from datetime import UTC, datetime

from prometheus_backup.backup.plan import BackupPlan, StoredCopy, plan_backup
from prometheus_backup.model import SourceBlock, SourceFile
from prometheus_backup.repository.manifest import (
    FinishedFile,
    Incomplete,
    Manifest,
    decode_manifest,
)
from tests.support.manifests import BACKUP_ID, OTHER_ULID, ULID, block, encoded, file

MUTABLE = frozenset({"meta.json", "tombstones"})
OLD_HASH = "ab" * 32
LEFT_HASH = "cd" * 32
LEFT_ID = "backup-20250121-020000"


def source(ulid: str = ULID, **sizes: int) -> SourceBlock:
    """A block of the snapshot: size by name; `chunks` is its first chunk file."""
    paths = {"chunks": "chunks/000001", "meta": "meta.json"}
    files = tuple(SourceFile(paths.get(name, name), size) for name, size in sizes.items())
    return SourceBlock(ulid, 0, 1, 1, (ulid,), (), {}, files)


def manifest(**sizes: int) -> Manifest:
    """A good backup of one block with these files, all with the hash `OLD_HASH`."""
    paths = {"chunks": "chunks/000001", "meta": "meta.json"}
    files = [file(paths.get(name, name), size=size) for name, size in sizes.items()]
    size = sum(sizes.values())
    totals = {
        "blocks": 1,
        "files": len(files),
        "bytes": size,
        "uploaded_bytes": size,
        "copied_bytes": 0,
    }
    text = encoded(blocks=[block(*files)], totals=totals, storage_size_bytes=size)
    return decode_manifest(text, backup_id=BACKUP_ID)


def left_by_a_dead_run(path: str, size: int) -> Incomplete:
    """A file, with the hash `LEFT_HASH`, finished by a run that never committed."""
    finished = FinishedFile(
        ulid=ULID, path=path, size=size, sha256=LEFT_HASH, key=f"{LEFT_ID}/{ULID}/{path}"
    )
    return Incomplete(
        run_id="dead",
        state="running",
        started_at=datetime(2025, 1, 21, tzinfo=UTC),
        finished=(finished,),
    )


def plan(
    *blocks: SourceBlock, previous: Manifest | None = None, dead: tuple[Incomplete, ...] = ()
) -> BackupPlan:
    """The plan for these blocks."""
    return plan_backup(
        blocks,
        backup_id="backup-20250123-020000",
        previous=previous,
        dead_runs=dead,
        mutable=MUTABLE,
    )


def test_the_first_backup_uploads_everything_in_order() -> None:
    made = plan(source(index=10, chunks=20), source(OTHER_ULID, index=30))
    assert [(f.ulid, f.path, f.size) for f in made.files] == [
        (ULID, "index", 10),
        (ULID, "chunks/000001", 20),
        (OTHER_ULID, "index", 30),
    ]
    assert made.uploads == made.files
    assert made.copies == ()


def test_a_file_of_the_same_name_and_size_under_the_same_ulid_is_copied() -> None:
    made = plan(source(index=10), previous=manifest(index=10))
    assert made.uploads == ()
    (copy,) = made.copies
    assert copy.known == StoredCopy(f"{BACKUP_ID}/{ULID}/index", OLD_HASH, salvaged=False)


def test_a_file_that_differs_in_size_name_or_ulid_is_uploaded() -> None:
    for block_ in (source(index=11), source(chunks=10), source(OTHER_ULID, index=10)):
        made = plan(block_, previous=manifest(index=10))
        assert made.copies == ()
        assert made.uploads == made.files


def test_mutable_files_are_uploaded_even_if_name_and_size_are_equal() -> None:
    made = plan(
        source(meta=10, tombstones=9, index=10),
        previous=manifest(meta=10, tombstones=9, index=10),
        dead=(left_by_a_dead_run("meta.json", 10), left_by_a_dead_run("tombstones", 9)),
    )
    assert [f.path for f in made.uploads] == ["meta.json", "tombstones"]
    assert [f.path for f in made.copies] == ["index"]


def test_files_of_a_dead_run_are_copied_and_marked_as_salvaged() -> None:
    made = plan(source(index=10, chunks=20), dead=(left_by_a_dead_run("index", 10),))
    (copy,) = made.copies
    assert copy.known == StoredCopy(f"{LEFT_ID}/{ULID}/index", LEFT_HASH, salvaged=True)
    assert [f.path for f in made.uploads] == ["chunks/000001"]


def test_a_good_backup_is_preferred_to_files_of_a_dead_run() -> None:
    dead = (left_by_a_dead_run("index", 10),)
    (copy,) = plan(source(index=10), previous=manifest(index=10), dead=dead).copies
    assert copy.known is not None
    assert (copy.known.sha256, copy.known.salvaged) == (OLD_HASH, False)


def test_a_block_found_corrupt_later_is_uploaded_and_not_copied() -> None:
    made = plan_backup(
        [source(index=10)],
        backup_id="backup-20250123-020000",
        previous=manifest(index=10),
        dead_runs=(),
        mutable=MUTABLE,
        corrupt=frozenset({ULID}),
    )
    assert made.copies == ()


def test_no_blocks_make_an_empty_plan() -> None:
    assert plan(previous=manifest(index=10)) == BackupPlan(())


def test_every_file_is_either_an_upload_or_a_copy() -> None:
    made = plan(source(index=10, chunks=20, meta=5), previous=manifest(index=10, meta=5))
    assert {*made.uploads, *made.copies} == {*made.files}
    assert len(made.uploads) + len(made.copies) == len(made.files) == 3
