"""An HTTP server with scripted faults: it returns fixed responses, or forwards to another server.

    with FaultyServer(upstream=moto.url) as server:
        server.faults = [Answer(503, SLOW_DOWN), CutResponse(after=1000, method="GET")]
        ...
        assert server.faults == []  # each happened once

Requests without a fault are forwarded to `upstream`, or get the response `otherwise`.
"""

import http.client
import socket
import ssl
import threading
import time
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar, Self
from urllib.parse import urlsplit

from devtools.processes import LOOPBACK


@dataclass(frozen=True)
class Fault:
    """Happens to the next request with this method and path. The base class lets it pass."""

    method: str = ""
    path: str = ""

    def is_for(self, request: "Request") -> bool:
        """Return whether it applies to this request."""
        return self.method in ("", request.method) and self.path in request.path


@dataclass(frozen=True)
class Answer(Fault):
    """Returns this response without forwarding the request."""

    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class CutRequest(Fault):
    """Closes the connection after `after` bytes of the request body."""

    after: int = 0


@dataclass(frozen=True)
class CutResponse(Fault):
    """Closes the connection after `after` bytes of the response body."""

    after: int = 0


@dataclass(frozen=True)
class LoseAnswer(Fault):
    """Forwards the request, and closes the connection instead of passing on the response."""


@dataclass(frozen=True)
class Delay(Fault):
    """Forwards the request after so many seconds."""

    seconds: float = 0


@dataclass(frozen=True)
class Request:
    """A received request; header names are in lower case."""

    method: str
    path: str
    headers: dict[str, str]


class FaultyServer:
    """Listens on loopback, with TLS if a context is given."""

    def __init__(
        self,
        *,
        upstream: str | None = None,
        otherwise: Answer | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        """Start it."""
        self.upstream = urlsplit(upstream).netloc if upstream else None
        self.otherwise = otherwise or Answer(status=404)
        self.faults: list[Fault] = []
        self.requests: list[Request] = []
        self._lock = threading.Lock()
        self._server = _QuietServer((LOOPBACK, 0), type("Handler", (_Handler,), {"owner": self}))
        self._scheme = "http"
        if tls:
            self._scheme = "https"
            self._server.socket = tls.wrap_socket(
                self._server.socket, server_side=True, do_handshake_on_connect=False
            )
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self._thread.start()

    @property
    def url(self) -> str:
        """Its URL."""
        return f"{self._scheme}://{LOOPBACK}:{self._server.server_port}"

    def next_fault(self, request: Request) -> Fault | None:
        """Record the request; return and remove the first fault that applies to it."""
        with self._lock:
            self.requests.append(request)
            for fault in self.faults:
                if fault.is_for(request):
                    self.faults.remove(fault)
                    return fault
        return None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


class _QuietServer(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Log nothing: tests include clients that disconnect or reject the certificate."""


class _Handler(BaseHTTPRequestHandler):
    owner: ClassVar[FaultyServer]
    protocol_version = "HTTP/1.1"

    def answer(self) -> None:
        request = Request(
            self.command, self.path, {name.lower(): v for name, v in self.headers.items()}
        )
        fault = self.owner.next_fault(request)
        length = int(self.headers.get("Content-Length") or 0)
        if isinstance(fault, CutRequest):
            self.rfile.read(min(fault.after, length))
            self.cut()
            return
        body = self.rfile.read(length)
        if isinstance(fault, Delay):
            time.sleep(fault.seconds)
        if isinstance(fault, Answer):
            self.send(fault.status, fault.headers, fault.body)
        elif self.owner.upstream is None:
            other = self.owner.otherwise
            self.send(other.status, other.headers, other.body)
        else:
            self.forward(self.owner.upstream, body, fault)

    def forward(self, upstream: str, body: bytes, fault: Fault | None) -> None:
        connection = http.client.HTTPConnection(upstream, timeout=60)
        connection.request(self.command, self.path, body or None, dict(self.headers.items()))
        with connection.getresponse() as response:
            received = response.read()
            headers = dict(response.getheaders())
        connection.close()
        if isinstance(fault, LoseAnswer):
            self.cut()
        elif isinstance(fault, CutResponse):
            self.send(response.status, headers, received, cut_after=fault.after)
            self.cut()
        else:
            self.send(response.status, headers, received)

    def send(
        self, status: int, headers: dict[str, str], body: bytes, cut_after: int | None = None
    ) -> None:
        self.send_response_only(status)
        length = headers.get("Content-Length") if self.command == "HEAD" else None
        for name, value in headers.items():
            if name.lower() not in ("content-length", "transfer-encoding", "connection"):
                self.send_header(name, value)
        self.send_header("Content-Length", length or str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body[:cut_after])
            self.wfile.flush()

    def cut(self) -> None:
        self.close_connection = True
        self.connection.shutdown(socket.SHUT_RDWR)

    def log_message(self, *_: object) -> None:
        pass

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = answer  # noqa: N815 - http.server's names
