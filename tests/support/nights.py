"""What both layouts store night by night, by the simulation on which estimates rest."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from itertools import accumulate

from prometheus_backup.cost.compaction import Compactor
from prometheus_backup.cost.simulation import DAY, DAY_MS, Pace, archive_lives, simulate_backups
from prometheus_backup.model import ms_from_instant
from prometheus_backup.retention.policy import Policy


@dataclass(frozen=True, slots=True)
class Nights:
    """What both layouts store at the end of each day, in hours of samples."""

    full: tuple[float, ...]
    archive: tuple[float, ...]

    @property
    def ratios(self) -> tuple[float, ...]:
        """Return the archive's share of what whole copies take, of each day."""
        return tuple(a / f for a, f in zip(self.archive, self.full, strict=True))


def simulate_nights(
    policy: Policy,
    *,
    retention: timedelta,
    days: int,
    gap: timedelta = DAY,
    index_hours: float = 0.0,
    first: date = date(2025, 1, 1),
) -> Nights:
    """Simulate an empty repository that gets backups of a Prometheus with this retention.

    `index_hours`: what of a block does not grow with its length, as hours of samples.
    """
    compactor = Compactor.of(retention)
    lives = simulate_backups(policy, first=first, days=days, pace=Pace(gap)).values()
    backups = [(life, compactor.snapshot(life.made_ms)) for life in lives]
    whole = (
        (life.made_ms, life.deleted_ms, sum(b.hours + index_hours for b in blocks))
        for life, blocks in backups
    )
    parts = (
        (life.kept_ms, life.deleted_ms, life.block.hours + index_hours)
        for life in archive_lives(
            backups, runs=[b.made_ms for b, _ in backups], history_for=policy.history
        )
    )
    begin = ms_from_instant(datetime.combine(first, time(), UTC)) + DAY_MS
    return Nights(_stored(whole, begin, days), _stored(parts, begin, days))


def _stored(lives: Iterable[tuple[int, int, float]], begin_ms: int, days: int) -> tuple[float, ...]:
    """Return what is stored at the end of each day."""
    changes = [0.0] * (days + 1)
    for kept, deleted, amount in lives:
        changes[min(max(-(-(kept - begin_ms) // DAY_MS), 0), days)] += amount
        changes[min(max(-(-(deleted - begin_ms) // DAY_MS), 0), days)] -= amount
    return tuple(accumulate(changes[:days]))
