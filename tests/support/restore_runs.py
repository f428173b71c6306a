"""Restores for tests: in this process, or killed with SIGKILL when they tell of an event."""

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

# Forks from a process without threads, whatever the test process has running.
_FORKSERVER = multiprocessing.get_context("forkserver")
_FORKSERVER.set_forkserver_preload([__name__])


def expected(files: LocalFiles, backup: str) -> dict[str, bytes]:
    """The files that a restored directory must hold."""
    blocks = manifest_of(files, backup)["blocks"]
    return {
        f"{block['ulid']}/{file['path']}": files.get(file["key"])
        for block in blocks
        for file in block["files"]
    }


def newest_first(files: LocalFiles, backup: str) -> list[str]:
    """The ULIDs of a backup's blocks in the order in which they are placed."""
    blocks = manifest_of(files, backup)["blocks"]
    return [b["ulid"] for b in sorted(blocks, key=lambda b: str(b["max_time"]), reverse=True)]


def placed(target: Path) -> set[str]:
    """The names of what a restore has placed so far."""
    return {entry.name for entry in target.iterdir()} - {".prometheus-backup", "lost+found"}


def restore_job(store: ObjectStore, target: Path, listener: Listener = ignore) -> Restore:
    """A restore that was not started."""
    repository = Repository(store, clock=SystemClock())
    return Restore(repository, transfer(listener), target, Policy(), listener)


def restore(store: ObjectStore, backup: str, target: Path, listener: Listener = ignore) -> None:
    """Restore, as the command does."""
    job = restore_job(store, target, listener)
    job.apply(job.prepare(job.repository.find(backup)))


def restore_and_die(root: Path, backup: str, target: Path, *, events: int) -> bool:
    """Restore from a `file://` repository until so many events; whether it was killed there."""
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
