"""Creates small backups in a store with the real claim and commit, and checks the objects."""

import hashlib
import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

from prometheus_backup.model import Level, PutOptions, Verdict
from prometheus_backup.repository.claim import Claim, claim_backup
from prometheus_backup.repository.layout import INCOMPLETE, MANIFEST, SUMS
from prometheus_backup.repository.manifest import Manifest, decode_manifest
from prometheus_backup.repository.repository import Repository
from prometheus_backup.repository.verification import RotationPart, Verification
from prometheus_backup.stores.base import ObjectStore
from tests.support import manifests

NOON = datetime(2025, 3, 1, 12, tzinfo=UTC)
FILES = {"chunks/000001": b"chunks of the block", "index": b"index of the block"}


class ManualClock:
    """A clock that tests set; sleeping advances it."""

    def __init__(self, start: datetime = NOON) -> None:
        self.instant = start
        self.slept: list[float] = []

    def now(self) -> datetime:
        return self.instant

    def monotonic(self) -> float:
        return (self.instant - NOON).total_seconds()

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.instant += timedelta(seconds=seconds)


def verification_of(
    backup_id: str,
    verdict: Verdict = Verdict.PASS,
    *,
    level: Level = Level.CHECKSUM,
    at: datetime = NOON,
    part: RotationPart | None = None,
) -> Verification:
    """The result of a verification, of a whole backup or of a part."""
    return Verification(
        backup_id=backup_id,
        level=level,
        verdict=verdict,
        verified_at=at,
        tool_version="1.0.0",
        objects=3,
        bytes_read=10,
        rotation=part,
    )


def manifest_of(
    claim: Claim, files: Mapping[str, bytes] = FILES, *, ulid: str = manifests.ULID
) -> Manifest:
    """Return a manifest of one block with these files."""
    entries = [
        manifests.file(
            path,
            size=len(body),
            sha256=hashlib.sha256(body).hexdigest(),
            key=f"{claim.backup_id}/{ulid}/{path}",
        )
        for path, body in files.items()
    ]
    size = sum(map(len, files.values()))
    document = manifests.document(
        backup_id=claim.backup_id,
        run_id=claim.run_id,
        storage_size_bytes=size,
        labels={},
        blocks=[manifests.block(*entries, ulid=ulid)],
        totals={
            "blocks": 1,
            "files": len(files),
            "bytes": size,
            "uploaded_bytes": size,
            "copied_bytes": 0,
        },
    )
    return decode_manifest(json.dumps(document).encode(), backup_id=claim.backup_id)


def put_files(
    claim: Claim,
    store: ObjectStore,
    files: Mapping[str, bytes] = FILES,
    *,
    ulid: str = manifests.ULID,
) -> None:
    """Upload the files of the one block of a claimed backup."""
    for path, body in files.items():
        key = f"{claim.backup_id}/{ulid}/{path}"
        store.put(key, [body], size=len(body), options=PutOptions())


def make_backup(
    store: ObjectStore, clock: ManualClock, *, at: datetime, run_id: str = "earlier"
) -> str:
    """Commit a small backup as of the time `at`; return its id."""
    present = clock.instant
    clock.instant = at
    try:
        claim = claim_backup(Repository(store, clock=clock), run_id=run_id, intent="a test")
        put_files(claim, store)
        claim.commit(manifest_of(claim), options=PutOptions())
    finally:
        clock.instant = present
    return claim.backup_id


def visible(contents: Mapping[str, bytes]) -> dict[str, Manifest]:
    """Return the manifests among these objects, by backup id."""
    return {
        key.partition("/")[0]: decode_manifest(body, backup_id=key.partition("/")[0])
        for key, body in contents.items()
        if key.endswith(f"/{MANIFEST}")
    }


def require_whole(contents: Mapping[str, bytes]) -> None:
    """Assert that all objects of every manifest exist with the recorded content."""
    for backup_id, manifest in visible(contents).items():
        assert f"{backup_id}/{SUMS}" in contents, f"{backup_id} has no {SUMS}"
        for _, file in manifest.files():
            body = contents.get(file.key)
            assert body is not None, f"{backup_id} is visible without {file.key}"
            assert hashlib.sha256(body).hexdigest() == file.sha256, f"{file.key} was altered"


def require_no_extra_objects(contents: Mapping[str, bytes]) -> None:
    """Assert that the folders of visible backups have no objects that are not in the manifest."""
    for backup_id, manifest in visible(contents).items():
        own = {file.key for _, file in manifest.files()}
        own |= {f"{backup_id}/{name}" for name in (MANIFEST, SUMS, INCOMPLETE)}
        found = {key for key in contents if key.startswith(f"{backup_id}/")}
        assert found <= own, f"{backup_id} has extra objects: {found - own}"
