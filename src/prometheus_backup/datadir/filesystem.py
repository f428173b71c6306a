"""Check that blocks can be moved into a data directory, set their owner and modes, sync files.

Permissions, owner, file system and free space are checked before the first byte is written.
"""

import contextlib
import errno
import os
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from prometheus_backup.errors import BackupToolError, BytesDiffer, TargetUnusable
from prometheus_backup.model import counted
from prometheus_backup.repository.manifest import Block
from prometheus_backup.tsdb.block import read_block

_RESERVED_SPACE = 64 * 1024 * 1024
_FOLDER_MODE, _FILE_MODE = 0o755, 0o644
"""The modes that Prometheus uses, whatever our umask is."""


@dataclass(frozen=True, slots=True)
class Owner:
    """The owner of files: numeric user and group."""

    uid: int
    gid: int


@contextlib.contextmanager
def target_errors(target: Path, *, verb: str = "restore into") -> Iterator[None]:
    """Turn OSErrors into TargetUnusable; `verb` is the operation for the message."""
    try:
        yield
    except BackupToolError:
        raise
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        raise TargetUnusable(
            f"cannot {verb} {target}: {error.strerror} ({error.filename})",
            hint="free disk space, then run the same command again to resume"
            if full
            else "run as a user that may write there, or choose another directory",
        ) from error


def require_writable(directory: Path, folders: Iterable[Path], *, cannot: str) -> None:
    """Raise TargetUnusable if blocks cannot be renamed from `folders`, inside `directory`, into it.

    `cannot` is the start of the message, such as `cannot restore into /srv/data`. Raises OSError.
    """
    if os.statvfs(directory).f_flag & os.ST_RDONLY:
        raise TargetUnusable(
            f"{cannot}: {directory} is mounted read-only",
            hint="mount it read-write, or choose another directory",
        )
    if not os.access(directory, os.W_OK | os.X_OK):
        raise TargetUnusable(
            f"{cannot}: no permission to write to {directory}",
            hint="run as a user that may write there, or choose another directory",
        )
    for folder in folders:
        elsewhere = folder.exists() and folder.stat().st_dev != directory.stat().st_dev
        if folder.is_symlink() or elsewhere:
            raise TargetUnusable(
                f"{cannot}: {folder} is on another file system, so blocks cannot be renamed "
                "from there",
                hint=f"move {folder} away",
            )
        if folder.exists() and not os.access(folder, os.W_OK | os.X_OK):
            raise TargetUnusable(f"{cannot}: no permission to write to {folder}")


def require_owner(wanted: Owner | None, *, cannot: str) -> None:
    """Raise TargetUnusable if we cannot give files the owner that Prometheus runs as."""
    if wanted is None or os.geteuid() == 0 or wanted.uid == os.geteuid():
        return
    raise TargetUnusable(
        f"{cannot}: its files must belong to user {wanted.uid}, but this command runs as user "
        f"{os.geteuid()}",
        hint=f"run as user {wanted.uid}, or as root: Prometheus must own its blocks",
    )


def require_free_space(directory: Path, staging: Path, size: int, *, cannot: str) -> None:
    """Raise TargetUnusable if there is no space for `size` bytes; staged files count as free."""
    staged = sum(f.stat().st_size for f in staging.rglob("*") if f.is_file())
    free = shutil.disk_usage(directory).free + staged
    if size + _RESERVED_SPACE > free:
        raise TargetUnusable(
            f"{cannot}: it needs {counted(size, 'byte')} and a reserve of {_RESERVED_SPACE:,}; "
            f"{counted(free, 'byte')} are free",
            hint="free disk space, or choose another directory",
        )


def require_matching_meta(staged: Path, block: Block) -> None:
    """Raise BytesDiffer if the block's meta.json does not match the manifest.

    Prometheus deletes the blocks that a meta.json names as parents, so a manifest without them
    could make the target lose data.
    """
    found = read_block(staged)
    expected = (block.ulid, *block.times_ms)
    if (found.ulid, found.min_time_ms, found.max_time_ms) != expected or (
        (found.sources, found.parents) != (block.sources, block.parents)
    ):
        raise BytesDiffer(
            f"cannot restore block {block.ulid}: its meta.json does not match the manifest",
            hint="this backup's metadata.json was modified or replaced: restore another backup",
        )


def set_owner_and_modes(block: Path, owner: Owner | None) -> None:
    """Give a block the modes that Prometheus uses and, if we are root, the owner."""
    for path in (block, *block.rglob("*")):
        path.chmod(_FOLDER_MODE if path.is_dir() else _FILE_MODE)
        if owner is not None:
            chown(path, owner)


def chown(path: Path, owner: Owner) -> None:
    """Set the owner of a file if we are root; else `require_owner` has checked that it is ours."""
    if os.geteuid() == 0:
        os.chown(path, owner.uid, owner.gid, follow_symlinks=False)


def sync_folder(folder: Path) -> None:
    """Sync a folder, so that its entries survive a crash."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_durably(path: Path, data: bytes) -> None:
    """Create or replace a file: after a crash, it has either its old or its new contents."""
    staged = path.with_name(f"{path.name}.new")
    with staged.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    staged.replace(path)
