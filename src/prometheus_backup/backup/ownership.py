"""Whether a repository belongs to this source: labels, other runs, an unmounted volume."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from prometheus_backup.errors import (
    NewerFormat,
    RepositoryLocked,
    RepositoryNotFound,
    SnapshotUnusable,
    UsageError,
)
from prometheus_backup.events import Listener, Warned
from prometheus_backup.folder import Folder
from prometheus_backup.prometheus.status import SourceStatus
from prometheus_backup.repository.entry import BackupEntry, State, committed
from prometheus_backup.repository.layout import TOOL_FOLDER
from prometheus_backup.repository.repository import Repository
from prometheus_backup.tsdb.block import live_ulids

_REMEMBERED = "repositories.json"


def require_readable(entries: Sequence[BackupEntry], *, listener: Listener) -> None:
    """Warn of backups that cannot be read. Raises NewerFormat if a newer version wrote one."""
    for entry in entries:
        if entry.state is State.NEWER:
            raise NewerFormat(entry.problem)
        if entry.state in (State.UNREADABLE, State.ARCHIVED):
            listener(Warned(entry.problem))


def require_same_source(
    repository: Repository,
    entries: Sequence[BackupEntry],
    *,
    labels: Mapping[str, str],
    status: SourceStatus,
    data_dir: Path,
) -> None:
    """Raise UsageError if the newest backup is one of another Prometheus.

    Without labels, two sources are told apart by their hostnames and blocks: a source that moved to
    another host still has blocks of its newest backup.
    """
    backups = committed(entries)
    newest = backups[-1].header if backups else None
    if newest is None:
        return
    if dict(newest.labels) != dict(labels):
        raise UsageError(
            f"cannot back up into {repository.url}: its newest backup, {newest.backup_id}, has "
            f"labels {_text(newest.labels)}, this run has {_text(labels)}",
            hint="use a separate prefix for each Prometheus (S3_PREFIX), or the same "
            "BACKUP_LABELS as before",
        )
    theirs, ours = newest.prometheus.hostname, status.hostname
    if labels or not theirs or not ours or theirs == ours:
        return
    blocks = {block.ulid for block in repository.manifest(newest.backup_id).blocks}
    if blocks and blocks.isdisjoint(live_ulids(data_dir)):
        raise UsageError(
            f"cannot back up into {repository.url}: its newest backup, {newest.backup_id}, is of "
            f"the Prometheus on {theirs} and shares no block with this one, on {ours}",
            hint="use a separate prefix for each Prometheus (S3_PREFIX); if this one replaces it, "
            "set BACKUP_LABELS, or begin a new prefix",
        )


def require_no_other_run(
    repository: Repository, entries: Sequence[BackupEntry], *, run_id: str, data_dir: Path
) -> None:
    """Raise RepositoryLocked if a recent incomplete.json shows that another run is active.

    Needed only without a host lock.
    """
    store_now = repository.store_now(run_id=run_id)
    for entry in entries:
        if entry.state is not State.INCOMPLETE or entry.incomplete is None:
            continue
        if not entry.is_dead(store_now=store_now, dead_runs=frozenset()):
            raise RepositoryLocked(
                f"cannot back up into {repository.url}: {entry.backup_id} is in progress on "
                f"{entry.incomplete.host or 'another host'}; {data_dir} is read-only, so it is not "
                "possible to tell whether that run is still alive",
            )


def require_not_lost(data_dir: Path, url: str, entries: Sequence[BackupEntry]) -> None:
    """Raise RepositoryNotFound if a repository is empty that had backups of this directory.

    An unmounted volume looks like a new repository, and a backup would fill the disk below it.
    """
    newest = _remembered(data_dir).get(url)
    if newest is not None and not entries:
        raise RepositoryNotFound(
            f"cannot use repository {url}: it is empty, but {newest} was made in it",
            hint="is its volume mounted? if the backups were removed on purpose, begin again with "
            "`prometheus-backup backup --new-repository`",
        )


def remember(data_dir: Path, url: str, backup_id: str) -> None:
    """Remember in the data directory that this repository has backups. Raises SnapshotUnusable."""
    document = json.dumps(_remembered(data_dir) | {url: backup_id}, indent=2) + "\n"
    try:
        with Folder.hold(data_dir) as held, held.child(TOOL_FOLDER) as folder:
            folder.write(_REMEMBERED, document.encode())
    except OSError as error:
        raise SnapshotUnusable(f"cannot write {error.filename}: {error.strerror}") from error


def _remembered(data_dir: Path) -> dict[str, str]:
    try:
        with Folder.hold(data_dir) as held, held.child(TOOL_FOLDER) as folder:
            document = json.loads(folder.read(_REMEMBERED))
    except (OSError, ValueError, RecursionError):
        return {}
    if not isinstance(document, dict):
        return {}
    return {url: backup for url, backup in document.items() if isinstance(backup, str)}


def _text(labels: Mapping[str, str]) -> str:
    return ",".join(f"{k}={v}" for k, v in sorted(labels.items())) or "(none)"
