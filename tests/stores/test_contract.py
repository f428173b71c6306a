"""The contract of stores/base.py, tested with every store."""

import random
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest

from prometheus_backup.errors import (
    ObjectExists,
    ObjectNotFound,
    RepositoryUnavailable,
)
from prometheus_backup.model import PutOptions
from prometheus_backup.stores.base import ObjectStore
from prometheus_backup.stores.objectstore import PART_SIZE
from prometheus_backup.transfer import Cancelled

PLAIN = PutOptions()
SIZES = (0, 1, PART_SIZE - 1, PART_SIZE, PART_SIZE + 1, 3 * PART_SIZE)
MEBIBYTE = 1024 * 1024


def _bytes(size: int, *, seed: int = 0) -> bytes:
    return random.Random(seed).randbytes(size)


def _chunks(body: bytes, size: int = MEBIBYTE) -> Iterator[bytes]:
    for start in range(0, len(body), size):
        yield body[start : start + size]


def _put(store: ObjectStore, key: str, body: bytes = b"x") -> None:
    store.put_small(key, body, options=PLAIN)


def _put_all(store: ObjectStore, keys: list[str]) -> None:
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda key: _put(store, key, key.encode()), keys))


def _keys(store: ObjectStore, folder: str = "") -> list[str]:
    return [o.key for o in store.list(folder)]


def _read(store: ObjectStore, key: str) -> bytes:
    return b"".join(store.stream(key))


class _BodyError(Exception):
    """An error of the body that no store knows."""


def _failing(after: int, failure: BaseException) -> Iterator[bytes]:
    """A body that fails after so many bytes."""
    yield from _chunks(_bytes(after))
    raise failure


# Bytes


@pytest.mark.parametrize("size", SIZES)
def test_an_object_is_read_as_it_was_put(store: ObjectStore, size: int) -> None:
    body = _bytes(size)
    store.put("folder/file", _chunks(body, 300_007), size=size, options=PLAIN)
    assert _read(store, "folder/file") == body
    assert store.get("folder/file", limit=size) == body
    assert store.head("folder/file").size == size
    assert [(o.key, o.size) for o in store.list()] == [("folder/file", size)]


def test_a_put_replaces_the_whole_object(store: ObjectStore) -> None:
    _put(store, "file", b"a long first body")
    store.put("file", [b"sh", b"", b"ort"], size=5, options=PLAIN)
    assert _read(store, "file") == b"short"
    _put(store, "file", b"")
    assert _read(store, "file") == b""
    assert _keys(store) == ["file"]


def test_get_refuses_an_object_larger_than_its_limit(store: ObjectStore) -> None:
    _put(store, "file", b"12345")
    assert store.get("file", limit=5) == b"12345"
    with pytest.raises(RepositoryUnavailable, match="larger than 4 bytes"):
        store.get("file", limit=4)


# Atomic puts

FAILURES = [
    _BodyError("of the test"),
    Cancelled(),
    KeyboardInterrupt(),
    FileNotFoundError(2, "the source is gone"),
    PermissionError(13, "the source is closed"),
    OSError(28, "the source's disk is full"),
]


@pytest.mark.parametrize("failure", FAILURES, ids=lambda f: type(f).__name__)
def test_a_failing_body_leaves_nothing_and_raises_its_own_exception(
    store: ObjectStore, failure: BaseException
) -> None:
    for after, size in ((0, 10), (5, 10), (2 * PART_SIZE + 5, 4 * PART_SIZE)):
        with pytest.raises(type(failure)) as raised:
            store.put("folder/file", _failing(after, failure), size=size, options=PLAIN)
        assert raised.value is failure
        assert _keys(store) == []
        with pytest.raises(ObjectNotFound):
            store.head("folder/file")


@pytest.mark.parametrize("size", [10, 4 * PART_SIZE])
def test_an_interrupted_put_leaves_the_previous_object(store: ObjectStore, size: int) -> None:
    _put(store, "file", b"old")
    with pytest.raises(_BodyError):
        store.put("file", _failing(size // 2, _BodyError()), size=size, options=PLAIN)
    assert _read(store, "file") == b"old"
    store.put("file", _chunks(_bytes(size)), size=size, options=PLAIN)
    assert _read(store, "file") == _bytes(size)


def test_an_object_is_not_visible_before_its_put_ends(store: ObjectStore) -> None:
    body = _bytes(PART_SIZE + 1)
    seen: list[list[str]] = []

    def watched(other_thread: ThreadPoolExecutor) -> Iterator[bytes]:
        yield body[:PART_SIZE]
        seen.append(other_thread.submit(_keys, store).result())
        yield body[PART_SIZE:]
        seen.append(other_thread.submit(_keys, store).result())

    with ThreadPoolExecutor(1) as pool:
        store.put("file", watched(pool), size=len(body), options=PLAIN)
    assert seen == [[], []]
    assert _keys(store) == ["file"]


# Listings


def test_listings_and_deletions_are_complete_beyond_a_thousand(store: ObjectStore) -> None:
    many = [f"many/{number:04}" for number in range(1003)]
    few = ["few/a", "manyfold", "z"]
    _put_all(store, many + few)
    assert _keys(store) == sorted(many + few)
    assert _keys(store, "many") == many
    assert [o.key for o in store.list_files("many")] == many
    assert store.list_folders() == ["few", "many"]
    store.delete(many)
    assert _keys(store) == sorted(few)
    assert set(store.list_folders()) - {"many"} == {
        "few"
    }  # just emptied, so it may still be listed


def test_listings_are_sorted_bytewise_by_whole_key(store: ObjectStore) -> None:
    # `-` sorts before `/` and `0` after it, so folders and files interleave.
    keys = ["a!", "a-", "a.b", "a-b/1", "a/1", "a/b-", "a/b/c", "a/b0", "a0", "a00/1", "B", "Z/z"]
    _put_all(store, keys)
    assert _keys(store) == sorted(keys, key=str.encode)
    assert _keys(store, "a") == ["a/1", "a/b-", "a/b/c", "a/b0"]
    assert store.list_folders() == ["Z", "a", "a-b", "a00"]
    assert [o.key for o in store.list_files("a")] == ["a/1", "a/b-", "a/b0"]


def test_a_listing_has_key_size_and_time(store: ObjectStore) -> None:
    _put(store, "folder/file", b"123")
    (listed,) = store.list("folder")
    assert listed == store.head("folder/file") == next(iter(store.list_files("folder")))
    assert (listed.key, listed.size) == ("folder/file", 3)


def test_a_folder_name_does_not_match_as_a_prefix(store: ObjectStore) -> None:
    _put_all(store, ["backup-1/x", "backup-10/x", "backup-1-/x", "backup-1.txt"])
    assert _keys(store, "backup-1") == ["backup-1/x"]
    assert [o.key for o in store.list_files("backup-1")] == ["backup-1/x"]
    assert _keys(store, "backup") == []
    assert store.list_files("backup") == []


def test_list_files_lists_only_files_directly_in_the_folder(store: ObjectStore) -> None:
    _put_all(store, ["b/one", "b/two", "b/deep/three", "b/deep/er/four", "c/five"])
    assert [o.key for o in store.list_files("b")] == ["b/one", "b/two"]
    assert _keys(store, "b/deep") == ["b/deep/er/four", "b/deep/three"]


def test_an_empty_store_lists_nothing(store: ObjectStore) -> None:
    store.ping()
    assert _keys(store) == []
    assert _keys(store, "folder") == []
    assert list(store.list_folders()) == []
    assert list(store.list_files("folder")) == []


# Missing objects


@pytest.mark.parametrize("key", ["absent", "folder", "folder/absent", "folder/file/below"])
def test_a_missing_key_is_not_found(store: ObjectStore, key: str) -> None:
    _put(store, "folder/file")
    asks: list[Callable[[], object]] = [
        lambda: store.get(key, limit=10),
        lambda: list(store.stream(key)),
        lambda: store.head(key),
        lambda: store.copy(key, "target", size=1, options=PLAIN),
    ]
    for ask in asks:
        with pytest.raises(ObjectNotFound) as absent:
            ask()
        assert key in absent.value.message
    assert _keys(store) == ["folder/file"]


def test_deleting_a_missing_key_succeeds(store: ObjectStore) -> None:
    store.delete([])
    store.delete(["absent", "folder/absent"])
    _put_all(store, ["folder/a", "folder/b", "folder/c"])
    store.delete(["folder", "folder/c/below"])
    store.delete(["folder/absent", "folder/a", "folder/b", "absent/x"])
    store.delete(["folder/b"])
    assert _keys(store) == ["folder/c"]


# Create


def test_create_fails_if_the_key_exists(store: ObjectStore) -> None:
    store.create("folder/claim", b"first", options=PLAIN)
    with pytest.raises(ObjectExists):
        store.create("folder/claim", b"second", options=PLAIN)
    assert store.get("folder/claim", limit=10) == b"first"
    store.delete(["folder/claim"])
    store.create("folder/claim", b"third", options=PLAIN)
    assert store.get("folder/claim", limit=10) == b"third"


def test_exactly_one_of_concurrent_creates_succeeds(store: ObjectStore) -> None:
    runners = 8
    for attempt in range(2):
        start = threading.Barrier(runners)

        def claim(number: int, attempt: int = attempt, start: threading.Barrier = start) -> bool:
            start.wait()
            try:
                store.create(f"claim-{attempt}", f"{number}".encode(), options=PLAIN)
            except ObjectExists:
                return False
            return True

        with ThreadPoolExecutor(runners) as pool:
            won = list(pool.map(claim, range(runners)))
        assert won.count(True) == 1
        assert store.get(f"claim-{attempt}", limit=10) == f"{won.index(True)}".encode()


# Copies


def test_a_copy_is_complete_and_independent_of_its_source(store: ObjectStore) -> None:
    body = _bytes(MEBIBYTE + 1)
    _put(store, "old/file", body)
    _put(store, "new/file", b"what was there before")
    store.copy("old/file", "new/file", size=len(body), options=PutOptions(tags={"Type": "daily"}))
    _put(store, "old/file", b"changed")
    assert _read(store, "new/file") == body
    store.delete(["old/file"])
    assert _read(store, "new/file") == body
    assert _keys(store) == ["new/file"]


def test_equal_stored_checksums_mean_equal_bytes(store: ObjectStore) -> None:
    for key, body in (("a", b"one"), ("b", b"one"), ("c", b"two")):
        _put(store, key, body)
    store.copy("a", "copy", size=3, options=PLAIN)
    same, twin, other, copy = (store.stored_checksum(key) for key in ("a", "b", "c", "copy"))
    assert same is not None or not store.keeps_checksums
    if same is not None:
        assert same == twin == copy
        assert same != other
    else:
        assert other is None


# Clock, threads, address


def test_last_modified_is_now_and_changes_with_a_rewrite(store: ObjectStore) -> None:
    _put(store, "file")
    first = store.head("file").modified
    assert first.utcoffset() == timedelta(0)
    assert abs(datetime.now(UTC) - first) < timedelta(minutes=1)
    deadline = time.monotonic() + 30
    while store.head("file").modified <= first:  # servers store whole seconds
        assert time.monotonic() < deadline
        time.sleep(0.1)
        _put(store, "file")


def test_calls_may_come_from_several_threads(store: ObjectStore) -> None:
    def work(number: int) -> list[str]:
        folder, body = f"worker-{number}", _bytes(70_000, seed=number)
        for turn in range(5):
            store.put(f"{folder}/{turn}", _chunks(body, 10_000), size=len(body), options=PLAIN)
            store.copy(f"{folder}/{turn}", f"{folder}/copy", size=len(body), options=PLAIN)
            assert _read(store, f"{folder}/copy") == body
            store.delete([f"{folder}/{turn}"])
        return _keys(store, folder)

    with ThreadPoolExecutor(8) as pool:
        left = list(pool.map(work, range(8)))
    assert left == [[f"worker-{number}/copy"] for number in range(8)]


def test_the_address_contains_no_secret(store: ObjectStore) -> None:
    assert store.url.partition(":")[0] in ("memory", "file", "s3", "az")
    assert not any(secret in store.url for secret in ("secret", "Eby8", "@", "?", "key"))
    with pytest.raises(ObjectNotFound) as absent:
        store.head("some/absent")
    assert "secret" not in str(absent.value)


def test_object_info_is_immutable(store: ObjectStore) -> None:
    _put(store, "file", b"1")
    before = store.head("file")
    _put(store, "file", b"22")
    assert (before.key, before.size) == ("file", 1)
    assert store.head("file").version != before.version
    assert store.head("file").size == 2
