"""How long backups and the blocks of the archive are kept, over months and years. Pure.

Backups come at a fixed pace and are deleted as the real retention policy decides. In layout
`archive`, a block is kept while a backup names it or the history needs it.
"""

from bisect import bisect_left, bisect_right
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, time, timedelta
from itertools import pairwise
from typing import NamedTuple

from prometheus_backup.cost.compaction import SimulatedBlock
from prometheus_backup.model import ms_from_instant
from prometheus_backup.repository.entry import GRACE
from prometheus_backup.repository.layout import backup_id
from prometheus_backup.retention.history import HeldBlock, history
from prometheus_backup.retention.policy import Candidate, Policy, decide

NEVER_MS = 10**15
DAY = timedelta(days=1)
DAY_MS = DAY // timedelta(milliseconds=1)
_GRACE_MS = GRACE // timedelta(milliseconds=1)
"""How long a folder of the archive stays after it was marked."""


@dataclass(frozen=True, slots=True)
class BackupLife:
    """When a backup is made and when it is deleted, in milliseconds since 1970."""

    made_ms: int
    deleted_ms: int = NEVER_MS


class BlockLife(NamedTuple):
    """When a block comes into the archive and when it is deleted, in milliseconds since 1970."""

    block: SimulatedBlock
    kept_ms: int
    deleted_ms: int


@dataclass(frozen=True, slots=True)
class Pace:
    """How often a backup is made: every `gap`, the nightly one at two o'clock."""

    gap: timedelta = DAY

    @property
    def per_day(self) -> int:
        """Return how many backups a day has; 1 if not every day has one."""
        return max(round(DAY / self.gap), 1)

    @property
    def mean_per_day(self) -> float:
        """Return how many backups a day has on average."""
        return self.per_day / max(round(self.gap / DAY), 1)

    def times(self, day: date, number: int) -> list[datetime]:
        """Return the times of the backups of a day, of which `number` days came before."""
        if number % max(round(self.gap / DAY), 1):
            return []
        step = DAY / self.per_day
        first = datetime.combine(day, time(), UTC) + timedelta(hours=2) % step
        return [first + n * step for n in range(self.per_day)]


def simulate_backups(
    policy: Policy,
    *,
    first: date,
    days: int,
    pace: Pace,
    stored: Iterable[Candidate] = (),
    sparse_days: int = 0,
) -> dict[str, BackupLife]:
    """Return the lives of stored backups and of those of the next days, by id, oldest first.

    Retention is applied once a day, after the first backup. Backups of a day that share their fate
    are decided on together. Of the first `sparse_days`, only backups that outlive RETENTION_ALL are
    simulated.
    """
    kept = {c.backup_id: c for c in sorted(stored, key=lambda c: c.time)}
    doubtful = not all(c.good for c in kept.values())
    lives = {c.backup_id: BackupLife(ms_from_instant(c.time)) for c in kept.values()}
    followed: dict[str, str] = {}
    young_ms, tiers = 0, policy
    if policy.all_for is not None:
        # Who is young is known from its age alone. So retention is asked about the tiers only.
        runs = max(-(-policy.all_for // pace.gap), 1)
        young_ms = runs * pace.gap // timedelta(milliseconds=1)
        tiers = replace(policy, all_for=timedelta.resolution)
    for number in range(days):
        today = first + number * DAY
        new = [Candidate(backup_id(t), t, good=True) for t in pace.times(today, number)]
        now = new[0].time if new else datetime.combine(today, time(2), UTC)
        lives |= {c.backup_id: BackupLife(ms_from_instant(c.time)) for c in new}
        asked = [*_at_risk(kept, today, policy, doubtful=doubtful), *new[:1]]
        for decision in decide(asked, today=today, policy=tiers, now=now):
            if not decision.keep:
                kept.pop(decision.backup_id)
                life = lives[decision.backup_id]
                ends = max(ms_from_instant(now), life.made_ms + young_ms)
                lives[decision.backup_id] = replace(life, deleted_ms=ends)
        chosen = _decided(policy, len(new))
        kept |= {new[i].backup_id: new[i] for i in chosen}
        for i in set(range(len(new))) - {*chosen}:
            if policy.all_for is not None and number < sparse_days:
                del lives[new[i].backup_id]
                continue
            name = new[i].backup_id
            if policy.all_for is None:
                followed[name] = new[chosen[1]].backup_id
            else:
                lives[name] = replace(lives[name], deleted_ms=lives[name].made_ms + young_ms)
    for name, other in followed.items():
        lives[name] = replace(lives[name], deleted_ms=lives[other].deleted_ms)
    return dict(sorted(lives.items(), key=lambda item: item[1].made_ms))


def _at_risk(
    kept: dict[str, Candidate], today: date, policy: Policy, *, doubtful: bool
) -> Iterable[Candidate]:
    """Return the backups that retention may delete, and the newest one.

    All others are daily ones. If all are good, they change nothing for older ones: the earliest
    backup of each month and year is among those.
    """
    if doubtful:
        return kept.values()
    aged = [c for c in kept.values() if (today - c.time.date()).days >= policy.daily]
    return aged if len(aged) == len(kept) else [*aged, kept[next(reversed(kept))]]


def _decided(policy: Policy, count: int) -> Sequence[int]:
    """Return which backups of a day retention must be asked about.

    With RETENTION_ALL, the tiers keep the last one, and the others go when its time is over.
    Otherwise the first or the last may be kept alone, and all between have the same fate.
    """
    if policy.all_for is not None:
        return [count - 1] if count else []
    return sorted({0, min(1, count - 1), count - 1}) if count else []


def archive_lives(
    backups: Sequence[tuple[BackupLife, Sequence[SimulatedBlock]]],
    *,
    runs: Sequence[int],
    history_for: timedelta,
    before: Mapping[SimulatedBlock, int] | None = None,
) -> list[BlockLife]:
    """Return the lives of the blocks of an archive. The backups are oldest first.

    `runs` are the times at which retention deletes, `before` blocks of deleted backups that are in
    the archive, each with the time of the last backup that named it.
    """
    archive = _Archive(runs, history_for)
    for block, named in (before or {}).items():
        archive.add((block,), BackupLife(named, named))
    for life, blocks in backups:
        archive.backup(life, blocks)
    return archive.lives()


class _Archive:
    """Collects who names which block and when, and then plays retention."""

    def __init__(self, runs: Sequence[int], history_for: timedelta) -> None:
        self._runs = runs
        self._history_ms = history_for // timedelta(milliseconds=1)
        self._kept: dict[SimulatedBlock, int] = {}
        self._named: dict[SimulatedBlock, int] = {}
        self._freed: dict[SimulatedBlock, int] = {}
        self._made: list[int] = []
        self._oldest: list[int] = []

    def backup(self, life: BackupLife, blocks: Sequence[SimulatedBlock]) -> None:
        """Note a backup of these blocks."""
        self._made.append(life.made_ms)
        self._oldest.append(min((b.begin_ms for b in blocks), default=0))
        self.add(blocks, life)

    def add(self, blocks: Iterable[SimulatedBlock], life: BackupLife) -> None:
        """Note that a backup names blocks."""
        for block in blocks:
            if block not in self._kept:
                self._kept[block] = life.made_ms
                self._freed[block] = life.deleted_ms
            elif life.deleted_ms > self._freed[block]:
                self._freed[block] = life.deleted_ms
            self._named[block] = life.made_ms

    def lives(self) -> list[BlockLife]:
        """Return when each block comes and goes."""
        dropped = self._with_history() if self._history_ms else self._freed
        return [
            BlockLife(block, kept, self._run_after(dropped[block] + _GRACE_MS))
            for block, kept in self._kept.items()
        ]

    def _run_from(self, at_ms: int) -> int:
        """Return the time of the first run that is not before this."""
        place = bisect_left(self._runs, at_ms)
        return self._runs[place] if place < len(self._runs) else NEVER_MS

    def _run_after(self, at_ms: int) -> int:
        return self._run_from(at_ms + 1)

    def _with_history(self) -> dict[SimulatedBlock, int]:
        """Return when each block is wanted by no backup and not by the history.

        A block that no later backup can cover is judged once, the others every day.
        """
        dropped = dict.fromkeys(self._kept, NEVER_MS)
        places = _Places(max((b.end_ms - b.begin_ms for b in self._kept), default=DAY_MS))
        pending: set[SimulatedBlock] = set()
        coming = deque(sorted(self._kept, key=self._kept.__getitem__))
        ends = [b for b, at in self._freed.items() if at < NEVER_MS]
        freed = deque(sorted(ends, key=self._freed.__getitem__))
        for before, now in pairwise([0, *self._days()]):
            while coming and self._kept[coming[0]] <= now:
                places.add(coming.popleft())
            while freed and self._freed[freed[0]] <= now:
                pending.add(freed.popleft())
            if not pending:
                continue
            newest, oldest = self._newest(now)
            # What was freed since yesterday was covered by newer blocks already, if it is now.
            since = {b: f if (f := self._freed[b]) > before else now for b in pending}
            settled = {b for b in pending if b.end_ms <= oldest}
            for block in settled:
                near = [b for b in places.overlapping(*block[:2]) if dropped[b] > now]
                end = self._last_held(block, near, newest) + self._history_ms
                dropped[block] = max(self._run_from(end), since[block])
            pending -= settled
            if pending:
                begin = min(b.begin_ms for b in pending)
                near = [b for b in places.overlapping(begin, now) if dropped[b] > now]
                lost = pending - self._history(near, newest, now - self._history_ms)
                dropped |= {b: since[b] for b in lost}
                pending -= lost
        return dropped

    def _newest(self, now_ms: int) -> tuple[int, int]:
        """Return when the newest archive backup was made, and where its oldest block begins."""
        place = bisect_right(self._made, now_ms) - 1
        return (self._made[place], self._oldest[place]) if place >= 0 else (NEVER_MS, NEVER_MS)

    def _days(self) -> Iterator[int]:
        """Yield the first run of each day."""
        last = 0
        for run in self._runs:
            if run // DAY_MS > last:
                last = run // DAY_MS
                yield run

    def _history(
        self, blocks: Sequence[SimulatedBlock], newest_ms: int, since_ms: int
    ) -> set[SimulatedBlock]:
        """Return which of these blocks the history holds after the backup `newest_ms`."""
        found = {str(n): b for n, b in enumerate(blocks)}
        held = (
            HeldBlock(n, b.begin_ms, b.end_ms, f"{min(self._named[b], newest_ms):015}")
            for n, b in found.items()
        )
        return {found[n] for n in history(held, since_ms=since_ms)}

    def _last_held(
        self, block: SimulatedBlock, near: Sequence[SimulatedBlock], newest_ms: int
    ) -> int:
        """Return the end of the last time for which the history holds a block."""
        edges = {edge for b in near for edge in (b.begin_ms, b.end_ms)}
        inside = sorted(e for e in edges if block.begin_ms < e <= block.end_ms)
        for edge in reversed(inside):
            if block in self._history(near, newest_ms, edge - 1):
                return edge
        return 0


class _Places:
    """Finds blocks by time; they are at most `longest_ms` long."""

    def __init__(self, longest_ms: int) -> None:
        self._length = longest_ms
        self._blocks: dict[int, list[SimulatedBlock]] = {}

    def add(self, block: SimulatedBlock) -> None:
        self._blocks.setdefault(block.begin_ms // self._length, []).append(block)

    def overlapping(self, begin_ms: int, end_ms: int) -> Iterator[SimulatedBlock]:
        """Yield the blocks that have an instant of [begin, end)."""
        for place in range(begin_ms // self._length - 1, end_ms // self._length + 1):
            for block in self._blocks.get(place, ()):
                if block[1] > begin_ms and block[0] < end_ms:
                    yield block
