"""Look whether stored backups still are what was backed up, and write the result beside them."""

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass, field

from prometheus_backup import __version__
from prometheus_backup.errors import (
    BackupNotFound,
    BackupToolError,
    NewerFormat,
    ObjectArchived,
    ObjectNotFound,
    RepositoryError,
    UsageError,
)
from prometheus_backup.events import (
    BackupVerified,
    Listener,
    LongStepBegan,
    LongStepEnded,
    Step,
    Warned,
)
from prometheus_backup.layout import MANIFEST, SUMS
from prometheus_backup.manifest import Manifest, RecordedFinding, Verification, sha256sums
from prometheus_backup.model import Finding, FindingKind, Level, Outcome, Verdict
from prometheus_backup.repository import Entry, Repository, State
from prometheus_backup.transfer import Transfer, Watch, hash_stream

LEVELS = (Level.SIZE, Level.CHECKSUM)


@dataclass(frozen=True, slots=True)
class Checked:
    """The result for one backup, and why it is inconclusive where it is."""

    result: Verification
    cause: str = ""


@dataclass(frozen=True, slots=True)
class VerifyReport:
    """The results, in the order they were asked for."""

    checked: tuple[Checked, ...]

    @property
    def outcome(self) -> Outcome:
        """Return FAULTY for any fault, PARTIAL where something, or nothing, could be looked at."""
        verdicts = {c.result.verdict for c in self.checked}
        if Verdict.FAIL in verdicts:
            return Outcome.FAULTY
        return Outcome.DONE if verdicts == {Verdict.PASS} else Outcome.PARTIAL


@dataclass(frozen=True, slots=True)
class Verifier:
    """Verifies backups of one repository at one level."""

    repository: Repository
    transfer: Transfer
    level: Level
    listener: Listener

    def verify(self, entries: Sequence[Entry]) -> VerifyReport:
        """Verify these backups, one after the other, and record each result."""
        return VerifyReport(tuple(self._verify_one(entry) for entry in entries))

    def _verify_one(self, entry: Entry) -> Checked:
        self.listener(Step("verify", f"verifying {entry.backup_id} at level {self.level}"))
        cause = ""
        seen = _Seen()
        try:
            if entry.state is State.ARCHIVED:
                self.repository.find(entry.backup_id)  # raises, and says how to thaw it
            if entry.header is None:
                seen.findings.append(_unreadable(entry))
                seen.objects = 1
            else:
                self._look(self.repository.manifest(entry.backup_id), seen)
        except RepositoryError as error:
            cause = error.message
            self.listener(Warned(f"could not look at {entry.backup_id}: {cause}", error.hint))
        findings = sorted(seen.findings, key=lambda f: f.key)
        verdict = _verdict(findings, objects=seen.objects, could_look=not cause)
        result = Verification(
            backup_id=entry.backup_id,
            level=self.level,
            verdict=verdict,
            verified_at=self.repository.clock.now(),
            tool_version=__version__,
            objects=seen.objects,
            bytes_read=seen.read,
            findings=tuple(RecordedFinding.of(f) for f in findings),
        )
        for finding in findings:
            self.listener(Warned(f"Verification failed: {finding.key}: {finding.detail}"))
        self.listener(BackupVerified(entry.backup_id, self.level, verdict, len(findings)))
        if entry.state is not State.NEWER:  # whose folder is not ours to write into
            self._record(result)
        return Checked(result, cause)

    def _record(self, result: Verification) -> None:
        try:
            self.repository.record(result)
        except BackupToolError as error:
            self.listener(Warned(f"the result could not be recorded: {error.message}", error.hint))

    def _look(self, manifest: Manifest, seen: "_Seen") -> None:
        sums = sha256sums(manifest)
        sizes = {file.key: file.size for _, file in manifest.files()}
        sizes[f"{manifest.backup_id}/{SUMS}"] = len(sums)
        listed = {o.key: o.size for o in self.repository.store.list(manifest.backup_id)}
        seen.objects = len(sizes)
        for key, size in sizes.items():
            if finding := _size_finding(key, size, listed.get(key)):
                seen.findings.append(finding)
        if self.level is not Level.SIZE:
            sound = {key for key, size in sizes.items() if listed.get(key) == size}
            self._read(manifest, sound, seen)
            self._read_sums(f"{manifest.backup_id}/{SUMS}", sums, sound, seen)

    def _read(self, manifest: Manifest, keys: set[str], seen: "_Seen") -> None:
        wanted = {f.key: f.sha256 for _, f in manifest.files() if f.key in keys}
        total = sum(f.size for _, f in manifest.files() if f.key in keys)
        self.listener(LongStepBegan("verify", total))
        try:
            results = self.transfer.each(list(wanted), self._hash)
            with contextlib.closing(results):
                for key, found in results:
                    if found is None:
                        seen.findings.append(_missing(key))
                        continue
                    digest, size = found
                    seen.read += size
                    if digest != wanted[key]:
                        detail = f"its sha256 is {digest}, the manifest says {wanted[key]}"
                        seen.findings.append(Finding(FindingKind.ALTERED, key, detail))
        finally:
            self.listener(LongStepEnded("verify"))

    def _hash(self, key: str, watch: Watch) -> tuple[str, int] | None:
        try:
            return hash_stream(self.repository.store.stream(key), watch=watch)
        except ObjectNotFound:
            return None

    def _read_sums(self, key: str, sums: bytes, keys: set[str], seen: "_Seen") -> None:
        if key not in keys:
            return
        body = self.repository.store.get(key, limit=len(sums))
        seen.read += len(body)
        if body != sums:
            detail = "it does not agree with the manifest"
            seen.findings.append(Finding(FindingKind.ALTERED, key, detail))


@dataclass(slots=True)
class _Seen:
    """What was seen of one backup so far: it counts also where the store then fails."""

    findings: list[Finding] = field(default_factory=list)
    objects: int = 0
    read: int = 0


def choose(repository: Repository, names: Sequence[str], *, every: bool) -> tuple[Entry, ...]:
    """Return the backups that a user named: ids, `latest`, or every one.

    An unreadable manifest is something to verify: it is the worst finding. Raises BackupNotFound,
    NewerFormat or UsageError.
    """
    if every:
        if names:
            raise UsageError("cannot verify: both backups and --all were given")
        kept = (State.COMMITTED, State.UNREADABLE, State.ARCHIVED, State.NEWER)
        return tuple(e for e in repository.entries() if e.state in kept)
    return tuple(_named(repository, name) for name in names or ("latest",))


def _named(repository: Repository, name: str) -> Entry:
    from prometheus_backup.errors import UnreadableManifest

    try:
        return repository.find(name)
    except (UnreadableManifest, ObjectArchived):
        entry = repository.entry(name)
        if entry is None:
            raise BackupNotFound(f"cannot find backup {name!r} in {repository.url}") from None
        return entry


def _unreadable(entry: Entry) -> Finding:
    if entry.state is State.NEWER:
        raise NewerFormat(entry.problem)
    key = f"{entry.backup_id}/{MANIFEST}"
    return Finding(FindingKind.UNREADABLE_MANIFEST, key, entry.problem)


def _missing(key: str) -> Finding:
    return Finding(FindingKind.MISSING, key, "no such object")


def _size_finding(key: str, expected: int, found: int | None) -> Finding | None:
    if found is None:
        return _missing(key)
    if found != expected:
        detail = f"it has {found:,} bytes, the manifest says {expected:,}"
        return Finding(FindingKind.WRONG_SIZE, key, detail)
    return None


def _verdict(findings: Sequence[Finding], *, objects: int, could_look: bool) -> Verdict:
    if findings:
        return Verdict.FAIL
    return Verdict.PASS if could_look and objects else Verdict.INCONCLUSIVE
