"""HTTP requests that end: each response is limited in bytes and in time, whatever the server does.

A server can send without end, a byte a minute, or a few kilobytes that unpack to gigabytes.
"""

import contextlib
import socket
import threading
from collections.abc import Iterator, Mapping
from typing import Any, Self

import httpx

MAX_BYTES = 32 << 20
"""Bytes of a response, by default: a large configuration or page of metrics has a few MiB."""
_NO_COMPRESSION = {"Accept-Encoding": "identity"}
_MIB = 1 << 20


class UnusableResponse(httpx.HTTPError):
    """The response was not read to its end; the message is our own and contains no secret."""


class ResponseTooLong(UnusableResponse):
    """The response is longer than the limit."""


class LimitedClient:
    """An HTTP client whose responses are read whole, within limits. Use as a context manager.

    Used by one thread at a time. It takes the arguments of `httpx.Client`.
    """

    def __init__(self, *, headers: Mapping[str, str] | None = None, **arguments: Any) -> None:
        self._http = httpx.Client(headers={**(headers or {}), **_NO_COMPRESSION}, **arguments)
        self._socket: socket.socket | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def request(
        self,
        method: str,
        url: str,
        *,
        seconds: float,
        wait: bool = False,
        max_bytes: int = MAX_BYTES,
        **content: Any,
    ) -> httpx.Response:
        """Return the response. Raises httpx.HTTPError, and ReadTimeout after so many seconds.

        `wait`: wait for the response as long as it takes; only its body is limited in time.
        """
        with contextlib.ExitStack() as stack:
            passed = None if wait else stack.enter_context(self._deadline(seconds))
            try:
                response = stack.enter_context(
                    self._http.stream(
                        method, url, extensions={"trace": self._remember_socket}, **content
                    )
                )
                passed = passed or stack.enter_context(self._deadline(seconds))
                body = _read(response, max_bytes)
            except httpx.HTTPError:
                if passed is None or not passed.is_set():
                    raise
            if passed is not None and passed.is_set():
                # Also without an error: a closed connection can be the end of a response.
                raise httpx.ReadTimeout("the response is not complete")
        return httpx.Response(
            response.status_code, headers=response.headers, content=body, request=response.request
        )

    @contextlib.contextmanager
    def _deadline(self, seconds: float) -> Iterator[threading.Event]:
        """Shut the connection down after so many seconds, and then set the event."""
        passed = threading.Event()

        def end() -> None:
            passed.set()
            with contextlib.suppress(OSError):  # it is closed already
                if self._socket is not None:
                    self._socket.shutdown(socket.SHUT_RDWR)

        timer = threading.Timer(seconds, end)
        timer.daemon = True
        timer.start()
        try:
            yield passed
        finally:
            timer.cancel()

    def _remember_socket(self, event: str, info: Mapping[str, Any]) -> None:
        """Remember the newest connection. See https://www.encode.io/httpcore/extensions/#trace."""
        if event in ("connection.connect_tcp.complete", "connection.start_tls.complete"):
            self._socket = info["return_value"].get_extra_info("socket")


def _read(response: httpx.Response, max_bytes: int) -> bytes:
    # A few compressed bytes can be gigabytes; no server compresses if it is asked not to.
    if response.headers.get("Content-Encoding", "identity").lower() != "identity":
        raise UnusableResponse("the response is compressed, which was not asked for")
    parts, size = [], 0
    for part in response.iter_raw():
        size += len(part)
        if size > max_bytes:
            limit = f"{max_bytes // _MIB} MiB" if max_bytes >= _MIB else f"{max_bytes:,} bytes"
            raise ResponseTooLong(f"the response is longer than {limit}")
        parts.append(part)
    return b"".join(parts)
