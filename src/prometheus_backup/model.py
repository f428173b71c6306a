"""Values that several modules speak of: blocks, objects, levels, tiers, findings, outcomes."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import StrEnum

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def instant_from_ms(milliseconds: int) -> datetime:
    """Return the UTC instant of a TSDB time, held to the years that a datetime can name."""
    try:
        return _EPOCH + timedelta(milliseconds=milliseconds)
    except OverflowError:
        if milliseconds < 0:
            return datetime(1, 1, 1, tzinfo=UTC)
        return datetime(9999, 12, 31, 23, 59, 59, 999_000, tzinfo=UTC)


def ms_from_instant(instant: datetime) -> int:
    """Return the TSDB time of an instant, in milliseconds since 1970."""
    return (instant - _EPOCH) // timedelta(milliseconds=1)


def rfc3339(instant: datetime) -> str:
    """Return an instant as RFC 3339 in UTC with `Z`, to the millisecond where it has any."""
    utc = instant.astimezone(UTC)
    text = utc.isoformat(timespec="milliseconds" if utc.microsecond else "seconds")
    return text.replace("+00:00", "Z")


_LONGEST = 1000


def printable(text: str, *, longest: int = _LONGEST) -> str:
    """Return text of others, such as labels, that neither steers a terminal nor fills a screen."""
    shown = "".join(c if c.isprintable() else "?" for c in text[:longest])
    return shown if len(text) <= longest else shown + "..."


class Tier(StrEnum):
    """What a kept backup stands for, from the shortest-lived to the longest-lived."""

    DAILY = "daily"
    MONTHLY = "monthly"
    YEARLY = "yearly"


class Level(StrEnum):
    """Verification levels, weakest first (docs/design.md says what each proves)."""

    SIZE = "size"
    STORED = "stored"
    CHECKSUM = "checksum"
    TSDB = "tsdb"
    DRILL = "drill"

    @property
    def rank(self) -> int:
        """Return the place in the order of strength."""
        return list(Level).index(self)


class Verdict(StrEnum):
    """How a verification ended; INCONCLUSIVE where it could not look, or at nothing."""

    PASS = "pass"  # noqa: S105 -- not a password
    FAIL = "fail"
    INCONCLUSIVE = "inconclusive"


class Outcome(StrEnum):
    """How a command ended that raised no error. Each has one exit code."""

    DONE = "done"
    PARTIAL = "partial"
    FAULTY = "faulty"

    @property
    def exit_code(self) -> int:
        """Return 0 for done, 3 for done in part, 41 for faults found."""
        return {Outcome.DONE: 0, Outcome.PARTIAL: 3, Outcome.FAULTY: 41}[self]


class FindingKind(StrEnum):
    """What verification can find wrong with a backup."""

    MISSING = "missing"
    WRONG_SIZE = "wrong-size"
    ALTERED = "altered"
    UNREADABLE_MANIFEST = "unreadable-manifest"
    NOT_STARTED = "not-started"
    NOT_LOADED = "not-loaded"
    OTHER_ANSWER = "other-answer"
    UNSOUND = "unsound"
    """A block is damaged whose bytes are no longer those that were backed up."""
    UNSOUND_AT_SOURCE = "unsound-at-source"
    """A block is damaged, and was so when it was backed up."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that verification saw wrong: the object's key in the repository, and how.

    Of a fault inside of a block: `offset` in the object, in bytes, and the labels of the series.
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
"""Parts of a rotation of verification: one a day is three years of them."""


@dataclass(frozen=True, slots=True)
class Subset:
    """What part of a backup to look at: `part` of `parts`, or, where None, the one that is due."""

    part: int | None
    parts: int


MAX_FINGERPRINTS = 64
"""Fingerprints of a backup."""
MAX_QUERY = 2048
"""Characters of a query of a fingerprint: it also has to fit into the address of a request."""


@dataclass(frozen=True, slots=True)
class SourceFile:
    """A file of a block on disk: path relative to the block, size in bytes."""

    path: str
    size: int


@dataclass(frozen=True, slots=True)
class SourceBlock:
    """A TSDB block on disk, as its meta.json says; times in TSDB milliseconds, half open."""

    ulid: str
    min_time_ms: int
    max_time_ms: int
    level: int
    sources: tuple[str, ...]
    parents: tuple[str, ...]
    stats: Mapping[str, int]
    files: tuple[SourceFile, ...]

    @property
    def size(self) -> int:
        """Return the bytes of all files."""
        return sum(f.size for f in self.files)


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """An object in a store: key relative to the repository, bytes, the store's own LastModified."""

    key: str
    size: int
    modified: datetime


@dataclass(frozen=True, slots=True)
class PutOptions:
    """What an object carries besides its bytes. Stores that lack one of these leave it out."""

    tags: Mapping[str, str] = field(default_factory=dict)
    storage_class: str | None = None


CONTROL = PutOptions()
"""Control files carry no storage class: they are always STANDARD, to be read at once."""


@dataclass(frozen=True, slots=True)
class CheckLine:
    """One line of a preflight: what was looked at, whether it is right, and how to mend it."""

    subject: str
    ok: bool
    detail: str
    fix: str = ""
