"""What a drill restores, which blocks must be loaded, which queries it runs, and its verdict."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from prometheus_backup.drill.plan import Comparison, doubts, judge, plan_drill
from prometheus_backup.model import Finding, FindingKind, Verdict
from prometheus_backup.repository.manifest import Manifest, decode_manifest
from prometheus_backup.repository.verification import TimeRange
from tests.support import manifests
from tests.support.blocks import ulid

NOON = datetime(2025, 1, 22, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
FINDING = Finding(FindingKind.NOT_LOADED, "key", "it was not loaded")


def block(number: int, *, end: datetime, parents: tuple[int, ...] = ()) -> dict[str, Any]:
    """A block of the two hours before `end`."""
    return manifests.block(
        manifests.file(key=f"{manifests.BACKUP_ID}/{ulid(number)}/index"),
        ulid=ulid(number),
        min_time=(end - 2 * HOUR).isoformat(),
        max_time=end.isoformat(),
        parents=[ulid(p) for p in parents],
    )


def fingerprint(query: str = "up", *, at: datetime = NOON - HOUR) -> dict[str, Any]:
    answer = {"type": "vector", "series": [{"labels": {}, "value": "1"}]}
    return {"query": query, "at": at.isoformat(), "answer": answer}


def manifest(*fingerprints: dict[str, Any], blocks: list[dict[str, Any]] | None = None) -> Manifest:
    """Blocks 1, 2 and 3 of the six hours before noon, unless others are given."""
    three = [block(n, end=NOON - (3 - n) * 2 * HOUR) for n in (1, 2, 3)]
    data = manifests.encoded(blocks=blocks or three, fingerprints=list(fingerprints))
    return decode_manifest(data, backup_id=manifests.BACKUP_ID)


def test_all_blocks_are_restored_newest_first_and_all_queries_are_run() -> None:
    plan = plan_drill(manifest(fingerprint(), fingerprint("sum(up @ 5)")))
    assert [b.ulid for b in plan.blocks] == [ulid(3), ulid(2), ulid(1)]
    assert plan.loaded == {ulid(1), ulid(2), ulid(3)}
    assert [f.query for f in plan.queries] == ["up", "sum(up @ 5)"]
    assert (plan.skipped, plan.part, plan.size, plan.files) == ((), None, 30, 3)


def test_a_part_is_the_blocks_that_overlap_it() -> None:
    def restored(start: datetime | None, end: datetime | None) -> list[str]:
        return [b.ulid for b in plan_drill(manifest(), start=start, end=end).blocks]

    assert restored(NOON - 2 * HOUR, None) == [ulid(3)]
    assert restored(NOON - 2.5 * HOUR, None) == [ulid(3), ulid(2)]
    assert restored(None, NOON - 4 * HOUR) == [ulid(1)]
    assert restored(NOON - 3 * HOUR, NOON - 2 * HOUR) == [ulid(2)]
    assert restored(NOON, None) == []


def test_a_parent_of_another_block_need_not_be_loaded() -> None:
    blocks = [block(1, end=NOON), block(2, end=NOON, parents=(1,))]
    assert plan_drill(manifest(blocks=blocks)).loaded == {ulid(2)}


@pytest.mark.parametrize(
    ("query", "start", "end", "cause"),
    [
        ("up", NOON - 2 * HOUR, None, ""),
        ("up", NOON - HOUR - timedelta(minutes=5), None, ""),
        (
            "up",
            NOON - HOUR - timedelta(minutes=4),
            None,
            "it reads data since 2025-01-22T10:55",
        ),
        ("up", None, NOON, ""),
        ("up", None, NOON - HOUR, "its time, 2025-01-22T11:00:00Z, is after"),
        ("sum_over_time(up[1h])", NOON - 2.1 * HOUR, None, ""),
        (
            "sum_over_time(up[1h])",
            NOON - 2 * HOUR,
            None,
            "it reads data since 2025-01-22T09:55",
        ),
        ("up @ end()", NOON - 2 * HOUR, None, "the range that it reads is unknown"),
        ("up[9000y]", NOON - 2 * HOUR, None, "it reads data from before"),
    ],
)
def test_on_a_part_only_queries_of_its_time_range_are_run(
    query: str, start: datetime | None, end: datetime | None, cause: str
) -> None:
    plan = plan_drill(manifest(fingerprint(query)), start=start, end=end)
    assert plan.part == TimeRange(start=start, end=end)
    assert [f.query for f in plan.queries] == ([] if cause else [query])
    for skipped in plan.skipped:
        assert skipped.verdict is Verdict.INCONCLUSIVE
        assert skipped.detail.startswith(cause)


def test_queries_that_the_source_did_not_answer_are_skipped() -> None:
    none = {"query": "foo(", "inconclusive": "parse error"}
    plan = plan_drill(manifest(none))
    assert plan.queries == ()
    assert plan.skipped == (Comparison("foo(", None, Verdict.INCONCLUSIVE, "parse error"),)


def compared(verdict: Verdict = Verdict.PASS, series: int = 1) -> Comparison:
    return Comparison("up", NOON, verdict, series=series)


def test_a_drill_passes_only_if_all_answers_match_and_one_is_not_empty() -> None:
    passed, empty = compared(), compared(series=0)
    unknown = compared(Verdict.INCONCLUSIVE)
    assert judge([], [passed, empty]) == (Verdict.PASS, "")

    assert judge([], [])[0] is Verdict.INCONCLUSIVE
    assert judge([], [empty, empty])[0] is Verdict.INCONCLUSIVE
    assert judge([], [passed, unknown])[0] is Verdict.INCONCLUSIVE
    assert judge([], [passed], cause="no room") == (Verdict.INCONCLUSIVE, "no room")


def test_a_finding_is_a_failure_even_if_the_drill_was_not_completed() -> None:
    assert judge([FINDING], [], cause="it ended") == (Verdict.FAIL, "")
    assert judge([FINDING], [compared()]) == (Verdict.FAIL, "")


@pytest.mark.parametrize(
    ("source", "drilled", "unknown", "doubted"),
    [
        ("3.0.0", "3.14.2+ds1", (), ""),
        ("2.55.1", "3.0.0", (), "the source was Prometheus 2.55.1, but the drill uses 3.0.0"),
        ("3.12.0", "3.5.3", ("use-start-timestamps",), "Prometheus 3.5.3 does not know"),
    ],
)
def test_answers_are_doubtful_under_another_major_version_or_without_a_feature(
    source: str, drilled: str, unknown: tuple[str, ...], doubted: str
) -> None:
    document = manifests.document()
    document["prometheus"]["version"] = source
    data = json.dumps(document).encode()
    manifest = decode_manifest(data, backup_id=manifests.BACKUP_ID)
    found = doubts(manifest, version=drilled, unknown_features=unknown)
    assert len(found) == bool(doubted)
    assert doubted in " ".join(found)
