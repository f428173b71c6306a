"""Fake and faulty Prometheus servers: a fake, and a proxy for real ones."""

import json
import socket
import ssl
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

import httpx

from devtools.processes import LOOPBACK

SNAPSHOT_PATH = "/api/v1/admin/tsdb/snapshot"
HTML = "<html><body><h1>It works!</h1></body></html>"


@dataclass(frozen=True)
class Request:
    """One received request; the path includes the query."""

    method: str
    path: str
    headers: Mapping[str, str]


class _Server(ABC):
    """An HTTP server on loopback in its own threads; a context manager that stops it."""

    def __init__(self, tls: ssl.SSLContext | None) -> None:
        self.requests: list[Request] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def setup(self) -> None:
                super().setup()
                self.upstream = outer.upstream_of_next_connection()

            def do_GET(self) -> None:
                self.receive()

            def do_POST(self) -> None:
                self.receive()

            def receive(self) -> None:
                self.rfile.read(int(self.headers.get("Content-Length", 0)))
                request = Request(self.command, self.path, dict(self.headers.items()))
                outer.requests.append(request)
                answer = outer.answer(request, self.upstream)
                if answer is None:
                    self.close_connection = True
                    self.connection.shutdown(socket.SHUT_RDWR)
                    return
                status, kind, body = answer
                self.send_response(status)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        self._http = ThreadingHTTPServer((LOOPBACK, 0), Handler)
        self._http.daemon_threads = True
        self._scheme = "https" if tls else "http"
        if tls:
            self._http.socket = tls.wrap_socket(self._http.socket, server_side=True)
        self._thread = threading.Thread(
            target=lambda: self._http.serve_forever(poll_interval=0.01), daemon=True
        )

    @property
    def url(self) -> str:
        """Its URL."""
        return f"{self._scheme}://{LOOPBACK}:{self._http.server_address[1]}"

    @property
    def snapshot_requests(self) -> list[str]:
        """The paths, with queries, of snapshot requests."""
        return [r.path for r in self.requests if r.path.startswith(SNAPSHOT_PATH)]

    @property
    def effectful_requests(self) -> list[str]:
        """The paths of all requests that are not GET."""
        return [r.path for r in self.requests if r.method != "GET"]

    def upstream_of_next_connection(self) -> str:
        return ""

    @abstractmethod
    def answer(self, request: Request, upstream: str) -> tuple[int, str, bytes] | None:
        """Return status, content type and body; None closes the connection without a response."""

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._http.shutdown()
        self._http.server_close()


class FakePrometheus(_Server):
    """Responds like a healthy Prometheus 3.14 with the Admin API enabled, with given exceptions.

    `answers` maps a path to a status and a body: text is sent as it is, anything else as the
    `data` of a success.
    """

    def __init__(self, answers: Mapping[str, tuple[int, Any]] | None = None) -> None:
        super().__init__(None)
        self.answers: dict[str, tuple[int, Any]] = {
            "/-/ready": (200, "Prometheus Server is Ready.\n"),
            "/metrics": (200, "prometheus_tsdb_blocks_loaded 0\n"),
            "/api/v1/status/flags": (
                200,
                {"web.enable-admin-api": "true", "storage.tsdb.path": "/prometheus"},
            ),
            "/api/v1/status/runtimeinfo": (
                200,
                {
                    "startTime": "2025-01-20T00:00:00Z",
                    "hostname": "prometheus-0",
                    "storageRetention": "15d",
                },
            ),
            "/api/v1/status/buildinfo": (200, {"version": "3.14.0", "revision": "abc"}),
            "/api/v1/status/config": (200, {"yaml": "global: {}\n"}),
            "/api/v1/status/tsdb": (200, {"headStats": {"numSeries": 7, "chunkCount": 9}}),
            "/api/v1/status/tsdb/blocks": (200, {"blocks": []}),
            **(answers or {}),
        }

    def answer(self, request: Request, upstream: str) -> tuple[int, str, bytes]:
        """Return the response from `answers`, or 404."""
        del upstream
        status, body = self.answers.get(
            request.path.partition("?")[0], (404, "404 page not found\n")
        )
        if isinstance(body, str):
            kind = "text/html" if body.startswith("<") else "text/plain"
            return status, kind, body.encode()
        if isinstance(body, dict) and "status" in body:
            return status, "application/json", json.dumps(body).encode()
        document = {"status": "success", "data": body}
        return status, "application/json", json.dumps(document).encode()


OnSnapshot = Callable[[Callable[[], None]], int | None]
"""Called with what forwards the request; None cuts the connection, a status is answered."""


class Proxy(_Server):
    """Stands before one Prometheus, or before several in turn, one connection each.

    `on_snapshot` decides what becomes of a request for a snapshot; `bearer` is the token without
    which nothing passes.
    """

    def __init__(
        self,
        *upstreams: str,
        on_snapshot: OnSnapshot | None = None,
        bearer: str | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        super().__init__(tls)
        self._upstreams = upstreams
        self._connections = 0
        self._lock = threading.Lock()
        self._on_snapshot = on_snapshot
        self._bearer = bearer

    def upstream_of_next_connection(self) -> str:
        """Return the next upstream, round-robin."""
        with self._lock:
            self._connections += 1
            return self._upstreams[self._connections % len(self._upstreams)]

    def answer(self, request: Request, upstream: str) -> tuple[int, str, bytes] | None:
        """Return the response of the upstream."""
        if self._bearer and request.headers.get("Authorization") != f"Bearer {self._bearer}":
            return 401, "text/plain", b"Unauthorized\n"
        if self._on_snapshot and request.path.startswith(SNAPSHOT_PATH):
            status = self._on_snapshot(lambda: self._pass_on(request, upstream))
            return None if status is None else (status, "text/html", HTML.encode())
        return self._forward(request, upstream)

    def _pass_on(self, request: Request, upstream: str) -> None:
        self._forward(request, upstream)

    def _forward(self, request: Request, upstream: str) -> tuple[int, str, bytes]:
        kept = {k: v for k, v in request.headers.items() if k in ("Authorization", "Accept")}
        try:
            with httpx.Client(trust_env=False, timeout=60) as client:
                answer = client.request(request.method, upstream + request.path, headers=kept)
        except httpx.HTTPError:
            return 502, "text/html", HTML.encode()
        kind = answer.headers.get("Content-Type", "text/plain")
        return answer.status_code, kind, answer.content
