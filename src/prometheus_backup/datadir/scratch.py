"""A scratch folder for one run at a time, inside a directory that the user chooses.

Drills and verifications use separate folders. A folder is empty when a run starts, and removed when
it ends; if a run is killed, the next one removes its leftovers. Nothing outside is touched.
"""

import contextlib
import fcntl
import os
import shutil
import stat
from pathlib import Path
from typing import Self

from prometheus_backup.errors import RepositoryLocked, StopRequest, TargetUnusable
from prometheus_backup.model import counted

_FOLDER = "prometheus-backup"
_LOCK = "lock"
_TRIES = 5


class Scratch:
    """The locked scratch folder: blocks go into `data`, other files into `run`. Context manager."""

    def __init__(self, folder: Path, descriptor: int, *, verb: str) -> None:
        self._folder = folder
        self._verb = verb
        self._descriptor = descriptor
        self.data = folder / "data"
        self.run = folder / "run"

    @classmethod
    def take(cls, directory: Path, *, verb: str = "drill") -> Self:
        """Create and lock the folder in a directory, which is created if it does not exist.

        `verb` is the operation, such as `drill`. Raises RepositoryLocked if another run of it uses
        the folder, TargetUnusable if the folder cannot be used.
        """
        # Absolute, because Prometheus is started in another working directory.
        folder = directory.absolute() / f"{_FOLDER}-{verb}"
        try:
            for _ in range(_TRIES):
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)
                _require_own(folder, verb)
                if (descriptor := _lock(folder, verb)) is not None:
                    return cls(folder, descriptor, verb=verb)
        except OSError as error:
            raise _unusable(directory, error.strerror or str(error), verb) from error
        raise _unusable(directory, "other runs keep creating and removing the folder", verb)

    @property
    def leftovers(self) -> bool:
        """Return whether a killed run left files here."""
        return any(entry.name != _LOCK for entry in self._folder.iterdir())

    def prepare(self, *, size: int) -> None:
        """Empty the folder. Raises TargetUnusable if there is no space for `size` bytes."""
        try:
            self._empty()
            self.data.mkdir()
            self.run.mkdir()
            free = shutil.disk_usage(self._folder).free
        except OSError as error:
            cause = error.strerror or str(error)
            raise _unusable(self._folder.parent, cause, self._verb) from error
        if size > free:
            raise TargetUnusable(
                f"cannot {self._verb} in {self._folder.parent}: it needs {counted(size, 'byte')}, "
                f"and {counted(free, 'byte')} are free",
                hint="set --scratch to a directory with more free space, or drill only a part with "
                "--from",
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
        if self._descriptor < 0:
            return
        self._empty()
        (self._folder / _LOCK).unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            self._folder.rmdir()
        os.close(self._descriptor)
        self._descriptor = -1

    def _empty(self) -> None:
        for entry in self._folder.iterdir():
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry)
            elif entry.name != _LOCK:
                entry.unlink()


def _require_own(folder: Path, verb: str) -> None:
    """Raise TargetUnusable if the folder belongs to another user: `directory` may be shared."""
    status = folder.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid():
        raise _unusable(folder.parent, f"{folder} is not a directory of this user", verb)


def _lock(folder: Path, verb: str) -> int | None:
    """Return the descriptor of the lock, held; None if its holder removed it in the meantime.

    Raises RepositoryLocked if another run holds it.
    """
    path = folder / _LOCK
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.path.samestat(path.stat(), os.fstat(descriptor)):
            return descriptor
    except BlockingIOError:
        os.close(descriptor)
        raise RepositoryLocked(
            f"cannot {verb} in {folder.parent}: another {verb} is running there",
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
