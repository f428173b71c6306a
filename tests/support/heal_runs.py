"""Heals for tests: in this process, or killed with SIGKILL at a change to the disk."""

import multiprocessing
import os
import signal
import sys
from pathlib import Path

from prometheus_backup.clock import SystemClock
from prometheus_backup.heal.run import Heal, HealReport
from prometheus_backup.repository.repository import Repository
from prometheus_backup.stores.base import ObjectStore
from prometheus_backup.stores.local import LocalStore
from tests.support.runs import transfer

# Forks from a process without threads, whatever the test process has running.
_FORKSERVER = multiprocessing.get_context("forkserver")
_FORKSERVER.set_forkserver_preload([__name__])
_CHANGES = frozenset({"os.rename", "os.link", "os.remove", "os.rmdir"})
"""Audit events. Those of os.mkdir are left out: a new folder alone decides nothing."""


def heal_job(data_dir: Path, repository: Path, *, store: ObjectStore | None = None) -> Heal:
    """A heal of a directory on which no Prometheus runs, which was not started."""
    clock = SystemClock()
    return Heal(
        data_dir,
        lambda: Repository(store or LocalStore(repository), clock=clock),
        transfer(),
        None,
        clock,
    )


def heal_and_die(data_dir: Path, repository: Path, *, changes: int) -> bool:
    """Heal until that change to the disk is about to be made; whether it was killed there."""
    child = _FORKSERVER.Process(target=_die, args=(data_dir, repository, changes))
    child.start()
    child.join(60)
    assert child.exitcode in (0, -signal.SIGKILL), f"ended with {child.exitcode}"
    return child.exitcode != 0


def heal(data_dir: Path, repository: Path) -> HealReport:
    """Heal, as the command does."""
    return heal_job(data_dir, repository).apply()


def _die(data_dir: Path, repository: Path, changes: int) -> None:
    left = changes

    def kill(event: str, arguments: tuple[object, ...]) -> None:
        nonlocal left
        if event not in _CHANGES or str(data_dir) not in str(arguments[0]):
            return
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(kill)
    heal(data_dir, repository)
