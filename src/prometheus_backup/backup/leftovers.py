"""What runs leave in a data directory, snapshots and intents: ours, and those of dead runs."""

from collections.abc import Sequence
from pathlib import Path

from prometheus_backup.backup.snapshot import remove_lost_snapshot
from prometheus_backup.datadir.lock import HostLock, Intent
from prometheus_backup.events import Listener


class Leftovers:
    """The intents beside the host lock, and the snapshots that they speak of.

    An intent is forgotten only when nothing is left of its run, here or in the repository: until
    then it is the proof that the run is dead.
    """

    def __init__(self, lock: HostLock, data_dir: Path, *, run_id: str, listener: Listener) -> None:
        self.lock = lock
        self._data_dir = data_dir
        self._run_id = run_id
        self._listener = listener
        self._dead = lock.dead_intents(own_run_id=run_id)
        self._stuck: set[str] = set()

    @property
    def dead_runs(self) -> frozenset[str]:
        """Return the ids of the runs that the lock proves dead."""
        return frozenset(intent.run_id for intent in self._dead)

    def remove_dead_snapshots(self) -> None:
        """Remove the snapshots of dead runs, before anything else can go wrong."""
        for intent in _by_certainty(self._dead):
            if not remove_lost_snapshot(self._data_dir, intent, listener=self._listener):
                self._stuck.add(intent.run_id)

    def clean_up(self, *, settled: bool, pending: bool, committed: bool) -> tuple[str, ...]:
        """Remove our own snapshot, and forget what is done with; return what is left, in words.

        `settled`: the repository knows how our run ended. `pending`: Prometheus may still complete
        our snapshot, so a later run must look again. `committed`: leftovers of dead runs in the
        repository were swept.
        """
        left = [f"the snapshot of the dead run {i} could not be removed" for i in self._stuck]
        mine = self.lock.recorded
        gone = True
        if mine is not None and mine.asked_at:
            gone = remove_lost_snapshot(self._data_dir, mine, listener=self._listener)
            if not gone:
                left.append(f"the snapshot {mine.snapshot} could not be removed")
        if gone and settled and not pending:
            self.lock.forget(self._run_id)
        for intent in self._dead:
            if intent.run_id not in self._stuck and (committed or not intent.repository):
                self.lock.forget(intent.run_id)
        return tuple(left)


def _by_certainty(intents: Sequence[Intent]) -> Sequence[Intent]:
    """Return those first that name their snapshot, then the latest, which knew the others'.

    So each one's snapshot is gone before it could be taken for that of the next.
    """
    latest_first = sorted(intents, key=lambda i: (i.asked_at, len(i.known)), reverse=True)
    return sorted(latest_first, key=lambda i: not i.snapshot)
