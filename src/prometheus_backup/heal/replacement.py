"""Prepare the replacement of a bad block: download copies from backups, or rebuild the block.

Everything is complete, checked and synced before the data directory is changed.
"""

import contextlib
import shutil
from dataclasses import dataclass
from pathlib import PurePosixPath

from prometheus_backup.datadir.filesystem import require_matching_meta
from prometheus_backup.errors import BytesDiffer, ObjectNotFound, SnapshotUnusable
from prometheus_backup.folder import Folder, Owner
from prometheus_backup.heal.plan import BadBlock, BlockCopy, Remedy, Repair
from prometheus_backup.heal.rebuild import (
    BAD_META,
    BAD_TOMBSTONES,
    rebuilt_meta,
    repaired_meta,
    write_meta,
)
from prometheus_backup.heal.swap import Swap
from prometheus_backup.repository.manifest import Block, File
from prometheus_backup.repository.repository import Repository
from prometheus_backup.restore.staging import Staging
from prometheus_backup.transfer import Transfer
from prometheus_backup.tsdb.block import CHUNKS, read_meta
from prometheus_backup.tsdb.faults import Effect
from prometheus_backup.tsdb.meta import META, load_meta
from prometheus_backup.tsdb.tombstones import FILE as TOMBSTONES
from prometheus_backup.tsdb.tombstones import read_intervals, tombstones_of
from prometheus_backup.tsdb.verification import BlockReport, check_block

_TOLERABLE = frozenset({Effect.NONE, Effect.MISLEADS})


@dataclass(frozen=True, slots=True)
class Replacements:
    """Prepares replacements in the folder `staging`; `owner` becomes the owner of their files.

    Sound files of a bad block are not downloaded again: they are hard-linked, as in Prometheus'
    snapshots, and then checked like all others.
    """

    swap: Swap
    staging: Folder
    repository: Repository | None
    transfer: Transfer
    owner: Owner | None

    def prepare(self, repair: Repair, report: BlockReport) -> frozenset[BlockCopy]:
        """Download or rebuild the blocks of a repair and check them; return the unsound ones.

        The replacement is ready only if all are sound. A copy with a missing or altered object is
        unsound. Raises OSError and the other errors of the repository.
        """
        name = repair.bad.name
        with self.staging.child(name, create=True) as staging:
            unsound = self._stage(staging, repair, report)
            if not unsound:
                for block in staging.names():
                    staging.hand_over(block, self.owner)
        if not unsound:
            self.swap.mark_ready(self.staging, name)
        return unsound

    def _stage(self, staging: Folder, repair: Repair, report: BlockReport) -> frozenset[BlockCopy]:
        if repair.remedy is Remedy.REBUILD:
            name = repair.bad.name
            sound = self._rebuild(staging, name, report)
            return frozenset() if sound else frozenset({BlockCopy("", name)})
        return frozenset(
            BlockCopy(s.backup_id, s.block.ulid)
            for s in repair.copies
            if not self._restore_copy(staging, s.block, repair.bad, report)
        )

    def size(self, repair: Repair, report: BlockReport) -> int:
        """Return the size of the files that a repair downloads, in bytes. Raises OSError."""
        return sum(
            file.size
            for source in repair.copies
            for file in source.block.files
            if not self._is_linked(source.block, file, report)
        )

    def _restore_copy(
        self, staging: Folder, block: Block, bad: BadBlock, report: BlockReport
    ) -> bool:
        """Stage a copy of a block and return whether it is sound; an unsound copy is removed."""
        for file in block.files:
            if self._is_linked(block, file, report):
                with contextlib.suppress(OSError):  # then it is downloaded
                    self._link(staging, block.ulid, file.path)
        try:
            self._download(block, staging)
            with staging.child(block.ulid) as staged:
                require_matching_meta(staged, block)
                sound = _is_better(check_block(staged.path), bad)
        except (BytesDiffer, ObjectNotFound, SnapshotUnusable):
            sound = False
        if not sound:
            staging.remove(block.ulid)
        elif block.ulid == bad.name:
            with staging.child(block.ulid) as folder:
                self._merge_deletions(report, folder)
        return sound

    def _download(self, block: Block, folder: Folder) -> None:
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

    def _rebuild(self, staging: Folder, name: str, report: BlockReport) -> bool:
        """Stage a bad block with rebuilt meta.json and tombstones; return whether it is sound."""
        with self.swap.data.at(name, CHUNKS) as chunks:
            files = ["index", *(f"{CHUNKS}/{file}" for file in chunks.names())]
        for file in files:
            try:
                self._link(staging, name, file)
            except OSError:
                self._copy(staging, name, file)
        old = read_meta(report.folder)
        meta = old if old and old["ulid"] == name else None
        if meta is None or BAD_META & report.counts.keys():
            meta = rebuilt_meta(report, meta)
        with staging.child(name) as staged:
            write_meta(staged, meta)
            self._merge_deletions(report, staged)
            sound = not check_block(staged.path).counts
        if not sound:
            staging.remove(name)
        return sound

    def _link(self, staging: Folder, block: str, file: str) -> None:
        name = PurePosixPath(file).name
        with (
            self.swap.data.parent_of(block, file) as source,
            staging.parent_of(block, file, create=True) as target,
        ):
            if not target.exists(name):
                source.link(name, target, name, owner=self.owner)

    def _copy(self, staging: Folder, block: str, file: str) -> None:
        name = PurePosixPath(file).name
        with (
            self.swap.data.parent_of(block, file) as source,
            staging.parent_of(block, file, create=True) as target,
            source.reader(name, owner=self.owner) as existing,
            target.create(name) as copy,
        ):
            shutil.copyfileobj(existing, copy)

    def _merge_deletions(self, report: BlockReport, staged: Folder) -> None:
        """Apply the deletions of the bad block to its replacement."""
        deleted = [report.folder] if not BAD_TOMBSTONES & report.counts.keys() else []
        deleted += [staged.path] if staged.exists(TOMBSTONES) else []
        intervals = dict.fromkeys(i for block in deleted for i in read_intervals(block))
        staged.write(TOMBSTONES, tombstones_of(intervals))
        meta = load_meta(staged.read(META))
        write_meta(staged, repaired_meta(meta, tombstones=len(intervals)))


def _is_better(copy: BlockReport, bad: BadBlock) -> bool:
    """Return whether a copy is sound, or has minor faults where the bad block has serious ones."""
    effects = {kind.effect for kind in copy.counts}
    return not effects or (effects <= _TOLERABLE and bad.effect not in _TOLERABLE)
