"""Parse the address of a repository, and open the store at it."""

import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from prometheus_backup.errors import UsageError

if TYPE_CHECKING:
    from prometheus_backup.stores.base import ObjectStore
    from prometheus_backup.stores.s3 import S3Settings

SCHEMES = ("s3", "gs", "az", "file")
_BUCKET = re.compile(r"[A-Za-z0-9$][A-Za-z0-9._:$-]*(?<!:)")
"""Wider than AWS's rule: Ceph has `tenant:bucket`, and Azure `$root`."""


@dataclass(frozen=True, slots=True)
class Location:
    """Scheme, bucket (or container; empty for `file`) and path without outer slashes.

    The path of a `file` location is absolute, with its leading slash.
    """

    scheme: str
    bucket: str
    path: str

    def __str__(self) -> str:
        if self.scheme == "file":
            return f"file://{self.path}"
        return f"{self.scheme}://{self.bucket}/{self.path}".rstrip("/")


def parse_location(text: str) -> Location:
    """Parse `s3://BUCKET/PREFIX`, `gs://...`, `az://CONTAINER/...` or `file:///PATH`.

    Raises UsageError for anything else.
    """
    form = "use s3://BUCKET/PREFIX, gs://BUCKET/PREFIX, az://CONTAINER/PREFIX or file:///PATH"
    authority = text.partition("//")[2].partition("/")[0]
    if "@" in authority or "?" in text or "#" in text:  # not shown: it may contain a secret
        raise UsageError(
            f"cannot parse repository {text.partition(':')[0]}://...: it has a user, query or "
            "fragment",
            hint="set credentials in the environment or in a file, never in the address",
        )
    try:
        parts = urlsplit(text)
    except ValueError as error:
        raise UsageError(f"cannot parse repository {text!r}: {error}", hint=form) from None
    if parts.scheme not in SCHEMES:
        raise UsageError(f"cannot parse repository {text!r}: unknown scheme", hint=form)
    path = unquote(parts.path)
    segments = [s for s in path.split("/") if s]
    if any(s in (".", "..") for s in segments):
        raise UsageError(f"cannot parse repository {text!r}: its path contains . or ..", hint=form)
    if parts.scheme == "file":
        if parts.netloc or not path.startswith("/") or not segments:
            raise UsageError(f"cannot parse repository {text!r}: no absolute path", hint=form)
        return Location("file", "", "/" + "/".join(segments))
    if not parts.netloc:
        raise UsageError(f"cannot parse repository {text!r}: no bucket", hint=form)
    require_bucket(parts.netloc, name=f"repository {text!r}")
    return Location(parts.scheme, parts.netloc, "/".join(segments))


def require_bucket(bucket: str, *, name: str) -> None:
    """Raise UsageError if this cannot be the name of a bucket or container."""
    if not _BUCKET.fullmatch(bucket):
        raise UsageError(
            f"cannot use {name}: {bucket!r} is not the name of a bucket",
            hint="give only the name, such as my-backups; an address goes into REPOSITORY",
        )


def open_store(
    location: Location, *, s3: "S3Settings | None" = None, hurried: bool = False
) -> "ObjectStore":
    """Open the store at an address. Imports only the libraries that this store needs.

    With `hurried`, requests give up early: for commands that somebody waits for.
    """
    if location.scheme == "file":
        from prometheus_backup.stores.local import LocalStore

        return LocalStore(Path(location.path))
    if location.scheme == "s3":
        from prometheus_backup.stores.s3 import S3Settings, S3Store

        settings = replace(s3 or S3Settings(), hurried=hurried)
        return S3Store(bucket=location.bucket, prefix=location.path, settings=settings)
    from prometheus_backup.stores.cloud import open_cloud

    return open_cloud(location.scheme, location.bucket, location.path, hurried=hurried)
