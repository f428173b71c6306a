"""Read a block directory: its meta.json and the list of its files. Checks no contents.

Format: prometheus tsdb/block.go BlockMeta and tsdb/docs/format.
"""

import json
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from prometheus_backup.errors import SnapshotUnusable
from prometheus_backup.model import SourceBlock, SourceFile
from prometheus_backup.repository.layout import check_path, is_ulid

META = "meta.json"
MUTABLE = frozenset({META, "tombstones"})
"""Files that Prometheus replaces under the same ULID (delete_series, a failed compaction). `index`
and `chunks/*` are written once (tsdb/block.go, tsdb/compact.go)."""


def read_blocks(folder: Path) -> tuple[SourceBlock, ...]:
    """Read every block of a snapshot or data directory, ordered by time.

    Raises SnapshotUnusable if one cannot be read. Ignores entries that are not named like a block.
    """
    try:
        names = sorted(e.name for e in os.scandir(folder) if is_ulid(e.name))
    except OSError as error:
        raise SnapshotUnusable(f"cannot read {folder}: {error.strerror}") from error
    blocks = [read_block(folder / name) for name in names]
    return tuple(sorted(blocks, key=lambda b: (b.min_time_ms, b.max_time_ms, b.ulid)))


def read_block(folder: Path) -> SourceBlock:
    """Read one block. Raises SnapshotUnusable if it is not one, or cannot be read."""
    meta = read_meta(folder)
    if meta is None:
        raise SnapshotUnusable(f"cannot read block {folder}: its {META} is missing or not readable")
    try:
        files = tuple(_files(folder))
        compaction = meta.get("compaction", {})
        return SourceBlock(
            ulid=meta["ulid"],
            min_time_ms=int(meta["minTime"]),
            max_time_ms=int(meta["maxTime"]),
            level=int(compaction.get("level", 1)),
            sources=tuple(compaction.get("sources") or ()),
            parents=tuple(p["ulid"] for p in compaction.get("parents") or ()),
            stats={k: int(v) for k, v in meta.get("stats", {}).items()},
            files=files,
        )
    except OSError as error:
        raise SnapshotUnusable(f"cannot read block {folder}: {error.strerror}") from error
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise SnapshotUnusable(f"cannot read block {folder}: {error!r}") from error


def read_meta(folder: Path) -> dict[str, Any] | None:
    """Return a block's meta.json, or None if it is missing or cannot be read."""
    try:
        meta = json.loads((folder / META).read_bytes())
    except (OSError, ValueError):
        return None
    return meta if isinstance(meta, dict) and is_ulid(str(meta.get("ulid"))) else None


def live_ulids(data_dir: Path) -> frozenset[str]:
    """Return the ULIDs of the blocks in a data directory: from meta.json, else from the name."""
    try:
        names = [e.name for e in os.scandir(data_dir) if is_ulid(e.name)]
    except OSError as error:
        raise SnapshotUnusable(f"cannot read {data_dir}: {error.strerror}") from error
    return frozenset((read_meta(data_dir / name) or {"ulid": name})["ulid"] for name in names)


def _files(folder: Path) -> Iterator[SourceFile]:
    for parent, folders, names in os.walk(folder):
        folders.sort()
        for name in sorted(names):
            path = Path(parent, name)
            status = path.lstat()
            if not stat.S_ISREG(status.st_mode):
                raise ValueError(f"{path} is not a regular file")
            yield SourceFile(check_path(path.relative_to(folder).as_posix()), status.st_size)
