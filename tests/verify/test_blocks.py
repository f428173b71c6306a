"""Level `tsdb` of stored backups: blocks are downloaded and checked, and nothing is left behind."""

import contextlib
import hashlib
import json
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from devtools.fetch_prometheus import PrometheusBinaries
from devtools.prometheus import PrometheusFleet
from prometheus_backup.clock import SystemClock
from prometheus_backup.events import FileCopied, FileUploaded
from prometheus_backup.folder import Folder
from prometheus_backup.model import Level, Outcome
from prometheus_backup.repository.manifest import Block, decode, decode_manifest
from prometheus_backup.repository.repository import Repository
from prometheus_backup.repository.verification import Verification
from prometheus_backup.stores.base import ObjectStore
from prometheus_backup.stores.local import LocalStore
from prometheus_backup.verify.blocks import ScratchSpace, batches, open_scratch_space
from prometheus_backup.verify.run import Verifier, VerifyReport, select_backups
from tests.support import manifests
from tests.support.contents import live_blocks
from tests.support.faulty_stores import flip_a_bit
from tests.support.runs import Recorder, options, take_backup, transfer
from tests.support.store_wrappers import ReadRecorder
from tests.support.stored_backups import (
    LocalFiles,
    StoredBackups,
    block_keys,
    json_of,
    manifest_of,
    run_here,
)

SEGMENT = "/chunks/000001"


@pytest.fixture
def scratch(tmp_path: Path) -> Path:
    folder = tmp_path / "scratch"
    folder.mkdir()
    return folder


@pytest.fixture
def verify(repository_files: LocalFiles, scratch: Path) -> Iterator[Callable[..., Any]]:
    """Run `verify --level tsdb`, expect exit code `code`, return the results; leaves no files."""

    def run(*arguments: str, code: int) -> list[dict[str, Any]]:
        options = ("--level", "tsdb", "--scratch", str(scratch), "--json")
        done = run_here("verify", *options, *arguments, env=repository_files.environment())
        results = json_of(done, code=code)["results"]
        assert isinstance(results, list)
        return results

    yield run
    assert list(scratch.iterdir()) == []


def damage(files: LocalFiles, key: str, *, at: int = 100) -> None:
    """Flip one bit of an object."""
    body = bytearray(files.get(key))
    body[at] ^= 1
    files.put(key, bytes(body))


def segments(files: LocalFiles, backup: str) -> list[str]:
    """The keys of the first segment of each block."""
    return [key for key in block_keys(files, backup) if key.endswith(SEGMENT)]


def damage_at_the_source(files: LocalFiles, backup: str, key: str) -> None:
    """Make a backup of a corrupt block: damage the block, and put its new hash in the manifest."""
    before = hashlib.sha256(files.get(key)).hexdigest()
    damage(files, key)
    after = hashlib.sha256(files.get(key)).hexdigest()
    for name in ("metadata.json", "SHA256SUMS"):
        text = files.get(f"{backup}/{name}").decode()
        assert before in text
        files.put(f"{backup}/{name}", text.replace(before, after).encode())


def test_sound_blocks_pass_and_every_byte_was_read(
    repository_files: LocalFiles, stored: StoredBackups, verify: Callable[..., Any]
) -> None:
    first, second = verify("--all", code=0)

    for result, backup in ((first, stored.first), (second, stored.second)):
        totals = manifest_of(repository_files, backup)["totals"]
        sums = len(repository_files.get(f"{backup}/SHA256SUMS"))
        assert (result["verdict"], result["findings"], result["cause"]) == ("pass", [], "")
        assert result["bytes_read"] == totals["bytes"] + sums
        assert result["objects"] == totals["files"] + 1
    (listed, _) = json_of(run_here("list", "--json", env=repository_files.environment()))["backups"]
    assert listed["verified"]["level"] == "tsdb"


def test_a_bit_flipped_in_the_store_is_found_with_offset_and_series(
    repository_files: LocalFiles, stored: StoredBackups, verify: Callable[..., Any]
) -> None:
    key = segments(repository_files, stored.second)[1]
    damage(repository_files, key)

    (result,) = verify(stored.second, code=41)

    altered, unsound = result["findings"]
    assert (altered["kind"], altered["key"], altered["offset"]) == ("altered", key, None)
    assert (unsound["kind"], unsound["key"]) == ("unsound", key)
    assert unsound["offset"] is not None
    assert 0 <= unsound["offset"] <= 100
    assert "devtools_value{" in unsound["series"]
    assert "[chunk-corrupt]" in unsound["detail"]
    assert "when it was backed up" not in unsound["detail"]
    body = repository_files.get(f"{stored.second}/verification-tsdb.json")
    kept = decode(Verification, body)
    assert kept is not None
    assert (kept.findings[1].offset, kept.findings[1].series) == (
        unsound["offset"],
        unsound["series"],
    )
    shown = run_here("show", stored.second, env=repository_files.environment()).stdout
    assert f"{key} at {unsound['offset']:,}: " in shown
    assert unsound["series"] in shown


def test_damage_from_before_the_backup_is_found_only_at_level_tsdb_and_has_its_own_kind(
    repository_files: LocalFiles, stored: StoredBackups, verify: Callable[..., Any]
) -> None:
    key = segments(repository_files, stored.second)[0]
    damage_at_the_source(repository_files, stored.second, key)

    lower = run_here("verify", stored.second, env=repository_files.environment())
    (result,) = verify(stored.second, code=41)

    assert lower.returncode == 0
    (finding,) = result["findings"]
    assert (finding["kind"], finding["key"]) == ("unsound-at-source", key)
    assert finding["detail"].endswith(", already when it was backed up")


def test_a_block_damaged_before_the_backup_is_uploaded_again_and_the_others_are_copied(
    start_prometheus: PrometheusFleet,
    prometheus_3: PrometheusBinaries,
    data_dir: Path,
    tmp_path: Path,
    scratch: Path,
) -> None:
    """Level checksum does not notice the damage. The repaired block is uploaded again."""
    block = live_blocks(data_dir)[1]
    segment = block / "chunks" / "000001"
    sound = segment.read_bytes()
    segment.write_bytes(flip_a_bit(sound))
    store = LocalStore(tmp_path / "repository")
    server = start_prometheus(prometheus_3, data_dir)
    first = take_backup(server, store, options(skip_head=True)).manifest
    space = ScratchSpace(Folder.hold(scratch), 1)
    assert verify_on(space, store, first.backup_id).outcome is Outcome.FAULTY
    segment.write_bytes(sound)

    recorder = Recorder()
    second = take_backup(server, store, options(skip_head=True), listener=recorder).manifest

    uploaded = {e.key.split("/")[1] for e in recorder.of(FileUploaded) if "/chunks/" in e.key}
    copied = {e.key.split("/")[1] for e in recorder.of(FileCopied) if "/chunks/" in e.key}
    assert uploaded == {block.name}
    assert copied == {b.name for b in live_blocks(data_dir)} - {block.name}
    assert (
        verify_on(ScratchSpace(Folder.hold(scratch), 1), store, second.backup_id).outcome
        is Outcome.DONE
    )


def test_a_block_that_lacks_a_file_is_not_checked_and_the_others_are(
    repository_files: LocalFiles, stored: StoredBackups, verify: Callable[..., Any]
) -> None:
    gone, corrupt = segments(repository_files, stored.second)[:2]
    repository_files.delete(gone)
    index = gone.replace(SEGMENT, "/index")
    damage(repository_files, index)
    damage(repository_files, corrupt)

    (result,) = verify(stored.second, code=41)

    found = Counter((f["kind"], f["key"]) for f in result["findings"])
    assert found == {
        ("missing", gone): 1,
        ("altered", index): 1,
        ("altered", corrupt): 1,
        ("unsound", corrupt): 1,
    }


def test_a_rotation_takes_whole_blocks_and_each_once(
    repository_files: LocalFiles, stored: StoredBackups, verify: Callable[..., Any]
) -> None:
    bad = segments(repository_files, stored.second)[2]
    damage_at_the_source(repository_files, stored.second, bad)

    results: list[list[dict[str, Any]]] = []
    for _ in range(3):
        done = run_here("list", "--json", env=repository_files.environment())
        passed = json_of(done)["backups"][0]["verified"]["level"]
        assert passed == "checksum", "no part is the whole"
        code = 41 if _part_of(repository_files, stored.second, bad) == len(results) + 1 else 0
        results.append(verify("--all", "--subset", "next/3", code=code))

    for backup in (stored.first, stored.second):
        mine = [r for run in results for r in run if r["backup_id"] == backup]
        totals = manifest_of(repository_files, backup)["totals"]
        assert sum(r["objects"] for r in mine) == totals["files"] + 1
        assert [r["rotation"]["part"] for r in mine] == [1, 2, 3]
        found = [f["key"] for r in mine for f in r["findings"]]
        assert found == ([bad] if backup == stored.second else [])
    listed = json_of(run_here("list", "--json", env=repository_files.environment()))["backups"]
    assert [entry["good"] for entry in listed] == [True, False]
    assert listed[0]["verified"]["level"] == "tsdb"


def _part_of(files: LocalFiles, backup: str, key: str) -> int:
    """The part (of three) that a block is in."""
    from prometheus_backup.repository.rotation import assign

    blocks = manifest_of(files, backup)["blocks"]
    sizes = {b["ulid"]: sum(f["size"] for f in b["files"]) for b in blocks}
    sizes[f"{backup}/SHA256SUMS"] = len(files.get(f"{backup}/SHA256SUMS"))
    (ulid,) = [b["ulid"] for b in blocks if any(f["key"] == key for f in b["files"])]
    return assign(sizes, 3, seed=backup)[ulid]


class SmallScratch(ScratchSpace):
    """Scratch space with less room than its disk has."""

    free = 0

    @property
    def room(self) -> int:
        return self.free


def verify_on(scratch: ScratchSpace, store: ObjectStore, backup: str) -> VerifyReport:
    recorder = Recorder()
    repository = Repository(store, clock=SystemClock())
    verifier = Verifier(repository, transfer(recorder), Level.TSDB, recorder, scratch=scratch)
    return verifier.verify(select_backups(repository, [backup], every=False))


def test_a_block_that_does_not_fit_is_inconclusive_and_the_others_are_checked(
    repository_files: LocalFiles,
    stored: StoredBackups,
    scratch: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    blocks = manifest_of(repository_files, stored.first)["blocks"]
    sizes = {b["ulid"]: sum(f["size"] for f in b["files"]) for b in blocks}
    largest = max(sizes, key=lambda ulid: sizes[ulid])
    monkeypatch.setattr(SmallScratch, "free", sizes[largest] - 1)
    store = ReadRecorder(LocalStore(repository_files.root))

    report = verify_on(SmallScratch(Folder.hold(scratch), 1), store, stored.first)

    assert report.outcome is Outcome.PARTIAL
    (checked,) = report.checked
    assert f"block {largest} ({sizes[largest]:,} bytes) does not fit" in checked.cause
    assert "--scratch" in checked.cause
    assert checked.cause.count("does not fit") == 1
    read = {key.split("/")[1] for key in store.read}
    assert read == set(sizes) - {largest}


def test_blocks_in_scratch_never_exceed_the_free_space(
    repository_files: LocalFiles,
    stored: StoredBackups,
    scratch: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    blocks = manifest_of(repository_files, stored.first)["blocks"]
    room = max(sum(f["size"] for f in b["files"]) for b in blocks)
    monkeypatch.setattr(SmallScratch, "free", room)
    sizes = []

    def measure(key: str) -> None:
        del key
        sizes.append(sum(p.stat().st_size for p in scratch.rglob("*") if p.is_file()))

    store = ReadRecorder(LocalStore(repository_files.root), before=measure)
    report = verify_on(SmallScratch(Folder.hold(scratch), 1), store, stored.first)

    assert report.outcome is Outcome.DONE
    assert 0 < max(sizes) <= room
    assert list(scratch.iterdir()) == []


@pytest.mark.usefixtures("small_blocks_in_processes")
def test_a_killed_checking_process_makes_the_result_inconclusive(
    repository_files: LocalFiles, stored: StoredBackups, scratch: Path
) -> None:
    """As the kernel does when memory runs out."""
    over = threading.Event()

    def kill_them() -> None:
        me = psutil.Process()
        while not over.wait(0.01):
            for child in me.children():
                with contextlib.suppress(psutil.Error):
                    if any("spawn_main" in word for word in child.cmdline()):
                        child.kill()

    killer = threading.Thread(target=kill_them)
    killer.start()
    try:
        report = verify_on(
            ScratchSpace(Folder.hold(scratch), 2), LocalStore(repository_files.root), stored.second
        )
    finally:
        over.set()
        killer.join()

    assert report.outcome is Outcome.PARTIAL
    assert "its process ended with -9" in report.checked[0].cause
    assert list(scratch.iterdir()) == []


def test_many_faults_are_counted_and_the_first_are_shown(
    repository_files: LocalFiles, stored: StoredBackups, verify: Callable[..., Any]
) -> None:
    key = segments(repository_files, stored.second)[0]
    body = repository_files.get(key)
    repository_files.put(key, body[:8] + bytes(len(body) - 8))

    (result,) = verify(stored.second, code=41)

    unsound = [f for f in result["findings"] if f["kind"] == "unsound"]
    assert 1 < len(unsound) <= 21
    assert any("more faults" in f["detail"] for f in unsound) == (len(unsound) == 21)


def test_an_object_that_grew_since_the_listing_does_not_fill_the_disk(
    repository_files: LocalFiles, stored: StoredBackups, scratch: Path
) -> None:
    key = segments(repository_files, stored.second)[0]
    size = len(repository_files.get(key))

    class Growing(ReadRecorder):
        """A store in which an object becomes large when it is read."""

        def stream(self, key_read: str) -> Iterator[bytes]:
            yield from super().stream(key_read)
            if key_read == key:
                for _ in range(64):
                    self.sent = getattr(self, "sent", 0) + (1 << 20)
                    yield bytes(1 << 20)

    store = Growing(LocalStore(repository_files.root))
    report = verify_on(ScratchSpace(Folder.hold(scratch), 1), store, stored.second)

    assert report.outcome is Outcome.FAULTY
    assert [f.key for f in report.checked[0].result.findings if f.kind == "altered"] == [key]
    assert getattr(store, "sent", 0) <= size + (2 << 20)


def test_what_a_killed_run_left_is_removed(
    stored: StoredBackups, scratch: Path, verify: Callable[..., Any]
) -> None:
    left = scratch / "prometheus-backup-verify" / "data" / manifests.ULID
    left.mkdir(parents=True)
    (left / "index").write_bytes(b"left")

    verify(stored.first, code=0)


def test_two_verifications_in_one_scratch_directory_are_refused(
    repository_files: LocalFiles, stored: StoredBackups, scratch: Path
) -> None:
    command = ("verify", stored.first, "--level=tsdb", f"--scratch={scratch}", "--json")
    with open_scratch_space(scratch, processes=1):
        done = run_here(*command, env=repository_files.environment())

    error = json_of(done, code=11)
    assert "another verify is running" in error["error"]
    assert "--scratch" in error["hint"]


def test_an_unusable_scratch_directory_is_reported_before_anything_is_read(
    repository_files: LocalFiles, stored: StoredBackups, tmp_path: Path
) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"")
    before = repository_files.all_keys()

    done = run_here(
        "verify",
        stored.first,
        "--level=tsdb",
        "--json",
        env={**repository_files.environment(), "SCRATCH_DIR": str(file)},
    )

    assert json_of(done, code=33)["kind"] == "TargetUnusable"
    assert repository_files.all_keys() == before


def _blocks_of(sizes: list[int]) -> list[Block]:
    document = manifests.document(
        blocks=[
            manifests.block(
                manifests.file(size=size, key=f"{manifests.BACKUP_ID}/{_ulid(n)}/index"),
                ulid=_ulid(n),
            )
            for n, size in enumerate(sizes)
        ]
    )
    manifest = decode_manifest(json.dumps(document).encode(), backup_id=manifests.BACKUP_ID)
    return list(manifest.blocks)


def _ulid(number: int) -> str:
    return f"01JJ5W0B8ZC6X3M1S4T9Q{number:05}"


@given(st.lists(st.integers(0, 100), max_size=20), st.integers(1, 120), st.integers(1, 6))
def test_batches_fit_and_contain_each_block_once(sizes: list[int], limit: int, most: int) -> None:
    blocks = _blocks_of(sizes)

    groups = list(batches(blocks, limit=limit, most=most))

    assert sorted(b.ulid for g in groups for b in g) == sorted(b.ulid for b in blocks)
    assert all(1 <= len(group) <= most for group in groups)
    assert all(len(group) == 1 or sum(b.size for b in group) <= limit for group in groups)
