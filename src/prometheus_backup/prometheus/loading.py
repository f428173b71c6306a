"""Wait until a running Prometheus has loaded new blocks, or dropped removed ones."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from prometheus_backup.clock import Clock
from prometheus_backup.errors import SourceUnavailable
from prometheus_backup.model import counted
from prometheus_backup.prometheus.instance import count_readable

if TYPE_CHECKING:  # importing an HTTP client takes time
    from prometheus_backup.prometheus.client import PrometheusClient

_MIN_TIMEOUT = timedelta(minutes=3)
_RELOADS = 3
_POLL_SECONDS = 1.0


def reload_timeout(interval: timedelta) -> timedelta:
    """Return how long to wait for a Prometheus that loads new blocks at this interval."""
    return max(_MIN_TIMEOUT, _RELOADS * interval)


@dataclass(frozen=True, slots=True)
class LoadResult:
    """The result of waiting for a reload. `problem` is a message if it timed out."""

    done: bool
    seconds: float
    problem: str = ""


def wait_until_loaded(
    client: PrometheusClient,
    data_dir: Path,
    ulids: Collection[str],
    *,
    clock: Clock,
    timeout: timedelta,
) -> LoadResult:
    """Wait until these blocks, or blocks compacted from them, are loaded.

    Prometheus before 3.6 reports only the number of loaded blocks: wait until it matches the number
    on disk, with no failed reload since the call. If Prometheus cannot be reached, try again until
    the timeout.
    """
    failures: int | None = None

    def problem() -> str:
        nonlocal failures
        if failures is None:
            failures = client.count_failed_reloads()
        return _not_loaded(client, data_dir, ulids, failures or 0)

    return _wait(problem, clock=clock, timeout=timeout)


def wait_until_dropped(
    client: PrometheusClient,
    data_dir: Path,
    ulids: Collection[str],
    *,
    clock: Clock,
    timeout: timedelta,
) -> LoadResult:
    """Wait until none of these blocks, which were removed from the directory, is loaded.

    With Prometheus before 3.6, wait for a reload after the call that leaves at most as many blocks
    loaded as are on disk.
    """
    reloads_before: int | None = None

    def problem() -> str:
        nonlocal reloads_before
        loaded = client.loaded_blocks()
        if loaded is not None:
            kept = sorted(loaded & set(ulids))
            return f"{counted(len(kept), 'block')} still loaded, such as {kept[0]}" if kept else ""
        reloads, loaded_count = client.count_reloads(), client.count_loaded_blocks() or 0
        reloads_before = reloads if reloads_before is None else reloads_before
        if reloads == reloads_before:
            return "it has not reloaded its blocks yet"
        on_disk = count_readable(data_dir)
        if loaded_count > on_disk:
            return f"{counted(loaded_count, 'block')} loaded, only {on_disk} on disk"
        return ""

    return _wait(problem, clock=clock, timeout=timeout)


def _wait(check: Callable[[], str], *, clock: Clock, timeout: timedelta) -> LoadResult:
    """Repeat a check until it returns no problem, or until the timeout."""
    began = clock.monotonic()
    while True:
        try:
            problem = check()
        except SourceUnavailable as error:
            problem = error.message
        waited = clock.monotonic() - began
        if not problem or waited >= timeout.total_seconds():
            return LoadResult(not problem, waited, problem)
        clock.sleep(_POLL_SECONDS)


def _not_loaded(
    client: PrometheusClient, data_dir: Path, ulids: Collection[str], failures: int
) -> str:
    failing = (client.count_failed_reloads() or 0) > failures
    hint = "; some blocks failed to load, see Prometheus' log" if failing else ""
    lineage = client.loaded_lineage()
    if lineage is None:
        count, on_disk = client.count_loaded_blocks(), count_readable(data_dir)
        if count == on_disk and not failing:
            return ""
        return f"{count} of {on_disk} blocks loaded{hint}"
    missing = sorted(set(ulids) - lineage)
    return (
        f"{counted(len(missing), 'block')} not loaded, such as {missing[0]}{hint}"
        if missing
        else ""
    )
