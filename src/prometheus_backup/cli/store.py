"""Opens the store given in the settings."""

import re
from collections.abc import Mapping, MutableMapping
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from prometheus_backup.config import repository_address
from prometheus_backup.errors import UsageError
from prometheus_backup.settings import SETTINGS

if TYPE_CHECKING:
    from prometheus_backup.stores.base import ObjectStore
    from prometheus_backup.stores.s3 import S3Settings, StaticKeys

_VISIBLE = re.compile(r"[!-~]+")
_REGION = re.compile(r"[A-Za-z0-9._-]+")


def address(values: Mapping[str, Any]) -> str:
    """Return the repository's address. Raises UsageError if the settings name none."""
    from prometheus_backup.stores.location import require_bucket

    bucket = text(values, "s3_bucket")
    if bucket:
        require_bucket(bucket, name="S3_BUCKET")
    return repository_address(
        text(values, "repository"), bucket=bucket, prefix=text(values, "s3_prefix")
    )


def open_settings_store(
    values: Mapping[str, Any],
    environment: MutableMapping[str, str],
    *,
    connections: int,
    hurried: bool,
) -> "ObjectStore":
    """Open the store. Nothing is sent to it yet.

    Removes white space around the values of AWS's own variables, which boto3 reads itself.
    """
    for name, value in environment.items():
        if name.startswith("AWS_") and value != value.strip():
            environment[name] = value.strip()
    from prometheus_backup.stores.location import open_store, parse_location

    location = parse_location(address(values))
    s3 = None
    if location.scheme == "s3":
        s3 = _s3_settings(values, environment, connections=connections)
    return open_store(location, s3=s3, hurried=hurried)


def _s3_settings(
    values: Mapping[str, Any], environment: Mapping[str, str], *, connections: int
) -> "S3Settings":
    from prometheus_backup.stores.s3 import S3Settings

    if values["sse_kms_key_id"] and values["sse"] != "aws:kms":
        raise UsageError("cannot use a KMS key with this encryption", hint="set S3_SSE=aws:kms")
    region = text(values, "s3_region") or ""
    if not _REGION.fullmatch(region):
        raise UsageError(f"cannot use S3_REGION {region!r}: it is not the name of a region")
    return S3Settings(
        region=region,
        endpoint=_endpoint(text(values, "s3_endpoint_url")),
        sse=values["sse"],
        kms_key_id=text(values, "sse_kms_key_id"),
        connections=connections,
        ca_bundle=text(values, "s3_ca_bundle"),
        checksum=values["s3_checksum"],
        tags=values["s3_tags"],
        conditional_writes=values["s3_conditional_writes"],
        keys=_static_keys(environment),
    )


def text(values: Mapping[str, Any], name: str) -> str | None:
    """Return a setting without the white space that files and `echo` leave at the end."""
    value = values[name]
    if value is None:
        return None
    value = str(value).strip()
    if not value.isprintable():
        raise UsageError(
            f"cannot use {SETTINGS[name].env} {value!r}: it has characters that cannot be printed",
            hint="is there a line break in the middle?",
        )
    return value


def _static_keys(environment: Mapping[str, str]) -> "StaticKeys | None":
    """Return the keys in the environment, which AWS clients use before anything else."""
    from prometheus_backup.stores.s3 import StaticKeys

    names = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")
    key, secret, token = (environment.get(name, "").strip() for name in names)
    if not key or not secret:
        return None
    for name, value in zip(names, (key, secret, token), strict=True):
        if value and not _VISIBLE.fullmatch(value):  # the value itself is never shown
            raise UsageError(
                f"cannot use {name}: it has a space, a line break or a character that is not ASCII",
                hint="set it again without them: `printf %s VALUE` writes no line break",
            )
    return StaticKeys(key, secret, token or None)


def _endpoint(url: str | None) -> str | None:
    if not url:
        return None
    checked = checked_url("S3 endpoint", url, hint="set credentials as for other AWS tools").rstrip(
        "/"
    )
    try:
        parts = urlsplit(checked)
        usable = bool(parts.hostname) and parts.port != 0 and not (parts.query or parts.fragment)
    except ValueError:  # an invalid port, or an address with an open bracket
        usable = False
    if not usable or not _VISIBLE.fullmatch(checked):
        raise UsageError(
            f"cannot use S3_ENDPOINT_URL {checked!r}: it is not the address of a server",
            hint="give https://HOST or https://HOST:PORT",
        )
    return checked


def checked_url(what: str, url: str, *, hint: str) -> str:
    """Return the URL after checking that it is safe to show in logs and manifests."""
    scheme, _, rest = url.partition("://")
    if "@" in rest.partition("/")[0]:
        raise UsageError(f"cannot use {what} {scheme}://...: it contains a user name", hint=hint)
    if scheme not in ("http", "https") or not rest:
        raise UsageError(
            f"cannot use {what} {url!r}: it is not a URL",
            hint=f"include the scheme: http://{rest or scheme} or https://{rest or scheme}",
        )
    return url
