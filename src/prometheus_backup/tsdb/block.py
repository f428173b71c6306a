"""Read a block directory: its meta.json and the list of its files. Checks no contents.

Format: prometheus tsdb/block.go BlockMeta and tsdb/docs/format.
"""

import os
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from prometheus_backup.errors import SnapshotUnusable
from prometheus_backup.model import SourceBlock, SourceFile
from prometheus_backup.repository.layout import check_path, is_ulid
from prometheus_backup.tsdb.meta import META, VERSION, UnusableMeta, load_meta, parse_meta

CHUNKS = "chunks"
"""Folder of the chunk files."""
MUTABLE = frozenset({META, "tombstones"})
"""Files that Prometheus replaces under the same ULID (delete_series, a failed compaction). `index`
and `chunks/*` are written once (tsdb/block.go, tsdb/compact.go)."""

_PARTIAL = frozenset({"from-out-of-order", "from-stale-series", "from-selected-series"})
"""Hints in meta.json (tsdb/block.go) of blocks that hold not all samples of their time."""


class BlockUnusable(SnapshotUnusable):
    """A directory that is named like a block but is none. `reason` says why."""

    def __init__(self, folder: Path, reason: str) -> None:
        super().__init__(f"cannot read block {folder}: {reason}")
        self.reason = reason


@dataclass(frozen=True, slots=True)
class BlockListing:
    """The blocks of a directory, ordered by time, and why others cannot be used, by their name."""

    blocks: tuple[SourceBlock, ...]
    unusable: Mapping[str, str]


def list_blocks(folder: Path) -> BlockListing:
    """Read every block of a snapshot or data directory.

    Raises SnapshotUnusable if the disk cannot be read. A block whose contents are wrong is listed
    as unusable. Entries that are not named like a block are ignored.
    """
    blocks: list[SourceBlock] = []
    unusable: dict[str, str] = {}
    for name in sorted(_block_names(folder)):
        try:
            blocks.append(read_block(folder / name))
        except BlockUnusable as error:
            unusable[name] = error.reason
    blocks.sort(key=lambda b: (b.min_time_ms, b.max_time_ms, b.ulid))
    return BlockListing(tuple(blocks), unusable)


def read_block(folder: Path, *, links: bool = False) -> SourceBlock:
    """Read one block. Its files may be symbolic links only with `links`.

    Raises BlockUnusable if its contents are wrong, SnapshotUnusable if the disk cannot be read.
    """
    try:
        meta = parse_meta(load_meta((folder / META).read_bytes()))
        files = tuple(_files(folder, links=links))
    except FileNotFoundError as error:
        raise BlockUnusable(folder, f"{Path(error.filename).name} is missing") from error
    except OSError as error:
        raise SnapshotUnusable(f"cannot read block {folder}: {error.strerror}") from error
    except UnusableMeta as error:
        raise BlockUnusable(folder, f"its {META} is damaged: {error}") from error
    except ValueError as error:
        raise BlockUnusable(folder, str(error)) from error
    if meta.version != VERSION:
        raise BlockUnusable(folder, f"its {META} has version {meta.version}, not {VERSION}")
    if meta.min_time_ms > meta.max_time_ms:
        raise BlockUnusable(folder, f"its {META} is damaged: it ends before it begins")
    chunks = meta.stats.get("numChunks", 0)
    if chunks and not any(f.path.startswith("chunks/") for f in files):
        raise BlockUnusable(folder, f"it should have {chunks:,} chunks and has no chunk file")
    return SourceBlock(
        ulid=meta.ulid,
        min_time_ms=meta.min_time_ms,
        max_time_ms=meta.max_time_ms,
        level=max(meta.level, 0),
        sources=meta.sources,
        parents=meta.parents,
        stats=meta.stats,
        files=files,
        hints=meta.hints,
    )


def read_meta(folder: Path) -> dict[str, Any] | None:
    """Return a block's meta.json, or None if it is missing or cannot be read."""
    try:
        meta = load_meta((folder / META).read_bytes())
    except (OSError, UnusableMeta):
        return None
    return meta if is_ulid(str(meta.get("ulid"))) else None


def live_ulids(data_dir: Path) -> frozenset[str]:
    """Return the ULIDs of the blocks in a data directory: from meta.json, else from the name."""
    names = _block_names(data_dir)
    return frozenset((read_meta(data_dir / name) or {"ulid": name})["ulid"] for name in names)


def persisted_until_ms(folder: Path) -> int | None:
    """Return the end of the newest block that ends where its samples end; None if there is none.

    Blocks of only some samples, such as those that came out of order, may end in the future, while
    samples before their end are still in memory only.
    """
    ends = [_complete_end(read_meta(folder / ulid)) for ulid in live_ulids(folder)]
    return max((end for end in ends if end is not None), default=None)


def _complete_end(meta: dict[str, Any] | None) -> int | None:
    try:
        hints = (meta or {})["compaction"].get("hints") or ()
        return int((meta or {})["maxTime"]) if _PARTIAL.isdisjoint(hints) else None
    except (KeyError, TypeError, ValueError, AttributeError):
        return None  # a block that Prometheus cannot read either


def _block_names(folder: Path) -> list[str]:
    try:
        return [e.name for e in os.scandir(folder) if is_ulid(e.name)]
    except OSError as error:
        raise SnapshotUnusable(f"cannot read {folder}: {error.strerror}") from error


def _files(folder: Path, *, links: bool) -> Iterator[SourceFile]:
    for parent, folders, names in os.walk(folder, onerror=_raise):
        folders.sort()
        for name in (*(f for f in folders if Path(parent, f).is_symlink()), *sorted(names)):
            path = Path(parent, name)
            status = path.stat() if links else path.lstat()
            relative = check_path(path.relative_to(folder).as_posix())
            if not stat.S_ISREG(status.st_mode):
                raise ValueError(f"{relative} is not a regular file")
            yield SourceFile(relative, status.st_size)


def _raise(error: OSError) -> NoReturn:
    """Make os.walk report a folder that it cannot list: it would pass over it silently."""
    raise error
