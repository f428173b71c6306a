"""How far a long step is, how fast, and how long it will take."""

from dataclasses import dataclass

from prometheus_backup.clock import Clock
from prometheus_backup.events import BytesMoved, LongStepBegan


@dataclass(slots=True)
class Pace:
    """Counts the bytes of a long step. Rates are averages since it began."""

    clock: Clock
    total: int = 0
    done: int = 0
    _transferred: int = 0
    _began: float = 0.0

    def begin(self, event: LongStepBegan) -> None:
        """Start counting from 0."""
        self.total, self.done, self._transferred = event.total, 0, 0
        self._began = self.clock.monotonic()

    def add(self, event: BytesMoved) -> None:
        """Count bytes."""
        self.done += event.count
        self._transferred += event.count if event.transferred else 0

    @property
    def rate(self) -> float:
        """Return the bytes per second that this machine transferred; copies do not count."""
        return max(self._transferred, 0) / self._seconds

    @property
    def seconds_left(self) -> int | None:
        """Return the seconds until the step ends at this pace; None if nothing is done."""
        if self.done <= 0:
            return None
        return round(max(self.total - self.done, 0) * self._seconds / self.done)

    @property
    def _seconds(self) -> float:
        return max(self.clock.monotonic() - self._began, 0.001)
