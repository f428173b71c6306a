"""Predict what Prometheus' retention deletes, and the flags that keep everything."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prometheus_backup.errors import UsageError
from prometheus_backup.prometheus.retention import (
    FIRST_BLOCK_AFTER,
    RetainedBlock,
    RetentionNeed,
    TsdbRetention,
    deleted,
    parse_target_retention,
    parse_tsdb_retention,
    retention_need,
    with_next_block,
)

NOW = datetime(2025, 6, 1, 12, tzinfo=UTC)
GIB = 1024**3
DAY = timedelta(days=1)


def block(name: str, *, end: datetime, size: int = 10) -> RetainedBlock:
    """A block of two hours."""
    return RetainedBlock(name, end - timedelta(hours=2), end, size)


@pytest.mark.parametrize(
    ("text", "time", "size"),
    [
        ("15d", 15 * DAY, None),
        ("15d or 10GiB", 15 * DAY, 10 * GIB),
        ("10GiB", None, 10 * GIB),
        ("1GiB512MiB", None, GIB + 512 * 1024**2),
        ("1y", 365 * DAY, None),
        ("1w2d12h", timedelta(days=9, hours=12), None),
        ("30d,50GB", 30 * DAY, 50 * GIB),
        ("90d, 1TB", 90 * DAY, 1024 * GIB),
        ("1500ms", timedelta(seconds=1.5), None),
        ("0s", None, None),
        ("15d or 0B", 15 * DAY, None),
        ("", None, None),
    ],
)
def test_retention_is_parsed_as_prometheus_reports_it(
    text: str, time: timedelta | None, size: int | None
) -> None:
    assert parse_tsdb_retention(text) == TsdbRetention(time, size)


def test_unknown_text_is_returned_and_the_rest_is_parsed() -> None:
    assert parse_tsdb_retention("15d or soon") == TsdbRetention(15 * DAY, None, "soon")


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("15d or 80%", 800),
        ("15d or 0.5%", 5),
        ("15d or 100GB or 10%", 100),
        ("100B", 100),
        ("15d", None),
    ],
)
def test_a_percentage_is_of_the_file_system_and_counts_instead_of_a_size(
    text: str, size: int | None
) -> None:
    assert parse_tsdb_retention(text).on_file_system(1000).size == size


def test_a_percentage_of_an_unknown_file_system_is_unknown() -> None:
    found = parse_tsdb_retention("15d or 100GB or 80%").on_file_system(None)
    assert (found.time, found.size, found.unknown) == (15 * DAY, None, "80%")


NEED = RetentionNeed(time=37.5 * DAY, size=119 * 1024**3 + 1)
IN_FLAGS = "--storage.tsdb.retention.time=38d"
IN_SECTION = "time: 38d"


@pytest.mark.parametrize(
    ("version", "present", "absent"),
    [
        ("2.42.0", [IN_FLAGS], ["configuration file"]),
        ("3.7.9", [IN_FLAGS], ["configuration file"]),
        ("3.8.0", [IN_SECTION, "counts instead of the flags"], [IN_FLAGS]),
        ("3.14.0", [IN_SECTION, "counts instead of the flags"], [IN_FLAGS]),
        ("", [IN_FLAGS, IN_SECTION, "3.8 or newer"], []),
    ],
)
def test_the_instruction_names_what_counts_in_that_version(
    version: str, present: list[str], absent: list[str]
) -> None:
    text = NEED.instruction(TsdbRetention(15 * DAY), version=version)
    assert all(part in text for part in present)
    assert not any(part in text for part in [*absent, "size"])


def test_the_instruction_raises_a_limit_of_size_only_if_there_is_one() -> None:
    by_size = NEED.instruction(TsdbRetention(size=10), version="3.14.0")
    by_share = NEED.instruction(parse_tsdb_retention("80%").on_file_system(10), version="3.14.0")
    assert "time: 38d, size: 120GB under" in by_size
    assert "time: 38d, size: 120GB instead of a percentage under" in by_share
    assert "retention.size=120GB" in NEED.instruction(TsdbRetention(size=10), version="2.42.0")


@pytest.mark.parametrize("text", ["", " ", "soon", "15", "15d,", "15 d", "15d,50", "-1d"])
def test_invalid_user_input_is_an_error(text: str) -> None:
    if text == "15d,":
        assert parse_target_retention(text).time == 15 * DAY
        return
    with pytest.raises(UsageError, match="cannot parse retention"):
        parse_target_retention(text)


def test_age_is_measured_from_the_newest_block_not_from_now() -> None:
    old = [block(str(n), end=NOW - 400 * DAY - n * DAY) for n in range(20)]

    assert deleted(TsdbRetention(15 * DAY), old) == {"15", "16", "17", "18", "19"}
    assert deleted(TsdbRetention(15 * DAY), with_next_block(old, now=NOW)) == {b.ulid for b in old}


def test_a_single_block_is_never_deleted_by_age() -> None:
    assert deleted(TsdbRetention(DAY), [block("a", end=NOW - 100 * DAY)]) == frozenset()


def test_size_includes_the_head_and_the_oldest_blocks_are_deleted_first() -> None:
    blocks = [block(str(n), end=NOW - n * DAY, size=100) for n in range(5)]

    assert deleted(TsdbRetention(size=500), blocks) == frozenset()
    assert deleted(TsdbRetention(size=500), blocks, head_size=1) == {"4"}
    assert deleted(TsdbRetention(size=250), blocks) == {"2", "3", "4"}


def test_all_blocks_older_than_the_first_beyond_the_size_are_deleted() -> None:
    large = [block("new", end=NOW, size=90), block("mid", end=NOW - DAY, size=20)]
    small = block("old", end=NOW - 2 * DAY, size=1)

    assert deleted(TsdbRetention(size=100), [*large, small]) == {"mid", "old"}


def test_no_limit_deletes_nothing() -> None:
    blocks = [block(str(n), end=NOW - n * 400 * DAY, size=GIB) for n in range(9)]

    assert deleted(TsdbRetention(), blocks, head_size=GIB) == frozenset()


def test_the_next_block_is_as_large_as_two_hours_of_the_newest() -> None:
    day = RetainedBlock("day", NOW - DAY, NOW, 1200)

    *_, following = with_next_block([block("old", end=NOW - 9 * DAY, size=7), day], now=NOW)

    assert (following.max_time, following.size) == (NOW + FIRST_BLOCK_AFTER, 100)


@given(
    ages=st.lists(st.integers(-48, 24 * 900), min_size=1, max_size=12),
    sizes=st.integers(1, 10**9),
    head=st.integers(0, 10**9),
)
def test_the_flags_keep_everything_past_the_next_block_but_little_more(
    ages: list[int], sizes: int, head: int
) -> None:
    blocks = [
        block(str(n), end=NOW - timedelta(hours=age), size=sizes) for n, age in enumerate(ages)
    ]
    need = retention_need(blocks, now=NOW, head_size=head)

    assert need is not None
    grown = with_next_block(blocks, now=NOW)
    kept = TsdbRetention(need.time, need.size)
    assert deleted(kept, blocks, head_size=head) == frozenset()
    assert deleted(kept, grown, head_size=head) == frozenset()
    oldest = min(b.max_time for b in blocks)
    if oldest < max(b.max_time for b in grown) - 2 * DAY:
        assert deleted(TsdbRetention(need.time - 2 * DAY), grown), "no more than a day of slack"


def test_no_blocks_need_no_retention() -> None:
    assert retention_need([], now=NOW) is None


@pytest.mark.parametrize(
    ("time", "flag"),
    [
        (timedelta(hours=1), "1d"),
        (timedelta(days=3), "3d"),
        (timedelta(days=3, seconds=1), "4d"),
    ],
)
def test_the_time_flag_is_rounded_up_to_whole_days(time: timedelta, flag: str) -> None:
    assert RetentionNeed(time, 1).time_flag == f"--storage.tsdb.retention.time={flag}"


@pytest.mark.parametrize(("size", "flag"), [(1, "1GB"), (GIB, "1GB"), (GIB + 1, "2GB")])
def test_the_size_flag_is_rounded_up_to_prometheus_gigabytes(size: int, flag: str) -> None:
    assert RetentionNeed(DAY, size).size_flag == f"--storage.tsdb.retention.size={flag}"
