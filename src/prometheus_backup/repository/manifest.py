"""The JSON documents of a repository: parse them as untrusted input, and write them.

Format: docs/repository-format.md and the JSON Schema next to it. Nothing here knows where a
document is stored.
"""

import json
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Annotated, Literal, NamedTuple, Self, TypeVar

from pydantic import FailFast, Field, ValidationError, model_validator

from prometheus_backup.errors import NewerFormat, UnreadableManifest
from prometheus_backup.model import (
    MAX_FINGERPRINTS,
    Layout,
    Level,
    instant_from_ms,
    ms_from_instant,
)
from prometheus_backup.repository.document import (
    ArchiveFolder,
    BackupId,
    Count,
    Document,
    Instant,
    Key,
    RelativePath,
    Sha256,
    Size,
    StoredChecksum,
    Text,
    Ulid,
)
from prometheus_backup.repository.fingerprint import Fingerprint
from prometheus_backup.repository.layout import ARCHIVE, OWN, folder_of, version_of
from prometheus_backup.spans import Span, merge

_NEWEST_FORMAT = 2
MAX_DOCUMENT_SIZE = 128 * 1024 * 1024
"""Bytes. Larger documents are refused unread; the manifest of the largest TSDB is far smaller."""
MAX_FILES = 200_000
"""Files of one backup. A 50 TB TSDB has about 100,000."""
_MAX_VALUES = 2_000_000
"""Commas in one document. A limit on bytes does not limit the memory that parsing takes: the three
bytes `[],` become an object of sixty."""
_MAX_ENCODINGS = 256
"""An encoding is one byte."""
_MAX_FEATURES = 1000
_MAX_CAUSE = 500
"""Characters of a document's own text that an error message may quote."""

_D = TypeVar("_D", bound=Document)


class ForeignManifest(UnreadableManifest):
    """A metadata.json of another tool, such as the old six-field script."""


class File(Document):
    """A file of a block: path relative to the block, size in bytes, hash, and key of its object.

    `stored_checksum`: the store's own checksum of the object at the time of the backup.
    """

    path: RelativePath
    size: Size
    sha256: Sha256
    key: Key
    stored_checksum: Annotated[
        StoredChecksum | None, Field(exclude_if=lambda value: value is None)
    ] = None


class Block(Document):
    """A block; [`min_time`, `max_time`) and the other fields are from its meta.json."""

    ulid: Ulid
    min_time: Instant
    max_time: Instant
    # Exact, also beyond the year 9999; backups of version 1.0 do not have them.
    min_time_ms: Annotated[int | None, Field(exclude_if=lambda value: value is None)] = None
    max_time_ms: Annotated[int | None, Field(exclude_if=lambda value: value is None)] = None
    level: Count
    # FailFast everywhere: collecting the errors of a million entries would take 4 GB.
    sources: Annotated[tuple[Ulid, ...], FailFast()] = ()
    parents: Annotated[tuple[Ulid, ...], FailFast()] = ()
    stats: Annotated[dict[str, int], FailFast()] = Field(default_factory=dict)
    hints: Annotated[tuple[Text, ...], FailFast(), Field(exclude_if=lambda value: not value)] = ()
    faults: Annotated[tuple[Text, ...], Field(fail_fast=True)] | None = None
    """Its faults on the source's disk; None if it was not checked at level `tsdb`."""
    encodings: Annotated[
        Annotated[dict[Text, Count | None], Field(max_length=_MAX_ENCODINGS)] | None,
        Field(exclude_if=lambda value: value is None),
    ] = None
    """Chunks by encoding, as counted at level `tsdb`; null for one that it may have."""
    files: Annotated[tuple[File, ...], FailFast(), Field(max_length=MAX_FILES)]

    @property
    def size(self) -> int:
        """Return the bytes of all files."""
        return sum(f.size for f in self.files)

    @property
    def folder(self) -> str | None:
        """Return its folder in the archive; None if it is in the backup's own folder."""
        return folder_of(self.files[0].key)

    @property
    def times_ms(self) -> tuple[int, int]:
        """Return begin and end in TSDB milliseconds, exactly as in meta.json."""
        begin, end = self.min_time_ms, self.max_time_ms
        return (
            ms_from_instant(self.min_time) if begin is None else begin,
            ms_from_instant(self.max_time) if end is None else end,
        )

    @model_validator(mode="after")
    def _is_consistent(self) -> Self:
        if tuple(map(instant_from_ms, self.times_ms)) != (self.min_time, self.max_time):
            raise ValueError(f"the times of block {self.ulid} contradict each other")
        if self.min_time > self.max_time:
            raise ValueError(f"block {self.ulid} ends before it begins")
        if not self.files:
            raise ValueError(f"block {self.ulid} has no files")
        paths = {f.path for f in self.files}
        if len(paths) != len(self.files):
            raise ValueError(f"block {self.ulid} lists a path twice")
        for path in paths:
            folders = path.split("/")[:-1]
            if any("/".join(folders[: n + 1]) in paths for n in range(len(folders))):
                raise ValueError(f"block {self.ulid} lists {path!r} below a file")
        return self


class Prometheus(Document):
    """What the source reported about itself.

    `out_of_order` is its out-of-order time window, `lookback` its query lookback delta. `features`
    are those of `--enable-feature`, and `evaluation_interval` is the step of subqueries without
    one; backups of version 1.0 have neither.
    """

    version: Text
    revision: Text = ""
    hostname: Text | None = None
    retention: Text = ""
    out_of_order: Text | None = None
    lookback: Text = ""
    features: Annotated[
        Annotated[tuple[Text, ...], Field(max_length=_MAX_FEATURES, fail_fast=True)] | None,
        Field(exclude_if=lambda value: value is None),
    ] = None
    evaluation_interval: Annotated[Text, Field(exclude_if=lambda value: not value)] = ""


class Totals(Document):
    """Totals of the block files; sizes in bytes."""

    blocks: Count
    files: Count
    bytes: Size
    uploaded_bytes: Size
    copied_bytes: Size
    shared_bytes: Annotated[Size, Field(exclude_if=lambda value: value == 0)] = 0
    """Bytes that the archive had already."""


class Header(Document):
    """A manifest without its blocks: small even if the backup is large.

    The first six fields are older than this program and must not change.
    """

    snapshot_name: Text
    backup_id: BackupId
    timestamp: Instant
    prometheus_url: Text
    retention_time: Text
    storage_size_bytes: Size
    format_version: Literal[1, 2]
    tool_version: Text
    run_id: Text
    started_at: Instant
    finished_at: Instant
    labels: Annotated[dict[Text, Text], FailFast()] = Field(default_factory=dict)
    degraded: Annotated[tuple[Text, ...], FailFast()] = ()
    verified: Level | None = None
    prometheus: Prometheus
    snapshot_mode: Annotated[
        Literal["admin-api", "blocks"], Field(exclude_if=lambda value: value == "admin-api")
    ] = "admin-api"
    recoverable_until: Annotated[Instant | None, Field(exclude_if=lambda value: value is None)] = (
        None
    )
    """Later samples were only in memory and are left out; None: up to the snapshot."""
    min_time: Instant | None
    max_time: Instant | None
    totals: Totals

    @property
    def newest(self) -> datetime | None:
        """Return the newest instant that can be recovered; None without blocks."""
        return self.recoverable_until or self.max_time

    @property
    def layout(self) -> Layout:
        """Return how this backup keeps its blocks."""
        return Layout.ARCHIVE if self.format_version > 1 else Layout.FULL


class ArchivedTimes(NamedTuple):
    """The times of a block in the archive, in TSDB milliseconds.

    With `partial`, it does not hold all samples of its time: Prometheus gave it a hint, such as
    `from-out-of-order`.
    """

    begin_ms: int
    end_ms: int
    partial: bool


class NamedFolder(NamedTuple):
    """What a backup names of a folder of the archive.

    `files` is the number of files. `versions` holds path and backup of those that can change.
    """

    times: ArchivedTimes
    files: int
    versions: tuple[tuple[str, str], ...]

    @classmethod
    def of(cls, block: Block) -> Self:
        """Return what a block of a manifest names."""
        versions = tuple(v for f in block.files if (v := version_of(f.key)))
        times = ArchivedTimes(*block.times_ms, bool(block.hints))
        return cls(times, len(block.files), versions)

    def names(self, key: str) -> bool:
        """Return whether it names this key of its folder, or the folder itself."""
        version = version_of(key)
        return version is None or version in self.versions


class Manifest(Header):
    """`metadata.json`: the manifest of a backup."""

    blocks: Annotated[tuple[Block, ...], FailFast(), Field(max_length=MAX_FILES)]
    fingerprints: Annotated[
        tuple[Fingerprint, ...], FailFast(), Field(max_length=MAX_FINGERPRINTS)
    ] = ()

    @property
    def spans(self) -> tuple[Span, ...]:
        """Return the time ranges that the blocks cover together, oldest first."""
        return merge(Span(b.min_time, b.max_time) for b in self.blocks)

    @property
    def folders(self) -> frozenset[str]:
        """Return the folders of the archive that this backup names."""
        return frozenset(b.folder for b in self.blocks if b.folder is not None)

    @property
    def archived(self) -> Mapping[str, NamedFolder]:
        """Return what this backup names of each folder of the archive."""
        return {b.folder: NamedFolder.of(b) for b in self.blocks if b.folder is not None}

    @property
    def header(self) -> Header:
        """Return the manifest without its blocks."""
        return Header.model_construct(**{name: getattr(self, name) for name in Header.model_fields})

    def files(self) -> Iterable[tuple[Block, File]]:
        """Yield every file with its block, in order."""
        for block in self.blocks:
            for file in block.files:
                yield block, file

    @model_validator(mode="after")
    def _is_consistent(self) -> Self:
        if len({b.ulid for b in self.blocks}) != len(self.blocks):
            raise ValueError("a block is listed twice")
        if sum(len(b.files) for b in self.blocks) > MAX_FILES:
            raise ValueError(f"more than {MAX_FILES:,} files")
        keys = [f.key for _, f in self.files()]
        if len(set(keys)) != len(keys):
            raise ValueError("an object is listed twice")
        if not all(map(self._is_in_place, self.blocks)):
            raise ValueError("a key is outside its block in the backup's own folder or the archive")
        totals = self.totals
        found = (len(self.blocks), len(keys), sum(b.size for b in self.blocks))
        if found != (totals.blocks, totals.files, totals.bytes):
            raise ValueError("the totals do not match the blocks")
        return self

    def _is_in_place(self, block: Block) -> bool:
        """Return whether all files of a block are in one folder that deletion knows to be its own.

        The ULID in the key ensures that no file of a block can be a control file.
        """
        folder = f"{self.backup_id}/{block.ulid}"
        if self.layout is Layout.ARCHIVE:
            archived = block.folder
            folder = archived or f"{self.backup_id}/{OWN}/{block.ulid}"
            if archived and not archived.startswith(f"{ARCHIVE}/{block.ulid}/"):
                return False
        return all(f.key.startswith(f"{folder}/") for f in block.files)


class FinishedFile(Document):
    """A file that a run has finished uploading or copying, with its hash."""

    ulid: Ulid
    path: RelativePath
    size: Size
    sha256: Sha256
    key: Key


class Incomplete(Document):
    """`incomplete.json`, or a claim in the archive: a run or a deletion is in progress.

    It may have been interrupted.
    A run that fails writes `abandoned`: it will not continue.
    """

    run_id: str
    state: Literal["running", "abandoned", "deleting"]
    host: str = ""
    pid: int = 0
    started_at: Instant
    intent: str = ""
    names: Annotated[tuple[ArchiveFolder, ...], FailFast(), Field(max_length=MAX_FILES)] = ()
    """Folders of the archive that the backup will name, besides those that it writes itself."""
    finished: Annotated[tuple[FinishedFile, ...], FailFast(), Field(max_length=MAX_FILES)] = ()


def encode(document: Document) -> bytes:
    """Return a document as it is stored: UTF-8 JSON, indented, with a final newline."""
    return document.model_dump_json(indent=2).encode() + b"\n"


def decode_manifest(data: bytes, *, backup_id: str) -> Manifest:
    """Parse the manifest of a backup.

    Raises UnreadableManifest if it is invalid or of another backup (ForeignManifest if another tool
    has written it), NewerFormat if its format is newer than this program.
    """
    subject = f"cannot read manifest {backup_id}/metadata.json"
    if _too_large(data):
        raise UnreadableManifest(f"{subject}: {len(data):,} bytes is too large")
    try:
        manifest = Manifest.model_validate_json(data)
    except ValidationError as error:
        version = _format_version(data)
        if version is not None and version > _NEWEST_FORMAT:
            raise NewerFormat(
                f"{subject}: it has format {version}, this program reads up to {_NEWEST_FORMAT}"
            ) from None
        kind = ForeignManifest if _is_foreign(data) else UnreadableManifest
        raise kind(f"{subject}: {_first_cause(error)}") from None
    if manifest.backup_id != backup_id:
        raise UnreadableManifest(f"{subject}: it is the manifest of {manifest.backup_id}")
    return manifest


def decode(kind: type[_D], data: bytes) -> _D | None:
    """Parse a document other than a manifest; return None if it is invalid."""
    if _too_large(data):
        return None
    try:
        return kind.model_validate_json(data)
    except ValidationError:
        return None


def sha256sums(manifest: Manifest) -> bytes:
    """Return `SHA256SUMS` in the format of sha256sum(1), with paths relative to the backup."""
    lines = (f"{f.sha256}  {b.ulid}/{f.path}\n" for b, f in manifest.files())
    return "".join(lines).encode()


def _is_foreign(data: bytes) -> bool:
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        return False
    return isinstance(value, dict) and "format_version" not in value and "blocks" not in value


def _too_large(data: bytes) -> bool:
    return len(data) > MAX_DOCUMENT_SIZE or data.count(b",") > _MAX_VALUES


def _format_version(data: bytes) -> int | None:
    try:
        version = json.loads(data)["format_version"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    return version if isinstance(version, int) else None


def _first_cause(error: ValidationError) -> str:
    first = error.errors(include_url=False, include_input=False)[0]
    place = ".".join(str(part) for part in first["loc"])
    cause = f"{place}: {first['msg']}" if place else str(first["msg"])
    # It may quote the document: remove control characters, and limit the length.
    printable = "".join(c if c.isprintable() else "?" for c in cause[:_MAX_CAUSE])
    return printable if len(cause) <= _MAX_CAUSE else printable + "..."
