"""The JSON documents of a repository: reading them as untrusted input, writing them.

Format: docs/repository-format.md; `json_schema()` is published beside it. Nothing here knows where
a document lies.
"""

import json
from collections.abc import Iterable
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import FailFast, Field, ValidationError, model_validator

from prometheus_backup.errors import NewerFormat, UnreadableManifest
from prometheus_backup.model import MAX_FINGERPRINTS, Level
from prometheus_backup.repository.document import (
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

FORMAT_VERSION = 1
MAX_DOCUMENT_SIZE = 128 * 1024 * 1024
"""Bytes. A larger document is refused unread: a manifest of the largest TSDB stays far below."""
MAX_FILES = 200_000
"""Files of one backup. A 50 TB TSDB has about 100,000."""
_MAX_VALUES = 2_000_000
"""Commas of one document: a file has five values, and `[],` of three bytes becomes an object of
sixty, so that bytes alone do not bound the memory that reading takes."""
_MAX_CAUSE = 500
"""Characters of a document's own text that an error message repeats."""

_D = TypeVar("_D", bound=Document)


class File(Document):
    """A file of a block: path relative to the block, bytes, hash, and where its object lies.

    `stored_checksum`: what the store said of the whole object when its bytes were right.
    """

    path: RelativePath
    size: Size
    sha256: Sha256
    key: Key
    stored_checksum: Annotated[
        StoredChecksum | None, Field(exclude_if=lambda value: value is None)
    ] = None


class Block(Document):
    """A TSDB block: times half open, the rest as its meta.json says."""

    ulid: Ulid
    min_time: Instant
    max_time: Instant
    level: Count
    # FailFast everywhere: the faults of a million entries would be collected first (4 GB).
    sources: Annotated[tuple[Ulid, ...], FailFast()] = ()
    parents: Annotated[tuple[Ulid, ...], FailFast()] = ()
    stats: Annotated[dict[str, int], FailFast()] = Field(default_factory=dict)
    faults: Annotated[tuple[Text, ...], Field(fail_fast=True)] | None = None
    """What was wrong with it on the source's disk; None where nobody looked at level `tsdb`."""
    files: Annotated[tuple[File, ...], FailFast(), Field(max_length=MAX_FILES)]

    @property
    def size(self) -> int:
        """Return the bytes of all files."""
        return sum(f.size for f in self.files)

    @model_validator(mode="after")
    def _holds_together(self) -> Self:
        if self.min_time > self.max_time:
            raise ValueError(f"block {self.ulid} ends before it begins")
        if not self.files:
            raise ValueError(f"block {self.ulid} has no files")
        paths = {f.path for f in self.files}
        if len(paths) != len(self.files):
            raise ValueError(f"block {self.ulid} names a path twice")
        for path in paths:
            folders = path.split("/")[:-1]
            if any("/".join(folders[: n + 1]) in paths for n in range(len(folders))):
                raise ValueError(f"block {self.ulid} names {path!r} below a file")
        return self


class Prometheus(Document):
    """What the source said of itself.

    `out_of_order` is its window for late samples, `lookback` how old a sample its queries take.
    """

    version: Text
    revision: Text = ""
    hostname: Text | None = None
    retention: Text = ""
    out_of_order: Text | None = None
    lookback: Text = ""


class Totals(Document):
    """Sums over the block files; bytes."""

    blocks: Count
    files: Count
    bytes: Size
    uploaded_bytes: Size
    copied_bytes: Size


class Header(Document):
    """A manifest without its blocks: small, however large the backup. The first six fields are
    older than this program.
    """

    snapshot_name: Text
    backup_id: BackupId
    timestamp: Instant
    prometheus_url: Text
    retention_time: Text
    storage_size_bytes: Size
    format_version: Literal[1]
    tool_version: Text
    run_id: Text
    started_at: Instant
    finished_at: Instant
    labels: Annotated[dict[Text, Text], FailFast()] = Field(default_factory=dict)
    degraded: Annotated[tuple[Text, ...], FailFast()] = ()
    verified: Level | None = None
    prometheus: Prometheus
    min_time: Instant | None
    max_time: Instant | None
    totals: Totals


class Manifest(Header):
    """`metadata.json`: what a backup is."""

    blocks: Annotated[tuple[Block, ...], FailFast(), Field(max_length=MAX_FILES)]
    fingerprints: Annotated[
        tuple[Fingerprint, ...], FailFast(), Field(max_length=MAX_FINGERPRINTS)
    ] = ()

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
    def _holds_together(self) -> Self:
        if len({b.ulid for b in self.blocks}) != len(self.blocks):
            raise ValueError("a block is named twice")
        if sum(len(b.files) for b in self.blocks) > MAX_FILES:
            raise ValueError(f"more than {MAX_FILES:,} files")
        keys = [f.key for _, f in self.files()]
        if len(set(keys)) != len(keys):
            raise ValueError("an object is named twice")
        # Deletion works on whole folders, so what a backup holds lies in its own. A block's ULID
        # comes first in it, so that none of its files can be a control file.
        owned = tuple(f"{self.backup_id}/{b.ulid}/" for b in self.blocks for _ in b.files)
        if not all(map(str.startswith, keys, owned)):
            raise ValueError("a key lies outside of its block in the backup's own folder")
        totals = self.totals
        held = (len(self.blocks), len(keys), sum(b.size for b in self.blocks))
        if held != (totals.blocks, totals.files, totals.bytes):
            raise ValueError("the totals are not those of the blocks")
        return self


class FinishedFile(Document):
    """A file that a run has in the store, its hash known."""

    ulid: Ulid
    path: RelativePath
    size: Size
    sha256: Sha256
    key: Key


class Incomplete(Document):
    """`incomplete.json`: a run or a deletion is under way in this folder, or was cut off.

    `abandoned` is written by a run that fails in good order: it will not go on.
    """

    run_id: str
    state: Literal["running", "abandoned", "deleting"]
    host: str = ""
    pid: int = 0
    started_at: Instant
    intent: str = ""
    finished: Annotated[tuple[FinishedFile, ...], FailFast(), Field(max_length=MAX_FILES)] = ()


def encode(document: Document) -> bytes:
    """Return a document as it is stored: UTF-8 JSON, indented, with a final newline."""
    return document.model_dump_json(indent=2).encode() + b"\n"


def is_foreign(data: bytes) -> bool:
    """Tell whether this is a metadata.json of another tool, such as the old six-field script's."""
    if _too_large(data):
        return False
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        return False
    return isinstance(value, dict) and "format_version" not in value and "blocks" not in value


def decode_manifest(data: bytes, *, backup_id: str) -> Manifest:
    """Read the manifest of a backup.

    Raises UnreadableManifest for anything that is not one, or is another backup's, and NewerFormat
    for a format this program does not know.
    """
    subject = f"cannot read manifest {backup_id}/metadata.json"
    if _too_large(data):
        raise UnreadableManifest(f"{subject}: {len(data):,} bytes is too large to be one")
    try:
        manifest = Manifest.model_validate_json(data)
    except ValidationError as error:
        version = _format_version(data)
        if version is not None and version > FORMAT_VERSION:
            raise NewerFormat(
                f"{subject}: it has format {version}, this program reads up to {FORMAT_VERSION}"
            ) from None
        raise UnreadableManifest(f"{subject}: {_first_cause(error)}") from None
    if manifest.backup_id != backup_id:
        raise UnreadableManifest(f"{subject}: it says it is {manifest.backup_id}")
    return manifest


def decode_incomplete(data: bytes) -> Incomplete | None:
    """Read an incomplete.json; None for what this program did not write."""
    return decode(Incomplete, data)


def decode(kind: type[_D], data: bytes) -> _D | None:
    """Read a document other than a manifest; None for what this program did not write."""
    if _too_large(data):
        return None
    try:
        return kind.model_validate_json(data)
    except ValidationError:
        return None


def sha256sums(manifest: Manifest) -> bytes:
    """Return `SHA256SUMS` in the form of sha256sum(1), paths relative to the backup's folder."""
    lines = (f"{f.sha256}  {b.ulid}/{f.path}\n" for b, f in manifest.files())
    return "".join(lines).encode()


def json_schema() -> dict[str, Any]:
    """Return the JSON Schema of a manifest (draft 2020-12)."""
    return Manifest.model_json_schema(mode="serialization")


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
    # Keys of the document may be in it: no control characters to a terminal, and no novel.
    printable = "".join(c if c.isprintable() else "?" for c in cause[:_MAX_CAUSE])
    return printable if len(cause) <= _MAX_CAUSE else printable + "..."
