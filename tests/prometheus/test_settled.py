"""For which instant a source is asked: the snapshot must hold all that the answer comes from."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

from prometheus_backup.prometheus.settled import SettledInputs, settled_instant

NOON = datetime(2025, 1, 22, 12, tzinfo=UTC)
HOUR, MS = timedelta(hours=1), timedelta(milliseconds=1)

PLAIN = SettledInputs(
    clock=NOON,
    skip_head=False,
    out_of_order=None,
    persisted_until=NOON - 2 * HOUR,
    head_from=NOON - 2 * HOUR,
)


def test_scrapes_of_five_minutes_ago_have_arrived() -> None:
    assert settled_instant(PLAIN) == NOON - timedelta(minutes=5)
    new = replace(PLAIN, persisted_until=None)
    assert settled_instant(new) == NOON - timedelta(minutes=5)


def test_without_the_head_the_newest_block_has_the_last_word() -> None:
    assert settled_instant(replace(PLAIN, skip_head=True)) == NOON - 2 * HOUR - MS
    empty = replace(PLAIN, skip_head=True, head_from=None)
    assert settled_instant(empty) == NOON - 2 * HOUR - MS


def test_a_block_that_ends_after_the_head_begins_does_not_say_how_far_the_head_is_on_disk() -> None:
    backfilled = replace(PLAIN, skip_head=True, persisted_until=NOON - HOUR)
    assert settled_instant(backfilled) == NOON - 2 * HOUR - MS


def test_late_samples_in_memory_are_younger_than_the_newest_block_less_their_window() -> None:
    late = replace(PLAIN, out_of_order="30m")
    assert settled_instant(late) == NOON - 2.5 * HOUR - MS
    assert settled_instant(replace(late, skip_head=True)) == NOON - 2.5 * HOUR - MS


def test_where_nothing_is_sure_to_be_in_the_snapshot_there_is_no_instant() -> None:
    assert settled_instant(replace(PLAIN, skip_head=True, persisted_until=None)) is None
    assert settled_instant(replace(PLAIN, out_of_order="30m", persisted_until=None)) is None
    assert settled_instant(replace(PLAIN, out_of_order="a while")) is None
