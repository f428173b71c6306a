"""A process of another user that renames what it finds and puts links in its place, in a loop."""

import contextlib
import itertools
import multiprocessing
import os
from collections.abc import Iterator, Sequence
from multiprocessing.sharedctypes import Synchronized
from pathlib import Path

from tests.support.waiting import wait_until

NOBODY = 65534
# Forks from a process without threads; the test process may have some.
_FORKSERVER = multiprocessing.get_context("forkserver")
_FORKSERVER.set_forkserver_preload([__name__])


@contextlib.contextmanager
def planting_links(folder: Path, names: Sequence[str], precious: Path) -> Iterator[None]:
    """Put links to `precious` below `folder`, under these names, until the end of the block.

    As root, `folder` is given to another user, whose process does this. Otherwise it is the same
    user's, who can do even more.
    """
    if os.geteuid() == 0:
        for path in (folder, *folder.rglob("*")):
            os.chown(path, NOBODY, NOBODY)
    planted = _FORKSERVER.Value("l", 0)
    child = _FORKSERVER.Process(target=_plant, args=(folder, names, precious, planted))
    child.start()
    try:
        wait_until(lambda: planted.value > 0)
        yield
    finally:
        child.terminate()
        child.join()


def _plant(
    folder: Path, names: Sequence[str], precious: Path, planted: "Synchronized[int]"
) -> None:
    os.chdir(folder)  # the folders above it are closed to other users
    if os.geteuid() == 0:
        os.setgroups([])
        os.setgid(NOBODY)
        os.setuid(NOBODY)
    targets = itertools.cycle((precious, precious / "folder", precious / "file"))
    for number in itertools.count():
        for name in names:
            with contextlib.suppress(OSError):
                os.rename(name, f"{os.path.dirname(name) or '.'}/stolen-{number}")  # noqa: PTH104, PTH120
            with contextlib.suppress(OSError):
                os.symlink(next(targets), name)  # noqa: PTH211
                planted.value += 1
            if number % 3:  # leave others the time to put something there
                with contextlib.suppress(OSError):
                    os.unlink(name)  # noqa: PTH108
