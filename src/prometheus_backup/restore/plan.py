"""Plan a restore: which blocks to place, what retention would delete, what to warn about. Pure."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from prometheus_backup.model import rfc3339
from prometheus_backup.prometheus.encodings import Requirement, strictest
from prometheus_backup.prometheus.retention import (
    RetainedBlock,
    RetentionNeed,
    TsdbRetention,
    deleted,
    parse_tsdb_retention,
    retention_need,
    with_next_block,
)
from prometheus_backup.prometheus.versions import NEWER_CHUNKS, is_before
from prometheus_backup.repository.manifest import Block, Manifest
from prometheus_backup.restore.placement import (
    ALL_TIME,
    BlockAction,
    Placement,
    PlacementPlanner,
    TimeRange,
    gaps,
    needed_release,
)
from prometheus_backup.restore.target_blocks import TargetBlock, TargetBlocks
from prometheus_backup.spans import Span


@dataclass(frozen=True, slots=True)
class TargetView:
    """The target's blocks and the retention of its Prometheus.

    `retention_of` describes where the retention comes from, for messages. `head_size` is the size
    of the WAL and the head in bytes, `file_system_size` that of the file system, None if unknown.
    """

    blocks: TargetBlocks
    retention: TsdbRetention | None = None
    retention_of: str = ""
    head_size: int = 0
    file_system_size: int | None = None


@dataclass(frozen=True, slots=True)
class RestoreRequest:
    """What to restore: a time range; the other fields are those of PlacementPlanner."""

    time_range: TimeRange = ALL_TIME
    accept_undeleted: bool = False
    undelete: bool = False


WHOLE_BACKUP = RestoreRequest()
NOTHING_AHEAD: Mapping[str, Collection[str]] = {}
_STALE_SERIES = frozenset({"from-stale-series", "from-selected-series"})
_OUT_OF_ORDER = "from-out-of-order"


@dataclass(frozen=True, slots=True)
class RestorePlan:
    """What happens to each block of the backup, newest first, and to the target's data.

    `need` is the retention that keeps both existing and restored blocks, `retention` the one that
    the target is expected to have. `loses_existing` are ULIDs
    of existing blocks that retention would delete because of this restore; `loses_restored` are
    those of restored blocks that it would delete. `keeps_from` is the `--from` that avoids this.
    `gaps` are the times that remain without samples. `needs` is what the target's Prometheus must
    be able to read, if its version is unknown.
    """

    backup_id: str
    placements: tuple[Placement, ...]
    need: RetentionNeed | None
    retention: TsdbRetention
    retention_of: str
    loses_existing: tuple[str, ...]
    loses_restored: tuple[str, ...]
    keeps_from: datetime | None
    gaps: tuple[Span, ...]
    memory_from: datetime | None
    needs: Requirement | None
    warnings: tuple[str, ...]

    @property
    def placed(self) -> tuple[Placement, ...]:
        """Return the placements of the blocks to place, newest first."""
        return tuple(p for p in self.placements if p.action.places)

    @property
    def place(self) -> tuple[Block, ...]:
        """Return the blocks to place, newest first."""
        return tuple(p.block for p in self.placed)

    @property
    def copies(self) -> Mapping[str, str]:
        """Return the ULIDs of the copies to place, by the ULID of the block."""
        return {p.block.ulid: p.copy for p in self.placed if p.copy}

    @property
    def present(self) -> tuple[Block, ...]:
        """Return the blocks that the target already has."""
        return tuple(p.block for p in self.placements if p.action is BlockAction.PRESENT)

    @property
    def deleted(self) -> tuple[Block, ...]:
        """Return the blocks of which samples were deleted in the target and stay deleted."""
        return tuple(p.block for p in self.placements if p.deleted)

    @property
    def skipped(self) -> tuple[Placement, ...]:
        """Return every block that is neither placed nor already present."""
        present = BlockAction.PRESENT
        return tuple(p for p in self.placements if not p.action.places and p.action is not present)

    @property
    def left_out(self) -> tuple[Placement, ...]:
        """Return the placements of requested blocks whose data stays missing."""
        return tuple(p for p in self.placements if p.action.left_out)

    @property
    def size(self) -> int:
        """Return the size of the blocks to place in bytes."""
        return sum(b.size for b in self.place)


def plan_restore(
    manifest: Manifest,
    target: TargetView,
    request: RestoreRequest,
    *,
    now: datetime,
    ahead: Mapping[str, Collection[str]] = NOTHING_AHEAD,
    extra_warnings: Iterable[str] = (),
) -> RestorePlan:
    """Decide which blocks to place and predict what retention does with them.

    `ahead` are the blocks that end after now, with the hints in their meta.json. `extra_warnings`
    are the caller's warnings; the plan includes them.
    """
    planner = PlacementPlanner(
        target.blocks,
        request.time_range,
        accept_undeleted=request.accept_undeleted,
        undelete=request.undelete,
    )
    placements = planner.plan(manifest.blocks)
    placed = [_retained(p.block, p.name) for p in placements if p.action.places]
    existing = [_retained(b, b.ulid) for b in target.blocks.blocks]
    retention, retention_of = _retention(target, manifest)
    retention = retention.on_file_system(target.file_system_size)
    lost_with = _deleted_soon(retention, [*existing, *placed], target, now)
    lost_anyway = _deleted_soon(retention, existing, target, now)
    lost = [b for b in placed if any(b.ulid in ulids for ulids in lost_with)]
    version = target.blocks.version
    needs = strictest(
        needed_release(p.block, version=version) for p in placements if p.action.places
    )
    return RestorePlan(
        backup_id=manifest.backup_id,
        placements=placements,
        need=retention_need([*existing, *placed], now=now, head_size=target.head_size),
        retention=retention,
        retention_of=retention_of,
        loses_existing=_ulids_in(
            existing, (a - b for a, b in zip(lost_with, lost_anyway, strict=True))
        ),
        loses_restored=tuple(b.ulid for b in lost),
        keeps_from=max((b.max_time for b in lost), default=None),
        gaps=_gaps(manifest, target.blocks, placed, request.time_range, now),
        memory_from=target.blocks.placeable_until,
        needs=needs,
        warnings=(
            *_warnings(manifest, retention, lost_anyway),
            *_encoding_warnings(manifest, needs, version=version),
            *_ahead_warnings([p.block for p in placements if p.action.places], ahead),
            *extra_warnings,
        ),
    )


def _retention(target: TargetView, manifest: Manifest) -> tuple[TsdbRetention, str]:
    if target.retention is not None:
        return target.retention, target.retention_of
    return parse_tsdb_retention(manifest.retention_time), "the Prometheus that was backed up"


def _deleted_soon(
    retention: TsdbRetention, blocks: Sequence[RetainedBlock], target: TargetView, now: datetime
) -> tuple[frozenset[str], frozenset[str]]:
    """Return what is deleted at the next reload, and after the next block is written."""
    size = target.head_size
    return (
        deleted(retention, blocks, head_size=size),
        deleted(retention, with_next_block(blocks, now=now), head_size=size),
    )


def _ulids_in(blocks: Iterable[RetainedBlock], groups: Iterable[frozenset[str]]) -> tuple[str, ...]:
    ulids = frozenset[str]().union(*groups)
    return tuple(b.ulid for b in blocks if b.ulid in ulids)


def _gaps(
    manifest: Manifest,
    target: TargetBlocks,
    placed: Sequence[RetainedBlock],
    time_range: TimeRange,
    now: datetime,
) -> tuple[Span, ...]:
    """Return the gaps that remain in the requested range or, if unbounded, in all known data."""
    requested = [Span(b.min_time, b.max_time) for b in manifest.blocks if time_range.overlaps(b)]
    if not requested:
        return ()
    covered = [Span(b.min_time, b.max_time) for b in target.blocks]
    covered += [Span(b.min_time, b.max_time) for b in placed]
    if target.memory_from is not None and target.memory_from < now:
        covered.append(Span(target.memory_from, now))
    start = time_range.start or min(s.start for s in (*requested, *covered))
    end = time_range.end or max(s.end for s in (*requested, *covered))
    return gaps(covered, Span(start, min(end, max(now, start))))


def _warnings(
    manifest: Manifest,
    retention: TsdbRetention,
    lost_anyway: tuple[frozenset[str], frozenset[str]],
) -> Iterable[str]:
    for reason in manifest.degraded:
        yield f"this backup is degraded: {reason}"
    if manifest.verified is None:
        yield "this backup was not verified when it was made"
    if retention.unknown:
        yield f"cannot predict what retention {retention.unknown!r} deletes"
    if ulids := frozenset[str]().union(*lost_anyway):
        yield (
            f"retention will delete {len(ulids)} existing blocks of the target soon, "
            "with or without this restore"
        )


def _encoding_warnings(
    manifest: Manifest, needs: Requirement | None, *, version: str
) -> Iterable[str]:
    if needs is not None:
        yield f"this backup {needs}: use no older Prometheus on the target"
    elif (
        any(b.encodings is None for b in manifest.blocks)
        and is_before(version, NEWER_CHUNKS)
        and not is_before(manifest.prometheus.version, NEWER_CHUNKS)
    ):
        yield (
            "this backup does not say how its chunks are encoded: if Prometheus "
            f"{manifest.prometheus.version} wrote xor2 chunks, {version} cannot read them"
        )


def _ahead_warnings(placed: Iterable[Block], ahead: Mapping[str, Collection[str]]) -> Iterable[str]:
    """Warn of blocks that stop the ingestion of samples until they end (tsdb/db.go reload).

    A Prometheus that knows the hint of a block does not count its end.
    """
    found = [b for b in placed if b.ulid in ahead and _OUT_OF_ORDER not in ahead[b.ulid]]
    stale = [b for b in found if not _STALE_SERIES.isdisjoint(ahead[b.ulid])]
    for blocks, older, newer in (
        (stale, " before 3.10", "use Prometheus 3.10 or newer, or "),
        ([b for b in found if b not in stale], "", ""),
    ):
        if blocks:
            last, begin = max(blocks, key=lambda b: b.max_time), min(b.min_time for b in blocks)
            yield (
                f"block {last.ulid} ends ahead of now, at {rfc3339(last.max_time)}: until then, "
                f"Prometheus{older} accepts no samples; {newer}start it after that time, or leave "
                f"out what begins at {rfc3339(begin)} or later (--to) and merge that afterwards"
            )


def _retained(block: Block | TargetBlock, name: str) -> RetainedBlock:
    return RetainedBlock(name, block.min_time, block.max_time, block.size)
