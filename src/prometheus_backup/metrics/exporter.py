"""A small exporter: serves cached metrics of repositories, and their reports, read periodically."""

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from html import escape
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socket import AF_INET, AF_INET6
from socketserver import TCPServer
from typing import Any

from prometheus_backup.clock import Clock
from prometheus_backup.metrics.exposition import CONTENT_TYPE, text
from prometheus_backup.metrics.families import REPOSITORY, Sample, sample

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
_HTML = "text/html; charset=utf-8"
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
    """The last reading of a repository, however old, and whether the last read succeeded."""

    read: Read
    common: Mapping[str, str]
    clock: Clock
    last: Reading | None = None
    read_at: float | None = None
    _readable: bool = False

    def read_now(self) -> None:
        """Read the repository. If that fails, keep the old reading, with its time."""
        reading = self.read()
        self._readable = reading is not None
        self.last = reading or self.last
        self.read_at = self.clock.monotonic()

    @property
    def samples(self) -> Sequence[Sample]:
        """Return all samples; none if it was not tried yet to read the repository."""
        if self.read_at is None:
            return ()
        readable = sample("repository_readable", self._readable)
        samples = self.last.samples if self.last else ()
        return (*samples, Sample(readable.name, readable.value, self.common))


@dataclass(frozen=True, slots=True)
class Page:
    """The metrics and reports of all repositories."""

    repositories: Sequence[CachedMetrics]
    clock: Clock
    refresh: float

    def read_now(self) -> None:
        """Read one repository after the other, so that memory does not grow with their number."""
        for repository in self.repositories:
            repository.read_now()

    def text(self) -> str:
        """Return the metrics."""
        return text([s for repository in self.repositories for s in repository.samples])

    @property
    def reports(self) -> Mapping[str, CachedMetrics]:
        """Return the repositories by the path of their reports."""
        if len(self.repositories) == 1:
            return {"/": self.repositories[0]}
        return {f"/{n}": repository for n, repository in enumerate(self.repositories, 1)}

    def index(self) -> str:
        """Return an HTML page with links to the reports."""
        links = "".join(
            f'<li><a href="{path[1:]}">{escape(repository.common[REPOSITORY])}</a></li>\n'
            for path, repository in self.reports.items()
        )
        title = "Reports of prometheus-backup"
        head = f'<!doctype html>\n<html lang="en"><title>{title}</title>\n<h1>{title}</h1>\n'
        return f"{head}<ul>\n{links}</ul>\n"

    @property
    def reading(self) -> bool:
        """Return whether reads still complete, successfully or not."""
        times = [r.read_at for r in self.repositories if r.read_at is not None]
        return bool(times) and self.clock.monotonic() - max(times) < _STUCK_AFTER * self.refresh


class Exporter:
    """An HTTP server: the report or links to several at `/`, `/metrics`, `/healthz` for probes.

    Raises OSError for a bad address.
    """

    def __init__(self, page: Page, *, host: str, port: int) -> None:
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
        """Serve until an exception ends it. What was not read yet is read at once."""
        reader = threading.Thread(target=self._keep_reading, name="metrics", daemon=True)
        reader.start()
        try:
            self._server.serve_forever(poll_interval=0.2)
        finally:
            self._ended.set()
            self._server.server_close()

    def _keep_reading(self) -> None:
        if any(r.read_at is None for r in self._page.repositories):
            self._page.read_now()
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

    def __init__(self, page: Page, *connection: Any) -> None:
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
        elif path in self._page.reports:
            self._send_report(self._page.reports[path].last)
        elif path == "/":
            self._send(HTTPStatus.OK, self._page.index(), _HTML)
        else:
            self._send(HTTPStatus.NOT_FOUND, "not found\n")

    def _send_report(self, last: Reading | None) -> None:
        if last is None:
            text = "the repository could not be read yet; see the log\n"
            self._send(HTTPStatus.SERVICE_UNAVAILABLE, text)
            return
        policy = f"{last.policy}; frame-ancestors 'none'"
        self._send(HTTPStatus.OK, last.report, _HTML, policy)

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
