"""Wait until a running Prometheus has noticed which blocks its data directory got, or lost."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from prometheus_backup.clock import Clock
from prometheus_backup.errors import SourceUnavailable
from prometheus_backup.prometheus.instance import count_readable

if TYPE_CHECKING:  # for its types alone: importing an HTTP client takes time
    from prometheus_backup.prometheus.client import PrometheusClient

PATIENCE = timedelta(minutes=3)
"""Prometheus looks for new blocks once a minute (tsdb/db.go BlockReloadInterval)."""
_LOOK_EVERY = 1.0


@dataclass(frozen=True, slots=True)
class LoadResult:
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
) -> LoadResult:
    """Return once these blocks, or blocks that were made of them, are loaded, or patience ends.

    Before 3.6 Prometheus says only how many it has loaded: as many as are there, and no failure
    to load any since the call. A Prometheus that cannot be reached may come back until then.
    """
    failures: int | None = None

    def trouble() -> str:
        nonlocal failures
        if failures is None:
            failures = client.count_failed_reloads()
        return _trouble(client, data_dir, ulids, failures or 0)

    return _wait(trouble, clock=clock, patience=patience)


def wait_until_dropped(
    client: PrometheusClient,
    data_dir: Path,
    ulids: Collection[str],
    *,
    clock: Clock,
    patience: timedelta = PATIENCE,
) -> LoadResult:
    """Return once none of these blocks, taken out of the directory, is loaded any more.

    Before 3.6: once Prometheus has looked for blocks since the call, and has no more of them loaded
    than are there.
    """
    looks: int | None = None

    def trouble() -> str:
        nonlocal looks
        loaded = client.loaded_blocks()
        if loaded is not None:
            kept = sorted(loaded & set(ulids))
            return f"{len(kept)} blocks still loaded, such as {kept[0]}" if kept else ""
        since, count = client.count_reloads(), client.count_loaded_blocks() or 0
        looks = since if looks is None else looks
        if since == looks:
            return "it has not looked for blocks since"
        there = count_readable(data_dir)
        return f"{count} blocks loaded, of which {there} are there" if count > there else ""

    return _wait(trouble, clock=clock, patience=patience)


def _wait(trouble_now: Callable[[], str], *, clock: Clock, patience: timedelta) -> LoadResult:
    began = clock.monotonic()
    while True:
        try:
            trouble = trouble_now()
        except SourceUnavailable as error:
            trouble = error.message
        waited = clock.monotonic() - began
        if not trouble or waited >= patience.total_seconds():
            return LoadResult(not trouble, waited, trouble)
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
