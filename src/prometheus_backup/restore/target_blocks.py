"""The blocks and the head of a target, as far as the placement of other blocks depends on them."""

from dataclasses import dataclass
from datetime import datetime

from prometheus_backup.spans import Span

_NO_BLOCK = "0" * 26
EPOCH = datetime.fromisoformat("1970-01-01T00:00:00+00:00")


@dataclass(frozen=True, slots=True)
class TargetBlock:
    """A block in the target; `in_order` is False for a block of out-of-order samples.

    `differs`: the backup has a block with the same ULID but other bytes in `index` or `chunks`.
    `deletions`: the block has tombstones. `tombstones` is the SHA-256 of their file, `deleted` the
    time that they cover; None is unknown. `samples` and `series` are counts; 0 is unknown.
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
    tombstones: str = ""
    deleted: Span | None = None
    samples: int = 0
    series: int = 0

    @property
    def lineage(self) -> frozenset[str]:
        """Return the ULIDs of this block and of all blocks it was compacted from."""
        return frozenset((self.ulid, *self.sources, *self.parents))

    @property
    def has_deletions(self) -> bool:
        """Return whether series were deleted: it has tombstones, or they were cleaned."""
        return self.deletions or self.rewritten

    @property
    def rewritten(self) -> bool:
        """Return whether clean_tombstones wrote this block, without the deleted series."""
        # It has a parent, and itself as the only source (tsdb/compact.go Write).
        # A block of stale series does too, but that parent is no block.
        return bool(set(self.parents) - {_NO_BLOCK}) and self.sources == (self.ulid,)


@dataclass(frozen=True, slots=True)
class TargetBlocks:
    """The blocks and the head of a target.

    `unreadable` holds the names of block directories that cannot be read. `memory_from` is the
    start of the samples in memory or the WAL, None if there are none. `version` is that of the
    target's Prometheus, "" if unknown.
    """

    blocks: tuple[TargetBlock, ...] = ()
    unreadable: frozenset[str] = frozenset()
    memory_from: datetime | None = None
    version: str = ""

    @property
    def placeable_until(self) -> datetime | None:
        """Return the latest end a block may have without dropping samples in memory; None: any.

        When Prometheus starts or compacts the head, it drops samples from memory that are older
        than the end of its newest in-order block (tsdb/db.go Open, reload). Up to the end of the
        target's own blocks this has already happened.
        """
        if self.memory_from is None:
            return None
        return max(self.memory_from, *(b.max_time for b in self.blocks if b.in_order), EPOCH)


NO_BLOCKS = TargetBlocks()
