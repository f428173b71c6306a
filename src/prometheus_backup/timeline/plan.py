"""Compute the timeline of a repository from what its backups cover. Pure.

Times are those of samples, not of backups, unless a name says otherwise.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from itertools import pairwise

from prometheus_backup.repository.entry import BackupEntry, committed
from prometheus_backup.retention.policy import Candidate, Policy, decide
from prometheus_backup.retention.prune import candidate
from prometheus_backup.spans import MIN_HOLE, Span, clip, merge, subtract

HISTORY = "history"
"""Stands for the archive's history among the ids of backups."""
FORESIGHT = timedelta(days=30)
"""How far ahead the removals by retention are computed."""
LATE = 1.5
"""A backup is missing after this many intervals: a run may start late and take long."""


@dataclass(frozen=True, slots=True)
class Coverage:
    """What one backup covers. `spans` are those of its blocks; `time` is when it was made."""

    backup_id: str
    time: datetime
    good: bool
    spans: tuple[Span, ...]
    hold: str = ""
    held_until: date | None = None

    @property
    def candidate(self) -> Candidate:
        """Return the backup as retention sees it."""
        return Candidate(self.backup_id, self.time, self.good, self.hold, self.held_until)


def coverages_of(entries: Sequence[BackupEntry]) -> list[Coverage]:
    """Return what the committed backups cover: nothing, if it is not what was backed up."""
    return [
        Coverage(
            seen.backup_id,
            seen.time,
            seen.good,
            entry.spans if entry.intact else (),
            seen.hold,
            seen.held_until,
        )
        for entry in committed(entries)
        for seen in [candidate(entry)]
    ]


@dataclass(frozen=True, slots=True)
class Stretch:
    """A time range that can be recovered, and the backups that cover all of it, best first."""

    span: Span
    backups: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class MissingBackup:
    """A backup that was due and does not exist; `period` is backup, month or year."""

    period: str
    due: datetime


@dataclass(frozen=True, slots=True)
class Removal:
    """A backup that retention will delete, the day, and what can then no longer be recovered."""

    backup_id: str
    day: date
    lost: tuple[Span, ...]


@dataclass(frozen=True, slots=True)
class Timeline:
    """What can be recovered within `window`.

    `continuous` is the newest time range without a hole, of the whole repository; None if nothing
    can be recovered.
    """

    window: Span
    stretches: tuple[Stretch, ...]
    holes: tuple[Span, ...]
    missing: tuple[MissingBackup, ...]
    removals: tuple[Removal, ...]
    continuous: Span | None

    @property
    def covered(self) -> tuple[Span, ...]:
        """Return what can be recovered, without saying from which backups."""
        return merge((s.span for s in self.stretches), max_gap=MIN_HOLE)


def plan_timeline(
    coverages: Sequence[Coverage],
    *,
    window: Span | None,
    policy: Policy,
    interval: timedelta,
    now: datetime,
    history: Sequence[Span] = (),
) -> Timeline:
    """Compute the timeline. Without a window, it is from the oldest sample to now.

    `history` is what the archive holds beyond the backups.
    """
    spans = [s for c in coverages for s in c.spans]
    everything = merge([*spans, *history], max_gap=MIN_HOLE)
    if window is None:
        start = everything[0].start if everything else now
        window = Span(start, max(now, everything[-1].end) if everything else now)
    shown = clip(everything, window)
    return Timeline(
        window=window,
        stretches=tuple(_stretches([*coverages, *_as_coverage(history)], window)),
        holes=tuple(s for s in subtract([window], shown) if s.length >= MIN_HOLE),
        missing=tuple(_missing(coverages, policy=policy, interval=interval, now=now)),
        removals=_removals(coverages, history, policy=policy, today=now.date()),
        continuous=everything[-1] if everything else None,
    )


def _as_coverage(history: Sequence[Span]) -> Iterator[Coverage]:
    """Yield the history in the place of a backup that is worse than all others."""
    if history:
        oldest = datetime.min.replace(tzinfo=UTC)
        yield Coverage(HISTORY, oldest, good=False, spans=tuple(history))


def _stretches(coverages: Sequence[Coverage], window: Span) -> Iterator[Stretch]:
    """Yield the time between two boundaries of spans as one stretch, with who covers it."""
    best_first = sorted(coverages, key=lambda c: (c.good, c.time), reverse=True)
    rank = {c.backup_id: n for n, c in enumerate(best_first)}
    changes: list[tuple[datetime, int, str]] = []
    for coverage in coverages:
        for span in clip(merge(coverage.spans, max_gap=MIN_HOLE), window):
            changes += [(span.start, 1, coverage.backup_id), (span.end, -1, coverage.backup_id)]
    changes.sort()
    active: set[str] = set()
    for (at, change, backup), (until, _, _) in pairwise([*changes, (window.end, 0, "")]):
        if change > 0:
            active.add(backup)
        else:
            active.discard(backup)
        if active and until > at:
            yield Stretch(Span(at, until), tuple(sorted(active, key=rank.__getitem__)))


def _missing(
    coverages: Sequence[Coverage], *, policy: Policy, interval: timedelta, now: datetime
) -> Iterator[MissingBackup]:
    """Yield due backups: one per interval while every backup is kept, then per month and year."""
    # Backups that are dated in the future prove a wrong clock, and nothing about what is missing.
    times = sorted(c.time for c in coverages if c.time <= now)
    if not times:
        return
    yield from _missing_periods(times, policy=policy, now=now)
    since = _midnight(now.date() - timedelta(days=max(policy.daily, 1) - 1))
    for earlier, later in pairwise([*times, now]):
        due = earlier + interval
        if due < since:  # at once, also if it is centuries ago
            due += (since - due) // interval * interval
        while later - due > interval * (LATE - 1):
            if due >= since:
                yield MissingBackup("backup", due)
            due += interval


def _missing_periods(
    times: Sequence[datetime], *, policy: Policy, now: datetime
) -> Iterator[MissingBackup]:
    days = {t.date() for t in times}
    years = {d.year for d in days}
    for year in range(max(min(years), now.year - policy.yearly + 1), now.year):
        if year not in years:
            yield MissingBackup("year", datetime(year, 1, 1, tzinfo=UTC))
    months = {d.year * 12 + d.month - 1 for d in days}
    this_month = now.year * 12 + now.month - 1
    for month in range(max(min(months), this_month - policy.monthly + 1), this_month):
        if month not in months:
            yield MissingBackup("month", datetime(month // 12, month % 12 + 1, 1, tzinfo=UTC))


def _removals(
    coverages: Sequence[Coverage], history: Sequence[Span], *, policy: Policy, today: date
) -> tuple[Removal, ...]:
    """Return what retention deletes in the next days if no further backup is made."""
    left = {c.backup_id: c for c in coverages}
    removed: list[tuple[Coverage, date]] = []
    for ahead in range(FORESIGHT.days + 1):
        day = today + timedelta(days=ahead)
        decisions = decide([c.candidate for c in left.values()], today=day, policy=policy)
        removed += [(left.pop(d.backup_id), day) for d in decisions if not d.keep]
    spans = [s for c in left.values() for s in c.spans]
    kept = merge([*spans, *history], max_gap=MIN_HOLE)
    return tuple(Removal(c.backup_id, day, _long(subtract(c.spans, kept))) for c, day in removed)


def _long(spans: Iterable[Span]) -> tuple[Span, ...]:
    return tuple(s for s in merge(spans, max_gap=MIN_HOLE) if s.length >= MIN_HOLE)


def _midnight(day: date) -> datetime:
    return datetime.combine(day, time(0), tzinfo=UTC)
