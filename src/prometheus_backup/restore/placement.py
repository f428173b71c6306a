"""Decide which blocks of a backup can be added to a target, and why not the others. Pure.

docs/explanation/restore-safety.md lists the rules and the experiment behind each.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import StrEnum

from prometheus_backup.model import rfc3339
from prometheus_backup.repository.manifest import Block
from prometheus_backup.spans import Span, subtract

_BLOCK_SPAN = timedelta(hours=2)
_PERSISTED_AFTER = timedelta(hours=1)
"""Prometheus writes a two-hour block once the head spans three hours (tsdb/head.go compactable)."""
_FAR_FUTURE = datetime.fromisoformat("2200-01-01T00:00:00+00:00")
"""No retention that Prometheus accepts (292 years at most) keeps other blocks next to such one."""
_EPOCH = datetime.fromisoformat("1970-01-01T00:00:00+00:00")
_MIN_GAP = timedelta(minutes=5)


class BlockAction(StrEnum):
    """What a restore does with a block of the backup."""

    PLACE = "place"
    PRESENT = "present"
    OUTSIDE = "outside"
    COVERED = "covered"
    PARENT = "parent"
    DIFFERENT = "different"
    REPLACES = "replaces"
    UNDELETES = "undeletes"
    IN_MEMORY = "in-memory"
    FAR_FUTURE = "far-future"

    @property
    def left_out(self) -> bool:
        """Return whether requested data stays missing, so that the restore is only partial."""
        return self in _LEFT_OUT


_LEFT_OUT = {
    BlockAction.DIFFERENT,
    BlockAction.REPLACES,
    BlockAction.UNDELETES,
    BlockAction.IN_MEMORY,
    BlockAction.FAR_FUTURE,
}


@dataclass(frozen=True, slots=True)
class TargetBlock:
    """A block in the target; `in_order` is False for a block of out-of-order samples.

    `differs`: the backup has a block with the same ULID but other bytes in `index` or `chunks`.
    `deletions`: the block has tombstones.
    """

    ulid: str
    min_time: datetime
    max_time: datetime
    sources: tuple[str, ...]
    parents: tuple[str, ...] = ()
    size: int = 0
    in_order: bool = True
    deletions: bool = False
    differs: bool = False

    @property
    def lineage(self) -> frozenset[str]:
        """Return the ULIDs of this block and of all blocks it was compacted from."""
        return frozenset((self.ulid, *self.sources, *self.parents))

    @property
    def has_deletions(self) -> bool:
        """Return whether series were deleted: it has tombstones, or they were cleaned."""
        # clean_tombstones writes a block with a parent and itself as the only source
        # (tsdb/compact.go Write).
        return self.deletions or bool(self.parents and self.sources == (self.ulid,))


@dataclass(frozen=True, slots=True)
class TargetBlocks:
    """The blocks and the head of a target.

    `unreadable` holds the names of block directories that cannot be read. `memory_from` is the
    start of the samples in memory or the WAL, None if there are none.
    """

    blocks: tuple[TargetBlock, ...] = ()
    unreadable: frozenset[str] = frozenset()
    memory_from: datetime | None = None

    @property
    def placeable_until(self) -> datetime | None:
        """Return the latest end a block may have without dropping samples in memory; None: any.

        When Prometheus starts or compacts the head, it drops samples from memory that are older
        than the end of its newest in-order block (tsdb/db.go Open, reload). Up to the end of the
        target's own blocks this has already happened.
        """
        if self.memory_from is None:
            return None
        return max(self.memory_from, *(b.max_time for b in self.blocks if b.in_order), _EPOCH)


NO_BLOCKS = TargetBlocks()


@dataclass(frozen=True, slots=True)
class TimeRange:
    """The part of a backup to restore; None is unbounded."""

    start: datetime | None = None
    end: datetime | None = None

    def overlaps(self, block: Block) -> bool:
        """Return whether the block may have samples in the range."""
        return (self.start is None or block.max_time > self.start) and (
            self.end is None or block.min_time < self.end
        )


ALL_TIME = TimeRange()


@dataclass(frozen=True, slots=True)
class Placement:
    """A block of a backup and what the restore does with it.

    `overlaps` are the target's blocks that overlap it in time: Prometheus merges them.
    `not_before` is the approximate time from which an IN_MEMORY block can be placed.
    """

    block: Block
    action: BlockAction
    reason: str = ""
    overlaps: tuple[str, ...] = ()
    not_before: datetime | None = None


@dataclass(frozen=True, slots=True)
class PlacementPlanner:
    """Decides for each block of a backup whether it can be placed in the target."""

    target: TargetBlocks
    time_range: TimeRange = ALL_TIME
    undelete: bool = False
    _covered: frozenset[str] = field(init=False)

    def __post_init__(self) -> None:
        covered = frozenset(s for b in self.target.blocks for s in b.sources)
        object.__setattr__(self, "_covered", covered)

    def plan(self, blocks: Iterable[Block]) -> tuple[Placement, ...]:
        """Return a placement for each block, newest first."""
        newest_first = sorted(blocks, key=lambda b: (b.max_time, b.ulid), reverse=True)
        decided = [self._decide(block) for block in newest_first]
        children = {
            parent: p.block.ulid
            for p in decided
            if p.action is BlockAction.PLACE
            for parent in p.block.parents
        }
        return tuple(
            replace(p, action=BlockAction.PARENT, reason=_is_parent(children[p.block.ulid]))
            if p.action is BlockAction.PLACE and p.block.ulid in children
            else p
            for p in decided
        )

    def _decide(self, block: Block) -> Placement:
        if not self.time_range.overlaps(block):
            return Placement(block, BlockAction.OUTSIDE, "outside the requested time range")
        for rule in (
            self._present,
            self._far_future,
            self._parent,
            self._covered_by_target,
            self._replaces,
            self._undeletes,
            self._in_memory,
        ):
            if (placement := rule(block)) is not None:
                return placement
        overlaps = tuple(b.ulid for b in self.target.blocks if _overlap(b, block))
        return Placement(block, BlockAction.PLACE, overlaps=overlaps)

    def _present(self, block: Block) -> Placement | None:
        if block.ulid in self.target.unreadable:
            reason = "the target's block of this name cannot be read; `heal` can repair it"
            return Placement(block, BlockAction.DIFFERENT, reason)
        for other in self.target.blocks:
            if other.ulid != block.ulid:
                continue
            if other.differs:
                reason = "the target's block of this name has different bytes; `heal` can repair it"
                return Placement(block, BlockAction.DIFFERENT, reason)
            return Placement(block, BlockAction.PRESENT, "already present")
        return None

    def _far_future(self, block: Block) -> Placement | None:
        if block.max_time < _FAR_FUTURE:
            return None
        reason = (
            f"it ends in the year {block.max_time.year} or later, by a sample with a wrong time: "
            "with it, Prometheus would delete all other blocks by its retention"
        )
        return Placement(block, BlockAction.FAR_FUTURE, reason)

    def _parent(self, block: Block) -> Placement | None:
        # Prometheus deletes the parents of a block that it loads (tsdb/db.go reloadBlocks).
        child = next((b.ulid for b in self.target.blocks if block.ulid in b.parents), None)
        return Placement(block, BlockAction.PARENT, _is_parent(child)) if child else None

    def _covered_by_target(self, block: Block) -> Placement | None:
        if not block.sources or not self._covered.issuperset(block.sources):
            return None
        sources = set(block.sources)
        by = sorted(b.ulid for b in self.target.blocks if not sources.isdisjoint(b.sources))
        names = by[0] if len(by) == 1 else f"{by[0]} and {len(by) - 1} more"
        return Placement(block, BlockAction.COVERED, f"its samples are already in {names}")

    def _replaces(self, block: Block) -> Placement | None:
        parents = [b.ulid for b in self.target.blocks if b.ulid in block.parents]
        if not parents:
            return None
        reason = f"its parent {parents[0]} is in the target and Prometheus would delete it"
        return Placement(block, BlockAction.REPLACES, reason)

    def _undeletes(self, block: Block) -> Placement | None:
        if self.undelete:
            return None
        for other in self.target.blocks:
            if other.has_deletions and not other.lineage.isdisjoint((block.ulid, *block.sources)):
                reason = f"it contains series that were deleted from {other.ulid}"
                return Placement(block, BlockAction.UNDELETES, reason)
        return None

    def _in_memory(self, block: Block) -> Placement | None:
        until = self.target.placeable_until
        if until is None or block.max_time <= until:
            return None
        reason = (
            f"it ends after {rfc3339(until)}, the start of the samples in memory: Prometheus would "
            "drop those older than the block's end at its next start"
        )
        return Placement(
            block, BlockAction.IN_MEMORY, reason, not_before=_persisted(block.max_time)
        )


def gaps(
    covered: Iterable[Span], window: Span, *, min_length: timedelta = _MIN_GAP
) -> tuple[Span, ...]:
    """Return the parts of the window that no span covers and that last at least `min_length`."""
    return tuple(s for s in subtract([window], covered) if s.length >= min_length)


def _is_parent(child: str) -> str:
    return f"Prometheus would delete it again: it is a parent of {child}"


def _overlap(other: TargetBlock, block: Block) -> bool:
    return other.min_time < block.max_time and block.min_time < other.max_time


def _persisted(instant: datetime) -> datetime:
    """Return about when a running Prometheus has written its samples before `instant` to blocks."""
    spans = -((_EPOCH - instant) // _BLOCK_SPAN)  # rounded up
    return _EPOCH + spans * _BLOCK_SPAN + _PERSISTED_AFTER
