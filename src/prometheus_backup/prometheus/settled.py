"""For which instant a source is asked, so that a snapshot is sure to hold what it answers from.

Now would not do: scrapes are in flight. And not all that Prometheus answers from is in a snapshot:
samples that came out of order stay in memory until the next compaction, and with `skip_head` all
that is in memory is left out.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta

from prometheus_backup.prometheus.promql import parse_duration

_SETTLED_AFTER = timedelta(minutes=5)
_JUST_BEFORE = timedelta(milliseconds=1)


@dataclass(frozen=True, slots=True)
class SettledInputs:
    """What decides it. `clock` is the source's; `out_of_order` its window for late samples, as a
    PromQL duration, None where it takes none.

    `persisted_until` is the end of the newest block on disk that holds no late samples alone;
    `head_from` where the samples in memory begin. None where there are none.
    """

    clock: datetime
    skip_head: bool
    out_of_order: str | None
    persisted_until: datetime | None
    head_from: datetime | None


def settled_instant(source: SettledInputs) -> datetime | None:
    """Return the instant to ask for; None where no answer is sure to be in the snapshot.

    Where late samples are taken, those in memory are younger than the last compaction less the
    window: only what is older than that is complete on disk.
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
