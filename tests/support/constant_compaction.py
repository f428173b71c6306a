"""Makes a running Prometheus write, compact and delete blocks all the time."""

import threading
from datetime import UTC, datetime, timedelta
from typing import Self

from devtools.prometheus import PrometheusOptions, PrometheusServer

CONSTANT_COMPACTION = PrometheusOptions(
    scrape_interval=None,
    admin_api=False,
    min_block_duration="10s",
    # Blocks of 10, 30 and 90 s: each sample is rewritten twice.
    extra_flags=("--storage.tsdb.max-block-duration=90s",),
)
METRIC = "written"
_STEP = timedelta(seconds=1)
_AT_ONCE = 12
_EVERY = 0.25
"""Seconds between two writes: the head becomes a block about every other time."""
_FROM = timedelta(hours=2)


class ConstantCompaction:
    """Within its context, writes samples of consecutive seconds, beginning two hours ago.

    The value of each sample is its number.
    """

    def __init__(self, server: PrometheusServer) -> None:
        assert server.options == CONSTANT_COMPACTION
        self._server = server
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._write_samples, daemon=True)
        self.start = datetime.now(UTC).replace(microsecond=0) - _FROM

    def count_until(self, instant: datetime) -> int:
        """Return the number of samples before an instant."""
        return max(0, -((self.start - instant) // _STEP))

    def _write_samples(self) -> None:
        for first in range(0, _FROM // _STEP, _AT_ONCE):
            numbers = range(first, first + _AT_ONCE)
            self._server.write(METRIC, [(self.start + n * _STEP, n) for n in numbers])
            if self._stop.wait(_EVERY):
                return

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
