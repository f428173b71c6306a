"""Manifests and other documents, written and read again. Damage: test_hostile_manifests.py."""

import hashlib
import json
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from devtools import schema
from prometheus_backup.errors import NewerFormat, UnreadableManifest
from prometheus_backup.repository.manifest import (
    File,
    ForeignManifest,
    Header,
    Incomplete,
    Manifest,
    decode,
    decode_manifest,
    encode,
    sha256sums,
)
from tests.support.manifests import (
    BACKUP_ID,
    OLD_SCRIPT,
    OTHER_ULID,
    ULID,
    block,
    document,
    encoded,
    file,
)

NOON = datetime(2025, 1, 22, 12, tzinfo=UTC)


def manifest(*, from_bytes: bytes | None = None) -> Manifest:
    return decode_manifest(encoded() if from_bytes is None else from_bytes, backup_id=BACKUP_ID)


def test_manifest_survives_writing_and_reading() -> None:
    first = manifest()
    assert manifest(from_bytes=encode(first)) == first


_TEXTS = st.text(st.characters(categories=["L", "N", "P", "S"]), max_size=20)
_INSTANTS = st.datetimes(
    datetime(1, 1, 2),  # noqa: DTZ001 -- Hypothesis wants the bounds naive
    datetime(9999, 12, 30),  # noqa: DTZ001 -- likewise
    timezones=st.just(UTC),
).map(lambda t: t.replace(microsecond=t.microsecond // 1000 * 1000))


@settings(deadline=None)
@given(
    labels=st.dictionaries(_TEXTS, _TEXTS, max_size=5),
    degraded=st.lists(_TEXTS, max_size=3),
    instant=_INSTANTS,
    size=st.integers(0, 2**50),
)
def test_any_values_survive_writing_and_reading(
    labels: dict[str, str], degraded: list[str], instant: datetime, size: int
) -> None:
    first = manifest().model_copy(
        update={
            "labels": labels,
            "degraded": tuple(degraded),
            "finished_at": instant,
            "storage_size_bytes": size,
        }
    )
    assert manifest(from_bytes=encode(first)) == first


def test_first_six_fields_are_those_of_the_old_script_in_its_order() -> None:
    six = list(json.loads(OLD_SCRIPT))
    assert list(json.loads(encode(manifest())))[:6] == six
    assert six == [
        "snapshot_name",
        "backup_id",
        "timestamp",
        "prometheus_url",
        "retention_time",
        "storage_size_bytes",
    ]


def test_stored_document_is_readable_text_with_instants_in_z() -> None:
    text = encode(manifest()).decode()
    assert text.endswith("}\n")
    assert text.startswith('{\n  "snapshot_name": ')
    assert json.loads(text)["timestamp"] == "2025-01-22T02:00:00Z"
    assert json.loads(text)["finished_at"] == "2025-01-22T02:00:09.125Z"


def test_instants_of_other_zones_are_read_as_utc() -> None:
    read = manifest(from_bytes=encoded(timestamp="2025-01-22T07:30:00+05:30"))
    assert read.timestamp == datetime(2025, 1, 22, 2, tzinfo=UTC)
    assert read.timestamp.utcoffset() == timedelta(0)


def test_unknown_fields_are_ignored() -> None:
    newer = block(file(new=1), new=[{}])
    assert manifest(from_bytes=encoded(new={"a": None}, blocks=[newer])) == manifest()


def test_fields_that_have_a_default_may_be_absent() -> None:
    value = document()
    for name in ("labels", "degraded", "verified", "fingerprints"):
        del value[name]
    read = manifest(from_bytes=json.dumps(value).encode())
    assert (read.labels, read.degraded, read.verified, read.fingerprints) == ({}, (), None, ())


def test_files_come_in_order_with_their_block() -> None:
    first = block(file("index"), file("chunks/000001"))
    second = block(file("index", ulid=OTHER_ULID), ulid=OTHER_ULID)
    read = manifest(from_bytes=encoded(blocks=[first, second]))
    assert [(b.ulid, f.path) for b, f in read.files()] == [
        (ULID, "index"),
        (ULID, "chunks/000001"),
        (OTHER_ULID, "index"),
    ]
    assert [b.size for b in read.blocks] == [20, 10]


def test_header_is_the_manifest_without_its_blocks() -> None:
    whole = manifest()
    header = whole.header
    assert {n: getattr(header, n) for n in Header.model_fields} == {
        n: getattr(whole, n) for n in Header.model_fields
    }
    assert set(Manifest.model_fields) - set(Header.model_fields) == {"blocks", "fingerprints"}
    assert not hasattr(header, "blocks")


def is_foreign(data: bytes) -> bool:
    try:
        decode_manifest(data, backup_id=BACKUP_ID)
    except (UnreadableManifest, NewerFormat) as error:
        return isinstance(error, ForeignManifest)
    return False


def test_metadata_of_the_old_script_is_foreign() -> None:
    assert is_foreign(OLD_SCRIPT)


@pytest.mark.parametrize(
    "data",
    [
        encoded(),
        encoded(format_version=3),
        encoded(backup_id="nonsense"),
        encoded()[:-1],
        b"",
        b"[]",
        b"null",
        b'"text"',
        b"\xff\xfe\x00",
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b"1" * 5_000,
    ],
    ids=lambda data: repr(data[:12]),
)
def test_a_possibly_damaged_manifest_is_not_foreign(data: bytes) -> None:
    assert not is_foreign(data)


@settings(deadline=None)
@given(st.binary())
def test_reading_any_bytes_raises_no_other_error(data: bytes) -> None:
    assert is_foreign(data) in (True, False)


# Names that are difficult in a checksum file. Prometheus never writes them, a manifest may.
ODD_NAMES = ["index", "chunks/000001", "with two  spaces", "-c", "*star", "grün/файл", "#", "a'b"]


def written_backup(root: Path) -> Manifest:
    """Write a block of odd names and its SHA256SUMS below `root`; return the manifest."""
    files = []
    for name in ODD_NAMES:
        data = f"bytes of {name}".encode()
        place = root / ULID / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(data)
        files.append(file(name, size=len(data), sha256=hashlib.sha256(data).hexdigest()))
    read = manifest(from_bytes=encoded(blocks=[block(*files)]))
    (root / "SHA256SUMS").write_bytes(sha256sums(read))
    return read


def sha256sum_check(root: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["sha256sum", "--check", "--strict", "SHA256SUMS"],
        cwd=root,
        env={"LC_ALL": "C.UTF-8", "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
    )


def test_real_sha256sum_accepts_the_sums(tmp_path: Path) -> None:
    written_backup(tmp_path)
    result = sha256sum_check(tmp_path)
    assert result.returncode == 0, result.stdout + result.stderr
    assert result.stdout.count(": OK\n") == len(ODD_NAMES)


def test_real_sha256sum_sees_an_altered_file(tmp_path: Path) -> None:
    written_backup(tmp_path)
    (tmp_path / ULID / "chunks/000001").write_bytes(b"one flipped byte")
    result = sha256sum_check(tmp_path)
    assert result.returncode == 1
    assert f"{ULID}/chunks/000001: FAILED" in result.stdout


@pytest.mark.parametrize(
    "changes",
    [
        {"format_version": 3},
        {"storage_size_bytes": -1},
        {"storage_size_bytes": "10"},
        {"blocks": None},
        {"blocks": [block(file(sha256="short"))]},
        {"labels": {"cluster": 1}},
    ],
    ids=str,
)
def test_schema_refuses_what_the_reader_refuses(changes: dict[str, object]) -> None:
    value = json.loads(encode(manifest())) | changes
    assert not Draft202012Validator(json.loads(schema.text())).is_valid(value)


def test_published_schema_is_up_to_date() -> None:
    remedy = "run `python -m devtools.schema`"
    assert schema.PATH.is_file(), f"{schema.PATH} is missing: {remedy}"
    assert schema.PATH.read_text() == schema.text(), f"{schema.PATH} is out of date: {remedy}"


def test_published_schema_describes_what_is_written() -> None:
    published = json.loads(schema.PATH.read_text())
    assert published["$schema"] == Draft202012Validator.META_SCHEMA["$id"]
    Draft202012Validator.check_schema(published)
    Draft202012Validator(published).validate(json.loads(encode(manifest())))


def test_incomplete_survives_writing_and_reading() -> None:
    first = Incomplete.model_validate_json(
        json.dumps(
            {
                "run_id": "7d0c2b4e",
                "state": "running",
                "host": "node-1",
                "pid": 4711,
                "started_at": "2025-01-22T02:00:00Z",
                "intent": "backup",
                "finished": [file() | {"ulid": ULID}],
            }
        )
    )
    assert decode(Incomplete, encode(first)) == first


@settings(deadline=None)
@given(st.binary() | st.sampled_from([b"{}", b"[]", b"null", encoded(), OLD_SCRIPT]))
def test_an_invalid_document_is_none(data: bytes) -> None:
    assert decode(Incomplete, data) is None


def test_documents_cannot_be_changed_in_place() -> None:
    read = File.model_validate_json(json.dumps(file()))
    with pytest.raises(ValueError, match="frozen"):
        read.size = 11
