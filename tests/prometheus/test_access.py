"""Secrets and certificates for Prometheus: what is sent, and what messages never contain."""

import ssl
from collections.abc import Callable
from pathlib import Path

import pytest

from prometheus_backup.errors import BackupToolError, SourceUnavailable, UsageError
from prometheus_backup.prometheus.access import Access
from prometheus_backup.prometheus.client import PrometheusClient
from tests.support.certificates import Certificate, self_signed
from tests.support.faulty_http import Answer, FaultyServer
from tests.support.sources import SNAPSHOT_PATH, FakePrometheus


def refusal(access: Access) -> BackupToolError:
    """The error of a status request."""
    with pytest.raises(BackupToolError) as caught, PrometheusClient(access) as client:
        client.status()
    return caught.value


@pytest.mark.parametrize(
    ("content", "cause"),
    [
        (b"xyzzy\nxyzzy\n", "it contains 2 lines"),
        (b"xyzzy\r\nxyzzy", "it contains 2 lines"),
        ("xyzzé".encode(), "not ASCII"),
        (b"xyzzy\xff", "not UTF-8"),
        ("xyzzy".encode("utf-16"), "not UTF-8"),
        (b"\xef\xbb\xbfxyzzy", "control character"),
        (b"xy\x00zzy", "control character"),
        (b" \n", "it is empty"),
    ],
)
def test_a_token_that_cannot_be_sent_is_refused_and_not_shown(
    tmp_path: Path, content: bytes, cause: str
) -> None:
    file = tmp_path / "token"
    file.write_bytes(content)
    error = refusal(Access("http://127.0.0.1:9", bearer_token_file=str(file)))
    assert isinstance(error, UsageError)
    assert error.message.startswith(f"cannot use PROMETHEUS_BEARER_TOKEN_FILE {file}: ")
    assert cause in error.message
    assert "zz" not in error.message + error.hint


def test_a_password_may_contain_any_letter_but_only_one_line(tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text("pässwörd\n")
    access = Access("", username="ü", password_file=str(file))
    with FakePrometheus() as server, PrometheusClient(_at(server.url, access)) as client:
        assert client.status().version == "3.14.0"
    file.write_text("one-secret\ntwo-secret\n")
    assert "secret" not in refusal(_at("http://127.0.0.1:9", access)).message


@pytest.mark.parametrize("status", [400, 500])
def test_a_secret_that_the_server_repeats_is_hidden(tmp_path: Path, status: int) -> None:
    file = tmp_path / "token"
    file.write_text("a-secret")
    answer = (status, {"status": "error", "errorType": "bad_data", "error": "no a-secret \x1b[2J"})
    with FakePrometheus({"/api/v1/status/flags": answer, SNAPSHOT_PATH: answer}) as server:
        access = Access(server.url, bearer_token_file=str(file))
        error = refusal(access)
        with PrometheusClient(access) as client, pytest.raises(BackupToolError) as snapshot:
            client.take_snapshot(skip_head=False)
    for message in (error.message, snapshot.value.message):
        assert "no *** ?[2J" in message
        assert "a-secret" not in message


@pytest.mark.parametrize(
    ("make", "cause", "hint"),
    [
        (self_signed, "self-signed certificate", "PROMETHEUS_CA_FILE"),
        (
            lambda folder: self_signed(folder, address="127.0.0.2"),
            "IP address mismatch",
            "host name in PROMETHEUS_URL",
        ),
    ],
)
def test_a_certificate_that_is_not_accepted_is_explained(
    tmp_path: Path, make: Callable[[Path], Certificate], cause: str, hint: str
) -> None:
    certificate = make(tmp_path)
    trusted = None if hint == "PROMETHEUS_CA_FILE" else str(certificate.certificate)
    with FaultyServer(tls=certificate.server_context()) as server:
        error = refusal(Access(server.url, ca_file=trusted))
        with PrometheusClient(Access(server.url, ca_file=trusted)) as client:
            assert client.is_listening(), "heal and restore must not take it for stopped"
    assert isinstance(error, SourceUnavailable)
    assert cause in error.message
    assert hint in error.hint


def test_a_client_certificate_is_required_and_sent(tmp_path: Path) -> None:
    certificate = self_signed(tmp_path)
    context = certificate.server_context()
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(certificate.certificate)
    ca = str(certificate.certificate)
    (tmp_path / "other").mkdir()
    other = self_signed(tmp_path / "other")
    ok = Answer(body=b'{"status": "success", "data": {}}', headers={"Content-Type": "text/json"})
    with FaultyServer(tls=context, otherwise=ok) as server:
        needed = refusal(Access(server.url, ca_file=ca))
        refused = refusal(
            Access(
                server.url,
                ca_file=ca,
                cert_file=str(other.certificate),
                key_file=str(other.key),
            )
        )
        access = Access(server.url, ca_file=ca, cert_file=ca, key_file=str(certificate.key))
        with PrometheusClient(access) as client:
            client.require_ready()
    for error in (needed, refused):
        assert error.message.endswith("the server requires a client certificate that it accepts")
        assert "PROMETHEUS_CERT_FILE and PROMETHEUS_KEY_FILE" in error.hint


def test_the_wrong_scheme_is_named() -> None:
    with FakePrometheus() as server:
        error = refusal(Access(server.url.replace("http:", "https:")))
    assert error.message.endswith("the server expects http, not https")
    body = b"Client sent an HTTP request to an HTTPS server.\n"
    with FaultyServer(otherwise=Answer(status=400, body=body)) as go:
        error = refusal(Access(go.url))
    assert error.message.endswith("the server expects https, not http")
    assert "https://" in error.hint


def test_client_certificates_that_cannot_be_used_are_named(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    one, other = self_signed(tmp_path), self_signed(tmp_path / "other")
    url, text = "https://127.0.0.1:9", str(tmp_path / "text")
    Path(text).write_text("no key\n")
    cases = {
        (str(one.certificate), str(other.key)): "the key does not belong to the certificate",
        (str(one.certificate), text): "not a certificate and an unencrypted key",
        (str(one.certificate), None): "not a certificate and an unencrypted key",
        (None, str(one.key)): "PROMETHEUS_CERT_FILE is not set",
        (str(tmp_path / "absent"), None): "cannot read PROMETHEUS_CERT_FILE",
    }
    for (certificate, key), cause in cases.items():
        assert cause in refusal(Access(url, cert_file=certificate, key_file=key)).message


def _at(url: str, access: Access) -> Access:
    return Access(url, username=access.username, password_file=access.password_file)
