"""What it takes to put blocks into a data directory: permission, room, one file system, an owner.

All is looked at before the first byte is written.
"""

import contextlib
import errno
import os
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from prometheus_backup.errors import BackupToolError, BytesDiffer, TargetUnusable
from prometheus_backup.model import ms_from_instant
from prometheus_backup.repository.manifest import Block
from prometheus_backup.tsdb.block import read_block

_ROOM_TO_SPARE = 64 * 1024 * 1024
_FOLDER_MODE, _FILE_MODE = 0o755, 0o644
"""As Prometheus makes them, whatever our umask is."""


@dataclass(frozen=True, slots=True)
class Owner:
    """Who owns files: numeric user and group."""

    uid: int
    gid: int


@contextlib.contextmanager
def target_errors(target: Path, *, verb: str = "restore into") -> Iterator[None]:
    """Turn what the system says of the target into TargetUnusable; `verb` is what is being done."""
    try:
        yield
    except BackupToolError:
        raise
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        raise TargetUnusable(
            f"cannot {verb} {target}: {error.strerror} ({error.filename})",
            hint="free some room, then run the same command again: it continues"
            if full
            else "run as a user that may write there, or choose another directory",
        ) from error


def require_writable(place: Path, folders: Iterable[Path], *, cannot: str) -> None:
    """Raise TargetUnusable where blocks cannot be moved into `place` from these folders in it.

    `cannot` begins the message, such as `cannot restore into /srv/data`. Raises OSError.
    """
    if os.statvfs(place).f_flag & os.ST_RDONLY:
        raise TargetUnusable(
            f"{cannot}: {place} is mounted read-only",
            hint="mount it for writing, or choose another directory",
        )
    if not os.access(place, os.W_OK | os.X_OK):
        raise TargetUnusable(
            f"{cannot}: no permission to write to {place}",
            hint="run as a user that may write there, or choose another directory",
        )
    for folder in folders:
        elsewhere = folder.exists() and folder.stat().st_dev != place.stat().st_dev
        if folder.is_symlink() or elsewhere:
            raise TargetUnusable(
                f"{cannot}: {folder} is on another file system, and whole blocks are to be "
                "moved from there by renaming",
                hint=f"move {folder} away",
            )
        if folder.exists() and not os.access(folder, os.W_OK | os.X_OK):
            raise TargetUnusable(f"{cannot}: no permission to write to {folder}")


def require_owner(wanted: Owner | None, *, cannot: str) -> None:
    """Raise TargetUnusable where files would be somebody's who cannot delete them later."""
    if wanted is None or os.geteuid() == 0 or wanted.uid == os.geteuid():
        return
    raise TargetUnusable(
        f"{cannot}: its files must belong to user {wanted.uid}, and this runs as user "
        f"{os.geteuid()}",
        hint=f"run as user {wanted.uid}, or as root: Prometheus must own its blocks",
    )


def require_room(place: Path, staging: Path, size: int, *, cannot: str) -> None:
    """Raise TargetUnusable where there is no room for so many bytes, of which some are staged."""
    staged = sum(f.stat().st_size for f in staging.rglob("*") if f.is_file())
    free = shutil.disk_usage(place).free + staged
    if size + _ROOM_TO_SPARE > free:
        raise TargetUnusable(
            f"{cannot}: {size:,} bytes are needed, {free:,} are free",
            hint="free some room, or choose another directory",
        )


def require_as_announced(staged: Path, block: Block) -> None:
    """Raise BytesDiffer where meta.json is not what the plan was made from.

    Prometheus deletes the blocks that a meta.json names as parents: a manifest that hides them
    would cost the target its own data.
    """
    found = read_block(staged)
    said = (block.ulid, *map(ms_from_instant, (block.min_time, block.max_time)))
    if (found.ulid, found.min_time_ms, found.max_time_ms) != said or (
        (found.sources, found.parents) != (block.sources, block.parents)
    ):
        raise BytesDiffer(
            f"cannot restore block {block.ulid}: its meta.json is not what the manifest says of it",
            hint="this backup's metadata.json was tampered with, or is another's: restore another",
        )


def hand_over(block: Path, owner: Owner | None) -> None:
    """Give a block the modes that Prometheus gives, and an owner, if we may."""
    for path in (block, *block.rglob("*")):
        path.chmod(_FOLDER_MODE if path.is_dir() else _FILE_MODE)
        if owner is not None:
            chown(path, owner)


def chown(path: Path, owner: Owner) -> None:
    """Give a file an owner, where we are root; else it is ours, which was found to be right."""
    if os.geteuid() == 0:
        os.chown(path, owner.uid, owner.gid, follow_symlinks=False)
