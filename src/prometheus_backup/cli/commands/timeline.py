"""`timeline`: which sample times can be recovered, and what is missing."""

import shutil
import sys
from collections.abc import Iterable, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING

from prometheus_backup.cli.command import command, option
from prometheus_backup.cli.context import CommandContext
from prometheus_backup.cli.output import Output
from prometheus_backup.cli.render import Document, Row, day, second
from prometheus_backup.cli.tables import Column, table
from prometheus_backup.errors import UsageError
from prometheus_backup.model import counted, rfc3339
from prometheus_backup.spans import Span, clip

if TYPE_CHECKING:
    from prometheus_backup.timeline.plan import Timeline

_FULL, _PART, _NONE = "#", "+", "."


@option("--to", "end", metavar="TIME", help="End of the time range (default: now).")
@option("--from", "start", metavar="TIME", help="Start of the time range (2025-01-22, -90d).")
@command("repository", "retention", "monitoring")
def timeline(context: CommandContext, output: Output, *, start: str | None, end: str | None) -> int:
    """Show which sample times can be recovered, the holes, and missing backups."""
    from prometheus_backup.retention.archive import history_spans
    from prometheus_backup.timeline.plan import coverages_of, plan_timeline

    policy, interval, now = context.policy(), context.interval, context.clock.now()
    repository = context.repository()
    view = repository.archive.view()
    entries = repository.entries(view)
    backups, history = coverages_of(entries), history_spans(view.folders, entries)
    begin, until = context.instant(start), context.instant(end)
    window = None
    if begin is not None or until is not None:
        spans = [*history, *(s for c in backups for s in c.spans)]
        oldest = min((s.start for s in spans), default=now)
        window = Span(begin or oldest, until or now)
        if window.start >= window.end:
            raise UsageError("cannot show the timeline: --to is not after --from")
    found = plan_timeline(
        backups, window=window, policy=policy, interval=interval, now=now, history=history
    )
    output.result(
        timeline_document(found, url=repository.url),
        tables=[
            table(RANGE_COLUMNS, range_rows(found)),
            *([table(MISSING_COLUMNS, missing_rows(found))] if found.missing else []),
            *([table(REMOVAL_COLUMNS, removal_rows(found))] if found.removals else []),
        ],
        lines=timeline_lines(found),
    )
    return 0


def timeline_document(found: "Timeline", *, url: str) -> Document:
    """Return what `timeline --json` prints."""
    return {
        "repository": url,
        **_times(found.window),
        "continuous": _times(found.continuous) if found.continuous else None,
        "stretches": [{**_times(s.span), "backups": list(s.backups)} for s in found.stretches],
        "holes": [{**_times(h), "seconds": h.length.total_seconds()} for h in found.holes],
        "missing": [{"period": m.period, "due": rfc3339(m.due)} for m in found.missing],
        "removals": [
            {
                "backup_id": r.backup_id,
                "day": r.day.isoformat(),
                "lost": [_times(span) for span in r.lost],
            }
            for r in found.removals
        ],
    }


def _times(span: Span) -> Document:
    return {"from": rfc3339(span.start), "to": rfc3339(span.end)}


RANGE_COLUMNS = (
    Column("samples"),
    Column("from (UTC)"),
    Column("to (UTC)"),
    Column("length"),
    Column("best backup"),
)
MISSING_COLUMNS = (Column("missing"), Column("due (UTC)"))
REMOVAL_COLUMNS = (Column("pruned on"), Column("backup"), Column("then lost for good", text=True))


def range_rows(found: "Timeline") -> Iterable[Row]:
    """Yield a row for each range without a hole and for each hole, oldest first."""
    ranges = [(s, "recoverable") for s in found.covered] + [(h, "MISSING") for h in found.holes]
    for span, state in sorted(ranges, key=lambda r: r[0].start):
        best = {s.backups[0] for s in found.stretches if s.span in clip([s.span], span)}
        names = min(best, default="") if len(best) < 2 else counted(len(best), "backup")
        yield state, day(span.start), day(span.end), _length(span.length), names


def missing_rows(found: "Timeline") -> Iterable[Row]:
    """Yield a row for each backup, month or year that was due and is missing."""
    for missing in found.missing:
        yield missing.period, day(missing.due)


def removal_rows(found: "Timeline") -> Iterable[Row]:
    """Yield a row for each backup that retention removes in the next 30 days."""
    for removal in found.removals:
        lost = "; ".join(f"{day(s.start)} to {day(s.end)}" for s in removal.lost)
        yield f"{removal.day}", removal.backup_id, lost or "nothing: other backups have it"


def timeline_lines(found: "Timeline") -> Iterable[str]:
    """Yield the bar, on a terminal, and what can be recovered without a hole."""
    if sys.stdout.isatty():
        width = max(shutil.get_terminal_size().columns - 1, 20)
        yield bar(found.covered, found.window, width)
        yield f"{day(found.window.start)}{day(found.window.end):>{width - 16}}"
        yield f"{_FULL} recoverable  {_PART} in part  {_NONE} missing"
    if found.continuous is None:
        yield "nothing can be recovered"
    else:
        yield (
            f"recoverable without a hole: {second(found.continuous.start)} to "
            f"{second(found.continuous.end)} (UTC)"
        )


def bar(covered: Sequence[Span], window: Span, width: int) -> str:
    """Return the window as `width` characters, each for its share of the time."""
    step = window.length / width
    cells = (Span(window.start + n * step, window.start + (n + 1) * step) for n in range(width))
    text = ""
    for cell in cells:
        held = sum((s.length for s in clip(covered, cell)), timedelta())
        text += _FULL if held >= cell.length * 0.999 else _PART if held else _NONE
    return text


def _length(length: timedelta) -> str:
    if length < timedelta(days=2):
        return f"{length / timedelta(hours=1):.1f} h"
    return f"{length / timedelta(days=1):.1f} d"
