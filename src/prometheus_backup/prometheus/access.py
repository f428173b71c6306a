"""The URL and credentials of a Prometheus. Secrets are read from files at each run."""

import base64
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from prometheus_backup.errors import SourceUnavailable, UsageError


@dataclass(frozen=True, slots=True)
class Access:
    """URL and credentials of a Prometheus."""

    url: str
    username: str | None = None
    password_file: str | None = None
    bearer_token_file: str | None = None
    ca_file: str | None = None
    cert_file: str | None = None
    key_file: str | None = None


@dataclass(frozen=True, slots=True)
class Credentials:
    """What a request is sent with. `secrets` are texts that no message may contain."""

    headers: Mapping[str, str] = field(default_factory=dict)
    auth: tuple[str, str] | None = None
    secrets: tuple[str, ...] = ()

    @classmethod
    def read(cls, access: Access) -> Self:
        """Read the secrets. Raises SourceUnavailable, or UsageError if one cannot be sent."""
        if access.bearer_token_file:
            token = _read_secret("PROMETHEUS_BEARER_TOKEN_FILE", access.bearer_token_file)
            if not token.isascii():
                raise _unusable(
                    "PROMETHEUS_BEARER_TOKEN_FILE",
                    access.bearer_token_file,
                    "it contains a character that is not ASCII, which a token cannot have",
                )
            return cls(headers={"Authorization": f"Bearer {token}"}, secrets=(token,))
        if not access.username:
            return cls()
        file = access.password_file
        password = _read_secret("PROMETHEUS_PASSWORD_FILE", file) if file else ""
        encoded = base64.b64encode(f"{access.username}:{password}".encode()).decode()
        return cls(auth=(access.username, password), secrets=(password, encoded))


def tls_context(access: Access) -> ssl.SSLContext:
    """Return the TLS settings. Raises SourceUnavailable or UsageError if a file is unusable."""
    try:
        context = ssl.create_default_context(cafile=access.ca_file)
    except OSError as error:
        raise SourceUnavailable(
            f"cannot read PROMETHEUS_CA_FILE {access.ca_file}: {_cause(error)}",
            hint="set it to a file of CA certificates in PEM format",
        ) from error
    if access.key_file and not access.cert_file:
        raise UsageError(
            "cannot use PROMETHEUS_KEY_FILE: PROMETHEUS_CERT_FILE is not set",
            hint="set PROMETHEUS_CERT_FILE to the certificate of the key",
        )
    if access.cert_file:
        _load_certificate(context, access.cert_file, access.key_file)
    return context


def _load_certificate(context: ssl.SSLContext, certificate: str, key: str | None) -> None:
    for variable, path in (("PROMETHEUS_CERT_FILE", certificate), ("PROMETHEUS_KEY_FILE", key)):
        if path:
            _read(variable, path)
    try:
        # Without the password, OpenSSL would ask for one on the terminal.
        context.load_cert_chain(certificate, key, password="")
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", None) or ""
        cause = (
            "the key does not belong to the certificate"
            if "KEY_VALUES_MISMATCH" in reason
            else "not a certificate and an unencrypted key in PEM format"
        )
        files = f"{certificate} and PROMETHEUS_KEY_FILE {key}" if key else certificate
        raise UsageError(
            f"cannot use PROMETHEUS_CERT_FILE {files}: {cause}",
            hint="set them to the client certificate and its key, both PEM files",
        ) from error


def _read_secret(variable: str, path: str) -> str:
    """Return the only line of a file, without white space around it."""
    try:
        secret = _read(variable, path).decode().strip()
    except UnicodeDecodeError:
        raise _unusable(variable, path, "it is not UTF-8 text") from None
    if not secret:
        raise _unusable(variable, path, "it is empty")
    if len(lines := secret.splitlines()) > 1:
        raise _unusable(variable, path, f"it contains {len(lines)} lines, not one")
    if not secret.isprintable():
        raise _unusable(variable, path, "it contains a control character")
    return secret


def _read(variable: str, path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise SourceUnavailable(
            f"cannot read {variable} {path}: {error.strerror}",
            hint="check the path and the mode of the file",
        ) from error


def _unusable(variable: str, path: str, cause: str) -> UsageError:
    return UsageError(
        f"cannot use {variable} {path}: {cause}",
        hint="the file must contain the secret and nothing else",
    )


def _cause(error: OSError) -> Any:
    if isinstance(error, ssl.SSLError):
        return "not a file of certificates in PEM format"
    return error.strerror
