"""A directory that is held open, so that nothing is written, removed or given away through a link.

Whoever may write to a directory can rename what is in it and put a link there at any moment. If
root restores into the data directory of another user, a path must therefore not be resolved again
for each step. A `Folder` stays the same directory, and what is in it is reached by one name at a
time, relative to it, without following links. Reading by path is harmless, and not covered.
"""

import contextlib
import errno
import os
import shutil
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, NoReturn, Self

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_NO_LINK = os.O_NOFOLLOW | os.O_CLOEXEC
# Opening a pipe would wait for its other end.
_NO_WAITING = os.O_NONBLOCK
_PRIVATE_MODE = 0o700
_FOLDER_MODE, _FILE_MODE = 0o755, 0o644
"""The modes that Prometheus uses, whatever our umask is."""
_WRITABLE_BY_OTHERS = 0o022
_MAX_FILE = 16 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Owner:
    """The owner of files: numeric user and group."""

    uid: int
    gid: int


class Folder:
    """A directory that is held open; a context manager that closes it.

    `path` is where it was found, for messages and for reading. Every method raises OSError, with
    the path of what it is about.
    """

    def __init__(self, path: Path, descriptor: int) -> None:
        self.path = path
        self._descriptor = descriptor

    @classmethod
    def hold(cls, path: Path) -> Self:
        """Hold a directory that the user of this program chose: links in this path are followed."""
        return cls(path, os.open(path, _DIRECTORY))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Close it. Does nothing if it is closed."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def child(self, name: str, *, create: bool = False) -> "Folder":
        """Hold a directory in this one, and with `create` make it if it does not exist."""
        with self._about(name):
            if create:
                with contextlib.suppress(FileExistsError):
                    os.mkdir(name, _FOLDER_MODE, dir_fd=self._descriptor)
            descriptor = os.open(name, _DIRECTORY | _NO_LINK, dir_fd=self._descriptor)
        return Folder(self.path / name, descriptor)

    @contextlib.contextmanager
    def at(self, *names: str, create: bool = False) -> Iterator["Folder"]:
        """Hold a directory below this one, or this one if there is no name."""
        with contextlib.ExitStack() as stack:
            folder = self
            for name in names:
                folder = stack.enter_context(folder.child(name, create=create))
            yield folder

    @contextlib.contextmanager
    def parent_of(self, block: str, path: str, *, create: bool = False) -> Iterator["Folder"]:
        """Hold the directory of a file in a block; `path` is relative to the block."""
        with self.at(block, *PurePosixPath(path).parts[:-1], create=create) as folder:
            yield folder

    def private(self, name: str) -> "Folder":
        """Hold a directory in this one that no other user can change. Make it if need be.

        What another user has put there under this name is removed.
        """
        with contextlib.suppress(FileNotFoundError):
            status = self.status(name)
            if not (stat.S_ISDIR(status.st_mode) and _is_ours(status)):
                self.remove(name)
        return self.own(name)

    def own(self, name: str) -> "Folder":
        """Hold a directory in this one that no other user can change. Make it if need be.

        Raises PermissionError if another user can change it.
        """
        with self._about(name), contextlib.suppress(FileExistsError):
            os.mkdir(name, _PRIVATE_MODE, dir_fd=self._descriptor)
        folder = self.child(name)
        if not _is_ours(os.fstat(folder.fileno())):
            folder.close()
            raise PermissionError(errno.EPERM, "another user can change it", str(folder.path))
        return folder

    @property
    def free(self) -> int:
        """Return the free space of its file system in bytes."""
        status = os.fstatvfs(self._descriptor)
        return status.f_bavail * status.f_frsize

    def fileno(self) -> int:
        """Return its descriptor, for a child process."""
        return self._descriptor

    def status(self, name: str) -> os.stat_result:
        """Return the status of an entry, which may be a link."""
        with self._about(name):
            return os.stat(name, dir_fd=self._descriptor, follow_symlinks=False)

    def exists(self, name: str) -> bool:
        """Return whether there is an entry of this name, of whatever kind."""
        try:
            self.status(name)
        except FileNotFoundError:
            return False
        return True

    def is_link(self, name: str) -> bool:
        """Return whether an entry is a symbolic link."""
        return stat.S_ISLNK(self.status(name).st_mode)

    def names(self) -> list[str]:
        """Return the names of all entries, sorted."""
        return sorted(entry.name for entry in os.scandir(self._descriptor))

    def open(self, name: str, flags: int, mode: int = _FILE_MODE) -> int:
        """Return the descriptor of a regular file."""
        flags |= _NO_LINK | _NO_WAITING
        with self._about(name):
            descriptor = os.open(name, flags, mode, dir_fd=self._descriptor)
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                os.close(descriptor)
                raise OSError(errno.EINVAL, "it is not a regular file")
        return descriptor

    def create(self, name: str) -> IO[bytes]:
        """Open a new, empty file for writing; a file or link of this name is replaced."""
        with contextlib.suppress(FileNotFoundError):
            self.unlink(name)
        return os.fdopen(self.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL), "wb")

    def create_empty(self, name: str, owner: Owner | None) -> None:
        """Create an empty file for this owner, unless there is an entry of this name. Sync it."""
        with contextlib.suppress(FileExistsError):
            descriptor = self.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
            try:
                _settle(descriptor, _FILE_MODE, owner)
            finally:
                os.close(descriptor)

    def reader(self, name: str, *, owner: Owner | None = None) -> IO[bytes]:
        """Open a regular file for reading.

        With the `owner` that it or its contents will be given to, raises PermissionError if it is
        the file of somebody else: if we are root, a hard link may have been put there for this.
        """
        file = os.fdopen(self.open(name, os.O_RDONLY), "rb")
        status = os.fstat(file.fileno())
        if owner and os.geteuid() == 0 and status.st_uid != owner.uid and status.st_nlink > 1:
            file.close()
            cause = "it is a hard link to a file of another user"
            raise PermissionError(errno.EPERM, cause, str(self.path / name))
        return file

    def read(self, name: str) -> bytes:
        """Return the contents of a small file."""
        with self.reader(name) as file:
            data = file.read(_MAX_FILE + 1)
        if len(data) > _MAX_FILE:
            raise OSError(errno.EFBIG, os.strerror(errno.EFBIG), str(self.path / name))
        return data

    def write(self, name: str, data: bytes) -> None:
        """Create or replace a file: after a crash it has either its old or its new contents."""
        part = f"{name}.new"
        with self.create(part) as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        self.move(part, self, name)

    def move(self, name: str, to: "Folder", new_name: str) -> None:
        """Rename an entry, also into another directory of the same file system."""
        with self._about(name):
            os.rename(name, new_name, src_dir_fd=self._descriptor, dst_dir_fd=to.fileno())

    def link(self, name: str, to: "Folder", new_name: str, *, owner: Owner | None) -> None:
        """Hard-link a file into another directory. Raises PermissionError as `reader` does."""
        with self.reader(name, owner=owner) as file, self._about(name):
            os.link(
                name,
                new_name,
                src_dir_fd=self._descriptor,
                dst_dir_fd=to.fileno(),
                follow_symlinks=False,
            )
            if not os.path.samestat(os.fstat(file.fileno()), to.status(new_name)):
                to.unlink(new_name)
                raise PermissionError(errno.EPERM, "it was replaced by another file")

    def unlink(self, name: str) -> None:
        """Remove a file or a link."""
        with self._about(name):
            os.unlink(name, dir_fd=self._descriptor)

    def rmdir(self, name: str) -> None:
        """Remove an empty directory."""
        with self._about(name):
            os.rmdir(name, dir_fd=self._descriptor)

    def remove(self, name: str) -> None:
        """Remove an entry with everything in it."""
        if stat.S_ISDIR(self.status(name).st_mode):
            with self._about(name):
                shutil.rmtree(name, dir_fd=self._descriptor)
        else:
            self.unlink(name)

    def sync(self) -> None:
        """Sync the entries of this directory, so that they survive a crash."""
        os.fsync(self._descriptor)

    def require_owner(self, owner: Owner | None) -> None:
        """Raise OSError if we cannot give files in this directory to this owner."""
        probe = "owner.probe"
        with self.create(probe) as file, self._about(probe):
            _chown(file.fileno(), owner)
        self.unlink(probe)

    def hand_over(self, name: str, owner: Owner | None) -> None:
        """Give a block the modes that Prometheus uses and, if we are root, its owner. Sync it.

        Raises OSError if anything but directories and regular files is in it.
        """
        walk = os.fwalk(name, topdown=False, onerror=_raise, dir_fd=self._descriptor)
        for parent, folders, files, descriptor in walk:
            with Folder(self.path / parent, os.dup(descriptor)) as folder:
                for file in (*filter(folder.is_link, folders), *files):
                    with folder.reader(file) as opened:
                        _settle(opened.fileno(), _FILE_MODE, owner)
                _settle(descriptor, _FOLDER_MODE, owner)

    def give_ours(self, name: str, owner: Owner) -> None:
        """If we are root, give what belongs to root below a directory to another user.

        Files with another hard link are left: they may have been put there to be given away.
        """
        for parent, _, files, descriptor in os.fwalk(name, topdown=False, dir_fd=self._descriptor):
            with Folder(self.path / parent, os.dup(descriptor)) as folder:
                for file in files:
                    with (
                        contextlib.suppress(OSError),  # a link, or gone
                        folder.reader(file) as opened,
                    ):
                        status = os.fstat(opened.fileno())
                        if _is_ours(status) and status.st_nlink == 1:
                            _chown(opened.fileno(), owner)
            if _is_ours(os.fstat(descriptor)):
                _chown(descriptor, owner)

    @contextlib.contextmanager
    def _about(self, name: str) -> Iterator[None]:
        """Add the path of an entry to an OSError, which otherwise has the name alone."""
        try:
            yield
        except OSError as error:
            cause = os.strerror(error.errno) if error.errno else str(error)
            text = error.strerror or cause
            raise OSError(error.errno, text, str(self.path / name)) from error


def _is_ours(status: os.stat_result) -> bool:
    return status.st_uid == os.geteuid() and not status.st_mode & _WRITABLE_BY_OTHERS


def _chown(descriptor: int, owner: Owner | None) -> None:
    """Set the owner if we are root; else `require_owner` has checked that it is ours."""
    if owner is not None and os.geteuid() == 0:
        os.fchown(descriptor, owner.uid, owner.gid)


def _settle(descriptor: int, mode: int, owner: Owner | None) -> None:
    os.fchmod(descriptor, mode)
    _chown(descriptor, owner)
    os.fsync(descriptor)


def _raise(error: OSError) -> NoReturn:
    """Make os.fwalk report a folder that it cannot list: it would pass over it silently."""
    raise error
