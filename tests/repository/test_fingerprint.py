"""Fingerprints from the network and from manifests: parsed, or refused."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prometheus_backup.errors import UnreadableManifest
from prometheus_backup.model import MAX_FINGERPRINTS, MAX_QUERY
from prometheus_backup.repository.fingerprint import (
    MAX_ANSWER_SIZE,
    MAX_SERIES,
    Answer,
    Fingerprint,
    read_answer,
)
from prometheus_backup.repository.manifest import decode_manifest, encode
from tests.support.manifests import BACKUP_ID, Json, encoded

AT = 1737504000.123
SAMPLE: Json = {"labels": {"job": "self"}, "value": "3"}
BUCKET: Json = {"rule": 0, "lower": "1", "upper": "2", "count": "13"}
HISTOGRAM: Json = {"count": "17", "sum": "NaN", "buckets": [BUCKET]}


def fingerprint(*series: Any, **changes: Any) -> Json:
    """A fingerprint as in a manifest."""
    return {
        "query": "count by (job) (up)",
        "at": "2025-01-22T01:55:00Z",
        "answer": {"type": "vector", "series": list(series) or [SAMPLE]},
        "inconclusive": "",
    } | changes


def recorded(*fingerprints: Any) -> tuple[Fingerprint, ...]:
    """The fingerprints of a manifest with these."""
    data = encoded(fingerprints=list(fingerprints))
    return decode_manifest(data, backup_id=BACKUP_ID).fingerprints


def vector(*samples: Json) -> Json:
    return {"resultType": "vector", "result": list(samples)}


def sample(value: str = "1", **labels: str) -> Json:
    return {"metric": labels, "value": [AT, value]}


def test_answers_of_every_kind_survive_the_manifest() -> None:
    histogram = {
        "count": "17",
        "sum": "3.5",
        "buckets": [[0, "0.5", "1", "4"], [3, "-0.001", "0.001", "13"]],
    }
    answers = [
        read_answer({"resultType": "scalar", "result": [AT, "-1.5e-07"]}),
        read_answer(vector()),
        read_answer(vector(sample("NaN", job="b"), sample("+Inf", job="a"))),
        read_answer(vector({"metric": {"s": "\x00\u2028"}, "histogram": [AT, histogram]})),
        read_answer(vector({"metric": {}, "histogram": [AT, {"count": "0", "sum": "0"}]})),
    ]
    data = [fingerprint(answer=json.loads(answer.model_dump_json())) for answer in answers]
    assert [f.answer for f in recorded(*data)] == answers
    (manifest,) = [decode_manifest(encoded(fingerprints=data), backup_id=BACKUP_ID)]
    assert decode_manifest(encode(manifest), backup_id=BACKUP_ID) == manifest


def test_series_are_kept_in_the_order_of_their_labels() -> None:
    one, other = sample(job="a"), sample(job="b")
    assert read_answer(vector(one, other)) == read_answer(vector(other, one))


def test_fingerprint_without_an_answer_has_a_reason() -> None:
    (found,) = recorded(fingerprint(answer=None, at=None, inconclusive="it timed out"))
    assert (found.answer, found.at, found.inconclusive) == (None, None, "it timed out")


def test_manifest_from_before_fingerprints_has_none() -> None:
    document = json.loads(encoded())
    del document["fingerprints"]
    found = decode_manifest(json.dumps(document).encode(), backup_id=BACKUP_ID)
    assert found.fingerprints == ()
    assert found.prometheus.lookback == ""


HOSTILE: dict[str, Any] = {
    "no answer and no cause": fingerprint(answer=None),
    "an answer and a cause": fingerprint(inconclusive="why"),
    "an answer of no instant": fingerprint(at=None),
    "a query that steers a terminal": fingerprint(query="up\x1b[2J"),
    "a query of two lines": fingerprint(query="up\nup"),
    "an empty query": fingerprint(query=""),
    "an endless query": fingerprint(query="x" * (MAX_QUERY + 1)),
    "a cause that steers a terminal": fingerprint(answer=None, inconclusive="\x1b[2J"),
    "a matrix": fingerprint(answer={"type": "matrix", "series": []}),
    "a scalar of two": fingerprint(answer={"type": "scalar", "series": [SAMPLE, SAMPLE]}),
    "a series twice": fingerprint(SAMPLE, SAMPLE),
    "a number and a histogram": fingerprint(SAMPLE | {"histogram": HISTOGRAM}),
    "neither number nor histogram": fingerprint({"labels": {}}),
    "a value that is no number": fingerprint(SAMPLE | {"value": "many"}),
    "a value as a number": fingerprint(SAMPLE | {"value": 3}),
    "a value in a costume": fingerprint(SAMPLE | {"value": "0x10"}),
    "a value with a newline": fingerprint(SAMPLE | {"value": "3\n"}),
    "an endless value": fingerprint(SAMPLE | {"value": "3" * 65}),
    "an infinity of python": fingerprint(SAMPLE | {"value": "infinity"}),
    "a label that is no text": fingerprint(SAMPLE | {"labels": {"job": 1}}),
    "an endless label": fingerprint(SAMPLE | {"labels": {"job": "x" * 5000}}),
    "too many labels": fingerprint(SAMPLE | {"labels": {f"l{n}": "" for n in range(129)}}),
    "a bucket of another rule": fingerprint(
        {"labels": {}, "histogram": HISTOGRAM | {"buckets": [BUCKET | {"rule": 4}]}}
    ),
    "too many series": fingerprint(
        *({"labels": {"n": str(n)}, "value": "1"} for n in range(MAX_SERIES + 1))
    ),
    "a text": "count(up)",
}


@pytest.mark.parametrize("value", HOSTILE.values(), ids=HOSTILE)
def test_hostile_fingerprint_is_refused_with_its_manifest(value: Any) -> None:
    with pytest.raises(UnreadableManifest) as caught:
        recorded(value)
    assert str(caught.value).isprintable()


def test_too_many_fingerprints_are_refused() -> None:
    assert len(recorded(*[fingerprint()] * MAX_FINGERPRINTS)) == MAX_FINGERPRINTS
    with pytest.raises(UnreadableManifest):
        recorded(*[fingerprint()] * (MAX_FINGERPRINTS + 1))


@pytest.mark.parametrize(
    ("data", "cause"),
    [
        ({"resultType": "matrix", "result": []}, "no number or vector"),
        ({"resultType": "string", "result": [AT, "text"]}, "no number or vector"),
        (vector(*(sample(n=str(n)) for n in range(MAX_SERIES + 1))), "1,001 series, over 1,000"),
        (vector(*(sample(n="x" * 4000 + str(n)) for n in range(20))), "bytes, over 65,536"),
        ({}, "no number or vector"),
        ({"resultType": "vector"}, "no result"),
        ({"resultType": "scalar", "result": [AT]}, "not as Prometheus gives it"),
        (vector({"metric": {}}), "not as Prometheus gives it"),
        (vector({"value": [AT, "1"]}), "not as Prometheus gives it"),
        (vector(sample("many")), "not as Prometheus gives it"),
        (vector(sample(), sample()), "not as Prometheus gives it"),
        (vector(sample(s="\ud800")), "not as Prometheus gives it"),
    ],
)
def test_answer_that_cannot_be_recorded_has_a_cause(data: Json, cause: str) -> None:
    with pytest.raises(ValueError, match=cause):
        read_answer(data)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)


@given(st.fixed_dictionaries({"resultType": st.sampled_from(["scalar", "vector"]), "result": JSON}))
def test_any_answer_is_recorded_within_limits_or_refused(data: Json) -> None:
    try:
        answer = read_answer(data)
    except ValueError:
        return
    assert isinstance(answer, Answer)
    assert len(answer.model_dump_json()) <= 2 * MAX_ANSWER_SIZE
