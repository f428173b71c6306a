"""Check the objects of one backup: their sizes, their bytes, and SHA256SUMS."""

import contextlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from prometheus_backup.errors import ObjectNotFound
from prometheus_backup.events import long_step
from prometheus_backup.model import Finding, FindingKind, counted
from prometheus_backup.repository.layout import SUMS
from prometheus_backup.repository.manifest import File, Manifest, sha256sums
from prometheus_backup.repository.repository import Repository
from prometheus_backup.transfer import (
    HashedStream,
    Transfer,
    WorkerContext,
    read_again_if_different,
)


@dataclass(slots=True)
class PartialResult:
    """What has been checked of one backup so far. It is kept if the store fails later.

    `objects` is how many objects are checked, `bytes_read` how much of them was read. `unchecked`
    holds a message for everything that could not be checked.
    """

    findings: list[Finding] = field(default_factory=list)
    objects: int = 0
    bytes_read: int = 0
    unchecked: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class ObjectVerifier:
    """Checks the objects of one backup and adds what it finds to `result`."""

    repository: Repository
    transfer: Transfer
    manifest: Manifest
    result: PartialResult

    @property
    def sums_key(self) -> str:
        """Return the key of the backup's SHA256SUMS."""
        return f"{self.manifest.backup_id}/{SUMS}"

    def expected_sizes(self) -> Mapping[str, int]:
        """Return the size of every object that the backup must have, by key."""
        sizes = {file.key: file.size for _, file in self.manifest.files()}
        return sizes | {self.sums_key: len(sha256sums(self.manifest))}

    def blocks_of_keys(self) -> Mapping[str, str]:
        """Return the ULID of the block that each block file belongs to, by key."""
        return {file.key: block.ulid for block, file in self.manifest.files()}

    def check_sizes(self) -> set[str]:
        """Compare sizes with one listing; return the keys of the objects with the right size."""
        expected = self.expected_sizes()
        listed = {o.key: o.size for o in self.repository.store.list(self.manifest.backup_id)}
        for key, size in expected.items():
            if finding := size_finding(key, size, listed.get(key)):
                self.result.findings.append(finding)
        return {key for key, size in expected.items() if listed.get(key) == size}

    def check_bytes(self, keys: Collection[str]) -> None:
        """Read these objects and compare their bytes with the manifest."""
        files = [f for _, f in self.manifest.files() if f.key in keys]
        with (
            long_step(self.transfer.listener, "verify", sum(f.size for f in files)),
            contextlib.closing(self.transfer.each(files, self._hash)) as results,
        ):
            for file, found in results:
                if found is None:
                    self.result.findings.append(missing(file.key))
                    continue
                self.result.bytes_read += found.size
                if found.sha256 != file.sha256:
                    self.result.findings.append(altered(file.key, found.sha256, file.sha256))

    def check_sums(self, keys: Collection[str]) -> None:
        """Compare SHA256SUMS, if it is among these keys, with the manifest."""
        if self.sums_key not in keys:
            return
        expected = sha256sums(self.manifest)
        body = self.repository.store.get(self.sums_key, limit=len(expected))
        self.result.bytes_read += len(body)
        if body != expected:
            detail = "differs from the manifest"
            self.result.findings.append(Finding(FindingKind.ALTERED, self.sums_key, detail))

    def _hash(self, file: File, worker: WorkerContext) -> HashedStream | None:
        def read() -> HashedStream:
            return HashedStream(self.repository.store.stream(file.key), worker=worker).read()

        try:
            return read_again_if_different(read, file.sha256, worker=worker)
        except ObjectNotFound:
            return None


def missing(key: str) -> Finding:
    """Return the finding for an object that does not exist."""
    return Finding(FindingKind.MISSING, key, "no such object")


def altered(key: str, digest: str, expected: str) -> Finding:
    """Return the finding for an object whose bytes are not those that were backed up."""
    detail = f"sha256 is {digest}, expected {expected}"
    return Finding(FindingKind.ALTERED, key, detail)


def size_finding(key: str, expected: int, found: int | None) -> Finding | None:
    """Return the finding for an object of the wrong size, None if the size is right."""
    if found is None:
        return missing(key)
    if found != expected:
        detail = f"it has {counted(found, 'byte')}, not {expected:,}"
        return Finding(FindingKind.WRONG_SIZE, key, detail)
    return None
