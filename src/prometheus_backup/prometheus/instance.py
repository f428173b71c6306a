"""Check that a Prometheus can be backed up, and that a directory is its data directory."""

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
from prometheus_backup.events import Listener, Warned
from prometheus_backup.repository.layout import is_ulid
from prometheus_backup.tsdb.block import live_ulids, read_meta

if TYPE_CHECKING:  # importing an HTTP client takes time
    from prometheus_backup.prometheus.client import PrometheusClient
from prometheus_backup.prometheus.status import SourceStatus

_INSTANCE_TRIES = 3
_TRIES = 4
_RETRY_SECONDS = 1.0
# Measured: a head of 400,000 series resulted in a block of 100 MiB.
_HEAD_BYTES_PER_SERIES = 300
_HEAD_BYTES_PER_CHUNK = 150

_UNKNOWN = (
    "the backup is made without its version, its retention and fingerprints, and without knowing "
    "that this is its data directory"
)
_USE_THE_POD = (
    "set PROMETHEUS_URL to a single pod, such as "
    "http://prometheus-0.prometheus.observability.svc.cluster.local:9090, not to a Service with "
    "several replicas"
)
_WRONG_DIRECTORY = (
    "set PROMETHEUS_DATA_DIR to the directory that this Prometheus stores its data in, and "
    "PROMETHEUS_URL to the replica whose volume is mounted"
)


def require_usable_source(
    client: PrometheusClient, data_dir: Path, *, clock: Clock
) -> SourceStatus:
    """Return the status of a Prometheus, after checking that it can be backed up.

    Raises SourceUnavailable, AdminApiDisabled, SnapshotUnusable or UsageError.
    """
    status = client.status()
    require_server(status)
    require_admin_api(status)
    require_one_instance(client)
    require_data_dir(data_dir)
    require_served(client, data_dir, clock=clock)
    return status


def source_of_blocks(
    client: PrometheusClient, data_dir: Path, *, clock: Clock, listener: Listener
) -> SourceStatus:
    """Return the status of a Prometheus, for a backup of the blocks in its data directory.

    One that does not answer is reported, and its status is unknown, unless the directory has no
    block either. Raises SourceUnavailable, SnapshotUnusable or UsageError.
    """
    from prometheus_backup.prometheus.status import SourceStatus

    require_data_dir(data_dir)
    try:
        status = client.status()
    except SourceUnavailable as error:
        if not live_ulids(data_dir):
            raise
        listener(Warned(f"{error.message}; {_UNKNOWN}", error.hint))
        return SourceStatus.unknown(clock.now())
    require_server(status)
    require_one_instance(client)
    require_served(client, data_dir, clock=clock)
    return status


def require_server(status: SourceStatus) -> None:
    """Raise SourceUnavailable if Prometheus runs in agent mode, which has no TSDB."""
    if status.agent:
        raise SourceUnavailable(
            "cannot back up this Prometheus: it runs in agent mode and has no TSDB",
            hint="back up the server that it writes to",
        )


def require_admin_api(status: SourceStatus) -> None:
    """Raise AdminApiDisabled if the Admin API is disabled."""
    if not status.admin_api:
        raise AdminApiDisabled("Failed to create snapshot: the Admin API is disabled")


def require_one_instance(client: PrometheusClient) -> None:
    """Raise UsageError if several Prometheus servers respond at one URL."""
    count = client.instances(tries=_INSTANCE_TRIES)
    if count > 1:
        raise UsageError(
            f"cannot use {client.url}: {count} different Prometheus servers respond there",
            hint=_USE_THE_POD,
        )


def require_data_dir(data_dir: Path) -> None:
    """Raise UsageError if the directory does not exist, SnapshotUnusable if it is unreadable."""
    if not data_dir.is_dir():
        raise UsageError(
            f"cannot read data directory {data_dir}: no such directory",
            hint=_WRONG_DIRECTORY,
        )
    if not os.access(data_dir, os.R_OK | os.X_OK):
        raise SnapshotUnusable(
            f"cannot read data directory {data_dir}: permission denied",
            hint="run as the user that Prometheus runs as",
        )


def require_served(client: PrometheusClient, data_dir: Path, *, clock: Clock) -> None:
    """Raise UsageError if Prometheus has loaded blocks that are not in this directory.

    Blocks on disk that are not loaded are no sign of that: they may be corrupt or new.
    """
    if not _retry(lambda: serves(client, data_dir), clock=clock):
        raise UsageError(
            f"cannot use data directory {data_dir}: the Prometheus at {client.url} stores its "
            "data elsewhere (it has loaded blocks that are not in this directory)",
            hint=_WRONG_DIRECTORY,
        )


def head_block_estimate(status: SourceStatus) -> int:
    """Return the estimated size of a snapshot's head block, in bytes."""
    return status.head_series * _HEAD_BYTES_PER_SERIES + status.head_chunks * _HEAD_BYTES_PER_CHUNK


def serves(client: PrometheusClient, data_dir: Path) -> bool:
    """Return whether every block that Prometheus has loaded is in this directory."""
    loaded = client.loaded_blocks()
    if loaded is not None:
        return loaded <= live_ulids(data_dir)
    count = client.count_loaded_blocks()
    return count is None or count <= count_readable(data_dir)


def count_readable(data_dir: Path) -> int:
    """Return how many blocks in a directory Prometheus would load, or try to."""
    try:
        folders = [Path(e.path) for e in os.scandir(data_dir) if is_ulid(e.name)]
    except OSError as error:
        raise SnapshotUnusable(f"cannot read {data_dir}: {error.strerror}") from error
    return sum(read_meta(folder) is not None for folder in folders)


def _retry(condition: Callable[[], bool], *, clock: Clock) -> bool:
    """Check a condition several times: a compaction or reload may be in progress."""
    for attempt in range(_TRIES):
        if attempt:
            clock.sleep(_RETRY_SECONDS)
        if condition():
            return True
    return False
