"""Runs a restore in this process, or in a child that is killed after a number of events."""

import multiprocessing
import os
import signal
from pathlib import Path

from prometheus_backup.clock import SystemClock
from prometheus_backup.events import Event, Listener, ignore
from prometheus_backup.repository.repository import Repository
from prometheus_backup.restore.run import Restore
from prometheus_backup.retention.policy import Policy
from prometheus_backup.stores.base import ObjectStore
from prometheus_backup.stores.local import LocalStore
from tests.support.runs import transfer
from tests.support.stored_backups import LocalFiles, manifest_of

# Forks from a process without threads; the test process may have some.
_FORKSERVER = multiprocessing.get_context("forkserver")
_FORKSERVER.set_forkserver_preload([__name__])


def expected(files: LocalFiles, backup: str) -> dict[str, bytes]:
    """Return the files that a restored directory must have."""
    blocks = manifest_of(files, backup)["blocks"]
    return {
        f"{block['ulid']}/{file['path']}": files.get(file["key"])
        for block in blocks
        for file in block["files"]
    }


def newest_first(files: LocalFiles, backup: str) -> list[str]:
    """Return the ULIDs of a backup's blocks in the order in which they are restored."""
    blocks = manifest_of(files, backup)["blocks"]
    return [b["ulid"] for b in sorted(blocks, key=lambda b: str(b["max_time"]), reverse=True)]


def placed(target: Path) -> set[str]:
    """Return the names of the blocks that a restore has placed so far."""
    return {entry.name for entry in target.iterdir()} - {".prometheus-backup", "lost+found"}


def restore_job(store: ObjectStore, target: Path, listener: Listener = ignore) -> Restore:
    """Return a restore that has not run yet."""
    repository = Repository(store, clock=SystemClock())
    return Restore(repository, transfer(listener), target, Policy(), listener)


def restore(store: ObjectStore, backup: str, target: Path, listener: Listener = ignore) -> None:
    """Restore like the command."""
    job = restore_job(store, target, listener)
    job.apply(job.prepare(job.repository.find(backup)))


def restore_and_die(root: Path, backup: str, target: Path, *, events: int) -> bool:
    """Restore, and kill the process after `events` events; return whether it was killed."""
    child = _FORKSERVER.Process(target=_die, args=(root, backup, target, events))
    child.start()
    child.join(60)
    assert child.exitcode in (0, -signal.SIGKILL), f"ended with {child.exitcode}"
    return child.exitcode != 0


def _die(root: Path, backup: str, target: Path, events: int) -> None:
    left = events

    def kill(event: Event) -> None:
        del event
        nonlocal left
        left -= 1
        if left <= 0:
            os.kill(os.getpid(), signal.SIGKILL)

    restore(LocalStore(root), backup, target, kill)
