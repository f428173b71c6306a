"""What is special to S3: tags, classes, encryption, large copies, checksums, permissions."""

import random
import uuid
from collections.abc import Callable
from typing import Any

import pytest

from devtools.moto_server import MotoServer
from devtools.s3 import S3Bucket
from prometheus_backup.errors import (
    ObjectNotFound,
    RepositoryDenied,
    RepositoryNotFound,
)
from prometheus_backup.model import PutOptions
from prometheus_backup.stores.objectstore import PART_SIZE
from prometheus_backup.stores.s3 import S3Settings, S3Store, StaticKeys
from tests.support.faulty_http import Answer, FaultyServer
from tests.support.s3 import PREFIX, keys_of, open_s3

PLAIN = PutOptions()
DATA = PutOptions(tags={"Type": "daily", "Content": "data"}, storage_class="STANDARD_IA")
CONTROL = PutOptions(tags={"Type": "monthly", "SnapshotName": "20250122T020000Z-1a2b"})
KMS_KEY = "arn:aws:kms:us-east-1:123456789012:key/1234abcd-12ab-34cd-56ef-1234567890ab"
ENCRYPTIONS = {
    "AES256": ({"sse": "AES256"}, ("AES256", None)),
    "aws:kms": ({"sse": "aws:kms"}, ("aws:kms", None)),
    "aws:kms with a key": ({"sse": "aws:kms", "kms_key_id": KMS_KEY}, ("aws:kms", KMS_KEY)),
    "none": ({"sse": "none"}, (None, None)),
}

Writer = Callable[[S3Store, PutOptions], None]


def _multipart(store: S3Store, options: PutOptions) -> None:
    body = bytes(PART_SIZE + 1)
    store.put("file", [body], size=len(body), options=options)


def _copied(store: S3Store, options: PutOptions) -> None:
    before = PutOptions(tags={"Type": "yearly", "Old": "1"}, storage_class="GLACIER_IR")
    store.put_small("source", b"x", options=before)
    store.copy("source", "file", size=1, options=options)


def _copied_in_parts(store: S3Store, options: PutOptions) -> None:
    before = PutOptions(tags={"Type": "yearly", "Old": "1"}, storage_class="GLACIER_IR")
    body = bytes(PART_SIZE + 1)
    store.put("source", [body], size=len(body), options=before)
    store.copy("source", "file", size=len(body), options=options)


WRITERS: dict[str, Writer] = {
    "put": lambda store, options: store.put("file", [b"x"], size=1, options=options),
    "put_small": lambda store, options: store.put_small("file", b"x", options=options),
    "create": lambda store, options: store.create("file", b"x", options=options),
    "multipart": _multipart,
    "copy": _copied,
    "copy in parts": _copied_in_parts,
}


@pytest.fixture(params=WRITERS)
def write(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Writer:
    """Each way to create an object."""
    if request.param == "copy in parts":
        monkeypatch.setattr("prometheus_backup.stores.s3._SINGLE_COPY_LIMIT", PART_SIZE)
        monkeypatch.setattr("prometheus_backup.stores.s3._COPY_PART", 5 * 1024 * 1024)
    return WRITERS[request.param]


def _head(bucket: S3Bucket, key: str = "file") -> Any:
    return bucket.client.head_object(
        Bucket=bucket.name, Key=f"{PREFIX}/{key}", ChecksumMode="ENABLED"
    )


# Attributes of objects


def test_a_data_object_carries_its_tags_and_class(moto_bucket: S3Bucket, write: Writer) -> None:
    write(open_s3(moto_bucket), DATA)
    assert moto_bucket.tags(f"{PREFIX}/file") == DATA.tags
    assert _head(moto_bucket)["StorageClass"] == "STANDARD_IA"


def test_a_control_object_carries_tags_and_no_class(moto_bucket: S3Bucket, write: Writer) -> None:
    write(open_s3(moto_bucket), CONTROL)
    assert moto_bucket.tags(f"{PREFIX}/file") == CONTROL.tags
    assert "StorageClass" not in _head(moto_bucket)  # S3 returns every class except STANDARD


@pytest.mark.parametrize("encryption", ENCRYPTIONS)
def test_an_object_is_encrypted_as_configured(
    moto_bucket: S3Bucket, write: Writer, encryption: str
) -> None:
    settings, expected = ENCRYPTIONS[encryption]
    write(open_s3(moto_bucket, **settings), DATA)
    head = _head(moto_bucket)
    assert (head.get("ServerSideEncryption"), head.get("SSEKMSKeyId")) == expected


def test_tags_may_contain_special_characters_of_a_query(moto_bucket: S3Bucket) -> None:
    tags = {"Snapshot Name": "a+b=c/d:e@f", "Date": "2025-01-22"}
    store = open_s3(moto_bucket)
    store.put_small("file", b"x", options=PutOptions(tags=tags))
    store.copy("file", "copy", size=1, options=PutOptions(tags=tags))
    assert moto_bucket.tags(f"{PREFIX}/file") == tags
    assert moto_bucket.tags(f"{PREFIX}/copy") == tags


def test_a_copy_over_the_limit_is_made_in_parts(
    moto_bucket: S3Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("prometheus_backup.stores.s3._SINGLE_COPY_LIMIT", PART_SIZE)
    monkeypatch.setattr("prometheus_backup.stores.s3._COPY_PART", 5 * 1024 * 1024)
    body = random.Random(1).randbytes(11 * 1024 * 1024)
    with FaultyServer(upstream=moto_bucket.endpoint.url) as server:
        store = open_s3(moto_bucket, endpoint=server.url)
        store.put("source", [body], size=len(body), options=DATA)
        server.requests.clear()
        store.copy("source", "file", size=len(body), options=DATA)
        parts = [r for r in server.requests if "x-amz-copy-source-range" in r.headers]
    assert sorted(r.headers["x-amz-copy-source-range"] for r in parts) == [
        "bytes=0-5242879",
        "bytes=10485760-11534335",
        "bytes=5242880-10485759",
    ]
    assert moto_bucket.get(f"{PREFIX}/file") == body


# Stored checksums


def _put_with_checksum(bucket: S3Bucket, key: str, body: bytes, algorithm: Any) -> None:
    bucket.client.put_object(
        Bucket=bucket.name, Key=f"{PREFIX}/{key}", Body=body, ChecksumAlgorithm=algorithm
    )


@pytest.mark.parametrize("algorithm", ["SHA256", "CRC32", "SHA1"])
def test_a_stored_checksum_is_of_the_bytes(moto_bucket: S3Bucket, algorithm: str) -> None:
    for key, body in (("a", b"one"), ("b", b"one"), ("c", b"two")):
        _put_with_checksum(moto_bucket, key, body, algorithm)
    store = open_s3(moto_bucket)
    first, same, other = (store.stored_checksum(key) for key in "abc")
    assert first is not None
    assert first.startswith(f"{algorithm}:")
    assert first == same != other


def test_there_is_no_checksum_if_the_store_keeps_none(moto_bucket: S3Bucket) -> None:
    store = open_s3(moto_bucket)
    store.put_small("file", b"x", options=PLAIN)
    assert store.stored_checksum("file") is None
    with pytest.raises(ObjectNotFound):
        store.stored_checksum("absent")


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({"x-amz-checksum-crc64nvme": "AAAAAAAAAAA="}, "CRC64NVME:AAAAAAAAAAA="),
        (
            {"x-amz-checksum-crc64nvme": "AAAAAAAAAAA=", "x-amz-checksum-type": "FULL_OBJECT"},
            "CRC64NVME:AAAAAAAAAAA=",
        ),
        ({"x-amz-checksum-crc32": "AAAAAA==", "x-amz-checksum-type": "COMPOSITE"}, None),
        ({"x-amz-checksum-sha256": "47DEQpj8HBSa-3"}, None),
    ],
)
def test_only_a_checksum_of_the_full_object_counts(
    headers: dict[str, str], expected: str | None
) -> None:
    with FaultyServer(otherwise=Answer(status=200, headers=headers)) as server:
        store = _store_at(server.url)
        assert store.stored_checksum("file") == expected
        assert server.requests[-1].headers["x-amz-checksum-mode"] == "ENABLED"


@pytest.mark.parametrize(
    ("endpoint", "checksum", "sends"),
    [
        (None, "auto", True),
        (None, "none", False),
        ("http://127.0.0.1:1", "auto", False),
        ("http://127.0.0.1:1", "crc64nvme", True),
    ],
)
def test_uploads_carry_a_checksum_on_aws_and_elsewhere_if_configured(
    endpoint: str | None, checksum: str, *, sends: bool
) -> None:
    store = _store_at(endpoint, checksum=checksum)
    config: Any = getattr(store._store, "config")  # noqa: B009 - only S3's clients have it
    assert (config.get("checksum_algorithm") == "CRC64NVME".lower()) is sends
    assert store.keeps_checksums is sends


# Addresses


def _store_at(endpoint: str | None, *, bucket: str = "bucket", **settings: Any) -> S3Store:
    given = {"endpoint": endpoint, "keys": StaticKeys("AKIATEST", "secret")} | settings
    return S3Store(bucket=bucket, prefix=PREFIX, settings=S3Settings(**given))


def test_a_custom_endpoint_is_accessed_in_path_style() -> None:
    empty = b'<ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/"/>'
    with FaultyServer(otherwise=Answer(body=empty)) as server:
        named = server.url.replace(
            "127.0.0.1", "localhost"
        )  # an IP address always means path style
        list(_store_at(named).list())
        _store_at(named).stored_checksum("file")
        asked = [(r.headers["host"], r.path.partition("?")[0]) for r in server.requests]
    host = named.removeprefix("http://")
    assert asked == [(host, "/bucket"), (host, f"/bucket/{PREFIX}/file")]


@pytest.mark.parametrize(("bucket", "virtual"), [("bucket", True), ("bucket.with.dots", False)])
def test_aws_is_accessed_in_virtual_hosted_style_if_possible(bucket: str, virtual: bool) -> None:
    store = _store_at(None, bucket=bucket)
    for client in (store._store, store._probe):
        config: Any = getattr(client, "config")  # noqa: B009 - only S3's clients have it
        assert config["virtual_hosted_style_request"] == str(virtual).lower()


# Permissions


def _allow(*actions: str) -> dict[str, object]:
    return {"Effect": "Allow", "Action": list(actions), "Resource": "*"}


def test_missing_credentials_are_denied_with_a_hint(
    moto_bucket: S3Bucket,
) -> None:
    with pytest.raises(RepositoryDenied, match="there are none") as denied:
        open_s3(moto_bucket, keys=None)
    assert "AWS_ACCESS_KEY_ID" in denied.value.hint
    assert denied.value.exit_code == 12


def test_wrong_credentials_are_denied(moto: MotoServer, moto_bucket: S3Bucket) -> None:
    good = moto.new_user(_allow("s3:*"))
    unknown = StaticKeys("AKIAUNKNOWN", "secret-value")
    wrong = StaticKeys(good.access_key, "secret-value")
    with moto.enforcing_iam():
        open_s3(moto_bucket, keys=keys_of(good)).ping()
        for keys, code in ((unknown, "InvalidAccessKeyId"), (wrong, "SignatureDoesNotMatch")):
            store = open_s3(moto_bucket, keys=keys)
            with pytest.raises(RepositoryDenied, match=code) as denied:
                store.ping()
            assert "secret-value" not in f"{denied.value} {denied.value.hint}"
            with pytest.raises(RepositoryDenied):
                store.copy("a", "b", size=1, options=PLAIN)


CALLS: dict[str, tuple[Callable[[S3Store], object], str]] = {
    "ping": (lambda s: s.ping(), "s3:ListBucket"),
    "list": (lambda s: list(s.list()), "s3:ListBucket"),
    "list_folders": (lambda s: s.list_folders(), "s3:ListBucket"),
    "list_files": (lambda s: s.list_files("folder"), "s3:ListBucket"),
    "put": (lambda s: s.put("new", [b"x"], size=1, options=PLAIN), "s3:PutObject"),
    "multipart": (lambda s: _multipart(s, PLAIN), "s3:PutObject"),
    "create": (lambda s: s.create("new", b"x", options=PLAIN), "s3:PutObject"),
    "get": (lambda s: s.get("file", limit=9), "s3:GetObject"),
    "stream": (lambda s: list(s.stream("file")), "s3:GetObject"),
    "head": (lambda s: s.head("file"), "s3:GetObject"),
    "copy": (lambda s: s.copy("file", "new", size=1, options=PLAIN), "s3:PutObject"),
    "delete": (lambda s: s.delete(["file"]), "s3:DeleteObject"),
}


@pytest.mark.parametrize("call", CALLS)
def test_a_denied_call_names_the_action_it_needs(
    moto: MotoServer, moto_bucket: S3Bucket, call: str
) -> None:
    action, needed = CALLS[call]
    open_s3(moto_bucket).put_small("file", b"x", options=PLAIN)
    others = {"s3:ListBucket", "s3:PutObject", "s3:GetObject", "s3:DeleteObject"} - {needed}
    store = open_s3(moto_bucket, keys=keys_of(moto.new_user(_allow(*others))))
    with moto.enforcing_iam(), pytest.raises(RepositoryDenied) as denied:
        action(store)
    assert needed in denied.value.hint
    assert moto_bucket.keys() == [f"{PREFIX}/file"]


_ONE_DENIED = (
    '<DeleteResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><Error>'
    f"<Key>{PREFIX}/locked</Key><Code>AccessDenied</Code><Message>Access Denied</Message>"
    "</Error></DeleteResult>"
)
_DENIED = b"<Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>"


def test_delete_continues_after_a_denial_and_then_raises(moto_bucket: S3Bucket) -> None:
    with FaultyServer(upstream=moto_bucket.endpoint.url) as server:
        store = open_s3(moto_bucket, endpoint=server.url)
        for key in ("a", "locked", "z"):
            store.put_small(key, b"x", options=PLAIN)
        denied = [Answer("DELETE", "locked", status=403, body=_DENIED) for _ in range(2)]
        server.faults = [Answer("POST", "delete", body=_ONE_DENIED.encode()), *denied]
        with pytest.raises(RepositoryDenied, match="locked"):
            store.delete(["a", "locked", "z"])
        assert server.faults == []
    assert moto_bucket.keys() == [f"{PREFIX}/locked"]


@pytest.mark.parametrize("call", sorted(set(CALLS) - {"head"}))  # a HEAD returns only 404
def test_a_missing_bucket_is_not_found(moto_bucket: S3Bucket, call: str) -> None:
    absent = S3Bucket(moto_bucket.endpoint, f"absent-{uuid.uuid4().hex[:8]}")
    with pytest.raises(RepositoryNotFound, match=absent.name) as missing:
        CALLS[call][0](open_s3(absent))
    assert missing.value.exit_code == 10
