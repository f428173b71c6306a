"""Start a Prometheus server on restored blocks, and wait until it answers."""

import contextlib
from dataclasses import dataclass
from datetime import timedelta

from prometheus_backup.clock import Clock
from prometheus_backup.errors import SourceUnavailable
from prometheus_backup.folder import Folder
from prometheus_backup.prometheus.access import Access
from prometheus_backup.prometheus.client import PrometheusClient
from prometheus_backup.prometheus.process import LocalPrometheus, PrometheusBinary, deferred_signals
from prometheus_backup.prometheus.query_settings import QuerySettings

_POLL_SECONDS = 0.1
_ATTEMPTS = 3


@dataclass(frozen=True, slots=True)
class PrometheusStarter:
    """Starts servers of one binary; `wait` is how long to wait until one is ready."""

    binary: PrometheusBinary
    wait: timedelta
    clock: Clock

    def start(
        self,
        stack: contextlib.ExitStack,
        data: Folder,
        *,
        run: Folder,
        queries: QuerySettings,
        port: int | None = None,
    ) -> tuple[LocalPrometheus, PrometheusClient | None]:
        """Return a server on the blocks in `data`, and a client; None if it is not ready in time.

        `data` and `run` are in the same folder.

        Both end with `stack`. Its configuration and log are written to `run`. With a port, the
        server has its page there; otherwise its address is known to this program only.
        """
        for attempt in range(1, _ATTEMPTS + 1):
            with deferred_signals():
                path = f"../{data.path.name}"
                server = LocalPrometheus(self.binary, path, run=run, queries=queries, port=port)
                stack.enter_context(server)
            client = stack.enter_context(PrometheusClient(Access(server.url)))
            if self._is_ready(server, client):
                return server, client
            taken = server.exit_code is not None and server.port_was_taken
            if attempt == _ATTEMPTS or port is not None or not taken:
                break
        return server, None

    def _is_ready(self, server: LocalPrometheus, client: PrometheusClient) -> bool:
        deadline = self.clock.monotonic() + self.wait.total_seconds()
        while server.exit_code is None and self.clock.monotonic() < deadline:
            try:
                client.require_ready()
            except SourceUnavailable:
                self.clock.sleep(_POLL_SECONDS)
            else:
                return True
        return False
