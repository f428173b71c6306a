"""What is done about each bad block of a data directory, and from which backup. Pure.

What a fault does to a Prometheus is `tsdb.faults`' to say.
"""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from prometheus_backup.repository.manifest import Block
from prometheus_backup.restore.placement import (
    BlockAction,
    PlacementPlanner,
    Span,
    TargetBlock,
    TargetBlocks,
    TimeRange,
    gaps,
)
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
"""With these, Prometheus answers with nothing of the block; else with what can be read of it."""
_NO_COPY = "no backup has a sound copy"


class Remedy(StrEnum):
    """What is done about a bad block. All but NOTHING and LEAVE move it to the quarantine."""

    NOTHING = "nothing"
    """Prometheus does not mind it, or puts it right by itself."""
    DROP = "drop"
    """What it holds is in other blocks that are sound."""
    RENAME = "rename"
    """The block is sound: its directory gets the name that it must have."""
    MEND = "mend"
    """A sound copy is made of its own files: what is bad can be made anew without loss."""
    SPLICE = "splice"
    """A backup has a sound copy of the block."""
    COVER = "cover"
    """Backups have other blocks of its time."""
    MOVE_AWAY = "move-away"
    """There is no copy, but Prometheus does better without it: none of it is served."""
    LEAVE = "leave"
    """There is no copy, and a part of it is still served."""

    @property
    def heals(self) -> bool:
        """Tell whether all samples of the block are there afterwards."""
        return self not in (Remedy.MOVE_AWAY, Remedy.LEAVE)


@dataclass(frozen=True, slots=True)
class BadBlock:
    """A directory named as a block that is none, or has faults; `effect` is the worst of theirs.

    `ulid`, `span` and `sources` are what its meta.json says, where that can be trusted. `mendable`:
    what is wrong can be made anew from the rest without loss; `rebuildable`: likewise, but a backup
    knows better, and if it `forgets`, series that were deleted come back. `misnamed`: nothing is
    wrong but the name. `deletions`: series were deleted from it, or that cannot be told.
    `in_order`: it is known not to be of late samples.
    """

    name: str
    effect: Effect
    ulid: str = ""
    span: Span | None = None
    sources: tuple[str, ...] = ()
    deletions: bool = False
    in_order: bool = False
    mendable: bool = False
    rebuildable: bool = False
    forgets: bool = False
    misnamed: bool = False

    @property
    def served(self) -> bool:
        """Tell whether Prometheus answers with any sample of it."""
        return self.effect not in _NOT_SERVED

    @property
    def wants_copy(self) -> bool:
        """Tell whether backups are to be looked at for it."""
        return not (self.mendable or self.misnamed or self.effect is Effect.NONE)


@dataclass(frozen=True, slots=True)
class CandidateBlocks:
    """The blocks of a backup that may be of use."""

    backup_id: str
    blocks: tuple[Block, ...]


@dataclass(frozen=True, slots=True)
class BlockCopy:
    """The name of a copy: backup and ULID; without a backup, the block made anew of its own."""

    backup_id: str
    ulid: str

    def __str__(self) -> str:
        return f"{self.ulid} of {self.backup_id}" if self.backup_id else f"{self.ulid}, made anew,"


@dataclass(frozen=True, slots=True)
class HealRequest:
    """What is asked for, and what was learned.

    `without_copy` also moves away what nothing can replace. `undelete`: deleted series may come
    back. `unsound` are copies that were brought, or made, and are bad themselves.
    """

    without_copy: bool = False
    undelete: bool = False
    unsound: frozenset[BlockCopy] = frozenset()


AS_IS = HealRequest()


@dataclass(frozen=True, slots=True)
class CopySource:
    """A block of a backup."""

    backup_id: str
    block: Block


@dataclass(frozen=True, slots=True)
class Repair:
    """What is done about one bad block. `gaps` are the times that stay without its samples."""

    bad: BadBlock
    remedy: Remedy
    reason: str
    copies: tuple[CopySource, ...] = ()
    gaps: tuple[Span, ...] = ()

    @property
    def moves(self) -> bool:
        """Tell whether the bad block goes to the quarantine."""
        return self.remedy not in (Remedy.NOTHING, Remedy.LEAVE)

    @property
    def heals(self) -> bool:
        """Tell whether all samples of the block are there afterwards."""
        return self.remedy.heals and not self.gaps


@dataclass(frozen=True, slots=True)
class HealPlan:
    """What is done about each bad block, the worst first."""

    healings: tuple[Repair, ...]

    @property
    def copies(self) -> tuple[CopySource, ...]:
        """Return the blocks to bring."""
        return tuple(c for h in self.healings for c in h.copies)

    @property
    def size(self) -> int:
        """Return the bytes of the blocks to bring, of which some may be there already."""
        return sum(c.block.size for c in self.copies)

    @property
    def moves(self) -> tuple[Repair, ...]:
        """Return what moves a block."""
        return tuple(h for h in self.healings if h.moves)


def worst(effects: Collection[Effect]) -> Effect:
    """Return what comes of several effects: the one that costs most.

    But a block whose meta.json cannot be read is not opened, whatever else is wrong with it
    (tsdb/db.go openBlocks).
    """
    if Effect.HIDES_DATA in effects:
        return Effect.HIDES_DATA
    return min(effects, key=_WORST_FIRST.index)


def plan_heal(
    bad: Iterable[BadBlock],
    held: TargetBlocks,
    offers: Sequence[CandidateBlocks],
    wish: HealRequest,
) -> HealPlan:
    """Decide about every bad block.

    `held` are the sound blocks of the directory; `offers` are the backups, the best first.
    """
    worst_first = sorted(bad, key=lambda b: (_WORST_FIRST.index(b.effect), b.name))
    planning = _Planning(held, offers, wish)
    # What becomes sound under its own name comes first: others may be covered by it then.
    decided = {b.name: planning.by_itself(b) for b in sorted(worst_first, key=_misnamed_first)}
    healings = [decided[b.name] or planning.by_others(b) for b in worst_first]
    return HealPlan(tuple(healings))


class _Planning:
    """Holds the sound blocks that there will be, as far as it is decided."""

    def __init__(
        self, held: TargetBlocks, offers: Sequence[CandidateBlocks], wish: HealRequest
    ) -> None:
        self._held = held
        self._wish = wish
        self._offers = [
            replace(o, blocks=tuple(b for b in o.blocks if self._may_do(o.backup_id, b.ulid)))
            for o in offers
        ]

    def by_itself(self, bad: BadBlock) -> Repair | None:
        """Return a remedy that needs no block of another name to take its place."""
        if bad.effect is Effect.NONE:
            return Repair(bad, Remedy.NOTHING, "Prometheus does not read what is wrong")
        if child := next((b.ulid for b in self._held.blocks if bad.name in b.parents), None):
            # tsdb/db.go reloadBlocks: the parents of a block that loads go, sound or not.
            return Repair(bad, Remedy.NOTHING, f"Prometheus deletes it: {child} was made of it")
        copy = self._copy(bad)
        if holder := self._holder(bad, copy):
            return Repair(bad, Remedy.DROP, f"its samples are in {holder}")
        if bad.misnamed:
            return self._stays(bad, Remedy.RENAME, f"the block in it is {bad.ulid}")
        makeable = self._may_do("", bad.name)
        if bad.mendable and makeable:
            return self._stays(bad, Remedy.MEND, "made anew from its other files, without loss")
        if copy:
            self._add(_held(copy.block))
            return Repair(bad, Remedy.SPLICE, f"{copy.backup_id} has the block", (copy,))
        if bad.rebuildable and makeable and (self._wish.undelete or not bad.forgets):
            return self._stays(bad, Remedy.MEND, "made anew from its other files")
        return None

    def by_others(self, bad: BadBlock) -> Repair:
        """Return what is done about a block that neither backups nor its own files restore."""
        before = self._held
        copies, left, why = self._cover(bad)
        missing = (bad.span,) if bad.span else ()
        stays = bad.served and not self._wish.without_copy
        if copies and not (left and stays):
            reason = f"{' and '.join(sorted({c.backup_id for c in copies}))} covers its time"
            return Repair(bad, Remedy.COVER, reason, copies, left)
        self._held = before
        why = "backups cover a part of its time only" if copies else why
        if stays:
            return Repair(bad, Remedy.LEAVE, f"{why}; what can be read of it is still served")
        note = "you said so" if bad.served else "Prometheus serves nothing of it"
        return Repair(bad, Remedy.MOVE_AWAY, f"{why}; {note}", gaps=missing)

    def _may_do(self, backup_id: str, ulid: str) -> bool:
        return BlockCopy(backup_id, ulid) not in self._wish.unsound

    def _copy(self, bad: BadBlock) -> CopySource | None:
        found = (
            CopySource(o.backup_id, b)
            for o in self._offers
            for b in o.blocks
            if b.ulid == bad.name and not self._costs_samples(bad, b)
        )
        return next(found, None)

    def _costs_samples(self, bad: BadBlock, block: Block) -> bool:
        """Tell whether a copy would cost samples in memory that Prometheus has nowhere else.

        See `Held.placeable_until`. What Prometheus wrote itself is in memory no more; so is what it
        had loaded at its start. But the head block of a snapshot may have been put here by hand, to
        be never loaded; it ends right after its last sample, not at a multiple of a block's length.
        """
        until, end = self._held.placeable_until, block.max_time
        written = end.second % 10 == 0 and end.microsecond == 0
        return not (bad.served or written or until is None or end <= until)

    def _holder(self, bad: BadBlock, copy: CopySource | None) -> str | None:
        """Return a sound block that has all samples of this one, under its name or another."""
        names = {bad.name, bad.ulid}
        if same := next((b.ulid for b in self._held.blocks if b.ulid in names), None):
            return same
        sources = bad.sources or (copy.block.sources if copy else ()) or (bad.name,)
        covered = {s: b.ulid for b in self._held.blocks for s in b.sources}
        return covered[sources[0]] if covered.keys() >= set(sources) else None

    def _stays(self, bad: BadBlock, remedy: Remedy, reason: str) -> Repair:
        if bad.span:
            ulid = bad.ulid or bad.name
            self._add(TargetBlock(ulid, bad.span.start, bad.span.end, bad.sources, in_order=False))
        return Repair(bad, remedy, reason)

    def _cover(self, bad: BadBlock) -> tuple[tuple[CopySource, ...], tuple[Span, ...], str]:
        """Return blocks of backups for the time of a block, the times they leave, or why none."""
        if not self._offers:
            return (), (), "no backup was looked at"
        if bad.span is None:
            return (), (), f"{_NO_COPY}, and its time cannot be told"
        if bad.deletions and not self._wish.undelete:
            return (), (), f"{_NO_COPY}, and with others deleted series would come back"
        left: tuple[Span, ...] = (bad.span,)
        chosen: list[CopySource] = []
        for offer in self._offers:
            for span in left:
                for block in self._placeable(offer, span):
                    fewer = _less(left, block)
                    if fewer != left:
                        chosen.append(CopySource(offer.backup_id, block))
                        self._add(_held(block))
                        left = fewer
        return tuple(chosen), left, f"{_NO_COPY}, or of others that may take its place"

    def _placeable(self, offer: CandidateBlocks, span: Span) -> Iterable[Block]:
        placing = PlacementPlanner(
            self._held, TimeRange(span.start, span.end), undelete=self._wish.undelete
        )
        return [p.block for p in placing.place(offer.blocks) if p.standing is BlockAction.PLACE]

    def _add(self, block: TargetBlock) -> None:
        self._held = replace(self._held, blocks=(*self._held.blocks, block))


def _misnamed_first(bad: BadBlock) -> bool:
    return not bad.misnamed


def _less(spans: Iterable[Span], block: Block) -> tuple[Span, ...]:
    covered = [Span(block.min_time, block.max_time)]
    return tuple(rest for span in spans for rest in gaps(covered, span))


def _held(block: Block) -> TargetBlock:
    # Not in order: what is only planned must not say how far others may reach.
    span = (block.min_time, block.max_time)
    return TargetBlock(block.ulid, *span, block.sources, block.parents, in_order=False)
