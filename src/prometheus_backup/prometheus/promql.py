"""What must be known of a PromQL expression without evaluating it: durations, and how far back it
reads. https://prometheus.io/docs/prometheus/latest/querying/basics/
"""

import re
from datetime import timedelta

DEFAULT_LOOKBACK = timedelta(minutes=5)
"""How old a sample an instant selector takes: --query.lookback-delta, where it is not set."""

_UNITS = {
    "ms": timedelta(milliseconds=1),
    "s": timedelta(seconds=1),
    "m": timedelta(minutes=1),
    "h": timedelta(hours=1),
    "d": timedelta(days=1),
    "w": timedelta(weeks=1),
    "y": timedelta(days=365),
}
_PART = re.compile(r"(\d+)(ms|[smhdwy])")
_DURATION = re.compile(r"(?:\d+(?:ms|[smhdwy]))+")
_TEXTS = re.compile(r'"(?:\\.|[^"\\])*"|\'(?:\\.|[^\'\\])*\'|`[^`]*`|#.*')
_RANGE = re.compile(r"\[([^\]]*)\]")
_OFFSET = re.compile(r"\boffset\s+(\S+)", re.IGNORECASE)
_LONGEST = 10  # digits of a number; more would overflow a timedelta


def parse_duration(text: str) -> timedelta | None:
    """Return the length of a duration such as `5m` or `1h30m`; None for anything else."""
    text = text.strip()
    parts = _PART.findall(text) if _DURATION.fullmatch(text) else []
    if not parts or any(len(number) > _LONGEST for number, _ in parts):
        return None
    try:
        return sum((int(number) * _UNITS[unit] for number, unit in parts), timedelta())
    except OverflowError:
        return None


def furthest_lookback(query: str, *, lookback: timedelta = DEFAULT_LOOKBACK) -> timedelta | None:
    """Return how far before its instant a query reads at most; None where that cannot be told.

    Ranges and offsets of nested expressions add up, so all that are there are added.
    """
    code = _TEXTS.sub('""', query)
    if "@" in code:  # another instant, wherever it is
        return None
    written = [part for r in _RANGE.findall(code) for part in r.split(":") if part]
    written += [offset.rstrip(")") for offset in _OFFSET.findall(code)]
    lengths = [_length(text.strip()) for text in written]
    total = lookback
    for length in lengths:
        if length is None:
            return None
        total += length
    return total


def _length(text: str) -> timedelta | None:
    # Prometheus 3 takes a number without a unit for seconds.
    return parse_duration(f"{text}s" if text.isdigit() else text)
