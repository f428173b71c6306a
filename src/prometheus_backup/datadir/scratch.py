"""A folder for one run at a time, in a directory of the user's: empty at its begin and its end.

Drills have one, and verifications another. What a run left that was killed is found by the next one
there: it holds the lock, so the other is dead. Nothing outside of the folder is ever touched.
"""

import contextlib
import fcntl
import os
import shutil
import stat
from pathlib import Path
from typing import Self

from prometheus_backup.errors import RepositoryLocked, StopRequest, TargetUnusable

_FOLDER = "prometheus-backup"
_LOCK = "lock"
_TRIES = 5


class Scratch:
    """The folder, locked. Restore into `data`; `run` is for all else. A context manager."""

    def __init__(self, folder: Path, descriptor: int, *, verb: str) -> None:
        self._folder = folder
        self._verb = verb
        self._descriptor = descriptor
        self.data = folder / "data"
        self.run = folder / "run"

    @classmethod
    def take(cls, directory: Path, *, verb: str = "drill") -> Self:
        """Take the folder in a directory, which is made if it is not there.

        `verb` is what is done there. Raises RepositoryLocked where another run does the same in it,
        TargetUnusable where it cannot be used.
        """
        folder = directory.absolute() / f"{_FOLDER}-{verb}"  # Prometheus works in another directory
        try:
            for _ in range(_TRIES):
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)
                _require_own(folder, verb)
                if (descriptor := _locked(folder, verb)) is not None:
                    return cls(folder, descriptor, verb=verb)
        except OSError as error:
            raise _unusable(directory, error.strerror or str(error), verb) from error
        raise _unusable(directory, "others make and remove it all the time", verb)

    @property
    def leftovers(self) -> bool:
        """Tell whether a run that was killed left something here."""
        return any(entry.name != _LOCK for entry in self._folder.iterdir())

    def prepare(self, *, size: int) -> None:
        """Empty the folder, and see that there is room for so many bytes in `data`.

        Raises TargetUnusable where there is not.
        """
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
                f"cannot {self._verb} in {self._folder.parent}: {size:,} bytes are needed, "
                f"{free:,} are free",
                hint="name a directory with more room with --scratch, or drill a part with --from",
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        # Also when the signal to stop comes only now: as an exception it comes once.
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
    """The directory may be one that all users write to: the folder in it must be ours."""
    status = folder.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid():
        raise _unusable(folder.parent, f"{folder} is not a directory of this user", verb)


def _locked(folder: Path, verb: str) -> int | None:
    """Return the lock, held; None where its holder removed it meanwhile, and it must be made again.

    Raises RepositoryLocked where another run holds it.
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
            f"cannot {verb} in {folder.parent}: another {verb} is at work there",
            hint="wait for it to end, or name another directory with --scratch",
        ) from None
    except FileNotFoundError:
        pass
    os.close(descriptor)
    return None


def _unusable(directory: Path, cause: str, verb: str) -> TargetUnusable:
    return TargetUnusable(
        f"cannot {verb} in {directory}: {cause}",
        hint="name a directory that this user may write to with --scratch",
    )
