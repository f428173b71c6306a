"""A server in front of a real store that lacks what some S3-compatible stores lack.

    with LimitedStore(s3_bucket.endpoint.url, NO_TAGS, NO_BULK_DELETE) as server: ...

The refusals are modelled on answers of real stores.
"""

from collections.abc import Callable

from tests.support.faulty_http import Answer, Fault, FaultyServer, Request

Refusal = Callable[[Request], Answer | None]
"""Returns the store's refusal of a request, or None if the store accepts it."""


def refusal(status: int, code: str, message: str = "") -> Answer:
    """Return an error response of S3."""
    body = f"<Error><Code>{code}</Code><Message>{message}</Message></Error>"
    return Answer(status=status, body=body.encode(), headers={"Content-Type": "application/xml"})


def without_header(name: str, answer: Answer) -> Refusal:
    """Refuse every request with this header."""
    return lambda request: answer if name in request.headers else None


NO_TAGS = without_header(
    "x-amz-tagging",
    refusal(501, "NotImplemented", "Header 'x-amz-tagging' with value 'Type=daily' not supported"),
)
"""Cloudflare R2; Backblaze B2 likewise, with 400."""
NO_TAG_PERMISSION = without_header("x-amz-tagging", refusal(403, "AccessDenied", "Access Denied"))
"""AWS, if the policy lacks s3:PutObjectTagging."""
NO_ENCRYPTION = without_header(
    "x-amz-server-side-encryption", refusal(501, "NotImplemented", "KMS is not configured")
)
"""MinIO without KMS; Ceph over plain HTTP."""
NO_CONDITIONS = without_header(
    "if-none-match", refusal(501, "NotImplemented", "A header implies functionality")
)
NO_COPIES = without_header("x-amz-copy-source", refusal(501, "NotImplemented"))


def no_other_class(request: Request) -> Answer | None:
    """Refuse storage classes other than STANDARD."""
    if request.headers.get("x-amz-storage-class", "STANDARD") == "STANDARD":
        return None
    return refusal(400, "InvalidStorageClass", "The storage class you specified is not valid")


def object_lock(request: Request) -> Answer | None:
    """Refuse bodies without a checksum, as a bucket with Object Lock does."""
    carries = "content-md5" in request.headers or any(
        name.startswith("x-amz-checksum-") for name in request.headers
    )
    if request.method != "PUT" or carries or "x-amz-copy-source" in request.headers:
        return None
    return refusal(400, "InvalidRequest", "Content-MD5 OR x-amz-checksum- HTTP header is required")


def without_bulk_delete(status: int) -> Refusal:
    """Refuse Multi-Object Delete, as some gateways and policies do."""
    answer = refusal(status, "AccessDenied" if status == 403 else "NotImplemented")
    return lambda r: answer if r.method == "POST" and "?delete" in r.path else None


def full(request: Request) -> Answer | None:
    """Refuse every write, as Ceph does over a quota."""
    return refusal(403, "QuotaExceeded") if request.method == "PUT" else None


class LimitedStore(FaultyServer):
    """Forwards what none of the refusals refuses; `refusals` may be changed at any time."""

    def __init__(self, upstream: str, *refusals: Refusal) -> None:
        super().__init__(upstream=upstream)
        self.refusals = [*refusals]

    def next_fault(self, request: Request) -> Fault | None:
        """Record the request; return the first refusal, or else the next fault."""
        fault = super().next_fault(request)
        answers = (refuse(request) for refuse in self.refusals)
        return next((answer for answer in answers if answer), fault)
