"""Look at the directory that is restored into: its blocks, its samples in memory, its Prometheus.

Nothing is written here. What follows from what is seen is decided in `restore_plan`.
"""

from __future__ import annotations

import errno
import fcntl
import grp
import os
import pwd
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prometheus_backup.datadir.filesystem import Owner, target_errors
from prometheus_backup.errors import (
    SnapshotUnusable,
    SourceUnavailable,
    TargetUnusable,
    TargetWouldLoseData,
    UsageError,
)
from prometheus_backup.events import LongStepBegan, LongStepEnded
from prometheus_backup.model import SourceBlock, instant_from_ms
from prometheus_backup.prometheus.instance import count_readable, serves
from prometheus_backup.prometheus.retention import TsdbRetention, parse_tsdb_retention
from prometheus_backup.repository.layout import TOOL_FOLDER, is_ulid
from prometheus_backup.repository.manifest import Block, Manifest
from prometheus_backup.restore.placement import NOTHING, TargetBlock, TargetBlocks
from prometheus_backup.transfer import HashedFile, Transfer, WorkerContext
from prometheus_backup.tsdb.block import MUTABLE, read_block, read_meta

if TYPE_CHECKING:  # for its types alone: importing an HTTP client takes time
    from prometheus_backup.prometheus.client import PrometheusClient, SourceStatus

HARMLESS = frozenset({"lost+found", TOOL_FOLDER})
"""What an empty target may hold."""
_IN_MEMORY = ("wal", "wbl", "chunks_head")
_OUT_OF_ORDER_HINTS = frozenset(
    # Blocks with these do not count where Prometheus looks for the newest (tsdb/db.go).
    {"from-out-of-order", "from-stale-series", "from-selected-series"}
)


@dataclass(frozen=True, slots=True)
class TargetState:
    """What a target holds, seen once. `owner` is whose its data is, None where there is none.

    `running` is the status of the Prometheus that serves it, if one answers; `retention` is that
    Prometheus'. Sizes in bytes.
    """

    held: TargetBlocks = NOTHING
    names: frozenset[str] = frozenset()
    head_size: int = 0
    owner: Owner | None = None
    running: SourceStatus | None = None
    retention: TsdbRetention | None = None
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class TargetDirectory:
    """The data directory of a target, and the Prometheus that may run on it.

    `head_from` is where the samples in its WAL begin, where the caller knows; `empty_at` is when an
    interrupted restore found it empty; `verb` is what is being done with it, for messages.
    """

    path: Path
    client: PrometheusClient | None
    transfer: Transfer
    head_from: datetime | None = None
    empty_at: datetime | None = None
    verb: str = "restore into"

    def survey(self, manifest: Manifest) -> TargetState:
        """Look. Blocks that are also in the backup are compared with it, byte for byte.

        Raises TargetUnusable where it cannot be read, TargetWouldLoseData where it cannot be told
        where its samples in memory begin, UsageError where a Prometheus runs on it and not at the
        URL, SourceUnavailable where one answers that cannot be asked.
        """
        names = self.names()
        if not self.path.exists():
            return TargetState()
        with target_errors(self.path):
            head_size = self.head_size()
            owner = self.owner(names)
        running, warnings = self.running(names) if names else (None, ())
        blocks, unreadable = self._blocks(names, manifest)
        held = TargetBlocks(blocks, unreadable)
        held = TargetBlocks(blocks, unreadable, self.memory_from(held, running, head_size))
        retention = parse_tsdb_retention(running.retention) if running else None
        return TargetState(held, names, head_size, owner, running, retention, warnings)

    def names(self) -> frozenset[str]:
        """Return what is in the directory, of what counts; nothing where it is absent.

        Raises TargetUnusable where it is no directory or cannot be read.
        """
        with target_errors(self.path):
            if not self.path.exists():
                return frozenset()
            if not self.path.is_dir():
                raise TargetUnusable(f"cannot {self.verb} {self.path}: it is not a directory")
            return frozenset(e.name for e in self.path.iterdir()) - HARMLESS

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
                unreadable.add(name)  # its name is taken, whatever is in it
            found.append(block)
        differing = self._differing(found, manifest)
        held = tuple(
            read_target_block(self.path / block.ulid, block, differs=block.ulid in differing)
            for block in found
        )
        return held, frozenset(unreadable)

    def _differing(self, found: Sequence[SourceBlock], manifest: Manifest) -> frozenset[str]:
        """Return the ULIDs of blocks whose immutable files are not those of the backup."""
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
        listener = self.transfer.listener
        listener(LongStepBegan("compare", sum(size for _, size, _ in to_read)))
        try:
            for (path, _, _), equal in self.transfer.all(to_read, _is_equal):
                if not equal:
                    differing.add(path.relative_to(self.path).parts[0])
        finally:
            listener(LongStepEnded("compare"))
        return frozenset(differing)

    def running(self, names: frozenset[str]) -> tuple[SourceStatus | None, tuple[str, ...]]:
        """Return the status of the Prometheus that serves this directory, and what to warn of.

        Raises UsageError where one runs on it and not at the URL, SourceUnavailable where one
        answers that cannot be asked.
        """
        if self.client is None:
            return None, ()
        if not self.client.answers():
            self._require_unlocked(names)
            return None, ()
        try:
            status = self.client.status()
        except SourceUnavailable as error:
            raise SourceUnavailable(
                error.message,
                hint=f"{error.hint}; or, if that is not the Prometheus of {self.path}, give "
                "--prometheus-url the address of the one that is",
            ) from error
        if not status.agent and self._is_served(status):
            return status, ()
        self._require_unlocked(names)
        warning = (
            f"the Prometheus at {self.client.url} does not store its data in {self.path}: "
            "this is taken for the directory of a stopped one"
        )
        return None, (warning,)

    def _is_served(self, status: SourceStatus) -> bool:
        """Tell whether it is proved that this Prometheus stores its data here.

        The path proves it, and so do loaded blocks that are all here. Where there are none, and
        another mount of the same volume gives it another path, the WAL that it writes to must do.
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
        """Raise UsageError where a Prometheus holds the lock of the directory."""
        # tsdb/tsdbutil/dir_locker.go: flock on <data>/lock. The file alone proves nothing.
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
                    f"cannot {self.verb} {self.path}: a Prometheus runs on it, and not at "
                    f"{self.client.url if self.client else 'a URL that is known'}",
                    hint="give --prometheus-url its address, or stop it",
                ) from None
        finally:
            os.close(descriptor)

    def head_size(self) -> int:
        """Return the bytes of what is in memory, or in the WAL to be. Raises OSError."""
        return sum(_size_of(self.path / name) for name in _IN_MEMORY)

    def memory_from(
        self, held: TargetBlocks, running: SourceStatus | None, head_size: int
    ) -> datetime | None:
        """Return where samples in memory begin, or None where there are none.

        Raises TargetWouldLoseData where that cannot be told.
        """
        if self.head_from is not None:
            return self.head_from
        if running is not None:
            return running.head_from or _start_time(running)
        if not head_size:
            return None
        # What a stopped one has in its WAL and not in blocks begins where its blocks end.
        ends = [b.max_time for b in held.blocks if b.in_order]
        if self.empty_at is not None:
            ends.append(self.empty_at)
        if not ends:
            raise TargetWouldLoseData(
                f"cannot {self.verb} {self.path}: it has a WAL and no blocks, so nobody can tell "
                "where the samples in the WAL begin, and blocks that end later would cost them",
                hint="start its Prometheus and give --prometheus-url, or say --head-from TIME",
            )
        return max(ends)

    def owner(self, names: frozenset[str]) -> Owner | None:
        """Return whose the data is: the newest block's owner, else that of the WAL or directory."""
        blocks = sorted(filter(is_ulid, names), reverse=True)
        known = [*blocks[:1], *(n for n in _IN_MEMORY if n in names)]
        status = (self.path / known[0] if known else self.path).stat()
        return Owner(status.st_uid, status.st_gid)


def holds_data(path: Path) -> bool:
    """Tell whether a directory holds anything of which a Prometheus could be asked."""
    try:
        return any(e.name not in HARMLESS for e in os.scandir(path))
    except OSError:
        return False  # absent, or of no use; the survey says so


def parse_owner(text: str) -> Owner:
    """Return the owner that `USER[:GROUP]` names, by name or number. Raises UsageError."""
    user, _, group = text.partition(":")
    try:
        uid = int(user) if user.isdigit() else pwd.getpwnam(user).pw_uid
        if group:
            return Owner(uid, int(group) if group.isdigit() else grp.getgrnam(group).gr_gid)
        return Owner(uid, pwd.getpwuid(uid).pw_gid)
    except KeyError:
        raise UsageError(
            f"cannot use owner {text!r}: this system does not know it",
            hint="give numbers, such as 65534:65534",
        ) from None


def read_target_block(folder: Path, block: SourceBlock, *, differs: bool = False) -> TargetBlock:
    """Return what matters of a block of the target."""
    return TargetBlock(
        ulid=block.ulid,
        min_time=instant_from_ms(block.min_time_ms),
        max_time=instant_from_ms(block.max_time_ms),
        sources=block.sources,
        parents=block.parents,
        size=block.size,
        in_order=in_order(read_meta(folder) or {}),
        deletions=block.stats.get("numTombstones", 0) > 0,
        differs=differs,
    )


def in_order(meta: Mapping[str, Any]) -> bool:
    """Tell whether a block, by its meta.json, is not one of late samples."""
    compaction = meta.get("compaction")
    hints = compaction.get("hints") if isinstance(compaction, dict) else None
    return not isinstance(hints, list) or _OUT_OF_ORDER_HINTS.isdisjoint(map(str, hints))


def _sizes(block: SourceBlock | Block) -> dict[str, int]:
    """Return the files that Prometheus reads and never changes; strangers do not count."""
    return {f.path: f.size for f in block.files if f.path.startswith(("index", "chunks/"))}


def _is_equal(item: tuple[Path, int, str], watch: WorkerContext) -> bool:
    path, size, sha256 = item
    file = HashedFile(path, size=size, watch=watch)
    file.read()
    return file.sha256 == sha256


def _size_of(folder: Path) -> int:
    return sum(f.stat().st_size for f in folder.rglob("*") if f.is_file())


def _start_time(status: SourceStatus) -> datetime:
    return datetime.fromisoformat(status.start_time)
