"""Free the room in the repository that dead runs use, before this run needs it.

Otherwise a run that was killed on a small volume would make every later one fail: each would copy
what the dead run left, and sweep it only after the commit.
"""

from collections.abc import Callable, Iterable, Sequence
from functools import partial

from prometheus_backup.backup.plan import BackupPlan
from prometheus_backup.errors import BackupToolError
from prometheus_backup.events import Listener, Warned
from prometheus_backup.model import Layout
from prometheus_backup.repository.entry import BackupEntry, State
from prometheus_backup.repository.layout import claim_key
from prometheus_backup.repository.repository import Repository
from prometheus_backup.stores.base import delete_in_order


class Salvage:
    """The folders of runs that are certainly dead: by the lock, or because they said so.

    A run that is only taken for dead because of its age is not among them.
    """

    def __init__(
        self,
        repository: Repository,
        entries: Iterable[BackupEntry],
        dead_runs: frozenset[str],
        listener: Listener,
    ) -> None:
        self._repository = repository
        self._listener = listener
        self._killed = bool(dead_runs)
        self._dead: Sequence[BackupEntry] = [
            e
            for e in entries
            if e.state is State.INCOMPLETE
            and e.incomplete
            and (e.incomplete.state == "abandoned" or e.incomplete.run_id in dead_runs)
        ]

    @property
    def keys(self) -> frozenset[str]:
        """Return the keys of all files in these folders."""
        return frozenset(key for e in self._dead for key in self._keys_of(e.backup_id))

    def remove_unfinished(self) -> None:
        """Remove what puts of killed runs left and listings hide."""
        if self._killed:
            self._attempt(self._repository.remove_unfinished)

    def free(self, plan: BackupPlan) -> None:
        """Delete all files of dead runs that the plan does not copy."""
        needed = {f.known.key for f in plan.copies if f.known is not None}
        for entry in self._dead:
            kept = needed | {claim_key(entry.backup_id, layout) for layout in Layout}
            self._attempt(partial(self._delete_others, entry.backup_id, kept))

    def sweep(self, *, run_id: str) -> frozenset[str]:
        """Delete the folders, with what could still be copied; return their names."""
        for entry in self._dead:
            self._attempt(partial(self._repository.sweep, entry.backup_id, run_id=run_id))
            self._attempt(partial(self._delete_others, entry.backup_id, set()))
        swept = frozenset(e.backup_id for e in self._dead)
        self._dead = []
        return swept

    def _delete_others(self, backup_id: str, kept: set[str]) -> None:
        keys = [key for key in self._keys_of(backup_id) if key not in kept]
        delete_in_order(self._repository.store, keys)

    def _keys_of(self, backup_id: str) -> Sequence[str]:
        """Return what a run wrote, in the archive only in folders that it did not finish.

        Nobody else writes into these or names them; others may name a finished one.
        """
        found = [o.key for o in self._repository.store.list(backup_id)]
        for folder in self._repository.archive.folders().values():
            if folder.keeper == backup_id and not folder.complete:
                found += folder.objects
        return found

    def _attempt(self, action: Callable[[], object]) -> None:
        try:
            action()
        except BackupToolError as error:  # retention tries again after the commit
            self._listener(Warned(f"cannot remove leftovers of a dead run: {error.message}"))
