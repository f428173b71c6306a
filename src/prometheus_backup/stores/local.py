"""A local directory as a store. Needs no server.

obstore's own local store is not used because it copies by hard link, so that one damaged inode
would damage every backup that shares it, and because it cannot fsync.
"""

import contextlib
import errno
import fcntl
import os
import re
import shutil
import stat
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO

from prometheus_backup.errors import (
    BackupToolError,
    ObjectExists,
    ObjectNotFound,
    RepositoryDenied,
    RepositoryFull,
    RepositoryUnavailable,
)
from prometheus_backup.model import ObjectInfo, PutOptions
from prometheus_backup.stores.upload_body import UploadBody

_STAGED = ".staged-"
"""Prefix of files that are being written. Listings never show them."""
_STAGED_NAME = re.compile(re.escape(_STAGED) + "[0-9a-f]{32}")
_STAGE_ATTEMPTS = 1000
_CHUNK = 1024 * 1024
_FICLONE = 0x40049409  # linux/fs.h: share the blocks of a file, copy on write
_NO_REFLINK = {errno.EOPNOTSUPP, errno.EXDEV, errno.EINVAL, errno.ENOTTY, errno.ENOSYS}


_PATH_HINT = "correct REPOSITORY: it must be a directory, or one that can be created"


class _NotAFile(OSError):
    """Something that a read could wait for forever."""


class LocalStore:
    """Objects as files below a directory, which the first put creates."""

    def __init__(self, root: Path) -> None:
        self._root = root

    @property
    def url(self) -> str:
        """Return the directory as a file URL."""
        return f"file://{self._root}"

    @property
    def keeps_checksums(self) -> bool:
        """Return False: files have no checksums."""
        return False

    def ping(self) -> None:
        """Check that the directory, or the nearest existing parent of it, can be used."""
        path = self._root
        with self._translated("list", ""):
            while not path.exists() and path != path.parent:
                path = path.parent
            if not path.is_dir():
                raise RepositoryUnavailable(
                    f"cannot use {self.url}: {path} is not a directory", hint=_PATH_HINT
                )
            if not os.access(path, os.R_OK | os.X_OK):
                raise PermissionError(errno.EACCES, f"no permission to read {path}")

    def now(self, *, probe: str) -> datetime:
        """Return the file system's time, as it sets it on the directory: that takes no space."""
        del probe
        with self._translated("ask the time of", ""):
            if not self._root.exists():
                return datetime.now(UTC)
            os.utime(self._root)
            return _info("", self._root.stat()).modified

    def put(self, key: str, body: Iterable[bytes], *, size: int, options: PutOptions) -> None:
        """Store an object from chunks: write a staged file, sync it, rename it."""
        del size, options

        upload = UploadBody(body)
        try:
            self._store(key, lambda file: file.writelines(upload), finish=os.replace)
        except BackupToolError:
            upload.raise_producer_error()
            raise

    def put_small(self, key: str, body: bytes, *, options: PutOptions) -> None:
        """Store a small object, replacing an existing one."""
        self.put(key, [body], size=len(body), options=options)

    def create(self, key: str, body: bytes, *, options: PutOptions) -> None:
        """Store a small object if the key is free: link(2) fails if the name exists."""
        del options
        self._store(key, lambda file: file.write(body), finish=_link_new)

    def get(self, key: str, *, limit: int) -> bytes:
        """Return a whole object."""
        with self._translated("read", key), _open(self._path(key)) as file:
            body = file.read(limit + 1)
        if len(body) > limit:
            raise RepositoryUnavailable(
                f"cannot read {self.url}/{key}: it is larger than {limit:,} bytes"
            )
        return body

    def stream(self, key: str) -> Iterator[bytes]:
        """Yield an object in chunks."""
        with self._translated("read", key), _open(self._path(key)) as file:
            while chunk := file.read(_CHUNK):
                yield chunk

    def head(self, key: str) -> ObjectInfo:
        """Return size and time of last modification."""
        with self._translated("read", key):
            status = self._path(key).stat()
            _require_file(status)
        return _info(key, status)

    def list(self, folder: str = "") -> Iterator[ObjectInfo]:
        """Yield every object below `folder`."""
        for entry, key in self._entries(folder):
            if self._is_folder(entry, key):
                yield from self.list(key)
            elif info := self._look_at(entry, key):
                yield info

    def list_folders(self) -> Sequence[str]:
        """Return the names of the folders directly below the root that hold any object."""
        return sorted(key for entry, key in self._entries("") if self._holds_objects(entry, key))

    def list_files(self, folder: str) -> Sequence[ObjectInfo]:
        """Return the objects directly in `folder`."""
        found = [
            self._look_at(entry, key)
            for entry, key in self._entries(folder)
            if not self._is_folder(entry, key)
        ]
        return [info for info in found if info]

    def _holds_objects(self, entry: os.DirEntry[str], key: str) -> bool:
        """Return whether it is a folder, or a link to one, with an object in it.

        Also True if that cannot be known: a backup must not be taken for absent.
        """
        try:
            with self._translated("list", key):
                dangling = entry.is_symlink() and not Path(entry.path).exists()
                is_folder = dangling or entry.is_dir()
            return is_folder and any(True for _ in self.list(key))
        except (RepositoryDenied, RepositoryUnavailable):
            return True

    def _is_folder(self, entry: os.DirEntry[str], key: str) -> bool:
        with self._translated("list", key):
            return entry.is_dir(follow_symlinks=False)

    def _look_at(self, entry: os.DirEntry[str], key: str) -> ObjectInfo | None:
        """Return an object of a listing; None if it was deleted since."""
        with self._translated("list", key), contextlib.suppress(FileNotFoundError):
            return _info(key, entry.stat(follow_symlinks=False))
        return None

    def copy(self, source: str, target: str, *, size: int, options: PutOptions) -> None:
        """Copy an object: by reflink if the file system supports it, otherwise byte for byte."""
        del size, options
        with self._translated("copy", source), _open(self._path(source)) as original:
            self._store(target, lambda file: _clone(original, file), finish=os.replace)

    def delete(self, keys: Sequence[str]) -> None:
        """Delete objects and the directories that become empty."""
        failed: list[BackupToolError] = []
        for key in keys:
            path = self._path(key)
            try:
                with (
                    self._translated("delete", key),
                    contextlib.suppress(IsADirectoryError, NotADirectoryError),
                ):
                    path.unlink(missing_ok=True)
            except BackupToolError as error:
                failed.append(error)
                continue
            for folder in path.parents:
                if folder == self._root or not _clear(folder):
                    break
        if failed:
            raise failed[0]

    def remove_unfinished(self, folders: Iterable[str]) -> None:
        """Remove the staged files of dead writers at the root and below these folders.

        One that cannot be removed is left: no listing shows it.
        """
        with self._translated("list", ""):
            inside = [p for folder in folders for p in self._path(folder).rglob(f"{_STAGED}*")]
            found = [*self._root.glob(f"{_STAGED}*"), *inside]
        for path in found:
            if _STAGED_NAME.fullmatch(path.name):
                with contextlib.suppress(OSError):
                    _remove_abandoned(path)

    def stored_checksum(self, key: str) -> str | None:
        """Return None: files have no checksums."""
        self.head(key)
        return None

    def _path(self, key: str) -> Path:
        return self._root / key

    def _store(
        self,
        key: str,
        write: Callable[[BinaryIO], object],
        *,
        finish: Callable[[Path, Path], None],
    ) -> None:
        path = self._path(key)
        with self._translated("put", key):
            staged, file = self._stage(path)
            try:
                with file:
                    write(file)
                    file.flush()
                    os.fsync(file.fileno())
                    finish(staged, path)  # while the file is locked
                for folder in path.parents:  # they may be new as well
                    _sync_folder(folder)
                    if folder == self._root:
                        break
            finally:
                staged.unlink(missing_ok=True)

    def _stage(self, path: Path) -> tuple[Path, BinaryIO]:
        # A concurrent deletion may remove the folder while it is still empty: try again.
        for _ in range(_STAGE_ATTEMPTS):
            with contextlib.suppress(FileNotFoundError, FileExistsError):
                path.parent.mkdir(parents=True, exist_ok=True)
            staged = path.parent / f"{_STAGED}{uuid.uuid4().hex}"
            try:
                file = staged.open("xb")
            except FileNotFoundError:
                continue
            fcntl.flock(file, fcntl.LOCK_EX)  # held while it is written: see _remove_abandoned
            if staged.exists():
                return staged, file
            file.close()
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))

    def _entries(self, folder: str) -> Sequence[tuple[os.DirEntry[str], str]]:
        """Return the entries of a folder with their keys, sorted by full key."""
        with self._translated("list", folder):
            try:
                with os.scandir(self._root / folder) as scan:
                    entries = [e for e in scan if not e.name.startswith(_STAGED)]
            except FileNotFoundError:
                self._require_no_dangling_link(folder)
                return []
            except NotADirectoryError:
                return []

        def order(entry: os.DirEntry[str]) -> bytes:
            return os.fsencode(
                entry.name + "/" if entry.is_dir(follow_symlinks=False) else entry.name
            )

        start = f"{folder}/" if folder else ""
        return [(entry, start + entry.name) for entry in sorted(entries, key=order)]

    def _require_no_dangling_link(self, folder: str) -> None:
        path = self._path(folder)
        if path.is_symlink():
            raise RepositoryUnavailable(
                f"cannot list {self.url}/{folder}: it is a link to {path.readlink()}, which does "
                "not exist",
                hint="mount the volume that it points to, or remove the link",
            )

    @contextlib.contextmanager
    def _translated(self, verb: str, key: str) -> Iterator[None]:
        place = f"{self.url}/{key}" if key else self.url
        try:
            yield
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError) as error:
            if verb == "put":  # a file in the place of a folder, or the reverse
                raise RepositoryUnavailable(
                    f"cannot put {place}: {error.strerror}", hint=_PATH_HINT
                ) from error
            raise ObjectNotFound(f"cannot {verb} {place}: no such object") from error
        except _NotAFile as error:
            raise RepositoryUnavailable(
                f"cannot {verb} {place}: it is a pipe, a socket or a device, not a file",
                hint="remove it, and find out what put it into the repository",
            ) from error
        except FileExistsError as error:
            raise ObjectExists(f"cannot {verb} {place}: it exists") from error
        except PermissionError as error:
            raise RepositoryDenied(
                f"cannot {verb} {place}: {error.strerror}",
                hint="check the owner and mode of the repository's directory",
            ) from error
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise RepositoryFull(f"cannot {verb} {place}: {error.strerror}") from error
            raise RepositoryUnavailable(
                f"cannot {verb} {place}: {error.strerror}",
                hint="check the disk or the mount of the repository",
            ) from error


def _open(path: Path) -> BinaryIO:
    """Open a file to read. To open a pipe without a writer would wait, so that does not block."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        _require_file(os.fstat(descriptor))
    except OSError:
        os.close(descriptor)
        raise
    return os.fdopen(descriptor, "rb")


def _require_file(status: os.stat_result) -> None:
    if stat.S_ISDIR(status.st_mode):
        raise IsADirectoryError
    if not stat.S_ISREG(status.st_mode):
        raise _NotAFile


def _link_new(staged: Path, path: Path) -> None:
    path.hardlink_to(staged)


def _clear(folder: Path) -> bool:
    """Remove a folder without objects, and abandoned staged files; return whether it is gone."""
    try:
        with os.scandir(folder) as scan:
            for entry in scan:
                path = folder / entry.name
                if entry.is_dir(follow_symlinks=False):
                    if not _clear(path):
                        return False
                elif not (entry.name.startswith(_STAGED) and _remove_abandoned(path)):
                    return False
        if folder.is_symlink():
            folder.unlink()
        else:
            folder.rmdir()
    except FileNotFoundError:
        return True
    except OSError:
        return False  # another process put an object, or we may not remove it
    return True


def _remove_abandoned(staged: Path) -> bool:
    """Remove a staged file if its writer is dead (its lock is free); return whether it is gone."""
    with contextlib.suppress(FileNotFoundError), _open(staged) as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        staged.unlink()
    return True


def _clone(source: BinaryIO, target: BinaryIO) -> None:
    try:
        fcntl.ioctl(target.fileno(), _FICLONE, source.fileno())
    except OSError as error:
        if error.errno not in _NO_REFLINK:
            raise
        shutil.copyfileobj(source, target, _CHUNK)


def _sync_folder(folder: Path) -> None:
    with contextlib.suppress(FileNotFoundError):  # the object has been deleted already
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _info(key: str, status: os.stat_result) -> ObjectInfo:
    modified = datetime.fromtimestamp(status.st_mtime, UTC)
    return ObjectInfo(key, status.st_size, modified, str(status.st_mtime_ns))
