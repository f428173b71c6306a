"""Decide for each file of a snapshot whether it is uploaded or copied within the store. Pure.

A file is copied if a good earlier backup, or the leftovers of a dead run, hold the same bytes.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from prometheus_backup.model import SourceBlock
from prometheus_backup.repository.manifest import Incomplete, Manifest

FileIdentity = tuple[str, str, int]
"""ULID, path and size. Enough for `index` and `chunks/*`, which never change under a ULID."""


@dataclass(frozen=True, slots=True)
class StoredCopy:
    """An object already in the repository. `salvaged`: left by a run that never committed.

    `stored_checksum` is the store's checksum of it, taken after its bytes were verified.
    """

    key: str
    sha256: str
    salvaged: bool
    stored_checksum: str | None = None


@dataclass(frozen=True, slots=True)
class PlannedFile:
    """A file of the snapshot. `known` is the object it can be copied from, if there is one."""

    ulid: str
    path: str
    size: int
    known: StoredCopy | None


@dataclass(frozen=True, slots=True)
class BackupPlan:
    """Every file of the snapshot, once."""

    files: tuple[PlannedFile, ...]

    @property
    def uploads(self) -> tuple[PlannedFile, ...]:
        """Return the files to upload."""
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

    `previous` is the newest intact backup. If one of its blocks was corrupt on the source's disk
    (according to its manifest, or to `corrupt`, found later), the block is uploaded again: it may
    have been repaired under the same names and sizes. Files named in `mutable` are small, can
    change under the same ULID, and are always uploaded.
    """
    known = _salvaged_files(dead_runs) | (_backed_up_files(previous, corrupt) if previous else {})
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


def _backed_up_files(manifest: Manifest, corrupt: frozenset[str]) -> dict[FileIdentity, StoredCopy]:
    return {
        (block.ulid, file.path, file.size): StoredCopy(
            file.key, file.sha256, salvaged=False, stored_checksum=file.stored_checksum
        )
        for block, file in manifest.files()
        if not block.faults and block.ulid not in corrupt
    }


def _salvaged_files(dead_runs: Iterable[Incomplete]) -> dict[FileIdentity, StoredCopy]:
    return {
        (file.ulid, file.path, file.size): StoredCopy(file.key, file.sha256, salvaged=True)
        for run in dead_runs
        for file in run.finished
    }
