"""Keys in the bucket that this program never writes, from other tools and web consoles.

obstore rejects a whole listing if one of its keys is not a clean path.
"""

import pytest

from devtools.s3 import S3Bucket
from prometheus_backup.errors import RepositoryUnavailable
from prometheus_backup.model import PutOptions
from prometheus_backup.stores.s3 import S3Store
from tests.support.faulty_http import Answer, CutResponse, FaultyServer
from tests.support.s3 import PREFIX, open_s3

PLAIN = PutOptions()
OURS = ["backup-1/block/index", "backup-1/metadata.json", "backup-2/metadata.json"]
UNCLEAN = ["/leading", "//", "a//b", "backup-1//x", "backup-1/../x", "backup-1/./x", "../x", "."]


@pytest.fixture
def store(moto_bucket: S3Bucket) -> S3Store:
    """A repository with two backups."""
    opened = open_s3(moto_bucket)
    for key in OURS:
        opened.put_small(key, key.encode(), options=PLAIN)
    return opened


def _check_listings(store: S3Store, foreign: list[str]) -> None:
    store.ping()
    assert [o.key for o in store.list()] == sorted([*OURS, *foreign])
    assert [o.key for o in store.list("backup-1")] == OURS[:2]
    assert [o.key for o in store.list_files("backup-1")] == OURS[1:2]
    folders = {key.partition("/")[0] for key in [*OURS, *foreign] if "/" in key}
    assert store.list_folders() == sorted(folders)


@pytest.mark.parametrize("key", UNCLEAN)
def test_an_unclean_key_does_not_hide_our_objects(
    store: S3Store, moto_bucket: S3Bucket, key: str
) -> None:
    moto_bucket.client.put_object(Bucket=moto_bucket.name, Key=f"{PREFIX}/{key}", Body=b"foreign")
    folders = [f for f in store.list_folders() if f != "a"]  # `a//b` is in a folder `a`
    assert folders == ["backup-1", "backup-2"]
    store.ping()
    assert [o.key for o in store.list()] == OURS
    assert [o.key for o in store.list("backup-1")] == OURS[:2]
    assert [o.key for o in store.list_files("backup-1")] == OURS[1:2]
    for listed in store.list():
        assert (listed.size, listed.modified) == (len(listed.key), store.head(listed.key).modified)


def test_keys_with_spaces_and_special_characters_are_listed_unchanged(
    store: S3Store, moto_bucket: S3Bucket
) -> None:
    foreign = [" leading space", "my notes/read me.txt", "ü/é☃", "100%/a%2Fb", "a+b=c&d", "#x?y"]
    for key in foreign:
        moto_bucket.put(f"{PREFIX}/{key}", b"foreign")
    _check_listings(store, foreign)
    for key in foreign:
        assert store.get(key, limit=7) == b"foreign"
    store.delete(foreign)
    assert moto_bucket.keys() == [f"{PREFIX}/{key}" for key in OURS]


def test_folders_made_by_a_web_console_are_not_listed(
    store: S3Store, moto_bucket: S3Bucket
) -> None:
    for key in (f"{PREFIX}/", f"{PREFIX}/backup-1/", f"{PREFIX}/empty/"):
        moto_bucket.put(key, b"")
    store.ping()
    assert [o.key for o in store.list("backup-1")] == OURS[:2]
    assert [o.key for o in store.list_files("backup-1")] == OURS[1:2]
    assert list(store.list("empty")) == []
    assert list(store.list_files("empty")) == []
    assert store.list_folders() == ["backup-1", "backup-2", "empty"]


def test_similar_prefixes_are_not_listed(store: S3Store, moto_bucket: S3Bucket) -> None:
    for key in ("other/backup-9/x", f"{PREFIX}-old/backup-9/x", f"{PREFIX}.txt", "backup-9/x"):
        moto_bucket.put(key, b"foreign")
    _check_listings(store, [])


def test_a_repository_may_be_a_whole_bucket(moto_bucket: S3Bucket) -> None:
    store = open_s3(moto_bucket, prefix="")
    for key in OURS:
        store.put_small(key, b"x", options=PLAIN)
    for unclean in ([], ["/leading", "a//b"]):
        for key in unclean:
            moto_bucket.put(key, b"foreign")
        assert [o.key for o in store.list()] == OURS
        assert [o.key for o in store.list_files("backup-1")] == OURS[1:2]
        assert (
            {"backup-1", "backup-2"} <= set(store.list_folders()) <= {"a", "backup-1", "backup-2"}
        )


def test_listings_with_unclean_keys_are_complete_beyond_a_thousand(
    moto_bucket: S3Bucket,
) -> None:
    pages = [_page(1, 1000, more="next"), _page(1000, 1500, more="")]
    with FaultyServer(upstream=moto_bucket.endpoint.url) as server:
        through = open_s3(moto_bucket, endpoint=server.url)
        refused = _page(1, 2, more="", key="a//b")
        server.faults = [Answer("GET", body=page) for page in (refused, *pages)]
        assert [o.key for o in through.list()] == [f"file-{n:04}" for n in range(1, 1500)]
        assert server.faults == []


def _page(first: int, end: int, *, more: str, key: str = "") -> bytes:
    contents = "".join(
        f"<Contents><Key>{PREFIX}/{key or f'file-{number:04}'}</Key><Size>1</Size>"
        "<LastModified>2025-01-22T02:00:00.000Z</LastModified><ETag>x</ETag></Contents>"
        for number in range(first, end)
    )
    token = f"<NextContinuationToken>{more}</NextContinuationToken>" if more else ""
    return (
        '<ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'
        f"<IsTruncated>{'true' if more else 'false'}</IsTruncated>{token}{contents}"
        "</ListBucketResult>"
    ).encode()


def test_a_listing_that_is_always_interrupted_fails_instead_of_being_incomplete(
    moto_bucket: S3Bucket,
) -> None:
    for key in OURS:
        moto_bucket.put(f"{PREFIX}/{key}", b"x")
    with FaultyServer(upstream=moto_bucket.endpoint.url) as server:
        through = open_s3(moto_bucket, endpoint=server.url)
        server.faults = [CutResponse("GET", after=400) for _ in range(20)]
        with pytest.raises(RepositoryUnavailable):
            list(through.list())
