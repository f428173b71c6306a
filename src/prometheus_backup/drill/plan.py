"""Plan a drill: which blocks to restore, which must be loaded, and which queries to run. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from prometheus_backup.model import Finding, Verdict, rfc3339
from prometheus_backup.prometheus.encodings import strictest
from prometheus_backup.prometheus.promql import DEFAULT_LOOKBACK, furthest_lookback, parse_duration
from prometheus_backup.prometheus.versions import same_semantics
from prometheus_backup.repository.fingerprint import Fingerprint
from prometheus_backup.repository.manifest import Block, Manifest
from prometheus_backup.repository.verification import TimeRange
from prometheus_backup.restore import placement


@dataclass(frozen=True, slots=True)
class Comparison:
    """The result for one fingerprint. `detail` is what differs, or why it is inconclusive.

    `series` is the number of series in the recorded answer, 0 if there is none.
    """

    query: str
    at: datetime | None
    verdict: Verdict
    detail: str = ""
    series: int = 0


@dataclass(frozen=True, slots=True)
class DrillPlan:
    """The blocks to restore, newest first, and the queries to run.

    `loaded` are the ULIDs of the blocks that Prometheus must load. `skipped` are the fingerprints
    that cannot be checked. `part` is the requested time range, None for the whole backup.
    """

    backup_id: str
    blocks: tuple[Block, ...]
    loaded: frozenset[str]
    queries: tuple[Fingerprint, ...]
    skipped: tuple[Comparison, ...]
    part: TimeRange | None

    @property
    def size(self) -> int:
        """Return the size of the blocks to restore in bytes."""
        return sum(b.size for b in self.blocks)

    @property
    def files(self) -> int:
        """Return the number of files to restore."""
        return sum(len(b.files) for b in self.blocks)


def plan_drill(
    manifest: Manifest, *, start: datetime | None = None, end: datetime | None = None
) -> DrillPlan:
    """Plan the drill of a backup, or of its blocks between `start` and `end` (half-open)."""
    part = TimeRange(start=start, end=end) if start or end else None
    blocks = [b for b in manifest.blocks if placement.TimeRange(start, end).overlaps(b)]
    blocks.sort(key=lambda b: (b.max_time, b.ulid), reverse=True)
    # Prometheus deletes the parents of a block that it loads (tsdb/db.go reloadBlocks).
    superseded = {parent for b in blocks for parent in b.parents}
    lookback = parse_duration(manifest.prometheus.lookback) or DEFAULT_LOOKBACK
    queries, skipped = [], []
    for fingerprint in manifest.fingerprints:
        if cause := fingerprint.inconclusive or _outside(fingerprint, part, lookback):
            skipped.append(
                Comparison(fingerprint.query, fingerprint.at, Verdict.INCONCLUSIVE, cause)
            )
        else:
            queries.append(fingerprint)
    return DrillPlan(
        backup_id=manifest.backup_id,
        blocks=tuple(blocks),
        loaded=frozenset(b.ulid for b in blocks) - superseded,
        queries=tuple(queries),
        skipped=tuple(skipped),
        part=part,
    )


def judge(
    findings: Sequence[Finding], compared: Sequence[Comparison], *, cause: str = ""
) -> tuple[Verdict, str]:
    """Return the verdict of a drill and, if it is inconclusive, why.

    `cause` is why the drill could not be completed, if so. To pass, every fingerprint must match,
    and at least one recorded answer must not be empty.
    """
    if findings:
        return Verdict.FAIL, ""
    if cause:
        return Verdict.INCONCLUSIVE, cause
    unfinished = [c for c in compared if c.verdict is not Verdict.PASS]
    if not compared:
        cause = "the backup has no fingerprints, so there are no recorded answers to compare with"
    elif unfinished:
        cause = f"{len(unfinished)} of {len(compared)} fingerprints could not be compared"
    elif not any(c.series for c in compared):
        cause = "every recorded answer is empty, so an empty Prometheus would pass too"
    return (Verdict.INCONCLUSIVE, cause) if cause else (Verdict.PASS, "")


def unreadable(blocks: Sequence[Block], *, version: str) -> str:
    """Return why this version of Prometheus cannot read some blocks; "" if it may read all."""
    needed = strictest(placement.needed_release(b, version=version) for b in blocks)
    if needed is None or not needed.certain:
        return ""
    return f"the backup {needed}: the drill uses {version}"


def doubts(manifest: Manifest, *, version: str, unknown_features: Sequence[str]) -> tuple[str, ...]:
    """Return why a Prometheus of this version may answer otherwise than the source did.

    `unknown_features` are features of the source that it does not have. In 2.x a range includes a
    sample at its start; since 3.0 it does not.
    """
    found = []
    source = manifest.prometheus.version
    if not same_semantics(source, version):
        found.append(f"the source was Prometheus {source}, but the drill uses {version}")
    if unknown_features:
        names = ", ".join(unknown_features)
        found.append(f"the source had {names} enabled, which Prometheus {version} does not know")
    needed = strictest(placement.needed_release(b, version=version) for b in manifest.blocks)
    if needed is not None:
        found.append(f"the backup {needed}, but the drill uses {version}")
    return tuple(found)


def _outside(fingerprint: Fingerprint, part: TimeRange | None, lookback: timedelta) -> str:
    """Return why a fingerprint cannot be checked on a part of the backup, or "" if it can."""
    at = fingerprint.at
    if part is None or at is None:
        return ""
    if part.end is not None and at >= part.end:
        return f"its time, {rfc3339(at)}, is after the drilled range"
    if part.start is None:
        return ""
    back = furthest_lookback(fingerprint.query, lookback=lookback)
    if back is None:
        return "the range that it reads is unknown, and only a part was drilled"
    try:
        needed = at - back
    except OverflowError:
        return "it reads data from before the drilled range"
    if needed < part.start:
        return f"it reads data since {rfc3339(needed)}, before the drilled range"
    return ""
