"""Values that several modules share: blocks, objects, levels, tiers, findings, outcomes."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Self

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def instant_from_ms(milliseconds: int) -> datetime:
    """Return the UTC instant of a TSDB time, clamped to the range of datetime."""
    try:
        return _EPOCH + timedelta(milliseconds=milliseconds)
    except OverflowError:
        if milliseconds < 0:
            return datetime(1, 1, 1, tzinfo=UTC)
        return datetime(9999, 12, 31, 23, 59, 59, 999_000, tzinfo=UTC)


def ms_from_instant(instant: datetime) -> int:
    """Return the TSDB time of an instant, in milliseconds since 1970."""
    return (instant - _EPOCH) // timedelta(milliseconds=1)


def counted(count: int, noun: str) -> str:
    """Return `1 backup`, `2 backups`."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def size(count: float) -> str:
    """Return a number of bytes in binary units, such as `1.5 MiB`."""
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if abs(count) < 1024 or unit == "TiB":
            return f"{count:,.0f} {unit}" if unit == "B" else f"{count:,.1f} {unit}"
        count /= 1024
    raise AssertionError("the loop returns")


def rfc3339(instant: datetime) -> str:
    """Return an instant as RFC 3339 in UTC with `Z`, with milliseconds if it has any."""
    utc = instant.astimezone(UTC)
    text = utc.isoformat(timespec="milliseconds" if utc.microsecond else "seconds")
    return text.replace("+00:00", "Z")


_MAX_PRINTABLE = 1000


def printable(text: str, *, max_length: int = _MAX_PRINTABLE) -> str:
    """Return untrusted text, such as labels, without control characters and shortened."""
    shown = "".join(c if c.isprintable() else "?" for c in text[:max_length])
    return shown if len(text) <= max_length else shown + "..."


class Tier(StrEnum):
    """The retention tiers, from the shortest-lived to the longest-lived."""

    DAILY = "daily"
    MONTHLY = "monthly"
    YEARLY = "yearly"


class Layout(StrEnum):
    """How a backup keeps its blocks: in its own folder, or in the archive that backups share."""

    FULL = "full"
    ARCHIVE = "archive"


class SnapshotMode(StrEnum):
    """How a backup gets the blocks: from a snapshot of Prometheus, or from those on its disk."""

    ADMIN_API = "admin-api"
    BLOCKS = "blocks"


class Level(StrEnum):
    """Verification levels, weakest first (docs/design.md says what each proves)."""

    SIZE = "size"
    STORED = "stored"
    CHECKSUM = "checksum"
    TSDB = "tsdb"
    DRILL = "drill"

    @property
    def rank(self) -> int:
        """Return the position in the order of strength, from 0."""
        return list(Level).index(self)


class Verdict(StrEnum):
    """The result of a verification; INCONCLUSIVE if nothing could be checked."""

    PASS = "pass"  # noqa: S105 -- not a password
    FAIL = "fail"
    INCONCLUSIVE = "inconclusive"


class Outcome(StrEnum):
    """The result of a command that raised no error; each has one exit code."""

    DONE = "done"
    PARTIAL = "partial"
    FAULTY = "faulty"

    @property
    def exit_code(self) -> int:
        """Return 0 if everything was done, 3 if only a part, 41 if faults were found."""
        return {Outcome.DONE: 0, Outcome.PARTIAL: 3, Outcome.FAULTY: 41}[self]

    @classmethod
    def of(cls, verdicts: Iterable[Verdict]) -> Self:
        """Return FAULTY for any failure, PARTIAL if a verdict is inconclusive or there is none."""
        found = set(verdicts)
        if Verdict.FAIL in found:
            return cls.FAULTY
        return cls.DONE if found == {Verdict.PASS} else cls.PARTIAL


class FindingKind(StrEnum):
    """The kinds of problems that verification finds."""

    MISSING = "missing"
    WRONG_SIZE = "wrong-size"
    ALTERED = "altered"
    UNREADABLE_MANIFEST = "unreadable-manifest"
    NOT_STARTED = "not-started"
    NOT_LOADED = "not-loaded"
    OTHER_ANSWER = "other-answer"
    UNSOUND = "unsound"
    """A block is corrupt, and its bytes differ from those that were backed up."""
    UNSOUND_AT_SOURCE = "unsound-at-source"
    """A block is corrupt, and already was when it was backed up."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One problem that verification found, with the key of the object in the repository.

    For a fault inside a block: `offset` is the position in the object, in bytes, and `series` the
    labels of the affected series.
    """

    kind: FindingKind
    key: str
    detail: str
    offset: int | None = None
    series: str = ""

    def __str__(self) -> str:
        place = self.key if self.offset is None else f"{self.key} at {self.offset:,}"
        return f"{place}: {self.detail}" + (f" (series {self.series})" if self.series else "")


MAX_PARTS = 1000
"""The most parts of a verification rotation: at one a day, almost three years."""


@dataclass(frozen=True, slots=True)
class Subset:
    """Which part of a backup to verify: `part` of `parts`; None is the part that is due."""

    part: int | None
    parts: int


MAX_FINGERPRINTS = 64
"""The most fingerprints of a backup."""
MAX_QUERY = 2048
"""The most characters of a fingerprint query: it must also fit into the URL of a request."""


@dataclass(frozen=True, slots=True)
class SourceFile:
    """A file of a block on disk: path relative to the block, size in bytes."""

    path: str
    size: int


@dataclass(frozen=True, slots=True)
class SourceBlock:
    """A TSDB block on disk, described by its meta.json; times in TSDB milliseconds, half open."""

    ulid: str
    min_time_ms: int
    max_time_ms: int
    level: int
    sources: tuple[str, ...]
    parents: tuple[str, ...]
    stats: Mapping[str, int]
    files: tuple[SourceFile, ...]
    hints: tuple[str, ...] = ()

    @property
    def size(self) -> int:
        """Return the size of all files, in bytes."""
        return sum(f.size for f in self.files)


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """An object in a store: key relative to the repository, size in bytes, and LastModified.

    `version` changes whenever the object is written: its ETag, or a file's time of modification.
    """

    key: str
    size: int
    modified: datetime
    version: str = ""


@dataclass(frozen=True, slots=True)
class PutOptions:
    """Properties of an object besides its bytes. A store ignores those it does not support."""

    tags: Mapping[str, str] = field(default_factory=dict)
    storage_class: str | None = None


BLOCK_TAGS = {"Content": "data"}
"""Tags of block files, in a backup and in the archive: rules of the bucket can select by them."""

CONTROL = PutOptions()
"""Control files have no storage class: they are always STANDARD, so they can be read at once."""


@dataclass(frozen=True, slots=True)
class CheckLine:
    """One line of a preflight: what was checked, whether it is ok, and a suggested fix."""

    subject: str
    ok: bool
    detail: str
    fix: str = ""
