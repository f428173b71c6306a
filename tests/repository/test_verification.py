"""Verification results: the documents, and which failures are cleared."""

import json
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prometheus_backup.model import Finding, FindingKind, Level, Verdict
from prometheus_backup.repository.manifest import decode, encode
from prometheus_backup.repository.verification import (
    PartResult,
    RecordedFinding,
    Rotation,
    RotationPart,
    TimeRange,
    Verification,
    uncleared_failures,
)
from tests.support.manifests import BACKUP_ID, OLD_SCRIPT, ULID, encoded
from tests.support.repositories import NOON, verification_of


def verification(
    level: Level, verdict: Verdict, *, hours: int = 0, part: RotationPart | None = None
) -> Verification:
    """Return a result from `hours` after noon."""
    at = NOON + timedelta(hours=hours)
    return verification_of(BACKUP_ID, verdict, level=level, at=at, part=part)


def rotation(level: Level, *, hours: int | None, parts: int = 2) -> Rotation:
    """Return a rotation with a result of its first part, and `passed_at` hours after noon."""
    first = PartResult(part=1, at=NOON, verdict=Verdict.PASS, objects=1, bytes_read=10)
    passed_at = None if hours is None else NOON + timedelta(hours=hours)
    return Rotation(
        backup_id=BACKUP_ID, level=level, parts=parts, looked=(first,), passed_at=passed_at
    )


def test_a_result_of_a_part_survives_writing_and_reading() -> None:
    finding = Finding(FindingKind.ALTERED, f"{BACKUP_ID}/{ULID}/index", "sha256 differs")
    first = verification(
        Level.CHECKSUM, Verdict.FAIL, part=RotationPart(part=3, parts=7)
    ).model_copy(update={"findings": (RecordedFinding.of(finding),)})

    assert decode(Verification, encode(first)) == first


def test_the_progress_of_a_rotation_survives_writing_and_reading() -> None:
    first = rotation(Level.TSDB, hours=3)

    assert decode(Rotation, encode(first)) == first


@settings(deadline=None)
@given(st.binary() | st.sampled_from([b"{}", b"[]", b"null", encoded(), OLD_SCRIPT]))
def test_an_invalid_result_is_none(data: bytes) -> None:
    assert decode(Verification, data) is None
    assert decode(Rotation, data) is None


HOSTILE: dict[str, dict[str, Any]] = {
    "a part beyond the last": {"looked": [{"part": 3}]},
    "a part twice": {"looked": [{"part": 1}, {"part": 1}]},
    "part zero": {"looked": [{"part": 0}]},
    "no parts": {"parts": 0},
    "too many parts": {"parts": 1001},
}


@pytest.mark.parametrize("what", HOSTILE)
def test_an_inconsistent_rotation_is_none(what: str) -> None:
    document = json.loads(encode(rotation(Level.CHECKSUM, hours=None)))
    (first,) = document["looked"]
    changes = dict(HOSTILE[what])
    if "looked" in changes:
        changes["looked"] = [first | change for change in changes["looked"]]

    assert decode(Rotation, json.dumps(document).encode()) is not None
    assert decode(Rotation, json.dumps(document | changes).encode()) is None


@pytest.mark.parametrize(
    ("level", "verdict", "hours", "remains"),
    [
        (Level.CHECKSUM, Verdict.PASS, 1, False),
        (Level.TSDB, Verdict.PASS, 1, False),
        (Level.SIZE, Verdict.PASS, 1, True),  # a lower level clears nothing
        (Level.TSDB, Verdict.PASS, -1, True),  # it passed before, and failed since
        (Level.TSDB, Verdict.INCONCLUSIVE, 1, True),
    ],
)
@pytest.mark.parametrize("failed", [None, RotationPart(part=2, parts=7)])
def test_a_failure_is_cleared_only_by_a_later_pass_at_the_same_or_a_higher_level(
    failed: RotationPart | None, level: Level, verdict: Verdict, hours: int, *, remains: bool
) -> None:
    failure = verification(Level.CHECKSUM, Verdict.FAIL, part=failed)
    other = verification(level, verdict, hours=hours)
    for results in ([failure, other], [other, failure]):
        assert uncleared_failures(results) == ((failure,) if remains else ())


@pytest.mark.parametrize(
    ("level", "hours", "remains"),
    [
        (Level.CHECKSUM, 1, False),
        (Level.TSDB, 1, False),
        (Level.STORED, 1, True),
        (Level.CHECKSUM, -1, True),  # some part was last read before the failure
        (Level.CHECKSUM, None, True),  # not every part has passed
    ],
)
def test_a_rotation_clears_a_failure_once_every_part_has_passed_since(
    level: Level, hours: int | None, *, remains: bool
) -> None:
    failure = verification(Level.CHECKSUM, Verdict.FAIL)
    result = uncleared_failures([failure], [rotation(level, hours=hours)])

    assert result == ((failure,) if remains else ())


def test_the_pass_of_a_part_clears_no_failure() -> None:
    failure = verification(Level.CHECKSUM, Verdict.FAIL)
    part = verification(Level.TSDB, Verdict.PASS, hours=1, part=RotationPart(part=1, parts=2))

    assert uncleared_failures([failure, part]) == (failure,)


def test_a_failure_is_not_cleared_by_the_pass_of_a_time_range() -> None:
    failure = verification(Level.CHECKSUM, Verdict.FAIL)
    passed = verification(Level.DRILL, Verdict.PASS, hours=1)
    part = passed.model_copy(update={"part": TimeRange(start=NOON, end=None)})
    assert uncleared_failures([failure, part]) == (failure,)
    assert uncleared_failures([failure, passed]) == ()


def test_without_failures_there_is_none_to_clear() -> None:
    assert uncleared_failures([]) == ()
    assert uncleared_failures([verification(Level.SIZE, Verdict.PASS)]) == ()
    assert uncleared_failures([verification(Level.SIZE, Verdict.INCONCLUSIVE)]) == ()
