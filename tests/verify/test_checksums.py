"""Level `stored`: the store's own checksums, on stores that keep them and on others.

Like AWS, SeaweedFS keeps the CRC64NVME of uploads, including multipart uploads.
"""

import base64
import hashlib
import os
import shutil
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from devtools.fetch_prometheus import PrometheusBinaries
from devtools.prometheus import PrometheusServer
from devtools.s3 import S3Bucket
from prometheus_backup.errors import RepositoryDenied
from prometheus_backup.model import Level, PutOptions
from prometheus_backup.repository.manifest import File, Manifest
from prometheus_backup.repository.repository import Repository
from prometheus_backup.stores.s3 import S3Store
from prometheus_backup.transfer import READ_CHUNK
from prometheus_backup.verify.checksums import checksum_matches
from tests.support.faulty_stores import flip_a_bit
from tests.support.repositories import ManualClock
from tests.support.runs import FakeClock, Recorder, options, take_backup
from tests.support.s3 import open_s3
from tests.support.store_wrappers import StoreWrapper
from tests.support.stored_backups import (
    LocalFiles,
    S3Files,
    StoredBackups,
    block_keys,
    copy_to,
    json_of,
    manifest_of,
    run_here,
)

PLAIN = PutOptions()


@pytest.fixture(scope="module")
def made(
    bucket: S3Bucket,
    tsdb_blocks: Path,
    prometheus_2: PrometheusBinaries,
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[Manifest, Manifest]:
    """Two backups uploaded with checksums, the second mostly copied. Do not modify them."""
    data = tmp_path_factory.mktemp("stored-level") / "data"
    shutil.copytree(tsdb_blocks, data)
    store = open_s3(bucket, prefix="made", checksum="crc64nvme")
    with PrometheusServer(prometheus_2, data) as server:
        server.fill_head()
        first = take_backup(server, store).manifest
        second = take_backup(server, store, options(skip_head=True)).manifest
        server.kill()
    return first, second


@pytest.fixture
def files(bucket: S3Bucket, made: tuple[Manifest, Manifest]) -> S3Files:
    """A copy of these backups, made by the store, including the checksums."""
    assert made, "they are there to be copied"
    copied = S3Files(bucket, f"copy-{uuid4().hex[:8]}")
    root = open_s3(bucket, prefix="")
    for key, size in bucket.sizes("made/").items():
        target = f"{copied.prefix}/{key.removeprefix('made/')}"
        root.copy(key, target, size=size, options=PLAIN)
    return copied


def verify(
    files: S3Files | LocalFiles, *arguments: str, level: str = "stored", code: int
) -> list[dict[str, Any]]:
    done = run_here("verify", "--json", "--level", level, *arguments, env=files.environment())
    results = json_of(done, code=code)["results"]
    assert isinstance(results, list)
    return results


def store_of(files: S3Files, **settings: Any) -> S3Store:
    """A store whose uploads carry checksums."""
    return open_s3(files.bucket, prefix=files.prefix, checksum="crc64nvme", **settings)


def put(files: S3Files, key: str, body: bytes) -> None:
    """Put an object with a checksum of its bytes."""
    store_of(files).put_small(key, body, options=PLAIN)


def test_a_backup_records_the_checksums_that_the_store_reported(
    bucket: S3Bucket, made: tuple[Manifest, Manifest]
) -> None:
    store = open_s3(bucket, prefix="made")
    for manifest in made:
        for _, file in manifest.files():
            assert file.stored_checksum is not None
            assert file.stored_checksum.startswith("CRC64NVME:")
            assert file.stored_checksum == store.stored_checksum(file.key)
    assert made[1].totals.copied_bytes > 0


def test_a_sound_backup_passes_without_its_bytes_being_read(
    files: S3Files, made: tuple[Manifest, Manifest]
) -> None:
    results = verify(files, "--all", code=0)

    for result, manifest in zip(results, made, strict=True):
        assert (result["verdict"], result["cause"]) == ("pass", "")
        assert result["objects"] == manifest.totals.files + 1
        assert result["bytes_read"] == len(files.get(f"{manifest.backup_id}/SHA256SUMS"))


def test_an_object_with_other_bytes_of_the_same_size_is_found(
    files: S3Files, made: tuple[Manifest, Manifest]
) -> None:
    uploaded, copied = made[0].blocks[0].files[0].key, made[1].blocks[0].files[0].key
    for key in (uploaded, copied):
        put(files, key, flip_a_bit(files.get(key)))

    results = verify(files, "--all", code=41)

    found = [(f["kind"], f["key"]) for r in results for f in r["findings"]]
    assert found == [("altered", uploaded), ("altered", copied)]
    assert "the store's checksum is CRC64NVME:" in results[0]["findings"][0]["detail"]


def test_missing_and_short_objects_and_altered_sums_are_found_too(
    files: S3Files, made: tuple[Manifest, Manifest]
) -> None:
    first, second = (f.key for f in made[1].blocks[0].files[:2])
    files.delete(first)
    files.put(second, files.get(second)[:-1])
    sums = f"{made[1].backup_id}/SHA256SUMS"
    files.put(sums, flip_a_bit(files.get(sums)))

    (result,) = verify(files, made[1].backup_id, code=41)

    found = {f["key"]: f["kind"] for f in result["findings"]}
    assert found == {first: "missing", second: "wrong-size", sums: "altered"}


def test_an_object_put_again_without_a_comparable_checksum_is_inconclusive(
    files: S3Files, made: tuple[Manifest, Manifest]
) -> None:
    manifest = made[1]
    key = manifest.blocks[0].files[0].key
    files.put(key, files.get(key))  # as by a tool that sends another checksum or none

    (result,) = verify(files, manifest.backup_id, code=3)

    assert result["verdict"] == "inconclusive"
    assert f"1 of {manifest.totals.files} files" in result["cause"]
    assert "--level checksum" in result["cause"]
    verify(files, manifest.backup_id, level="checksum", code=0)


def test_without_recorded_checksums_the_result_is_inconclusive_and_suggests_level_checksum(
    bucket: S3Bucket, stored: StoredBackups
) -> None:
    plain = S3Files(bucket, f"plain-{uuid4().hex[:8]}")
    copy_to(plain, stored.root)

    (result,) = verify(plain, stored.first, code=3)

    assert result["verdict"] == "inconclusive"
    assert "no comparable checksum" in result["cause"]
    assert "`verify --level checksum`" in result["cause"]
    assert "stored_checksum" not in manifest_of(plain, stored.first)["blocks"][0]["files"][0]


def test_a_local_directory_keeps_no_checksums_and_says_so(
    repository_files: LocalFiles, stored: StoredBackups
) -> None:
    verify(repository_files, stored.first, level="checksum", code=0)
    done = run_here("verify", stored.first, "--level", "stored", env=repository_files.environment())

    assert done.returncode == 3
    assert "inconclusive" in done.stdout
    assert "no comparable checksum" in done.stdout
    shown = run_here("list", env=repository_files.environment()).stdout
    assert "checksum" in next(row for row in shown.splitlines() if stored.first in row)


def test_a_rotation_requests_the_checksum_of_every_object_once(
    files: S3Files, made: tuple[Manifest, Manifest]
) -> None:
    counted = 0
    for _ in range(3):
        (result,) = verify(files, made[0].backup_id, "--subset", "next/3", code=0)
        counted += result["objects"]

    assert counted == made[0].totals.files + 1
    assert result["rotation"]["parts_passed"] == 3


class _ChecksumsDenied(StoreWrapper):
    """A store whose credentials may not read checksums."""

    def stored_checksum(self, key: str) -> str | None:
        raise RepositoryDenied(f"cannot read {key}: AccessDenied")


def test_a_backup_succeeds_if_checksums_may_not_be_read(
    source: PrometheusServer, s3_bucket: S3Bucket
) -> None:
    recorder = Recorder()
    store = _ChecksumsDenied(open_s3(s3_bucket, checksum="crc64nvme"))

    manifest = take_backup(source, store, listener=recorder).manifest

    assert "verification at level stored will not be possible" in recorder.warnings
    assert {f.stored_checksum for _, f in manifest.files()} == {None}


def test_the_checksum_of_a_multipart_upload_is_that_of_the_whole_object(
    s3_bucket: S3Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The store combines the checksums of the parts into that of the whole object."""
    body = os.urandom(20 * 1024 * 1024 + 1)
    store = open_s3(s3_bucket, checksum="crc64nvme")

    def chunks(body: bytes) -> Iterator[bytes]:
        yield from (body[at : at + READ_CHUNK] for at in range(0, len(body), READ_CHUNK))

    store.put("parts", chunks(body), size=len(body), options=PLAIN)
    store.put_small("whole", body, options=PLAIN)
    store.put("other", chunks(flip_a_bit(body)), size=len(body), options=PLAIN)
    store.copy("parts", "copy", size=len(body), options=PLAIN)
    monkeypatch.setattr("prometheus_backup.stores.s3._SINGLE_COPY_LIMIT", 8 * 1024 * 1024)
    monkeypatch.setattr("prometheus_backup.stores.s3._COPY_PART", 8 * 1024 * 1024)
    store.copy("parts", "copied-in-parts", size=len(body), options=PLAIN)

    etag = s3_bucket.client.head_object(Bucket=s3_bucket.name, Key="prometheus-snapshots/parts")
    assert etag["ETag"].strip('"').endswith("-3"), "it was sent in parts"
    parts, whole, other = map(store.stored_checksum, ("parts", "whole", "other"))
    assert parts is not None
    assert parts == whole
    assert store.stored_checksum("copy") == parts
    assert store.stored_checksum("copied-in-parts") == parts
    assert parts != other


def test_a_sha256_from_another_tool_is_compared_with_the_manifest(
    moto_bucket: S3Bucket, stored: StoredBackups
) -> None:
    """Objects uploaded again with `--checksum-algorithm SHA256`; moto computes what AWS would."""
    files = S3Files(moto_bucket, "prometheus-snapshots")
    copy_to(files, stored.root)
    keys = block_keys(files, stored.second)

    def put_again(key: str, body: bytes) -> None:
        moto_bucket.client.put_object(
            Bucket=moto_bucket.name,
            Key=f"{files.prefix}/{key}",
            Body=body,
            ChecksumAlgorithm="SHA256",
            StorageClass="GLACIER",
        )

    for key in keys:
        put_again(key, files.get(key))

    # In an archive class, so that their bytes cannot be read.
    (archived,) = verify(files, stored.second, level="checksum", code=3)
    assert "archive" in archived["cause"]
    (result,) = verify(files, stored.second, code=0)
    assert (result["verdict"], result["objects"]) == ("pass", len(keys) + 1)

    put_again(keys[2], b"x" * len(stored.root.joinpath(keys[2]).read_bytes()))
    (result,) = verify(files, stored.second, code=41)
    assert [f["key"] for f in result["findings"]] == [keys[2]]


SHA256 = hashlib.sha256(b"the file").digest()


@pytest.mark.parametrize(
    ("recorded", "stored", "matches"),
    [
        ("CRC64NVME:AAAAAAAAAAA=", "CRC64NVME:AAAAAAAAAAA=", True),
        ("CRC64NVME:AAAAAAAAAAA=", "CRC64NVME:AAAAAAAAAAE=", False),
        ("CRC64NVME:AAAAAAAAAAA=", "CRC32C:AAAAAA==", None),
        ("CRC64NVME:AAAAAAAAAAA=", None, None),
        (None, "CRC64NVME:AAAAAAAAAAA=", None),
        (None, f"SHA256:{base64.b64encode(SHA256).decode()}", True),
        (None, f"SHA256:{base64.b64encode(bytes(32)).decode()}", False),
        ("CRC32C:AAAAAA==", f"SHA256:{base64.b64encode(SHA256).decode()}", True),
    ],
)
def test_only_checksums_of_one_kind_are_compared(
    recorded: str | None, stored: str | None, *, matches: bool | None
) -> None:
    file = File(
        path="index",
        size=8,
        sha256=SHA256.hex(),
        key="backup-20250122-020000/01JJ5W0B8ZC6X3M1S4T9Q2V7KD/index",
        stored_checksum=recorded,
    )

    assert checksum_matches(file, stored) is matches


def test_a_pass_at_stored_clears_no_failure_of_checksum(
    files: S3Files, made: tuple[Manifest, Manifest]
) -> None:
    backup_id, key = made[1].backup_id, made[1].blocks[0].files[0].key
    whole = files.get(key)
    put(files, key, flip_a_bit(whole))
    verify(files, backup_id, level="checksum", code=41)
    put(files, key, whole)

    verify(files, backup_id, code=0)

    clock = ManualClock()
    entry = Repository(store_of(files), clock=clock).entry(backup_id)
    assert entry is not None
    assert not entry.good


def test_a_copy_is_compared_with_the_checksum_of_its_original_in_the_manifest(
    files: S3Files, source: PrometheusServer
) -> None:
    """If the bytes of the original have changed since, the file is uploaded, not copied."""
    store = store_of(files)
    clock = FakeClock(FakeClock().now() + timedelta(days=1))  # after the existing backups
    first = take_backup(source, store, clock=clock).manifest
    original = next(f for _, f in first.files() if f.path == "index")
    put(files, original.key, flip_a_bit(files.get(original.key)))
    recorder = Recorder()

    second = take_backup(
        source, store, options(verify=Level.CHECKSUM), listener=recorder, clock=clock
    )

    (copy,) = [f for _, f in second.manifest.files() if f.sha256 == original.sha256]
    assert f"Verification failed: {copy.key} " in recorder.warnings
    assert hashlib.sha256(files.get(copy.key)).hexdigest() == original.sha256
    assert copy.stored_checksum == original.stored_checksum
