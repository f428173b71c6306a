"""Addresses of repositories: which are accepted, how they are parsed, which are refused."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prometheus_backup.errors import UsageError
from prometheus_backup.model import PutOptions
from prometheus_backup.stores.local import LocalStore
from prometheus_backup.stores.location import SCHEMES, Location, open_store, parse_location
from prometheus_backup.stores.objectstore import ObstoreStore
from prometheus_backup.stores.s3 import S3Settings, S3Store, StaticKeys


@pytest.mark.parametrize(
    ("text", "location", "shown"),
    [
        ("s3://bucket", Location("s3", "bucket", ""), "s3://bucket"),
        ("s3://bucket/", Location("s3", "bucket", ""), "s3://bucket"),
        ("s3://bucket/a/b/", Location("s3", "bucket", "a/b"), "s3://bucket/a/b"),
        ("s3://bucket//a///b", Location("s3", "bucket", "a/b"), "s3://bucket/a/b"),
        ("s3://my.bucket-1/p", Location("s3", "my.bucket-1", "p"), "s3://my.bucket-1/p"),
        ("gs://bucket/prefix", Location("gs", "bucket", "prefix"), "gs://bucket/prefix"),
        ("az://container/p", Location("az", "container", "p"), "az://container/p"),
        ("file:///var/backups", Location("file", "", "/var/backups"), "file:///var/backups"),
        ("file:///var//backups/", Location("file", "", "/var/backups"), "file:///var/backups"),
        ("file:///a%20b", Location("file", "", "/a b"), "file:///a b"),
        ("S3://bucket/p", Location("s3", "bucket", "p"), "s3://bucket/p"),
        ("s3://bucket/a..b/...", Location("s3", "bucket", "a..b/..."), "s3://bucket/a..b/..."),
    ],
)
def test_an_address_is_parsed_and_printed(text: str, location: Location, shown: str) -> None:
    assert parse_location(text) == location
    assert str(location) == shown


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "unknown scheme"),
        ("bucket/prefix", "unknown scheme"),
        ("/var/backups", "unknown scheme"),
        ("http://bucket/prefix", "unknown scheme"),
        ("s3:bucket", "no bucket"),
        ("s3://", "no bucket"),
        ("s3:///prefix", "no bucket"),
        ("gs://", "no bucket"),
        ("file://", "no absolute path"),
        ("file:///", "no absolute path"),
        ("file://host/path", "no absolute path"),
        ("file:relative", "no absolute path"),
        ("file:///a/../b", "its path contains . or .."),
        ("s3://bucket/./a", "its path contains . or .."),
        ("s3://bucket/%2e%2e/a", "its path contains . or .."),
        ("s3://[bucket/p", "Invalid IPv6 URL"),
    ],
)
def test_an_invalid_address_is_refused_with_the_valid_forms(text: str, why: str) -> None:
    with pytest.raises(UsageError) as refused:
        parse_location(text)
    assert why in refused.value.message
    assert refused.value.exit_code == 2
    assert all(f"{scheme}://" in refused.value.hint for scheme in SCHEMES)


@pytest.mark.parametrize(
    "text",
    [
        "s3://AKIAKEY:hidden-secret@bucket/prefix",
        "s3://hidden-secret@bucket",
        "https://user:hidden-secret@host/bucket",
        "ftp://bucket/?token=hidden-secret",
        "az://container/p?sig=hidden-secret",
        "gs://bucket/p#hidden-secret",
    ],
)
def test_an_address_with_a_secret_is_refused_and_not_repeated(text: str) -> None:
    with pytest.raises(UsageError, match="user, query or fragment") as refused:
        parse_location(text)
    assert "hidden-secret" not in f"{refused.value.message} {refused.value.hint}"
    assert "AKIAKEY" not in refused.value.message


@given(st.text(max_size=60), st.sampled_from(["", "s3://", "gs://b/", "az://", "file:///"]))
def test_any_text_is_parsed_or_refused(text: str, start: str) -> None:
    try:
        location = parse_location(start + text)
    except UsageError:
        return
    assert location.scheme in SCHEMES
    parts = location.path.strip("/").split("/")
    assert not {".", ".."} & set(parts)
    assert location.path == "" or "" not in parts


def test_a_file_address_opens_that_directory(tmp_path: Path) -> None:
    store = open_store(parse_location(f"file://{tmp_path}/the%20repository"))
    assert isinstance(store, LocalStore)
    store.put_small("folder/file", b"x", options=PutOptions())
    assert (tmp_path / "the repository/folder/file").read_bytes() == b"x"
    assert store.url == f"file://{tmp_path}/the repository"


def test_an_s3_address_opens_that_prefix() -> None:
    settings = S3Settings(keys=StaticKeys("AKIATEST", "secret"))
    store = open_store(parse_location("s3://bucket/some/prefix/"), s3=settings)
    assert isinstance(store, S3Store)
    assert store.url == "s3://bucket/some/prefix"


def test_an_azure_address_opens_that_container(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_NAME", "account")
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_KEY", "c2VjcmV0")
    store = open_store(parse_location("az://container/prefix"))
    assert isinstance(store, ObstoreStore)
    assert store.url == "az://container/prefix"


def test_azure_without_an_account_is_a_wrong_setting() -> None:
    with pytest.raises(UsageError, match="cannot open az://container/p") as refused:
        open_store(parse_location("az://container/p"))
    assert "credentials" in refused.value.hint


def test_a_google_key_that_cannot_be_read_is_a_wrong_setting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "key.json").write_text('{"private_key": "not-a-key"')
    monkeypatch.setenv("GOOGLE_SERVICE_ACCOUNT", str(tmp_path / "key.json"))
    with pytest.raises(UsageError, match="cannot open gs://bucket/p") as refused:
        open_store(parse_location("gs://bucket/p"))
    assert "not-a-key" not in refused.value.message
