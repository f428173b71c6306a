"""AWS credentials come from every source that other AWS clients use."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from devtools.moto_server import MotoServer
from devtools.processes import free_port
from prometheus_backup.errors import (
    BackupToolError,
    RepositoryDenied,
    RepositoryUnavailable,
    UsageError,
)
from prometheus_backup.model import PutOptions
from prometheus_backup.stores.s3 import S3Settings, S3Store, StaticKeys
from tests.support.faulty_http import Answer, FaultyServer

EMPTY = Answer(body=b'<ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/"/>')


@pytest.fixture
def s3() -> Iterator[FaultyServer]:
    """An S3 server that accepts all credentials and records them."""
    with FaultyServer(otherwise=EMPTY) as server:
        yield server


def _used_credentials(
    s3: FaultyServer, keys: StaticKeys | None = None
) -> list[tuple[str, str | None]]:
    """Send requests with both clients; return key id and session token of each."""
    settings = S3Settings(endpoint=s3.url, keys=keys)
    store = S3Store(bucket="bucket", prefix="prefix", settings=settings)
    list(store.list())
    store.copy("a", "b", size=1, options=PutOptions())
    came = []
    for request in s3.requests:
        credential = request.headers["authorization"].partition("Credential=")[2]
        came.append((credential.partition("/")[0], request.headers.get("x-amz-security-token")))
    assert [r.method for r in s3.requests] == ["GET", "PUT"]
    return came


def _answer(token: str, *, life: timedelta = timedelta(hours=1)) -> bytes:
    return json.dumps(
        {
            "Code": "Success",
            "Type": "AWS-HMAC",
            "AccessKeyId": "AKIAFETCHED",
            "SecretAccessKey": "fetched-secret",
            "Token": token,
            "Expiration": (datetime.now(UTC) + life).strftime("%Y-%m-%dT%H:%M:%SZ"),
            "LastUpdated": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        }
    ).encode()


def test_static_keys_are_used_by_both_clients(
    s3: FaultyServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAENVIRONMENT")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    given = StaticKeys("AKIAGIVEN", "secret", "given-token")
    assert _used_credentials(s3, given) == [("AKIAGIVEN", "given-token")] * 2
    assert "secret" not in repr(given)
    assert "given-token" not in repr(given)


def test_keys_in_the_environment(s3: FaultyServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAENVIRONMENT")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("AWS_SESSION_TOKEN", "session")
    assert _used_credentials(s3) == [("AKIAENVIRONMENT", "session")] * 2


def _write_profiles(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path.write_text(
        "[default]\naws_access_key_id = AKIADEFAULT\naws_secret_access_key = secret\n"
        "[backup]\naws_access_key_id = AKIAPROFILE\naws_secret_access_key = secret\n"
    )
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(path))


@pytest.mark.parametrize(("profile", "key"), [(None, "AKIADEFAULT"), ("backup", "AKIAPROFILE")])
def test_a_profile_in_the_credentials_file(
    s3: FaultyServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    profile: str | None,
    key: str,
) -> None:
    _write_profiles(tmp_path / "credentials", monkeypatch)
    if profile:
        monkeypatch.setenv("AWS_PROFILE", profile)
    assert _used_credentials(s3) == [(key, None)] * 2


def test_a_missing_profile_is_a_wrong_setting(
    s3: FaultyServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _write_profiles(tmp_path / "credentials", monkeypatch)
    monkeypatch.setenv("AWS_PROFILE", "typo")
    with pytest.raises(UsageError, match="typo"):
        _used_credentials(s3)
    assert s3.requests == []


def test_a_role_of_a_pod_by_eks_pod_identity(
    s3: FaultyServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "token").write_text("pod-token")
    with FaultyServer(otherwise=Answer(body=_answer("session-of-pod"))) as agent:
        monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", f"{agent.url}/v1/credentials")
        monkeypatch.setenv("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", str(tmp_path / "token"))
        assert _used_credentials(s3) == [("AKIAFETCHED", "session-of-pod")] * 2
        assert {r.headers["authorization"] for r in agent.requests} == {"pod-token"}


def test_a_role_of_a_pod_by_web_identity(
    s3: FaultyServer, moto: MotoServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "token").write_text("web-identity-token")
    monkeypatch.setenv("AWS_WEB_IDENTITY_TOKEN_FILE", str(tmp_path / "token"))
    monkeypatch.setenv("AWS_ROLE_ARN", "arn:aws:iam::123456789012:role/backup")
    monkeypatch.setenv("AWS_ENDPOINT_URL_STS", moto.url)
    (first, token), (second, same_token) = _used_credentials(s3)
    assert first.startswith("ASIA"), "keys of a session"
    assert token
    assert (second, same_token) == (first, token)


def test_a_role_of_an_instance_by_its_metadata_service(
    s3: FaultyServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = "/latest/meta-data/iam/security-credentials/"
    with FaultyServer() as service:
        service.faults = [
            Answer("PUT", "/latest/api/token", body=b"imds-token"),
            Answer("GET", f"{path}backup-role", body=_answer("session-of-instance")),
        ]
        service.otherwise = Answer(body=b"backup-role")
        monkeypatch.setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", service.url)
        monkeypatch.delenv("AWS_EC2_METADATA_DISABLED")
        assert _used_credentials(s3) == [("AKIAFETCHED", "session-of-instance")] * 2
        assert service.faults == []
        token, *rest = service.requests
    assert token.path == "/latest/api/token"
    assert {r.headers["x-aws-ec2-metadata-token"] for r in rest} == {"imds-token"}


def test_expired_credentials_are_fetched_again(
    s3: FaultyServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # On each request, boto3 renews credentials that expire within ten minutes.
    (tmp_path / "token").write_text("pod-token")
    with FaultyServer(otherwise=Answer(body=_answer("second"))) as agent:
        agent.faults = [Answer("GET", body=_answer("first", life=timedelta(minutes=1)))]
        monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", f"{agent.url}/v1/credentials")
        monkeypatch.setenv("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", str(tmp_path / "token"))
        assert _used_credentials(s3)[-1] == ("AKIAFETCHED", "second")


def test_obstore_refreshes_credentials_before_boto_renews_them(
    s3: FaultyServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    # boto3 renews ten minutes before expiry. If obstore kept them longer, they could expire.
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAENVIRONMENT")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    store = S3Store(bucket="bucket", prefix="prefix", settings=S3Settings(endpoint=s3.url))
    kept_until = store._credentials()["credential_provider"]()["expires_at"]
    assert kept_until - datetime.now(UTC) < timedelta(minutes=10)


def test_a_refusing_agent_is_denied(
    s3: FaultyServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "token").write_text("pod-token")
    with FaultyServer(otherwise=Answer(status=403, body=b"no such association")) as agent:
        monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", f"{agent.url}/v1/credentials")
        monkeypatch.setenv("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", str(tmp_path / "token"))
        with pytest.raises(RepositoryDenied, match="cannot get AWS credentials"):
            _used_credentials(s3)
    assert s3.requests == []


def test_a_token_that_sts_refuses_is_denied(
    s3: FaultyServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refusal = Answer(
        status=400,
        body=b"<ErrorResponse><Error><Type>Sender</Type><Code>InvalidIdentityToken</Code>"
        b"<Message>No OpenIDConnect provider found</Message></Error></ErrorResponse>",
    )
    (tmp_path / "token").write_text("web-identity-token")
    monkeypatch.setenv("AWS_WEB_IDENTITY_TOKEN_FILE", str(tmp_path / "token"))
    monkeypatch.setenv("AWS_ROLE_ARN", "arn:aws:iam::123456789012:role/backup")
    with FaultyServer(otherwise=refusal) as sts:
        monkeypatch.setenv("AWS_ENDPOINT_URL_STS", sts.url)
        with pytest.raises(BackupToolError, match="No OpenIDConnect provider") as denied:
            _used_credentials(s3)
    assert isinstance(denied.value, RepositoryDenied)
    assert "web-identity-token" not in str(denied.value)


@pytest.mark.parametrize("refuses", [True, False], ids=["refused", "no connection"])
def test_a_failure_of_sts_during_a_run_is_not_reported_as_one_of_the_bucket(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, refuses: bool
) -> None:
    (tmp_path / "token").write_text("web-identity-token")
    monkeypatch.setenv("AWS_WEB_IDENTITY_TOKEN_FILE", str(tmp_path / "token"))
    monkeypatch.setenv("AWS_ROLE_ARN", "arn:aws:iam::123456789012:role/backup")
    refusal = Answer(
        status=403,
        body=b"<ErrorResponse><Error><Code>AccessDenied</Code><Message>Not authorized to perform "
        b"sts:AssumeRoleWithWebIdentity</Message></Error></ErrorResponse>",
    )
    with FaultyServer(otherwise=refusal) as sts, FaultyServer(otherwise=EMPTY) as s3:
        url = sts.url if refuses else f"http://127.0.0.1:{free_port()}"
        monkeypatch.setenv("AWS_ENDPOINT_URL_STS", url)
        kind = RepositoryDenied if refuses else RepositoryUnavailable
        with pytest.raises(kind, match="cannot get AWS credentials") as error:
            S3Store(bucket="bucket", prefix="p", settings=S3Settings(endpoint=s3.url)).ping()
        assert s3.requests == []
    assert ("AWS_ROLE_ARN" if refuses else "network") in error.value.hint
    assert "s3:" not in error.value.hint
    assert ("sts:AssumeRoleWithWebIdentity" if refuses else url) in error.value.message


@pytest.mark.parametrize("url", ["nonsense", "ftp://127.0.0.1/x", "http://192.0.2.7/x"])
def test_a_wrong_address_for_credentials_is_no_traceback(
    s3: FaultyServer, monkeypatch: pytest.MonkeyPatch, url: str
) -> None:
    monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", url)
    with pytest.raises(RepositoryDenied, match="cannot get AWS credentials"):
        _used_credentials(s3)
    assert s3.requests == []
