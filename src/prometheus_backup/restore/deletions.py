"""Find deletions in a target that a backup does not have, and name the copies that undo them. Pure.

Samples that were deleted return in a copy of the backup's block, next to what is left of it. The
copy has a ULID of its own and no ancestors, so Prometheus takes it for another block, and merges it
with the others at its next compaction. The ULID follows from that of the block, so another run
recognizes the copy, also in blocks that were compacted from it.
"""

import copy
import hashlib
import itertools
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from prometheus_backup.repository.manifest import Block
from prometheus_backup.restore.target_blocks import TargetBlock, TargetBlocks
from prometheus_backup.spans import Span

_TIME_DIGITS, _RANDOM_BITS, _DIGIT_BITS = 10, 80, 5
_DIGITS = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
"""Of a ULID: the time in milliseconds, then random bits, in Crockford's base 32."""
_TOMBSTONES = "tombstones"
_MOST_COPIES = 32
"""Of one block, in one target, that are not merged yet or hold deleted samples again."""


def copy_ulid(ulid: str, number: int) -> str:
    """Return the ULID of a block's copy number `number`; its time is that of the block."""
    digest = hashlib.sha256(f"undelete {ulid} {number}".encode()).digest()
    bits = int.from_bytes(digest) >> (len(digest) * 8 - _RANDOM_BITS)
    shifts = range(_RANDOM_BITS - _DIGIT_BITS, -1, -_DIGIT_BITS)
    return ulid[:_TIME_DIGITS] + "".join(_DIGITS[bits >> shift & 31] for shift in shifts)


def copied_meta(meta: Mapping[str, Any], *, ulid: str) -> dict[str, Any]:
    """Return the meta.json of a copy.

    Prometheus deletes the parents of a block, and what a meta.json calls deletable, and never
    compacts what it calls failed. It needs the hints to know that a block is out of order.
    """
    copied = copy.deepcopy(dict(meta))
    hints = copied.get("compaction", {}).get("hints")
    compaction = {"level": 1, "sources": [ulid], **({"hints": hints} if hints else {})}
    return copied | {"ulid": ulid, "compaction": compaction}


@dataclass(frozen=True, slots=True)
class Undeletion:
    """The copy that brings deleted samples of a block back; `there`: the target has it."""

    copy: str
    there: bool


class DeletionFinder:
    """Finds the blocks of a backup of which samples were deleted in the target since."""

    def __init__(self, target: TargetBlocks, blocks: Iterable[Block]) -> None:
        self._unreadable = target.unreadable
        self._backed_up = {block.ulid: block for block in blocks}
        self._existing = defaultdict[str, list[TargetBlock]](list)
        for existing in target.blocks:
            for ulid in existing.lineage:
                self._existing[ulid].append(existing)
        self._by_source = defaultdict[str, list[Block]](list)
        for block in self._backed_up.values():
            for ulid in {block.ulid, *block.sources}:
                self._by_source[ulid].append(block)

    def find(self, block: Block) -> Undeletion | None:
        """Return what brings the deleted samples of a block back; None if none were deleted.

        If samples were deleted again after an earlier copy, the next copy has another number.
        """
        lacking = self._lacking(block, {block.ulid, *block.sources})
        copies = [copy_ulid(block.ulid, number) for number in range(_MOST_COPIES)]
        for name in filter(self._existing.__contains__, copies):
            if not self._lacking(block, {name}):
                return Undeletion(name, there=True)
            lacking = True
        free = (n for n in copies if n not in self._existing and n not in self._unreadable)
        name = next(free, "") if lacking else ""
        return Undeletion(name, there=False) if name else None

    def _lacking(self, block: Block, ulids: Iterable[str]) -> bool:
        """Return whether a block with one of these ancestors lacks samples of `block`."""
        related = (existing for ulid in ulids for existing in self._existing.get(ulid, ()))
        return any(self._has_deletions(existing, block) for existing in related)

    def _has_deletions(self, existing: TargetBlock, block: Block) -> bool:
        own = self._backed_up.get(existing.ulid)
        if existing.deletions:
            known = {_tombstones(b) for b in (block, own) if b is not None}
            time = existing.deleted
            in_time = time is None or _overlap(time, block)
            return in_time and (not existing.tombstones or existing.tombstones not in known)
        return own is None and (existing.rewritten or self._has_fewer(existing))

    def _has_fewer(self, existing: TargetBlock) -> bool:
        """Return whether a block has less than the backed up blocks that it was compacted from."""
        related = {b.ulid: b for ulid in existing.lineage for b in self._by_source.get(ulid, ())}
        sources = set(existing.sources)
        covered = [
            b
            for b in related.values()
            # The counts of a block include its deleted samples.
            if not b.stats.get("numTombstones") and b.sources and sources.issuperset(b.sources)
        ]
        if not covered:
            return False
        counts = [b.stats.get("numSamples", 0) for b in covered]
        series = max(b.stats.get("numSeries", 0) for b in covered)
        # Overlapping blocks may have the same samples.
        samples = max(counts) if _any_overlap(covered) else sum(counts)
        return 0 < existing.samples < samples or 0 < existing.series < series


def _tombstones(block: Block) -> str:
    return next((f.sha256 for f in block.files if f.path == _TOMBSTONES), "")


def _overlap(time: Span, block: Block) -> bool:
    return time.start < block.max_time and block.min_time <= time.end


def _any_overlap(blocks: Iterable[Block]) -> bool:
    ordered = sorted(blocks, key=lambda b: b.min_time)
    return any(b.min_time < a.max_time for a, b in itertools.pairwise(ordered))
