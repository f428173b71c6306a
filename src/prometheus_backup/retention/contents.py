"""What the archive holds: each block with its times, who names it, and whether it is history."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from prometheus_backup.model import instant_from_ms
from prometheus_backup.repository.archive import ArchivedFolder
from prometheus_backup.repository.entry import BackupEntry
from prometheus_backup.repository.repository import Repository
from prometheus_backup.retention.archive import all_held_blocks, held_blocks, wanted_folders
from prometheus_backup.retention.history import HeldBlock, history
from prometheus_backup.spans import MIN_HOLE, Span, merge

ALL_TIMES = -(1 << 63)
"""Milliseconds before every sample."""


@dataclass(frozen=True, slots=True)
class StoredBlock:
    """A block in the archive.

    `named_by` are the backups, and the runs that have not ended, that name its folder. `held` is
    what the history knows of it. `in_history`: `restore --history` restores it.
    """

    folder: ArchivedFolder
    held: HeldBlock
    named_by: tuple[str, ...]
    in_history: bool

    @property
    def ulid(self) -> str:
        """Return the name of the block."""
        return self.folder.name.split("/")[1]

    @property
    def span(self) -> Span:
        """Return the times of its samples."""
        return Span(instant_from_ms(self.held.begin_ms), instant_from_ms(self.held.end_ms))


def continuous(
    entries: Sequence[BackupEntry], folders: Mapping[str, ArchivedFolder]
) -> Span | None:
    """Return the newest time range of the history without a hole; None if it holds nothing."""
    held = held_blocks(entries, folders)
    wanted = history(held.values(), since_ms=ALL_TIMES)
    covered = covered_by(held[name] for name in wanted)
    return covered[-1] if covered else None


def covered_by(blocks: Iterable[HeldBlock]) -> tuple[Span, ...]:
    """Return the times of which these blocks together hold all samples, oldest first."""
    times = (
        Span(instant_from_ms(b.begin_ms), instant_from_ms(b.end_ms))
        for b in blocks
        if not b.partial
    )
    return merge(times, max_gap=MIN_HOLE)


def stored_blocks(
    entries: Sequence[BackupEntry],
    folders: Mapping[str, ArchivedFolder],
    described: Iterable[HeldBlock] = (),
) -> tuple[StoredBlock, ...]:
    """Return the blocks of the archive by time, and those that `described` adds."""
    wanted = history(held_blocks(entries, folders).values(), since_ms=ALL_TIMES)
    named_by: dict[str, list[str]] = {}
    for entry in entries:
        for name in wanted_folders([entry], folders.values()):
            named_by.setdefault(name, []).append(entry.backup_id)
    held = {**{b.folder: b for b in described}, **all_held_blocks(entries, folders)}
    blocks = [
        StoredBlock(folders[name], block, tuple(named_by.get(name, ())), name in wanted)
        for name, block in held.items()
    ]
    return tuple(sorted(blocks, key=lambda b: (b.held.begin_ms, b.held.end_ms, b.folder.name)))


def describe_others(
    repository: Repository, entries: Sequence[BackupEntry], folders: Mapping[str, ArchivedFolder]
) -> tuple[HeldBlock, ...]:
    """Return the complete folders that no backup named last, with their times from block.json."""
    known = all_held_blocks(entries, folders)
    found: list[HeldBlock] = []
    for name, folder in folders.items():
        if folder.complete and name not in known:
            block = repository.archive.block(name)
            if block is not None:
                found.append(HeldBlock(name, *block.times_ms, held_by=""))
    return tuple(found)
