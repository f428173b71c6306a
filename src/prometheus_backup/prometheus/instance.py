"""Is this Prometheus one that can be backed up, and is this its data directory?"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from prometheus_backup.clock import Clock
from prometheus_backup.errors import (
    AdminApiDisabled,
    SnapshotUnusable,
    SourceUnavailable,
    UsageError,
)
from prometheus_backup.repository.layout import is_ulid
from prometheus_backup.tsdb.block import live_ulids, read_meta

if TYPE_CHECKING:  # for its types alone: importing an HTTP client takes time
    from prometheus_backup.prometheus.client import PrometheusClient, SourceStatus

_INSTANCE_TRIES = 3
_SETTLE_TRIES = 4
_SETTLE_SECONDS = 1.0
# Measured: a head of 400,000 series became a block of 100 MiB.
_HEAD_BYTES_PER_SERIES = 300
_HEAD_BYTES_PER_CHUNK = 150

_USE_THE_POD = (
    "address one Prometheus, such as "
    "http://prometheus-0.prometheus.observability.svc.cluster.local:9090, not a Service of several"
)
_WRONG_DIRECTORY = (
    "set PROMETHEUS_DATA_DIR to the directory that this Prometheus stores its data in, and "
    "PROMETHEUS_URL to the replica whose volume is mounted"
)


def require_usable_source(
    client: PrometheusClient, data_dir: Path, *, clock: Clock
) -> SourceStatus:
    """Return the status of a Prometheus that a snapshot can be asked of.

    Raises SourceUnavailable, AdminApiDisabled, SnapshotUnusable or UsageError.
    """
    status = client.status()
    for require in (require_server, require_admin_api):
        require(status)
    require_one_instance(client)
    require_data_dir(data_dir)
    require_served(client, data_dir, clock=clock)
    return status


def require_server(status: SourceStatus) -> None:
    """Raise SourceUnavailable for a Prometheus in agent mode: it has no TSDB."""
    if status.agent:
        raise SourceUnavailable(
            "cannot back up this Prometheus: it runs in agent mode and keeps no TSDB",
            hint="back up the server that it writes to",
        )


def require_admin_api(status: SourceStatus) -> None:
    """Raise AdminApiDisabled where the snapshot endpoint is switched off."""
    if not status.admin_api:
        raise AdminApiDisabled("Failed to create snapshot: the Admin API is disabled")


def require_one_instance(client: PrometheusClient) -> None:
    """Raise UsageError where several Prometheus servers answer at one URL."""
    count = client.instances(tries=_INSTANCE_TRIES)
    if count > 1:
        raise UsageError(
            f"cannot use {client.url}: {count} different Prometheus servers answer there",
            hint=_USE_THE_POD,
        )


def require_data_dir(data_dir: Path) -> None:
    """Raise UsageError where there is no such directory, SnapshotUnusable if it is unreadable."""
    if not data_dir.is_dir():
        raise UsageError(
            f"cannot read data directory {data_dir}: there is no such directory",
            hint=_WRONG_DIRECTORY,
        )
    if not os.access(data_dir, os.R_OK | os.X_OK):
        raise SnapshotUnusable(
            f"cannot read data directory {data_dir}: permission denied",
            hint="run as the user that Prometheus runs as",
        )


def require_served(client: PrometheusClient, data_dir: Path, *, clock: Clock) -> None:
    """Raise UsageError where Prometheus has blocks loaded that are not in this directory.

    Blocks on disk that are not loaded prove nothing: they may be damaged, or placed just now.
    """
    if not _settles(lambda: serves(client, data_dir), clock=clock):
        raise UsageError(
            f"cannot use data directory {data_dir}: the Prometheus at {client.url} stores its "
            "data somewhere else (it has blocks that are not there)",
            hint=_WRONG_DIRECTORY,
        )


def head_block_estimate(status: SourceStatus) -> int:
    """Return about how many bytes the head block of a snapshot will take."""
    return status.head_series * _HEAD_BYTES_PER_SERIES + status.head_chunks * _HEAD_BYTES_PER_CHUNK


def serves(client: PrometheusClient, data_dir: Path) -> bool:
    """Tell whether every block that Prometheus has loaded is in this directory."""
    loaded = client.loaded_blocks()
    if loaded is not None:
        return loaded <= live_ulids(data_dir)
    count = client.count_loaded_blocks()
    return count is None or count <= count_readable(data_dir)


def count_readable(data_dir: Path) -> int:
    """Return how many blocks are there that Prometheus would load, or try to."""
    try:
        folders = [Path(e.path) for e in os.scandir(data_dir) if is_ulid(e.name)]
    except OSError as error:
        raise SnapshotUnusable(f"cannot read {data_dir}: {error.strerror}") from error
    return sum(read_meta(folder) is not None for folder in folders)


def _settles(holds: Callable[[], bool], *, clock: Clock) -> bool:
    """Look several times: a compaction or reload may be between two states."""
    for attempt in range(_SETTLE_TRIES):
        if attempt:
            clock.sleep(_SETTLE_SECONDS)
        if holds():
            return True
    return False
