"""What a drill brings back, what must then be loaded, and what can be asked; decided beforehand."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from prometheus_backup.model import Finding, Verdict, rfc3339
from prometheus_backup.prometheus.promql import DEFAULT_LOOKBACK, furthest_lookback, parse_duration
from prometheus_backup.repository.fingerprint import Fingerprint
from prometheus_backup.repository.manifest import Block, Manifest
from prometheus_backup.repository.verification import TimeRange


@dataclass(frozen=True, slots=True)
class Compared:
    """How one fingerprint came out: `detail` says what differs, or why it is inconclusive.

    `series` is the number of series of the recorded answer, 0 where there is none.
    """

    query: str
    at: datetime | None
    verdict: Verdict
    detail: str = ""
    series: int = 0


@dataclass(frozen=True, slots=True)
class DrillPlan:
    """The blocks to bring, newest first; which of them Prometheus keeps loaded; the questions.

    `part` is the range that was asked for, if one was; `unasked` the fingerprints that would prove
    nothing here.
    """

    backup_id: str
    blocks: tuple[Block, ...]
    loaded: frozenset[str]
    ask: tuple[Fingerprint, ...]
    unasked: tuple[Compared, ...]
    part: TimeRange | None

    @property
    def size(self) -> int:
        """Return the bytes to bring."""
        return sum(b.size for b in self.blocks)

    @property
    def files(self) -> int:
        """Return the number of files to bring."""
        return sum(len(b.files) for b in self.blocks)


def plan_drill(
    manifest: Manifest, *, start: datetime | None = None, end: datetime | None = None
) -> DrillPlan:
    """Decide what a drill of a backup does; `start` and `end` (half open) make it smaller."""
    part = TimeRange(start=start, end=end) if start or end else None
    blocks = [b for b in manifest.blocks if _meets(b, start, end)]
    blocks.sort(key=lambda b: (b.max_time, b.ulid), reverse=True)
    # A block that another names as its parent is deleted when both are loaded (tsdb/db.go).
    superseded = {parent for b in blocks for parent in b.parents}
    lookback = parse_duration(manifest.prometheus.lookback) or DEFAULT_LOOKBACK
    ask, unasked = [], []
    for fingerprint in manifest.fingerprints:
        if cause := fingerprint.inconclusive or _outside(fingerprint, part, lookback):
            unasked.append(Compared(fingerprint.query, fingerprint.at, Verdict.INCONCLUSIVE, cause))
        else:
            ask.append(fingerprint)
    return DrillPlan(
        backup_id=manifest.backup_id,
        blocks=tuple(blocks),
        loaded=frozenset(b.ulid for b in blocks) - superseded,
        ask=tuple(ask),
        unasked=tuple(unasked),
        part=part,
    )


def judge(
    findings: Sequence[Finding], compared: Sequence[Compared], *, cause: str = ""
) -> tuple[Verdict, str]:
    """Return the verdict of a drill, and why it is inconclusive where it is.

    `cause` is why the drill did not get to its end, if it did not. To pass, every fingerprint must
    have been asked and be the same, and one at least must have an answer that is not empty.
    """
    if findings:
        return Verdict.FAIL, ""
    if cause:
        return Verdict.INCONCLUSIVE, cause
    open_ones = [c for c in compared if c.verdict is not Verdict.PASS]
    if not compared:
        cause = "the backup has no fingerprints: nothing can be asked that has a known answer"
    elif open_ones:
        cause = f"{len(open_ones)} of {len(compared)} fingerprints could not be compared"
    elif not any(c.series for c in compared):
        cause = "every recorded answer is empty, and an empty Prometheus would give the same"
    return (Verdict.INCONCLUSIVE, cause) if cause else (Verdict.PASS, "")


def same_language(source: str, drilled: str) -> bool:
    """Tell whether two versions of Prometheus mean the same by a query.

    Until 2.x a range holds the sample at its very beginning; from 3.0 on it does not.
    """
    return source.partition(".")[0] == drilled.partition(".")[0]


def _meets(block: Block, start: datetime | None, end: datetime | None) -> bool:
    return (start is None or block.max_time > start) and (end is None or block.min_time < end)


def _outside(fingerprint: Fingerprint, part: TimeRange | None, lookback: timedelta) -> str:
    """Say why a fingerprint cannot be asked of a part, or nothing where it can."""
    at = fingerprint.at
    if part is None or at is None:
        return ""
    if part.end is not None and at >= part.end:
        return f"its instant, {rfc3339(at)}, is after what was drilled"
    if part.start is None:
        return ""
    back = furthest_lookback(fingerprint.query, lookback=lookback)
    if back is None:
        return "how far back it reads cannot be told, and only a part was drilled"
    try:
        needed = at - back
    except OverflowError:
        return "it reads back further than what was drilled"
    if needed < part.start:
        return f"it reads from {rfc3339(needed)} on, before what was drilled"
    return ""
