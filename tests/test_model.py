"""Instants, levels, outcomes and sizes."""

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prometheus_backup.model import (
    Level,
    Outcome,
    SourceBlock,
    SourceFile,
    Tier,
    instant_from_ms,
    ms_from_instant,
    rfc3339,
)

_FIRST_MS = ms_from_instant(datetime(1, 1, 1, tzinfo=UTC))
_LAST_MS = ms_from_instant(datetime(9999, 12, 31, 23, 59, 59, 999_000, tzinfo=UTC))


@given(st.integers(_FIRST_MS, _LAST_MS))
def test_milliseconds_survive_conversion_to_an_instant(milliseconds: int) -> None:
    instant = instant_from_ms(milliseconds)
    assert instant.utcoffset() == timedelta(0)
    assert ms_from_instant(instant) == milliseconds


@given(st.integers(_FIRST_MS, _LAST_MS))
def test_milliseconds_survive_formatting(milliseconds: int) -> None:
    text = rfc3339(instant_from_ms(milliseconds))
    assert text.endswith("Z")
    assert ms_from_instant(datetime.fromisoformat(text)) == milliseconds


def test_epoch_is_zero() -> None:
    assert instant_from_ms(0) == datetime(1970, 1, 1, tzinfo=UTC)
    assert ms_from_instant(datetime(1970, 1, 1, tzinfo=UTC)) == 0


def test_instant_before_the_epoch_rounds_to_the_earlier_millisecond() -> None:
    assert ms_from_instant(datetime(1969, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC)) == -1


@pytest.mark.parametrize("beyond", [_LAST_MS + 1, 2**63 - 1, 10**30])
def test_time_after_year_9999_is_its_last_millisecond(beyond: int) -> None:
    # Prometheus uses the largest int64 for "no maximum".
    assert instant_from_ms(beyond) == instant_from_ms(_LAST_MS)


@pytest.mark.parametrize("beyond", [_FIRST_MS - 1, -(2**63), -(10**30)])
def test_time_before_year_1_is_its_first_millisecond(beyond: int) -> None:
    assert instant_from_ms(beyond) == instant_from_ms(_FIRST_MS)


@pytest.mark.parametrize(
    ("instant", "text"),
    [
        (datetime(2025, 1, 22, 2, tzinfo=UTC), "2025-01-22T02:00:00Z"),
        (datetime(2025, 1, 22, 2, 0, 0, 125_000, tzinfo=UTC), "2025-01-22T02:00:00.125Z"),
        (datetime(2025, 1, 22, 2, 0, 0, 125_999, tzinfo=UTC), "2025-01-22T02:00:00.125Z"),
        (datetime(2025, 1, 1, 1, tzinfo=timezone(timedelta(hours=2))), "2024-12-31T23:00:00Z"),
    ],
)
def test_instants_are_formatted_in_utc_with_z(instant: datetime, text: str) -> None:
    assert rfc3339(instant) == text


def test_levels_rank_from_the_weakest_to_the_strongest() -> None:
    ranked = sorted(Level, key=lambda level: level.rank)
    assert [str(level) for level in ranked] == ["size", "stored", "checksum", "tsdb", "drill"]


def test_tiers_run_from_the_shortest_lived_to_the_longest_lived() -> None:
    assert [str(tier) for tier in Tier] == ["daily", "monthly", "yearly"]


def test_only_done_exits_with_zero() -> None:
    assert [outcome for outcome in Outcome if outcome.exit_code == 0] == [Outcome.DONE]


def test_size_of_a_block_is_the_sum_of_its_files() -> None:
    block = SourceBlock(
        ulid="01JJ5W0B8ZC6X3M1S4T9Q2V7KD",
        min_time_ms=0,
        max_time_ms=7_200_000,
        level=1,
        sources=(),
        parents=(),
        stats={},
        files=(SourceFile("index", 10), SourceFile("chunks/000001", 32)),
    )
    assert block.size == 42
