"""Write the blocks of a plan into the target: stage, check, hand over, rename into place.

The target may belong to another user, whose processes may change it at any time. So blocks are
staged in a folder that only we can change, and get their owner when they are complete.
"""

import contextlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from prometheus_backup.datadir.filesystem import require_matching_meta, target_errors
from prometheus_backup.datadir.lock import HostLock
from prometheus_backup.errors import BackupToolError, BytesDiffer, TargetNotEmpty
from prometheus_backup.events import BlockRestored, Warned
from prometheus_backup.folder import Folder, Owner
from prometheus_backup.repository.layout import TOOL_FOLDER
from prometheus_backup.repository.manifest import Block, Manifest
from prometheus_backup.repository.repository import Repository
from prometheus_backup.restore.deletions import copied_meta
from prometheus_backup.restore.marker import MARKER, write_mark
from prometheus_backup.restore.staging import Staging
from prometheus_backup.transfer import Transfer
from prometheus_backup.tsdb.block import BlockUnusable
from prometheus_backup.tsdb.meta import META, load_meta

STAGING = "restore"


@dataclass(frozen=True, slots=True)
class Writer:
    """Writes blocks into a target, in the given order; `owner` becomes the owner of their files.

    `copies`: the ULIDs under which copies of blocks are placed, by the ULID of the block.
    `fresh`: the target is empty, so nothing of ours stays there. With `stop_on_damage`, the first
    block that cannot be restored ends the restore; otherwise the others are restored.
    """

    repository: Repository
    transfer: Transfer
    target: Path
    manifest: Manifest
    blocks: Sequence[Block]
    copies: Mapping[str, str]
    owner: Owner | None
    fresh: bool
    stop_on_damage: bool

    def write(self) -> dict[str, BackupToolError]:
        """Restore the blocks; return those that are damaged in the backup, with the reason.

        With `stop_on_damage`, raises BytesDiffer or ObjectNotFound instead. Raises RepositoryLocked
        if another run uses the target, TargetUnusable, and the errors of the repository.
        """
        damaged: dict[str, BackupToolError] = {}
        with target_errors(self.target):
            self.target.mkdir(parents=True, exist_ok=True)
            lock = HostLock.take(self.target)
            try:
                with (
                    Folder.hold(self.target) as target,
                    target.child(TOOL_FOLDER, create=True) as folder,
                ):
                    with folder.private(STAGING) as staging:
                        self._begin(folder, staging)
                        self._place(target, staging, damaged)
                    if not damaged:  # else the same command can resume once the object is back
                        self._finish(target, folder)
            finally:
                lock.release()
        for cause in damaged.values():
            self.transfer.listener(Warned(cause.message))
        return damaged

    def _begin(self, folder: Folder, staging: Folder) -> None:
        staging.require_owner(self.owner)  # before the first download
        if self.fresh:
            write_mark(folder, self.manifest, began_at=self.repository.clock.now())
        wanted = {block.ulid for block in self.blocks}
        for leftover in staging.names():
            if leftover not in wanted:
                staging.remove(leftover)

    def _place(self, target: Folder, staging: Folder, damaged: dict[str, BackupToolError]) -> None:
        failed = None if self.stop_on_damage else damaged
        downloads = Staging(self.repository, self.transfer, staging)
        blocks = downloads.download(self.blocks, step="restore", failed=failed)
        with contextlib.closing(blocks) as complete:
            for block in complete:
                try:
                    with staging.child(block.ulid) as staged:
                        require_matching_meta(staged, block)
                        self._give_ulid(staged, block)
                except (BytesDiffer, BlockUnusable) as error:
                    if failed is None:
                        raise
                    failed[block.ulid] = error
                    continue
                staging.hand_over(block.ulid, self.owner)
                self._move(staging, target, block)

    def _give_ulid(self, staged: Folder, block: Block) -> None:
        if name := self.copies.get(block.ulid):
            meta = copied_meta(load_meta(staged.read(META)), ulid=name)
            staged.write(META, json.dumps(meta, indent="\t").encode())

    def _move(self, staging: Folder, target: Folder, block: Block) -> None:
        name = self.copies.get(block.ulid, block.ulid)
        if target.exists(name):
            raise TargetNotEmpty(
                f"cannot restore {name} into {self.target}: a block of this name "
                "appeared during the restore",
                hint="run the same command again",
            )
        staging.move(block.ulid, target, name)
        target.sync()
        self.transfer.listener(BlockRestored(name, block.size))

    def _finish(self, target: Folder, folder: Folder) -> None:
        """Remove our files. In a target that had data, our folder stays because it has the lock."""
        folder.remove(STAGING)
        marked = folder.exists(MARKER)
        if marked:
            folder.unlink(MARKER)
        if self.fresh or marked:
            with contextlib.suppress(OSError):  # not empty: it has the intents of another run
                folder.rmdir("runs")
                folder.unlink("lock")
                target.rmdir(TOOL_FOLDER)
        elif self.owner:
            target.give_ours(TOOL_FOLDER, self.owner)
