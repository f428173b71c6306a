"""Opens S3 stores on the tests' servers."""

from typing import Any

from devtools.s3 import Credentials, S3Bucket
from prometheus_backup.stores.s3 import S3Settings, S3Store, StaticKeys

PREFIX = "prometheus-snapshots"


def keys_of(credentials: Credentials) -> StaticKeys:
    """Return the keys of a user."""
    return StaticKeys(credentials.access_key, credentials.secret_key)


def open_s3(bucket: S3Bucket, *, prefix: str = PREFIX, **settings: Any) -> S3Store:
    """Open a store in this bucket with its endpoint's keys; `settings` are for S3Settings."""
    given: dict[str, Any] = {
        "endpoint": bucket.endpoint.url,
        "region": bucket.endpoint.region,
        "keys": keys_of(bucket.endpoint.credentials),
    }
    return S3Store(bucket=bucket.name, prefix=prefix, settings=S3Settings(**(given | settings)))
