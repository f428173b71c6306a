"""Level `tsdb`: download blocks into a scratch directory, a few at a time, and check each one.

Files are hashed while they are downloaded and compared with the manifest. A block whose bytes
differ is checked as well, to find the offset and the series that are affected.
"""

import contextlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from prometheus_backup.datadir.scratch import Scratch
from prometheus_backup.errors import BackupToolError, ObjectNotFound
from prometheus_backup.events import BlockChecked, long_step
from prometheus_backup.folder import Folder
from prometheus_backup.model import Finding, FindingKind, Verdict, counted, printable
from prometheus_backup.repository.manifest import Block, File
from prometheus_backup.transfer import HashedStream, WorkerContext, read_again_if_different
from prometheus_backup.tsdb.parallel import check_blocks
from prometheus_backup.tsdb.verification import BlockReport
from prometheus_backup.verify.objects import (
    ObjectVerifier,
    altered,
    missing,
)

_BATCH_BYTES = 1 << 30
"""Bytes of blocks in the scratch directory at the same time; a larger block is checked alone."""
_BATCH_BLOCKS = 256
_RESERVED_BYTES = 64 << 20
_MAX_FAULTS = 20
"""Faults reported for one block; further faults are only counted."""


@dataclass(frozen=True, slots=True)
class ScratchSpace:
    """An empty folder to check blocks in, and the number of processes that check them."""

    folder: Folder
    processes: int

    @property
    def room(self) -> int:
        """Return how many bytes of blocks fit."""
        return self.folder.free - _RESERVED_BYTES


@contextlib.contextmanager
def open_scratch_space(directory: Path, *, processes: int) -> Iterator[ScratchSpace]:
    """Create a folder in a scratch directory to check blocks in, and remove it afterwards.

    Raises RepositoryLocked if another verification uses the directory, TargetUnusable if the
    directory cannot be used.
    """
    with Scratch.take(directory, verb="verify") as scratch:
        scratch.prepare(size=0)
        yield ScratchSpace(scratch.data, processes)


def verify_blocks(verifier: ObjectVerifier, keys: Collection[str], scratch: ScratchSpace) -> None:
    """Check the blocks whose files are all among these keys; only hash the files of other blocks.

    A block that does not fit into the folder is reported as not checked.
    """
    complete, partial = [], []
    for block in verifier.manifest.blocks:
        wanted = [f for f in block.files if f.key in keys]
        if wanted and all(f.key in verifier.shared.findings for f in wanted):
            verifier.unread(wanted)
        elif len(wanted) == len(block.files):
            complete.append(block)
        else:
            partial += [f.key for f in wanted]
    if partial:
        verifier.check_bytes(partial)
    fitting = [b for b in complete if not _too_large(b, verifier, scratch)]
    limit = min(_BATCH_BYTES, scratch.room)
    with long_step(verifier.transfer.listener, "verify", sum(b.size for b in fitting)):
        for batch in batches(fitting, limit=limit, most=_BATCH_BLOCKS):
            _Batch(verifier, scratch, batch).check()


def batches(blocks: Sequence[Block], *, limit: int, most: int) -> Iterator[list[Block]]:
    """Yield the blocks in groups of at most `limit` bytes (or one block) and `most` blocks."""
    group: list[Block] = []
    for block in sorted(blocks, key=lambda b: (b.size, b.ulid)):
        if group and (len(group) >= most or sum(b.size for b in group) + block.size > limit):
            yield group
            group = []
        group.append(block)
    if group:
        yield group


def _too_large(block: Block, verifier: ObjectVerifier, scratch: ScratchSpace) -> bool:
    room = scratch.room
    if block.size <= room:
        return False
    verifier.result.unchecked.append(
        f"block {block.ulid} ({counted(block.size, 'byte')}) does not fit into "
        f"{scratch.folder.path}, which has {counted(max(room, 0), 'byte')} free: "
        "set another directory with --scratch"
    )
    return True


class _Batch:
    """A group of blocks that are in the scratch directory at the same time."""

    def __init__(
        self, verifier: ObjectVerifier, scratch: ScratchSpace, blocks: Sequence[Block]
    ) -> None:
        self._verifier = verifier
        self._scratch = scratch
        self._blocks = {block.ulid: block for block in blocks}
        self._altered: set[str] = set()
        self._unchecked = set(self._blocks)

    def check(self) -> None:
        folder = self._scratch.folder
        try:
            missing_blocks = self._download()
            self._check_blocks([folder.path / u for u in self._blocks if u not in missing_blocks])
        except OSError as error:
            cause = f"cannot use {folder.path}: {error.strerror}"
            self._verifier.result.unchecked.append(f"{cause}: set another directory with --scratch")
        finally:
            for ulid in self._blocks:
                with contextlib.suppress(OSError):
                    folder.remove(ulid)
            for file in (f for ulid in self._unchecked for f in self._blocks[ulid].files):
                self._verifier.shared.findings.pop(file.key, None)

    def _download(self) -> set[str]:
        """Download every file; return the blocks that lost a file since the listing."""
        result, missing_blocks = self._verifier.result, set()
        files = [(block, file) for block in self._blocks.values() for file in block.files]
        for block, file in files:
            with self._scratch.folder.parent_of(block.ulid, file.path, create=True):
                pass
        fetched = self._verifier.transfer.each(files, self._fetch, size=lambda item: item[1].size)
        with contextlib.closing(fetched) as results:
            for (block, file), found in results:
                if found is None:
                    self._verifier.add(file.key, missing(file.key))
                    missing_blocks.add(block.ulid)
                    continue
                result.bytes_read += found.size
                if found.sha256 != file.sha256:
                    self._altered.add(file.key)
                    self._verifier.add(file.key, altered(file.key, found.sha256, file.sha256))
                else:
                    self._verifier.add(file.key)
        return missing_blocks

    def _fetch(self, item: tuple[Block, File], worker: WorkerContext) -> HashedStream | None:
        block, file = item

        def download() -> HashedStream:
            chunks = self._verifier.repository.store.stream(file.key)
            # With a limit, an object that grew since the listing cannot fill the disk.
            body = HashedStream(chunks, worker=worker, limit=file.size)
            with (
                self._scratch.folder.parent_of(block.ulid, file.path) as parent,
                parent.create(PurePosixPath(file.path).name) as output,
            ):
                output.writelines(body)
            return body

        try:
            return read_again_if_different(download, file.sha256, worker=worker)
        except ObjectNotFound:
            return None

    def _check_blocks(self, folders: Sequence[Path]) -> None:
        reports = check_blocks(folders, processes=self._scratch.processes, keep=_MAX_FAULTS)
        try:
            with contextlib.closing(reports):
                for report in reports:
                    self._add_report(report, self._blocks[report.folder.name])
        except BackupToolError as error:  # a process died, which proves nothing about the block
            self._verifier.result.unchecked.append(error.message)

    def _add_report(self, report: BlockReport, block: Block) -> None:
        verifier = self._verifier
        event = BlockChecked(report.ulid, report.verdict.value, report.total_faults)
        verifier.transfer.listener(event)
        if report.verdict is Verdict.INCONCLUSIVE:
            verifier.result.unchecked.append(f"block {block.ulid}: {report.faults[0]}")
            return
        self._unchecked.discard(block.ulid)
        folder = block.folder or f"{verifier.manifest.backup_id}/{block.ulid}"
        found = findings_of(report, block, folder=folder, altered=self._altered)
        verifier.result.findings += found
        if block.folder:
            verifier.shared.findings[block.files[0].key] += tuple(found)


def findings_of(
    report: BlockReport, block: Block, *, folder: str, altered: Collection[str]
) -> list[Finding]:
    """Return the faults of a block as findings; `altered` are keys whose bytes are wrong.

    `folder` is the block's folder in the repository.

    If the bytes are right, the block was already damaged when it was backed up. The finding says
    so, because the cause is then on the source and not in the repository.
    """
    keys: Mapping[str, str] = {file.path: file.key for file in block.files}
    damaged_at_source = not {file.key for file in block.files} & set(altered)
    kind = FindingKind.UNSOUND_AT_SOURCE if damaged_at_source else FindingKind.UNSOUND
    note = ", already when it was backed up" if damaged_at_source else ""
    found = [
        Finding(
            kind,
            keys.get(fault.file, f"{folder}/{fault.file}"),
            printable(f"{fault.detail} [{fault.kind.value}]{note}"),
            offset=fault.offset,
            series=printable(fault.series),
        )
        for fault in report.faults
    ]
    if report.total_faults > len(found):
        more = f"and {report.total_faults - len(found):,} more faults"
        found.append(Finding(kind, folder, more))
    return found
