"""Ask a running Prometheus for blocks that only this program cannot read.

The format may allow what this program takes for damage. If Prometheus answers from all that is said
to be faulty, the block is not touched.
"""

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta

from prometheus_backup.errors import SourceError
from prometheus_backup.heal.plan import BadBlock
from prometheus_backup.heal.scan import Scan
from prometheus_backup.prometheus.client import PrometheusClient
from prometheus_backup.tsdb.faults import Effect, Fault
from prometheus_backup.tsdb.verification import BlockReport

_DOUBTFUL = frozenset({Effect.FAILS_QUERIES, Effect.UNKNOWN})
"""With other effects, Prometheus may answer now and still fail at its next start."""
_INDEX = "index"
_ALL_SERIES = 'count({__name__=~".+"})'
_MAX_QUERIES = 20
_LIMIT = timedelta(seconds=30)
_MAX_BYTES = 1 << 20


def with_second_opinion(scan: Scan, client: PrometheusClient) -> Scan:
    """Return the scan, with the blocks marked that this Prometheus has loaded and answers from."""
    doubtful = [b for b in scan.bad if b.effect in _DOUBTFUL and b.span is not None]
    if not doubtful:
        return scan
    try:
        loaded = client.loaded_blocks()
    except SourceError:
        return scan
    read = {
        b.name
        for b in doubtful
        if (b.ulid in loaded if loaded is not None else _is_alone(b, scan))
        and _answers(client, b, scan.reports[b.name])
    }
    bad = tuple(replace(b, read_by_prometheus=b.name in read) for b in scan.bad)
    return Scan(scan.sound, bad, scan.reports)


def _is_alone(bad: BadBlock, scan: Scan) -> bool:
    """Return whether no other block has samples of its time, so that an answer is from it."""
    others = [(b.min_time, b.max_time) for b in scan.sound]
    others += [(b.span.start, b.span.end) for b in scan.bad if b.span and b.name != bad.name]
    span = bad.span
    return span is not None and not any(s < span.end and e > span.start for s, e in others)


def _answers(client: PrometheusClient, bad: BadBlock, report: BlockReport) -> bool:
    queries = _queries(bad, report)
    if bad.span is None or not queries:
        return False
    middle, last = bad.span.start + bad.span.length / 2, bad.span.end - timedelta(milliseconds=1)
    try:
        for query in queries:
            at = middle if query == _ALL_SERIES else last
            if not client.query(query, at=at, limit=_LIMIT, max_bytes=_MAX_BYTES).get("result"):
                return False
    except SourceError:
        return False
    return True


def _queries(bad: BadBlock, report: BlockReport) -> Sequence[str]:
    """Return queries that read everything that is said to be faulty; none if that is not possible.

    The entries of all series are read by a query of one instant. A chunk is read with its series.
    """
    faults = report.faults
    if len(faults) != sum(report.counts.values()) or bad.span is None:
        return ()
    milliseconds = bad.span.length // timedelta(milliseconds=1)
    found = {_query(fault, milliseconds) for fault in faults}
    return [] if "" in found or len(found) > _MAX_QUERIES else sorted(found)


def _query(fault: Fault, milliseconds: int) -> str:
    if fault.file == _INDEX:
        return _ALL_SERIES
    return f"count(count_over_time({fault.series}[{milliseconds}ms]))" if fault.series else ""
