"""Stores accessed through obstore (the Rust object_store): S3, Google Cloud Storage, Azure.

Maps obstore's calls and exceptions to the contract. What is special to S3 is in s3.py.
"""

import contextlib
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, TypeVar

import obstore
from obstore import exceptions

from prometheus_backup.errors import (
    BackupToolError,
    ObjectNotFound,
    RepositoryUnavailable,
    UsageError,
)
from prometheus_backup.model import ObjectInfo, PutOptions
from prometheus_backup.stores.base import NoAnswer
from prometheus_backup.stores.calls import interruptibly
from prometheus_backup.stores.failures import (
    ListingInterrupted,
    TimedOut,
    UploadLost,
    translate,
)
from prometheus_backup.stores.lifecycle import ExpiryRule
from prometheus_backup.stores.upload_body import UploadBody

if TYPE_CHECKING:
    from obstore.store import ClientConfig, RetryConfig
    from obstore.store import ObjectStore as ObstoreBackend

PART_SIZE = 8 * 1024 * 1024
"""Bytes of a part of a multipart upload; larger if a file would need over 10,000 parts."""
PARTS_IN_FLIGHT = 3
_MAX_PARTS = 10_000
_READ_CHUNK = 256 * 1024
"""Bytes. Small enough to stay in the CPU cache until it is hashed and written."""
_LISTING_RETRIES = 3
_UPLOADS = 3
"""How often an upload is begun at most."""
_LONGEST_PAUSE = 15.0  # seconds between two attempts to create an object
_PANIC = "PanicException"
"""A defect in Rust, or a setting that it cannot use. Python can only tell it by its name."""
_ABSENT_KEY = ".probe-absent"


@dataclass(frozen=True, slots=True)
class Patience:
    """How long to wait for an answer, and how long to try again; in seconds.

    The time for an answer includes sending the request, as obstore counts: it limits how slow a
    connection may be.
    """

    answer: float
    retries: int
    retrying: float

    @property
    def client(self) -> "ClientConfig":
        """Return obstore's settings of connections."""
        return {
            # The default of 30 s for a whole request is too short for a large object.
            "timeout": timedelta(hours=1),
            "read_timeout": timedelta(seconds=self.answer),
            "connect_timeout": timedelta(seconds=min(10.0, self.answer)),
        }

    @property
    def retry(self) -> "RetryConfig":
        """Return obstore's settings of retries."""
        return {"max_retries": self.retries, "retry_timeout": timedelta(seconds=self.retrying)}


PATIENT = Patience(answer=45, retries=10, retrying=180)
"""One connection that stalls is given up, and the request made again, several times."""
IMPATIENT = Patience(answer=12, retries=2, retrying=5)
"""For somebody who waits at the terminal, when a wrong setting is more likely than a failure."""
_HURRIED_UPLOAD = replace(IMPATIENT, answer=PATIENT.answer)
SLOW = Patience(answer=300, retries=10, retrying=900)
"""For uploads over a connection too slow to send a part in 45 s, if the store answers at all."""

_T = TypeVar("_T")


class ObstoreStore:
    """A store that is accessed through obstore.

    `connect` returns a client with the repository's prefix as its root. With `hurried`, everything
    gives up as early as `ping` does.
    """

    def __init__(
        self, *, connect: Callable[[Patience], "ObstoreBackend"], url: str, hurried: bool = False
    ) -> None:
        self._connect = connect
        self._hurried = hurried
        self._probe = connect(IMPATIENT)
        self._store = self._probe if hurried else connect(PATIENT)
        self._uploads = connect(_HURRIED_UPLOAD) if hurried else self._store
        self._bulk_delete = True
        self._url = url

    @property
    def url(self) -> str:
        """Return the repository's address."""
        return self._url

    @property
    def keeps_checksums(self) -> bool:
        """Return False: obstore cannot read the checksums that a store keeps."""
        return False

    def ping(self) -> None:
        """List the root with few retries."""

        def list_root() -> None:
            with contextlib.suppress(exceptions.InvalidPathError):  # foreign keys, so it answered
                found = obstore.list_with_delimiter(self._probe)
                if not found["objects"] and not found["common_prefixes"]:
                    self._probe_absent_key()

        self._call("list", "", list_root)

    def _probe_absent_key(self) -> None:
        # A web server may answer with a page: that parses as an empty listing, and any key exists.
        try:
            obstore.head(self._probe, _ABSENT_KEY)
        except FileNotFoundError:
            return
        raise RepositoryUnavailable(
            f"cannot list {self._url}: the server is not an object store",
            hint="check the endpoint, and any proxy in between",
        )

    def now(self, *, probe: str) -> datetime:
        """Return the LastModified of a probe object."""
        self.put_small(probe, b"clock\n", options=PutOptions())
        try:
            return self.head(probe).modified
        finally:
            self.delete([probe])

    def put(self, key: str, body: Iterable[bytes], *, size: int, options: PutOptions) -> None:
        """Store an object, in parts if it is large."""
        if size <= PART_SIZE:
            self.put_small(key, b"".join(body), options=options)
            return

        def send() -> None:
            upload = UploadBody(body)
            try:
                self._put(key, upload, options, part_size=max(PART_SIZE, -(-size // _MAX_PARTS)))
            except BackupToolError:
                upload.raise_producer_error()
                raise

        self._send(send, repeatable=iter(body) is not body)

    def put_small(self, key: str, body: bytes, *, options: PutOptions) -> None:
        """Store a small object, replacing an existing one."""
        self._send(lambda: self._put(key, body, options, part_size=None), repeatable=True)

    def _send(self, send: Callable[[], None], *, repeatable: bool) -> None:
        """Upload again if the store forgot the upload, or the connection was only too slow."""
        for _ in range(_UPLOADS - 1 if repeatable else 0):
            try:
                return send()
            except UploadLost:
                continue
            except TimedOut:
                if self._hurried or not self._answers():
                    raise
                self._uploads = self._connect(SLOW)
        return send()

    def _answers(self) -> bool:
        try:
            self.ping()
        except BackupToolError:
            return False
        return True

    def _put(self, key: str, body: Any, options: PutOptions, *, part_size: int | None) -> None:
        self._call(
            "put",
            key,
            lambda: obstore.put(
                self._store if self._hurried and part_size is None else self._uploads,
                key,
                body,
                use_multipart=part_size is not None,
                chunk_size=part_size or PART_SIZE,
                max_concurrency=PARTS_IN_FLIGHT,
                **self._put_arguments(options),
            ),
        )

    def create(self, key: str, body: bytes, *, options: PutOptions) -> None:
        """Store a small object if the key is free.

        obstore does not repeat such a request itself when the connection fails.
        """
        give_up_at = time.monotonic() + (0 if self._hurried else PATIENT.retrying)
        pause = 0.5
        while True:
            try:
                return self._create(key, body, options)
            except NoAnswer:
                if time.monotonic() + pause > give_up_at:
                    raise
            time.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)

    def _create(self, key: str, body: bytes, options: PutOptions) -> None:
        self._call(
            "create",
            key,
            lambda: obstore.put(
                self._store, key, body, mode="create", **self._put_arguments(options)
            ),
        )

    def get(self, key: str, *, limit: int) -> bytes:
        """Return a whole object."""

        def read() -> bytes:
            result = obstore.get(self._store, key)
            if result.meta["size"] > limit:
                raise RepositoryUnavailable(
                    f"cannot read {self._url}/{key}: it is larger than {limit:,} bytes"
                )
            return bytes(result.bytes())

        return self._call("read", key, read)

    def stream(self, key: str) -> Iterator[bytes]:
        """Yield an object in chunks."""
        chunks = self._call(
            "read",
            key,
            lambda: iter(obstore.get(self._store, key).stream(min_chunk_size=_READ_CHUNK)),
        )
        while True:
            chunk = self._call("read", key, lambda: next(chunks, None))
            if chunk is None:
                return
            yield chunk

    def head(self, key: str) -> ObjectInfo:
        """Return size and LastModified."""
        return _info(self._call("read", key, lambda: obstore.head(self._store, key)))

    def list(self, folder: str = "") -> Iterator[ObjectInfo]:
        """Yield every object below `folder`."""
        # Sorted here because SeaweedFS lists `a/x` before `a-`, like a file system.
        found = self._retry_listing(folder, lambda: self._list_all(folder))
        yield from sorted(found, key=lambda o: o.key)

    def list_folders(self) -> Sequence[str]:
        """Return the names of the folders directly below the root."""
        folders, _ = self._retry_listing("", lambda: self._list_one_level(""))
        return sorted(folders)

    def list_files(self, folder: str) -> Sequence[ObjectInfo]:
        """Return the objects directly in `folder`."""
        _, files = self._retry_listing(folder, lambda: self._list_one_level(folder))
        return sorted(files, key=lambda o: o.key)

    def _retry_listing(self, folder: str, listing: Callable[[], _T]) -> _T:
        # obstore retries failed listings, but not a response that is interrupted.
        for _ in range(_LISTING_RETRIES):
            with contextlib.suppress(ListingInterrupted):
                return self._call("list", folder, listing)
        return self._call("list", folder, listing)

    # Web consoles create a key `<folder>/` for an empty folder; obstore returns it as `<folder>`.
    # It is not an object of ours, so it is skipped.

    def _list_all(self, folder: str) -> Sequence[ObjectInfo]:
        """Return all objects below a folder, in any order."""
        pages = obstore.list(self._store, prefix=folder or None, chunk_size=1000)
        return [_info(meta) for page in pages for meta in page if meta["path"] not in ("", folder)]

    def _list_one_level(self, folder: str) -> tuple[Sequence[str], Sequence[ObjectInfo]]:
        """Return the folders and objects directly in a folder, in any order."""
        result = obstore.list_with_delimiter(self._store, prefix=folder or None)
        files = [_info(meta) for meta in result["objects"] if meta["path"] not in ("", folder)]
        return [folder for folder in result["common_prefixes"] if folder], files

    def copy(self, source: str, target: str, *, size: int, options: PutOptions) -> None:
        """Copy an object inside the store."""
        del size, options  # only S3 has classes and tags that a copy needs: see s3.py
        self._call("copy", source, lambda: obstore.copy(self._store, source, target))

    def delete(self, keys: Sequence[str]) -> None:
        """Delete objects in bulk, or with one request each if the store cannot or some fail."""
        if not keys:
            return
        delete = partial(self._call, "delete", keys[0])
        if self._bulk_delete:
            with contextlib.suppress(BackupToolError):
                delete(lambda: obstore.delete(self._bulk_deleter, [*keys]))
                return
        try:
            delete(lambda: obstore.delete(self._single_deleter, [*keys]))
        except NoAnswer:
            raise
        except BackupToolError:
            self._delete_each(keys)
        self._bulk_delete = False

    @cached_property
    def _bulk_deleter(self) -> "ObstoreBackend":
        return self._connect(_HURRIED_UPLOAD)

    @cached_property
    def _single_deleter(self) -> "ObstoreBackend":
        """Return a client that deletes each object with a request of its own."""
        return self._store

    def remove_unfinished(self, folders: Iterable[str]) -> None:
        """Do nothing: the bucket's lifecycle aborts the uploads of dead runs."""

    def expiry_rules(self, folder: str, *, tags: Mapping[str, str]) -> Sequence[ExpiryRule]:
        """Raise RepositoryUnavailable: obstore cannot read them."""
        del folder, tags
        raise RepositoryUnavailable(
            f"cannot read the lifecycle rules of {self._url}: this program reads those of S3 only"
        )

    def stored_checksum(self, key: str) -> str | None:
        """Return None: obstore cannot read the checksums that a store keeps."""
        del key
        return None

    def _delete_each(self, keys: Sequence[str]) -> None:
        failed: list[BackupToolError] = []
        for key in keys:
            try:
                self._call("delete", key, partial(obstore.delete, self._single_deleter, key))
            except ObjectNotFound:
                continue
            except NoAnswer:
                raise
            except BackupToolError as error:
                failed.append(error)
        if failed:
            raise failed[0]

    def _put_arguments(self, options: PutOptions) -> dict[str, Any]:
        del options
        return {}

    def _call(self, verb: str, key: str, action: Callable[[], _T]) -> _T:
        try:
            return interruptibly(action)
        except BackupToolError:
            raise
        except Exception as error:
            raise translate(error, verb=verb, place=self._place(key)) from error
        except BaseException as error:
            if type(error).__name__ != _PANIC:
                raise
            raise UsageError(
                f"cannot {verb} {self._place(key)}: the client library failed",
                hint="is there a character in the keys, region or endpoint that does not belong "
                "there?",
            ) from None

    def _place(self, key: str) -> str:
        return f"{self._url}/{key}" if key else self._url


def _info(meta: Any) -> ObjectInfo:
    version = (meta.get("e_tag") or "").strip('"')  # a listing of Azure has it without quotes
    return ObjectInfo(meta["path"], meta["size"], meta["last_modified"], version)
