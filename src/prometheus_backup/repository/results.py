"""The results of verification beside the backups that they speak of: reading and writing them."""

from collections.abc import Mapping
from datetime import datetime

from prometheus_backup.errors import ObjectNotFound
from prometheus_backup.model import CONTROL, Level, ObjectInfo, Verdict
from prometheus_backup.repository.layout import (
    MANIFEST,
    is_rotation_name,
    rotation_name,
    verification_level,
    verification_name,
)
from prometheus_backup.repository.manifest import MAX_DOCUMENT_SIZE, encode
from prometheus_backup.repository.rotation import advanced
from prometheus_backup.repository.verification import (
    Rotation,
    Verification,
    decode_rotation,
    decode_verification,
)
from prometheus_backup.stores.base import ObjectStore


class VerificationResults:
    """The results in a store. Its failures pass through."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store

    def of(
        self, files: Mapping[str, ObjectInfo]
    ) -> tuple[tuple[Verification, ...], tuple[Rotation, ...]]:
        """Return what these objects of a backup say of it; what cannot be read is left out.

        `files` are the objects directly in its folder, by name.
        """
        results, rotations = [], []
        for name, info in sorted(files.items()):
            is_rotation = is_rotation_name(name)
            if info.size > MAX_DOCUMENT_SIZE or not (is_rotation or verification_level(name)):
                continue
            try:
                body = self._store.get(info.key, limit=MAX_DOCUMENT_SIZE)
            except ObjectNotFound:
                continue
            if is_rotation:
                rotations.append(decode_rotation(body))
            else:
                results.append(decode_verification(body))
        return tuple(filter(None, results)), tuple(filter(None, rotations))

    def record(self, verification: Verification) -> None:
        """Write the result of a verification beside its backup.

        An inconclusive one never replaces an earlier result, nor does the pass of a part replace a
        failure or the pass of the whole.
        """
        name = verification_name(verification.level)
        if verification.verdict is Verdict.FAIL or self._is_replaced_by(verification, name):
            self._put_beside(verification.backup_id, name, encode(verification))

    def _is_replaced_by(self, verification: Verification, name: str) -> bool:
        """Tell whether a result that is no failure may stand where an earlier one may be."""
        if verification.verdict is Verdict.PASS and verification.is_whole:
            return True
        try:
            body = self._store.get(f"{verification.backup_id}/{name}", limit=MAX_DOCUMENT_SIZE)
        except ObjectNotFound:
            return True
        if verification.verdict is Verdict.INCONCLUSIVE:
            return False
        earlier = decode_verification(body)
        return earlier is not None and earlier.verdict is Verdict.PASS and not earlier.is_whole

    def record_part(self, result: Verification, *, began: datetime) -> Rotation:
        """Write the result of a part beside its backup; return how far the rotation is then.

        Faults are an object of their own, which no other run writes over. Of two runs that note
        their progress at once, one may lose it: then a part is read once more than it need be.
        """
        backup_id, part = result.backup_id, result.rotation
        if part is not None and result.verdict is Verdict.FAIL:
            name = verification_name(result.level, part=(part.part, part.parts))
            self._put_beside(backup_id, name, encode(result))
        rotation = advanced(self.rotation(backup_id, result.level), result, began=began)
        self._put_beside(backup_id, rotation_name(result.level), encode(rotation))
        return rotation

    def rotation(self, backup_id: str, level: Level) -> Rotation | None:
        """Return how far a rotation has come; None where none has begun."""
        key = f"{backup_id}/{rotation_name(level)}"
        try:
            return decode_rotation(self._store.get(key, limit=MAX_DOCUMENT_SIZE))
        except ObjectNotFound:
            return None

    def _put_beside(self, backup_id: str, name: str, body: bytes) -> None:
        self._store.put_small(f"{backup_id}/{name}", body, options=CONTROL)
        try:
            self._store.head(f"{backup_id}/{MANIFEST}")
        except ObjectNotFound:
            # Deleted while it was looked at. See _delete_folder: one of both sees the other, so
            # that no result stays behind alone.
            self._store.delete([f"{backup_id}/{name}"])
