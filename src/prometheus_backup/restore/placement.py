"""Decide which blocks of a backup can be added to a target, and why not the others. Pure.

docs/explanation/restore-safety.md lists the rules and the experiment behind each.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import StrEnum

from prometheus_backup.model import rfc3339
from prometheus_backup.prometheus.encodings import Requirement, evident_encodings, requirement
from prometheus_backup.prometheus.retention import BLOCK_SPAN, FIRST_BLOCK_AFTER
from prometheus_backup.repository.manifest import Block
from prometheus_backup.restore.deletions import DeletionFinder, Undeletion
from prometheus_backup.restore.target_blocks import EPOCH, TargetBlock, TargetBlocks
from prometheus_backup.spans import MIN_HOLE, Span, subtract

_PERSISTED_AFTER = FIRST_BLOCK_AFTER - BLOCK_SPAN
_FAR_FUTURE = datetime.fromisoformat("2200-01-01T00:00:00+00:00")
"""No retention that Prometheus accepts (292 years at most) keeps other blocks next to such one."""


class BlockAction(StrEnum):
    """What a restore does with a block of the backup."""

    PLACE = "place"
    UNDELETE = "undelete"
    PRESENT = "present"
    OUTSIDE = "outside"
    COVERED = "covered"
    PARENT = "parent"
    DIFFERENT = "different"
    REPLACES = "replaces"
    UNDELETES = "undeletes"
    IN_MEMORY = "in-memory"
    FAR_FUTURE = "far-future"
    NEWER_CHUNKS = "newer-chunks"

    @property
    def places(self) -> bool:
        """Return whether the block, or a copy of it, is placed."""
        return self in (BlockAction.PLACE, BlockAction.UNDELETE)

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
    BlockAction.NEWER_CHUNKS,
}


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
    `not_before` is the approximate time from which an IN_MEMORY block can be placed. `copy` is the
    ULID under which an UNDELETE block is placed. `deleted`: samples of it were deleted in the
    target and stay deleted.
    """

    block: Block
    action: BlockAction
    reason: str = ""
    overlaps: tuple[str, ...] = ()
    not_before: datetime | None = None
    copy: str = ""
    deleted: bool = False

    @property
    def name(self) -> str:
        """Return the ULID that the block has in the target."""
        return self.copy or self.block.ulid


@dataclass(frozen=True, slots=True)
class PlacementPlanner:
    """Decides for each block of a backup whether it can be placed in the target.

    `accept_undeleted`: also place a block as it is if deleted series return with it. `undelete`:
    place a copy of each block of which samples were deleted in the target.
    """

    target: TargetBlocks
    time_range: TimeRange = ALL_TIME
    accept_undeleted: bool = False
    undelete: bool = False
    _covered: frozenset[str] = field(init=False)

    def __post_init__(self) -> None:
        covered = frozenset(s for b in self.target.blocks for s in b.sources)
        object.__setattr__(self, "_covered", covered)

    def plan(self, blocks: Iterable[Block]) -> tuple[Placement, ...]:
        """Return a placement for each block, newest first."""
        newest_first = sorted(blocks, key=lambda b: (b.max_time, b.ulid), reverse=True)
        deletions = DeletionFinder(self.target, newest_first)
        decided = [self._decide(block, deletions.find(block)) for block in newest_first]
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

    def _decide(self, block: Block, deletion: Undeletion | None) -> Placement:
        if not self.time_range.overlaps(block):
            return Placement(block, BlockAction.OUTSIDE, "outside the requested time range")
        if (placement := self._different(block)) is not None:
            return placement
        if deletion is None:
            return self._decide_undeleted(block)
        if deletion.there:
            reason = f"its deleted samples are already back, in {deletion.copy}"
            return self._present(block) or Placement(block, BlockAction.COVERED, reason)
        if not self.undelete:
            placement = self._decide_undeleted(block)
            return replace(placement, deleted=not placement.action.places)
        reason = f"its deleted samples return in the copy {deletion.copy}"
        copied = Placement(block, BlockAction.UNDELETE, reason, copy=deletion.copy)
        for rule in (self._far_future, self._newer_chunks, self._in_memory):
            if (placement := rule(block)) is not None:
                return placement
        return copied

    def _decide_undeleted(self, block: Block) -> Placement:
        for rule in (
            self._present,
            self._far_future,
            self._newer_chunks,
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

    def _different(self, block: Block) -> Placement | None:
        if block.ulid in self.target.unreadable:
            reason = "the target's block of this name cannot be read; `heal` can repair it"
            return Placement(block, BlockAction.DIFFERENT, reason)
        if any(b.ulid == block.ulid and b.differs for b in self.target.blocks):
            reason = "the target's block of this name has different bytes; `heal` can repair it"
            return Placement(block, BlockAction.DIFFERENT, reason)
        return None

    def _present(self, block: Block) -> Placement | None:
        if any(b.ulid == block.ulid for b in self.target.blocks):
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

    def _newer_chunks(self, block: Block) -> Placement | None:
        # Prometheus opens such a block, but then it fails queries and stops compacting.
        version = self.target.version
        needed = needed_release(block, version=version) if version else None
        if needed is None:
            return None
        reason = f"it {needed}, and this is {version}"
        return Placement(block, BlockAction.NEWER_CHUNKS, reason)

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
        if self.accept_undeleted:
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


def needed_release(block: Block, *, version: str) -> Requirement | None:
    """Return what a Prometheus of this version, "" if unknown, cannot read of a block."""
    encodings = block.encodings
    return requirement(
        evident_encodings(block.stats) if encodings is None else encodings, version=version
    )


def gaps(
    covered: Iterable[Span], window: Span, *, min_length: timedelta = MIN_HOLE
) -> tuple[Span, ...]:
    """Return the parts of the window that no span covers and that last at least `min_length`."""
    return tuple(s for s in subtract([window], covered) if s.length >= min_length)


def _is_parent(child: str) -> str:
    return f"Prometheus would delete it again: it is a parent of {child}"


def _overlap(other: TargetBlock, block: Block) -> bool:
    return other.min_time < block.max_time and block.min_time < other.max_time


def _persisted(instant: datetime) -> datetime:
    """Return about when a running Prometheus has written its samples before `instant` to blocks."""
    spans = -((EPOCH - instant) // BLOCK_SPAN)  # rounded up
    return EPOCH + spans * BLOCK_SPAN + _PERSISTED_AFTER
