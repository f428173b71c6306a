"""Stores reached through obstore (the Rust object_store): S3, Google Cloud Storage, Azure.

Maps obstore's calls and exceptions to the contract. What only S3 does is in s3.py.
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
from prometheus_backup.stores.relay import Relay

if TYPE_CHECKING:
    from obstore.store import ClientConfig, RetryConfig
    from obstore.store import ObjectStore as ObstoreBackend

PART_SIZE = 8 * 1024 * 1024
"""Bytes of one part of a multipart upload, until a file needs larger ones (10,000 at most)."""
PARTS_IN_FLIGHT = 3
_MAX_PARTS = 10_000
_READ_CHUNK = 256 * 1024
"""Bytes. Small enough to be in the processor's cache when it is hashed and written."""
_CUT_OFF_ATTEMPTS = 3
_NO_OBJECT = ".probe-absent"

CLIENT: "ClientConfig" = {
    # The default of 30 s for a whole request would cut off a large part on a slow line.
    "timeout": timedelta(hours=1),
    "read_timeout": timedelta(minutes=5),
    "connect_timeout": timedelta(seconds=10),
}
PATIENT: "RetryConfig" = {"max_retries": 10, "retry_timeout": timedelta(minutes=3)}
IMPATIENT: "RetryConfig" = {"max_retries": 2, "retry_timeout": timedelta(seconds=5)}
"""For the first look, where a failure is more likely a wrong setting than bad weather."""

_T = TypeVar("_T")

# What an operation needs on AWS, to be named when it is denied.
_ACTIONS = {
    "put": "s3:PutObject (and s3:PutObjectTagging)",
    "create": "s3:PutObject (and s3:PutObjectTagging)",
    "read": "s3:GetObject (and s3:ListBucket, without which an absent object is denied, too)",
    "look at": "s3:GetObject (and s3:ListBucket, without which an absent object is denied, too)",
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
_CONNECTION_TROUBLE = ("error sending request", "client error", "dns error", "tcp connect")
_DELETE_FAILED = re.compile(r"DeleteObjects request failed for key .*: (.*) \(code: (\w+)\)")
_CERTIFICATE_TROUBLE = ("certificate", "invalid peer", "UnknownIssuer")


class _CutOff(RepositoryUnavailable):
    """The connection was lost in the middle of a listing."""


class ObstoreStore:
    """Any store that obstore reaches, held to the contract of `base.ObjectStore`.

    `patient` and `impatient` are two clients of one place: the second gives up soon. Both are
    rooted at the repository's prefix.
    """

    def __init__(self, *, patient: "ObstoreBackend", impatient: "ObstoreBackend", url: str) -> None:
        self._store = patient
        self._impatient = impatient
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
        """List the root, impatiently."""

        def look() -> None:
            with contextlib.suppress(exceptions.InvalidPathError):  # it answered: foreign keys
                found = obstore.list_with_delimiter(self._impatient)
                if not found["objects"] and not found["common_prefixes"]:
                    self._look_for_nothing()

        self._call("list", "", look)

    def _look_for_nothing(self) -> None:
        # A web page reads as an empty listing, and as any object that is asked for.
        try:
            obstore.head(self._impatient, _NO_OBJECT)
        except FileNotFoundError:
            return
        raise RepositoryUnavailable(
            f"cannot list {self._url}: what answered is not an object store",
            hint="check the endpoint, and any proxy on the way",
        )

    def put(self, key: str, body: Iterable[bytes], *, size: int, options: PutOptions) -> None:
        """Store an object, in parts where it is large."""
        if size <= PART_SIZE:
            self.put_small(key, b"".join(body), options=options)
            return
        relay = Relay(body)
        try:
            self._put(key, relay, options, part_size=max(PART_SIZE, -(-size // _MAX_PARTS)))
        except BackupToolError:
            relay.raise_own_failure()
            raise

    def put_small(self, key: str, body: bytes, *, options: PutOptions) -> None:
        """Store a small object, replacing what was there."""
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
        """Return an object whole."""

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
        return _info(self._call("look at", key, lambda: obstore.head(self._store, key)))

    def list(self, folder: str = "") -> Iterator[ObjectInfo]:
        """Yield every object below `folder`."""
        # Sorted here: SeaweedFS lists `a/x` before `a-`, as a file system would.
        found = self._listed(folder, lambda: self._everything(folder))
        yield from sorted(found, key=lambda o: o.key)

    def list_folders(self) -> Sequence[str]:
        """Return the names of the folders directly below the root."""
        folders, _ = self._listed("", lambda: self._level(""))
        return sorted(folders)

    def list_files(self, folder: str) -> Sequence[ObjectInfo]:
        """Return the objects directly in `folder`."""
        _, files = self._listed(folder, lambda: self._level(folder))
        return sorted(files, key=lambda o: o.key)

    def _listed(self, folder: str, look: Callable[[], _T]) -> _T:
        # obstore asks again where a listing fails, but not where the answer is cut off.
        for _ in range(_CUT_OFF_ATTEMPTS):
            with contextlib.suppress(_CutOff):
                return self._call("list", folder, look)
        return self._call("list", folder, look)

    # A key `<folder>/`, which web consoles make for an empty folder, comes as `<folder>`: left out.

    def _everything(self, folder: str) -> Sequence[ObjectInfo]:
        """Return what is below a folder, in any order."""
        pages = obstore.list(self._store, prefix=folder or None, chunk_size=1000)
        return [_info(meta) for page in pages for meta in page if meta["path"] not in ("", folder)]

    def _level(self, folder: str) -> tuple[Sequence[str], Sequence[ObjectInfo]]:
        """Return the folders and objects directly in a folder, in any order."""
        result = obstore.list_with_delimiter(self._store, prefix=folder or None)
        files = [_info(meta) for meta in result["objects"] if meta["path"] not in ("", folder)]
        return [folder for folder in result["common_prefixes"] if folder], files

    def copy(self, source: str, target: str, *, size: int, options: PutOptions) -> None:
        """Copy an object inside the store."""
        del size, options  # only S3 has classes and tags that a copy must be given: s3.py
        self._call("copy", source, lambda: obstore.copy(self._store, source, target))

    def delete(self, keys: Sequence[str]) -> None:
        """Delete objects in bulk; one by one where the store cannot, or some fail."""
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
    """Return our error for one of obstore's. `verb` and `place` make the message."""
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
        return _CutOff(message)
    if isinstance(error, exceptions.UnknownConfigurationKeyError | exceptions.InvalidPathError):
        return UsageError(message)
    return RepositoryUnavailable(message, hint=_unavailable_hint(text))


def refusal(
    code: str | None, *, verb: str, message: str, region: str | None = None
) -> BackupToolError | None:
    """Return our error for a code of S3 or Azure that says what is wrong; None for any other.

    `region` is where the bucket is, if the answer told.
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
    """Return the error for credentials that may not do this; on S3 it names the action they lack.

    AWS often names it itself; other stores, and a denied HEAD, do not.
    """
    needs = _ACTIONS.get(verb)
    if not needs or " s3://" not in message:
        return RepositoryDenied(message)
    if "not authorized to perform: s3:" not in message:
        message = f"{message} (needs {needs.partition(' (')[0]})"
    return RepositoryDenied(message, hint=f"the credentials need {needs}")


def _cause(text: str) -> tuple[str | None, str]:
    """Return the store's error code, if there is one, and the cause in one line."""
    code = re.search(r"<Code>(\w+)</Code>", text)
    message = re.search(r"<Message>(.*?)</Message>", text, re.DOTALL)
    if code:
        detail = " ".join(message[1].split()) if message else ""
        return code[1], f"{code[1]}: {detail}".rstrip(": ")
    if single := _DELETE_FAILED.search(text):
        return single[2], f"{single[2]}: {single[1]}"
    if any(word in text for word in _CERTIFICATE_TROUBLE):
        return None, "the TLS certificate was not accepted"
    if any(word in text.lower() for word in _CONNECTION_TROUBLE):
        return None, "no connection"
    if "redirect without LOCATION" in text:  # the answer, which obstore drops, says no more
        return "PermanentRedirect", "the bucket is in another region"
    first = text.partition("\n\nDebug source")[0]
    status = re.search(r"status code: (\d{3}[^:<]*)", first)
    return None, status[1].strip() if status else " ".join(first.split())[:300]


def _unavailable_hint(text: str) -> str | None:
    if any(word in text for word in _CERTIFICATE_TROUBLE):
        return "give the store's CA certificates in AWS_CA_BUNDLE or SSL_CERT_FILE"
    return None


def _info(meta: Any) -> ObjectInfo:
    return ObjectInfo(meta["path"], meta["size"], meta["last_modified"])
