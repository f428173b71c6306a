"""Describe why an HTTP request failed, without the text of a library.

That text may contain the URL or a header, and with it a password or a token.
"""

import os
import ssl
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import httpx

from prometheus_backup.model import printable
from prometheus_backup.prometheus.limited_http import UnusableResponse

_HIDDEN = "***"
_MAX_CAUSE = 500

_EXPIRED, _NOT_YET_VALID = 10, 9
_WRONG_NAME = frozenset({62, 63, 64})
_UNKNOWN_CA = frozenset({18, 19, 20, 21})
"""OpenSSL's X509_V_ERR codes: self-signed, or signed by a CA that is not trusted."""
_NOT_TLS = ("WRONG_VERSION_NUMBER", "HTTP_REQUEST", "RECORD_LAYER", "LENGTH_TOO_LONG")
_NEEDS_CERTIFICATE = (
    "ALERT_CERTIFICATE_REQUIRED",
    "ALERT_HANDSHAKE_FAILURE",
    "ALERT_BAD_CERTIFICATE",
    "ALERT_UNKNOWN_CA",
    "ALERT_CERTIFICATE_EXPIRED",
    "ALERT_CERTIFICATE_UNKNOWN",
    "ALERT_ACCESS_DENIED",
)
_HTTPS_HINT = "begin PROMETHEUS_URL with https://"
_HTTP_HINT = "begin PROMETHEUS_URL with http://, or enable TLS on the server"
_CERTIFICATE_HINT = (
    "set PROMETHEUS_CERT_FILE and PROMETHEUS_KEY_FILE to a certificate that the server accepts, "
    "and its key"
)


@dataclass(frozen=True, slots=True)
class RequestFailure:
    """Why a request failed; `hint` says what to do about a request to Prometheus, if known."""

    cause: str
    hint: str = ""


def request_failure(error: Exception) -> RequestFailure:
    """Return why httpx could not complete a request."""
    for reason in _reasons(error):
        if isinstance(reason, ssl.SSLError):
            return _tls_failure(reason)
        if isinstance(reason, OSError) and reason.strerror:
            return _system_failure(reason)
    if isinstance(error, UnusableResponse):
        return RequestFailure(str(error))
    if isinstance(error, httpx.TimeoutException):
        return RequestFailure("timed out")
    if isinstance(error, httpx.InvalidURL | httpx.UnsupportedProtocol | UnicodeError):
        return RequestFailure("it is not an http or https URL")
    if isinstance(error, httpx.RemoteProtocolError):
        return RequestFailure("the server closed the connection, or does not speak HTTP")
    if isinstance(error, httpx.LocalProtocolError | ValueError):
        return RequestFailure("the request contains a character that HTTP does not allow")
    return RequestFailure(type(error).__name__)


def is_tls_failure(error: Exception) -> bool:
    """Return whether a connection failed because of TLS: a server is there."""
    return any(isinstance(reason, ssl.SSLError) for reason in _reasons(error))


def answered_by_tls_server(response: httpx.Response) -> RequestFailure | None:
    """Return the failure if a response is that of a Go server to HTTP on its TLS port."""
    if response.status_code != httpx.codes.BAD_REQUEST or "HTTPS server" not in response.text:
        return None
    return RequestFailure("the server expects https, not http", _HTTPS_HINT)


def without(secrets: Iterable[str], text: str) -> str:
    """Return a server's text on one line without control characters and these secrets."""
    for secret in sorted(filter(None, secrets), key=len, reverse=True):
        text = text.replace(secret, _HIDDEN)
    return printable(" ".join(text.split()), max_length=_MAX_CAUSE)


def _reasons(error: BaseException) -> Iterator[BaseException]:
    """Yield an exception and those that caused it."""
    found: BaseException | None = error
    while found is not None:
        yield found
        found = found.__cause__ or found.__context__


def _system_failure(error: OSError) -> RequestFailure:
    # Not the text of the exception: the message of a system error has a fixed text.
    known = error.errno is not None and error.errno > 0
    cause = os.strerror(error.errno) if known and error.errno else str(error.strerror)
    return RequestFailure(cause)


def _tls_failure(error: ssl.SSLError) -> RequestFailure:
    if isinstance(error, ssl.SSLCertVerificationError):
        return _untrusted(error)
    reason = error.reason or ""
    if any(word in reason for word in _NOT_TLS):
        return RequestFailure("the server expects http, not https", _HTTP_HINT)
    if any(word in reason for word in _NEEDS_CERTIFICATE):
        # Without a certificate, older servers send the same alert as for one that they refuse.
        cause = "the server requires a client certificate that it accepts"
        return RequestFailure(cause, _CERTIFICATE_HINT)
    return RequestFailure(f"TLS failed: {reason.lower().replace('_', ' ') or 'connection closed'}")


def _untrusted(error: ssl.SSLCertVerificationError) -> RequestFailure:
    cause = f"the server's certificate is not accepted: {printable(error.verify_message)}"
    code = error.verify_code
    if code in _UNKNOWN_CA:
        hint = "set PROMETHEUS_CA_FILE to the certificate of the CA that signed it"
    elif code in _WRONG_NAME:
        hint = "use a host name in PROMETHEUS_URL that is in the certificate"
    elif code in (_EXPIRED, _NOT_YET_VALID):
        hint = "replace the certificate of the server, or correct the clock of this machine"
    else:
        hint = "replace the certificate of the server"
    return RequestFailure(cause, hint)
