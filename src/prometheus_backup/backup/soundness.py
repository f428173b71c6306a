"""Find corrupt blocks in a snapshot.

Each block is read completely only once: later backups with the same index and chunks take over the
result.
"""

from collections.abc import Iterable, Mapping

from prometheus_backup.backup.snapshot import Snapshot
from prometheus_backup.backup.upload import StoredFile
from prometheus_backup.events import BlockChecked, Listener, Warned
from prometheus_backup.model import Level, printable
from prometheus_backup.repository.manifest import Block
from prometheus_backup.tsdb.block import MUTABLE
from prometheus_backup.tsdb.parallel import checked_blocks
from prometheus_backup.tsdb.verification import BlockReport, check_mutable

Faults = tuple[str, ...] | None
"""Messages about what is wrong with a block; empty if it is sound, None if it was not checked."""

_MAX_FAULTS = 5


def known_faults(stored: Iterable[StoredFile], blocks: Iterable[Block]) -> Mapping[str, Faults]:
    """Return the faults of each block as the repository has them recorded for these blocks.

    They apply only if index and chunks are byte-identical; else they are None.
    """
    found: dict[str, set[tuple[str, str]]] = {}
    for file in stored:
        files = found.setdefault(file.ulid, set())
        if file.path not in MUTABLE:
            files.add((file.path, file.sha256))
    known = {block.ulid: block for block in blocks}
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
    """Return `known`, completed by checking the blocks.

    Blocks not known to be sound are read completely; of sound ones, only the files that may have
    changed. Every corrupt block is reported on every run.
    """
    folders = [snapshot.path / ulid for ulid, faults in known.items() if faults != ()]
    found = dict(known)
    with checked_blocks(folders, step="inspect", processes=processes, listener=listener) as reports:
        for report in reports:
            found[report.folder.name] = _report_faults(report, listener)
    for ulid, faults in known.items():
        if faults == ():
            found[ulid] = _report_faults(check_mutable(snapshot.path / ulid), listener)
    return found


def passed_level(level: Level | None, faults: Iterable[Faults]) -> Level | None:
    """Return the level that a backup passed; with a corrupt block, at most `checksum`."""
    if level is None or level.rank < Level.TSDB.rank or not any(faults):
        return level
    return Level.CHECKSUM


def _report_faults(report: BlockReport, listener: Listener) -> tuple[str, ...]:
    listener(BlockChecked(report.ulid, report.verdict.value, report.total_faults))
    faults = [printable(f"{fault} [{fault.kind.value}]") for fault in report.faults[:_MAX_FAULTS]]
    for fault in faults:
        listener(Warned(f"block {report.ulid} is corrupt: {fault}"))
    for name in report.not_decoded:
        listener(Warned(f"block {report.ulid} has chunks of {name}, which are not decoded"))
    if report.total_faults > _MAX_FAULTS:
        faults.append(f"and {report.total_faults - _MAX_FAULTS:,} more")
    return tuple(faults)
