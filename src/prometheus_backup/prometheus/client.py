"""Client for Prometheus' HTTP API: status, queries and snapshots.

API: https://prometheus.io/docs/prometheus/latest/querying/api/. Errors are classified by their
JSON `errorType`, not only by the HTTP status: a disabled Admin API returns 500.
"""

import re
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any, Self

import httpx

from prometheus_backup.errors import (
    AdminApiDisabled,
    SnapshotUnusable,
    SourceUnavailable,
)
from prometheus_backup.model import printable
from prometheus_backup.prometheus.access import Access, Credentials, tls_context
from prometheus_backup.prometheus.fields import Fields, UnexpectedValue, parse_object
from prometheus_backup.prometheus.http_failures import (
    answered_by_tls_server,
    is_tls_failure,
    request_failure,
    without,
)
from prometheus_backup.prometheus.limited_http import LimitedClient, ResponseTooLong
from prometheus_backup.prometheus.status import SourceStatus, read_status

_TIMEOUT = 30.0
"""Seconds without a byte."""
_DEADLINE = 60.0
"""Seconds until a response is complete."""
_KEEPALIVE = [
    # While Prometheus takes a snapshot of a large head, no data flows for minutes. Without probes,
    # a NAT or a dead peer would leave us waiting forever.
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 30),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 15),
    (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 8),
]
_SNAPSHOT_PATH = "/api/v1/admin/tsdb/snapshot"
_QUERY_PATH = "/api/v1/query"
_MAX_NAME = 255
"""Characters of a file name."""


class SnapshotConnectionLost(SourceUnavailable):
    """The connection was lost after the request: Prometheus may still be taking the snapshot."""


class QueryFailed(SourceUnavailable):
    """A query failed. `kind` is Prometheus' errorType, such as `execution`, or one of ours."""

    def __init__(self, message: str, *, kind: str) -> None:
        super().__init__(message)
        self.kind = kind


class PrometheusClient:
    """HTTP access to one Prometheus. Use as a context manager.

    Every method raises SourceUnavailable if Prometheus is down, not ready, denies access, or if the
    server is not a Prometheus.
    """

    def __init__(self, access: Access) -> None:
        self.url = access.url.rstrip("/")
        credentials = Credentials.read(access)
        self._secrets = credentials.secrets
        self._client_arguments: dict[str, Any] = {
            "headers": credentials.headers,
            "auth": credentials.auth,
            "timeout": _TIMEOUT,
            # Loading certificates takes longer than a request: do it once, and only for TLS.
            "verify": self.url.startswith("https:") and tls_context(access),
        }
        self._http = self._connect()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self._http.close()

    def status(self) -> SourceStatus:
        """Return everything that a backup records or depends on."""
        self.require_ready()
        try:
            return self._status()
        except UnexpectedValue as error:
            raise self._unlike_prometheus(error) from error

    def _status(self) -> SourceStatus:
        flags, clock = self._get_with_clock("/api/v1/status/flags")
        return read_status(flags, clock, self._get)

    def is_listening(self) -> bool:
        """Return whether a server listens at the URL, whatever its response."""
        try:
            self._http.request("GET", f"{self.url}/-/ready", seconds=_DEADLINE)
        except httpx.ConnectError as error:
            return is_tls_failure(error)
        except (httpx.HTTPError, httpx.InvalidURL, ValueError):
            return True
        return True

    def require_ready(self) -> None:
        """Raise SourceUnavailable unless Prometheus is up and has replayed its WAL."""
        response = self._send("GET", "/-/ready")
        if response.status_code == httpx.codes.SERVICE_UNAVAILABLE:
            raise SourceUnavailable(
                f"cannot use Prometheus at {self.url}: it is not ready (replaying its WAL, or "
                "shutting down)",
                hint="wait until /-/ready returns 200, then run the command again",
            )
        self._require_ok(response, "/-/ready")

    def query_page(self) -> str:
        """Return the path of its page for queries, which depends on the version and the build."""
        response = self._send("GET", "/")
        return httpx.URL(response.headers.get("Location", "")).path.rstrip("/") or "/graph"

    def loaded_blocks(self) -> frozenset[str] | None:
        """Return the ULIDs of the loaded blocks; None before 3.6, which does not report them."""
        metas = self._loaded_metas()
        return None if metas is None else frozenset(m.ulid for m in metas)

    def loaded_lineage(self) -> frozenset[str] | None:
        """Return the ULIDs of the loaded blocks, their sources and parents; None before 3.6."""
        metas = self._loaded_metas()
        return None if metas is None else frozenset(u for m in metas for u in (m.ulid, *m.origins))

    def count_loaded_blocks(self) -> int | None:
        """Return the number of loaded blocks from Prometheus' metrics; None if it has none."""
        return self._metric("prometheus_tsdb_blocks_loaded")

    def count_failed_reloads(self) -> int | None:
        """Return the number of failed reloads since the start; None without that metric."""
        return self._metric("prometheus_tsdb_reloads_failures_total")

    def count_reloads(self) -> int | None:
        """Return the number of reloads of blocks since the start; None without that metric."""
        return self._metric("prometheus_tsdb_reloads_total")

    def wal_segment(self) -> int | None:
        """Return the number of the current WAL segment; None without that metric."""
        return self._metric("prometheus_tsdb_wal_segment_current")

    def instances(self, *, tries: int) -> int:
        """Count the Prometheus instances behind the URL, with a new connection for each try."""
        seen = set()
        for _ in range(tries):
            with self._connect() as http:
                response = self._send("GET", "/api/v1/status/runtimeinfo", http=http)
                data = self._data(response, "/api/v1/status/runtimeinfo")
                seen.add((str(data.values.get("startTime")), str(data.values.get("hostname"))))
        return len(seen)

    def take_snapshot(self, *, skip_head: bool) -> str:
        """Take a snapshot and return its name. Does not retry, and has no read timeout.

        Raises AdminApiDisabled, SnapshotUnusable if Prometheus fails to take it, and
        SnapshotConnectionLost if the connection was lost and Prometheus may still be taking it.
        """
        query = "?skip_head=true" if skip_head else ""
        failed = "Failed to create snapshot"
        timeout = httpx.Timeout(_TIMEOUT, read=None)
        try:
            response = self._http.request(
                "POST",
                f"{self.url}{_SNAPSHOT_PATH}{query}",
                seconds=_DEADLINE,
                wait=True,
                timeout=timeout,
            )
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:
            why = request_failure(error)
            raise SourceUnavailable(
                f"{failed}: cannot connect to {self.url}: {why.cause}", hint=why.hint or None
            ) from error
        except httpx.HTTPError as error:
            raise SnapshotConnectionLost(
                f"{failed}: the connection to {self.url} was lost: {request_failure(error).cause}"
            ) from error
        body = parse_object(response.content)
        data = body.get("data") if response.is_success else None
        name = data.get("name") if isinstance(data, dict) else None
        if isinstance(name, str) and 0 < len(name) <= _MAX_NAME:
            return name
        cause = self._cause(response)
        if body.get("errorType") == "unavailable" and "admin API" in cause:
            raise AdminApiDisabled(f"{failed}: {cause}")
        if response.status_code in (502, 504) and not body:
            # The proxy timed out, but Prometheus continues.
            raise SnapshotConnectionLost(f"{failed}: a proxy returned HTTP {response.status_code}")
        if body.get("status") == "error":
            raise SnapshotUnusable(
                f"{failed}: Prometheus says: {cause}",
                hint="check Prometheus' log, its disk, and its blocks",
            )
        self._require_ok(response, _SNAPSHOT_PATH)
        raise SourceUnavailable(f"{failed}: {self.url} returned no snapshot name")

    def query(
        self, expression: str, *, at: datetime, limit: timedelta, max_bytes: int
    ) -> Mapping[str, Any]:
        """Return the `data` of the response to an instant query.

        Raises QueryFailed if it fails, takes longer than `limit`, or the response is longer than
        `max_bytes`.
        """
        seconds = limit.total_seconds()
        params = {"query": expression, "time": f"{at.timestamp():.3f}", "timeout": f"{seconds:.3f}"}
        try:
            answer = self._http.request(
                "GET",
                self.url + _QUERY_PATH,
                params=params,
                seconds=seconds + 1,
                max_bytes=max_bytes,
            )
        except ResponseTooLong as error:
            raise QueryFailed(
                f"the answer is longer than {max_bytes:,} bytes", kind="too-long"
            ) from error
        except httpx.TimeoutException as error:
            raise QueryFailed(f"no answer within {seconds:g} s", kind="timeout") from error
        except httpx.HTTPError as error:
            message = f"the connection was lost: {request_failure(error).cause}"
            raise QueryFailed(message, kind="connection") from error
        found = parse_object(answer.content)
        if not answer.is_success or not isinstance(found.get("data"), dict):
            kind = printable(str(found.get("errorType") or "unknown"), max_length=50)
            raise QueryFailed(self._cause(answer), kind=kind)
        data: Mapping[str, Any] = found["data"]
        return data

    def _loaded_metas(self) -> Sequence["_LoadedBlock"] | None:
        path = "/api/v1/status/tsdb/blocks"
        response = self._send("GET", path)
        if response.status_code == httpx.codes.NOT_FOUND:
            return None
        data = self._data(response, path)
        try:
            return [_LoadedBlock.read(block) for block in data.objects("blocks")]
        except UnexpectedValue as error:
            raise self._unlike_prometheus(error) from error

    def _metric(self, name: str) -> int | None:
        response = self._send("GET", "/metrics")
        found = re.search(rf"^{name} (\S+)$".encode(), response.content, re.MULTILINE)
        try:
            return int(float(found[1])) if found else None
        except (ValueError, OverflowError):  # not a number, or infinite
            return None

    def _get(self, path: str) -> Fields:
        return self._get_with_clock(path)[0]

    def _get_with_clock(self, path: str) -> tuple[Fields, datetime]:
        response = self._send("GET", path)
        return self._data(response, path), _date(response)

    def _data(self, response: httpx.Response, path: str) -> Fields:
        self._require_ok(response, path)
        data = parse_object(response.content).get("data")
        if not isinstance(data, dict):
            raise self._unlike_prometheus(f"{path} did not respond like Prometheus")
        return Fields(path, data)

    def _unlike_prometheus(self, cause: object) -> SourceUnavailable:
        return SourceUnavailable(
            f"cannot use Prometheus at {self.url}: {cause}",
            hint="set PROMETHEUS_URL to Prometheus itself, with its path prefix if it has one",
        )

    def _require_ok(self, response: httpx.Response, path: str) -> None:
        code = response.status_code
        if response.is_success:
            return
        if code in (401, 403):
            raise SourceUnavailable(
                f"cannot use Prometheus at {self.url}: access denied (HTTP {code})",
                hint="set PROMETHEUS_USERNAME and PROMETHEUS_PASSWORD_FILE, or "
                "PROMETHEUS_BEARER_TOKEN_FILE",
            )
        if mistaken := answered_by_tls_server(response):
            raise SourceUnavailable(
                f"cannot use Prometheus at {self.url}: {mistaken.cause}", hint=mistaken.hint
            )
        raise SourceUnavailable(
            f"cannot use Prometheus at {self.url}: {path}: {self._cause(response)}",
            hint="set PROMETHEUS_URL to Prometheus itself, with its path prefix if it has one",
        )

    def _send(self, method: str, path: str, *, http: LimitedClient | None = None) -> httpx.Response:
        try:
            return (http or self._http).request(method, self.url + path, seconds=_DEADLINE)
        except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
            why = request_failure(error)
            raise SourceUnavailable(
                f"cannot reach Prometheus at {self.url}: {why.cause}", hint=why.hint or None
            ) from error

    def _cause(self, response: httpx.Response) -> str:
        """Return the error in a response. A server may repeat what was sent, with its secrets."""
        error = parse_object(response.content).get("error")
        return without(self._secrets, str(error)) if error else f"HTTP {response.status_code}"

    def _connect(self) -> LimitedClient:
        transport = httpx.HTTPTransport(
            verify=self._client_arguments["verify"], socket_options=_KEEPALIVE
        )
        # An explicit transport also ignores the proxy variables of the environment, as intended:
        # those proxies are for traffic that leaves the cluster, and Prometheus is inside it.
        return LimitedClient(**self._client_arguments, transport=transport)


@dataclass(frozen=True, slots=True)
class _LoadedBlock:
    """A loaded block; `origins` are the ULIDs of its sources and parents."""

    ulid: str
    origins: tuple[str, ...]

    @classmethod
    def read(cls, block: Fields) -> Self:
        """Read a block of the list of loaded ones. Raises UnexpectedValue."""
        compaction = block.object("compaction")
        parents = (parent.text("ulid") for parent in compaction.objects("parents"))
        return cls(block.text("ulid"), (*compaction.texts("sources"), *parents))


def _date(response: httpx.Response) -> datetime:
    try:
        return parsedate_to_datetime(response.headers["Date"]).astimezone(UTC)
    except (KeyError, ValueError, OverflowError) as error:
        raise SourceUnavailable(
            f"cannot use Prometheus at {response.url.host}: its response has no valid Date header"
        ) from error
