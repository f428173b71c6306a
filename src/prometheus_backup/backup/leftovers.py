"""Clean up the snapshots and intents that this run and dead runs left in a data directory."""

from collections.abc import Sequence
from pathlib import Path

from prometheus_backup.backup.places import remove_links
from prometheus_backup.backup.snapshot import remove_lost_snapshot
from prometheus_backup.datadir.lock import HostLock, Intent
from prometheus_backup.events import Listener


class Leftovers:
    """The intents next to the host lock, and the snapshots they refer to.

    An intent is removed only when nothing of its run is left in the data directory or the
    repository. Until then it proves that the run is dead.
    """

    def __init__(self, lock: HostLock, data_dir: Path, *, run_id: str, listener: Listener) -> None:
        self.lock = lock
        self._data_dir = data_dir
        self._run_id = run_id
        self._listener = listener
        self._dead = lock.dead_intents(own_run_id=run_id)
        self._stuck: set[str] = set()
        self._left: tuple[str, ...] = ()

    @property
    def dead_runs(self) -> frozenset[str]:
        """Return the ids of the runs that the lock proves dead."""
        return frozenset(intent.run_id for intent in self._dead)

    def remove_dead_snapshots(self) -> None:
        """Remove the snapshots and the linked blocks of dead runs."""
        if self.lock.held:
            self._left = remove_links(self._data_dir, listener=self._listener)
        for intent in _by_certainty(self._dead):
            if not remove_lost_snapshot(self._data_dir, intent, listener=self._listener):
                self._stuck.add(intent.run_id)

    def remove_own_snapshot(self) -> bool:
        """Remove the snapshot of our run; return whether nothing of it is left."""
        mine = self.lock.recorded
        if mine is None or not mine.asked_at:
            return True
        return remove_lost_snapshot(self._data_dir, mine, listener=self._listener)

    def forget(self, *, removed: bool, end_recorded: bool, committed: bool) -> tuple[str, ...]:
        """Remove the intents no longer needed; return a message per leftover.

        `removed`: nothing is left of our snapshot, and none will appear. `end_recorded`: how our
        run ended is in the repository. `committed`: the leftovers of dead runs in the repository
        were removed.
        """
        if removed and end_recorded:
            self.lock.forget(self._run_id)
        for intent in self._dead:
            if intent.run_id not in self._stuck and (committed or not intent.repository):
                self.lock.forget(intent.run_id)
        stuck = (f"the snapshot of the dead run {i} could not be removed" for i in self._stuck)
        return (*self._left, *stuck)


def _by_certainty(intents: Sequence[Intent]) -> Sequence[Intent]:
    """Return first the intents that name their snapshot, then the others, latest first.

    A later run listed the snapshots of earlier ones. In this order each snapshot is removed before
    it could be mistaken for that of another run.
    """
    latest_first = sorted(intents, key=lambda i: (i.asked_at, len(i.known)), reverse=True)
    return sorted(latest_first, key=lambda i: not i.snapshot)
