"""What a restore will do: which blocks, what retention makes of them, what to warn of. Pure."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from prometheus_backup.prometheus.retention import (
    RetainedBlock,
    RetentionNeed,
    TsdbRetention,
    deleted,
    parse_tsdb_retention,
    retention_need,
    with_next_block,
)
from prometheus_backup.repository.manifest import Block, Manifest
from prometheus_backup.restore.placement import (
    EVERYTHING,
    BlockAction,
    Placement,
    PlacementPlanner,
    Span,
    TargetBlocks,
    TimeRange,
    gaps,
)


@dataclass(frozen=True, slots=True)
class TargetView:
    """What is known of a target: its blocks, and the retention of its Prometheus.

    `retention_of` says whose retention it is, for people. `head_size` is in bytes, of WAL and head.
    """

    held: TargetBlocks
    retention: TsdbRetention | None = None
    retention_of: str = ""
    head_size: int = 0


@dataclass(frozen=True, slots=True)
class RestoreRequest:
    """What is asked for: a part of the time; deleted series, too, if `undelete`."""

    wanted: TimeRange = EVERYTHING
    undelete: bool = False


ALL = RestoreRequest()


@dataclass(frozen=True, slots=True)
class RestorePlan:
    """What is done about each block of the backup, newest first, and what becomes of the target.

    `need` keeps what is there and what is placed. `loses_held` and `loses_placed` are ULIDs that
    the target's retention would delete, because of this restore and all the same; `keeps_from` is
    the `--from` with which none of the placed would go. `gaps` stay without samples.
    """

    backup_id: str
    placements: tuple[Placement, ...]
    need: RetentionNeed | None
    retention: TsdbRetention
    retention_of: str
    loses_held: tuple[str, ...]
    loses_placed: tuple[str, ...]
    keeps_from: datetime | None
    gaps: tuple[Span, ...]
    memory_from: datetime | None
    warnings: tuple[str, ...]

    @property
    def place(self) -> tuple[Block, ...]:
        """Return the blocks to place, newest first."""
        return self._standing(BlockAction.PLACE)

    @property
    def present(self) -> tuple[Block, ...]:
        """Return the blocks that are there already."""
        return self._standing(BlockAction.PRESENT)

    @property
    def skipped(self) -> tuple[Placement, ...]:
        """Return every block that is neither placed nor there already."""
        done = (BlockAction.PLACE, BlockAction.PRESENT)
        return tuple(p for p in self.placements if p.standing not in done)

    @property
    def left_out(self) -> tuple[Placement, ...]:
        """Return what was asked for and is not done."""
        return tuple(p for p in self.placements if p.standing.left_out)

    @property
    def size(self) -> int:
        """Return the bytes to place."""
        return sum(b.size for b in self.place)

    def _standing(self, standing: BlockAction) -> tuple[Block, ...]:
        return tuple(p.block for p in self.placements if p.standing is standing)


def plan_restore(
    manifest: Manifest,
    target: TargetView,
    wish: RestoreRequest,
    *,
    now: datetime,
    caveats: Iterable[str] = (),
) -> RestorePlan:
    """Decide what to place, and foresee the rest. `caveats` are the caller's own warnings."""
    held = target.held
    placements = PlacementPlanner(held, wish.wanted, undelete=wish.undelete).place(manifest.blocks)
    placed = [_aging(p.block) for p in placements if p.standing is BlockAction.PLACE]
    there = [RetainedBlock(b.ulid, b.min_time, b.max_time, b.size) for b in held.blocks]
    retention, whose = _retention(target, manifest)
    gone = _deleted_soon(retention, [*there, *placed], target, now)
    gone_anyway = _deleted_soon(retention, there, target, now)
    lost = [b for b in placed if any(b.ulid in ulids for ulids in gone)]
    return RestorePlan(
        backup_id=manifest.backup_id,
        placements=placements,
        need=retention_need([*there, *placed], now=now, head_size=target.head_size),
        retention=retention,
        retention_of=whose,
        loses_held=_of(there, (a - b for a, b in zip(gone, gone_anyway, strict=True))),
        loses_placed=tuple(b.ulid for b in lost),
        keeps_from=max((b.max_time for b in lost), default=None),
        gaps=_gaps(manifest, held, placed, wish.wanted, now),
        memory_from=held.placeable_until,
        warnings=(*_warnings(manifest), *_target_warnings(retention, gone_anyway), *caveats),
    )


def _retention(target: TargetView, manifest: Manifest) -> tuple[TsdbRetention, str]:
    if target.retention is not None:
        return target.retention, target.retention_of
    return parse_tsdb_retention(manifest.retention_time), "the Prometheus that was backed up"


def _deleted_soon(
    retention: TsdbRetention, blocks: Sequence[RetainedBlock], target: TargetView, now: datetime
) -> tuple[frozenset[str], frozenset[str]]:
    """Return what goes at the next reload, and what once the next block is written."""
    size = target.head_size
    return (
        deleted(retention, blocks, head_size=size),
        deleted(retention, with_next_block(blocks, now=now), head_size=size),
    )


def _of(blocks: Iterable[RetainedBlock], groups: Iterable[frozenset[str]]) -> tuple[str, ...]:
    ulids = frozenset[str]().union(*groups)
    return tuple(b.ulid for b in blocks if b.ulid in ulids)


def _gaps(
    manifest: Manifest,
    held: TargetBlocks,
    placed: Sequence[RetainedBlock],
    wanted: TimeRange,
    now: datetime,
) -> tuple[Span, ...]:
    """Return the gaps that remain between the oldest and the newest that is, or is asked for."""
    spans = [Span(b.min_time, b.max_time) for b in held.blocks]
    spans += [Span(b.min_time, b.max_time) for b in placed]
    asked = [Span(b.min_time, b.max_time) for b in manifest.blocks if wanted.meets(b)]
    if held.memory_from is not None and held.memory_from < now:
        spans.append(Span(held.memory_from, now))
    if not asked:
        return ()
    start = wanted.start or min(s.start for s in (*asked, *spans))
    end = wanted.end or max(s.end for s in (*asked, *spans))
    return gaps(spans, Span(start, min(end, max(now, start))))


def _warnings(manifest: Manifest) -> Iterable[str]:
    for reason in manifest.degraded:
        yield f"this backup is degraded: {reason}"
    if manifest.verified is None:
        yield "this backup was never verified when it was made"


def _target_warnings(
    retention: TsdbRetention, gone_anyway: tuple[frozenset[str], frozenset[str]]
) -> Iterable[str]:
    if retention.unread:
        yield f"cannot foresee what retention {retention.unread!r} deletes"
    if going := frozenset[str]().union(*gone_anyway):
        yield f"{len(going)} blocks of the target go by its retention, with or without this restore"


def _aging(block: Block) -> RetainedBlock:
    return RetainedBlock(block.ulid, block.min_time, block.max_time, block.size)
