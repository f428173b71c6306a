"""Which backup a window takes, which blocks, and the address of its page."""

from datetime import UTC, datetime, timedelta
from urllib.parse import parse_qs, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prometheus_backup.errors import UsageError
from prometheus_backup.repository.entry import BackupEntry, State
from prometheus_backup.repository.manifest import Block, Manifest, decode_manifest
from prometheus_backup.spans import Span
from prometheus_backup.window.plan import best_backup, page_address, plan_window
from tests.support import manifests
from tests.support.blocks import DAY, HOUR, block, ulid


def manifest(*blocks: Block) -> Manifest:
    document = manifests.encoded(
        min_time=min(b.min_time for b in blocks).isoformat(),
        max_time=max(b.max_time for b in blocks).isoformat(),
    )
    plain = decode_manifest(document, backup_id=manifests.BACKUP_ID)
    return plain.model_copy(update={"blocks": blocks})


def test_only_blocks_of_the_time_are_fetched_newest_first() -> None:
    three = manifest(block(1, 0, 2), block(2, 2, 4), block(3, 4, 6))

    plan = plan_window(three, DAY + 1 * HOUR, DAY + 4 * HOUR)

    assert [b.ulid for b in plan.blocks] == [ulid(2), ulid(1)]
    assert plan.span == Span(DAY + 1 * HOUR, DAY + 4 * HOUR)
    assert (plan.size, plan.files) == (20, 2)


def test_the_range_is_limited_to_what_the_blocks_have() -> None:
    plan = plan_window(manifest(block(1, 3, 5)), DAY, None)

    assert plan.span == Span(DAY + 3 * HOUR, DAY + 5 * HOUR)


def test_blocks_that_prometheus_is_too_old_for_are_left_out() -> None:
    newer = block(1, 0, 2).model_copy(update={"encodings": {"xor2": 7}})
    two = manifest(newer, block(2, 2, 4))

    plan = plan_window(two, None, None, version="3.5.3")

    assert [b.ulid for b in plan.blocks] == [ulid(2)]
    assert [p.block.ulid for p in plan.left_out] == [ulid(1)]
    assert len(plan_window(two, None, None, version="3.11.0").blocks) == 2
    with pytest.raises(UsageError, match="which Prometheus can read since"):
        plan_window(manifest(newer), None, None, version="3.5.3")


def test_a_block_that_another_one_was_made_of_is_not_fetched() -> None:
    plan = plan_window(manifest(block(1, 0, 2), block(2, 0, 4, parents=[1])), None, None)

    assert [b.ulid for b in plan.blocks] == [ulid(2)]


def test_a_block_that_ends_in_the_far_future_is_left_out() -> None:
    """Prometheus' retention counts from the newest block: it would delete all others."""
    plan = plan_window(manifest(block(1, 0, 2), block(2, 0, 24 * 365 * 1000)), None, None)

    assert [b.ulid for b in plan.blocks] == [ulid(1)]
    assert [p.block.ulid for p in plan.left_out] == [ulid(2)]


def test_a_range_without_a_block_names_what_the_backup_covers() -> None:
    with pytest.raises(UsageError) as error:
        plan_window(manifest(block(1, 3, 5)), DAY + 5 * HOUR, None)

    assert "the backup covers 2025-06-01T03:00:00Z to 2025-06-01T05:00:00Z" in error.value.hint


def entry(number: int, *hours: tuple[float, float]) -> BackupEntry:
    spans = tuple(Span(DAY + a * HOUR, DAY + b * HOUR) for a, b in hours)
    header = decode_manifest(manifests.encoded(), backup_id=manifests.BACKUP_ID).header
    return BackupEntry(f"backup-202506{number:02d}-000000", State.COMMITTED, header, spans)


_HOURS = st.lists(st.tuples(st.integers(0, 20), st.integers(1, 9)), max_size=3)


@given(st.lists(_HOURS, max_size=5), st.integers(0, 20), st.integers(1, 9))
def test_the_backup_with_most_of_the_range_is_chosen(
    held: list[list[tuple[int, int]]], start: int, length: int
) -> None:
    entries = [entry(n + 1, *((a, a + b) for a, b in spans)) for n, spans in enumerate(held)]
    hours = range(start, start + length)

    def covered(spans: list[tuple[int, int]]) -> int:
        return sum(any(a <= hour < a + b for a, b in spans) for hour in hours)

    found = best_backup(entries, DAY + start * HOUR, DAY + (start + length) * HOUR)

    most = max(map(covered, held), default=0)
    newest = max((n for n, spans in enumerate(held) if covered(spans) == most), default=None)
    assert found == (entries[newest] if most and newest is not None else None)


@pytest.mark.parametrize(
    ("start", "end", "shown_length", "shown_end"),
    [
        ("2025-06-01T00:00:00", "2025-06-01T02:00:00", "2h", "2025-06-01 02:00:00"),
        ("2025-06-01T00:00:00", "2025-06-01T02:00:00.001", "2h1s", "2025-06-01 02:00:01"),
        ("2025-06-01T00:00:00.5", "2025-06-01T00:00:00.6", "1s", "2025-06-01 00:00:01"),
        ("2025-05-17T00:00:00", "2025-06-01T01:30:00", "15d1h30m", "2025-06-01 01:30:00"),
    ],
)
def test_the_address_covers_the_whole_range_in_seconds(
    start: str, end: str, shown_length: str, shown_end: str
) -> None:
    times = (datetime.fromisoformat(t).replace(tzinfo=UTC) for t in (start, end))

    parts = urlsplit(page_address("http://127.0.0.1:9090", "/query", Span(*times)))

    assert (parts.netloc, parts.path) == ("127.0.0.1:9090", "/query")
    assert " " not in parts.query
    assert parse_qs(parts.query) == {
        "g0.expr": ["up"],
        "g0.tab": ["0"],
        "g0.range_input": [shown_length],
        "g0.end_input": [shown_end],
    }


def test_a_short_range_shows_at_least_a_second() -> None:
    instant = Span(DAY, DAY + timedelta(milliseconds=1))

    assert "g0.range_input=1s" in page_address("", "", instant)
