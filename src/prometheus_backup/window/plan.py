"""Plan a window into the past: which backup, which blocks, which address. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from urllib.parse import quote, urlencode

from prometheus_backup.errors import UsageError
from prometheus_backup.model import rfc3339
from prometheus_backup.prometheus.promql import format_duration
from prometheus_backup.prometheus.query_settings import QuerySettings, query_settings
from prometheus_backup.repository.entry import BackupEntry
from prometheus_backup.repository.manifest import Block, Manifest
from prometheus_backup.restore.placement import (
    BlockAction,
    Placement,
    PlacementPlanner,
    TimeRange,
)
from prometheus_backup.restore.target_blocks import TargetBlocks
from prometheus_backup.spans import Span, clip, merge

_BEGINNING = datetime.min.replace(tzinfo=UTC)
_END = datetime.max.replace(tzinfo=UTC)
_SECOND = timedelta(seconds=1)
_FIRST_QUERY = "up"
"""The query that the page shows at first: most servers have it, and it is cheap."""


@dataclass(frozen=True, slots=True)
class WindowPlan:
    """The blocks to fetch, newest first, and those of the time range that are left out.

    `span` is the part of the requested range that the blocks cover. `queries` and `version` are
    those of the source.
    """

    backup_id: str
    blocks: tuple[Block, ...]
    left_out: tuple[Placement, ...]
    span: Span
    queries: QuerySettings
    version: str

    @property
    def size(self) -> int:
        """Return the bytes to fetch."""
        return sum(b.size for b in self.blocks)

    @property
    def files(self) -> int:
        """Return the number of files to fetch."""
        return sum(len(b.files) for b in self.blocks)


def best_backup(
    entries: Sequence[BackupEntry], start: datetime | None, end: datetime | None
) -> BackupEntry | None:
    """Return the backup that has most of a time range, of equal ones the best; None without any.

    One with damaged blocks is chosen only if no other has samples of the range.
    """
    window = Span(start or _BEGINNING, end or _END)

    def quality(entry: BackupEntry) -> tuple[bool, timedelta, bool, datetime]:
        covered = merge(clip(entry.spans, window))
        length = sum((s.length for s in covered), timedelta())
        return entry.intact, length, entry.good, entry.time

    holding = [e for e in entries if clip(e.spans, window)]
    return max(holding, key=quality, default=None)


def plan_window(
    manifest: Manifest, start: datetime | None, end: datetime | None, *, version: str = ""
) -> WindowPlan:
    """Choose the blocks between two times. Raises UsageError if there is none.

    Blocks that a Prometheus of this version cannot read are left out; "" is unknown.
    """
    planner = PlacementPlanner(TargetBlocks(version=version), TimeRange(start, end))
    placements = planner.plan(manifest.blocks)
    blocks = tuple(p.block for p in placements if p.action is BlockAction.PLACE)
    newer = [p for p in placements if p.action is BlockAction.NEWER_CHUNKS]
    if not blocks and newer:
        raise UsageError(
            f"cannot open {manifest.backup_id}: block {newer[0].block.ulid}: {newer[0].reason}",
            hint="use a newer Prometheus (--prometheus-binary)",
        )
    if not blocks:
        raise UsageError(
            f"cannot open {manifest.backup_id}: it has no block in this time range",
            hint=_covers(manifest),
        )
    first, last = min(b.min_time for b in blocks), max(b.max_time for b in blocks)
    return WindowPlan(
        backup_id=manifest.backup_id,
        blocks=blocks,
        left_out=tuple(p for p in placements if p.action.left_out),
        span=Span(max(start or first, first), min(end or last, last)),
        queries=query_settings(manifest.prometheus),
        version=manifest.prometheus.version,
    )


def page_address(server: str, page: str, span: Span) -> str:
    """Return the address of the page for queries that shows this time range.

    The parameters are those of the page's own links: web/ui/mantine-ui/src/pages/query/
    urlStateEncoding.ts, which also reads those of 2.x.
    """
    end = span.end.astimezone(UTC)
    end += -timedelta(microseconds=end.microsecond) % _SECOND  # whole seconds, rounded up
    length = max(end - span.start, _SECOND)
    length += -length % _SECOND
    parameters = {
        "g0.expr": _FIRST_QUERY,
        "g0.tab": "0",
        "g0.range_input": format_duration(length),
        "g0.end_input": f"{end:%Y-%m-%d %H:%M:%S}",
    }
    return f"{server}{page}?{urlencode(parameters, quote_via=quote)}"


def _covers(manifest: Manifest) -> str:
    if manifest.min_time is None or manifest.max_time is None:
        return "the backup has no block at all"
    covered = f"the backup covers {rfc3339(manifest.min_time)} to {rfc3339(manifest.max_time)}"
    return f"{covered}; `prometheus-backup list --holding TIME` finds others"
