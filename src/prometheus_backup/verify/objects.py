"""The looks that verification takes at the objects of one backup: their sizes, and their bytes."""

import contextlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from prometheus_backup.errors import ObjectNotFound
from prometheus_backup.events import LongStepBegan, LongStepEnded
from prometheus_backup.model import Finding, FindingKind
from prometheus_backup.repository.layout import SUMS
from prometheus_backup.repository.manifest import Manifest, sha256sums
from prometheus_backup.repository.repository import Repository
from prometheus_backup.transfer import Transfer, WorkerContext, hash_stream


@dataclass(slots=True)
class PartialResult:
    """What was seen of one backup so far: it counts also where the store then fails.

    `objects` were looked at, `read` bytes of them were read; `doubts` say what a level could not
    look at, in words.
    """

    findings: list[Finding] = field(default_factory=list)
    objects: int = 0
    read: int = 0
    doubts: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class ObjectVerifier:
    """Looks at the objects of one backup; what is wrong goes into `seen`."""

    repository: Repository
    transfer: Transfer
    manifest: Manifest
    seen: PartialResult

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

    def sizes(self) -> set[str]:
        """Compare sizes by one listing; return the keys of the objects that have the right one."""
        expected = self.expected_sizes()
        listed = {o.key: o.size for o in self.repository.store.list(self.manifest.backup_id)}
        for key, size in expected.items():
            if finding := size_finding(key, size, listed.get(key)):
                self.seen.findings.append(finding)
        return {key for key, size in expected.items() if listed.get(key) == size}

    def bytes(self, keys: Collection[str]) -> None:
        """Read these objects, and compare their bytes with the manifest."""
        files = {f.key: f for _, f in self.manifest.files() if f.key in keys}
        self.transfer.listener(LongStepBegan("verify", sum(f.size for f in files.values())))
        try:
            results = self.transfer.each(list(files), self._hash)
            with contextlib.closing(results):
                for key, found in results:
                    if found is None:
                        self.seen.findings.append(missing(key))
                        continue
                    digest, size = found
                    self.seen.read += size
                    if digest != files[key].sha256:
                        self.seen.findings.append(altered(key, digest, files[key].sha256))
        finally:
            self.transfer.listener(LongStepEnded("verify"))

    def sums(self, keys: Collection[str]) -> None:
        """Compare SHA256SUMS, if it is among these keys, with what the manifest says."""
        if self.sums_key not in keys:
            return
        expected = sha256sums(self.manifest)
        body = self.repository.store.get(self.sums_key, limit=len(expected))
        self.seen.read += len(body)
        if body != expected:
            detail = "it does not agree with the manifest"
            self.seen.findings.append(Finding(FindingKind.ALTERED, self.sums_key, detail))

    def _hash(self, key: str, watch: WorkerContext) -> tuple[str, int] | None:
        try:
            return hash_stream(self.repository.store.stream(key), watch=watch)
        except ObjectNotFound:
            return None


def missing(key: str) -> Finding:
    """Return the finding that there is no such object."""
    return Finding(FindingKind.MISSING, key, "no such object")


def altered(key: str, digest: str, expected: str) -> Finding:
    """Return the finding that an object's bytes are not those that were backed up."""
    detail = f"its sha256 is {digest}, the manifest says {expected}"
    return Finding(FindingKind.ALTERED, key, detail)


def size_finding(key: str, expected: int, found: int | None) -> Finding | None:
    """Return what is wrong with the size of an object, None where it is right."""
    if found is None:
        return missing(key)
    if found != expected:
        detail = f"it has {found:,} bytes, the manifest says {expected:,}"
        return Finding(FindingKind.WRONG_SIZE, key, detail)
    return None
