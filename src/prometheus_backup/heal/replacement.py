"""Make ready what takes the place of a bad block: copies from backups, or the block made anew.

All of it is whole, checked and synced before anything of the data directory is touched.
"""

import contextlib
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from prometheus_backup.datadir.filesystem import Owner, hand_over, require_as_announced
from prometheus_backup.errors import BytesDiffer, ObjectNotFound, SnapshotUnusable
from prometheus_backup.heal.plan import BadBlock, BlockCopy, Remedy, Repair
from prometheus_backup.heal.rebuild import (
    BAD_META,
    BAD_TOMBSTONES,
    rebuilt_meta,
    replace_file,
    settled_meta,
    write_meta,
)
from prometheus_backup.heal.swap import Swap
from prometheus_backup.repository.manifest import Block, File
from prometheus_backup.repository.repository import Repository
from prometheus_backup.restore.staging import Staging, sync_folder
from prometheus_backup.transfer import Transfer
from prometheus_backup.tsdb.block import read_meta
from prometheus_backup.tsdb.faults import Effect
from prometheus_backup.tsdb.tombstones import FILE as TOMBSTONES
from prometheus_backup.tsdb.tombstones import read_intervals, tombstones_of
from prometheus_backup.tsdb.verification import BlockReport, check_block

_TOLERABLE = frozenset({Effect.NONE, Effect.MISLEADS})


@dataclass(frozen=True, slots=True)
class Replacements:
    """Makes replacements ready; their files will be `owner`'s.

    Files of a bad block that are sound are not brought again: they are linked to, as Prometheus'
    own snapshots do, and then checked like any other.
    """

    swap: Swap
    repository: Repository | None
    transfer: Transfer
    owner: Owner | None

    def make_ready(self, healing: Repair, report: BlockReport) -> frozenset[BlockCopy]:
        """Bring or build, and check, what a healing needs; return what turned out unsound.

        If anything did, nothing is ready. Raises OSError, and what the repository raises, but for
        an object that is missing or has other bytes than its manifest says: that copy is unsound.
        """
        name = healing.bad.name
        (self.swap.staging / name).mkdir(exist_ok=True)
        if healing.remedy is Remedy.MEND:
            unsound = frozenset() if self._mend(name, report) else frozenset({BlockCopy("", name)})
        else:
            unsound = frozenset(
                BlockCopy(s.backup_id, s.block.ulid)
                for s in healing.copies
                if not self._bring(s.block, healing.bad, report)
            )
        if not unsound:
            for block in (self.swap.staging / name).iterdir():
                hand_over(block, self.owner)
                _sync(block)
            self.swap.make_ready(name)
        return unsound

    def size(self, healing: Repair, report: BlockReport) -> int:
        """Return the bytes that a healing brings. Raises OSError."""
        return sum(
            file.size
            for source in healing.copies
            for file in source.block.files
            if not self._is_linked(source.block, file, report)
        )

    def _bring(self, block: Block, bad: BadBlock, report: BlockReport) -> bool:
        """Stage a copy of a block; tell whether it is sound. One that is not is removed again."""
        staged = self.swap.staging / bad.name / block.ulid
        for file in block.files:
            if self._is_linked(block, file, report):
                with contextlib.suppress(OSError):  # then it is brought from the repository
                    _link(report.folder / file.path, staged / file.path)
        try:
            self._download(block, staged.parent)
            require_as_announced(staged, block)
            sound = _is_better(check_block(staged), bad)
        except (BytesDiffer, ObjectNotFound, SnapshotUnusable):
            sound = False
        if not sound:
            shutil.rmtree(staged)
        elif block.ulid == bad.name:
            self._keep_deletions(report, staged)
        return sound

    def _download(self, block: Block, folder: Path) -> None:
        if self.repository is None:
            raise AssertionError("copies are of a repository")
        staging = Staging(self.repository, self.transfer, folder)
        with contextlib.closing(staging.bring([block], step="heal")) as whole:
            for _ in whole:
                pass

    def _is_linked(self, block: Block, file: File, report: BlockReport) -> bool:
        """Tell whether a file of a copy is taken from the bad block, in which it is sound."""
        named = report.total_faults == len(report.faults)  # else not all bad files are known
        bad = {fault.file for fault in report.faults}
        theirs = report.folder / file.path
        return (
            named
            and block.ulid == report.folder.name
            and file.path not in bad
            and theirs.is_file()
            and theirs.stat().st_size == file.size
        )

    def _mend(self, name: str, report: BlockReport) -> bool:
        """Stage a bad block with its small files made anew; tell whether it is sound then."""
        staged = self.swap.staging / name / name
        for theirs in (report.folder / "index", *sorted((report.folder / "chunks").iterdir())):
            ours = staged / theirs.relative_to(report.folder)
            try:
                _link(theirs, ours)
            except OSError:
                shutil.copyfile(theirs, ours)
        old = read_meta(report.folder)
        own = old if old and old["ulid"] == name else None
        if own is None or BAD_META & report.counts.keys():
            own = rebuilt_meta(report, own)
        write_meta(staged, own)
        self._keep_deletions(report, staged)
        if check_block(staged).counts:
            shutil.rmtree(staged)
            return False
        return True

    def _keep_deletions(self, report: BlockReport, staged: Path) -> None:
        """Let what was deleted from the bad block be deleted from what replaces it, too."""
        deleted = [report.folder] if not BAD_TOMBSTONES & report.counts.keys() else []
        deleted += [staged] if (staged / TOMBSTONES).exists() else []
        intervals = dict.fromkeys(i for block in deleted for i in read_intervals(block))
        replace_file(staged / TOMBSTONES, tombstones_of(intervals))
        write_meta(staged, settled_meta(read_meta(staged) or {}, tombstones=len(intervals)))


def _is_better(copy: BlockReport, bad: BadBlock) -> bool:
    """Tell whether a copy is sound; or as good as that, where Prometheus suffers from the block."""
    effects = {kind.effect for kind in copy.counts}
    return not effects or (effects <= _TOLERABLE and bad.effect not in _TOLERABLE)


def _link(theirs: Path, ours: Path) -> None:
    ours.parent.mkdir(parents=True, exist_ok=True)
    if not ours.exists():
        os.link(theirs, ours, follow_symlinks=False)


def _sync(block: Path) -> None:
    for path in (*block.rglob("*"), block):
        if path.is_dir():
            sync_folder(path)
        else:
            with path.open("rb") as file:
                os.fsync(file.fileno())
