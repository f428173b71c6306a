"""Compare two answers to a query: labels and counts exactly, floats with a tolerance."""

import json
import math
from collections.abc import Iterator, Mapping

from prometheus_backup.repository.fingerprint import Answer, Histogram, Sample

RELATIVE_TOLERANCE = 1e-9
"""The last digits of an average depend on the order in which its samples were added up."""
_COUNTS_BELOW = 2.0**48
"""Integers below this are taken for counts and compared exactly, so that one sample missing among
billions is found. Above, floats that are not counts may be integers by chance."""
_MAX_LABELS = 400  # characters


def differences(recorded: Answer, found: Answer) -> tuple[str, ...]:
    """Return how an answer differs from the recorded one, as one printable message per series."""
    if recorded.type != found.type:
        return (f"the answer is a {found.type}, the source returned a {recorded.type}",)
    return tuple(_differences(_by_labels(recorded), _by_labels(found)))


def _by_labels(answer: Answer) -> Mapping[str, Sample]:
    return {json.dumps(s.labels, sort_keys=True): s for s in answer.series}


def _differences(recorded: Mapping[str, Sample], found: Mapping[str, Sample]) -> Iterator[str]:
    for key, before in recorded.items():
        now = found.get(key)
        if now is None:
            yield f"{_labels(before)} is missing, the source had {_number(before)}"
        elif not _same_sample(before, now):
            yield f"{_labels(now)} is {_number(now)}, the source had {_number(before)}"
    for key, now in found.items():
        if key not in recorded:
            yield f"{_labels(now)} is {_number(now)}, the source did not have this series"


def _same_sample(one: Sample, other: Sample) -> bool:
    if one.histogram is not None and other.histogram is not None:
        return _same_histogram(one.histogram, other.histogram)
    if one.value is None or other.value is None:
        return False
    return _same(one.value, other.value)


def _same_histogram(one: Histogram, other: Histogram) -> bool:
    return (
        _same(one.count, other.count)
        and _same(one.sum, other.sum)
        and len(one.buckets) == len(other.buckets)
        and all(
            a.rule == b.rule
            and _same(a.lower, b.lower)
            and _same(a.upper, b.upper)
            and _same(a.count, b.count)
            for a, b in zip(one.buckets, other.buckets, strict=True)
        )
    )


def _same(one: str, other: str) -> bool:
    a, b = float(one), float(other)
    if a == b or (math.isnan(a) and math.isnan(b)):
        return True
    if _is_count(a) and _is_count(b):
        return False
    return math.isclose(a, b, rel_tol=RELATIVE_TOLERANCE)


def _is_count(number: float) -> bool:
    return number.is_integer() and abs(number) < _COUNTS_BELOW


def _labels(sample: Sample) -> str:
    # Only ASCII: label values can be any text, and this is printed to terminals.
    pairs = (f"{json.dumps(k)[1:-1]}={json.dumps(v)}" for k, v in sorted(sample.labels.items()))
    text = "{" + ", ".join(pairs) + "}"
    text = text.replace("\x7f", "?")
    return text if len(text) <= _MAX_LABELS else text[:_MAX_LABELS] + "..."


def _number(sample: Sample) -> str:
    if sample.histogram is None:
        return str(sample.value)
    h = sample.histogram
    return f"a histogram of {h.count} observations in {len(h.buckets)} buckets, sum {h.sum}"
