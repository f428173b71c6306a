"""Decide how to repair each bad block of a data directory, and from which backup. Pure.

`tsdb.faults` defines the effect of each fault on Prometheus.
"""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from prometheus_backup.repository.manifest import Block
from prometheus_backup.restore.placement import (
    BlockAction,
    PlacementPlanner,
    TimeRange,
    gaps,
    needed_release,
)
from prometheus_backup.restore.target_blocks import TargetBlock, TargetBlocks
from prometheus_backup.spans import Span
from prometheus_backup.tsdb.faults import Effect

_WORST_FIRST = (
    Effect.STOPS_START,
    Effect.HIDES_DATA,
    Effect.FAILS_QUERIES,
    Effect.UNKNOWN,
    Effect.BREAKS_SNAPSHOTS,
    Effect.MISLEADS,
    Effect.NONE,
)
_NOT_SERVED = frozenset({Effect.STOPS_START, Effect.HIDES_DATA})
"""With these effects Prometheus serves nothing of the block; otherwise the readable part of it."""
_READ_BY_PROMETHEUS = (
    "Prometheus has loaded it and answers from it, so only prometheus-backup cannot read it: "
    "please report this"
)
_NO_COPY = "no backup has a sound copy"


class Remedy(StrEnum):
    """How a bad block is repaired. All but NOTHING and LEAVE move it to the quarantine."""

    NOTHING = "nothing"
    """Do nothing: Prometheus is not affected, or fixes it itself."""
    DROP = "drop"
    """Its samples are in other, sound blocks."""
    RENAME = "rename"
    """The block is sound but its directory has the wrong name: rename the directory."""
    REBUILD = "mend"
    """Rebuild the bad files from its other files."""
    REPLACE = "splice"
    """Replace it with a sound copy from a backup."""
    COVER = "cover"
    """Replace it with other blocks from backups that cover its time range."""
    MOVE_AWAY = "move-away"
    """There is no copy, but Prometheus serves nothing of it anyway."""
    LEAVE = "leave"
    """There is no copy, and Prometheus still serves part of it."""

    @property
    def heals(self) -> bool:
        """Return whether all samples of the block are available afterwards."""
        return self not in (Remedy.MOVE_AWAY, Remedy.LEAVE)


@dataclass(frozen=True, slots=True)
class BadBlock:
    """A block directory with faults; `effect` is the worst effect of these.

    `ulid`, `span` and `sources` come from its meta.json, if that can be trusted. `deletions`:
    series were or may have been deleted from it. `in_order`: it is known not to contain
    out-of-order samples. `lossless_rebuild`: the bad files can be rebuilt from the others.
    `rebuildable`: they can be rebuilt, but a copy from a backup is better. `loses_deletions`:
    rebuilding brings deleted series back. `misnamed`: only its name is wrong. `read_by_prometheus`:
    a running Prometheus answers from what is said to be faulty.
    """

    name: str
    effect: Effect
    ulid: str = ""
    span: Span | None = None
    sources: tuple[str, ...] = ()
    deletions: bool = False
    in_order: bool = False
    lossless_rebuild: bool = False
    rebuildable: bool = False
    loses_deletions: bool = False
    misnamed: bool = False
    read_by_prometheus: bool = False

    @property
    def served(self) -> bool:
        """Return whether Prometheus serves any sample of it."""
        return self.effect not in _NOT_SERVED

    @property
    def needs_copy(self) -> bool:
        """Return whether to search backups for a copy."""
        harmless = self.effect is Effect.NONE or self.read_by_prometheus
        return not (self.lossless_rebuild or self.misnamed or harmless)


@dataclass(frozen=True, slots=True)
class CandidateBlocks:
    """The blocks of a backup that may replace bad blocks."""

    backup_id: str
    blocks: tuple[Block, ...]


@dataclass(frozen=True, slots=True)
class BlockCopy:
    """Identifies a copy of a block. `backup_id` is empty if it was rebuilt from its own files."""

    backup_id: str
    ulid: str

    def __str__(self) -> str:
        return f"{self.ulid} from {self.backup_id}" if self.backup_id else f"{self.ulid}, rebuilt,"


@dataclass(frozen=True, slots=True)
class HealRequest:
    """What repairs are allowed, and which copies are known to be bad.

    `without_copy`: also move away blocks that are partly served and have no copy. `undelete`:
    deleted series may come back. `unsound`: copies that were downloaded or rebuilt and are bad.
    """

    without_copy: bool = False
    undelete: bool = False
    unsound: frozenset[BlockCopy] = frozenset()


DEFAULT_REQUEST = HealRequest()


@dataclass(frozen=True, slots=True)
class CopySource:
    """A block of a backup that replaces a bad one."""

    backup_id: str
    block: Block


@dataclass(frozen=True, slots=True)
class Repair:
    """How one bad block is repaired. `gaps` are the times whose samples stay missing."""

    bad: BadBlock
    remedy: Remedy
    reason: str
    copies: tuple[CopySource, ...] = ()
    gaps: tuple[Span, ...] = ()

    @property
    def moves(self) -> bool:
        """Return whether the bad block is moved to the quarantine."""
        return self.remedy not in (Remedy.NOTHING, Remedy.LEAVE)

    @property
    def heals(self) -> bool:
        """Return whether all samples of the block are available afterwards."""
        return self.remedy.heals and not self.gaps


@dataclass(frozen=True, slots=True)
class HealPlan:
    """A repair for each bad block, the worst first."""

    repairs: tuple[Repair, ...]

    @property
    def copies(self) -> tuple[CopySource, ...]:
        """Return the blocks to download."""
        return tuple(c for r in self.repairs for c in r.copies)

    @property
    def size(self) -> int:
        """Return the size of the blocks to download; sound files of a bad block are reused."""
        return sum(c.block.size for c in self.copies)

    @property
    def moves(self) -> tuple[Repair, ...]:
        """Return the repairs that move a block to the quarantine."""
        return tuple(r for r in self.repairs if r.moves)


def worst(effects: Collection[Effect]) -> Effect:
    """Return the worst of several effects.

    HIDES_DATA comes first: a block whose meta.json cannot be read is never opened, whatever else
    is wrong with it (tsdb/db.go openBlocks).
    """
    if Effect.HIDES_DATA in effects:
        return Effect.HIDES_DATA
    return min(effects, key=_WORST_FIRST.index)


def plan_heal(
    bad: Iterable[BadBlock],
    sound: TargetBlocks,
    candidates: Sequence[CandidateBlocks],
    request: HealRequest,
) -> HealPlan:
    """Decide how to repair each bad block.

    `sound` are the sound blocks of the directory; `candidates` are from backups, the best first.
    """
    worst_first = sorted(bad, key=lambda b: (_WORST_FIRST.index(b.effect), b.name))
    planner = _Planner(sound, candidates, request)
    # Decide these repairs first: the blocks they make sound may cover other bad blocks.
    decided = {b.name: planner.repair_alone(b) for b in sorted(worst_first, key=_misnamed_first)}
    repairs = [decided[b.name] or planner.repair_from_others(b) for b in worst_first]
    return HealPlan(tuple(repairs))


class _Planner:
    """Keeps track of the blocks that will be sound after the repairs decided so far."""

    def __init__(
        self, sound: TargetBlocks, candidates: Sequence[CandidateBlocks], request: HealRequest
    ) -> None:
        self._sound = sound
        self._request = request
        self._candidates = [
            replace(c, blocks=tuple(b for b in c.blocks if self._is_usable(c.backup_id, b.ulid)))
            for c in candidates
        ]

    def repair_alone(self, bad: BadBlock) -> Repair | None:
        """Return a repair that needs no other blocks, None if there is none."""
        if bad.effect is Effect.NONE:
            return Repair(bad, Remedy.NOTHING, "Prometheus does not read the faulty part")
        if bad.read_by_prometheus:
            return Repair(bad, Remedy.NOTHING, _READ_BY_PROMETHEUS)
        if child := next((b.ulid for b in self._sound.blocks if bad.name in b.parents), None):
            # Prometheus deletes the parents of a loaded block, sound or not (tsdb/db.go
            # reloadBlocks).
            return Repair(bad, Remedy.NOTHING, f"Prometheus deletes it: it is a parent of {child}")
        copy = self._copy(bad)
        if same := self._find_same_samples(bad, copy):
            return Repair(bad, Remedy.DROP, f"its samples are in {same}")
        if bad.misnamed:
            return self._keep(bad, Remedy.RENAME, f"it contains the block {bad.ulid}")
        can_rebuild = self._is_usable("", bad.name)
        if bad.lossless_rebuild and can_rebuild:
            return self._keep(
                bad, Remedy.REBUILD, "can be rebuilt from its other files without loss"
            )
        if copy:
            self._add(_planned_block(copy.block))
            return Repair(bad, Remedy.REPLACE, f"{copy.backup_id} has the block", (copy,))
        if bad.rebuildable and can_rebuild and (self._request.undelete or not bad.loses_deletions):
            return self._keep(bad, Remedy.REBUILD, "can be rebuilt from its other files")
        return None

    def repair_from_others(self, bad: BadBlock) -> Repair:
        """Return the repair of a block that has no copy and cannot be rebuilt."""
        before = self._sound
        copies, left, why = self._cover(bad)
        missing = (bad.span,) if bad.span else ()
        stays = bad.served and not self._request.without_copy
        if copies and not (left and stays):
            backups = " and ".join(sorted({c.backup_id for c in copies}))
            return Repair(bad, Remedy.COVER, f"its time range is in {backups}", copies, left)
        self._sound = before
        why = "backups cover only part of its time range" if copies else why
        why = self._newer_copy(bad) or why
        if stays:
            return Repair(bad, Remedy.LEAVE, f"{why}; its readable part is still served")
        note = "--without-copy" if bad.served else "Prometheus serves nothing of it"
        return Repair(bad, Remedy.MOVE_AWAY, f"{why}; {note}", gaps=missing)

    def _is_usable(self, backup_id: str, ulid: str) -> bool:
        return BlockCopy(backup_id, ulid) not in self._request.unsound

    def _copy(self, bad: BadBlock) -> CopySource | None:
        found = (
            CopySource(c.backup_id, b)
            for c in self._candidates
            for b in c.blocks
            if b.ulid == bad.name and self._is_readable(b) and not self._drops_head_samples(bad, b)
        )
        return next(found, None)

    def _is_readable(self, block: Block) -> bool:
        """Return whether the target's Prometheus can read the chunks of a copy, if known."""
        version = self._sound.version
        return not version or needed_release(block, version=version) is None

    def _newer_copy(self, bad: BadBlock) -> str:
        """Return why the copies of a block cannot be used, if only their chunks are too new."""
        copies = [(c.backup_id, b) for c in self._candidates for b in c.blocks]
        for backup_id, block in copies:
            if block.ulid == bad.name and not self._is_readable(block):
                needed = needed_release(block, version=self._sound.version)
                return f"the block in {backup_id} {needed}, and {self._sound.version} is running"
        return ""

    def _drops_head_samples(self, bad: BadBlock, block: Block) -> bool:
        """Return whether Prometheus would drop samples from memory if it loaded the copy.

        See `TargetBlocks.placeable_until`. The samples of a block that Prometheus wrote itself, or
        loaded at its start, are no longer in memory. But a user may have copied the head block of a
        snapshot here, and it was never loaded. Such a block ends right after its last sample, not
        at a multiple of the block length.
        """
        until, end = self._sound.placeable_until, block.max_time
        cut_by_prometheus = end.second % 10 == 0 and end.microsecond == 0
        return not (bad.served or cut_by_prometheus or until is None or end <= until)

    def _find_same_samples(self, bad: BadBlock, copy: CopySource | None) -> str | None:
        """Return the ULID of a sound block that has all samples of this one, None if none has."""
        names = {bad.name, bad.ulid}
        if same := next((b.ulid for b in self._sound.blocks if b.ulid in names), None):
            return same
        sources = bad.sources or (copy.block.sources if copy else ()) or (bad.name,)
        covered = {s: b.ulid for b in self._sound.blocks for s in b.sources}
        return covered[sources[0]] if covered.keys() >= set(sources) else None

    def _keep(self, bad: BadBlock, remedy: Remedy, reason: str) -> Repair:
        if bad.span:
            ulid = bad.ulid or bad.name
            self._add(TargetBlock(ulid, bad.span.start, bad.span.end, bad.sources, in_order=False))
        return Repair(bad, remedy, reason)

    def _cover(self, bad: BadBlock) -> tuple[tuple[CopySource, ...], tuple[Span, ...], str]:
        """Return blocks for the time range of a bad one, the gaps they leave, and why if none."""
        if not self._candidates:
            return (), (), "no backup was searched"
        if bad.span is None:
            return (), (), f"{_NO_COPY}, and its time range is unknown"
        if bad.deletions and not self._request.undelete:
            return (), (), f"{_NO_COPY}, and other blocks would bring deleted series back"
        left: tuple[Span, ...] = (bad.span,)
        chosen: list[CopySource] = []
        for candidate in self._candidates:
            for span in left:
                for block in self._placeable(candidate, span):
                    fewer = _subtract(left, block)
                    if fewer != left:
                        chosen.append(CopySource(candidate.backup_id, block))
                        self._add(_planned_block(block))
                        left = fewer
        return tuple(chosen), left, f"{_NO_COPY} or other blocks that can replace it"

    def _placeable(self, candidate: CandidateBlocks, span: Span) -> Iterable[Block]:
        planner = PlacementPlanner(
            self._sound, TimeRange(span.start, span.end), accept_undeleted=self._request.undelete
        )
        return [p.block for p in planner.plan(candidate.blocks) if p.action is BlockAction.PLACE]

    def _add(self, block: TargetBlock) -> None:
        self._sound = replace(self._sound, blocks=(*self._sound.blocks, block))


def _misnamed_first(bad: BadBlock) -> bool:
    return not bad.misnamed


def _subtract(spans: Iterable[Span], block: Block) -> tuple[Span, ...]:
    covered = [Span(block.min_time, block.max_time)]
    return tuple(rest for span in spans for rest in gaps(covered, span))


def _planned_block(block: Block) -> TargetBlock:
    # Not in order, because a planned block must not extend `placeable_until` for others.
    span = (block.min_time, block.max_time)
    return TargetBlock(block.ulid, *span, block.sources, block.parents, in_order=False)
