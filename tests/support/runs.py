"""Runs `backup` in this process, or the real command line in another one.

`take_backup(prometheus, store)` makes a backup. Pass a `Recorder` to check events, and a
`FakeClock` for another date or to avoid waiting.
"""

import os
import subprocess
import sys
import time
import uuid
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TypeVar

from devtools.prometheus import PrometheusServer
from devtools.s3 import S3Bucket
from prometheus_backup.backup.options import BackupOptions, BackupReport
from prometheus_backup.backup.run import BackupRun
from prometheus_backup.clock import Clock, SystemClock
from prometheus_backup.events import Event, Listener, Warned, ignore
from prometheus_backup.model import Layout, Level, SnapshotMode
from prometheus_backup.prometheus.access import Access
from prometheus_backup.prometheus.client import PrometheusClient
from prometheus_backup.repository.repository import Repository
from prometheus_backup.retention.policy import Policy
from prometheus_backup.stores.base import ObjectStore
from prometheus_backup.transfer import BandwidthLimit, Transfer

_E = TypeVar("_E", bound=Event)


class Recorder:
    """A listener that keeps every event."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    def __call__(self, event: Event) -> None:
        self.events.append(event)

    def of(self, kind: type[_E]) -> list[_E]:
        """Return the events of one kind, in order."""
        return [event for event in self.events if isinstance(event, kind)]

    @property
    def warnings(self) -> str:
        """The text of all warnings."""
        return "\n".join(event.text for event in self.of(Warned))


class FakeClock:
    """A clock with a chosen start that runs `speed` times as fast as the real one."""

    def __init__(self, start: datetime | None = None, *, speed: float = 1.0) -> None:
        self._began = time.monotonic()
        self._start = start or datetime.now(UTC)
        self._speed = speed

    def now(self) -> datetime:
        """Return the start plus the time that has passed."""
        return self._start + timedelta(seconds=self.monotonic())

    def monotonic(self) -> float:
        """Return the seconds of this clock since it was created."""
        return (time.monotonic() - self._began) * self._speed

    def sleep(self, seconds: float) -> None:
        """Wait until this clock has advanced by so many seconds."""
        time.sleep(seconds / self._speed)

    def set(self, instant: datetime) -> None:
        """Set the current time."""
        self._start = instant - timedelta(seconds=self.monotonic())


def options(
    *,
    labels: Mapping[str, str] | None = None,
    policy: Policy | None = None,
    storage_class: str | None = None,
    verify: Level | None = Level.CHECKSUM,
    skip_head: bool = False,
    rehash: bool = False,
    allow_empty: bool = False,
    fingerprints: tuple[str, ...] = (),
    layout: Layout = Layout.FULL,
    mode: SnapshotMode = SnapshotMode.ADMIN_API,
) -> BackupOptions:
    """Return the default options of the command line, but without fingerprints."""
    return BackupOptions(
        labels=labels or {},
        policy=policy or Policy(),
        storage_class=storage_class,
        verify=verify,
        skip_head=skip_head,
        rehash=rehash,
        allow_empty=allow_empty,
        fingerprints=fingerprints,
        mode=mode,
        layout=layout,
        processes=1,
        new_repository=True,  # every store in memory has the same address
    )


def transfer(listener: Listener = ignore, *, clock: Clock | None = None) -> Transfer:
    """Return a transfer with two workers and no bandwidth limit."""
    limit = BandwidthLimit(bytes_per_second=None, clock=clock or SystemClock())
    return Transfer(workers=2, limit=limit, listener=listener)


def backup_run(
    source: PrometheusServer | Access,
    store: ObjectStore,
    chosen: BackupOptions | None = None,
    *,
    data_dir: Path | None = None,
    listener: Listener = ignore,
    clock: Clock | None = None,
) -> BackupRun:
    """Return a run, not yet started. `data_dir` is required if `source` is an `Access`."""
    if isinstance(source, PrometheusServer):
        data_dir = data_dir or source.data_dir
        source = Access(url=source.url)
    assert data_dir is not None, "an Access needs a data_dir"
    clock = clock or SystemClock()
    return BackupRun(
        client=PrometheusClient(source),
        data_dir=data_dir,
        repository=Repository(store, clock=clock),
        transfer=transfer(listener, clock=clock),
        options=chosen or options(),
        run_id=uuid.uuid4().hex,
        listener=listener,
    )


def take_backup(
    source: PrometheusServer | Access,
    store: ObjectStore,
    chosen: BackupOptions | None = None,
    *,
    data_dir: Path | None = None,
    listener: Listener = ignore,
    clock: Clock | None = None,
) -> BackupReport:
    """Make one backup; return the report of the run or raise its error."""
    run = backup_run(source, store, chosen, data_dir=data_dir, listener=listener, clock=clock)
    with run.client:
        return run.run()


def settings(source: PrometheusServer, repository: S3Bucket | Path, **more: str) -> dict[str, str]:
    """Return the environment variables with which the command line backs up `source`."""
    variables = {"PROMETHEUS_URL": source.url, "PROMETHEUS_DATA_DIR": str(source.data_dir)}
    if isinstance(repository, S3Bucket):
        variables |= repository.endpoint.environment() | {"S3_BUCKET": repository.name}
    else:
        variables["REPOSITORY"] = f"file://{repository}"
    return variables | more


def cli(
    *arguments: str,
    env: Mapping[str, str] | None = None,
    prefix: tuple[str, ...] = (),
    timeout: float = 120,
) -> subprocess.CompletedProcess[str]:
    """Run the command line with only the environment `env` and wait for its end.

    `prefix` is put before the command, for example `without_privileges()`.
    """
    return subprocess.run(
        [*prefix, *command(*arguments)],
        env=bare_environment(env or {}),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


def without_privileges() -> tuple[str, ...]:
    """Return a command prefix under which file modes also apply to root.

    The user stays the same, so the program can be run from a directory that only root can enter.
    """
    return ("setpriv", "--bounding-set=-all", "--inh-caps=-all", "--") if os.geteuid() == 0 else ()


def with_read_only(directory: Path) -> tuple[str, ...]:
    """Return a command prefix under which a directory is mounted read-only."""
    mount = 'mount --bind "$0" "$0" && mount -o remount,bind,ro "$0" && exec "$@"'
    return ("unshare", "--mount", "sh", "-c", mount, str(directory))


def command(*arguments: str) -> list[str]:
    """Return the command line as a list, for tests that start it themselves."""
    return [sys.executable, "-m", "prometheus_backup", *arguments]


def bare_environment(variables: Mapping[str, str]) -> dict[str, str]:
    """Return `variables` plus what every program needs, without any settings of the user."""
    return {
        "PATH": os.environ.get("PATH", os.defpath),
        "HOME": "/nonexistent",
        "LC_ALL": "C.UTF-8",
        "TZ": "UTC",
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        "AWS_EC2_METADATA_DISABLED": "true",
        **variables,
    }
