"""Preflight: check the settings, Prometheus and the repository; suggest a fix for each problem."""

import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from prometheus_backup.backup.blocks import count_files
from prometheus_backup.backup.expiry import look_for_expiry
from prometheus_backup.backup.ownership import require_not_lost
from prometheus_backup.backup.places import SPARE_FILES, file_limit, too_many_files
from prometheus_backup.backup.probes import CheckWarning, StoreProbes
from prometheus_backup.backup.snapshot import SNAPSHOTS, snapshot_names
from prometheus_backup.clock import Clock
from prometheus_backup.errors import (
    BackupToolError,
    NewerFormat,
    SnapshotUnusable,
    UnreadableManifest,
)
from prometheus_backup.events import Warned
from prometheus_backup.model import CheckLine, Layout, Outcome, SnapshotMode, counted
from prometheus_backup.prometheus.client import PrometheusClient
from prometheus_backup.prometheus.instance import (
    head_block_estimate,
    require_admin_api,
    require_data_dir,
    require_one_instance,
    require_served,
    require_server,
    source_of_blocks,
)
from prometheus_backup.prometheus.status import SourceStatus
from prometheus_backup.repository.entry import BackupEntry, State
from prometheus_backup.repository.layout import TOOL_FOLDER
from prometheus_backup.repository.repository import Repository
from prometheus_backup.stores.base import ExpiringStore
from prometheus_backup.tsdb.block import live_ulids


@dataclass(frozen=True, slots=True)
class CheckReport:
    """The result of each check, in order. `error` is the first one that would fail a backup.

    `entries` are the backups of the repository; None if they could not be listed.
    """

    lines: tuple[CheckLine, ...]
    error: BackupToolError | None
    entries: tuple[BackupEntry, ...] | None = None

    @property
    def exit_code(self) -> int:
        """Return the exit code of the first error; without one, 3 if there are warnings, else 0."""
        if self.error is not None:
            return self.error.exit_code
        done = all(line.ok for line in self.lines)
        return (Outcome.DONE if done else Outcome.PARTIAL).exit_code


class _Preflight:
    """Runs checks and collects a line for each; one that raises becomes a line with a fix."""

    def __init__(self) -> None:
        self.lines: list[CheckLine] = []
        self.error: BackupToolError | None = None

    def run(self, subject: str, action: Callable[[], str | None]) -> bool:
        """Run one check and return whether it passed; `action` returns the text of its line.

        If there is nothing to say, it returns None.
        """
        try:
            detail = action()
            if detail is not None:
                self.lines.append(CheckLine(subject, ok=True, detail=detail))
        except BackupToolError as error:
            self.error = self.error or error
            self.lines.append(CheckLine(subject, ok=False, detail=error.message, fix=error.hint))
            return False
        except CheckWarning as warning:
            self.lines.append(CheckLine(subject, ok=False, detail=str(warning), fix=warning.hint))
            return False
        return True


def check(
    *,
    settings: Callable[[], str],
    connect: Callable[[], PrometheusClient],
    data_dir: Path,
    open_repository: Callable[[], Repository],
    run_id: str,
    clock: Clock,
    block_class: str | None = None,
    mode: SnapshotMode = SnapshotMode.ADMIN_API,
    layout: Layout = Layout.FULL,
) -> CheckReport:
    """Check everything that a backup depends on. Writes only probe objects, and removes them.

    `block_class` is the storage class of block files; `layout` is that of the next backup.
    """
    preflight = _Preflight()
    preflight.run("settings", settings)
    if mode is SnapshotMode.BLOCKS:
        _check_source_of_blocks(preflight, connect, data_dir, clock)
    else:
        _check_source(preflight, connect, data_dir, clock)
    repository = _check_repository(preflight, open_repository, run_id, block_class)
    entries: tuple[BackupEntry, ...] | None = None

    def backups(repository: Repository) -> str:
        nonlocal entries
        entries = repository.entries()
        return _backups(entries, repository.url, data_dir)

    if repository is not None:
        preflight.run("repository: backups", lambda: backups(repository))
        if isinstance(repository.store, ExpiringStore):
            preflight.run(
                "repository: lifecycle rules", lambda: look_for_expiry(repository, layout)
            )
    return CheckReport(tuple(preflight.lines), preflight.error, entries)


def _check_source(
    preflight: _Preflight,
    connect: Callable[[], PrometheusClient],
    data_dir: Path,
    clock: Clock,
) -> None:
    found: list[tuple[PrometheusClient, SourceStatus]] = []

    def query_status() -> str:
        client = connect()
        status = client.status()
        found.append((client, status))
        return f"version {status.version} at {client.url}, retention {status.retention or 'off'}"

    reachable = preflight.run("prometheus: reachable and ready", query_status)
    readable = preflight.run("data directory: readable", lambda: _readable(data_dir))
    if not reachable:
        return
    client, status = found[0]
    with client:
        preflight.run("prometheus: a server, not an agent", lambda: _yes(require_server, status))
        preflight.run("prometheus: Admin API on", lambda: _yes(require_admin_api, status))
        preflight.run(
            "prometheus: one instance at the URL", lambda: _yes(require_one_instance, client)
        )
        if readable and not status.agent:
            _check_data_dir(preflight, client, status, data_dir, clock)


def _check_source_of_blocks(
    preflight: _Preflight,
    connect: Callable[[], PrometheusClient],
    data_dir: Path,
    clock: Clock,
) -> None:
    """Check the source for mode `blocks`, which can do without Prometheus."""
    warnings: list[Warned] = []

    def query_status() -> str:
        with connect() as client:
            status = source_of_blocks(
                client, data_dir, clock=clock, listener=lambda e: warnings.append(cast("Warned", e))
            )
        if warnings:
            raise CheckWarning(warnings[0].text, hint=warnings[0].hint)
        better = "; SNAPSHOT_MODE=admin-api would save it" if status.admin_api else ""
        return (
            f"blocks: version {status.version}, retention {status.retention}; what is only in "
            f"memory is left out{better}"
        )

    preflight.run("prometheus: snapshot mode", query_status)
    if preflight.run("data directory: readable", lambda: _readable(data_dir)):
        preflight.run("data directory: blocks stay readable", lambda: _holdable(data_dir))


def _holdable(data_dir: Path) -> str:
    blocks = counted(len(live_ulids(data_dir)), "block")
    folder = data_dir / TOOL_FOLDER
    if os.access(folder if folder.exists() else data_dir, os.W_OK | os.X_OK):
        return f"yes, {blocks} can be linked"
    files = count_files(data_dir)
    if files + SPARE_FILES > file_limit():
        raise too_many_files(data_dir)
    return f"yes, {counted(files, 'file')} of {blocks} can be held open"


def _check_data_dir(
    preflight: _Preflight,
    client: PrometheusClient,
    status: SourceStatus,
    data_dir: Path,
    clock: Clock,
) -> None:
    def served() -> str:
        require_served(client, data_dir, clock=clock)
        return "used by this Prometheus"

    preflight.run("data directory: the right one", served)
    preflight.run("data directory: snapshots can be removed", lambda: _writable(data_dir))
    preflight.run("data directory: room for the head block", lambda: _room(status, data_dir))


def _check_repository(
    preflight: _Preflight,
    open_repository: Callable[[], Repository],
    run_id: str,
    block_class: str | None,
) -> Repository | None:
    """Return the repository if it can be reached."""
    opened: list[Repository] = []

    def ping() -> str:
        repository = open_repository()
        repository.store.ping()
        opened.append(repository)
        return repository.url

    if not preflight.run("repository: reachable", ping):
        return None
    repository = opened[0]
    probes = StoreProbes(repository, run_id=run_id, block_class=block_class)
    for subject, action in probes:
        preflight.run(f"repository: {subject}", action)
        if not probes.can_write:
            break
    return repository


def _backups(entries: Sequence[BackupEntry], url: str, data_dir: Path) -> str:
    require_not_lost(data_dir, url, entries)
    bad = [e for e in entries if e.state in (State.UNREADABLE, State.NEWER)]
    if bad:
        kind = NewerFormat if bad[0].state is State.NEWER else UnreadableManifest
        raise kind(
            f"{len(bad)} of {counted(len(entries), 'backup')} cannot be read, the first: "
            f"{bad[0].problem}",
            hint="run `prometheus-backup verify --all` for details",
        )
    archived = [e for e in entries if e.state is State.ARCHIVED]
    if archived:
        raise CheckWarning(
            f"{len(archived)} of {counted(len(entries), 'backup')} are archived, the first: "
            f"{archived[0].backup_id}",
            hint="they are kept, but cannot be read or restored until they are thawed: let the "
            "bucket's lifecycle move only objects with the tag Content=data (docs/how-to/aws.md)",
        )
    good = sum(e.good for e in entries)
    return f"{len(entries)} found, {good} of them good"


def _readable(data_dir: Path) -> str:
    require_data_dir(data_dir)
    return str(data_dir)


def _yes(require: Callable[..., None], subject: object) -> str:
    require(subject)
    return "yes"


def _writable(data_dir: Path) -> str:
    folder = data_dir / SNAPSHOTS
    folder = folder if folder.exists() else data_dir
    if not os.access(folder, os.W_OK | os.X_OK):
        raise CheckWarning(
            f"cannot write to {folder}: snapshots could not be removed and would use disk space",
            hint="mount the volume read-write, and run as the user that Prometheus runs as; or set "
            "SNAPSHOT_MODE=blocks, which needs no snapshot",
        )
    existing = len(snapshot_names(data_dir))
    return f"yes (existing snapshots: {existing})" if existing else "yes"


def _room(status: SourceStatus, data_dir: Path) -> str:
    need, free = head_block_estimate(status), shutil.disk_usage(data_dir).free
    if need > free:
        raise SnapshotUnusable(
            f"cannot take a snapshot safely: the head block needs about {counted(need, 'byte')} of "
            f"disk space, {counted(free, 'byte')} are free",
            hint="free disk space on Prometheus' volume, or set SKIP_HEAD",
        )
    inodes = os.statvfs(data_dir)
    if inodes.f_files and not inodes.f_favail:
        raise SnapshotUnusable(
            f"cannot take a snapshot: the file system of {data_dir} has no free inodes",
            hint="remove files from Prometheus' volume, or make the volume larger",
        )
    return f"about {counted(need, 'byte')} needed, {counted(free, 'byte')} free"
