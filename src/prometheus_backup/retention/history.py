"""Decide which archived blocks are the history: what the newest backup that covered it held. Pure.

A block covers its time if it is sound and holds all samples of it. Blocks of late samples or of
series that went stale do not: they are kept as long as the block beside which they were held.
Rules and worked examples: docs/retention.md, "History".
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class HeldBlock:
    """A folder of the archive; times in TSDB milliseconds, half open.

    `held_by` is the id of the newest backup that named it. With `partial`, it does not hold all
    samples of its time, or is not sound.
    """

    folder: str
    begin_ms: int
    end_ms: int
    held_by: str
    partial: bool = False


def history(blocks: Iterable[HeldBlock], *, since_ms: int) -> frozenset[str]:
    """Return the folders of the history that are needed for times from `since_ms` on.

    For each instant, these are the blocks of the newest backup that has a block which covers it,
    and partial blocks that a backup as new or newer has there.
    """
    found = [b for b in blocks if b.end_ms > since_ms and b.end_ms > b.begin_ms]
    wanted: set[str] = set()
    active: dict[str, HeldBlock] = {}
    edges = sorted(
        [(b.begin_ms, 1, b) for b in found] + [(b.end_ms, 0, b) for b in found],
        key=lambda edge: edge[:2],
    )
    for place, (at, begins, block) in enumerate(edges):
        if begins:
            active[block.folder] = block
        else:
            del active[block.folder]
        last_of_instant = place + 1 == len(edges) or edges[place + 1][0] > at
        if active and last_of_instant and edges[place + 1][0] > since_ms:
            wanted |= _held(active.values())
    return frozenset(wanted)


def _held(active: Iterable[HeldBlock]) -> set[str]:
    """Return what is held of an instant at which these blocks have samples."""
    blocks: Sequence[HeldBlock] = [*active]
    newest = max((b.held_by for b in blocks if not b.partial), default="")
    return {b.folder for b in blocks if b.held_by == newest or (b.partial and b.held_by > newest)}
