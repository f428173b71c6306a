"""Makes a running Prometheus look for blocks every other second, instead of once a minute."""

import threading
from datetime import UTC, datetime, timedelta
from typing import Self

from devtools.prometheus import PrometheusOptions, PrometheusServer

FREQUENT_RELOADS = PrometheusOptions(
    scrape_interval=None,
    min_block_duration="10s",
    # Of these short blocks none is merged with others: it would compact what the test looks at.
    extra_flags=("--storage.tsdb.max-block-duration=10s",),
)
"""The head becomes a block once it spans 15 s; after each new block Prometheus looks for others."""
_FURTHER = timedelta(seconds=8)
_MOST = 70
"""Samples may lie ten minutes ahead at most."""


class FrequentReloads:
    """While it is entered, samples that are further and further ahead are written to the server."""

    def __init__(self, server: PrometheusServer) -> None:
        assert server.options == FREQUENT_RELOADS
        self._server = server
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._nudge, daemon=True)

    def _nudge(self) -> None:
        begin = datetime.now(UTC)
        for count in range(_MOST):
            self._server.write("nudge", [(begin + count * _FURTHER, count)])
            if self._stop.wait(0.5):
                return

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
