"""Runs the command line in a forked child that is killed at a chosen step.

The child is forked from a process that has imported the program already, so that a test can kill it
at each of a hundred steps. A step is a request that an `S3Proxy` sees, or a call that changes or
reads the file system below a directory.
"""

import multiprocessing
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from datetime import timedelta
from multiprocessing.process import BaseProcess
from pathlib import Path

from prometheus_backup.cli.main import run
from prometheus_backup.retention import archive as retention_archive
from tests.support.runs import bare_environment
from tests.support.s3_proxy import S3Proxy, S3Request

# Forks from a process without threads; the test process may have some.
_FORKSERVER = multiprocessing.get_context("forkserver")
_FORKSERVER.set_forkserver_preload([__name__])

_CALLS = ("open", "os.mkdir", "os.rename", "os.link", "os.remove", "os.rmdir", "os.scandir")
"""Audit events of Python for the calls that count as steps; with a path each."""


def killed_at_request(
    number: int, proxy: S3Proxy, *arguments: str, env: Mapping[str, str], log: Path
) -> bool:
    """Run a command and kill it at this request; return False if it ends before.

    The request never reaches the server.
    """
    child = _start(arguments, env, log, None, 0)

    def gate(request: S3Request) -> bool:
        if request.number >= number:
            child.kill()
        return request.number < number

    proxy.begin(gate)
    try:
        return _was_killed(child, log)
    finally:
        proxy.begin()


def killed_at_call(
    number: int, root: Path, *arguments: str, env: Mapping[str, str], log: Path
) -> bool:
    """Run a command and kill it before its call of this number below `root`."""
    return _was_killed(_start(arguments, env, log, root, number), log)


def _start(
    arguments: Sequence[str], env: Mapping[str, str], log: Path, root: Path | None, number: int
) -> BaseProcess:
    child = _FORKSERVER.Process(target=_command, args=(arguments, dict(env), log, root, number))
    child.start()
    return child


def _was_killed(child: BaseProcess, log: Path) -> bool:
    child.join(120)
    code = child.exitcode
    assert code in (0, -signal.SIGKILL), f"ended with {code}:\n{log.read_text()}"
    return code != 0


def _command(
    arguments: Sequence[str], env: dict[str, str], log: Path, root: Path | None, number: int
) -> None:
    os.environ.clear()
    os.environ.update(bare_environment(env))
    # A prune deletes at once what an earlier one has marked: no day needs to pass.
    vars(retention_archive)["GRACE"] = timedelta(days=-1)
    with log.open("w") as output:
        os.dup2(output.fileno(), 1)
        os.dup2(output.fileno(), 2)
    if root is not None:
        _kill_self(str(root), number)
    code = run(arguments)
    sys.stdout.flush()
    os._exit(code)


def _kill_self(root: str, number: int) -> None:
    left = number

    def count(event: str, arguments: tuple[object, ...]) -> None:
        nonlocal left
        if event in _CALLS and str(arguments[0]).startswith(root):
            left -= 1
            if left <= 0:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(count)
