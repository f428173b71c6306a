"""Wait until a running Prometheus has taken in blocks that were put into its data directory."""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from prometheus_backup.clock import Clock
from prometheus_backup.errors import SourceUnavailable
from prometheus_backup.ops.source import count_readable
from prometheus_backup.prometheus import PrometheusClient

PATIENCE = timedelta(minutes=3)
"""Prometheus looks for new blocks once a minute (tsdb/db.go BlockReloadInterval)."""
_LOOK_EVERY = 1.0


@dataclass(frozen=True, slots=True)
class Loading:
    """How the waiting ended. `trouble` is why it is not `loaded`, for people."""

    loaded: bool
    seconds: float
    trouble: str = ""


def wait_until_loaded(
    client: PrometheusClient,
    data_dir: Path,
    ulids: Collection[str],
    *,
    clock: Clock,
    patience: timedelta = PATIENCE,
) -> Loading:
    """Return once these blocks, or blocks that were made of them, are loaded, or patience ends.

    Before 3.6 Prometheus says only how many it has loaded: as many as are there, and no failure
    to load any since the call. A Prometheus that cannot be reached may come back until then.
    """
    began = clock.monotonic()
    failures: int | None = None
    while True:
        try:
            if failures is None:
                failures = client.count_failed_reloads()
            trouble = _trouble(client, data_dir, ulids, failures or 0)
        except SourceUnavailable as error:
            trouble = error.message
        waited = clock.monotonic() - began
        if not trouble or waited >= patience.total_seconds():
            return Loading(not trouble, waited, trouble)
        clock.sleep(_LOOK_EVERY)


def _trouble(
    client: PrometheusClient, data_dir: Path, ulids: Collection[str], failures: int
) -> str:
    failing = (client.count_failed_reloads() or 0) > failures
    why = "; it fails to load blocks, its log says which" if failing else ""
    lineage = client.loaded_lineage()
    if lineage is None:
        count, there = client.count_loaded_blocks(), count_readable(data_dir)
        return "" if count == there and not failing else f"{count} of {there} blocks loaded{why}"
    missing = sorted(set(ulids) - lineage)
    return f"{len(missing)} blocks not loaded, such as {missing[0]}{why}" if missing else ""
