"""Whether the blocks of a snapshot are sound TSDB blocks: what is known, and looking at the rest.

A block is read whole once in its life: later backups of the same index and chunks inherit what was
found.
"""

import contextlib
from collections.abc import Iterable, Mapping

from prometheus_backup.backup.snapshot import Snapshot
from prometheus_backup.backup.upload import StoredFile
from prometheus_backup.events import (
    BlockChecked,
    BytesMoved,
    Listener,
    LongStepBegan,
    LongStepEnded,
    Warned,
)
from prometheus_backup.model import Level, printable
from prometheus_backup.repository.manifest import Manifest
from prometheus_backup.tsdb.block import MUTABLE
from prometheus_backup.tsdb.parallel import block_size, check_blocks
from prometheus_backup.tsdb.verification import BlockReport, check_mutable

Faults = tuple[str, ...] | None
"""What is wrong with a block, in words; None where nobody has looked."""

_KEPT = 5


def known_faults(placed: Iterable[StoredFile], previous: Manifest | None) -> Mapping[str, Faults]:
    """Return for each block what the previous backup knew of it.

    That holds where index and chunks are the same bytes, wherever they came from.
    """
    found: dict[str, set[tuple[str, str]]] = {}
    for file in placed:
        files = found.setdefault(file.ulid, set())
        if file.path not in MUTABLE:
            files.add((file.path, file.sha256))
    known = {block.ulid: block for block in previous.blocks} if previous else {}
    return {
        ulid: known[ulid].faults
        if ulid in known
        and files == {(f.path, f.sha256) for f in known[ulid].files if f.path not in MUTABLE}
        else None
        for ulid, files in found.items()
    }


def inspect_snapshot(
    snapshot: Snapshot, known: Mapping[str, Faults], *, processes: int, listener: Listener
) -> Mapping[str, Faults]:
    """Read every block whole that is not known to be sound; of those, only what may have changed.

    Tells of each block that is corrupt, each time.
    """
    folders = [snapshot.path / ulid for ulid, faults in known.items() if faults != ()]
    found = dict(known)
    listener(LongStepBegan("inspect", sum(map(block_size, folders))))

    def watch(size: int) -> None:
        listener(BytesMoved(size))

    try:
        with contextlib.closing(check_blocks(folders, processes=processes, watch=watch)) as reports:
            for report in reports:
                found[report.folder.name] = _told(report, listener)
    finally:
        listener(LongStepEnded("inspect"))
    for ulid, faults in known.items():
        if faults == ():
            found[ulid] = _told(check_mutable(snapshot.path / ulid), listener)
    return found


def passed_level(level: Level | None, faults: Iterable[Faults]) -> Level | None:
    """Return the level that a backup passed: with a corrupt block in it, not `tsdb`."""
    if level is None or level.rank < Level.TSDB.rank or not any(faults):
        return level
    return Level.CHECKSUM


def _told(report: BlockReport, listener: Listener) -> tuple[str, ...]:
    listener(BlockChecked(report.ulid, report.verdict.value, report.total_faults))
    faults = [printable(f"{fault} [{fault.kind.value}]") for fault in report.faults[:_KEPT]]
    for fault in faults:
        listener(Warned(f"block {report.ulid} is corrupt: {fault}"))
    for name in report.not_decoded:
        listener(Warned(f"block {report.ulid} has chunks of {name}, which are not decoded"))
    if report.total_faults > _KEPT:
        faults.append(f"and {report.total_faults - _KEPT:,} more")
    return tuple(faults)
