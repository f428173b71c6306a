"""The instant of fingerprint queries: all samples they read must be in the snapshot."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

from prometheus_backup.prometheus.query_time import QueryTimeInputs, safe_query_time

NOON = datetime(2025, 1, 22, 12, tzinfo=UTC)
HOUR, MS = timedelta(hours=1), timedelta(milliseconds=1)

PLAIN = QueryTimeInputs(
    clock=NOON,
    skip_head=False,
    out_of_order=None,
    persisted_until=NOON - 2 * HOUR,
    head_from=NOON - 2 * HOUR,
)


def test_by_default_the_instant_is_five_minutes_ago() -> None:
    assert safe_query_time(PLAIN) == NOON - timedelta(minutes=5)
    new = replace(PLAIN, persisted_until=None)
    assert safe_query_time(new) == NOON - timedelta(minutes=5)


def test_with_skip_head_the_instant_is_the_end_of_the_newest_block() -> None:
    assert safe_query_time(replace(PLAIN, skip_head=True)) == NOON - 2 * HOUR - MS
    empty = replace(PLAIN, skip_head=True, head_from=None)
    assert safe_query_time(empty) == NOON - 2 * HOUR - MS


def test_if_a_block_ends_after_the_head_starts_the_instant_is_the_start_of_the_head() -> None:
    backfilled = replace(PLAIN, skip_head=True, persisted_until=NOON - HOUR)
    assert safe_query_time(backfilled) == NOON - 2 * HOUR - MS


def test_with_an_out_of_order_window_the_instant_is_earlier_by_the_window() -> None:
    late = replace(PLAIN, out_of_order="30m")
    assert safe_query_time(late) == NOON - 2.5 * HOUR - MS
    assert safe_query_time(replace(late, skip_head=True)) == NOON - 2.5 * HOUR - MS


def test_there_is_no_instant_if_nothing_is_certain_to_be_in_the_snapshot() -> None:
    assert safe_query_time(replace(PLAIN, skip_head=True, persisted_until=None)) is None
    assert safe_query_time(replace(PLAIN, out_of_order="30m", persisted_until=None)) is None
    assert safe_query_time(replace(PLAIN, out_of_order="a while")) is None
