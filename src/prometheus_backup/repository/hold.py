"""Holds in a store: `hold.json` next to a backup, and the guard. Format: docs/repository-format.md.

When to keep a backup because of its hold is decided in `retention`.
"""

from collections.abc import Mapping
from datetime import date

from prometheus_backup.errors import ObjectArchived, ObjectNotFound
from prometheus_backup.model import CONTROL, ObjectInfo
from prometheus_backup.repository.document import BackupId, Document, Instant, IsoDate, Text
from prometheus_backup.repository.layout import GUARD, HOLD, MANIFEST
from prometheus_backup.repository.manifest import MAX_DOCUMENT_SIZE, decode, encode
from prometheus_backup.stores.base import ObjectStore

_GUARD_KEY = f"{GUARD}/{MANIFEST}"
_GUARD = b"""{
  "format_version": 2,
  "note": "not a backup: keeps programs that do not know hold.json from deleting backups"
}
"""


class Hold(Document):
    """`hold.json`: its backup is kept until the end of the day `until` (UTC), None: for ever."""

    backup_id: BackupId
    reason: Text
    held_at: Instant
    until: IsoDate | None

    def in_force(self, today: date) -> bool:
        """Return whether the hold has not ended on this UTC day."""
        return self.until is None or today <= self.until

    @property
    def text(self) -> str:
        """Return until when and why, as text."""
        return hold_text(self.reason, self.until)


def hold_text(reason: str, until: date | None) -> str:
    """Return until when and why a backup is held, as text."""
    return f"held until {until}: {reason}" if until else f"held: {reason}"


class Holds:
    """The holds in a store. Store errors are passed on: a failed read never means absence.

    `guarded` is whether the last listing of the repository had the guard.
    """

    def __init__(self, store: ObjectStore) -> None:
        self._store = store
        self.guarded = False

    def of(self, backup_id: str, files: Mapping[str, ObjectInfo]) -> Hold | None:
        """Return the hold among the objects directly in a backup's folder, given by name.

        One that cannot be parsed holds for ever: nothing is deleted because of damage.
        """
        info = files.get(HOLD)
        if info is None:
            return None
        hold = None
        if info.size <= MAX_DOCUMENT_SIZE:
            try:
                hold = decode(Hold, self._store.get(info.key, limit=MAX_DOCUMENT_SIZE))
            except ObjectNotFound:  # released since the listing
                return None
        if hold is None or hold.backup_id != backup_id:
            reason = f"its {HOLD} cannot be read"
            return Hold(backup_id=backup_id, reason=reason, held_at=info.modified, until=None)
        return hold

    def read(self, backup_id: str) -> Hold | None:
        """Return the hold of a backup as it is now."""
        files = self._store.list_files(backup_id)
        return self.of(backup_id, {o.key.rpartition("/")[2]: o for o in files})

    def known(self, backup_id: str) -> Hold | None:
        """Return the hold of a backup, None also if it is in an archive class of S3."""
        try:
            return self.read(backup_id)
        except ObjectArchived:
            return None

    def put(self, hold: Hold) -> None:
        """Write a hold in place of an earlier one, then the guard."""
        self._store.put_small(f"{hold.backup_id}/{HOLD}", encode(hold), options=CONTROL)
        self.put_guard()

    def remove(self, backup_id: str) -> None:
        """Remove the hold of a backup. The caller removes the guard if no other is held."""
        self._store.delete([f"{backup_id}/{HOLD}"])

    def put_guard(self) -> None:
        """Keep older programs from deleting backups."""
        self._store.put_small(_GUARD_KEY, _GUARD, options=CONTROL)

    def remove_guard(self) -> None:
        """Let older programs delete backups again."""
        self._store.delete([_GUARD_KEY])
