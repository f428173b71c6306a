"""Check the objects of one backup: their sizes, their bytes, and SHA256SUMS."""

import contextlib
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from prometheus_backup.errors import ObjectNotFound
from prometheus_backup.events import long_step
from prometheus_backup.model import Finding, FindingKind, Layout, counted
from prometheus_backup.repository.archive import ArchivedFolder
from prometheus_backup.repository.layout import RESTORE_SCRIPT, SUMS, folder_of
from prometheus_backup.repository.manifest import File, Manifest, sha256sums
from prometheus_backup.repository.plain_restore import restore_script
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

    `objects` is how many objects are checked (`checked_keys`), `bytes_read` how much of them was
    read. `unchecked` holds a message for everything that could not be checked.
    """

    findings: list[Finding] = field(default_factory=list)
    objects: int = 0
    bytes_read: int = 0
    unchecked: list[str] = field(default_factory=list)
    checked_keys: Collection[str] = ()


@dataclass(slots=True)
class SharedChecks:
    """What one run has found out about the archive, where backups share their objects.

    `findings` holds those of every object that was read, by key, so that each is read once.
    """

    folders: Mapping[str, ArchivedFolder] = field(default_factory=dict)
    findings: dict[str, tuple[Finding, ...]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ObjectVerifier:
    """Checks the objects of one backup and adds what it finds to `result`."""

    repository: Repository
    transfer: Transfer
    manifest: Manifest
    result: PartialResult
    shared: SharedChecks

    @property
    def sums_key(self) -> str:
        """Return the key of the backup's SHA256SUMS."""
        return f"{self.manifest.backup_id}/{SUMS}"

    @property
    def _made(self) -> Mapping[str, Callable[[Manifest], bytes]]:
        """Return what makes each object that follows from the manifest, by key."""
        found: dict[str, Callable[[Manifest], bytes]] = {self.sums_key: sha256sums}
        if self.manifest.layout is Layout.ARCHIVE:
            found[f"{self.manifest.backup_id}/{RESTORE_SCRIPT}"] = restore_script
        return found

    def expected_sizes(self) -> Mapping[str, int]:
        """Return the size of every object that the backup must have, by key."""
        sizes = {file.key: file.size for _, file in self.manifest.files()}
        return sizes | {key: len(make(self.manifest)) for key, make in self._made.items()}

    def blocks_of_keys(self) -> Mapping[str, str]:
        """Return the ULID of the block that each block file belongs to, by key."""
        return {file.key: block.ulid for block, file in self.manifest.files()}

    def check_sizes(self) -> set[str]:
        """Compare sizes with one listing; return the keys of the objects with the right size."""
        expected = self.expected_sizes()
        listed = {o.key: o.size for o in self.repository.store.list(self.manifest.backup_id)}
        if not self.manifest.folders <= self.shared.folders.keys():
            self.shared.folders = self.repository.archive.folders()
        for name in self.manifest.folders & self.shared.folders.keys():
            listed |= {o.key: o.size for o in self.shared.folders[name].objects.values()}
        for key, size in expected.items():
            if finding := size_finding(key, size, listed.get(key)):
                self.result.findings.append(finding)
        return {key for key, size in expected.items() if listed.get(key) == size}

    def check_bytes(self, keys: Collection[str]) -> None:
        """Read these objects and compare their bytes with the manifest."""
        files = self.unread(f for _, f in self.manifest.files() if f.key in keys)
        with (
            long_step(self.transfer.listener, "verify", sum(f.size for f in files)),
            contextlib.closing(
                self.transfer.each(files, self._hash, size=lambda file: file.size)
            ) as results,
        ):
            for file, found in results:
                if found is None:
                    self.add(file.key, missing(file.key))
                    continue
                self.result.bytes_read += found.size
                if found.sha256 != file.sha256:
                    self.add(file.key, altered(file.key, found.sha256, file.sha256))
                else:
                    self.add(file.key)

    def unread(self, files: Iterable[File]) -> Sequence[File]:
        """Return the files that this run has not read yet; add what it found in the others."""
        rest = []
        for file in files:
            if file.key in self.shared.findings:
                self.result.findings += self.shared.findings[file.key]
            else:
                rest.append(file)
        return rest

    def add(self, key: str, *findings: Finding) -> None:
        """Add the findings on an object, also for the other backups that name it."""
        self.result.findings += findings
        if folder_of(key):
            self.shared.findings[key] = findings

    def check_sums(self, keys: Collection[str]) -> None:
        """Compare SHA256SUMS and RESTORE.sh, if they are among these keys, with the manifest."""
        for key, make in self._made.items():
            if key not in keys:
                continue
            expected = make(self.manifest)
            body = self.repository.store.get(key, limit=len(expected))
            self.result.bytes_read += len(body)
            if body != expected:
                detail = "differs from the manifest"
                self.result.findings.append(Finding(FindingKind.ALTERED, key, detail))

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
