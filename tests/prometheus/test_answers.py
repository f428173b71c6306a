"""Two answers to one query: which differences count, and how they are described."""

import copy
from typing import Any

import pytest

from prometheus_backup.prometheus.answers import differences
from prometheus_backup.repository.fingerprint import Answer, read_answer

AT = 1737504000
HISTOGRAM: dict[str, Any] = {
    "count": "17",
    "sum": "3.5",
    "buckets": [[0, "0.5", "1", "4"], [0, "1", "2", "13"]],
}


def scalar(value: str) -> Answer:
    return read_answer({"resultType": "scalar", "result": [AT, value]})


def vector(**values: str) -> Answer:
    """A vector of series with a label `s`."""
    result = [{"metric": {"s": name}, "value": [AT, value]} for name, value in values.items()]
    return read_answer({"resultType": "vector", "result": result})


def histogram(**changes: Any) -> Answer:
    one = {"metric": {"s": "a"}, "histogram": [AT, copy.deepcopy(HISTOGRAM) | changes]}
    return read_answer({"resultType": "vector", "result": [one]})


@pytest.mark.parametrize(
    ("recorded", "found"),
    [
        ("3", "3"),
        ("NaN", "NaN"),
        ("+Inf", "+Inf"),
        ("0", "-0"),
        ("1e+09", "1000000000"),
        # An average whose samples were added in a different order.
        ("0.30000000000000004", "0.3"),
        ("10702.155969719135", "10702.155969719133"),
        ("3", "3.0000000000000004"),
        ("1.7976931348623157e+308", "1.7976931348623155e+308"),
    ],
)
def test_values_equal_within_the_tolerance(recorded: str, found: str) -> None:
    assert differences(scalar(recorded), scalar(found)) == ()
    assert differences(vector(a=recorded), vector(a=found)) == ()


@pytest.mark.parametrize(
    ("recorded", "found"),
    [
        ("3", "4"),
        # One sample of ten billion, far below the relative tolerance.
        ("10000000000", "10000000001"),
        ("NaN", "0"),
        ("+Inf", "-Inf"),
        ("+Inf", "1.7976931348623157e+308"),
        ("0.3", "0.30000001"),
        ("0", "0.0000000000001"),
        ("1", "-1"),
    ],
)
def test_other_values(recorded: str, found: str) -> None:
    assert differences(scalar(recorded), scalar(found)) == (
        f"{{}} is {found}, the source had {recorded}",
    )
    assert len(differences(vector(a=recorded), vector(a=found))) == 1


def test_series_are_compared_by_all_labels_in_any_order() -> None:
    assert differences(vector(a="1", b="2"), vector(b="2", a="1")) == ()
    assert differences(vector(a="1", b="2"), vector(a="1")) == (
        '{s="b"} is missing, the source had 2',
    )
    assert differences(vector(a="1"), vector(a="1", b="2")) == (
        '{s="b"} is 2, the source did not have this series',
    )


def test_a_scalar_differs_from_a_vector_with_one_series() -> None:
    assert differences(scalar("1"), vector(a="1")) == (
        "the answer is a vector, the source returned a scalar",
    )


@pytest.mark.parametrize(
    "changes",
    [
        {"count": "18"},
        {"sum": "3.6"},
        {"buckets": HISTOGRAM["buckets"][:1]},
        {"buckets": [[0, "0.5", "1", "5"], [0, "1", "2", "12"]]},
        {"buckets": [[1, "0.5", "1", "4"], [0, "1", "2", "13"]]},
        {"buckets": [[0, "0.5", "1.1", "4"], [0, "1.1", "2", "13"]]},
    ],
)
def test_histograms_are_compared_to_their_last_bucket(changes: dict[str, Any]) -> None:
    assert differences(histogram(), histogram()) == ()
    assert differences(histogram(), histogram(sum="3.5000000000000004")) == ()
    (message,) = differences(histogram(), histogram(**changes))
    assert message.startswith('{s="a"} is a histogram of ')


def test_a_histogram_differs_from_a_number() -> None:
    assert differences(histogram(), vector(a="17")) == (
        '{s="a"} is 17, the source had a histogram of 17 observations in 2 buckets, sum 3.5',
    )


def test_labels_with_any_text_are_printable() -> None:
    hostile = "\x1b[2J\n\x7f\u202eevil" + "x" * 3000
    result = [{"metric": {"s": hostile}, "value": [AT, "1"]}]
    found = read_answer({"resultType": "vector", "result": result})
    (message,) = differences(vector(), found)
    assert message.isprintable()
    assert message.isascii()
    assert len(message) < 600
