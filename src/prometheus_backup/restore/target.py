"""Read the state of a target: its blocks, its samples in memory, and its Prometheus.

This module writes nothing; `plan.py` decides what to do.
"""

from __future__ import annotations

import errno
import fcntl
import grp
import hashlib
import os
import pwd
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prometheus_backup.datadir.filesystem import target_errors
from prometheus_backup.errors import (
    SnapshotUnusable,
    SourceUnavailable,
    TargetUnusable,
    TargetWouldLoseData,
    UsageError,
)
from prometheus_backup.events import long_step
from prometheus_backup.folder import Owner
from prometheus_backup.model import SourceBlock, instant_from_ms
from prometheus_backup.prometheus.instance import count_readable, serves
from prometheus_backup.prometheus.retention import TsdbRetention, parse_tsdb_retention
from prometheus_backup.repository.layout import TOOL_FOLDER, is_ulid
from prometheus_backup.repository.manifest import Block, Manifest
from prometheus_backup.restore.target_blocks import NO_BLOCKS, TargetBlock, TargetBlocks
from prometheus_backup.spans import Span
from prometheus_backup.transfer import HashedFile, Transfer, WorkerContext
from prometheus_backup.tsdb.block import MUTABLE, read_block, read_meta
from prometheus_backup.tsdb.reading import Unsound
from prometheus_backup.tsdb.tombstones import FILE as TOMBSTONES
from prometheus_backup.tsdb.tombstones import deleted_times

if TYPE_CHECKING:  # only for its types: importing an HTTP client takes time
    from prometheus_backup.prometheus.client import PrometheusClient
    from prometheus_backup.prometheus.status import SourceStatus

IGNORED_NAMES = frozenset({"lost+found", TOOL_FOLDER})
"""Names that an empty target may contain."""
_IN_MEMORY = ("wal", "wbl", "chunks_head")
_OUT_OF_ORDER_HINTS = frozenset(
    # Prometheus ignores blocks with these hints when it looks for its newest block (tsdb/db.go).
    {"from-out-of-order", "from-stale-series", "from-selected-series"}
)


@dataclass(frozen=True, slots=True)
class TargetState:
    """The contents of a target. `owner` is the owner of its data, None if there is none.

    `running` is the status of the Prometheus that serves it, None if none answers; `retention` is
    its retention. `head_size` is in bytes.
    """

    blocks: TargetBlocks = NO_BLOCKS
    names: frozenset[str] = frozenset()
    head_size: int = 0
    owner: Owner | None = None
    running: SourceStatus | None = None
    retention: TsdbRetention | None = None
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class TargetDirectory:
    """The data directory of a target, and the Prometheus that may be using it.

    `head_from` is the start of the samples in its WAL, if the caller knows it; `empty_at` is when
    an interrupted restore found the target empty; `verb` is the operation, for messages.
    """

    path: Path
    client: PrometheusClient | None
    transfer: Transfer
    head_from: datetime | None = None
    empty_at: datetime | None = None
    verb: str = "restore into"

    def inspect(self, manifest: Manifest) -> TargetState:
        """Read the state of the target and compare its blocks with the backup, byte for byte.

        Raises TargetUnusable if it cannot be read, TargetWouldLoseData if the start of its samples
        in memory is unknown, UsageError if a Prometheus that is not at the URL uses it, and
        SourceUnavailable if a Prometheus answers but cannot be queried.
        """
        names = self.names()
        if not self.path.exists():
            return TargetState()
        with target_errors(self.path):
            head_size = self.head_size()
            owner = self.owner(names)
        running, warnings = self.running(names) if names else (None, ())
        found, unreadable = self._blocks(names, manifest)
        blocks = TargetBlocks(found, unreadable, self.memory_from(found, running, head_size))
        retention = parse_tsdb_retention(running.retention) if running else None
        return TargetState(blocks, names, head_size, owner, running, retention, warnings)

    def names(self) -> frozenset[str]:
        """Return the names in the directory, without IGNORED_NAMES; none if it does not exist.

        Raises TargetUnusable if it is not a directory or cannot be read.
        """
        with target_errors(self.path):
            if not self.path.exists():
                return frozenset()
            if not self.path.is_dir():
                raise TargetUnusable(f"cannot {self.verb} {self.path}: it is not a directory")
            return frozenset(e.name for e in self.path.iterdir()) - IGNORED_NAMES

    def _blocks(
        self, names: frozenset[str], manifest: Manifest
    ) -> tuple[tuple[TargetBlock, ...], frozenset[str]]:
        found: list[SourceBlock] = []
        unreadable = set()
        for name in sorted(filter(is_ulid, names)):
            try:
                block = read_block(self.path / name)
            except SnapshotUnusable:
                unreadable.add(name)
                continue
            if block.ulid != name:
                unreadable.add(name)  # a block of this name cannot be placed
            found.append(block)
        differing = self._differing(found, manifest)
        blocks = tuple(
            read_target_block(self.path / block.ulid, block, differs=block.ulid in differing)
            for block in found
        )
        return blocks, frozenset(unreadable)

    def _differing(self, found: Sequence[SourceBlock], manifest: Manifest) -> frozenset[str]:
        """Return the ULIDs of blocks whose immutable files differ from the backup."""
        backed_up = {b.ulid: b for b in manifest.blocks}
        pairs = [(b, backed_up[b.ulid]) for b in found if b.ulid in backed_up]
        differing = {ours.ulid for ours, theirs in pairs if _sizes(ours) != _sizes(theirs)}
        to_read = [
            (self.path / theirs.ulid / file.path, file.size, file.sha256)
            for ours, theirs in pairs
            if ours.ulid not in differing
            for file in theirs.files
            if file.path not in MUTABLE
        ]
        if not to_read:
            return frozenset(differing)
        with long_step(self.transfer.listener, "compare", sum(size for _, size, _ in to_read)):
            for (path, _, _), equal in self.transfer.all(to_read, _is_equal):
                if not equal:
                    differing.add(path.relative_to(self.path).parts[0])
        return frozenset(differing)

    def running(self, names: frozenset[str]) -> tuple[SourceStatus | None, tuple[str, ...]]:
        """Return the status of the Prometheus that serves this directory, and warnings.

        Raises UsageError if a Prometheus that is not at the URL uses the directory, and
        SourceUnavailable if one answers but cannot be queried.
        """
        if self.client is None:
            return None, ()
        if not self.client.is_listening():
            self._require_unlocked(names)
            return None, ()
        try:
            status = self.client.status()
        except SourceUnavailable as error:
            raise SourceUnavailable(
                error.message,
                hint=f"{error.hint}; or, if that is not the Prometheus that uses {self.path}, set "
                "--prometheus-url to the address of the one that does",
            ) from error
        if not status.agent and self._is_served(status):
            return status, ()
        self._require_unlocked(names)
        why = "runs in agent mode" if status.agent else f"does not store its data in {self.path}"
        warning = (
            f"the Prometheus at {self.client.url} {why}; "
            "assuming that the Prometheus that uses this directory is stopped"
        )
        return None, (warning,)

    def _is_served(self, status: SourceStatus) -> bool:
        """Return whether this Prometheus is proven to store its data here.

        Proof is the same path, or loaded blocks that are all here. If it has no blocks and sees the
        volume under another path, the proof is the WAL segment that it writes to.
        """
        if self.client is None or not serves(self.client, self.path):
            return False
        if Path(status.storage_path).resolve() == self.path.resolve():
            return True
        if self.client.loaded_blocks() or self._all_loaded():
            return True
        return self._is_written_by(status)

    def _all_loaded(self) -> bool:
        count = self.client.count_loaded_blocks() if self.client else None
        return bool(count) and count == count_readable(self.path)

    def _is_written_by(self, status: SourceStatus) -> bool:
        current = self.client.wal_segment() if self.client else None
        segments = sorted(e for e in (self.path / "wal").glob("[0-9]*") if e.is_file())
        return (
            current is not None
            and bool(segments)
            and int(segments[-1].name) == current
            and segments[-1].stat().st_mtime >= _start_time(status).timestamp()
        )

    def _require_unlocked(self, names: frozenset[str]) -> None:
        """Raise UsageError if a Prometheus has locked the directory."""
        # Prometheus locks <data>/lock with flock (tsdb/tsdbutil/dir_locker.go). The file stays
        # after a crash, so its existence alone does not matter.
        if "lock" not in names:
            return
        try:
            descriptor = os.open(self.path / "lock", os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
                raise UsageError(
                    f"cannot {self.verb} {self.path}: it is in use by a Prometheus that is not at "
                    f"{self.client.url if self.client else 'a known URL'}",
                    hint="set --prometheus-url to its address, or stop it",
                ) from None
        finally:
            os.close(descriptor)

    def head_size(self) -> int:
        """Return the size of the WAL and the head in bytes. Raises OSError."""
        return sum(_size_of(self.path / name) for name in _IN_MEMORY)

    def memory_from(
        self, blocks: Sequence[TargetBlock], running: SourceStatus | None, head_size: int
    ) -> datetime | None:
        """Return the start of the samples in memory or the WAL, None if there are none.

        Raises TargetWouldLoseData if it is unknown.
        """
        if self.head_from is not None:
            return self.head_from
        if running is not None:
            # An empty head has nothing to lose, and what comes is newer than now.
            return running.head_from or running.clock
        if not head_size:
            return None
        # The samples that a stopped Prometheus has only in its WAL start where its blocks end.
        ends = [b.max_time for b in blocks if b.in_order]
        if self.empty_at is not None:
            ends.append(self.empty_at)
        if not ends:
            raise TargetWouldLoseData(
                f"cannot {self.verb} {self.path}: it has a WAL but no blocks, so the start of the "
                "samples in the WAL is unknown; blocks that end after it would delete them",
                hint="start its Prometheus and set --prometheus-url, or use --head-from TIME",
            )
        return max(ends)

    def owner(self, names: frozenset[str]) -> Owner | None:
        """Return the owner of the newest block, else of the WAL, else of the directory."""
        blocks = sorted(filter(is_ulid, names), reverse=True)
        candidates = [*blocks[:1], *(n for n in _IN_MEMORY if n in names)]
        status = (self.path / candidates[0] if candidates else self.path).stat()
        return Owner(status.st_uid, status.st_gid)


def file_system_size(path: Path) -> int | None:
    """Return the size in bytes of the file system that a directory is or will be on.

    As Prometheus computes it (util/runtime/statfs_default.go FsSize); None if it cannot be read.
    """
    while not path.exists() and path != path.parent:
        path = path.parent
    try:
        status = os.statvfs(path)
    except OSError:
        return None
    return status.f_bsize * status.f_blocks or None


def holds_data(path: Path) -> bool:
    """Return whether a directory contains anything that a Prometheus could be using."""
    try:
        return any(e.name not in IGNORED_NAMES for e in os.scandir(path))
    except OSError:
        return False  # absent or unreadable; TargetDirectory reports it


def parse_owner(text: str) -> Owner:
    """Parse `USER[:GROUP]`, names or numbers. Raises UsageError."""
    user, _, group = text.partition(":")
    try:
        uid = int(user) if user.isdigit() else pwd.getpwnam(user).pw_uid
        if group:
            return Owner(uid, int(group) if group.isdigit() else grp.getgrnam(group).gr_gid)
        return Owner(uid, pwd.getpwuid(uid).pw_gid)
    except KeyError:
        raise UsageError(
            f"cannot use owner {text!r}: no such user or group on this system",
            hint="use numbers, such as 65534:65534",
        ) from None


def read_target_block(folder: Path, block: SourceBlock, *, differs: bool = False) -> TargetBlock:
    """Return the facts about a block of the target that placement depends on."""
    deletions = block.stats.get("numTombstones", 0) > 0
    tombstones, deleted = _deletions(folder) if deletions else ("", None)
    return TargetBlock(
        ulid=block.ulid,
        min_time=instant_from_ms(block.min_time_ms),
        max_time=instant_from_ms(block.max_time_ms),
        sources=block.sources,
        parents=block.parents,
        size=block.size,
        in_order=in_order(read_meta(folder) or {}),
        deletions=deletions,
        differs=differs,
        tombstones=tombstones,
        deleted=deleted,
        samples=block.stats.get("numSamples", 0),
        series=block.stats.get("numSeries", 0),
    )


def _deletions(folder: Path) -> tuple[str, Span | None]:
    """Return the SHA-256 of a block's tombstones and the time they cover, None if unreadable."""
    try:
        sha256 = hashlib.sha256((folder / TOMBSTONES).read_bytes()).hexdigest()
        times = deleted_times(folder)
    except (OSError, Unsound):
        return "", None
    return sha256, Span(instant_from_ms(times[0]), instant_from_ms(times[1])) if times else None


def in_order(meta: Mapping[str, Any]) -> bool:
    """Return whether a block, by its meta.json, is not one of out-of-order samples."""
    return _OUT_OF_ORDER_HINTS.isdisjoint(hints_of(meta))


def hints_of(meta: Mapping[str, Any]) -> tuple[str, ...]:
    """Return what a meta.json says about how the block was made."""
    compaction = meta.get("compaction")
    hints = compaction.get("hints") if isinstance(compaction, dict) else None
    return tuple(map(str, hints)) if isinstance(hints, list) else ()


def _sizes(block: SourceBlock | Block) -> dict[str, int]:
    """Return the sizes of the files that Prometheus never changes; other files are ignored."""
    return {f.path: f.size for f in block.files if f.path.startswith(("index", "chunks/"))}


def _is_equal(item: tuple[Path, int, str], worker: WorkerContext) -> bool:
    path, size, sha256 = item
    return HashedFile(path, size=size, worker=worker).read().sha256 == sha256


def _size_of(folder: Path) -> int:
    return sum(f.stat().st_size for f in folder.rglob("*") if f.is_file())


def _start_time(status: SourceStatus) -> datetime:
    return datetime.fromisoformat(status.start_time)
