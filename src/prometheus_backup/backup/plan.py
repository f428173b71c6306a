"""What a backup will do with each file, decided before anything moves. Pure.

A file is copied by the store where a good earlier backup, or what a dead run left, holds the same
bytes; else it is uploaded.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from prometheus_backup.model import SourceBlock
from prometheus_backup.repository.manifest import FinishedFile, Incomplete, Manifest

FileIdentity = tuple[str, str, int]
"""ULID, path and size. Enough for `index` and `chunks/*`, which never change under a ULID."""


@dataclass(frozen=True, slots=True)
class StoredCopy:
    """Bytes that the repository holds already. `salvaged`: by a run that never committed.

    `stored_checksum`: what the store said of them when they were proven right, if it did.
    """

    key: str
    sha256: str
    salvaged: bool
    stored_checksum: str | None = None


@dataclass(frozen=True, slots=True)
class PlannedFile:
    """A file of the snapshot, and where its bytes can be copied from, if anywhere."""

    ulid: str
    path: str
    size: int
    known: StoredCopy | None


@dataclass(frozen=True, slots=True)
class BackupPlan:
    """Every file of the snapshot once."""

    files: tuple[PlannedFile, ...]

    @property
    def uploads(self) -> tuple[PlannedFile, ...]:
        """Return the files that must be sent."""
        return tuple(f for f in self.files if f.known is None)

    @property
    def copies(self) -> tuple[PlannedFile, ...]:
        """Return the files that the store can copy."""
        return tuple(f for f in self.files if f.known is not None)


def plan_backup(
    blocks: Sequence[SourceBlock],
    *,
    previous: Manifest | None,
    dead_runs: Iterable[Incomplete],
    mutable: frozenset[str],
    corrupt: frozenset[str] = frozenset(),
) -> BackupPlan:
    """Decide for each file whether it is uploaded or copied.

    `previous` is the newest intact backup. A block of it that was corrupt on the source's disk (by
    its manifest, or in `corrupt`, found since) is sent again: it may have been mended since, under
    the same names and sizes. Files named in
    `mutable` are small, change under the same ULID, and are always sent.
    """
    known = _salvage(dead_runs) | (_holdings(previous, corrupt) if previous else {})
    files = tuple(
        PlannedFile(
            block.ulid,
            file.path,
            file.size,
            None if file.path in mutable else known.get((block.ulid, file.path, file.size)),
        )
        for block in blocks
        for file in block.files
    )
    return BackupPlan(files)


def _holdings(manifest: Manifest, corrupt: frozenset[str]) -> dict[FileIdentity, StoredCopy]:
    return {
        (block.ulid, file.path, file.size): StoredCopy(
            file.key, file.sha256, salvaged=False, stored_checksum=file.stored_checksum
        )
        for block, file in manifest.files()
        if not block.faults and block.ulid not in corrupt
    }


def _salvage(dead_runs: Iterable[Incomplete]) -> dict[FileIdentity, StoredCopy]:
    def known(file: FinishedFile) -> StoredCopy:
        return StoredCopy(file.key, file.sha256, salvaged=True)

    return {(f.ulid, f.path, f.size): known(f) for run in dead_runs for f in run.finished}
