"""Translate the exceptions of obstore and boto3 into our errors, with causes and hints for people.

Both libraries return errors as text: their formats are fixed by tests on real servers.
"""

import re
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any

from obstore import exceptions

from prometheus_backup.errors import (
    BackupToolError,
    ObjectExists,
    ObjectNotFound,
    RepositoryDenied,
    RepositoryFull,
    RepositoryNotFound,
    RepositoryUnavailable,
    UsageError,
)
from prometheus_backup.model import printable, rfc3339
from prometheus_backup.stores.archived import CODES as ARCHIVED
from prometheus_backup.stores.archived import archived
from prometheus_backup.stores.base import NoAnswer

# The IAM permissions that an operation needs, for the message when it is denied.
_ACTIONS = {
    "put": "s3:PutObject (and s3:PutObjectTagging)",
    "create": "s3:PutObject (and s3:PutObjectTagging)",
    "read": "s3:GetObject (and s3:ListBucket, without which a missing object is denied as well)",
    "list": "s3:ListBucket",
    "delete": "s3:DeleteObject",
    "read the lifecycle rules of": "s3:GetLifecycleConfiguration",
    "copy": "s3:GetObject, s3:PutObject (and s3:GetObjectTagging, s3:PutObjectTagging)",
}
_BAD_CREDENTIALS = {
    "InvalidAccessKeyId",
    "SignatureDoesNotMatch",
    "ExpiredToken",
    "InvalidToken",
    "TokenRefreshRequired",
}
_SKEWED = "RequestTimeTooSkewed"
_WRONG_REGION = {"AuthorizationHeaderMalformed", "PermanentRedirect", "IllegalLocationConstraint"}
_NO_BUCKET = {"NoSuchBucket", "InvalidBucketName", "ContainerNotFound"}
_FULL = {
    "QuotaExceeded",  # Ceph RGW, with status 403
    "XMinioAdminBucketQuotaExceeded",
    "XMinioStorageFull",
    "InsufficientCapacity",
    "InsufficientStorage",
    "StorageQuotaExceeded",
    "ServiceQuotaExceeded",
}
_STATUS_FULL = 507  # Insufficient Storage, RFC 4918
_STATUS_UNSUPPORTED = 501  # Not Implemented
_WRITES = ("put", "create", "copy")

# How a store that lacks a feature responds, and the setting that avoids the feature.
_WITHOUT_FEATURE = (
    (r"tagging", "S3_TAGS=false"),
    (r"storage.?class", "S3_STORAGE_CLASS=STANDARD (or a class of this store)"),
    (r"encrypt|\bKMS\b|\bSSE\b", "S3_SSE=none"),
    (r"Content-MD5 OR x-amz-checksum|checksum.*required", "S3_CHECKSUM=crc64nvme or sha256"),
    (r"checksum|trailer", "S3_CHECKSUM=none"),
    (r"none-match|conditional", "S3_CONDITIONAL_WRITES=false"),
)
_UNSUPPORTED = {
    "NotImplemented",
    "InvalidArgument",
    "InvalidRequest",
    "InvalidStorageClass",
    "UnsupportedArgument",
    "MethodNotAllowed",
}

_CODE = re.compile(r"<Code>(\w+)</Code>")
_MESSAGE = re.compile(r"<Message>(.*?)</Message>", re.DOTALL)
_DELETE_FAILED = re.compile(r"DeleteObjects request failed for key .*: (.*) \(code: (\w+)\)")
_STATUS = re.compile(r"status code: (\d{3})([^:<\n]*)")
_REGION = re.compile(r"expecting '([\w-]+)'|<Region>([\w-]+)</Region>")
_ADDRESS = re.compile(r"(https?://[^/\s\"?]+)")
_URL = re.compile(r"""(\w+://)(?:[^/\s"'@]*@)?([^/\s"'?)]*)[^\s"')]*""")
_CREDENTIALS = re.compile(r"External AWS credential provider: \w+: (.*)", re.DOTALL)
_BOTO_CONNECTION_ERRORS = (
    "Could not connect to the endpoint",
    "Connect timeout",
    "Read timeout",
    "Connection was closed",
)
_CONNECTION_ERRORS = ("error sending request", "client error", "dns error", "tcp connect")
_CERTIFICATE_ERRORS = ("InvalidCertificate", "certificate", "invalid peer", "UnknownIssuer")
_NO_ANSWER = "no answer in time"
_REASONS = (
    ("Connection refused", "connection refused"),
    ("failed to lookup address", "unknown host name"),
    ("ConnectionReset", "connection reset"),
    ("kind: Timeout", _NO_ANSWER),
    ("TimedOut", _NO_ANSWER),
    ("IncompleteMessage", "the server closed the connection"),
    ("No route to host", "no route to the host"),
    ("Network is unreachable", "network unreachable"),
)


_UNKNOWN_CA_HINT = "set AWS_CA_BUNDLE or SSL_CERT_FILE to the store's CA certificates"
_CERTIFICATE_HINT = (
    "replace the certificate on the server, or correct S3_ENDPOINT_URL; if its CA is a private "
    "one, set AWS_CA_BUNDLE or SSL_CERT_FILE to its certificates"
)


class TimedOut(NoAnswer):
    """There was no answer in time: the store does not respond, or the connection is too slow."""


class UploadLost(RepositoryUnavailable):
    """The store lost an unfinished multipart upload: it must be started again."""


class ListingInterrupted(RepositoryUnavailable):
    """The connection was lost in the middle of a listing."""


def translate(error: BaseException, *, verb: str, place: str) -> BackupToolError:
    """Return our error for one of obstore's. `verb` and `place` are for the message."""
    text = str(error)
    start = f"cannot {verb} {place}: "
    if found := _CREDENTIALS.search(text):
        return no_credentials(start, found[1].partition("\n\nDebug")[0])
    code, cause = _cause(text)
    message = start + cause
    if code in ARCHIVED:
        return archived(verb, place)
    if code == _SKEWED:
        return _skewed(message, _element(text, "RequestTime"), _element(text, "ServerTime"))
    region = _REGION.search(text)
    status = _STATUS.search(text)
    return (
        refusal(code, verb=verb, message=message, region=region and (region[1] or region[2]))
        or _by_status(int(status[1]) if status else 0, verb=verb, message=message)
        or _by_class(error, verb=verb, message=message)
        or _by_text(text, message=message, answered=bool(code or status))
    )


def _by_status(status: int, *, verb: str, message: str) -> BackupToolError | None:
    if status == _STATUS_FULL:
        return _full(message)
    if status == _STATUS_UNSUPPORTED and verb in _WRITES:
        return _unsupported(message, verb=verb)
    return None


def _by_class(error: BaseException, *, verb: str, message: str) -> BackupToolError | None:
    if isinstance(error, exceptions.PermissionDeniedError | exceptions.UnauthenticatedError):
        return denied(verb, message)
    if isinstance(error, exceptions.AlreadyExistsError | exceptions.PreconditionError):
        return ObjectExists(message)
    if isinstance(error, FileNotFoundError | exceptions.NotFoundError):
        return ObjectNotFound(message)
    if isinstance(error, exceptions.UnknownConfigurationKeyError | exceptions.InvalidPathError):
        return UsageError(message)
    return None


def _by_text(text: str, *, message: str, answered: bool) -> BackupToolError:
    if "list response body" in text:
        return ListingInterrupted(message)
    if "UnknownIssuer" in text:
        return RepositoryUnavailable(message, hint=_UNKNOWN_CA_HINT)
    if any(word in text for word in _CERTIFICATE_ERRORS):
        return RepositoryUnavailable(message, hint=_CERTIFICATE_HINT)
    if not answered and _is_connection_error(text):
        return TimedOut(message) if _NO_ANSWER in message else NoAnswer(message)
    return RepositoryUnavailable(message)


def translate_boto(error: Exception, *, verb: str, place: str) -> BackupToolError:
    """Return our error for one of boto3's."""
    from botocore import exceptions as boto

    start = f"cannot {verb} {place}: "
    if isinstance(error, boto.ClientError):
        return _refused_by_boto(error, verb=verb, place=place)
    if isinstance(error, boto.ProfileNotFound | boto.ConfigParseError):
        return UsageError(f"{start}{without_urls(str(error))}")
    without = (
        boto.NoCredentialsError,
        boto.PartialCredentialsError,
        boto.CredentialRetrievalError,
        boto.MetadataRetrievalError,
        boto.TokenRetrievalError,
        boto.SSOError,
    )
    if isinstance(error, without):
        return no_credentials(start, str(error))
    if isinstance(error, boto.SSLError):
        cause = f"the TLS certificate was not accepted: {without_urls(str(error))}"
        return RepositoryUnavailable(start + cause, hint=_CERTIFICATE_HINT)
    if isinstance(error, boto.HTTPClientError | boto.ConnectionError):
        return RepositoryUnavailable(f"{start}no connection: {without_urls(str(error))}")
    return RepositoryUnavailable(f"{start}{without_urls(str(error))}")


def _refused_by_boto(error: Any, *, verb: str, place: str) -> BackupToolError:
    response: Any = error.response
    answer, about = response.get("Error", {}), response.get("ResponseMetadata", {})
    code, status = answer.get("Code", ""), about.get("HTTPStatusCode", 0)
    headers = about.get("HTTPHeaders", {})
    if code in ARCHIVED:
        return archived(verb, place)
    cause = f"{code}: {printable(answer.get('Message') or '')}".rstrip(": ")
    message = f"cannot {verb} {place}: {cause}"
    if code == _SKEWED:
        return _skewed(message, answer.get("RequestTime"), answer.get("ServerTime"))
    region = answer.get("Region") or headers.get("x-amz-bucket-region")
    if known := refusal(code, verb=verb, message=message, region=region):
        return known
    if known := _by_status(status, verb=verb, message=message):
        return known
    if status == 404:
        return ObjectNotFound(message)
    return denied(verb, message) if status in (401, 403) else RepositoryUnavailable(message)


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
    if code in _FULL:
        return _full(message)
    if code == "NoSuchUpload":
        return UploadLost(message)
    if code in _UNSUPPORTED and verb in _WRITES:
        return _unsupported(message, verb=verb)
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


def _unsupported(message: str, *, verb: str) -> UsageError:
    """Return the error for a feature that the store lacks, with the setting that avoids it."""
    cause = message.partition(": ")[2]
    for pattern, setting in _WITHOUT_FEATURE:
        if re.search(pattern, cause, re.IGNORECASE):
            return UsageError(message, hint=f"this store refuses it: set {setting}")
    often = ", often S3_CONDITIONAL_WRITES=false" if verb == "create" else ""
    return UsageError(
        message, hint=f"run `prometheus-backup check`: it finds out which setting helps{often}"
    )


def _full(message: str) -> RepositoryFull:
    return RepositoryFull(f"{message} (the store is full, or its quota is used up)")


def _skewed(message: str, asked: str | None, server: str | None) -> RepositoryDenied:
    times = [_instant(text) for text in (asked, server)]
    difference = ""
    if times[0] and times[1]:
        ahead = times[0] - times[1]
        word = "ahead of" if ahead > timedelta(0) else "behind"
        difference = f": it is {abs(ahead)} {word} the store's"
    return RepositoryDenied(
        f"{message} (this machine's clock is wrong{difference})",
        hint="set this machine's clock (NTP); the credentials are not the cause",
    )


def _instant(text: str | None) -> datetime | None:
    for parse in (
        lambda t: datetime.strptime(t, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC),
        datetime.fromisoformat,
        parsedate_to_datetime,
    ):
        try:
            found = parse(text or "")
        except ValueError:
            continue
        return found if found.tzinfo else found.replace(tzinfo=UTC)
    return None


def _element(text: str, name: str) -> str | None:
    found = re.search(f"<{name}>(.*?)</{name}>", text)
    return found[1] if found else None


def no_credentials(start: str, text: str) -> BackupToolError:
    """Return the error for credentials that boto3 could not get; `start` is of the message."""
    cause = f"{start}cannot get AWS credentials: {without_urls(text)}"
    if any(word in text for word in _BOTO_CONNECTION_ERRORS):
        return NoAnswer(cause, hint="check the network path to AWS STS or the metadata service")
    return RepositoryDenied(
        cause, hint="check the role (AWS_ROLE_ARN), its trust policy, and the token or profile"
    )


def _cause(text: str) -> tuple[str | None, str]:
    """Return the store's error code, if there is one, and the cause as one line."""
    code, message = _CODE.search(text), _MESSAGE.search(text)
    if code:
        detail = printable(" ".join(message[1].split())) if message else ""
        return code[1], f"{code[1]}: {detail}".rstrip(": ")
    if single := _DELETE_FAILED.search(text):
        return single[2], f"{single[2]}: {single[1]}"
    found = _ADDRESS.search(text)
    address = found[1] if found else "the store"
    if any(word in text for word in _CERTIFICATE_ERRORS):
        return None, f"the TLS certificate was not accepted: {_certificate(text, address)}"
    if _is_connection_error(text):
        reason = next((why for word, why in _REASONS if word in text), "")
        return None, f"no connection to {address}" + (f" ({reason})" if reason else "")
    if "redirect without LOCATION" in text:  # obstore drops the response
        return "PermanentRedirect", "the bucket is in another region"
    first = text.partition("\n\nDebug source")[0]
    status = _STATUS.search(first)
    if status:
        return None, f"{status[1]}{status[2]}".strip()
    return None, without_urls(first)


def without_urls(text: str) -> str:
    """Return a library's text on one line, with only scheme and host of each URL in it.

    The rest may be secret, such as the token in a URL of Azure.
    """
    return printable(_URL.sub(r"\1\2", " ".join(text.split())), max_length=300)


def _is_connection_error(text: str) -> bool:
    return any(word in text.lower() for word in _CONNECTION_ERRORS)


def _certificate(text: str, address: str) -> str:
    """Return whose certificate it is, and what is wrong with it."""
    if found := re.search(r"not_after: UnixTime\(\s*(\d+)", text):
        return f"that of {address} expired on {_day(found[1])}"
    if found := re.search(r"not_before: UnixTime\(\s*(\d+)", text):
        return f"that of {address} is not valid before {_day(found[1])}"
    if "NotValidForName" in text:
        names = re.findall(r'"(?:DnsName|IpAddress)\((.*?)\)"', text.replace('\\"', ""))
        return f"that of {address} is for another name" + (f": {', '.join(names)}" if names else "")
    if "UnknownIssuer" in text:
        return f"that of {address} is signed by an unknown CA"
    return f"that of {address}"


def _day(seconds: str) -> str:
    return rfc3339(datetime.fromtimestamp(int(seconds), UTC))
