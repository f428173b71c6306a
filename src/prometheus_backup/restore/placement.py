"""Which blocks of a backup may be put beside those of a target, and why not the others. Pure.

The rules, each with the experiment that it comes from: docs/explanation/restore-safety.md.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import StrEnum

from prometheus_backup.model import rfc3339
from prometheus_backup.repository.manifest import Block

_BLOCK_SPAN = timedelta(hours=2)
_PERSISTED_AFTER = timedelta(hours=1)
"""A block of two hours is written once the head spans three (tsdb/head.go compactable)."""
_EPOCH = datetime.fromisoformat("1970-01-01T00:00:00+00:00")
_LEAST_GAP = timedelta(minutes=5)


class BlockAction(StrEnum):
    """What is done about a block of a backup."""

    PLACE = "place"
    PRESENT = "present"
    OUTSIDE = "outside"
    COVERED = "covered"
    PARENT = "parent"
    DIFFERENT = "different"
    REPLACES = "replaces"
    UNDELETES = "undeletes"
    IN_MEMORY = "in-memory"

    @property
    def left_out(self) -> bool:
        """Tell whether data stays missing that was asked for: the restore is done in part only."""
        return self in _LEFT_OUT


_LEFT_OUT = {
    BlockAction.DIFFERENT,
    BlockAction.REPLACES,
    BlockAction.UNDELETES,
    BlockAction.IN_MEMORY,
}


@dataclass(frozen=True, slots=True)
class TargetBlock:
    """A block that the target has; `in_order` unless it was made of late samples.

    `differs` says that a block of the backup has the same ULID and other bytes in `index` or
    `chunks`; `deletions` that series were deleted from it.
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
        """Return the blocks that it was made of, and itself."""
        return frozenset((self.ulid, *self.sources, *self.parents))

    @property
    def has_deletions(self) -> bool:
        """Tell whether it has less than its sources, by tombstones or once these were cleaned."""
        # clean_tombstones writes a block that names its parent, and itself as its only source
        # (tsdb/compact.go Write).
        return self.deletions or bool(self.parents and self.sources == (self.ulid,))


@dataclass(frozen=True, slots=True)
class TargetBlocks:
    """What a target has. `memory_from` is where its samples in memory or WAL begin; None: none.

    `unreadable` are directories named as blocks that cannot be read as such.
    """

    blocks: tuple[TargetBlock, ...] = ()
    unreadable: frozenset[str] = frozenset()
    memory_from: datetime | None = None

    @property
    def placeable_until(self) -> datetime | None:
        """Return the latest end of a block that costs no sample in memory; None is no limit.

        At a start, and when the head is cut, Prometheus drops from memory what is older than the
        newest end of the blocks in order (tsdb/db.go Open, reload). So far as a block of the
        target's own reaches, that has happened.
        """
        if self.memory_from is None:
            return None
        return max(self.memory_from, *(b.max_time for b in self.blocks if b.in_order), _EPOCH)


NOTHING = TargetBlocks()


@dataclass(frozen=True, slots=True)
class TimeRange:
    """The part of a backup that is asked for; None is open."""

    start: datetime | None = None
    end: datetime | None = None

    def meets(self, block: Block) -> bool:
        """Tell whether the block may have samples in the range."""
        return (self.start is None or block.max_time > self.start) and (
            self.end is None or block.min_time < self.end
        )


EVERYTHING = TimeRange()


@dataclass(frozen=True, slots=True)
class Placement:
    """A block of a backup and what is done about it.

    `overlaps` are blocks of the target that it shares time with: Prometheus merges them.
    `not_before` is about when a block that is left out for the samples in memory can be placed.
    """

    block: Block
    standing: BlockAction
    reason: str = ""
    overlaps: tuple[str, ...] = ()
    not_before: datetime | None = None


@dataclass(frozen=True, slots=True)
class Span:
    """A stretch of time, half open."""

    start: datetime
    end: datetime


@dataclass(frozen=True, slots=True)
class PlacementPlanner:
    """Decides about the blocks of one backup for one target."""

    held: TargetBlocks
    wanted: TimeRange = EVERYTHING
    undelete: bool = False
    _covered: frozenset[str] = field(init=False)

    def __post_init__(self) -> None:
        covered = frozenset(s for b in self.held.blocks for s in b.sources)
        object.__setattr__(self, "_covered", covered)

    def place(self, blocks: Iterable[Block]) -> tuple[Placement, ...]:
        """Return what is done about each block, newest first."""
        newest_first = sorted(blocks, key=lambda b: (b.max_time, b.ulid), reverse=True)
        decided = [self._decide(block) for block in newest_first]
        children = {
            parent: p.block.ulid
            for p in decided
            if p.standing is BlockAction.PLACE
            for parent in p.block.parents
        }
        return tuple(
            replace(p, standing=BlockAction.PARENT, reason=_is_parent(children[p.block.ulid]))
            if p.standing is BlockAction.PLACE and p.block.ulid in children
            else p
            for p in decided
        )

    def _decide(self, block: Block) -> Placement:
        if not self.wanted.meets(block):
            return Placement(block, BlockAction.OUTSIDE, "outside of the time asked for")
        for rule in (
            self._present,
            self._parent,
            self._covers_nothing_new,
            self._replaces,
            self._undeletes,
            self._in_memory,
        ):
            if (placement := rule(block)) is not None:
                return placement
        overlaps = tuple(b.ulid for b in self.held.blocks if _overlap(b, block))
        return Placement(block, BlockAction.PLACE, overlaps=overlaps)

    def _present(self, block: Block) -> Placement | None:
        if block.ulid in self.held.unreadable:
            reason = "a directory of this name is there and is no sound block; `heal` mends it"
            return Placement(block, BlockAction.DIFFERENT, reason)
        for other in self.held.blocks:
            if other.ulid != block.ulid:
                continue
            if other.differs:
                reason = "a block of this name with other bytes is there; `heal` mends it"
                return Placement(block, BlockAction.DIFFERENT, reason)
            return Placement(block, BlockAction.PRESENT, "already there")
        return None

    def _parent(self, block: Block) -> Placement | None:
        # Prometheus would delete it when it is loaded (tsdb/db.go reloadBlocks).
        child = next((b.ulid for b in self.held.blocks if block.ulid in b.parents), None)
        return Placement(block, BlockAction.PARENT, _is_parent(child)) if child else None

    def _covers_nothing_new(self, block: Block) -> Placement | None:
        if not block.sources or not self._covered.issuperset(block.sources):
            return None
        sources = set(block.sources)
        by = sorted(b.ulid for b in self.held.blocks if not sources.isdisjoint(b.sources))
        named = by[0] if len(by) == 1 else f"{by[0]} and {len(by) - 1} more"
        return Placement(block, BlockAction.COVERED, f"its samples are in {named}")

    def _replaces(self, block: Block) -> Placement | None:
        gone = [b.ulid for b in self.held.blocks if b.ulid in block.parents]
        if not gone:
            return None
        reason = f"it names {gone[0]}, which is there, as its parent: Prometheus would delete that"
        return Placement(block, BlockAction.REPLACES, reason)

    def _undeletes(self, block: Block) -> Placement | None:
        if self.undelete:
            return None
        for other in self.held.blocks:
            if other.has_deletions and not other.lineage.isdisjoint((block.ulid, *block.sources)):
                reason = f"it has series that were deleted from {other.ulid}"
                return Placement(block, BlockAction.UNDELETES, reason)
        return None

    def _in_memory(self, block: Block) -> Placement | None:
        until = self.held.placeable_until
        if until is None or block.max_time <= until:
            return None
        reason = (
            f"it ends after {rfc3339(until)}, where samples in memory begin: Prometheus would lose "
            "the older ones of these at its next start"
        )
        return Placement(
            block, BlockAction.IN_MEMORY, reason, not_before=_persisted(block.max_time)
        )


def gaps(
    covered: Iterable[Span], window: Span, *, least: timedelta = _LEAST_GAP
) -> tuple[Span, ...]:
    """Return the stretches of the window that nothing covers, if they last at least so long."""
    found = []
    reached = window.start
    for span in sorted(covered, key=lambda s: s.start):
        if span.start >= window.end:
            break
        if span.start - reached >= least:
            found.append(Span(reached, span.start))
        reached = max(reached, span.end)
    if window.end - reached >= least:
        found.append(Span(reached, window.end))
    return tuple(found)


def _is_parent(child: str) -> str:
    return f"{child} was made of it: Prometheus would delete it again"


def _overlap(held: TargetBlock, block: Block) -> bool:
    return held.min_time < block.max_time and block.min_time < held.max_time


def _persisted(instant: datetime) -> datetime:
    """Return about when a running Prometheus has its samples up to an instant in blocks."""
    spans = -((_EPOCH - instant) // _BLOCK_SPAN)  # rounded up
    return _EPOCH + spans * _BLOCK_SPAN + _PERSISTED_AFTER
