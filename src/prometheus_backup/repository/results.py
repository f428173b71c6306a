"""Read and write verification results, which are stored next to the backups."""

from collections.abc import Mapping
from datetime import datetime

from prometheus_backup.errors import ObjectNotFound
from prometheus_backup.model import CONTROL, Level, ObjectInfo, Verdict
from prometheus_backup.repository.layout import (
    MANIFEST,
    is_result_name,
    is_rotation_name,
    rotation_name,
    verification_name,
)
from prometheus_backup.repository.manifest import MAX_DOCUMENT_SIZE, decode, encode
from prometheus_backup.repository.rotation import advance
from prometheus_backup.repository.verification import Rotation, Verification
from prometheus_backup.stores.base import ObjectStore, exists


class VerificationResults:
    """The verification results in a store. Store errors are passed on."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store

    def of(
        self, files: Mapping[str, ObjectInfo]
    ) -> tuple[Mapping[str, Verification], Mapping[str, Rotation]]:
        """Return the results and rotations among these objects, without those that are invalid.

        `files` are the objects directly in the backup's folder, by name.
        """
        results: dict[str, Verification] = {}
        rotations: dict[str, Rotation] = {}
        for name, info in sorted(files.items()):
            if info.size > MAX_DOCUMENT_SIZE or not is_result_name(name):
                continue
            try:
                body = self._store.get(info.key, limit=MAX_DOCUMENT_SIZE)
            except ObjectNotFound:
                continue
            if is_rotation_name(name):
                if rotation := decode(Rotation, body):
                    rotations[name] = rotation
            elif result := decode(Verification, body):
                results[name] = result
        return results, rotations

    def record(self, verification: Verification) -> None:
        """Write the result of a verification next to its backup.

        An inconclusive result never replaces an earlier one. The pass of a part never replaces a
        failure or the pass of the whole backup.
        """
        name = verification_name(verification.level)
        if verification.verdict is Verdict.FAIL or self._may_replace(verification, name):
            self._put(verification.backup_id, name, encode(verification))

    def _may_replace(self, verification: Verification, name: str) -> bool:
        """Return whether a result other than a failure may replace the earlier one, if any."""
        if verification.verdict is Verdict.PASS and verification.is_whole:
            return True
        try:
            body = self._store.get(f"{verification.backup_id}/{name}", limit=MAX_DOCUMENT_SIZE)
        except ObjectNotFound:
            return True
        if verification.verdict is Verdict.INCONCLUSIVE:
            return False
        earlier = decode(Verification, body)
        return earlier is not None and earlier.verdict is Verdict.PASS and not earlier.is_whole

    def record_part(self, result: Verification, *, started_at: datetime) -> Rotation:
        """Write the result of a part next to its backup; return the rotation's new progress.

        Faults are written to an object of their own, which no other run overwrites. If two runs
        record their progress at the same time, one may be lost; its part is then read once more.
        """
        backup_id, part = result.backup_id, result.rotation
        if part is not None and result.verdict is Verdict.FAIL:
            name = verification_name(result.level, part=(part.part, part.parts))
            self._put(backup_id, name, encode(result))
        rotation = advance(self.rotation(backup_id, result.level), result, started_at=started_at)
        self._put(backup_id, rotation_name(result.level), encode(rotation))
        return rotation

    def rotation(self, backup_id: str, level: Level) -> Rotation | None:
        """Return the progress of a rotation; None if none has begun."""
        key = f"{backup_id}/{rotation_name(level)}"
        try:
            return decode(Rotation, self._store.get(key, limit=MAX_DOCUMENT_SIZE))
        except ObjectNotFound:
            return None

    def _put(self, backup_id: str, name: str, body: bytes) -> None:
        self._store.put_small(f"{backup_id}/{name}", body, options=CONTROL)
        if not exists(self._store, f"{backup_id}/{MANIFEST}"):
            # The backup was deleted while it was verified. Either this check or the listing in
            # Repository._delete_folder sees the other, so no result is left alone.
            self._store.delete([f"{backup_id}/{name}"])
