"""Give up a backup that is lost for good, so that the archive can be pruned again."""

from datetime import date

from prometheus_backup.errors import BackupNotFound, RepositoryUnavailable, UsageError
from prometheus_backup.repository.entry import CANNOT_BE_READ, BackupEntry, State
from prometheus_backup.repository.repository import DeletedObjects, Repository


def require_lost(entry: BackupEntry | None, backup_id: str, *, today: date) -> None:
    """Raise an error unless deletions wait for this backup.

    They do if its manifest or its claim cannot be read, if its manifest is gone, or if it names
    what is gone from the archive.

    Raises BackupNotFound, UsageError, or RepositoryUnavailable if the store did not return it.
    """
    cannot = f"cannot forget {backup_id}"
    if entry is None:
        raise BackupNotFound(
            f"{cannot}: there is no such backup",
            hint="`prometheus-backup prune --dry-run` names those that cannot be read",
        )
    if isinstance(entry.read_error, RepositoryUnavailable):
        raise entry.read_error
    if entry.state is State.COMMITTED and not entry.lost:
        raise UsageError(
            f"{cannot}: its manifest can be read, and all that it names is there",
            hint="to delete it, let retention do so: see `prometheus-backup prune --dry-run`",
        )
    is_claim = entry.incomplete is None and entry.incomplete_modified is not None
    if entry.state not in (*CANNOT_BE_READ, State.COMMITTED) and not is_claim:
        raise UsageError(
            f"{cannot}: it is not a backup, but {entry.state.value}",
            hint="another program made this folder, and no deletion waits for it"
            if entry.state is State.FOREIGN
            else "`prometheus-backup prune` deletes what an interrupted run left",
        )
    if entry.hold is not None and entry.held(today):
        raise UsageError(
            f"{cannot}: it is {entry.hold.text}",
            hint=f"run `prometheus-backup release {backup_id}` first",
        )


def forget(repository: Repository, backup_id: str, *, run_id: str) -> DeletedObjects:
    """Delete all that is left of this backup.

    What only this backup named in the archive is then wanted by nobody.
    """
    deleted = repository.delete_backup(backup_id, run_id=run_id)
    if deleted is None:
        raise UsageError(f"cannot forget {backup_id}: it has just been held")
    repository.remove_mark(backup_id)  # also a claim in the archive
    return deleted
