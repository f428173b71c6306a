"""The catalogue: an entry for each backup, so that nobody needs to read every manifest.

An entry repeats what the documents in a backup's folder say. It is believed as long as a listing
shows the document as the entry saw it; else the document itself is read. So a missing, old or wrong
entry costs time and nothing else. Format: docs/repository-format.md.
"""

import contextlib
import hashlib
import zlib
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Annotated, Self, TypeVar

from pydantic import FailFast, Field

from prometheus_backup import __version__
from prometheus_backup.errors import RepositoryError
from prometheus_backup.model import CONTROL, Layout, ObjectInfo
from prometheus_backup.repository.document import (
    BackupId,
    Count,
    Document,
    Instant,
    Sha256,
    Size,
    Text,
)
from prometheus_backup.repository.hold import Hold
from prometheus_backup.repository.layout import (
    CATALOG,
    MANIFEST,
    archive_folder,
    catalog_blocks_key,
    catalog_key,
    catalogued_id,
    is_archive_folder,
)
from prometheus_backup.repository.manifest import (
    MAX_DOCUMENT_SIZE,
    MAX_FILES,
    ArchivedTimes,
    Header,
    Manifest,
    NamedFolder,
    decode,
)
from prometheus_backup.repository.verification import Rotation, Verification
from prometheus_backup.spans import Span
from prometheus_backup.stores.base import ObjectStore, exists

_WEEK = timedelta(days=7)
_GZIP = 31
"""zlib's number for the format of gzip(1)."""
_T = TypeVar("_T")
_Column = Annotated[tuple[_T, ...], FailFast(), Field(max_length=MAX_FILES)]


class SeenFile(Document):
    """A document as a listing showed it: size in bytes, and ETag or time of modification."""

    size: Size
    version: Text

    @classmethod
    def of(cls, info: ObjectInfo) -> Self:
        """Return what a listing shows of an object."""
        return cls(size=info.size, version=info.version)

    def is_still(self, info: ObjectInfo | None) -> bool:
        """Return whether a listing shows it unchanged; not if the store does not tell."""
        return info is not None and bool(self.version) and self == SeenFile.of(info)


class CoveredTime(Document):
    """A time range that the blocks of a backup cover together, half open."""

    start: Instant
    end: Instant


class CatalogEntry(Document):
    """`<backup>.json`: what the documents of a backup say, without its blocks.

    An entry of another version of this program is not believed: it may lack fields. `seen` are the
    documents, by name. `confirmed_at`: when the entry was last compared with the
    manifest by a run that deletes. `blocks_sha256`: the hash of the list of blocks, unpacked.
    """

    backup_id: BackupId
    tool_version: Text
    seen: dict[Text, SeenFile]
    header: Header
    covers: Annotated[tuple[CoveredTime, ...], FailFast()]
    verifications: dict[Text, Verification]
    rotations: dict[Text, Rotation]
    hold: Hold | None
    confirmed_at: Instant | None = None
    blocks_sha256: Sha256 | None = None

    def is_confirmed(self, now: datetime) -> bool:
        """Return whether it was compared with its manifest in the last week."""
        return self.confirmed_at is not None and abs(now - self.confirmed_at) < _WEEK

    @property
    def spans(self) -> tuple[Span, ...]:
        """Return the time ranges that its blocks cover together, oldest first."""
        return tuple(Span(c.start, c.end) for c in self.covers)

    def current(self, files: Mapping[str, ObjectInfo]) -> frozenset[str]:
        """Return the documents of a listing that have not changed since."""
        return frozenset(n for n, seen in self.seen.items() if seen.is_still(files.get(n)))


class CatalogBlocks(Document):
    """`<backup>-blocks.json.gz`: the folders of the archive that a backup names, as columns.

    They are checked when they are put together. Times in milliseconds. `versions` is an index into
    `kinds`, in which an empty backup id stands for the folder's keeper.
    """

    backup_id: BackupId
    ulids: _Column[str]
    keepers: _Column[str]
    begins_ms: _Column[int]
    lengths_ms: _Column[int]
    partial: _Column[bool]
    files: _Column[Count]
    versions: _Column[Count]
    kinds: Annotated[tuple[tuple[tuple[Text, Text], ...], ...], FailFast()]

    @classmethod
    def of(cls, backup_id: str, named: Mapping[str, NamedFolder]) -> Self:
        """Return the folders that a backup names."""
        places = [name.split("/")[1:] for name in named]
        shapes = [
            tuple((path, "" if backup == keeper else backup) for path, backup in folder.versions)
            for (_, keeper), folder in zip(places, named.values(), strict=True)
        ]
        kinds = {kind: number for number, kind in enumerate(dict.fromkeys(shapes))}
        return cls(
            backup_id=backup_id,
            ulids=tuple(ulid for ulid, _ in places),
            keepers=tuple(keeper for _, keeper in places),
            begins_ms=tuple(f.times.begin_ms for f in named.values()),
            lengths_ms=tuple(f.times.end_ms - f.times.begin_ms for f in named.values()),
            partial=tuple(f.times.partial for f in named.values()),
            files=tuple(f.files for f in named.values()),
            versions=tuple(kinds[shape] for shape in shapes),
            kinds=tuple(kinds),
        )

    def named(self, known: "KnownRows") -> Mapping[str, NamedFolder] | None:
        """Return the folders by name; None if the document is inconsistent.

        Most backups name the same folders: each row is put together once, and `known` afterwards.
        """
        rows = known.setdefault(self.kinds, {})
        found: dict[str, NamedFolder] = {}
        try:
            for row in zip(
                self.ulids,
                self.keepers,
                self.begins_ms,
                self.lengths_ms,
                self.partial,
                self.files,
                self.versions,
                strict=True,
            ):
                one = rows.get(row)
                if one is None:
                    one = rows[row] = self._folder(*row)
                found[one[0]] = one[1]
        except (ValueError, IndexError):
            return None
        return found

    def _folder(
        self, ulid: str, keeper: str, begin: int, length: int, partial: bool, files: int, kind: int
    ) -> tuple[str, NamedFolder]:
        name = archive_folder(ulid, keeper)
        if not is_archive_folder(name):
            raise ValueError(f"{name} is not a folder of the archive")
        versions = tuple((path, backup or keeper) for path, backup in self.kinds[kind])
        times = ArchivedTimes(begin, begin + length, partial)
        return name, NamedFolder(times, files, versions)


KnownRows = dict[
    tuple[tuple[tuple[str, str], ...], ...],
    dict[tuple[str, str, int, int, bool, int, int], tuple[str, NamedFolder]],
]
"""Rows of lists of blocks that were put together, by the list's `kinds`."""


@dataclass(slots=True)
class CatalogMemory:
    """What was read of a repository, by backup id, so that only changes are read again.

    `stored` are the entries as they are in the store, `current` as they should be; `named` are the
    folders of the archive, with the hash of their list.
    """

    stored: dict[str, CatalogEntry] = field(default_factory=dict)
    current: dict[str, CatalogEntry] = field(default_factory=dict)
    named: dict[str, tuple[str | None, Mapping[str, NamedFolder]]] = field(default_factory=dict)
    rows: KnownRows = field(default_factory=dict)

    def forget(self, backup_id: str) -> None:
        """Forget a backup."""
        for known in (self.stored, self.current, self.named):
            known.pop(backup_id, None)


class Catalog:
    """The catalogue in a store, and what is remembered of it."""

    def __init__(self, store: ObjectStore, memory: CatalogMemory) -> None:
        self._store = store
        self._memory = memory
        self._useless: set[str] = set()

    def ids(self) -> frozenset[str]:
        """Return the backups that have an entry, by one listing."""
        return catalogued(self._store.list(CATALOG))

    def exists(self, backup_id: str) -> bool:
        """Return whether a backup has an entry now."""
        return exists(self._store, catalog_key(backup_id))

    def entry(self, backup_id: str, manifest: ObjectInfo) -> CatalogEntry | None:
        """Return what is remembered of a backup, if it speaks of its present manifest."""
        known = self._memory.current.get(backup_id)
        return known if known is not None and _speaks_of(known, manifest) else None

    def stored(self, backup_id: str, manifest: ObjectInfo | None) -> CatalogEntry | None:
        """Return the entry in the store, if it speaks of this manifest; None stands for any."""
        found = decode(CatalogEntry, self._get(catalog_key(backup_id)))
        if found is None or found.backup_id != backup_id or not _speaks_of(found, manifest):
            return None
        if manifest is not None and found.tool_version != __version__:
            return None
        self._memory.stored[backup_id] = found
        return found

    def named(self, entry: CatalogEntry) -> Mapping[str, NamedFolder] | None:
        """Return the folders of the archive that a backup names; None if that is not known."""
        known = self._memory.named.get(entry.backup_id)
        if known is not None and known[0] == entry.blocks_sha256:
            return known[1]
        body = self._get(catalog_blocks_key(entry.backup_id))
        if hashlib.sha256(body).hexdigest() != entry.blocks_sha256:
            return None
        found = decode(CatalogBlocks, body)
        named = found.named(self._memory.rows) if found else None
        return None if named is None else self._remember_named(entry, named)

    def learn(self, entry: CatalogEntry, named: Mapping[str, NamedFolder]) -> None:
        """Remember a backup as it is now, for the next look and for `write`."""
        self._memory.current[entry.backup_id] = entry
        known = self._memory.named.get(entry.backup_id)
        if known is None or known[0] != entry.blocks_sha256:
            self._remember_named(entry, named)

    def write(self) -> None:
        """Store the entries that have changed, each unless its backup has been deleted meanwhile.

        Either this look at the manifest or the deletion sees the other, as for the results of
        verification.
        """
        for backup_id in sorted(self._useless):
            self.remove(backup_id)
        self._useless.clear()
        for backup_id, entry in sorted(self._memory.current.items()):
            if self._memory.stored.get(backup_id) == entry:
                continue
            self._put(entry)
            self._memory.stored[backup_id] = entry
            if not exists(self._store, f"{backup_id}/{MANIFEST}"):
                self.remove(backup_id)

    def distrust(self, backup_id: str) -> None:
        """Let `write` replace the entry of a backup, whatever it says."""
        self._memory.stored.pop(backup_id, None)

    def discard(self, backup_id: str) -> None:
        """Let `write` remove the entry of a backup that is gone."""
        self._useless.add(backup_id)

    def retain(self, ids: Collection[str]) -> None:
        """Forget all other backups."""
        for backup_id in self._memory.current.keys() - set(ids):
            self._memory.forget(backup_id)

    def remove(self, backup_id: str) -> None:
        """Remove the entry of a backup."""
        self._memory.forget(backup_id)
        self._store.delete([catalog_key(backup_id), catalog_blocks_key(backup_id)])

    def _put(self, entry: CatalogEntry) -> None:
        digest, named = self._memory.named[entry.backup_id]
        stored = self._memory.stored.get(entry.backup_id)
        if digest is not None and (stored is None or stored.blocks_sha256 != digest):
            blocks = _compact(CatalogBlocks.of(entry.backup_id, named))
            body = zlib.compress(blocks, level=9, wbits=_GZIP)
            self._store.put_small(catalog_blocks_key(entry.backup_id), body, options=CONTROL)
        self._store.put_small(catalog_key(entry.backup_id), _compact(entry), options=CONTROL)

    def _remember_named(
        self, entry: CatalogEntry, named: Mapping[str, NamedFolder]
    ) -> Mapping[str, NamedFolder]:
        self._memory.named[entry.backup_id] = entry.blocks_sha256, named
        return named

    def _get(self, key: str) -> bytes:
        """Return an object of the catalogue, unpacked; nothing if it cannot be read or unpacked."""
        with contextlib.suppress(RepositoryError, zlib.error):
            body = self._store.get(key, limit=MAX_DOCUMENT_SIZE)
            if not key.endswith(".gz"):
                return body
            return zlib.decompressobj(wbits=_GZIP).decompress(body, MAX_DOCUMENT_SIZE)
        return b""


def catalogued(found: Iterable[ObjectInfo]) -> frozenset[str]:
    """Return the backups whose entry is among these objects."""
    return frozenset(i for info in found if (i := catalogued_id(info.key)))


def described(manifest: Manifest, info: ObjectInfo) -> CatalogEntry:
    """Return the entry of a backup, without results of verification and hold."""
    named, digest = manifest.archived, None
    if manifest.layout is Layout.ARCHIVE:
        blocks = _compact(CatalogBlocks.of(manifest.backup_id, named))
        digest = hashlib.sha256(blocks).hexdigest()
    return CatalogEntry(
        backup_id=manifest.backup_id,
        tool_version=__version__,
        seen={MANIFEST: SeenFile.of(info)},
        header=manifest.header,
        covers=tuple(CoveredTime(start=s.start, end=s.end) for s in manifest.spans),
        verifications={},
        rotations={},
        hold=None,
        blocks_sha256=digest,
    )


def _speaks_of(entry: CatalogEntry, manifest: ObjectInfo | None) -> bool:
    seen = entry.seen.get(MANIFEST)
    return manifest is None or (seen is not None and seen.is_still(manifest))


def _compact(document: Document) -> bytes:
    return document.model_dump_json().encode()
