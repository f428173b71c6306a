"""The calendar: what happened each day, by state and by the age of the verification. Pure."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from enum import Enum
from itertools import groupby

from prometheus_backup.model import counted
from prometheus_backup.repository.entry import BackupEntry, State
from prometheus_backup.timeline.plan import MissingBackup

_LONG_AGO = timedelta(days=365)
_AHEAD = timedelta(days=31)
MOST_MONTHS = 48
"""Months that are drawn; the table lists older backups."""


class Mark(Enum):
    """What a day shows: letter, class in the style sheet, word, meaning. The worst is last."""

    NONE = ("", "none", "no backup", "no backup")
    RECENT = ("G", "recent", "good", "good: made or read whole within the rotation of verify")
    STALE = ("s", "stale", "stale", "stale: good, but read whole longer ago")
    OLD = ("o", "old", "old", "good, but never verified, or not read whole for a year")
    UNFINISHED = ("I", "unfinished", "incomplete", "incomplete, or of another program")
    DEGRADED = ("D", "degraded", "degraded", "degraded: blocks of the source are missing")
    UNREADABLE = ("U", "unreadable", "unreadable", "cannot be read")
    MISSING = ("M", "missing", "missing", "due, and missing")
    FAILED = ("F", "failed", "failed", "failed verification")

    @property
    def letter(self) -> str:
        """Return the letter that stands beside the colour."""
        return self.value[0]

    @property
    def style(self) -> str:
        """Return its class in the style sheet."""
        return self.value[1]

    @property
    def word(self) -> str:
        """Return the word for it."""
        return self.value[2]

    @property
    def meaning(self) -> str:
        """Return what it means."""
        return self.value[3]


_ORDER = list(Mark)


@dataclass(frozen=True, slots=True)
class Day:
    """A day of the calendar, and what there is to say about it."""

    day: date
    mark: Mark
    text: str


@dataclass(frozen=True, slots=True)
class Month:
    """A month: `blank` days of its first week belong to the month before."""

    first: date
    blank: int
    days: tuple[Day, ...]

    @property
    def empty(self) -> bool:
        """Return whether nothing happened and nothing was due."""
        return all(d.mark is Mark.NONE for d in self.days)

    @property
    def weeks(self) -> tuple[tuple[Day | None, ...], ...]:
        """Return the days by week, Monday first; None is a day of another month."""
        cells: list[Day | None] = [*(None for _ in range(self.blank)), *self.days]
        cells += [None] * (-len(cells) % 7)
        return tuple(tuple(cells[n : n + 7]) for n in range(0, len(cells), 7))


def months(
    entries: Sequence[BackupEntry],
    missing: Iterable[MissingBackup],
    *,
    rotation: timedelta,
    now: datetime,
) -> tuple[Month, ...]:
    """Return the months from the oldest backup until now, the newest first."""
    days: dict[date, list[Mark]] = {}
    for entry in entries:
        if entry.time - now > _AHEAD:  # a clock was wrong: no calendar reaches that far
            continue
        mark = mark_of(entry, rotation=rotation, now=now)
        days.setdefault(entry.time.date(), []).append(mark)
    due = {m.due.astimezone(UTC).date() for m in missing if m.period == "backup"}
    if not days:
        return ()
    newest = max(now.date(), *days)
    oldest = min(days)
    months = (newest.year - oldest.year) * 12 + newest.month - oldest.month + 1
    firsts = [_months_before(newest, n) for n in range(min(months, MOST_MONTHS))]
    return tuple(_month(first, days, due) for first in firsts)


def runs(shown: Sequence[Month]) -> tuple[tuple[Month, ...], ...]:
    """Return these months one by one, but neighbours without anything to draw together."""
    grouped = groupby(enumerate(shown), key=lambda item: -1 if item[1].empty else item[0])
    return tuple(tuple(month for _, month in group) for _, group in grouped)


def mark_of(entry: BackupEntry, *, rotation: timedelta, now: datetime) -> Mark:
    """Return the mark of one backup."""
    if entry.header is None:
        unfinished = entry.state in (State.INCOMPLETE, State.DELETING, State.FOREIGN)
        return Mark.UNFINISHED if unfinished else Mark.UNREADABLE
    if entry.failure is not None:
        return Mark.FAILED
    if entry.header.degraded:
        return Mark.DEGRADED
    if not entry.is_stale(now=now, rotation=rotation):
        return Mark.RECENT if entry.verified else Mark.OLD
    read = entry.read_whole_at
    return Mark.STALE if read is not None and now - read <= _LONG_AGO else Mark.OLD


def _month(first: date, days: Mapping[date, Sequence[Mark]], due: set[date]) -> Month:
    following = (first + timedelta(days=31)).replace(day=1)
    dates = [first + timedelta(days=n) for n in range((following - first).days)]
    return Month(first, first.weekday(), tuple(_day(d, days.get(d, ()), d in due) for d in dates))


def _day(day: date, marks: Sequence[Mark], due: bool) -> Day:
    if not marks:
        mark = Mark.MISSING if due else Mark.NONE
        return Day(day, mark, mark.word)
    worst = max(marks, key=_ORDER.index)
    if len(marks) == 1:
        return Day(day, worst, worst.word)
    return Day(day, worst, f"{counted(len(marks), 'backup')}, the worst: {worst.word}")


def _months_before(day: date, count: int) -> date:
    month = day.year * 12 + day.month - 1 - count
    return date(month // 12, month % 12 + 1, 1)


def legend(shown: Iterable[Month]) -> Iterator[Mark]:
    """Yield the marks that these months show, the best first."""
    used = {d.mark for month in shown for d in month.days}
    yield from (mark for mark in Mark if mark in used and mark is not Mark.NONE)
