"""S3 over a bad network, at a wrong address, in another region: retries and messages.

A real server on loopback causes each failure, if necessary as a proxy for moto.
"""

import contextlib
import hashlib
import random
import re
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from botocore import exceptions as boto
from obstore import exceptions

from devtools.processes import LOOPBACK, free_port
from devtools.s3 import S3Bucket
from prometheus_backup.clock import SystemClock
from prometheus_backup.errors import (
    BackupToolError,
    ObjectArchived,
    ObjectExists,
    ObjectNotFound,
    RepositoryDenied,
    RepositoryFull,
    RepositoryNotFound,
    RepositoryUnavailable,
    UsageError,
)
from prometheus_backup.events import BytesMoved
from prometheus_backup.model import PutOptions
from prometheus_backup.stores.base import NoAnswer
from prometheus_backup.stores.failures import translate, translate_boto
from prometheus_backup.stores.objectstore import PART_SIZE, Patience
from prometheus_backup.stores.s3 import S3Settings, S3Store, StaticKeys
from prometheus_backup.transfer import BandwidthLimit, HashedFile, WorkerContext
from tests.support.certificates import Certificate, self_signed
from tests.support.faulty_http import (
    Answer,
    CutRequest,
    CutResponse,
    Delay,
    Fault,
    FaultyServer,
    LoseAnswer,
)
from tests.support.runs import Recorder
from tests.support.s3 import PREFIX, open_s3

PLAIN = PutOptions()


def _error(code: str, message: str, more: str = "") -> bytes:
    return (
        '<?xml version="1.0" encoding="UTF-8"?>\n'
        f"<Error><Code>{code}</Code><Message>{message}</Message>{more}"
        "<RequestId>4442587FB7D0A2F9</RequestId></Error>"
    ).encode()


SLOW_DOWN = _error("SlowDown", "Please reduce your request rate.")
INTERNAL = _error("InternalError", "We encountered an internal error. Please try again.")


@pytest.fixture
def server(moto_bucket: S3Bucket) -> Iterator[FaultyServer]:
    """A proxy between the client and moto."""
    with FaultyServer(upstream=moto_bucket.endpoint.url) as between:
        yield between


@pytest.fixture
def store(server: FaultyServer, moto_bucket: S3Bucket) -> S3Store:
    """A store that accesses moto through `server`."""
    return open_s3(moto_bucket, endpoint=server.url)


def _store_at(endpoint: str, **settings: Any) -> S3Store:
    given: dict[str, Any] = {"endpoint": endpoint, "keys": StaticKeys("AKIATEST", "secret")}
    given |= settings
    return S3Store(bucket="bucket", prefix=PREFIX, settings=S3Settings(**given))


# Transient failures


@pytest.mark.parametrize(
    "failure",
    [
        Answer(status=503, body=SLOW_DOWN),
        Answer(status=500, body=INTERNAL),
        Answer(status=502, body=b"<html>Bad Gateway</html>"),
        Answer(status=429),
        CutResponse(after=0),
    ],
    ids=["SlowDown", "InternalError", "bad gateway", "too many requests", "connection cut"],
)
@pytest.mark.parametrize("call", ["put", "create", "get", "head", "list", "copy", "delete"])
def test_a_transient_failure_is_retried(
    server: FaultyServer, store: S3Store, failure: Answer | CutResponse, call: str
) -> None:
    store.put_small("old", b"old", options=PLAIN)
    calls: dict[str, Callable[[], object]] = {
        "put": lambda: store.put("new", [b"new"], size=3, options=PLAIN),
        "create": lambda: store.create("new", b"new", options=PLAIN),
        "get": lambda: store.get("old", limit=9),
        "head": lambda: store.head("old").size,
        "list": lambda: [o.key for o in store.list()],
        "copy": lambda: store.copy("old", "new", size=3, options=PLAIN),
        "delete": lambda: store.delete(["old"]),
    }
    server.faults = [failure]
    try:
        answer = calls[call]()
    except ObjectExists:
        # The contract allows this if an earlier attempt succeeded and its response was lost.
        assert (call, type(failure)) == ("create", CutResponse)
        answer = None
    assert server.faults == []
    expected = {"get": b"old", "head": 3, "list": ["old"]}
    assert answer == expected.get(call)
    keys = {"delete": [], "put": ["new", "old"], "create": ["new", "old"], "copy": ["new", "old"]}
    assert [o.key for o in store.list()] == keys.get(call, ["old"])


def test_a_multipart_put_survives_failures_of_its_parts(
    server: FaultyServer, store: S3Store
) -> None:
    body = random.Random(1).randbytes(2 * PART_SIZE + 1)
    server.faults = [
        Answer("POST", "uploads", status=503, body=SLOW_DOWN),
        Answer("PUT", "partNumber=2", status=500, body=INTERNAL),
        CutRequest("PUT", "partNumber=1", after=1_000_000),
        CutRequest("PUT", "partNumber=3", after=0),
        Answer("POST", "uploadId", status=503, body=SLOW_DOWN),
    ]
    store.put("file", [body], size=len(body), options=PLAIN)
    assert server.faults == []
    assert b"".join(store.stream("file")) == body


def test_an_interrupted_put_is_retried(server: FaultyServer, store: S3Store) -> None:
    body = random.Random(2).randbytes(3_000_000)
    server.faults = [CutRequest("PUT", after=1_000_000), CutRequest("PUT", after=0)]
    store.put("file", [body], size=len(body), options=PLAIN)
    assert server.faults == []
    assert store.get("file", limit=len(body)) == body


def test_an_interrupted_get_is_resumed(server: FaultyServer, store: S3Store) -> None:
    body = random.Random(3).randbytes(5_000_000)
    store.put("file", [body], size=len(body), options=PLAIN)
    server.requests.clear()
    server.faults = [CutResponse("GET", after=2_000_000), CutResponse("GET", after=1_000_000)]
    assert b"".join(store.stream("file")) == body
    assert server.faults == []
    first, *more = [r.headers.get("range") for r in server.requests]
    assert first is None
    assert len(more) == 2, "it was resumed, not begun again"


def test_an_object_replaced_during_an_interrupted_get_is_not_mixed(
    server: FaultyServer, store: S3Store, moto_bucket: S3Bucket
) -> None:
    size = 5_000_000
    store.put("file", [b"a" * size], size=size, options=PLAIN)
    server.faults = [CutResponse("GET", after=2_000_000)]
    chunks = store.stream("file")
    read = next(chunks)
    moto_bucket.put(f"{PREFIX}/file", b"b" * size)
    with pytest.raises(BackupToolError):
        read += b"".join(chunks)
    assert server.faults == []
    assert b"b" not in read


@pytest.mark.parametrize("lost", [CutRequest("PUT"), LoseAnswer("PUT")], ids=["request", "answer"])
def test_a_create_is_repeated_when_the_connection_breaks(
    server: FaultyServer, store: S3Store, lost: Fault
) -> None:
    server.faults = [lost]
    with contextlib.suppress(ObjectExists):  # by the attempt without an answer
        store.create("new", b"mine", options=PLAIN)
    assert server.faults == []
    assert store.get("new", limit=9) == b"mine"
    with pytest.raises(ObjectExists):
        store.create("new", b"other", options=PLAIN)


def test_an_upload_that_the_store_has_forgotten_begins_again(
    server: FaultyServer, store: S3Store, tmp_path: Path
) -> None:
    body = random.Random(4).randbytes(2 * PART_SIZE + 1)
    (tmp_path / "file").write_bytes(body)
    recorder = Recorder()
    worker = WorkerContext(BandwidthLimit(bytes_per_second=None, clock=SystemClock()), recorder)
    file = HashedFile(tmp_path / "file", size=len(body), worker=worker)
    gone = _error("NoSuchUpload", "The specified upload does not exist.")
    server.faults = [Answer("PUT", "partNumber=2", status=404, body=gone)]

    store.put("file", file, size=len(body), options=PLAIN)

    assert server.faults == []
    assert b"".join(store.stream("file")) == body
    assert file.sha256 == hashlib.sha256(body).hexdigest()
    assert sum(event.count for event in recorder.of(BytesMoved)) == len(body)


_QUICK = Patience(answer=1, retries=1, retrying=30)


@pytest.mark.timeout(120)
@pytest.mark.parametrize("call", ["put", "create", "get", "list"])
def test_a_request_that_gets_no_answer_is_made_again(
    server: FaultyServer, moto_bucket: S3Bucket, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    monkeypatch.setattr("prometheus_backup.stores.objectstore.PATIENT", _QUICK)
    store = open_s3(moto_bucket, endpoint=server.url)
    moto_bucket.put(f"{PREFIX}/old", b"old")
    server.faults = [Delay(seconds=5)]
    calls: dict[str, Callable[[], object]] = {
        "put": lambda: store.put("new", [b"new"], size=3, options=PLAIN),
        "create": lambda: store.create("new", b"new", options=PLAIN),
        "get": lambda: store.get("old", limit=9),
        "list": lambda: list(store.list()),
    }
    calls[call]()
    assert server.faults == []


@pytest.mark.timeout(120)
def test_an_upload_over_a_slow_connection_gets_more_time_if_the_store_answers(
    server: FaultyServer, moto_bucket: S3Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("prometheus_backup.stores.objectstore.PATIENT", _QUICK)
    store = open_s3(moto_bucket, endpoint=server.url)
    server.faults = [Delay("PUT", seconds=4) for _ in range(3)]
    store.put("file", [b"x"], size=1, options=PLAIN)
    assert server.faults == []
    assert store.get("file", limit=1) == b"x"


# Wrong settings

MALFORMED = _error(
    "AuthorizationHeaderMalformed",
    "The authorization header is malformed; the region 'us-east-1' is wrong; expecting 'eu-west-1'",
    "<Region>eu-west-1</Region>",
)
REDIRECT = _error(
    "PermanentRedirect",
    "The bucket you are attempting to access must be addressed using the specified endpoint. "
    "Please send all future requests to this endpoint.",
    "<Endpoint>bucket.s3.eu-west-1.amazonaws.com</Endpoint><Bucket>bucket</Bucket>",
)


@pytest.mark.parametrize(
    "answer",
    [
        Answer(status=400, body=MALFORMED),
        Answer(status=301, body=REDIRECT, headers={"x-amz-bucket-region": "eu-west-1"}),
    ],
    ids=["AuthorizationHeaderMalformed", "PermanentRedirect"],
)
def test_a_bucket_in_another_region_is_reported_with_the_region(answer: Answer) -> None:
    with FaultyServer(otherwise=answer) as server:
        store = _store_at(server.url)
        with pytest.raises(UsageError) as wrong:
            store.ping()
        with pytest.raises(UsageError) as wrong_for_boto:
            store.copy("a", "b", size=1, options=PLAIN)
    assert wrong.value.exit_code == 2
    assert wrong.value.hint == "set S3_REGION=eu-west-1"
    assert wrong_for_boto.value.hint == "set S3_REGION=eu-west-1"


@pytest.mark.timeout(60)
def test_ping_reports_a_closed_port_as_unavailable() -> None:
    url = f"http://{LOOPBACK}:{free_port()}"
    with pytest.raises(
        RepositoryUnavailable, match=r"cannot list s3://bucket.*: no connection"
    ) as e:
        _store_at(url).ping()
    assert e.value.exit_code == 13
    assert f"{url} (connection refused)" in e.value.message


def test_ping_gives_up_quickly() -> None:
    with FaultyServer(otherwise=Answer(status=503, body=SLOW_DOWN)) as server:
        with pytest.raises(RepositoryUnavailable, match="SlowDown"):
            _store_at(server.url).ping()
        assert len(server.requests) == 3


@pytest.mark.timeout(60)
def test_ping_reports_an_unknown_host_as_unavailable() -> None:
    with pytest.raises(RepositoryUnavailable, match="no connection"):
        _store_at("http://no-such-host.invalid").ping()


@pytest.mark.timeout(60)
@pytest.mark.parametrize("status", [200, 404, 403, 407, 500])
def test_a_proxy_that_returns_html_is_not_a_store(status: int) -> None:
    page = Answer(status=status, body=b"<html><body>Sign in</body></html>")
    with FaultyServer(otherwise=page) as server, pytest.raises(BackupToolError) as error:
        _store_at(server.url).ping()
    assert isinstance(error.value, RepositoryUnavailable | RepositoryDenied)
    assert error.value.message.startswith(f"cannot list s3://bucket/{PREFIX}: ")
    assert ("not an object store" in error.value.message) == (status == 200)


# TLS


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    """A certificate that no system trusts."""
    return self_signed(tmp_path_factory.mktemp("certificate"))


@pytest.mark.timeout(60)
def test_an_untrusted_certificate_is_reported(certificate: Certificate) -> None:
    with FaultyServer(tls=certificate.server_context()) as server:
        store = _store_at(server.url)
        with pytest.raises(
            RepositoryUnavailable, match="TLS certificate was not accepted"
        ) as error:
            store.ping()
        assert "AWS_CA_BUNDLE" in error.value.hint
        assert server.requests == []


@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    ("changes", "cause"),
    [
        (
            {"valid_from": timedelta(days=-9), "valid_until": timedelta(days=-2)},
            r"expired on 20\d\d-\d\d-\d\dT",
        ),
        (
            {"valid_from": timedelta(days=1), "valid_until": timedelta(days=2)},
            "not valid before 20",
        ),
        ({"address": "192.0.2.7"}, "for another name"),
    ],
    ids=["expired", "not valid yet", "another host"],
)
def test_a_bad_certificate_is_reported_with_its_server_and_what_is_wrong(
    tmp_path: Path, changes: dict[str, Any], cause: str
) -> None:
    bad = self_signed(tmp_path, **changes)
    with FaultyServer(tls=bad.server_context()) as server:
        store = _store_at(server.url, ca_bundle=str(bad.certificate))
        with pytest.raises(
            RepositoryUnavailable, match="TLS certificate was not accepted"
        ) as error:
            store.ping()
    assert re.search(cause, error.value.message)
    assert server.url in error.value.message
    assert "replace the certificate" in error.value.hint


def test_a_certificate_is_accepted_with_its_ca(
    certificate: Certificate, moto_bucket: S3Bucket
) -> None:
    upstream = moto_bucket.endpoint.url
    with FaultyServer(upstream=upstream, tls=certificate.server_context()) as server:
        bundle = str(certificate.certificate)
        store = open_s3(moto_bucket, endpoint=server.url, ca_bundle=bundle)
        store.ping()
        store.put_small("file", b"x", options=PLAIN)
        store.copy("file", "copy", size=1, options=PLAIN)  # boto3's own connection
        assert store.get("copy", limit=1) == b"x"


def test_a_ca_bundle_that_cannot_be_read_is_a_wrong_setting(tmp_path: Path) -> None:
    (tmp_path / "not-pem").write_text("hello")
    for path in (tmp_path / "absent", tmp_path / "not-pem"):
        with pytest.raises(UsageError, match="CA bundle"):
            _store_at("https://127.0.0.1:1", ca_bundle=str(path))


# Causes that are easily mistaken for another

SKEWED = _error(
    "RequestTimeTooSkewed",
    "The difference between the request time and the server's time is too large.",
    "<RequestTime>20250122T040000Z</RequestTime><ServerTime>2025-01-22T02:00:00Z</ServerTime>",
)


def test_a_wrong_clock_is_reported_as_such_with_the_difference() -> None:
    with FaultyServer(otherwise=Answer(status=403, body=SKEWED)) as server:
        store = _store_at(server.url)
        calls: list[Callable[[], object]] = [
            lambda: store.get("key", limit=1),
            lambda: store.copy("a", "b", size=1, options=PLAIN),
        ]
        for call in calls:
            with pytest.raises(RepositoryDenied, match="2:00:00 ahead of the store's") as denied:
                call()
            assert "NTP" in denied.value.hint


@pytest.mark.parametrize(
    "code", ["QuotaExceeded", "XMinioStorageFull", "XMinioAdminBucketQuotaExceeded"]
)
def test_a_used_up_quota_is_reported_as_such(code: str) -> None:
    with FaultyServer(otherwise=Answer(status=403, body=_error(code, "no"))) as server:
        store = _store_at(server.url)
        with pytest.raises(RepositoryFull, match="quota is used up") as full:
            store.put_small("key", b"x", options=PLAIN)
    assert "prometheus-backup prune" in full.value.hint


def test_no_proxy_with_a_network_holds_for_both_clients(
    moto_bucket: S3Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "HTTP_PROXY"):
        monkeypatch.setenv(name, f"http://{LOOPBACK}:{free_port()}")
    monkeypatch.setenv("NO_PROXY", "10.0.0.0/8, 127.0.0.0/8")
    store = open_s3(moto_bucket)
    store.put_small("file", b"x", options=PLAIN)
    store.copy("file", "copy", size=1, options=PLAIN)
    assert [o.key for o in store.list()] == ["copy", "file"]


# All exceptions of the client libraries


def _classes(module: Any, root: type[BaseException]) -> list[type[BaseException]]:
    found = [v for v in vars(module).values() if isinstance(v, type) and issubclass(v, root)]
    return sorted(found, key=lambda c: c.__name__)


OBSTORE = {
    "AlreadyExistsError": ObjectExists,
    "BaseError": RepositoryUnavailable,
    "GenericError": RepositoryUnavailable,
    "InvalidPathError": UsageError,
    "JoinError": RepositoryUnavailable,
    "NotFoundError": ObjectNotFound,
    "NotModifiedError": RepositoryUnavailable,
    "NotSupportedError": RepositoryUnavailable,
    "PermissionDeniedError": RepositoryDenied,
    "PreconditionError": ObjectExists,
    "UnauthenticatedError": RepositoryDenied,
    "UnknownConfigurationKeyError": UsageError,
}


def test_every_exception_of_obstore_is_translated() -> None:
    classes = _classes(exceptions, exceptions.BaseError)
    assert [c.__name__ for c in classes] == sorted(OBSTORE)
    for kind in classes:
        assert issubclass(kind, Exception)
        ours = translate(kind("it went wrong"), verb="read", place="s3://bucket/key")
        assert type(ours) is OBSTORE[kind.__name__]
        needs = " (needs s3:GetObject)" if type(ours) is RepositoryDenied else ""
        assert ours.message == f"cannot read s3://bucket/key: it went wrong{needs}"
    absent = translate(FileNotFoundError("gone"), verb="read", place="s3://bucket/key")
    assert type(absent) is ObjectNotFound


def _answer(code: str, status: int) -> boto.ClientError:
    return boto.ClientError(
        {
            "Error": {"Code": code, "Message": "why"},
            "ResponseMetadata": {
                "HTTPStatusCode": status, "RequestId": "1", "HostId": "", "RetryAttempts": 0,
                "HTTPHeaders": {},
            },
        },
        "CopyObject",
    )  # fmt: skip


BOTO: list[tuple[Exception, type[BackupToolError]]] = [
    (_answer("NoSuchBucket", 404), RepositoryNotFound),
    (_answer("NoSuchKey", 404), ObjectNotFound),
    (_answer("404", 404), ObjectNotFound),
    (_answer("AccessDenied", 403), RepositoryDenied),
    (_answer("403", 403), RepositoryDenied),
    (_answer("InvalidAccessKeyId", 403), RepositoryDenied),
    (_answer("SignatureDoesNotMatch", 403), RepositoryDenied),
    (_answer("ExpiredToken", 400), RepositoryDenied),
    (_answer("RequestTimeTooSkewed", 403), RepositoryDenied),
    (_answer("AuthorizationHeaderMalformed", 400), UsageError),
    (_answer("PermanentRedirect", 301), UsageError),
    (_answer("SlowDown", 503), RepositoryUnavailable),
    (_answer("InternalError", 500), RepositoryUnavailable),
    (_answer("InvalidObjectState", 403), ObjectArchived),
    (boto.NoCredentialsError(), RepositoryDenied),
    (boto.PartialCredentialsError(provider="env", cred_var="secret"), RepositoryDenied),
    (boto.CredentialRetrievalError(provider="p", error_msg="m"), RepositoryDenied),
    (boto.MetadataRetrievalError(error_msg="m"), RepositoryDenied),
    (boto.MetadataRetrievalError(error_msg="Connect timeout on endpoint"), NoAnswer),
    (boto.TokenRetrievalError(provider="sso", error_msg="m"), RepositoryDenied),
    (boto.UnauthorizedSSOTokenError(), RepositoryDenied),
    (boto.SSOTokenLoadError(error_msg="m"), RepositoryDenied),
    (boto.ProfileNotFound(profile="p"), UsageError),
    (boto.EndpointConnectionError(endpoint_url="u"), RepositoryUnavailable),
    (boto.ConnectTimeoutError(endpoint_url="u"), RepositoryUnavailable),
    (boto.ReadTimeoutError(endpoint_url="u"), RepositoryUnavailable),
    (boto.SSLError(endpoint_url="u", error=OSError("e")), RepositoryUnavailable),
    (boto.ConnectionClosedError(endpoint_url="u"), RepositoryUnavailable),
]


@pytest.mark.parametrize(
    ("error", "ours"), BOTO, ids=lambda v: str(v) if isinstance(v, Exception) else v.__name__
)
def test_an_exception_of_boto_is_translated(error: Exception, ours: type[BackupToolError]) -> None:
    translated = translate_boto(error, verb="copy", place="s3://bucket/key")
    assert type(translated) is ours
    assert translated.message.startswith("cannot copy s3://bucket/key: ")
    assert translated.hint or isinstance(translated, ObjectNotFound)


DENIALS = {
    "Access Denied": "AccessDenied: Access Denied (needs s3:DeleteObject)",
    "User: arn:aws:iam::1:user/b is not authorized to perform: s3:DeleteObject on resource: x": (
        "AccessDenied: User: arn:aws:iam::1:user/b is not authorized to perform: s3:DeleteObject "
        "on resource: x"
    ),
}


@pytest.mark.parametrize("cause", DENIALS)
def test_the_missing_permission_is_named_once(cause: str) -> None:
    with (
        FaultyServer(otherwise=Answer(status=403, body=_error("AccessDenied", cause))) as server,
        pytest.raises(RepositoryDenied) as denied,
    ):
        _store_at(server.url).delete(["file"])
    place = f"s3://bucket/{PREFIX}/file"
    assert denied.value.message == f"cannot delete {place}: {DENIALS[cause]}"
    assert denied.value.hint == "the credentials need s3:DeleteObject"


def test_messages_of_other_clouds_name_no_s3_action() -> None:
    denied = translate(
        exceptions.PermissionDeniedError("no"), verb="delete", place="az://container/file"
    )
    assert "s3:" not in f"{denied.message} {denied.hint}"
