"""The archive: blocks that backups share, each in a folder that one run has written.

Which folders somebody wants, and which are deleted, is decided in `retention.archive`. Format:
docs/repository-format.md; why its rules are safe: docs/design.md, "The archive".
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Self

from prometheus_backup import __version__
from prometheus_backup.errors import ObjectNotFound
from prometheus_backup.model import (
    CONTROL,
    FindingKind,
    Level,
    ObjectInfo,
    PutOptions,
    Verdict,
)
from prometheus_backup.repository.catalog import catalogued
from prometheus_backup.repository.document import ArchiveFolder, Document, Instant, Text
from prometheus_backup.repository.layout import (
    ARCHIVE,
    BLOCK,
    CLAIMS,
    FORGOTTEN,
    UNWANTED,
    VERSIONS,
    claimed_id,
    folder_of,
    is_control_path,
    is_verdict_name,
    last_name,
    parse_last,
    verdict_name,
)
from prometheus_backup.repository.manifest import (
    MAX_DOCUMENT_SIZE,
    ArchivedTimes,
    Block,
    Manifest,
    NamedFolder,
    decode,
    encode,
)
from prometheus_backup.repository.verification import RecordedFinding, Verification
from prometheus_backup.stores.base import ObjectStore, delete_in_order
from prometheus_backup.transfer import small_requests

_MAX_LOST = 20
"""Lost objects that are named for one backup."""


class UnwantedMark(Document):
    """`unwanted.json`: a prune found that nobody wants this folder. No new backup names it."""

    run_id: Text
    marked_at: Instant


class ForgottenMark(Document):
    """`forgotten.json`: a user erased this folder from the history, which it never returns to."""

    run_id: Text
    forgotten_at: Instant


class FolderVerdict(Document):
    """`verdict-<level>.json`: faults of a folder, which every backup that names it shares.

    It speaks of the objects as they were: `versions` holds the version of each faulty one, by key,
    empty for a missing one.
    """

    folder: ArchiveFolder
    level: Level
    verified_at: Instant
    tool_version: Text
    findings: tuple[RecordedFinding, ...]
    versions: dict[str, str]


@dataclass(frozen=True, slots=True)
class ArchivedFolder:
    """A folder of the archive as a listing shows it; `objects` by key."""

    name: str
    objects: Mapping[str, ObjectInfo]

    def has_all(self, named: NamedFolder) -> bool:
        """Return whether all that a backup names of it is there; sizes are not compared."""
        wanted = {f"{self.name}/{VERSIONS}/{backup}/{path}" for path, backup in named.versions}
        return (
            self.complete
            and self._unchanging + len(wanted) == named.files
            and wanted <= self.objects.keys()
        )

    @property
    def _unchanging(self) -> int:
        """Return the number of its files that are the same in every backup."""
        paths = (key.removeprefix(f"{self.name}/") for key in self.objects)
        return sum(not is_control_path(path) for path in paths)

    @property
    def keeper(self) -> str:
        """Return the id of the backup whose run wrote it."""
        return self.name.rpartition("/")[2]

    @property
    def complete(self) -> bool:
        """Return whether the run that wrote it finished it."""
        return f"{self.name}/{BLOCK}" in self.objects

    @property
    def marked_at(self) -> datetime | None:
        """Return when it was marked as unwanted, by the store's clock; None if it is not."""
        mark = self.objects.get(f"{self.name}/{UNWANTED}")
        return mark.modified if mark else None

    @property
    def forgotten(self) -> bool:
        """Return whether a user erased it from the history."""
        return f"{self.name}/{FORGOTTEN}" in self.objects

    @property
    def size(self) -> int:
        """Return the size of its objects in bytes."""
        return sum(o.size for o in self.objects.values())

    @property
    def last(self) -> tuple[str, str, ArchivedTimes] | None:
        """Return the last backup that named it, the key that says so, and its times.

        None as long as a backup that names it has not been deleted.
        """
        found = [
            (parsed[0], key, ArchivedTimes(*parsed[1:]))
            for key in self.objects
            if (parsed := parse_last(key.removeprefix(f"{self.name}/")))
        ]
        return max(found, default=None)

    @property
    def verdict_keys(self) -> Sequence[str]:
        """Return the keys of the verdicts on it."""
        return [k for k in self.objects if is_verdict_name(k.rpartition("/")[2])]


@dataclass(frozen=True, slots=True)
class ArchiveView:
    """What a listing of the archive shows: its folders, the claims, and the catalogue's entries.

    The three are by folder, by backup id, and ids of backups. `verdicts` are the faults known in
    the folders.
    """

    folders: Mapping[str, ArchivedFolder]
    claims: Mapping[str, ObjectInfo]
    catalogued: frozenset[str]
    verdicts: Sequence[FolderVerdict]
    _whole: dict[str, tuple[NamedFolder, bool]] = field(default_factory=dict)

    def without_claim(self, backup_id: str) -> Self:
        """Return the same after the end of a claim."""
        return replace(self, claims={i: c for i, c in self.claims.items() if i != backup_id})

    def has_all(self, named: Mapping[str, NamedFolder]) -> bool:
        """Return whether all that a backup names is there."""
        return all(self._has_all(name, one) for name, one in named.items())

    def _has_all(self, name: str, one: NamedFolder) -> bool:
        known = self._whole.get(name)  # most backups name the same: ask once
        if known is not None and (known[0] is one or known[0] == one):
            return known[1]
        folder = self.folders.get(name)
        whole = folder is not None and folder.has_all(one)
        self._whole[name] = one, whole
        return whole

    def failures(
        self,
        backup_id: str,
        named: Mapping[str, NamedFolder],
        *,
        lost: Sequence[str],
        now: datetime,
    ) -> tuple[Verification, ...]:
        """Return the faults of the archive's objects that a backup names, by level.

        `lost` are keys that it names and that do not exist (`lost_keys`).
        """
        missing = [
            RecordedFinding(kind=FindingKind.MISSING, key=key, detail="not in the archive")
            for key in lost[:_MAX_LOST]
        ]
        found = [_failure(backup_id, Level.SIZE, now, missing)]
        for verdict in self.verdicts:
            folder = named.get(verdict.folder)
            findings = [
                f for f in verdict.findings if folder and folder.names(f.key) and f.key not in lost
            ]
            found.append(_failure(backup_id, verdict.level, verdict.verified_at, findings))
        return tuple(failure for failure in found if failure.findings)


class Archive:
    """The archive in a store. Store errors are passed on: a failed read never means absence."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store

    def folders(self, ulid: str = "") -> Mapping[str, ArchivedFolder]:
        """Return every folder, or those of one block, by name; one request per 1,000 objects."""
        return _folders(self._store.list(f"{ARCHIVE}/{ulid}" if ulid else ARCHIVE))

    def view(self) -> ArchiveView:
        """Return the archive as it is now.

        The listing is sorted, so the claims in it are not older than the folders.
        """
        found = list(self._store.list(ARCHIVE))
        folders = _folders(found)
        return ArchiveView(
            folders=folders,
            claims=_claims(found),
            catalogued=catalogued(found),
            verdicts=[v for found in self.all_verdicts(folders.values()).values() for v in found],
        )

    def claims(self) -> Mapping[str, ObjectInfo]:
        """Return the claims of runs that have not committed their backup, by backup id."""
        return _claims(self._store.list(CLAIMS))

    def block(self, folder: str) -> Block | None:
        """Return what `block.json` says; None if it is invalid or gone."""
        try:
            body = self._store.get(f"{folder}/{BLOCK}", limit=MAX_DOCUMENT_SIZE)
        except ObjectNotFound:
            return None
        block = decode(Block, body)
        return block if block and block.folder == folder else None

    def complete(self, block: Block, *, options: PutOptions) -> None:
        """Write `block.json`, which makes the folder of this block complete."""
        self._store.put_small(f"{block.folder}/{BLOCK}", encode(block), options=options)

    def mark(self, folder: str, mark: UnwantedMark) -> None:
        """Mark a folder as unwanted."""
        self._store.put_small(f"{folder}/{UNWANTED}", encode(mark), options=CONTROL)

    def forget(self, folder: str, mark: ForgottenMark) -> None:
        """Record that a folder is not part of the history any more."""
        self._store.put_small(f"{folder}/{FORGOTTEN}", encode(mark), options=CONTROL)

    def remember(self, backup_id: str, block: Block) -> None:
        """Record that this backup is the last one that names a folder, and how it has the block."""
        name = last_name(backup_id, *block.times_ms, partial=bool(block.hints))
        self._store.put_small(f"{block.folder}/{name}", encode(block), options=CONTROL)

    def remembered(self, folder: ArchivedFolder) -> Block | None:
        """Return the block as the last backup had it; None if that is not recorded."""
        last = folder.last
        if last is None:
            return None
        block = decode(Block, self._store.get(last[1], limit=MAX_DOCUMENT_SIZE))
        return block if block and block.folder == folder.name else None

    def delete(self, folder: ArchivedFolder) -> None:
        """Delete a marked folder: its objects, then `forgotten.json`, the mark last."""
        marks = (f"{folder.name}/{FORGOTTEN}", f"{folder.name}/{UNWANTED}")
        # Listed again: a late run may have added a version since.
        found = [o.key for o in self._store.list(folder.name)]
        rest = [key for key in found if key not in marks]
        # Without block.json it is incomplete, so that it is not mistaken for a whole one.
        rest.sort(key=lambda key: not key.endswith(f"/{BLOCK}"))
        delete_in_order(self._store, rest)
        for mark in marks:
            if mark in found:
                self._store.delete([mark])

    def verdicts(self, folder: ArchivedFolder) -> Sequence[FolderVerdict]:
        """Return the verdicts on a folder that still speak of its objects."""
        found = []
        for key in folder.verdict_keys:
            try:
                body = self._store.get(key, limit=MAX_DOCUMENT_SIZE)
            except ObjectNotFound:
                continue
            verdict = decode(FolderVerdict, body)
            if verdict and verdict.folder == folder.name and _is_current(verdict, folder):
                found.append(verdict)
        return found

    def all_verdicts(
        self, folders: Iterable[ArchivedFolder]
    ) -> Mapping[str, Sequence[FolderVerdict]]:
        """Return the same for several folders, by name, without those that have none."""
        judged = [f for f in folders if f.verdict_keys]
        names = [f.name for f in judged]
        return dict(zip(names, small_requests(self.verdicts, judged), strict=True))

    def record(self, verdict: FolderVerdict) -> None:
        """Write a verdict beside the folder's objects."""
        key = f"{verdict.folder}/{verdict_name(verdict.level)}"
        self._store.put_small(key, encode(verdict), options=CONTROL)

    def clear(self, folder: ArchivedFolder, level: Level, *, sound: Collection[str]) -> None:
        """Remove the verdicts of this level and of weaker ones on objects that are sound now."""
        keys = [
            f"{folder.name}/{verdict_name(verdict.level)}"
            for verdict in self.verdicts(folder)
            if verdict.level.rank <= level.rank and all(f.key in sound for f in verdict.findings)
        ]
        if keys:
            self._store.delete(keys)


def _is_current(verdict: FolderVerdict, folder: ArchivedFolder) -> bool:
    """Return whether a faulty object is still the one that was looked at."""
    return any(
        (folder.objects[key].version if key in folder.objects else "") == version
        for key, version in verdict.versions.items()
    )


def _folders(found: Iterable[ObjectInfo]) -> Mapping[str, ArchivedFolder]:
    folders: dict[str, dict[str, ObjectInfo]] = {}
    for info in found:
        if folder := folder_of(info.key):
            folders.setdefault(folder, {})[info.key] = info
    return {name: ArchivedFolder(name, objects) for name, objects in folders.items()}


def _claims(found: Iterable[ObjectInfo]) -> Mapping[str, ObjectInfo]:
    claims = {claimed_id(info.key): info for info in found}
    return {identifier: info for identifier, info in claims.items() if identifier}


def _failure(
    backup_id: str, level: Level, at: datetime, findings: Sequence[RecordedFinding]
) -> Verification:
    return Verification(
        backup_id=backup_id,
        level=level,
        verdict=Verdict.FAIL,
        verified_at=at,
        tool_version=__version__,
        objects=0,
        bytes_read=0,
        findings=tuple(findings),
    )


def lost_keys(manifest: Manifest, folders: Mapping[str, ArchivedFolder]) -> Sequence[str]:
    """Return the keys in the archive that a manifest names and a listing lacks."""
    lost: list[str] = []
    for block in manifest.blocks:
        if block.folder is None:
            continue
        folder = folders.get(block.folder)
        sizes = {f.key: f.size for f in block.files}
        if folder is None:
            lost += sizes
            continue
        lost += [k for k, size in sizes.items() if not _has(folder, k, size)]
        if not folder.complete:
            lost.append(f"{folder.name}/{BLOCK}")
    return lost


def _has(folder: ArchivedFolder, key: str, size: int) -> bool:
    return key in folder.objects and folder.objects[key].size == size
