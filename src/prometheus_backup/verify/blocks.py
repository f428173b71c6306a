"""Level `tsdb`: bring blocks into a scratch directory, a few at a time, and check each whole.

The bytes are compared with the manifest on their way in. Blocks of other bytes are checked all the
same: that finds the place and the series that are affected.
"""

import contextlib
import hashlib
import shutil
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from prometheus_backup.datadir.scratch import Scratch
from prometheus_backup.errors import BackupToolError, ObjectNotFound
from prometheus_backup.events import BlockChecked, LongStepBegan, LongStepEnded
from prometheus_backup.model import Finding, FindingKind, Verdict, printable
from prometheus_backup.repository.manifest import Block, File
from prometheus_backup.transfer import WorkerContext
from prometheus_backup.tsdb.parallel import check_blocks
from prometheus_backup.tsdb.verification import BlockReport
from prometheus_backup.verify.objects import ObjectVerifier, altered, missing

_TOGETHER = 1 << 30
"""Bytes of blocks that are in the scratch directory together; a larger one comes alone."""
_ROOM_TO_SPARE = 64 << 20
_WORTH_PROCESSES = 64 << 20
"""Bytes of blocks below which starting processes takes longer than checking."""
_KEPT = 20
"""Faults of a block that are kept whole."""


@dataclass(frozen=True, slots=True)
class ScratchSpace:
    """Where blocks are checked: an empty folder, and how many processes do it."""

    folder: Path
    processes: int

    @property
    def room(self) -> int:
        """Return the bytes of blocks that fit in."""
        return shutil.disk_usage(self.folder).free - _ROOM_TO_SPARE


@contextlib.contextmanager
def open_scratch_space(directory: Path, *, processes: int) -> Iterator[ScratchSpace]:
    """Have a folder in a scratch directory to check blocks in; it is gone afterwards.

    Raises RepositoryLocked where another verification is at work there, TargetUnusable where it
    cannot be used.
    """
    with Scratch.take(directory, verb="verify") as scratch:
        scratch.prepare(size=0)
        yield ScratchSpace(scratch.data, processes)


def verify_blocks(looking: ObjectVerifier, keys: Collection[str], bench: ScratchSpace) -> None:
    """Check the blocks of which all files are among these keys; of the others, hash the files.

    One that does not fit into the folder is a doubt: it was not looked at.
    """
    whole, broken = [], []
    for block in looking.manifest.blocks:
        wanted = [f for f in block.files if f.key in keys]
        if len(wanted) == len(block.files):
            whole.append(block)
        broken += [f.key for f in wanted if len(wanted) < len(block.files)]
    if broken:
        looking.bytes(broken)
    fitting = [b for b in whole if not _too_large(b, looking, bench)]
    looking.transfer.listener(LongStepBegan("verify", sum(b.size for b in fitting)))
    try:
        for together in batches(
            fitting, limit=min(_TOGETHER, bench.room), most=bench.processes * 4
        ):
            _Batch(looking, bench, together).look()
    finally:
        looking.transfer.listener(LongStepEnded("verify"))


def batches(blocks: Sequence[Block], *, limit: int, most: int) -> Iterator[list[Block]]:
    """Yield these blocks in groups of at most `limit` bytes and `most` blocks; one at least."""
    group: list[Block] = []
    for block in sorted(blocks, key=lambda b: (b.size, b.ulid)):
        if group and (len(group) >= most or sum(b.size for b in group) + block.size > limit):
            yield group
            group = []
        group.append(block)
    if group:
        yield group


def _too_large(block: Block, looking: ObjectVerifier, bench: ScratchSpace) -> bool:
    room = bench.room
    if block.size <= room:
        return False
    looking.seen.doubts.append(
        f"block {block.ulid} of {block.size:,} bytes does not fit into {bench.folder}, which has "
        f"room for {max(room, 0):,}: name another directory with --scratch"
    )
    return True


class _Batch:
    """Some blocks, while they are in the scratch directory."""

    def __init__(
        self, looking: ObjectVerifier, bench: ScratchSpace, blocks: Sequence[Block]
    ) -> None:
        self._looking = looking
        self._bench = bench
        self._blocks = {block.ulid: block for block in blocks}
        self._altered: set[str] = set()

    def look(self) -> None:
        folders = [self._bench.folder / ulid for ulid in self._blocks]
        try:
            lost = self._bring()
            self._check([f for f in folders if f.name not in lost])
        except OSError as error:
            cause = f"cannot use {self._bench.folder}: {error.strerror}"
            self._looking.seen.doubts.append(f"{cause}: name another directory with --scratch")
        finally:
            for folder in folders:
                shutil.rmtree(folder, ignore_errors=True)

    def _bring(self) -> set[str]:
        """Bring every file; return the blocks of which one has gone since the listing."""
        seen, lost = self._looking.seen, set()
        files = [(block, file) for block in self._blocks.values() for file in block.files]
        for block, file in files:
            self._path(block, file).parent.mkdir(parents=True, exist_ok=True)
        with contextlib.closing(self._looking.transfer.each(files, self._fetch)) as fetched:
            for (block, file), found in fetched:
                if found is None:
                    seen.findings.append(missing(file.key))
                    lost.add(block.ulid)
                    continue
                digest, size = found
                seen.read += size
                if digest != file.sha256:
                    self._altered.add(file.key)
                    seen.findings.append(altered(file.key, digest, file.sha256))
        return lost

    def _fetch(self, item: tuple[Block, File], watch: WorkerContext) -> tuple[str, int] | None:
        block, file = item
        digest, size = hashlib.sha256(), 0
        try:
            with self._path(block, file).open("wb") as output:
                for chunk in self._looking.repository.store.stream(file.key):
                    digest.update(chunk)
                    size += len(chunk)
                    watch.passed(len(chunk))
                    output.write(chunk)
                    if size > file.size:  # changed since the listing: it must not fill the disk
                        break
        except ObjectNotFound:
            return None
        return digest.hexdigest(), size

    def _path(self, block: Block, file: File) -> Path:
        return self._bench.folder / block.ulid / file.path

    def _check(self, folders: Sequence[Path]) -> None:
        size = sum(self._blocks[folder.name].size for folder in folders)
        processes = self._bench.processes if size >= _WORTH_PROCESSES else 1
        reports = check_blocks(folders, processes=processes, keep=_KEPT)
        try:
            with contextlib.closing(reports):
                for report in reports:
                    self._take(report, self._blocks[report.folder.name])
        except BackupToolError as error:  # a process died: that says nothing of the block
            self._looking.seen.doubts.append(error.message)

    def _take(self, report: BlockReport, block: Block) -> None:
        looking = self._looking
        told = BlockChecked(report.ulid, report.verdict.value, report.total_faults)
        looking.transfer.listener(told)
        if report.verdict is Verdict.INCONCLUSIVE:
            looking.seen.doubts.append(f"block {block.ulid}: {report.faults[0]}")
            return
        looking.seen.findings.extend(
            findings_of(report, block, backup_id=looking.manifest.backup_id, altered=self._altered)
        )


def findings_of(
    report: BlockReport, block: Block, *, backup_id: str, altered: Collection[str]
) -> list[Finding]:
    """Return the faults of a block as findings; `altered` are keys whose bytes are not right.

    Damage in bytes that are right was there before the backup: that tells where to look for its
    cause.
    """
    keys: Mapping[str, str] = {file.path: file.key for file in block.files}
    right = not {file.key for file in block.files} & set(altered)
    kind = FindingKind.UNSOUND_AT_SOURCE if right else FindingKind.UNSOUND
    since = ", and so it was when it was backed up" if right else ""
    found = [
        Finding(
            kind,
            keys.get(fault.file, f"{backup_id}/{block.ulid}/{fault.file}"),
            printable(f"{fault.detail} [{fault.kind.value}]{since}"),
            offset=fault.offset,
            series=printable(fault.series),
        )
        for fault in report.faults
    ]
    if report.total_faults > len(found):
        more = f"and {report.total_faults - len(found):,} faults more"
        found.append(Finding(kind, f"{backup_id}/{block.ulid}", more))
    return found
