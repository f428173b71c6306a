"""Decide for each file of a snapshot whether it is uploaded or copied within the store. Pure.

A file is copied if a good earlier backup, or the leftovers of a dead run, hold the same bytes. In
layout `archive`, a file that is in the archive is neither uploaded nor copied.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from prometheus_backup.model import SourceBlock, SourceFile
from prometheus_backup.repository.layout import VERSIONS, archive_folder
from prometheus_backup.repository.manifest import Block, File, Incomplete, Manifest

FileIdentity = tuple[str, str, int]
"""ULID, path and size. Enough for `index` and `chunks/*`, which never change under a ULID."""


@dataclass(frozen=True, slots=True)
class StoredCopy:
    """An object already in the repository. `salvaged`: left by a run that never committed.

    `disposable`: it is deleted once it is copied, so that a full store has room for the next one.
    `stored_checksum` is the store's checksum of it, taken after its bytes were verified.
    """

    key: str
    sha256: str
    salvaged: bool
    stored_checksum: str | None = None
    disposable: bool = False


@dataclass(frozen=True, slots=True)
class PlannedFile:
    """A file of the snapshot, and the key of its object.

    `known` is the object it can be copied from, if there is one: no copy is needed if it has that
    key. `version` is the newest version of a file that can change, which is used if it did not.
    With `sha256`, an object that other backups name, this one or `version`, is damaged: it is
    uploaded again, but not with other bytes.
    """

    ulid: str
    path: str
    size: int
    key: str
    known: StoredCopy | None = None
    version: StoredCopy | None = None
    sha256: str | None = None

    @property
    def shared(self) -> bool:
        """Return whether its object is in the archive already."""
        return self.known is not None and self.known.key == self.key


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
        return tuple(f for f in self.files if f.known is not None and not f.shared)

    @property
    def shared(self) -> tuple[PlannedFile, ...]:
        """Return the files whose objects are in the archive already."""
        return tuple(f for f in self.files if f.shared)


def plan_backup(
    blocks: Sequence[SourceBlock],
    *,
    backup_id: str,
    previous: Manifest | None,
    dead_runs: Iterable[Incomplete],
    mutable: frozenset[str],
    corrupt: frozenset[str] = frozenset(),
    disposable: frozenset[str] = frozenset(),
) -> BackupPlan:
    """Decide for each file whether it is uploaded or copied.

    `disposable` are the keys of files of dead runs that need not be kept once they are copied.

    `previous` is the newest intact backup. If one of its blocks was corrupt on the source's disk
    (according to its manifest, or to `corrupt`, found later), the block is uploaded again: it may
    have been repaired under the same names and sizes. Files named in `mutable` are small, can
    change under the same ULID, and are always uploaded.
    """
    salvaged = _salvaged_files(dead_runs, disposable)
    known = salvaged | (_backed_up_files(previous, corrupt) if previous else {})
    files = tuple(
        PlannedFile(
            block.ulid,
            file.path,
            file.size,
            f"{backup_id}/{block.ulid}/{file.path}",
            None if file.path in mutable else known.get((block.ulid, file.path, file.size)),
        )
        for block in blocks
        for file in block.files
    )
    return BackupPlan(files)


def plan_archive_backup(
    blocks: Sequence[SourceBlock],
    *,
    backup_id: str,
    previous: Manifest | None,
    dead_runs: Iterable[Incomplete],
    mutable: frozenset[str],
    corrupt: frozenset[str],
    archived: Mapping[str, Block],
    damaged: frozenset[str],
    disposable: frozenset[str] = frozenset(),
) -> BackupPlan:
    """Decide for each file whether it is shared, uploaded or copied into the archive.

    `archived` are the blocks that are in the archive, by ULID; `damaged` are keys of their objects
    to upload again. The other parameters are those of `plan_backup`.
    """
    salvaged = _salvaged_files(dead_runs, disposable)
    known = salvaged | (_backed_up_files(previous, corrupt) if previous else {})

    def planned(block: SourceBlock, file: SourceFile) -> PlannedFile:
        kept = archived.get(block.ulid)
        folder = kept.folder if kept and kept.folder else archive_folder(block.ulid, backup_id)
        old = next((f for f in kept.files if f.path == file.path), None) if kept else None
        copy = _copy_of(old) if old else None
        repaired = old.sha256 if old is not None and old.key in damaged else None
        if file.path in mutable:
            key = f"{folder}/{VERSIONS}/{backup_id}/{file.path}"
            return PlannedFile(block.ulid, file.path, file.size, key, version=copy, sha256=repaired)
        if old is not None and repaired:
            return PlannedFile(block.ulid, file.path, file.size, old.key, sha256=repaired)
        copy = copy or known.get((block.ulid, file.path, file.size))
        return PlannedFile(block.ulid, file.path, file.size, f"{folder}/{file.path}", copy)

    return BackupPlan(tuple(planned(block, file) for block in blocks for file in block.files))


def _copy_of(file: File) -> StoredCopy:
    return StoredCopy(file.key, file.sha256, salvaged=False, stored_checksum=file.stored_checksum)


def _backed_up_files(manifest: Manifest, corrupt: frozenset[str]) -> dict[FileIdentity, StoredCopy]:
    return {
        (block.ulid, file.path, file.size): _copy_of(file)
        for block, file in manifest.files()
        if not block.faults and block.ulid not in corrupt
    }


def _salvaged_files(
    dead_runs: Iterable[Incomplete], disposable: frozenset[str] = frozenset()
) -> dict[FileIdentity, StoredCopy]:
    return {
        (file.ulid, file.path, file.size): StoredCopy(
            file.key,
            file.sha256,
            salvaged=True,
            disposable=file.key in disposable,
        )
        for run in dead_runs
        for file in run.finished
    }
