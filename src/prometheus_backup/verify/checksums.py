"""Level `stored`: compare the store's own checksums with the manifest, without reading objects.

The manifest holds the checksum that the store reported at the time of the backup. If both are
equal, the object has not been replaced. Only reading the object proves that the store can still
return its bytes.
"""

import base64
import contextlib
from collections.abc import Collection

from prometheus_backup.errors import ObjectNotFound
from prometheus_backup.model import Finding, FindingKind
from prometheus_backup.repository.manifest import File
from prometheus_backup.transfer import WorkerContext
from prometheus_backup.verify.objects import ObjectVerifier, missing

_ABSENT = "absent"


def verify_checksums(verifier: ObjectVerifier, keys: Collection[str]) -> None:
    """Compare the store's checksums of these files with the manifest, one request per file."""
    files = [f for _, f in verifier.manifest.files() if f.key in keys]
    store = verifier.repository.store

    def request(file: File, worker: WorkerContext) -> str | None:
        del worker
        try:
            return store.stored_checksum(file.key)
        except ObjectNotFound:
            return _ABSENT

    uncomparable = 0
    with contextlib.closing(verifier.transfer.store_side().each(files, request)) as results:
        for file, stored in results:
            if stored == _ABSENT:
                verifier.result.findings.append(missing(file.key))
                continue
            matches = checksum_matches(file, stored)
            uncomparable += matches is None
            if matches is False:
                detail = f"the store's checksum is {stored}, expected {_expected(file)}"
                finding = Finding(FindingKind.ALTERED, file.key, detail)
                verifier.result.findings.append(finding)
    if uncomparable:
        verifier.result.unchecked.append(
            f"the store has no comparable checksum for {uncomparable:,} of {len(files):,} files; "
            "run `verify --level checksum` to read them"
        )


def checksum_matches(file: File, stored: str | None) -> bool | None:
    """Return whether the store's checksum is that of the file; None if they cannot be compared.

    A SHA-256 is compared with the one in the manifest, even if the store reported another kind of
    checksum at the time of the backup: another tool may have uploaded the object again.
    """
    if stored is None:
        return None
    name, _, value = stored.partition(":")
    if name == "SHA256":
        return value == base64.b64encode(bytes.fromhex(file.sha256)).decode()
    if file.stored_checksum is None or file.stored_checksum.partition(":")[0] != name:
        return None
    return stored == file.stored_checksum


def _expected(file: File) -> str:
    return file.stored_checksum or f"SHA256 {file.sha256} in hex"
