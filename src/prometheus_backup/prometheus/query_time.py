"""Choose an instant for fingerprint queries whose samples are all in the snapshot. Pure.

The current time does not work: scrapes are in progress. A snapshot also lacks some samples that
Prometheus has in memory: out-of-order samples until the next compaction, and with `skip_head`, all
of them.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta

from prometheus_backup.prometheus.promql import parse_duration

_SETTLED_AFTER = timedelta(minutes=5)
_JUST_BEFORE = timedelta(milliseconds=1)


@dataclass(frozen=True, slots=True)
class QueryTimeInputs:
    """The state of the source. `clock` is the time of its clock.

    `out_of_order` is its out-of-order time window, as a PromQL duration, None if disabled.
    `persisted_until` is the end of the newest block on disk, without blocks of only out-of-order
    samples. `head_from` is the time of the first sample in memory. Both are None if there are none.
    """

    clock: datetime
    skip_head: bool
    out_of_order: str | None
    persisted_until: datetime | None
    head_from: datetime | None


def safe_query_time(source: QueryTimeInputs) -> datetime | None:
    """Return the instant for the queries; None if no instant is certain to be in the snapshot.

    With an out-of-order window, blocks on disk are complete only up to the end of the newest block
    minus the window: later samples may still be in memory.
    """
    if not source.skip_head and source.out_of_order is None:
        return source.clock - _SETTLED_AFTER
    if source.persisted_until is None:
        return None
    on_disk = min(source.persisted_until, source.head_from or source.persisted_until)
    if source.out_of_order is not None:
        window = parse_duration(source.out_of_order)
        if window is None:
            return None
        on_disk -= window
    return on_disk - _JUST_BEFORE
