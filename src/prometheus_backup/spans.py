"""Half-open time ranges, and what several of them cover together. Pure."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

MIN_HOLE = timedelta(minutes=5)
"""A shorter time without samples is not a hole: it is a few missed scrapes."""


@dataclass(frozen=True, slots=True)
class Span:
    """A half-open time range."""

    start: datetime
    end: datetime

    @property
    def length(self) -> timedelta:
        """Return the time between start and end."""
        return self.end - self.start


def merge(spans: Iterable[Span], *, max_gap: timedelta = timedelta(0)) -> tuple[Span, ...]:
    """Return the union as separate spans, oldest first; a gap of `max_gap` or less is closed."""
    merged: list[Span] = []
    for span in sorted(spans, key=lambda s: s.start):
        if span.end <= span.start:
            continue
        if merged and span.start - merged[-1].end <= max_gap:
            merged[-1] = Span(merged[-1].start, max(merged[-1].end, span.end))
        else:
            merged.append(span)
    return tuple(merged)


def subtract(spans: Iterable[Span], covered: Iterable[Span]) -> tuple[Span, ...]:
    """Return the parts of `spans` that `covered` does not contain."""
    others = merge(covered)
    return tuple(part for span in merge(spans) for part in _parts_outside(span, others))


def clip(spans: Iterable[Span], window: Span) -> tuple[Span, ...]:
    """Return the parts of `spans` within the window."""
    clipped = (Span(max(s.start, window.start), min(s.end, window.end)) for s in spans)
    return tuple(s for s in clipped if s.start < s.end)


def _parts_outside(span: Span, covered: Iterable[Span]) -> Iterator[Span]:
    start = span.start
    for other in covered:
        if other.end <= start or other.start >= span.end:
            continue
        if other.start > start:
            yield Span(start, other.start)
        start = max(start, other.end)
    if start < span.end:
        yield Span(start, span.end)
