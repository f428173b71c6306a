"""A small exporter: serves cached metrics of the repository, and its report, read periodically."""

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socket import AF_INET, AF_INET6
from socketserver import TCPServer
from typing import Any

from prometheus_backup.clock import Clock
from prometheus_backup.metrics.exposition import CONTENT_TYPE, text
from prometheus_backup.metrics.families import Sample, sample

_HEADERS: Mapping[str, str] = {
    "Cache-Control": "no-store",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
"""Headers of every answer: nothing here is run, framed, cached or sent on."""
_STUCK_AFTER = 3
"""Refresh intervals without a completed read, after which /healthz reports an error."""


@dataclass(frozen=True, slots=True)
class Reading:
    """What one read of the repository gave: the samples, and the report with its policy."""

    samples: Sequence[Sample]
    report: str
    policy: str


Read = Callable[[], "Reading | None"]
"""Reads the repository; None if that failed. The reader reports the failure."""


@dataclass(slots=True)
class CachedMetrics:
    """The last reading, however old, and whether the last read succeeded."""

    read: Read
    common: dict[str, str]
    clock: Clock
    refresh: float
    _last: Reading | None = None
    _readable: bool = False
    _read_at: float = 0.0

    def read_now(self) -> None:
        """Read the repository. If that fails, keep the old reading, with its time."""
        reading = self.read()
        self._readable = reading is not None
        self._last = reading or self._last
        self._read_at = self.clock.monotonic()

    def text(self) -> str:
        """Return the metrics."""
        readable = sample("repository_readable", self._readable)
        samples = self._last.samples if self._last else ()
        return text([*samples, Sample(readable.name, readable.value, self.common)])

    @property
    def last(self) -> Reading | None:
        """Return the last reading; None if there never was one."""
        return self._last

    @property
    def reading(self) -> bool:
        """Return whether reads still complete, successfully or not."""
        return self.clock.monotonic() - self._read_at < _STUCK_AFTER * self.refresh


class Exporter:
    """An HTTP server: the report at `/`, `/metrics`, and `/healthz` for probes.

    Raises OSError for a bad address.
    """

    def __init__(self, page: CachedMetrics, *, host: str, port: int) -> None:
        self._page = page
        self._ended = threading.Event()
        self._server = _Server(host, port, partial(_RequestHandler, page))

    @property
    def address(self) -> str:
        """Return the listen address, in the form used in a URL."""
        host, port = self._server.server_address[:2]
        host = host.decode() if isinstance(host, bytes) else host
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"

    def serve(self) -> None:
        """Serve until an exception ends it."""
        reader = threading.Thread(target=self._keep_reading, name="metrics", daemon=True)
        reader.start()
        try:
            self._server.serve_forever(poll_interval=0.2)
        finally:
            self._ended.set()
            self._server.server_close()

    def _keep_reading(self) -> None:
        while not self._ended.wait(self._page.refresh):
            self._page.read_now()


class _Server(ThreadingHTTPServer):
    """Listens on IPv4 or IPv6, depending on the host; without a host, on all IPv4 addresses."""

    daemon_threads = True

    def __init__(
        self, host: str, port: int, handler: Callable[..., BaseHTTPRequestHandler]
    ) -> None:
        self.address_family = AF_INET6 if ":" in host else AF_INET
        super().__init__((host, port), handler)

    def server_bind(self) -> None:
        """Bind without resolving this host's name, which hangs if DNS does."""
        TCPServer.server_bind(self)
        self.server_name, self.server_port = "", int(self.server_address[1])


class _RequestHandler(BaseHTTPRequestHandler):
    """Answers one request."""

    timeout = 30  # seconds: a client that sends nothing must not block a thread forever

    def __init__(self, page: CachedMetrics, *connection: Any) -> None:
        self._page = page
        super().__init__(*connection)

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        if path == "/metrics":
            self._send(HTTPStatus.OK, self._page.text(), CONTENT_TYPE)
        elif path == "/healthz":
            reading = self._page.reading
            status = HTTPStatus.OK if reading else HTTPStatus.SERVICE_UNAVAILABLE
            self._send(status, "ok\n" if reading else "reading the repository takes too long\n")
        elif path == "/":
            self._send_report()
        else:
            self._send(HTTPStatus.NOT_FOUND, "not found\n")

    def _send_report(self) -> None:
        last = self._page.last
        if last is None:
            text = "the repository could not be read yet; see the log\n"
            self._send(HTTPStatus.SERVICE_UNAVAILABLE, text)
            return
        policy = f"{last.policy}; frame-ancestors 'none'"
        self._send(HTTPStatus.OK, last.report, "text/html; charset=utf-8", policy)

    def _send(
        self,
        status: HTTPStatus,
        body: str,
        content_type: str = "text/plain; charset=utf-8",
        policy: str = "default-src 'none'; frame-ancestors 'none'",
    ) -> None:
        data = body.encode()
        self.send_response(status)
        headers = {
            "Content-Type": content_type,
            "Content-Length": str(len(data)),
            "Content-Security-Policy": policy,
            **_HEADERS,
        }
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 -- the library's name
        """Log nothing: a line for each scrape would hide the lines that matter."""
