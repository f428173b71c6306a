"""Parse PromQL durations, and find how far back an expression reads.

https://prometheus.io/docs/prometheus/latest/querying/basics/
"""

import re
from datetime import timedelta

DEFAULT_LOOKBACK = timedelta(minutes=5)
"""The default of --query.lookback-delta: the maximum age of a sample for an instant selector."""

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
_STRINGS_AND_COMMENTS = re.compile(r'"(?:\\.|[^"\\])*"|\'(?:\\.|[^\'\\])*\'|`[^`]*`|#.*')
_RANGE = re.compile(r"\[([^\]]*)\]")
_OFFSET = re.compile(r"\boffset\s+(\S+)", re.IGNORECASE)
_MAX_DIGITS = 10  # more would overflow a timedelta


def parse_duration(text: str) -> timedelta | None:
    """Return the length of a duration such as `5m` or `1h30m`; None for anything else."""
    text = text.strip()
    parts = _PART.findall(text) if _DURATION.fullmatch(text) else []
    if not parts or any(len(number) > _MAX_DIGITS for number, _ in parts):
        return None
    try:
        return sum((int(number) * _UNITS[unit] for number, unit in parts), timedelta())
    except OverflowError:
        return None


def format_duration(length: timedelta) -> str:
    """Return a length as Prometheus writes it, such as `1d` or `1h30m`; below a second, `0s`."""
    seconds, text = round(length.total_seconds()), ""
    for unit in ("d", "h", "m", "s"):
        count, seconds = divmod(seconds, round(_UNITS[unit].total_seconds()))
        text += f"{count}{unit}" if count else ""
    return text or "0s"


def furthest_lookback(query: str, *, lookback: timedelta = DEFAULT_LOOKBACK) -> timedelta | None:
    """Return an upper bound of how far back a query reads from its instant; None if unknown.

    Ranges and offsets of nested expressions add up, so this adds up all of them.
    """
    code = _STRINGS_AND_COMMENTS.sub('""', query)
    if "@" in code:  # reads at another instant
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
    # Prometheus 3 reads a number without a unit as seconds.
    return parse_duration(f"{text}s" if text.isdigit() else text)
