"""Results of verification as they are kept beside a backup, and what stands of them.

A result of a whole level, or of one part of it where a rotation reads a backup in parts. Which part
is read when is decided in `rotation`; the format is in docs/repository-format.md.
"""

from collections.abc import Iterable
from datetime import datetime
from typing import Annotated, Self

from pydantic import FailFast, Field, model_validator

from prometheus_backup.model import MAX_PARTS, Finding, FindingKind, Level, Verdict
from prometheus_backup.repository.document import BackupId, Count, Document, Instant, Size, Text
from prometheus_backup.repository.manifest import decode

PartNumber = Annotated[int, Field(ge=1, le=MAX_PARTS)]


class RecordedFinding(Document):
    """A finding as it is kept."""

    kind: FindingKind
    key: str
    detail: str
    offset: Count | None = None
    series: str = ""

    @classmethod
    def of(cls, finding: Finding) -> Self:
        """Return the record of a finding."""
        return cls(
            kind=finding.kind,
            key=finding.key,
            detail=finding.detail,
            offset=finding.offset,
            series=finding.series,
        )

    @property
    def speaks_of_the_source(self) -> bool:
        """Tell whether the bytes are right, and what they hold was damaged before."""
        return self.kind is FindingKind.UNSOUND_AT_SOURCE

    def __str__(self) -> str:
        return str(Finding(self.kind, self.key, self.detail, self.offset, self.series))


class RotationPart(Document):
    """Part `part` of a backup that is read in `parts`, counted from 1."""

    part: PartNumber
    parts: PartNumber

    def __str__(self) -> str:
        return f"{self.part}/{self.parts}"

    @model_validator(mode="after")
    def _is_one_of_them(self) -> Self:
        if self.part > self.parts:
            raise ValueError(f"there is no part {self.part} of {self.parts}")
        return self


class TimeRange(Document):
    """A part of a backup's time, half open; None where it is open."""

    start: Instant | None
    end: Instant | None


class Verification(Document):
    """A result of a level: of the whole backup, where neither `rotation` nor `part` says less.

    `rotation`: only that part of its objects was looked at; such faults are kept in
    `verification-<level>-<part>-of-<parts>.json`, all else in `verification-<level>.json`.
    `part`: only what lies in these times was looked at, and a pass says nothing of the rest.
    `seconds`: how long each step took, where that is of interest.
    """

    backup_id: BackupId
    level: Level
    verdict: Verdict
    verified_at: Instant
    tool_version: str
    objects: Count
    bytes_read: Size
    findings: Annotated[tuple[RecordedFinding, ...], FailFast()] = ()
    rotation: RotationPart | None = None
    part: TimeRange | None = None
    seconds: Annotated[dict[Text, float], FailFast()] = Field(default_factory=dict)

    @property
    def speaks_of_the_source(self) -> bool:
        """Tell whether all that it found was so before the backup: the bytes are right."""
        return bool(self.findings) and all(f.speaks_of_the_source for f in self.findings)

    @property
    def is_whole(self) -> bool:
        """Tell whether it speaks of the whole backup."""
        return self.rotation is None and self.part is None


class PartResult(Document):
    """The last look at a part: when it began, and how it ended."""

    part: PartNumber
    at: Instant
    verdict: Verdict
    objects: Count
    bytes_read: Size


class Rotation(Document):
    """`rotation-<level>.json`: how far a rotation of a level has come in a backup.

    `looked` holds the last look at each part that was looked at, in any order of time. `passed_at`
    is the instant since which every part was looked at and passed, in this rotation or in an
    earlier one: all bytes were right at it or later.
    """

    backup_id: BackupId
    level: Level
    parts: PartNumber
    looked: Annotated[tuple[PartResult, ...], FailFast(), Field(max_length=MAX_PARTS)] = ()
    passed_at: Instant | None = None

    @property
    def whole_since(self) -> datetime | None:
        """Return `passed_at`, unless a look since then found faults."""
        failed = any(look.verdict is Verdict.FAIL for look in self.looked)
        return None if failed else self.passed_at

    @property
    def passed(self) -> int:
        """Return how many parts passed when they were last looked at."""
        return sum(look.verdict is Verdict.PASS for look in self.looked)

    @model_validator(mode="after")
    def _holds_together(self) -> Self:
        numbers = [look.part for look in self.looked]
        if len(set(numbers)) != len(numbers) or max(numbers, default=0) > self.parts:
            raise ValueError("a part is named twice, or is none of this rotation")
        return self


def decode_verification(data: bytes) -> Verification | None:
    """Read a verification result; None for what this program did not write."""
    return decode(Verification, data)


def decode_rotation(data: bytes) -> Rotation | None:
    """Read the progress of a rotation; None for what this program did not write."""
    return decode(Rotation, data)


def passes(
    results: Iterable[Verification], rotations: Iterable[Rotation]
) -> list[tuple[Level, datetime]]:
    """Return the levels that were passed whole, each with when: at once, or in all of its parts."""
    whole = [(r.level, r.verified_at) for r in results if r.verdict is Verdict.PASS and r.is_whole]
    return whole + [(r.level, r.passed_at) for r in rotations if r.passed_at is not None]


def standing_failures(
    results: Iterable[Verification], rotations: Iterable[Rotation] = ()
) -> tuple[Verification, ...]:
    """Return the failed verifications that stand, of the whole or of a part.

    A failure is cleared only by a later pass, of the whole backup, at the same or a higher level. A
    rotation is one once it has passed every part since.
    """
    known = list(results)
    passed = passes(known, rotations)
    return tuple(
        failure
        for failure in known
        if failure.verdict is Verdict.FAIL
        and not any(
            level.rank >= failure.level.rank and at > failure.verified_at for level, at in passed
        )
    )
