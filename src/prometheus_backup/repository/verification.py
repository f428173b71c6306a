"""Verification results as they are stored next to a backup, and which failures still count.

A result is of the whole backup, or of one part if a rotation reads the backup in parts. Which part
to read is decided in `rotation`. Format: docs/repository-format.md.
"""

from collections.abc import Iterable
from datetime import datetime
from typing import Annotated, Self

from pydantic import FailFast, Field, model_validator

from prometheus_backup.model import MAX_PARTS, Finding, FindingKind, Level, Verdict
from prometheus_backup.repository.document import BackupId, Count, Document, Instant, Size, Text

PartNumber = Annotated[int, Field(ge=1, le=MAX_PARTS)]


class RecordedFinding(Document):
    """A finding as it is stored."""

    kind: FindingKind
    key: str
    detail: str
    offset: Count | None = None
    series: str = ""

    @classmethod
    def of(cls, finding: Finding) -> Self:
        """Return a finding as it is stored."""
        return cls(
            kind=finding.kind,
            key=finding.key,
            detail=finding.detail,
            offset=finding.offset,
            series=finding.series,
        )

    @property
    def is_source_damage(self) -> bool:
        """Return whether the block was damaged on the source: its bytes are those backed up."""
        return self.kind is FindingKind.UNSOUND_AT_SOURCE

    @property
    def is_gone(self) -> bool:
        """Return whether the object does not exist."""
        return self.kind is FindingKind.MISSING

    def __str__(self) -> str:
        return str(Finding(self.kind, self.key, self.detail, self.offset, self.series))


class RotationPart(Document):
    """Part `part` (from 1) of a backup that is read in `parts` parts."""

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
    """The times [start, end) of a part of a backup; None means no limit."""

    start: Instant | None
    end: Instant | None


class Verification(Document):
    """The result of a level, for the whole backup unless `rotation` or `part` is set.

    `rotation`: only this part of the objects was verified. Its faults are stored in
    `verification-<level>-<part>-of-<parts>.json`, all other results in `verification-<level>.json`.
    `part`: only this time range was verified.
    `seconds`: how long each step took, for levels that report it.
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
    def is_source_damage(self) -> bool:
        """Return whether all findings are damage on the source: the bytes are those backed up."""
        return bool(self.findings) and all(f.is_source_damage for f in self.findings)

    @property
    def is_whole(self) -> bool:
        """Return whether this is a result of the whole backup."""
        return self.rotation is None and self.part is None


class PartResult(Document):
    """The last result of a part; `at` is when the verification began."""

    part: PartNumber
    at: Instant
    verdict: Verdict
    objects: Count
    bytes_read: Size


class Rotation(Document):
    """`rotation-<level>.json`: the progress of a level's rotation through a backup.

    `looked` holds the last result of each part that was verified. `passed_at`: every part was
    verified at this instant or later, and passed, in this rotation or in an earlier one.
    """

    backup_id: BackupId
    level: Level
    parts: PartNumber
    looked: Annotated[tuple[PartResult, ...], FailFast(), Field(max_length=MAX_PARTS)] = ()
    passed_at: Instant | None = None

    @property
    def intact_since(self) -> datetime | None:
        """Return `passed_at`, unless a part has failed since then."""
        failed = any(result.verdict is Verdict.FAIL for result in self.looked)
        return None if failed else self.passed_at

    @property
    def passed(self) -> int:
        """Return how many parts passed their last verification."""
        return sum(result.verdict is Verdict.PASS for result in self.looked)

    @model_validator(mode="after")
    def _is_consistent(self) -> Self:
        numbers = [result.part for result in self.looked]
        if len(set(numbers)) != len(numbers) or max(numbers, default=0) > self.parts:
            raise ValueError("a part is listed twice or does not exist")
        return self


def passed_levels(
    results: Iterable[Verification], rotations: Iterable[Rotation]
) -> list[tuple[Level, datetime]]:
    """Return the levels that the whole backup passed, with the time: at once or in all parts."""
    whole = [(r.level, r.verified_at) for r in results if r.verdict is Verdict.PASS and r.is_whole]
    return whole + [(r.level, r.passed_at) for r in rotations if r.passed_at is not None]


def uncleared_failures(
    results: Iterable[Verification], rotations: Iterable[Rotation] = ()
) -> tuple[Verification, ...]:
    """Return the failed verifications, of the whole or of a part, that no later pass has cleared.

    Only a pass of the whole backup at the same or a higher level clears a failure. It may be a
    rotation in which every part has passed since the failure.
    """
    known = list(results)
    passed = passed_levels(known, rotations)
    return tuple(
        failure
        for failure in known
        if failure.verdict is Verdict.FAIL
        and not any(
            level.rank >= failure.level.rank and at > failure.verified_at for level, at in passed
        )
    )
