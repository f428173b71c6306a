"""A manifest is untrusted input: any content is parsed, or refused with the right error.

Refusal must be limited in time and memory, because every run and every `list` reads every manifest.
"""

import json
import subprocess
import sys
import time
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prometheus_backup.errors import IntegrityError, NewerFormat, UnreadableManifest
from prometheus_backup.repository.manifest import (
    MAX_DOCUMENT_SIZE,
    MAX_FILES,
    Incomplete,
    Manifest,
    decode,
    decode_manifest,
)
from tests.support.manifests import (
    BACKUP_ID,
    OLD_SCRIPT,
    OTHER_ULID,
    ULID,
    Json,
    block,
    document,
    encoded,
    file,
)

MEBIBYTE = 2**20


def decode_hostile(data: bytes) -> Manifest:
    return decode_manifest(data, backup_id=BACKUP_ID)


def refusal(data: bytes) -> UnreadableManifest:
    """Return the error for bytes that must be refused; its message must be safe for a log."""
    with pytest.raises(UnreadableManifest) as caught:
        decode_hostile(data)
    message = str(caught.value)
    assert message.startswith(f"cannot read manifest {BACKUP_ID}/metadata.json: ")
    assert message.isprintable(), "text of the manifest reaches a terminal"
    assert len(message) < 2_000
    return caught.value


HOSTILE_PATHS = {
    "empty": "",
    "parent": "../index",
    "parent within": "chunks/../../index",
    "parent at the end": "chunks/..",
    "absolute": "/etc/passwd",
    "dot": "./index",
    "empty part": "chunks//000001",
    "folder": "chunks/",
    "backslash": "..\\index",
    "newline": "index\nab",
    "carriage return": "index\r",
    "nul": "index\0",
    "escape": "\x1b[2Jindex",
    "delete": "index\x7f",
    "endless": "a" * 10_000,
    "deep": "a/" * 200 + "index",
}


@pytest.mark.parametrize("path", HOSTILE_PATHS.values(), ids=HOSTILE_PATHS)
def test_unsafe_path_is_refused(path: str) -> None:
    refusal(encoded(blocks=[block(file(path, key=f"{BACKUP_ID}/{ULID}/index"))]))


@pytest.mark.parametrize("path", HOSTILE_PATHS.values(), ids=HOSTILE_PATHS)
def test_unsafe_key_is_refused(path: str) -> None:
    refusal(encoded(blocks=[block(file(key=f"{BACKUP_ID}/{path}"))]))


@pytest.mark.parametrize(
    "key",
    [
        "index",
        BACKUP_ID,
        f"{BACKUP_ID}/",
        f"/{BACKUP_ID}/{ULID}/index",
        f"../{BACKUP_ID}/{ULID}/index",
        f"elsewhere/{BACKUP_ID}/{ULID}/index",
        f"backup-20251322-020000/{ULID}/index",
        f"backup-2025-01-22/{ULID}/index",
        f"{BACKUP_ID.upper()}/{ULID}/index",
        f"{BACKUP_ID} /{ULID}/index",
        f"backup-\u0662\u0660\u0662\u06650122-020000/{ULID}/index",
        # Deleting this backup must not delete another one's bytes; a control file is not data.
        f"backup-20250121-020000/{ULID}/index",
        f"{BACKUP_ID}/{OTHER_ULID}/index",
        f"{BACKUP_ID}/metadata.json",
        f"{BACKUP_ID}/incomplete.json",
        f"{BACKUP_ID}/SHA256SUMS",
    ],
)
def test_key_outside_of_its_block_in_its_own_backup_is_refused(key: str) -> None:
    refusal(encoded(blocks=[block(file(key=key))]))


HOSTILE_BLOCKS: dict[str, list[Any]] = {
    "a path twice": [block(file("index"), file("index"))],
    "a block twice": [block(), block()],
    # A reader that uses keys would see only one of the two hashes.
    "an object twice": [block(file("index"), file("other", key=file("index")["key"]))],
    "a file below a file": [block(file("chunks"), file("chunks/000001"))],
    "a file far below a file": [block(file("a/b/c/d"), file("a"))],
    "a name that is no ULID": [block(ulid="wal")],
    "a name that leaves": [block(ulid="../../../../../../../../..")],
    "a ULID in lower case": [block(ulid=ULID.lower())],
    "a ULID that overflows": [block(ulid="8" + ULID[1:])],
    "a ULID with a newline": [block(ulid=ULID + "\n")],
    "a source that is no ULID": [block(sources=["../x"])],
    "a parent that is no ULID": [block(parents=["../x"])],
    "a block of no files": [block() | {"files": []}],
    "a block that ends before it begins": [block(min_time="2025-01-22T02:00:00.001Z")],
    "a negative size": [block(file(size=-1))],
    "a gigantic size": [block(file(size=2**63))],
    "a size beyond any integer": [block(file(size=10**400))],
    "a size as text": [block(file(size="10"))],
    "a size as a fraction": [block(file(size=10.5))],
    "a size as truth": [block(file(size=True))],
    "a size of nothing": [block(file(size=None))],
    "a level as text": [block(level="1")],
    "a negative level": [block(level=-1)],
    "a statistic as text": [block(stats={"numSamples": "7"})],
    "a short hash": [block(file(sha256="ab" * 31))],
    "a hash in capitals": [block(file(sha256="AB" * 32))],
    "a hash with a newline": [block(file(sha256="ab" * 32 + "\n"))],
    "a hash of other letters": [block(file(sha256="xy" * 32))],
    "a path as a number": [block(file(path=1))],  # type: ignore[arg-type]
    "files as an object": [block(files={})],
    "a block as a list": [[]],
    "a time without a zone": [block(min_time="2025-01-22T00:00:00")],
    "a time as milliseconds": [block(min_time=1737504000000)],
    "a time before the year 1": [block(min_time="0001-01-01T00:00:00+01:00")],
    "a time after the year 9999": [block(max_time="9999-12-31T23:59:59-01:00")],
}


@pytest.mark.parametrize("blocks", HOSTILE_BLOCKS.values(), ids=HOSTILE_BLOCKS)
def test_hostile_block_is_refused(blocks: list[Any]) -> None:
    refusal(encoded(blocks=blocks))


HOSTILE_FIELDS: dict[str, Json] = {
    "another backup's id": {"backup_id": "backup-20250122-020001"},
    "an id that is none": {"backup_id": "../../etc"},
    "an id in other digits": {"backup_id": "backup-\u0662\u0660\u0662\u06650122-020000"},
    "a naive timestamp": {"timestamp": "2025-01-22T02:00:00"},
    "a numeric timestamp": {"timestamp": 1737511200},
    "a date for a timestamp": {"timestamp": "2025-01-22"},
    "a timestamp out of the calendar": {"timestamp": "0001-01-01T00:00:00+23:59"},
    "a negative total": {"storage_size_bytes": -1},
    "a gigantic total": {"storage_size_bytes": 2**63},
    "a total as text": {"storage_size_bytes": "10"},
    "a total of NaN": {"storage_size_bytes": float("nan")},
    "an infinite total": {"storage_size_bytes": float("inf")},
    "format zero": {"format_version": 0},
    "a negative format": {"format_version": -1},
    "a format as text": {"format_version": "1"},
    "no format": {"format_version": None},
    "labels that are no text": {"labels": {"cluster": 5}},
    "a label that clears the screen": {"labels": {"\x1b[2J": 5}},
    "an endless label": {"labels": {"x" * MEBIBYTE: 5}},
    "labels as a list": {"labels": ["cluster"]},
    "a reason that is no text": {"degraded": [1]},
    "an unknown level": {"verified": "hope"},
    "no blocks": {"blocks": None},
    "no totals": {"totals": {}},
    "half a character": {"snapshot_name": "\ud800"},
}


@pytest.mark.parametrize("changes", HOSTILE_FIELDS.values(), ids=HOSTILE_FIELDS)
def test_hostile_field_is_refused(changes: Json) -> None:
    refusal(encoded(**changes))


@pytest.mark.parametrize(
    "name", [n for n in document() if n not in {"labels", "degraded", "verified", "fingerprints"}]
)
def test_absent_field_is_refused(name: str) -> None:
    value = document()
    del value[name]
    refusal(json.dumps(value).encode())


def test_every_prefix_of_a_manifest_is_refused() -> None:
    data = encoded()
    for end in range(len(data)):
        refusal(data[:end])


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\0",
        b"null",
        b"[]",
        b"1",
        b'"backup"',
        b"{}",
        b"<html><body>502 Bad Gateway</body></html>",
        OLD_SCRIPT,
        encoded() + b"x",
        encoded() + encoded(),
        b"\xff" + encoded(),
        encoded().replace(b"http:", b"\xc3\x28tp:"),
        encoded().decode().encode("utf-16"),
    ],
    ids=lambda data: repr(data[:12]),
)
def test_anything_but_a_manifest_is_refused(data: bytes) -> None:
    refusal(data)


@settings(max_examples=500, deadline=None)
@given(st.binary(max_size=400))
def test_arbitrary_bytes_raise_only_the_expected_error(data: bytes) -> None:
    refusal(data)


@settings(max_examples=500, deadline=None)
@given(st.data())
def test_manifest_with_arbitrary_damage_is_read_or_refused(data: st.DataObject) -> None:
    whole = encoded()
    start = data.draw(st.integers(0, len(whole)))
    end = data.draw(st.integers(start, min(start + 40, len(whole))))
    damaged = whole[:start] + data.draw(st.binary(max_size=40)) + whole[end:]
    with suppress(UnreadableManifest, NewerFormat):
        decode_hostile(damaged)


_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=500, deadline=None)
@given(st.sampled_from(list(document())), _VALUES)
def test_any_value_in_any_field_is_read_or_refused(name: str, value: Any) -> None:
    with suppress(UnreadableManifest, NewerFormat):
        decode_hostile(encoded(**{name: value}))


@pytest.mark.parametrize("version", [3, 4, 1_000, 10**30])
def test_newer_format_is_distinguished_from_damage(version: int) -> None:
    with pytest.raises(NewerFormat, match=f"format {version}") as caught:
        decode_hostile(encoded(format_version=version))
    assert caught.value.exit_code == 14
    assert "upgrade" in caught.value.hint


def test_newer_format_may_differ_in_everything_else() -> None:
    with pytest.raises(NewerFormat):
        decode_hostile(b'{"format_version": 3, "blocks": {"packed": "zstd"}}')


def test_newer_format_is_not_an_integrity_error() -> None:
    assert not issubclass(NewerFormat, IntegrityError)


@pytest.mark.parametrize("opening", [b"[", b'{"a":', b'{"blocks":['], ids=str)
def test_deeply_nested_json_is_refused(opening: bytes) -> None:
    refusal(opening * 200_000)


def test_deeply_nested_json_in_a_free_field_is_refused() -> None:
    nested = b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}"
    refusal(encoded().replace(b'"fingerprints": []', b'"fingerprints": [' + nested + b"]"))


# Seconds of CPU time. Parsing a valid manifest of 200,000 files takes about three on a slow
# machine; collecting every error of a million entries takes twenty.
SECONDS = 10


def assert_refused_quickly(data: bytes) -> None:
    begin = time.process_time()
    refusal(data)
    assert time.process_time() - begin < SECONDS


def repeated(entry: object, *, times: int, within: str) -> bytes:
    """Return a manifest with an entry many times in `sources`, `files` or `blocks`."""
    many = b",".join([json.dumps(entry).encode()] * times)
    mark = b'"MANY"'
    holder = encoded(blocks=[mark.decode().strip('"')])
    if within != "blocks":
        holder = encoded(blocks=[block(**{within: ["MANY"]})])
    assert holder.count(mark) == 1
    return holder.replace(mark, many)


@pytest.mark.parametrize("entry", [1, {}, file()], ids=["numbers", "empty", "the same"])
def test_million_files_are_refused_in_bounded_time(entry: object) -> None:
    assert_refused_quickly(repeated(entry, times=1_000_000, within="files"))


@pytest.mark.parametrize("within", ["sources", "blocks"])
def test_million_entries_are_refused_in_bounded_time(within: str) -> None:
    assert_refused_quickly(repeated(1, times=1_000_000, within=within))


def test_million_labels_are_refused_in_bounded_time() -> None:
    assert_refused_quickly(encoded(labels={str(n): n for n in range(1_000_000)}))


def test_more_files_than_the_limit_over_several_blocks_are_refused() -> None:
    half = [file(f"chunks/{n:06}") for n in range(MAX_FILES // 2 + 1)]
    assert_refused_quickly(encoded(blocks=[block(*half), block(*half, ulid=OTHER_ULID)]))


def test_document_over_the_size_limit_is_refused_unread() -> None:
    assert "too large" in str(refusal(b" " * (MAX_DOCUMENT_SIZE + 1)))


def test_million_finished_files_are_an_invalid_document() -> None:
    value = {"run_id": "r", "state": "running", "started_at": "2025-01-22T02:00:00Z"}
    data = json.dumps(value | {"finished": [{}] * 1_000_000}).encode()
    begin = time.process_time()
    assert decode(Incomplete, data) is None
    assert time.process_time() - begin < SECONDS


_IN_ONE_GIBIBYTE = """
import resource
from prometheus_backup.errors import UnreadableManifest
from prometheus_backup.repository.manifest import decode_manifest

data = {expression}
resource.setrlimit(resource.RLIMIT_AS, (2**30, 2**30))
try:
    decode_manifest(data, backup_id="backup-20250122-020000")
except UnreadableManifest:
    print("refused")
"""


@pytest.mark.parametrize(
    "expression",
    [
        'b"[" + b"[]," * (10 * 2**20) + b"[]]"',
        'b\'{"blocks":[{"files":[\' + b"{}," * (10 * 2**20) + b"{}]}]}"',
    ],
    ids=["lists", "files"],
)
def test_tens_of_mebibytes_of_brackets_are_refused_in_bounded_memory(expression: str) -> None:
    # Each three bytes of `[],` become an object of about sixty, for which a pod would be killed.
    program = _IN_ONE_GIBIBYTE.replace("{expression}", expression)
    result = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert result.stdout == "refused\n", result.stderr[-500:]
