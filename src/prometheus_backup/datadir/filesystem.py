"""Check that blocks can be moved into a data directory.

Permissions, owner, file system and free space are checked before the first byte is written.
"""

import contextlib
import errno
import os
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path

from prometheus_backup.errors import BackupToolError, BytesDiffer, TargetUnusable
from prometheus_backup.folder import Folder, Owner
from prometheus_backup.model import counted
from prometheus_backup.repository.manifest import Block
from prometheus_backup.tsdb.block import BlockUnusable
from prometheus_backup.tsdb.meta import META, UnusableMeta, load_meta, parse_meta

_RESERVED_SPACE = 64 * 1024 * 1024


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
        if folder.is_symlink():
            raise TargetUnusable(
                f"{cannot}: {folder} is a link", hint=f"move {folder} away: links are not followed"
            )
        if folder.exists() and folder.stat().st_dev != directory.stat().st_dev:
            raise TargetUnusable(
                f"{cannot}: {folder} is on another file system, so blocks cannot be renamed "
                "from there",
                hint=f"move {folder} away",
            )
        if folder.exists() and not os.access(folder, os.W_OK | os.X_OK):
            raise TargetUnusable(
                f"{cannot}: no permission to write to {folder}",
                hint="run as the user of the interrupted run that left it, or as root",
            )


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
    staged = sum(f.lstat().st_size for f in staging.rglob("*") if f.is_file())
    free = shutil.disk_usage(directory).free + staged
    if size + _RESERVED_SPACE > free:
        raise TargetUnusable(
            f"{cannot}: it needs {counted(size, 'byte')} and a reserve of {_RESERVED_SPACE:,}; "
            f"{counted(free, 'byte')} are free",
            hint="free disk space, or choose another directory",
        )


def require_matching_meta(staged: Folder, block: Block) -> None:
    """Raise BytesDiffer if the meta.json of a block does not match the manifest.

    Prometheus deletes the blocks that a meta.json names as parents, so a manifest without them
    could make the target lose data.
    """
    try:
        found = parse_meta(load_meta(staged.read(META)))
    except (UnusableMeta, ValueError, FileNotFoundError) as error:
        raise BlockUnusable(staged.path, f"its {META} is damaged: {error}") from error
    expected = (block.ulid, *block.times_ms)
    if (found.ulid, found.min_time_ms, found.max_time_ms) != expected or (
        (found.sources, found.parents) != (block.sources, block.parents)
    ):
        raise BytesDiffer(
            f"cannot restore block {block.ulid}: its meta.json does not match the manifest",
            hint="this backup's metadata.json was modified or replaced: restore another backup",
        )
