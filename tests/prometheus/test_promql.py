"""PromQL durations, and how far back a query reads."""

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prometheus_backup.prometheus.promql import format_duration, furthest_lookback, parse_duration

MINUTE, HOUR = timedelta(minutes=1), timedelta(hours=1)


@pytest.mark.parametrize(
    ("text", "length"),
    [
        ("5m", 5 * MINUTE),
        ("1h30m", 90 * MINUTE),
        ("300", None),
        ("250ms", timedelta(milliseconds=250)),
        ("1y2w3d4h", timedelta(days=365 + 14 + 3, hours=4)),
        ("0s", timedelta()),
        ("", None),
        ("-5m", None),
        ("5 m", None),
        ("5m;rm", None),
        ("1.5h", None),
        ("9" * 50 + "y", None),
        ("9999999999y", None),
    ],
)
def test_duration_is_parsed_like_prometheus_or_rejected(
    text: str, length: timedelta | None
) -> None:
    assert parse_duration(text) == length


@pytest.mark.parametrize(
    ("query", "back"),
    [
        ("count by (job) (up)", 5 * MINUTE),
        ("sum(count_over_time(up[1h]))", 65 * MINUTE),
        ("up offset 1d", timedelta(days=1, minutes=5)),
        ("sum(up offset 1h)", 65 * MINUTE),
        ("max_over_time(rate(x[5m])[1h:1m])", 71 * MINUTE),
        ("max_over_time(x[1h:])", 65 * MINUTE),
        ("x[600] offset 60", 16 * MINUTE),
        # Strings and comments contain no ranges.
        ('up{path="[1y] @ offset 5d"}', 5 * MINUTE),
        ("up{path='a\\'[1y]'}", 5 * MINUTE),
        ("up{path=`[1y]`} # [1y]", 5 * MINUTE),
        # Unknown: another instant, the future, arithmetic.
        ("up @ 1737504000", None),
        ("up @ start()", None),
        ("up offset -5m", None),
        ("x[5m * 2]", None),
        ("x[$__range]", None),
    ],
)
def test_furthest_lookback_is_an_upper_bound(query: str, back: timedelta | None) -> None:
    assert furthest_lookback(query) == back


def test_furthest_lookback_includes_the_lookback_delta_of_the_source() -> None:
    assert furthest_lookback("up", lookback=HOUR) == HOUR


@given(st.text())
def test_furthest_lookback_of_any_text_is_a_duration_or_unknown(text: str) -> None:
    assert furthest_lookback(text) is None or furthest_lookback(text) >= 5 * MINUTE  # type: ignore[operator]


@pytest.mark.parametrize("text", ["1d", "6h", "1h30m", "90d", "45s", "1d12h", "0s"])
def test_duration_is_written_as_prometheus_writes_it(text: str) -> None:
    assert format_duration(parse_duration(text) or timedelta()) == text
