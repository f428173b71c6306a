"""Where the files of blocks stay readable: hard links in the data directory, or open files."""

import contextlib
import errno
import fcntl
import hashlib
import os
import resource
import shutil
import tempfile
from pathlib import Path
from typing import Protocol

from prometheus_backup.errors import SnapshotUnusable
from prometheus_backup.events import Listener, SnapshotLeft
from prometheus_backup.folder import Folder
from prometheus_backup.repository.layout import TOOL_FOLDER

SPARE_FILES = 256
"""Files that may still be opened for everything else."""
GONE = (errno.ENOENT, errno.ESTALE, errno.ENOTDIR)
_LINKS = "blocks"
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class CannotLink(Exception):
    """Links are not possible: another file system, no permission, or no space."""


class Place(Protocol):
    """Where blocks are held: a folder of blocks, whose files stay readable.

    `symbolic`: whether its files are symbolic links.
    """

    folder: Path
    symbolic: bool

    def make_folder(self, folder: Path) -> None:
        """Make a folder for files, in the place's own."""

    def keep(self, source: Path, target: Path) -> None:
        """Keep a file readable at `target`. Raises an OSError of `GONE` if it vanished."""

    def drop(self, name: str) -> None:
        """Let a block go."""

    def release(self, listener: Listener) -> tuple[str, ...]:
        """Let all blocks go; return a message per leftover."""


class Links:
    """Hard links in the tool's folder in the data directory. Raises CannotLink."""

    symbolic = False

    def __init__(self, data_dir: Path) -> None:
        self._data_dir = data_dir
        try:
            with Folder.hold(data_dir) as data, data.child(TOOL_FOLDER) as tool:
                self._own = tool.private(_LINKS)
        except OSError as error:
            raise CannotLink from error
        self.folder = self._own.path

    def make_folder(self, folder: Path) -> None:
        """Make a folder."""
        try:
            with self._own.at(*folder.relative_to(self.folder).parts, create=True):
                pass
        except OSError as error:
            raise CannotLink from error

    def keep(self, source: Path, target: Path) -> None:
        """Keep a file readable."""
        block, *names = target.relative_to(self.folder).parts
        try:
            with self._own.parent_of(block, "/".join(names)) as folder:
                os.link(source, names[-1], dst_dir_fd=folder.fileno(), follow_symlinks=False)
        except OSError as error:
            if error.errno in GONE:
                raise
            raise CannotLink from error

    def drop(self, name: str) -> None:
        """Let a block go."""
        with contextlib.suppress(OSError):
            self._own.remove(name)

    def release(self, listener: Listener) -> tuple[str, ...]:
        """Let all blocks go; return a message per leftover."""
        self._own.close()
        return remove_links(self._data_dir, listener=listener)


class OpenFiles:
    """Open files; the folder has links to where the kernel shows them as long as they are open."""

    symbolic = True

    def __init__(self, data_dir: Path) -> None:
        _raise_file_limit()
        self._data_dir = data_dir
        self._files: dict[str, list[int]] = {}
        try:
            self.folder, self._lock = _temporary_folder(data_dir)
        except OSError as error:
            raise self._unusable(error) from error

    def make_folder(self, folder: Path) -> None:
        """Make a folder."""
        try:
            folder.mkdir()
        except OSError as error:
            raise self._unusable(error) from error

    def keep(self, source: Path, target: Path) -> None:
        """Keep a file readable."""
        try:
            descriptor = os.open(source, _READ)
        except OSError as error:
            if error.errno in (errno.EMFILE, errno.ENFILE):
                raise too_many_files(self._data_dir) from error
            if error.errno != errno.ELOOP:
                raise
            shown = os.devnull  # a symbolic link: like this, no regular file
        else:
            name = target.relative_to(self.folder).parts[0]
            self._files.setdefault(name, []).append(descriptor)
            # Not /proc/self: blocks are checked in processes of their own.
            shown = f"/proc/{os.getpid()}/fd/{descriptor}"
        try:
            target.symlink_to(shown)
        except OSError as error:
            raise self._unusable(error) from error

    def require_spare_files(self) -> None:
        """Raise SnapshotUnusable if too few more files could be opened."""
        if sum(map(len, self._files.values())) + SPARE_FILES > file_limit():
            raise too_many_files(self._data_dir)

    def drop(self, name: str) -> None:
        """Let a block go."""
        for descriptor in self._files.pop(name, ()):
            os.close(descriptor)
        shutil.rmtree(self.folder / name, ignore_errors=True)

    def release(self, listener: Listener) -> tuple[str, ...]:
        """Let all blocks go; return a message per leftover."""
        del listener
        for name in list(self._files):
            self.drop(name)
        shutil.rmtree(self.folder, ignore_errors=True)  # links only; the next run tries again
        os.close(self._lock)
        return ()

    def _unusable(self, error: OSError) -> SnapshotUnusable:
        return SnapshotUnusable(
            f"cannot read the blocks of {self._data_dir}: cannot write into the temporary "
            f"directory: {error.strerror}",
            hint="set TMPDIR to a directory that this user may write to",
        )


def remove_links(data_dir: Path, *, listener: Listener) -> tuple[str, ...]:
    """Remove the links of a dead run; return a message if that fails. Needs the host lock."""
    folder = data_dir / TOOL_FOLDER / _LINKS
    try:
        with Folder.hold(data_dir) as data, data.child(TOOL_FOLDER) as tool:
            tool.remove(_LINKS)
    except FileNotFoundError:
        return ()
    except OSError as error:
        listener(SnapshotLeft(str(folder), error.strerror or str(error)))
        return (f"the linked blocks in {folder} could not be removed",)
    return ()


def file_limit() -> int:
    """Return how many files this process may open, once it has raised the limit itself."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    return 2**31 if hard == resource.RLIM_INFINITY else hard


def _raise_file_limit() -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def too_many_files(data_dir: Path) -> SnapshotUnusable:
    """Return the error for a data directory whose files cannot all be open at once."""
    return SnapshotUnusable(
        f"cannot read the blocks of {data_dir}: too many files would be open at once, the limit is "
        f"{file_limit():,}",
        hint="raise the limit of open files (`ulimit -n`; LimitNOFILE= in a systemd unit), or "
        "mount the data directory read-write, so that blocks can be linked",
    )


def _temporary_folder(data_dir: Path) -> tuple[Path, int]:
    """Create a folder and lock it; remove those of dead runs on the same data directory."""
    digest = hashlib.sha256(os.fsencode(data_dir.absolute())).hexdigest()[:12]
    prefix = f"prometheus-backup-blocks-{digest}-"
    for dead in Path(tempfile.gettempdir()).glob(f"{prefix}*"):
        with contextlib.suppress(OSError):
            descriptor = _locked(dead)
            shutil.rmtree(dead)
            os.close(descriptor)
    while True:
        folder = Path(tempfile.mkdtemp(prefix=prefix))
        with contextlib.suppress(FileNotFoundError, BlockingIOError):
            return folder, _locked(folder)  # else another run took it for that of a dead one


def _locked(folder: Path) -> int:
    """Return the descriptor of a folder, locked. Raises OSError if another run has it."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.path.samestat(os.fstat(descriptor), folder.stat()):
            return descriptor
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(folder))
    except OSError:
        os.close(descriptor)
        raise
