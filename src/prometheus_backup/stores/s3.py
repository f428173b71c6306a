"""S3 and compatible stores. obstore moves the bytes, boto3 does what only AWS has.

boto3 provides the credentials (environment, profile, SSO, web identity, pod identity, instance
role), copies with class and tags and over 5 GB, and the store's checksums.
"""

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlencode, urlsplit

from obstore.exceptions import InvalidPathError
from obstore.store import S3Store as ObstoreS3

from prometheus_backup.errors import (
    BackupToolError,
    ObjectNotFound,
    RepositoryDenied,
    RepositoryUnavailable,
    UsageError,
)
from prometheus_backup.model import ObjectInfo, PutOptions
from prometheus_backup.stores.archived import CODES as ARCHIVED
from prometheus_backup.stores.archived import archived
from prometheus_backup.stores.objectstore import (
    CLIENT,
    FEW_RETRIES,
    RETRIES,
    ObstoreStore,
    denied,
    refusal,
)

if TYPE_CHECKING:
    from boto3.session import Session
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_s3.type_defs import CopySourceTypeDef, ListObjectsV2OutputTypeDef
    from obstore.store import RetryConfig

_SINGLE_COPY_LIMIT = (
    5_000_000_000  # CopyObject is limited to 5 GB; larger objects are copied in parts
)
_COPY_PART = 512 * 1024 * 1024
# boto3 refreshes credentials ten minutes before they expire, so check more often than that.
_CREDENTIALS_TTL = timedelta(minutes=5)
_CHECKSUMS = ("CRC64NVME", "SHA256", "CRC32C", "CRC32", "SHA1")  # strongest full-object first

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class StaticKeys:
    """Access keys that are set directly, as in the environment. They take precedence."""

    access_key_id: str
    secret_access_key: str = field(repr=False)
    session_token: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class S3Settings:
    """How to access a bucket.

    `endpoint` None means AWS. `sse` is AES256, aws:kms or none. `ca_bundle` is the path of a PEM
    file with trusted CAs. `checksum` of uploads is auto (on AWS only), crc64nvme or none.
    """

    region: str = "us-east-1"
    endpoint: str | None = None
    sse: str = "AES256"
    kms_key_id: str | None = None
    connections: int = 10
    ca_bundle: str | None = None
    keys: StaticKeys | None = None
    checksum: str = "auto"

    @property
    def sends_checksums(self) -> bool:
        """Return whether uploads carry a checksum of the whole object."""
        return self.checksum == "crc64nvme" or (self.checksum == "auto" and self.endpoint is None)


class S3Store(ObstoreStore):
    """A prefix of a bucket."""

    def __init__(self, *, bucket: str, prefix: str, settings: S3Settings) -> None:
        self._bucket = bucket
        self._prefix = prefix
        self._settings = settings
        super().__init__(
            backend=self._backend(RETRIES),
            probe=self._backend(FEW_RETRIES),
            url=f"s3://{bucket}/{prefix}".rstrip("/"),
        )
        self._client_lock = threading.Lock()

    def _backend(self, retry: "RetryConfig") -> ObstoreS3:
        settings = self._settings
        plain = settings.endpoint is not None and settings.endpoint.startswith("http://")
        config: dict[str, Any] = {
            "region": settings.region,
            "unsigned_payload": not (plain and _is_remote(settings.endpoint)),
            # Path style if the bucket's name cannot be part of the host name.
            "virtual_hosted_style_request": settings.endpoint is None and "." not in self._bucket,
        }
        if settings.endpoint:
            config["endpoint"] = settings.endpoint
        if settings.sends_checksums:
            config["checksum_algorithm"] = "crc64nvme"  # S3 checks it on arrival and stores it
        if settings.sse != "none":
            config["server_side_encryption"] = settings.sse
        if settings.kms_key_id:
            config["sse_kms_key_id"] = settings.kms_key_id
        client = {**CLIENT, "allow_http": plain, **_trusted_certificates(settings.ca_bundle)}
        return ObstoreS3(
            self._bucket,
            prefix=self._prefix or None,
            config=config,  # type: ignore[arg-type]  # a TypedDict that cannot be built in steps
            client_options=client,  # type: ignore[arg-type]
            retry_config=retry,
            **self._credentials(),
        )

    def _credentials(self) -> dict[str, Any]:
        """Return obstore's arguments. With static keys, boto3 is not imported before a copy."""
        keys = self._settings.keys
        if keys is None:
            return {"credential_provider": _provider(self._session)}
        given = {"access_key_id": keys.access_key_id, "secret_access_key": keys.secret_access_key}
        return given | ({"session_token": keys.session_token} if keys.session_token else {})

    @property
    def keeps_checksums(self) -> bool:
        """Return whether uploads carry a checksum, which S3 checks on arrival and stores."""
        return self._settings.sends_checksums

    def ping(self) -> None:
        """List the root with few retries; find out the bucket's region if ours is wrong."""
        try:
            super().ping()
        except UsageError as error:
            region = self._region_of_bucket()
            if region is None:
                raise
            raise UsageError(error.message, hint=f"set S3_REGION={region}") from error

    def _region_of_bucket(self) -> str | None:
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            headers = self._client.head_bucket(Bucket=self._bucket)["ResponseMetadata"][
                "HTTPHeaders"
            ]
        except ClientError as error:  # a denied response has the region as well
            headers = error.response["ResponseMetadata"]["HTTPHeaders"]
        except BotoCoreError:
            return None
        return headers.get("x-amz-bucket-region")

    def _put_arguments(self, options: PutOptions) -> dict[str, Any]:
        arguments: dict[str, Any] = {}
        if options.tags:
            arguments["tags"] = dict(options.tags)
        if options.storage_class and options.storage_class != "STANDARD":
            arguments["attributes"] = {"Storage-Class": options.storage_class}
        return arguments

    def copy(self, source: str, target: str, *, size: int, options: PutOptions) -> None:
        """Copy an object, and set class, tags, encryption and checksum, which S3 does not copy."""
        extra: dict[str, Any] = {}
        if options.storage_class:
            extra["StorageClass"] = options.storage_class
        if options.tags:
            extra |= {"Tagging": urlencode(options.tags), "TaggingDirective": "REPLACE"}
        if self._settings.sse != "none":
            extra["ServerSideEncryption"] = self._settings.sse
        if self._settings.kms_key_id:
            extra["SSEKMSKeyId"] = self._settings.kms_key_id
        if self._settings.sends_checksums:
            extra["ChecksumAlgorithm"] = "CRC64NVME"  # otherwise a copy in parts has none
        copy_source: CopySourceTypeDef = {"Bucket": self._bucket, "Key": self._full(source)}
        destination: dict[str, Any] = {"Bucket": self._bucket, "Key": self._full(target)}
        if size <= _SINGLE_COPY_LIMIT:
            self._call_boto(
                "copy",
                source,
                lambda: self._client.copy_object(CopySource=copy_source, **destination, **extra),
            )
            return
        from boto3.s3.transfer import TransferConfig

        parts = TransferConfig(multipart_threshold=_COPY_PART, multipart_chunksize=_COPY_PART)
        self._call_boto(
            "copy",
            source,
            lambda: self._client.copy(copy_source, **destination, ExtraArgs=extra, Config=parts),
        )

    # obstore rejects a whole listing if one key is not a clean path, such as `a//b` or `../c`.

    def _list_all(self, folder: str) -> Sequence[ObjectInfo]:
        try:
            return super()._list_all(folder)
        except InvalidPathError:
            return self._list_clean(folder, delimiter="")[1]

    def _list_one_level(self, folder: str) -> tuple[Sequence[str], Sequence[ObjectInfo]]:
        try:
            return super()._list_one_level(folder)
        except InvalidPathError:
            return self._list_clean(folder, delimiter="/")

    def _list_clean(
        self, folder: str, *, delimiter: str
    ) -> tuple[Sequence[str], Sequence[ObjectInfo]]:
        """List with boto3, and skip keys that this program can neither write nor read."""
        root = self._full("")
        start = f"{root}{folder}/" if folder else root

        def pages() -> "Sequence[ListObjectsV2OutputTypeDef]":
            paginator = self._client.get_paginator("list_objects_v2")
            return list(paginator.paginate(Bucket=self._bucket, Prefix=start, Delimiter=delimiter))

        folders: list[str] = []
        files: list[ObjectInfo] = []
        for page in self._call_boto("list", folder, pages):
            folders += [p["Prefix"][len(root) : -1] for p in page.get("CommonPrefixes", [])]
            files += [
                ObjectInfo(o["Key"][len(root) :], o["Size"], o["LastModified"])
                for o in page.get("Contents", [])
            ]
        return [f for f in folders if _is_clean(f)], [f for f in files if _is_clean(f.key)]

    def stored_checksum(self, key: str) -> str | None:
        """Return the full-object checksum that S3 keeps; None if it has none or a composite one."""
        response: Any = self._call_boto(
            "read",
            key,
            lambda: self._client.head_object(
                Bucket=self._bucket, Key=self._full(key), ChecksumMode="ENABLED"
            ),
        )
        if response.get("ChecksumType", "FULL_OBJECT") != "FULL_OBJECT":
            return None
        for name in _CHECKSUMS:
            value = response.get(f"Checksum{name}")
            if value and "-" not in value:  # `-<parts>` marks a composite checksum
                return f"{name}:{value}"
        return None

    def _full(self, key: str) -> str:
        return f"{self._prefix}/{key}" if self._prefix else key

    @cached_property
    def _session(self) -> "Session":
        from boto3.session import Session
        from botocore.exceptions import BotoCoreError

        try:
            return Session(region_name=self._settings.region, **_boto_keys(self._settings.keys))
        except BotoCoreError as error:  # such as a missing profile
            raise UsageError(f"cannot use the AWS settings: {error}") from None

    @cached_property
    def _client(self) -> "S3Client":
        from botocore.config import Config

        settings = self._settings
        custom = settings.endpoint is not None
        # Newer default checksums break many S3-compatible stores (docs/stores.md).
        checksums: Any = "when_required" if custom else "when_supported"
        return self._session.client(
            "s3",
            region_name=settings.region,
            endpoint_url=settings.endpoint,
            verify=settings.ca_bundle,
            config=Config(
                s3={"addressing_style": "path" if custom else "auto"},
                retries={"mode": "standard", "total_max_attempts": 8},
                max_pool_connections=settings.connections,
                connect_timeout=10,
                read_timeout=900,  # S3 answers a copy of 5 GB when it is done
                request_checksum_calculation=checksums,
                response_checksum_validation=checksums,
            ),
        )

    def _call_boto(self, verb: str, key: str, action: Callable[[], _T]) -> _T:
        with self._client_lock:
            _ = self._client  # created once: boto3's factory is not thread-safe
        try:
            return action()
        except Exception as error:
            raise translate_boto(error, verb=verb, place=self._place(key)) from error


def translate_boto(error: Exception, *, verb: str, place: str) -> BackupToolError:
    """Return our error for one of boto3's."""
    from botocore import exceptions

    if isinstance(error, exceptions.ClientError):
        response: Any = error.response
        answer, about = response.get("Error", {}), response.get("ResponseMetadata", {})
        code, status = answer.get("Code", ""), about.get("HTTPStatusCode", 0)
        if code in ARCHIVED:
            return archived(verb, place)
        message = f"cannot {verb} {place}: {code}: {answer.get('Message', '')}".rstrip(": ")
        region = answer.get("Region") or about.get("HTTPHeaders", {}).get("x-amz-bucket-region")
        if known := refusal(code, verb=verb, message=message, region=region):
            return known
        if status == 404:
            return ObjectNotFound(message)
        return denied(verb, message) if status in (401, 403) else RepositoryUnavailable(message)
    if isinstance(error, exceptions.ProfileNotFound | exceptions.ConfigParseError):
        return UsageError(f"cannot {verb} {place}: {error}")
    no_credentials = (
        exceptions.NoCredentialsError,
        exceptions.PartialCredentialsError,
        exceptions.CredentialRetrievalError,
        exceptions.MetadataRetrievalError,
        exceptions.TokenRetrievalError,
        exceptions.SSOError,
    )
    kind = RepositoryDenied if isinstance(error, no_credentials) else RepositoryUnavailable
    return kind(f"cannot {verb} {place}: {error}")


def _boto_keys(keys: StaticKeys | None) -> dict[str, Any]:
    if keys is None:
        return {}
    return {
        "aws_access_key_id": keys.access_key_id,
        "aws_secret_access_key": keys.secret_access_key,
        "aws_session_token": keys.session_token,
    }


def _is_clean(key: str) -> bool:
    return all(part not in ("", ".", "..") for part in key.split("/")) and key.isprintable()


def _provider(session: "Session") -> Any:
    from botocore.exceptions import BotoCoreError
    from obstore.auth.boto3 import Boto3CredentialProvider

    try:
        found = session.get_credentials()
    except BotoCoreError as error:
        raise RepositoryDenied(f"cannot get AWS credentials: {error}") from error
    if found is None:
        raise RepositoryDenied(
            "cannot get AWS credentials: there are none",
            hint="set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY or AWS_PROFILE, or give the pod "
            "or instance a role",
        )
    return Boto3CredentialProvider(session, ttl=_CREDENTIALS_TTL)


def _is_remote(endpoint: str | None) -> bool:
    """Return whether bytes leave this machine.

    TLS protects them on the network. Over plain HTTP every payload is signed instead, so that the
    store rejects changed bytes. On loopback neither is needed.
    """
    host = urlsplit(endpoint or "").hostname or ""
    return host != "localhost" and not host.startswith("127.") and host != "::1"


def _trusted_certificates(path: str | None) -> dict[str, bytes]:
    if path is None:
        return {}
    try:
        certificates = Path(path).read_bytes()
    except OSError as error:
        raise UsageError(f"cannot read the CA bundle: {error}") from None
    if b"-----BEGIN CERTIFICATE-----" not in certificates:
        raise UsageError(f"cannot read the CA bundle: {path} contains no PEM certificate")
    return {"root_certificate": certificates}
