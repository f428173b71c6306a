"""Stores accessed through obstore (the Rust object_store): S3, Google Cloud Storage, Azure.

Maps obstore's calls and exceptions to the contract. What is special to S3 is in s3.py.
"""

import contextlib
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import obstore
from obstore import exceptions

from prometheus_backup.errors import (
    BackupToolError,
    ObjectExists,
    ObjectNotFound,
    RepositoryDenied,
    RepositoryNotFound,
    RepositoryUnavailable,
    UsageError,
)
from prometheus_backup.model import ObjectInfo, PutOptions
from prometheus_backup.stores.archived import CODES as ARCHIVED
from prometheus_backup.stores.archived import archived
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
_ABSENT_KEY = ".probe-absent"

CLIENT: "ClientConfig" = {
    # The default of 30 s for a whole request is too short for a large part on a slow connection.
    "timeout": timedelta(hours=1),
    "read_timeout": timedelta(minutes=5),
    "connect_timeout": timedelta(seconds=10),
}
RETRIES: "RetryConfig" = {"max_retries": 10, "retry_timeout": timedelta(minutes=3)}
FEW_RETRIES: "RetryConfig" = {"max_retries": 2, "retry_timeout": timedelta(seconds=5)}
"""For the first access, when a wrong setting is more likely than a transient failure."""

_T = TypeVar("_T")

# The IAM permissions that an operation needs, for the message when it is denied.
_ACTIONS = {
    "put": "s3:PutObject (and s3:PutObjectTagging)",
    "create": "s3:PutObject (and s3:PutObjectTagging)",
    "read": "s3:GetObject (and s3:ListBucket, without which a missing object is denied as well)",
    "list": "s3:ListBucket",
    "delete": "s3:DeleteObject",
    "copy": "s3:GetObject, s3:PutObject (and s3:GetObjectTagging, s3:PutObjectTagging)",
}
_BAD_CREDENTIALS = {
    "InvalidAccessKeyId",
    "SignatureDoesNotMatch",
    "ExpiredToken",
    "InvalidToken",
    "TokenRefreshRequired",
    "RequestTimeTooSkewed",
}
_WRONG_REGION = {"AuthorizationHeaderMalformed", "PermanentRedirect", "IllegalLocationConstraint"}
_NO_BUCKET = {"NoSuchBucket", "InvalidBucketName", "ContainerNotFound"}
_CONNECTION_ERRORS = ("error sending request", "client error", "dns error", "tcp connect")
_DELETE_FAILED = re.compile(r"DeleteObjects request failed for key .*: (.*) \(code: (\w+)\)")
_CERTIFICATE_ERRORS = ("certificate", "invalid peer", "UnknownIssuer")


class _ListingInterrupted(RepositoryUnavailable):
    """The connection was lost in the middle of a listing."""


class ObstoreStore:
    """A store that is accessed through obstore.

    `backend` and `probe` are two clients with the repository's prefix as their root. `probe`, for
    `ping`, makes few retries.
    """

    def __init__(self, *, backend: "ObstoreBackend", probe: "ObstoreBackend", url: str) -> None:
        self._store = backend
        self._probe = probe
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

    def put(self, key: str, body: Iterable[bytes], *, size: int, options: PutOptions) -> None:
        """Store an object, in parts if it is large."""
        if size <= PART_SIZE:
            self.put_small(key, b"".join(body), options=options)
            return
        upload = UploadBody(body)
        try:
            self._put(key, upload, options, part_size=max(PART_SIZE, -(-size // _MAX_PARTS)))
        except BackupToolError:
            upload.raise_producer_error()
            raise

    def put_small(self, key: str, body: bytes, *, options: PutOptions) -> None:
        """Store a small object, replacing an existing one."""
        self._put(key, body, options, part_size=None)

    def _put(self, key: str, body: Any, options: PutOptions, *, part_size: int | None) -> None:
        self._call(
            "put",
            key,
            lambda: obstore.put(
                self._store,
                key,
                body,
                use_multipart=part_size is not None,
                chunk_size=part_size or PART_SIZE,
                max_concurrency=PARTS_IN_FLIGHT,
                **self._put_arguments(options),
            ),
        )

    def create(self, key: str, body: bytes, *, options: PutOptions) -> None:
        """Store a small object if the key is free."""
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
            with contextlib.suppress(_ListingInterrupted):
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
        """Delete objects in bulk, or one by one if the store cannot or some fail."""
        if not keys:
            return
        try:
            self._call("delete", keys[0], lambda: obstore.delete(self._store, list(keys)))
        except (RepositoryDenied, RepositoryUnavailable, ObjectNotFound):
            self._delete_singly(keys)

    def stored_checksum(self, key: str) -> str | None:
        """Return None: obstore cannot read the checksums that a store keeps."""
        del key
        return None

    def _delete_singly(self, keys: Sequence[str]) -> None:
        failed: list[BackupToolError] = []
        for key in keys:
            try:
                self._call("delete", key, partial(obstore.delete, self._store, key))
            except ObjectNotFound:
                continue
            except BackupToolError as error:
                failed.append(error)
        if failed:
            raise failed[0]

    def _put_arguments(self, options: PutOptions) -> dict[str, Any]:
        del options
        return {}

    def _call(self, verb: str, key: str, action: Callable[[], _T]) -> _T:
        try:
            return action()
        except BackupToolError:
            raise
        except Exception as error:
            raise translate(error, verb=verb, place=self._place(key)) from error

    def _place(self, key: str) -> str:
        return f"{self._url}/{key}" if key else self._url


def translate(error: Exception, *, verb: str, place: str) -> BackupToolError:
    """Return our error for one of obstore's. `verb` and `place` are for the message."""
    text = str(error)
    code, cause = _cause(text)
    if code in ARCHIVED:
        return archived(verb, place)
    message = f"cannot {verb} {place}: {cause}"
    region = re.search(r"expecting '([\w-]+)'|<Region>([\w-]+)</Region>", text)
    known = refusal(code, verb=verb, message=message, region=region and (region[1] or region[2]))
    if known is not None:
        return known
    if isinstance(error, exceptions.PermissionDeniedError | exceptions.UnauthenticatedError):
        return denied(verb, message)
    if isinstance(error, exceptions.AlreadyExistsError | exceptions.PreconditionError):
        return ObjectExists(message)
    if isinstance(error, FileNotFoundError | exceptions.NotFoundError):
        return ObjectNotFound(message)
    if "list response body" in text:
        return _ListingInterrupted(message)
    if isinstance(error, exceptions.UnknownConfigurationKeyError | exceptions.InvalidPathError):
        return UsageError(message)
    return RepositoryUnavailable(message, hint=_unavailable_hint(text))


def refusal(
    code: str | None, *, verb: str, message: str, region: str | None = None
) -> BackupToolError | None:
    """Return our error for a known error code of S3 or Azure; None for other codes.

    `region` is the bucket's region, if the response has it.
    """
    if code in _NO_BUCKET:
        return RepositoryNotFound(message)
    if code in _WRONG_REGION:
        return UsageError(
            message, hint=f"set S3_REGION={region}" if region else "correct S3_REGION"
        )
    if code in _BAD_CREDENTIALS:
        return RepositoryDenied(message)
    return denied(verb, message) if code == "AccessDenied" else None


def denied(verb: str, message: str) -> RepositoryDenied:
    """Return the error for missing permissions. On S3 it names the action that is not allowed.

    AWS often names it in its response. Other stores do not, nor does a denied HEAD.
    """
    actions = _ACTIONS.get(verb)
    if not actions or " s3://" not in message:
        return RepositoryDenied(message)
    if "not authorized to perform: s3:" not in message:
        message = f"{message} (needs {actions.partition(' (')[0]})"
    return RepositoryDenied(message, hint=f"the credentials need {actions}")


def _cause(text: str) -> tuple[str | None, str]:
    """Return the store's error code, if there is one, and the cause as one line."""
    code = re.search(r"<Code>(\w+)</Code>", text)
    message = re.search(r"<Message>(.*?)</Message>", text, re.DOTALL)
    if code:
        detail = " ".join(message[1].split()) if message else ""
        return code[1], f"{code[1]}: {detail}".rstrip(": ")
    if single := _DELETE_FAILED.search(text):
        return single[2], f"{single[2]}: {single[1]}"
    if any(word in text for word in _CERTIFICATE_ERRORS):
        return None, "the TLS certificate was not accepted"
    if any(word in text.lower() for word in _CONNECTION_ERRORS):
        return None, "no connection"
    if "redirect without LOCATION" in text:  # obstore drops the response
        return "PermanentRedirect", "the bucket is in another region"
    first = text.partition("\n\nDebug source")[0]
    status = re.search(r"status code: (\d{3}[^:<]*)", first)
    return None, status[1].strip() if status else " ".join(first.split())[:300]


def _unavailable_hint(text: str) -> str | None:
    if any(word in text for word in _CERTIFICATE_ERRORS):
        return "set AWS_CA_BUNDLE or SSL_CERT_FILE to the store's CA certificates"
    return None


def _info(meta: Any) -> ObjectInfo:
    return ObjectInfo(meta["path"], meta["size"], meta["last_modified"])
