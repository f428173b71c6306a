"""Makes a running Prometheus load new blocks every two seconds instead of every minute."""

import threading
from datetime import UTC, datetime, timedelta
from typing import Self

from devtools.prometheus import PrometheusOptions, PrometheusServer

FREQUENT_RELOADS = PrometheusOptions(
    scrape_interval=None,
    min_block_duration="10s",
    # Prevents compaction, which could affect the blocks under test.
    extra_flags=("--storage.tsdb.max-block-duration=10s",),
)
"""The head becomes a block once it spans 15 s; after writing one, Prometheus loads new blocks."""
_STEP = timedelta(seconds=8)
_MAX_SAMPLES = 70
"""Prometheus accepts samples up to ten minutes in the future."""


class FrequentReloads:
    """Within its context, writes samples with increasing future times to the server."""

    def __init__(self, server: PrometheusServer) -> None:
        assert server.options == FREQUENT_RELOADS
        self._server = server
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._write_samples, daemon=True)

    def _write_samples(self) -> None:
        begin = datetime.now(UTC)
        for count in range(_MAX_SAMPLES):
            self._server.write("reload", [(begin + count * _STEP, count)])
            if self._stop.wait(0.5):
                return

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
