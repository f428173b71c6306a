"""A simulated Prometheus: blocks that are compacted and deleted, and their backups."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from prometheus_backup.clock import Clock
from prometheus_backup.model import instant_from_ms
from prometheus_backup.repository.manifest import Manifest
from prometheus_backup.repository.repository import Repository
from prometheus_backup.stores.base import ObjectStore
from tests.support.archives import archive_run

_HOUR = timedelta(hours=1)
_RANGES = (2, 6, 18)
_CROCKFORD = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"


@dataclass(frozen=True, slots=True)
class _SimulatedBlock:
    ulid: str
    begin: datetime
    end: datetime


class SimulatedSource:
    """Has one sample an hour; every two hours a block, compacted to 6 and 18 hours."""

    def __init__(self, store: ObjectStore, clock: Clock, *, retention: timedelta) -> None:
        self._store = store
        self._clock = clock
        self._retention = retention
        self._count = 0
        self._blocks: list[_SimulatedBlock] = []
        self._began = self._cut = clock.now().replace(hour=0) - timedelta(days=1)
        self._previous: Manifest | None = None
        self._lost: list[tuple[datetime, datetime]] = []
        self.backed_up_at = clock.now()
        self.advance()

    def begin_again(self) -> None:
        """Lose all data, as a new Prometheus does, also what was not backed up yet."""
        self._lost.append((self.backed_up_at, self._clock.now()))
        self._blocks = []
        self._began = self._cut = self._clock.now().replace(minute=0, second=0, microsecond=0)

    def advance(self) -> None:
        """Cut the head into blocks up to now, compact, and delete what is too old."""
        now = self._clock.now()
        while self._cut + 3 * _HOUR <= now:
            self._add(self._cut, self._cut + 2 * _HOUR)
            self._cut += 2 * _HOUR
        for hours in _RANGES[1:]:
            self._compact(timedelta(hours=hours))
        self._blocks = [b for b in self._blocks if b.end > now - self._retention]

    def backup(self, night: int) -> None:
        """Back up all blocks, and the head as one more."""
        now = self._clock.now()
        head = _SimulatedBlock(self._ulid(), self._cut, now)
        contents = {
            b.ulid: {
                "index": f"{b.begin.isoformat()} {b.end.isoformat()}".encode(),
                "meta.json": b"{}",
            }
            for b in [*self._blocks, head]
        }
        times = {b.ulid: (b.begin, b.end) for b in [*self._blocks, head]}
        made = archive_run(
            self._store,
            self._clock,
            run_id=f"night {night}",
            contents=contents,
            previous=self._previous,
            times=times,
        )
        self._previous = Repository(self._store, clock=self._clock).manifest(made)
        self.backed_up_at = now

    def require_all_samples(self, manifest: Manifest, since: datetime) -> None:
        """Assert that the blocks cover every instant from `since` to the last backup."""
        spans = sorted(
            (instant_from_ms(b.times_ms[0]), instant_from_ms(b.times_ms[1]))
            for b in manifest.blocks
        )
        spans = sorted([*spans, *self._lost])
        covered = since
        for begin, end in spans:
            if begin > covered:
                assert begin - covered <= _HOUR, f"nothing from {covered} to {begin}"
            covered = max(covered, end)
        assert covered >= self.backed_up_at

    def _add(self, begin: datetime, end: datetime) -> None:
        self._blocks.append(_SimulatedBlock(self._ulid(), begin, end))

    def _compact(self, length: timedelta) -> None:
        """Replace the blocks of each complete range by one, unless it is the newest."""
        groups: dict[int, list[_SimulatedBlock]] = {}
        for block in self._blocks:
            groups.setdefault(int(block.begin.timestamp() // length.total_seconds()), []).append(
                block
            )
        newest = max(groups, default=0)
        for number, members in groups.items():
            if number != newest and len(members) > 1:
                self._blocks = [b for b in self._blocks if b not in members]
                self._add(min(b.begin for b in members), max(b.end for b in members))

    def _ulid(self) -> str:
        self._count += 1
        value, text = self._count, ""
        for _ in range(10):
            value, digit = divmod(value, 32)
            text = _CROCKFORD[digit] + text
        return "01JJ5W0B8ZC6X3M1" + text
