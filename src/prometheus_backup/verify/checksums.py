"""Level `stored`: compare what the store says of whole objects, without reading them.

What it said when the bytes were right is in the manifest. It proves that the store still vouches
for these bytes, and that nobody put others in their place; whether the store tells the truth, only
reading shows.
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


def verify_checksums(looking: ObjectVerifier, keys: Collection[str]) -> None:
    """Compare the store's checksums of these block files with the manifest; one request each."""
    files = [f for _, f in looking.manifest.files() if f.key in keys]
    store = looking.repository.store

    def ask(file: File, watch: WorkerContext) -> str | None:
        del watch
        try:
            return store.stored_checksum(file.key)
        except ObjectNotFound:
            return _ABSENT

    silent = 0
    with contextlib.closing(looking.transfer.wide().each(files, ask)) as answers:
        for file, told in answers:
            if told == _ABSENT:
                looking.seen.findings.append(missing(file.key))
                continue
            agrees = agreement(file, told)
            silent += agrees is None
            if agrees is False:
                detail = f"the store's checksum is {told}, and was {_expected(file)} at the backup"
                finding = Finding(FindingKind.ALTERED, file.key, detail)
                looking.seen.findings.append(finding)
    if silent:
        looking.seen.doubts.append(
            f"the store has no checksum to compare of {silent:,} of {len(files):,} files; "
            "`verify --level checksum` reads them"
        )


def agreement(file: File, told: str | None) -> bool | None:
    """Tell whether a store's checksum is that of a file; None where the two cannot be compared.

    A SHA-256 is compared with that of the manifest, whatever the store said at the backup: the
    object may have been put there anew, by another tool.
    """
    if told is None:
        return None
    name, _, value = told.partition(":")
    if name == "SHA256":
        return value == base64.b64encode(bytes.fromhex(file.sha256)).decode()
    if file.stored_checksum is None or file.stored_checksum.partition(":")[0] != name:
        return None
    return told == file.stored_checksum


def _expected(file: File) -> str:
    return file.stored_checksum or f"SHA256 {file.sha256} in hex"
