"""A scratch folder for one run at a time, inside a directory that the user chooses.

Drills and verifications use separate folders. A folder is empty when a run starts, and removed when
it ends; if a run is killed, the next one removes its leftovers. Nothing outside is touched.
"""

import contextlib
import errno
import fcntl
import os
from pathlib import Path
from typing import Self

from prometheus_backup.errors import RepositoryLocked, StopRequest, TargetUnusable
from prometheus_backup.folder import Folder
from prometheus_backup.model import counted

_FOLDER = "prometheus-backup"
_LOCK = "lock"
_TRIES = 5
_NOT_OURS = {errno.EPERM, errno.ENOTDIR, errno.ELOOP}


class Scratch:
    """The locked scratch folder: blocks go into `data`, other files into `run`. Context manager.

    Call `prepare` before using `data` and `run`, which exist from then on.
    """

    def __init__(self, parent: Folder, folder: Folder, lock: int, *, verb: str) -> None:
        self._parent = parent
        self._folder = folder
        self._lock = lock
        self._verb = verb
        self._open = contextlib.ExitStack()
        self._open.callback(os.close, lock)
        self._open.enter_context(parent)
        self._open.enter_context(folder)
        self.data = self.run = folder

    @classmethod
    def take(cls, directory: Path, *, verb: str = "drill") -> Self:
        """Create and lock the folder in a directory, which is created if it does not exist.

        `verb` is the operation, such as `drill`. Raises RepositoryLocked if another run of it uses
        the folder, TargetUnusable if the folder cannot be used.
        """
        with contextlib.ExitStack() as stack:
            try:
                directory.mkdir(parents=True, exist_ok=True)
                parent = stack.enter_context(Folder.hold(directory.absolute()))
                for _ in range(_TRIES):
                    folder = stack.enter_context(_own(parent, verb))
                    if (lock := _lock(folder, verb)) is not None:
                        stack.pop_all()
                        return cls(parent, folder, lock, verb=verb)
            except OSError as error:
                raise _unusable(directory, error.strerror or str(error), verb) from error
        raise _unusable(directory, "other runs keep creating and removing the folder", verb)

    @property
    def leftovers(self) -> bool:
        """Return whether a killed run left files here."""
        return self._folder.names() != [_LOCK]

    def prepare(self, *, size: int) -> None:
        """Empty the folder. Raises TargetUnusable if there is no space for `size` bytes."""
        try:
            self._empty()
            self.data = self._open.enter_context(self._folder.child("data", create=True))
            self.run = self._open.enter_context(self._folder.child("run", create=True))
            free = self._folder.free
        except OSError as error:
            cause = error.strerror or str(error)
            raise _unusable(self._parent.path, cause, self._verb) from error
        if size > free:
            raise TargetUnusable(
                f"cannot {self._verb} in {self._parent.path}: it needs {counted(size, 'byte')}, "
                f"and {counted(free, 'byte')} are free",
                hint=f"set --scratch to a directory with more free space, or {self._verb} only a "
                "part with --from",
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        # If a stop signal interrupts this, start over: it is raised only once.
        try:
            self._remove()
        except StopRequest:
            self._remove()
            raise

    def _remove(self) -> None:
        if self._lock < 0:
            return
        self._empty()
        with contextlib.suppress(FileNotFoundError):
            self._folder.unlink(_LOCK)
        with contextlib.suppress(OSError):
            self._parent.rmdir(self._folder.path.name)
        self._open.close()
        self._lock = -1

    def _empty(self) -> None:
        for name in self._folder.names():
            if name != _LOCK:
                self._folder.remove(name)


def _own(parent: Folder, verb: str) -> Folder:
    """Hold the folder. Raises TargetUnusable if it is another user's: `parent` may be shared."""
    try:
        return parent.own(f"{_FOLDER}-{verb}")
    except OSError as error:
        if error.errno not in _NOT_OURS:
            raise
        cause = f"{error.filename} is not a directory of this user"
        raise _unusable(parent.path, cause, verb) from error


def _lock(folder: Folder, verb: str) -> int | None:
    """Return the descriptor of the lock, held; None if its holder removed it in the meantime.

    Raises RepositoryLocked if another run holds it.
    """
    try:
        descriptor = folder.open(_LOCK, os.O_RDWR | os.O_CREAT, 0o600)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.path.samestat(folder.status(_LOCK), os.fstat(descriptor)):
            return descriptor
    except BlockingIOError:
        os.close(descriptor)
        raise RepositoryLocked(
            f"cannot {verb} in {folder.path.parent}: another {verb} is running there",
            hint="wait for it to end, or set --scratch to another directory",
        ) from None
    except FileNotFoundError:
        pass
    os.close(descriptor)
    return None


def _unusable(directory: Path, cause: str, verb: str) -> TargetUnusable:
    return TargetUnusable(
        f"cannot {verb} in {directory}: {cause}",
        hint="set --scratch to a directory that this user may write to",
    )
