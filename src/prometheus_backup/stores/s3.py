"""S3 and compatible stores. obstore moves the bytes, boto3 does what only AWS has.

boto3 provides the credentials (environment, profile, SSO, web identity, pod identity, instance
role), copies with class and tags and over 5 GB, and the store's checksums.
"""

import contextlib
import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from email.utils import parsedate_to_datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlencode

from obstore.exceptions import BaseError, InvalidPathError
from obstore.store import S3Store as ObstoreS3

from prometheus_backup.errors import (
    ObjectExists,
    ObjectNotFound,
    UsageError,
)
from prometheus_backup.model import ObjectInfo, PutOptions
from prometheus_backup.stores.calls import interruptibly
from prometheus_backup.stores.failures import translate_boto, without_urls
from prometheus_backup.stores.lifecycle import ExpiryRule, expiry_rules
from prometheus_backup.stores.objectstore import IMPATIENT, PATIENT, ObstoreStore, Patience
from prometheus_backup.stores.s3_access import (
    credential_provider,
    is_remote,
    lifecycle_rules,
    proxy_setting,
    region_of,
    trusted_certificates,
)

if TYPE_CHECKING:
    from boto3.session import Session
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_s3.type_defs import CopySourceTypeDef, ListObjectsV2OutputTypeDef

_SINGLE_COPY_LIMIT = (
    5_000_000_000  # CopyObject is limited to 5 GB; larger objects are copied in parts
)
_COPY_PART = 512 * 1024 * 1024
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
    file with trusted CAs. `checksum` of uploads is auto (on AWS only), crc64nvme, sha256 or none.
    Without `conditional_writes`, an object is created after a look whether it exists. With
    `hurried`, requests give up early.
    """

    region: str = "us-east-1"
    endpoint: str | None = None
    sse: str = "AES256"
    kms_key_id: str | None = None
    connections: int = 10
    ca_bundle: str | None = None
    keys: StaticKeys | None = None
    checksum: str = "auto"
    tags: bool = True
    conditional_writes: bool = True
    hurried: bool = False

    @property
    def algorithm(self) -> str | None:
        """Return the checksum that uploads carry."""
        if self.checksum == "auto":
            return "crc64nvme" if self.endpoint is None else None
        return None if self.checksum == "none" else self.checksum


class S3Store(ObstoreStore):
    """A prefix of a bucket."""

    def __init__(self, *, bucket: str, prefix: str, settings: S3Settings) -> None:
        self._bucket = bucket
        self._prefix = prefix
        self._settings = settings
        super().__init__(
            connect=self._backend,
            url=f"s3://{bucket}/{prefix}".rstrip("/"),
            hurried=settings.hurried,
        )
        self._client_lock = threading.Lock()

    def _backend(self, patience: Patience, *, bulk_delete: bool = True) -> ObstoreS3:
        settings = self._settings
        plain = settings.endpoint is not None and settings.endpoint.startswith("http://")
        config: dict[str, Any] = {
            "region": settings.region,
            "unsigned_payload": not (plain and is_remote(settings.endpoint)),
            # Path style if the bucket's name cannot be part of the host name.
            "virtual_hosted_style_request": settings.endpoint is None and "." not in self._bucket,
            "disable_bulk_delete": not bulk_delete,
        }
        if settings.endpoint:
            config["endpoint"] = settings.endpoint
        if settings.algorithm:
            config["checksum_algorithm"] = settings.algorithm  # S3 checks it on arrival, stores it
        if settings.sse != "none":
            config["server_side_encryption"] = settings.sse
        if settings.kms_key_id:
            config["sse_kms_key_id"] = settings.kms_key_id
        client = {
            **patience.client,
            "allow_http": plain,
            **trusted_certificates(settings.ca_bundle),
        }
        try:
            return ObstoreS3(
                self._bucket,
                prefix=self._prefix or None,
                config=config,  # type: ignore[arg-type]  # a TypedDict, but built in steps
                client_options=client,  # type: ignore[arg-type]
                retry_config=patience.retry,
                **self._credentials(),
            )
        except BaseError as error:  # such as a CA bundle that is damaged
            cause = without_urls(str(error).partition("\n\nDebug")[0])
            raise UsageError(f"cannot use the settings of {self._bucket}: {cause}") from None

    def _credentials(self) -> dict[str, Any]:
        """Return obstore's arguments. With static keys, boto3 is not imported before a copy."""
        keys = self._settings.keys
        if keys is None:
            return {"credential_provider": credential_provider(self._session)}
        given = {"access_key_id": keys.access_key_id, "secret_access_key": keys.secret_access_key}
        return given | ({"session_token": keys.session_token} if keys.session_token else {})

    @property
    def keeps_checksums(self) -> bool:
        """Return whether uploads carry a checksum, which S3 checks on arrival and stores."""
        return self._settings.algorithm is not None

    def ping(self) -> None:
        """List the root with few retries; find out the bucket's region if ours is wrong."""
        try:
            super().ping()
        except UsageError as error:
            region = region_of(self._client, self._bucket)
            if region is None:
                raise
            raise UsageError(error.message, hint=f"set S3_REGION={region}") from error

    @property
    def adaptations(self) -> Sequence[str]:
        """Return the settings that would go without a feature now in use."""
        settings = self._settings
        checksums = (
            ["S3_CHECKSUM=none"]
            if settings.algorithm
            else ["S3_CHECKSUM=crc64nvme", "S3_CHECKSUM=sha256"]
        )
        return [
            *(["S3_TAGS=false"] if settings.tags else []),
            *(["S3_SSE=none"] if settings.sse != "none" else []),
            *(["S3_CONDITIONAL_WRITES=false"] if settings.conditional_writes else []),
            *checksums,
        ]

    def adapted(self, settings: Collection[str]) -> "S3Store":
        """Return the same store with some of these settings."""
        changes: dict[str, Any] = {}
        if "S3_TAGS=false" in settings:
            changes["tags"] = False
        if "S3_SSE=none" in settings:
            changes |= {"sse": "none", "kms_key_id": None}
        if "S3_CONDITIONAL_WRITES=false" in settings:
            changes["conditional_writes"] = False
        for name in ("none", "crc64nvme", "sha256"):
            if f"S3_CHECKSUM={name}" in settings:
                changes["checksum"] = name
        return S3Store(
            bucket=self._bucket, prefix=self._prefix, settings=replace(self._settings, **changes)
        )

    @property
    def deletes_in_bulk(self) -> bool:
        """Return False once the store has refused to delete several objects at once."""
        return self._bulk_delete

    def now(self, *, probe: str) -> datetime:
        """Return the Date of an answer about the bucket, whether allowed or denied."""
        from botocore.exceptions import ClientError

        def ask() -> Any:
            try:
                return self._client.head_bucket(Bucket=self._bucket)
            except ClientError as error:
                if error.response["ResponseMetadata"]["HTTPStatusCode"] != 403:
                    raise
                return error.response

        answer = self._call_boto("list", "", ask)
        date = answer["ResponseMetadata"]["HTTPHeaders"].get("date")
        return parsedate_to_datetime(date) if date else super().now(probe=probe)

    def _create(self, key: str, body: bytes, options: PutOptions) -> None:
        if self._settings.conditional_writes:
            super()._create(key, body, options)
            return
        with contextlib.suppress(ObjectNotFound):
            self.head(key)
            raise ObjectExists(f"cannot create {self._place(key)}: it exists")
        self.put_small(key, body, options=options)

    @cached_property
    def _single_deleter(self) -> ObstoreS3:
        return self._backend(PATIENT, bulk_delete=False)

    def _put_arguments(self, options: PutOptions) -> dict[str, Any]:
        arguments: dict[str, Any] = {}
        if options.tags and self._settings.tags:
            arguments["tags"] = dict(options.tags)
        if options.storage_class and options.storage_class != "STANDARD":
            arguments["attributes"] = {"Storage-Class": options.storage_class}
        return arguments

    def copy(self, source: str, target: str, *, size: int, options: PutOptions) -> None:
        """Copy an object, and set class, tags, encryption and checksum, which S3 does not copy."""
        extra = self._copy_arguments(options)
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

    def _copy_arguments(self, options: PutOptions) -> dict[str, Any]:
        settings = self._settings
        extra: dict[str, Any] = {}
        if options.storage_class and options.storage_class != "STANDARD":
            extra["StorageClass"] = options.storage_class
        if options.tags and settings.tags:
            extra |= {"Tagging": urlencode(options.tags), "TaggingDirective": "REPLACE"}
        if settings.sse != "none":
            extra["ServerSideEncryption"] = settings.sse
        if settings.kms_key_id:
            extra["SSEKMSKeyId"] = settings.kms_key_id
        if settings.algorithm:  # otherwise a copy in parts has no checksum
            extra["ChecksumAlgorithm"] = settings.algorithm.upper()
        return extra

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
                ObjectInfo(
                    o["Key"][len(root) :], o["Size"], o["LastModified"], o["ETag"].strip('"')
                )
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

    def expiry_rules(self, folder: str, *, tags: Mapping[str, str]) -> Sequence[ExpiryRule]:
        """Return the lifecycle rules of the bucket that delete such objects by age."""
        rules = self._call_boto(
            "read the lifecycle rules of", "", lambda: lifecycle_rules(self._client, self._bucket)
        )
        below = self._full(f"{folder}/")
        return [rule for rule in expiry_rules(rules) if rule.may_expire(below, tags=tags)]

    def _full(self, key: str) -> str:
        return f"{self._prefix}/{key}" if self._prefix else key

    @cached_property
    def _session(self) -> "Session":
        from boto3.session import Session
        from botocore.exceptions import BotoCoreError

        try:
            return Session(region_name=self._settings.region, **_boto_keys(self._settings.keys))
        except BotoCoreError as error:  # such as a missing profile
            raise UsageError(f"cannot use the AWS settings: {without_urls(str(error))}") from None

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
                retries={"mode": "standard", "total_max_attempts": 2 if settings.hurried else 8},
                max_pool_connections=settings.connections,
                connect_timeout=10,
                # S3 answers a copy of 5 GB when it is done.
                read_timeout=IMPATIENT.answer if settings.hurried else 900,
                **proxy_setting(settings.endpoint),
                request_checksum_calculation=checksums,
                response_checksum_validation=checksums,
            ),
        )

    def _call_boto(self, verb: str, key: str, action: Callable[[], _T]) -> _T:
        with self._client_lock:
            _ = self._client  # created once: boto3's factory is not thread-safe
        try:
            return interruptibly(action)
        except Exception as error:
            raise translate_boto(error, verb=verb, place=self._place(key)) from error


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
