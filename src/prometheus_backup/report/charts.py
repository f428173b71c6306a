"""Coordinates of the charts, in percent of their width and height. Pure.

Percentages keep text and lines at their size on every screen; a scaled picture would not.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from prometheus_backup.spans import Span, clip
from prometheus_backup.timeline.plan import Timeline

_THINNEST = 0.3
"""Percent of the width: anything thinner could not be seen."""
_MOST_BARS = 150
_TICKS = 5


@dataclass(frozen=True, slots=True)
class Bar:
    """A rectangle, from `x` and `y` (0 is the top), in percent; `kind` is its class."""

    kind: str
    x: float
    width: float
    y: float = 0.0
    height: float = 100.0


@dataclass(frozen=True, slots=True)
class Tick:
    """An instant of the axis, in percent of the width."""

    x: float
    at: datetime


def timeline_bars(timeline: Timeline) -> tuple[Bar, ...]:
    """Return what can be recovered, what retention takes away soon, and the holes."""
    window = timeline.window
    soon = [s for r in timeline.removals for s in r.lost]
    ranges = [("covered", s) for s in timeline.covered]
    ranges += [("hole", s) for s in timeline.holes]
    ranges += [("soon", s) for s in clip(soon, window)]
    return tuple(_bar(kind, span, window) for kind, span in ranges)


def ticks(window: Span) -> tuple[Tick, ...]:
    """Return some instants of the window, at equal distances and away from its edges."""
    step = window.length / _TICKS
    return tuple(
        Tick(100 * (n + 0.5) / _TICKS, window.start + (n + 0.5) * step) for n in range(_TICKS)
    )


def size_bars(sizes: Sequence[tuple[datetime, int]]) -> tuple[Bar, ...]:
    """Return a bar for each of these sizes, or the largest of several; oldest first."""
    if not sizes:
        return ()
    start, end = sizes[0][0], sizes[-1][0]
    length = max(end - start, timedelta(days=1))
    width = 100 / min(_MOST_BARS, max(len(sizes), 2))
    largest: dict[int, int] = {}
    for at, size in sizes:
        place = round((at - start) / length * (100 - width) / width)
        largest[place] = max(size, largest.get(place, 0))
    return upright(largest, width=width)


def upright(values: "dict[int, int] | dict[int, float]", *, width: float) -> tuple[Bar, ...]:
    """Return bars that stand on the bottom: value by place, counted from the left."""
    most = max(values.values(), default=0) or 1
    return tuple(
        Bar("size", place * width, width * 0.8, 100 - 100 * value / most, 100 * value / most)
        for place, value in sorted(values.items())
    )


def monthly_bars(values: Iterable[float]) -> tuple[Bar, ...]:
    """Return a bar for each month."""
    by_place = dict(enumerate(values))
    return upright(by_place, width=100 / max(len(by_place), 1))


def _bar(kind: str, span: Span, window: Span) -> Bar:
    scale = 100 / (window.length / timedelta(seconds=1) or 1)
    x = (span.start - window.start).total_seconds() * scale
    width = max(span.length.total_seconds() * scale, _THINNEST)
    return Bar(kind, min(x, 100 - width), width)
