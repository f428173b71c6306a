"""A preflight: look at Prometheus, the repository and the settings, and say how to mend each."""

import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from prometheus_backup.backup.snapshot import SNAPSHOTS, snapshot_names
from prometheus_backup.clock import Clock
from prometheus_backup.errors import (
    BackupToolError,
    BytesDiffer,
    NewerFormat,
    ObjectExists,
    ObjectNotFound,
    SnapshotUnusable,
    UnreadableManifest,
)
from prometheus_backup.model import CONTROL, CheckLine, Outcome
from prometheus_backup.prometheus.client import PrometheusClient, SourceStatus
from prometheus_backup.prometheus.instance import (
    head_block_estimate,
    require_admin_api,
    require_data_dir,
    require_one_instance,
    require_served,
    require_server,
)
from prometheus_backup.repository.layout import PROBE_PREFIX
from prometheus_backup.repository.repository import Repository, State
from prometheus_backup.retention.policy import clock_doubt


class _CheckWarning(Exception):
    """What would leave a backup done in part: how it is, and how to mend it."""

    def __init__(self, message: str, *, hint: str) -> None:
        super().__init__(message)
        self.hint = hint


@dataclass(frozen=True, slots=True)
class CheckReport:
    """The lines, in order. `error` is the first failure that a backup would end with."""

    lines: tuple[CheckLine, ...]
    error: BackupToolError | None

    @property
    def exit_code(self) -> int:
        """Return that of the first failure; of PARTIAL, where a backup would be done in part."""
        if self.error is not None:
            return self.error.exit_code
        done = all(line.ok for line in self.lines)
        return (Outcome.DONE if done else Outcome.PARTIAL).exit_code


class _Preflight:
    """Collects lines; a look that raises becomes a line that says how to mend it."""

    def __init__(self) -> None:
        self.lines: list[CheckLine] = []
        self.error: BackupToolError | None = None

    def look(self, subject: str, action: Callable[[], str]) -> bool:
        """Run one look; `action` returns what is right. Return whether it was."""
        try:
            self.lines.append(CheckLine(subject, ok=True, detail=action()))
        except BackupToolError as error:
            self.error = self.error or error
            self.lines.append(CheckLine(subject, ok=False, detail=error.message, fix=error.hint))
            return False
        except _CheckWarning as doubt:
            self.lines.append(CheckLine(subject, ok=False, detail=str(doubt), fix=doubt.hint))
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
) -> CheckReport:
    """Look at everything that a backup depends on. Writes and removes probe objects only."""
    preflight = _Preflight()
    preflight.look("settings", settings)
    _check_source(preflight, connect, data_dir, clock)
    _check_repository(preflight, open_repository, run_id)
    return CheckReport(tuple(preflight.lines), preflight.error)


def _check_source(
    preflight: _Preflight,
    connect: Callable[[], PrometheusClient],
    data_dir: Path,
    clock: Clock,
) -> None:
    found: list[tuple[PrometheusClient, SourceStatus]] = []

    def reach() -> str:
        client = connect()
        status = client.status()
        found.append((client, status))
        return f"version {status.version} at {client.url}, retention {status.retention}"

    reached = preflight.look("prometheus: reachable and ready", reach)
    there = preflight.look("data directory: readable", lambda: _readable(data_dir))
    if not reached:
        return
    client, status = found[0]
    with client:
        preflight.look("prometheus: a server, not an agent", lambda: _said(require_server, status))
        preflight.look("prometheus: Admin API on", lambda: _said(require_admin_api, status))
        preflight.look(
            "prometheus: one instance at the URL", lambda: _said(require_one_instance, client)
        )
        if there and not status.agent:
            _check_data_dir(preflight, client, status, data_dir, clock)


def _check_data_dir(
    preflight: _Preflight,
    client: PrometheusClient,
    status: SourceStatus,
    data_dir: Path,
    clock: Clock,
) -> None:
    def served() -> str:
        require_served(client, data_dir, clock=clock)
        return "it is the one that this Prometheus serves"

    preflight.look("data directory: the right one", served)
    preflight.look("data directory: snapshots can be removed", lambda: _writable(data_dir))
    preflight.look("data directory: room for the head block", lambda: _room(status, data_dir))


def _check_repository(
    preflight: _Preflight, open_repository: Callable[[], Repository], run_id: str
) -> None:
    opened: list[Repository] = []

    def reach() -> str:
        repository = open_repository()
        repository.store.ping()
        opened.append(repository)
        return repository.url

    if not preflight.look("repository: reachable", reach):
        return
    repository = opened[0]
    write, *others = _probes(repository, f"{PROBE_PREFIX}{run_id}")
    if preflight.look(f"repository: {write[0]}", write[1]):
        for subject, action in others:
            preflight.look(f"repository: {subject}", action)
    preflight.look("repository: backups", lambda: _backups(repository))


def _probes(repository: Repository, key: str) -> Iterator[tuple[str, Callable[[], str]]]:
    store = repository.store

    def write() -> str:
        store.put_small(key, b"probe\n", options=CONTROL)
        return "objects can be written"

    def read() -> str:
        if store.get(key, limit=100) != b"probe\n":
            raise BytesDiffer(
                f"cannot read back {key}: other bytes came back",
                hint="something between here and the store changes what is stored",
            )
        return "what was written comes back"

    def create_only() -> str:
        try:
            store.create(key, b"again\n", options=CONTROL)
        except ObjectExists:
            return "a second create of one key is refused"
        raise _CheckWarning(
            f"cannot rely on create-only writes in {repository.url}: a second one was accepted",
            hint="backups still notice each other by reading again what they wrote; be sure that "
            "only one job backs up into this repository",
        )

    def clock() -> str:
        now = repository.clock.now()
        doubt = clock_doubt(now=now, store_now=store.head(key).modified, backup_times=[])
        if doubt:
            raise _CheckWarning(
                f"cannot trust the clock: {doubt}", hint="set this machine's clock (NTP)"
            )
        return "this machine's clock agrees with the store's"

    def delete() -> str:
        store.delete([key])
        try:
            store.head(key)
        except ObjectNotFound:
            return "objects can be deleted"
        raise _CheckWarning(
            f"cannot delete {key}: it is still there",
            hint="retention needs to delete; is the bucket under a legal hold or object lock?",
        )

    yield from (
        ("write", write),
        ("read", read),
        ("conditional create", create_only),
        ("clock", clock),
        ("delete", delete),
    )


def _backups(repository: Repository) -> str:
    entries = repository.entries()
    bad = [e for e in entries if e.state in (State.UNREADABLE, State.NEWER)]
    if bad:
        kind = NewerFormat if bad[0].state is State.NEWER else UnreadableManifest
        raise kind(
            f"{len(bad)} of {len(entries)} backups cannot be read, the first: {bad[0].problem}",
            hint="`prometheus-backup verify --all` says more",
        )
    archived = [e for e in entries if e.state is State.ARCHIVED]
    if archived:
        raise _CheckWarning(
            f"{len(archived)} of {len(entries)} backups are archived, the first: "
            f"{archived[0].backup_id}",
            hint="they are kept, and neither judged nor restored until they are thawed: let the "
            "bucket's lifecycle move only objects with the tag Content=data (docs/how-to/aws.md)",
        )
    good = sum(e.good for e in entries)
    return f"{len(entries)} found, {good} of them good"


def _readable(data_dir: Path) -> str:
    require_data_dir(data_dir)
    return str(data_dir)


def _said(require: Callable[..., None], what: object) -> str:
    require(what)
    return "yes"


def _writable(data_dir: Path) -> str:
    place = data_dir / SNAPSHOTS
    place = place if place.exists() else data_dir
    if not os.access(place, os.W_OK | os.X_OK):
        raise _CheckWarning(
            f"cannot write to {place}: snapshots would stay and pin disk space",
            hint="mount the volume read-write, and run as the user that Prometheus runs as",
        )
    left = len(snapshot_names(data_dir))
    return f"yes ({left} snapshots are there now)" if left else "yes"


def _room(status: SourceStatus, data_dir: Path) -> str:
    need, free = head_block_estimate(status), shutil.disk_usage(data_dir).free
    if need > free:
        raise SnapshotUnusable(
            f"cannot be sure of room for a snapshot: about {need:,} bytes are needed for the head "
            f"block, {free:,} are free",
            hint="free some room on Prometheus' volume, or set SKIP_HEAD",
        )
    return f"about {need:,} bytes needed, {free:,} free"
