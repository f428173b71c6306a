"""Check blocks on this machine: in a data directory, a snapshot, or alone. Needs no repository."""

import os
from dataclasses import dataclass
from pathlib import Path

from prometheus_backup.errors import UsageError
from prometheus_backup.events import BlockChecked, Listener, Step, Warned
from prometheus_backup.model import Outcome, counted
from prometheus_backup.repository.layout import is_ulid
from prometheus_backup.tsdb.meta import META
from prometheus_backup.tsdb.parallel import checked_blocks
from prometheus_backup.tsdb.verification import BlockReport


@dataclass(frozen=True, slots=True)
class InspectReport:
    """The result for each block, in the order of their names."""

    blocks: tuple[BlockReport, ...]

    @property
    def outcome(self) -> Outcome:
        """Return what all verdicts together mean for the command."""
        return Outcome.of(report.verdict for report in self.blocks)


def find_blocks(path: Path) -> tuple[Path, ...]:
    """Return the blocks at a path: a block itself, or the blocks of a data directory or snapshot.

    Raises UsageError if the path is not a directory that can be read.
    """
    try:
        entries = [*os.scandir(path)]
    except OSError as error:
        raise UsageError(
            f"cannot inspect {path}: {error.strerror}",
            hint="give the path of a block, a data directory or a snapshot",
        ) from error
    if is_ulid(path.name) or {META, "index"} & {entry.name for entry in entries}:
        return (path,)
    return tuple(sorted(path / e.name for e in entries if is_ulid(e.name) and e.is_dir()))


def inspect_blocks(path: Path, *, processes: int, listener: Listener) -> InspectReport:
    """Check every block at a path, several in parallel. Raises UsageError."""
    blocks = find_blocks(path)
    listener(Step("inspect", f"inspecting {counted(len(blocks), 'block')} in {path}"))
    found = []
    with checked_blocks(blocks, step="inspect", processes=processes, listener=listener) as reports:
        for report in reports:
            if report.counts and not report.folder.exists():
                listener(Warned(f"block {report.ulid} was removed while it was checked"))
                continue
            listener(BlockChecked(report.ulid, report.verdict.value, report.total_faults))
            found.append(report)
    return InspectReport(tuple(sorted(found, key=lambda report: report.folder)))
