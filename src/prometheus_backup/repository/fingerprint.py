"""Fingerprints: queries with the results that the source returned, for a drill to compare.

Both ways in are untrusted: the network and the manifest. How results are compared is in
`prometheus.answers`, and which of them can be compared in `drill.plan`.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, FailFast, Field, ValidationError, model_validator

from prometheus_backup.model import MAX_QUERY
from prometheus_backup.repository.document import Document, Instant, Text, require_printable

MAX_SERIES = 1000
MAX_ANSWER_SIZE = 64 * 1024
"""Bytes of one answer. Every `list` reads every manifest, so they must stay small."""

Query = Annotated[str, Field(min_length=1, max_length=MAX_QUERY), AfterValidator(require_printable)]
Number = Annotated[
    str,
    Field(max_length=64, pattern=r"^(NaN|[+-]Inf|-?[0-9]+(\.[0-9]+)?([eE][+-]?[0-9]+)?)$"),
]
"""A float as Prometheus writes it: as a string, because JSON has no NaN and no infinities."""
Label = Annotated[str, Field(max_length=4096)]
"""Any text: label values come from scraped targets. Escape it before printing."""


class Bucket(Document):
    """A bucket of a histogram; `rule` says which of its bounds are inclusive."""

    rule: Annotated[int, Field(ge=0, le=3)]
    lower: Number
    upper: Number
    count: Number


class Histogram(Document):
    """A native histogram without its empty buckets."""

    count: Number
    sum: Number
    buckets: Annotated[tuple[Bucket, ...], FailFast(), Field(max_length=MAX_SERIES)] = ()


class Sample(Document):
    """A series of an answer: its labels, and a float or a histogram."""

    labels: Annotated[dict[Label, Label], FailFast(), Field(max_length=128)]
    value: Number | None = None
    histogram: Histogram | None = None

    @model_validator(mode="after")
    def _has_one_value(self) -> Self:
        if (self.value is None) == (self.histogram is None):
            raise ValueError("a sample must have either a value or a histogram")
        return self


class Answer(Document):
    """The result of an instant query. A scalar is one sample without labels."""

    type: Literal["scalar", "vector"]
    series: Annotated[tuple[Sample, ...], FailFast(), Field(max_length=MAX_SERIES)]

    @model_validator(mode="after")
    def _is_consistent(self) -> Self:
        if len({tuple(sorted(s.labels.items())) for s in self.series}) != len(self.series):
            raise ValueError("two series have the same labels")
        if self.type == "scalar" and len(self.series) != 1:
            raise ValueError("a scalar must have exactly one sample")
        return self


class Fingerprint(Document):
    """A query and the source's answer at the instant `at`, or why there is no answer."""

    query: Query
    at: Instant | None = None
    answer: Answer | None = None
    inconclusive: Text = ""

    @model_validator(mode="after")
    def _is_consistent(self) -> Self:
        if (self.answer is None) != bool(self.inconclusive):
            raise ValueError("a fingerprint must have either an answer or a reason")
        if self.answer is not None and self.at is None:
            raise ValueError("an answer must have an instant")
        return self


def read_answer(data: Mapping[str, Any]) -> Answer:
    """Parse the `data` of a response of /api/v1/query.

    Raises ValueError with a readable cause if it is not a scalar or an instant vector, is too large
    to be recorded, or is malformed.
    """
    kind, result = data.get("resultType"), data.get("result")
    if kind not in ("scalar", "vector"):
        raise ValueError("it answers with no number or vector of numbers")
    if not isinstance(result, list):
        raise ValueError("the answer has no result")  # noqa: TRY004 -- the network's, not ours
    if kind == "vector" and len(result) > MAX_SERIES:
        raise ValueError(f"it answers with {len(result):,} series, over {MAX_SERIES:,}")
    try:
        series = [{"labels": {}, **_value(result)}] if kind == "scalar" else _samples(result)
        text = json.dumps({"type": kind, "series": series})
        if len(text) > MAX_ANSWER_SIZE:
            raise ValueError(f"its answer has {len(text):,} bytes, over {MAX_ANSWER_SIZE:,}")
        return Answer.model_validate_json(text)
    except (KeyError, TypeError, IndexError, AttributeError, ValidationError):
        raise ValueError("the answer is not as Prometheus gives it") from None


def _samples(result: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    found = [
        {
            "labels": dict(sorted(one["metric"].items())),
            **(_value(one["value"]) if "value" in one else _histogram(one["histogram"])),
        }
        for one in result
    ]
    return sorted(found, key=lambda sample: json.dumps(sample["labels"]))


def _value(pair: Sequence[Any]) -> dict[str, Any]:
    return {"value": pair[1]}


def _histogram(pair: Sequence[Any]) -> dict[str, Any]:
    found = pair[1]
    names = ("rule", "lower", "upper", "count")
    return {
        "histogram": {
            "count": found["count"],
            "sum": found["sum"],
            "buckets": [
                dict(zip(names, bucket, strict=True)) for bucket in found.get("buckets") or ()
            ],
        }
    }
