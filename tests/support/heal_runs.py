"""Runs `heal` in this process, or in a child that is killed at a given change to the disk."""

import multiprocessing
import os
import signal
import sys
from pathlib import Path

from prometheus_backup.clock import SystemClock
from prometheus_backup.heal.report import HealReport
from prometheus_backup.heal.run import Heal
from prometheus_backup.repository.repository import Repository
from prometheus_backup.stores.base import ObjectStore
from prometheus_backup.stores.local import LocalStore
from tests.support.runs import transfer

# Forks from a process without threads; the test process may have some.
_FORKSERVER = multiprocessing.get_context("forkserver")
_FORKSERVER.set_forkserver_preload([__name__])
_CHANGES = frozenset({"os.rename", "os.link", "os.remove", "os.rmdir"})
"""Audit events. os.mkdir is not included: a new folder alone makes no difference."""


def heal_job(data_dir: Path, repository: Path, *, store: ObjectStore | None = None) -> Heal:
    """Return a heal, not yet run, of a directory without a running Prometheus."""
    clock = SystemClock()
    return Heal(
        data_dir,
        lambda: Repository(store or LocalStore(repository), clock=clock),
        transfer(),
        None,
        clock,
    )


def heal_and_die(data_dir: Path, repository: Path, *, changes: int) -> bool:
    """Heal, and kill the process before the given change; return whether it was killed."""
    child = _FORKSERVER.Process(target=_die, args=(data_dir, repository, changes))
    child.start()
    child.join(60)
    assert child.exitcode in (0, -signal.SIGKILL), f"ended with {child.exitcode}"
    return child.exitcode != 0


def heal(data_dir: Path, repository: Path) -> HealReport:
    """Heal like the command."""
    return heal_job(data_dir, repository).apply()


def _place(arguments: tuple[object, ...]) -> Path:
    """The path that a change is about, which may be relative to an open directory."""
    path, folder = Path(os.fsdecode(str(arguments[0]))), arguments[len(arguments) // 2]
    return Path(f"/proc/self/fd/{folder}").resolve() / path if folder != -1 else path


def _die(data_dir: Path, repository: Path, changes: int) -> None:
    left = changes

    def kill(event: str, arguments: tuple[object, ...]) -> None:
        nonlocal left
        if event not in _CHANGES or not _place(arguments).is_relative_to(data_dir):
            return
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(kill)
    heal(data_dir, repository)
