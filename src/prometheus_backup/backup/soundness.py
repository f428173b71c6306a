"""Find corrupt blocks in a snapshot, and what encodings their chunks have.

Each block is read completely only once: later backups with the same index and chunks take over the
result.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from prometheus_backup.backup.snapshot import Snapshot
from prometheus_backup.backup.upload import StoredFile
from prometheus_backup.events import BlockChecked, Listener, Warned
from prometheus_backup.model import Level, SourceBlock, printable
from prometheus_backup.prometheus.encodings import (
    Encodings,
    is_newer_possible,
    united,
    written_encodings,
)
from prometheus_backup.prometheus.status import SourceStatus
from prometheus_backup.repository.manifest import Block
from prometheus_backup.tsdb.block import MUTABLE
from prometheus_backup.tsdb.parallel import checked_blocks
from prometheus_backup.tsdb.verification import BlockReport, check_mutable

Faults = tuple[str, ...] | None
"""Messages about what is wrong with a block; empty if it is sound, None if it was not checked."""

_MAX_FAULTS = 5


@dataclass(frozen=True, slots=True)
class Contents:
    """What is known about the contents of a block; `encodings` None if nothing is."""

    faults: Faults = None
    encodings: Encodings | None = None

    @property
    def is_read(self) -> bool:
        """Return whether nothing can be learned from reading the block again."""
        return self.faults == () and not is_newer_possible(self.encodings or {})


def known_contents(stored: Iterable[StoredFile], blocks: Iterable[Block]) -> Mapping[str, Contents]:
    """Return what the repository has recorded about each block, taken from these blocks.

    It applies only if index and chunks are byte-identical.
    """
    found: dict[str, set[tuple[str, str]]] = {}
    for file in stored:
        files = found.setdefault(file.ulid, set())
        if file.path not in MUTABLE:
            files.add((file.path, file.sha256))
    known = {block.ulid: block for block in blocks}
    return {
        ulid: Contents(known[ulid].faults, known[ulid].encodings)
        if ulid in known
        and files == {(f.path, f.sha256) for f in known[ulid].files if f.path not in MUTABLE}
        else Contents()
        for ulid, files in found.items()
    }


def with_encodings(
    known: Mapping[str, Contents],
    blocks: Sequence[SourceBlock],
    *,
    status: SourceStatus,
    earlier: Iterable[Block],
) -> Mapping[str, Contents]:
    """Return `known`, completed by the encodings that the other blocks may have.

    Those are the encodings that the source writes, and those of the earlier blocks that a block was
    compacted from: compaction may keep a chunk as it is.
    """
    by_source: dict[str, list[Encodings]] = {}
    for other in earlier:
        for ulid in {other.ulid, *other.sources} if other.encodings else ():
            by_source.setdefault(ulid, []).append(other.encodings or {})
    found = dict(known)
    for block in blocks:
        if found[block.ulid].encodings is None:
            written = written_encodings(
                block.stats, features=status.features, floats=status.float_encoding
            )
            relatives = {*block.sources, *block.parents} - {block.ulid}
            inherited = [e for ulid in relatives for e in by_source.get(ulid, ())]
            found[block.ulid] = replace(found[block.ulid], encodings=united([written, *inherited]))
    return found


def inspect_snapshot(
    snapshot: Snapshot, known: Mapping[str, Contents], *, processes: int, listener: Listener
) -> Mapping[str, Contents]:
    """Return `known`, completed by checking the blocks.

    Blocks not known to be sound are read completely; of sound ones, only the files that may have
    changed. Every corrupt block is reported on every run.
    """
    folders = [snapshot.path / ulid for ulid, contents in known.items() if not contents.is_read]
    found = dict(known)
    with checked_blocks(folders, step="inspect", processes=processes, listener=listener) as reports:
        for report in reports:
            faults = _report_faults(report, listener)
            found[report.folder.name] = Contents(faults, report.chunks)
    for ulid, contents in known.items():
        if contents.is_read:
            faults = _report_faults(check_mutable(snapshot.path / ulid), listener)
            found[ulid] = replace(contents, faults=faults)
    return found


def passed_level(level: Level | None, contents: Iterable[Contents]) -> Level | None:
    """Return the level that a backup passed; with a corrupt block, at most `checksum`."""
    if level is None or level.rank < Level.TSDB.rank or not any(c.faults for c in contents):
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
