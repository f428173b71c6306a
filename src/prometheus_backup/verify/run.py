"""Look whether stored backups still are what was backed up, and write the result beside them.

Whole, or one part at a time (`rotation`). What each level looks at is in `looking`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from prometheus_backup import __version__
from prometheus_backup.errors import (
    BackupNotFound,
    BackupToolError,
    NewerFormat,
    ObjectArchived,
    RepositoryError,
    UnreadableManifest,
    UsageError,
)
from prometheus_backup.events import BackupVerified, Listener, Step, Warned
from prometheus_backup.model import Finding, FindingKind, Level, Outcome, Subset, Verdict
from prometheus_backup.repository.layout import MANIFEST
from prometheus_backup.repository.repository import BackupEntry, Repository, State
from prometheus_backup.repository.rotation import assign, due, last_read
from prometheus_backup.repository.verification import (
    RecordedFinding,
    Rotation,
    RotationPart,
    Verification,
)
from prometheus_backup.transfer import Transfer
from prometheus_backup.verify.blocks import ScratchSpace, verify_blocks
from prometheus_backup.verify.checksums import verify_checksums
from prometheus_backup.verify.objects import ObjectVerifier, PartialResult

LEVELS = (Level.SIZE, Level.STORED, Level.CHECKSUM, Level.TSDB)


@dataclass(frozen=True, slots=True)
class BackupResult:
    """The result for one backup, and why it is inconclusive where it is.

    `rotation` is how far the backup's rotation is after a look at a part.
    """

    result: Verification
    cause: str = ""
    rotation: Rotation | None = None


@dataclass(frozen=True, slots=True)
class VerifyReport:
    """The results, in the order in which the backups were looked at."""

    checked: tuple[BackupResult, ...]

    @property
    def outcome(self) -> Outcome:
        """Return FAULTY for any fault, PARTIAL where something, or nothing, could be looked at."""
        verdicts = {c.result.verdict for c in self.checked}
        if Verdict.FAIL in verdicts:
            return Outcome.FAULTY
        return Outcome.DONE if verdicts == {Verdict.PASS} else Outcome.PARTIAL


@dataclass(frozen=True, slots=True)
class Verifier:
    """Verifies backups of one repository at one level; with `subset`, a part of each.

    Level `tsdb` needs a `bench` to check blocks on.
    """

    repository: Repository
    transfer: Transfer
    level: Level
    listener: Listener
    subset: Subset | None = None
    bench: ScratchSpace | None = None

    def verify(self, entries: Sequence[BackupEntry]) -> VerifyReport:
        """Verify these backups, one after the other, and record each result."""
        if self.subset is None:
            return VerifyReport(tuple(self._verify_one(entry, None) for entry in entries))
        if self.level is Level.SIZE:
            raise UsageError(
                "cannot verify a part at level size: one listing shows the whole backup",
                hint="leave --subset out",
            )
        waiting = sorted(entries, key=lambda e: last_read(e.rotations, self.level))
        return VerifyReport(tuple(self._verify_one(e, self.subset) for e in waiting))

    def _verify_one(self, entry: BackupEntry, subset: Subset | None) -> BackupResult:
        part = due(self._rotation(entry), subset) if subset else None
        which = f", part {part.part} of {part.parts}" if part else ""
        self.listener(Step("verify", f"verifying {entry.backup_id} at level {self.level}{which}"))
        began = self.repository.clock.now()
        seen = PartialResult()
        cause = ""
        try:
            self._look(entry, part, seen)
            cause = "; ".join(seen.doubts)
        except RepositoryError as error:
            cause = error.message
            self.listener(Warned(f"could not look at {entry.backup_id}: {cause}", error.hint))
        result = self._result(entry, part, seen, could_look=not cause)
        for finding in result.findings:
            self.listener(Warned(f"Verification failed: {finding}"))
        self.listener(
            BackupVerified(
                entry.backup_id,
                self.level,
                result.verdict,
                len(result.findings),
                part=str(part or ""),
            )
        )
        if entry.state is State.NEWER:  # whose folder is not ours to write into
            return BackupResult(result, cause)
        return BackupResult(result, cause, self._record(result, began))

    def _rotation(self, entry: BackupEntry) -> Rotation | None:
        """Return how far the rotation is now: another run may have come by since the listing."""
        try:
            return self.repository.results.rotation(entry.backup_id, self.level)
        except RepositoryError:  # what it is about will be told by the look
            return next((r for r in entry.rotations if r.level is self.level), None)

    def _result(
        self,
        entry: BackupEntry,
        part: RotationPart | None,
        seen: PartialResult,
        *,
        could_look: bool,
    ) -> Verification:
        findings = sorted(seen.findings, key=lambda f: f.key)
        return Verification(
            backup_id=entry.backup_id,
            level=self.level,
            verdict=_verdict(findings, could_look=could_look),
            verified_at=self.repository.clock.now(),
            tool_version=__version__,
            objects=seen.objects,
            bytes_read=seen.read,
            findings=tuple(RecordedFinding.of(f) for f in findings),
            rotation=part,
        )

    def _record(self, result: Verification, began: datetime) -> Rotation | None:
        try:
            if result.rotation is not None:
                return self.repository.results.record_part(result, began=began)
            self.repository.results.record(result)
        except BackupToolError as error:
            self.listener(Warned(f"the result could not be recorded: {error.message}", error.hint))
        return None

    def _look(self, entry: BackupEntry, part: RotationPart | None, seen: PartialResult) -> None:
        if entry.state is State.ARCHIVED:
            self.repository.find(entry.backup_id)  # raises, and says how to thaw it
        if entry.header is None:
            seen.findings.append(_unreadable(entry))
            seen.objects = 1
            return
        manifest = self.repository.manifest(entry.backup_id)
        looking = ObjectVerifier(self.repository, self.transfer, manifest, seen)
        keys = self._keys(looking, part)
        seen.objects = len(keys)
        # One listing shows all sizes, so a part looks at those of the whole backup.
        sound = looking.sizes() & keys
        if self.level is Level.SIZE:
            return
        if self.level is Level.STORED:
            verify_checksums(looking, sound)
        elif self.level is Level.TSDB:
            if self.bench is None:
                raise ValueError("level tsdb needs a bench")
            verify_blocks(looking, sound, self.bench)
        else:
            looking.bytes(sound)
        looking.sums(sound)

    def _keys(self, looking: ObjectVerifier, part: RotationPart | None) -> set[str]:
        """Return the keys of the objects to look at: all, or those of a part."""
        sizes = looking.expected_sizes()
        if part is None:
            return set(sizes)
        # A block is checked whole, so it is one thing; else each object is.
        of = looking.blocks_of_keys() if self.level is Level.TSDB else {}
        units: dict[str, int] = {}
        for key, size in sizes.items():
            unit = of.get(key, key)
            units[unit] = units.get(unit, 0) + size
        assigned = assign(units, part.parts, seed=looking.manifest.backup_id)
        return {key for key in sizes if assigned[of.get(key, key)] == part.part}


def choose(repository: Repository, names: Sequence[str], *, every: bool) -> tuple[BackupEntry, ...]:
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


def _named(repository: Repository, name: str) -> BackupEntry:
    try:
        return repository.find(name)
    except (UnreadableManifest, ObjectArchived):
        entry = repository.entry(name)
        if entry is None:
            raise BackupNotFound(f"cannot find backup {name!r} in {repository.url}") from None
        return entry


def _unreadable(entry: BackupEntry) -> Finding:
    if entry.state is State.NEWER:
        raise NewerFormat(entry.problem)
    key = f"{entry.backup_id}/{MANIFEST}"
    return Finding(FindingKind.UNREADABLE_MANIFEST, key, entry.problem)


def _verdict(findings: Sequence[Finding], *, could_look: bool) -> Verdict:
    if findings:
        return Verdict.FAIL
    return Verdict.PASS if could_look else Verdict.INCONCLUSIVE
