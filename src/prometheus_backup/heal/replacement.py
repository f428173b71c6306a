"""Prepare the replacement of a bad block: download copies from backups, or rebuild the block.

Everything is complete, checked and synced before the data directory is changed.
"""

import contextlib
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from prometheus_backup.datadir.filesystem import (
    Owner,
    require_matching_meta,
    set_owner_and_modes,
    sync_folder,
)
from prometheus_backup.errors import BytesDiffer, ObjectNotFound, SnapshotUnusable
from prometheus_backup.heal.plan import BadBlock, BlockCopy, Remedy, Repair
from prometheus_backup.heal.rebuild import (
    BAD_META,
    BAD_TOMBSTONES,
    rebuilt_meta,
    repaired_meta,
    replace_file,
    write_meta,
)
from prometheus_backup.heal.swap import Swap
from prometheus_backup.repository.manifest import Block, File
from prometheus_backup.repository.repository import Repository
from prometheus_backup.restore.staging import Staging
from prometheus_backup.transfer import Transfer
from prometheus_backup.tsdb.block import read_meta
from prometheus_backup.tsdb.faults import Effect
from prometheus_backup.tsdb.tombstones import FILE as TOMBSTONES
from prometheus_backup.tsdb.tombstones import read_intervals, tombstones_of
from prometheus_backup.tsdb.verification import BlockReport, check_block

_TOLERABLE = frozenset({Effect.NONE, Effect.MISLEADS})


@dataclass(frozen=True, slots=True)
class Replacements:
    """Prepares replacements; `owner` becomes the owner of their files.

    Sound files of a bad block are not downloaded again: they are hard-linked, as in Prometheus'
    snapshots, and then checked like all others.
    """

    swap: Swap
    repository: Repository | None
    transfer: Transfer
    owner: Owner | None

    def prepare(self, repair: Repair, report: BlockReport) -> frozenset[BlockCopy]:
        """Download or rebuild the blocks of a repair and check them; return the unsound ones.

        The replacement is ready only if all are sound. A copy with a missing or altered object is
        unsound. Raises OSError and the other errors of the repository.
        """
        name = repair.bad.name
        (self.swap.staging / name).mkdir(exist_ok=True)
        if repair.remedy is Remedy.REBUILD:
            unsound = (
                frozenset() if self._rebuild(name, report) else frozenset({BlockCopy("", name)})
            )
        else:
            unsound = frozenset(
                BlockCopy(s.backup_id, s.block.ulid)
                for s in repair.copies
                if not self._restore_copy(s.block, repair.bad, report)
            )
        if not unsound:
            for block in (self.swap.staging / name).iterdir():
                set_owner_and_modes(block, self.owner)
                _sync(block)
            self.swap.mark_ready(name)
        return unsound

    def size(self, repair: Repair, report: BlockReport) -> int:
        """Return the size of the files that a repair downloads, in bytes. Raises OSError."""
        return sum(
            file.size
            for source in repair.copies
            for file in source.block.files
            if not self._is_linked(source.block, file, report)
        )

    def _restore_copy(self, block: Block, bad: BadBlock, report: BlockReport) -> bool:
        """Stage a copy of a block and return whether it is sound; an unsound copy is removed."""
        staged = self.swap.staging / bad.name / block.ulid
        for file in block.files:
            if self._is_linked(block, file, report):
                with contextlib.suppress(OSError):  # then it is downloaded
                    _link(report.folder / file.path, staged / file.path)
        try:
            self._download(block, staged.parent)
            require_matching_meta(staged, block)
            sound = _is_better(check_block(staged), bad)
        except (BytesDiffer, ObjectNotFound, SnapshotUnusable):
            sound = False
        if not sound:
            shutil.rmtree(staged)
        elif block.ulid == bad.name:
            self._merge_deletions(report, staged)
        return sound

    def _download(self, block: Block, folder: Path) -> None:
        if self.repository is None:
            raise AssertionError("a repair with copies has a repository")
        staging = Staging(self.repository, self.transfer, folder)
        with contextlib.closing(staging.download([block], step="heal")) as blocks:
            for _ in blocks:
                pass

    def _is_linked(self, block: Block, file: File, report: BlockReport) -> bool:
        """Return whether the bad block has a sound file that can be linked into the copy."""
        all_faults_listed = report.total_faults == len(report.faults)
        faulty_files = {fault.file for fault in report.faults}
        existing = report.folder / file.path
        return (
            all_faults_listed
            and block.ulid == report.folder.name
            and file.path not in faulty_files
            and existing.is_file()
            and existing.stat().st_size == file.size
        )

    def _rebuild(self, name: str, report: BlockReport) -> bool:
        """Stage a bad block with rebuilt meta.json and tombstones; return whether it is sound."""
        staged = self.swap.staging / name / name
        for existing in (report.folder / "index", *sorted((report.folder / "chunks").iterdir())):
            linked = staged / existing.relative_to(report.folder)
            try:
                _link(existing, linked)
            except OSError:
                shutil.copyfile(existing, linked)
        old = read_meta(report.folder)
        meta = old if old and old["ulid"] == name else None
        if meta is None or BAD_META & report.counts.keys():
            meta = rebuilt_meta(report, meta)
        write_meta(staged, meta)
        self._merge_deletions(report, staged)
        if check_block(staged).counts:
            shutil.rmtree(staged)
            return False
        return True

    def _merge_deletions(self, report: BlockReport, staged: Path) -> None:
        """Apply the deletions of the bad block to its replacement."""
        deleted = [report.folder] if not BAD_TOMBSTONES & report.counts.keys() else []
        deleted += [staged] if (staged / TOMBSTONES).exists() else []
        intervals = dict.fromkeys(i for block in deleted for i in read_intervals(block))
        replace_file(staged / TOMBSTONES, tombstones_of(intervals))
        write_meta(staged, repaired_meta(read_meta(staged) or {}, tombstones=len(intervals)))


def _is_better(copy: BlockReport, bad: BadBlock) -> bool:
    """Return whether a copy is sound, or has minor faults where the bad block has serious ones."""
    effects = {kind.effect for kind in copy.counts}
    return not effects or (effects <= _TOLERABLE and bad.effect not in _TOLERABLE)


def _link(existing: Path, new: Path) -> None:
    new.parent.mkdir(parents=True, exist_ok=True)
    if not new.exists():
        os.link(existing, new, follow_symlinks=False)


def _sync(block: Path) -> None:
    for path in (*block.rglob("*"), block):
        if path.is_dir():
            sync_folder(path)
        else:
            with path.open("rb") as file:
                os.fsync(file.fileno())
