"""Verify backups and record the results next to them: a whole backup, or the part that is due.

Which part is due is decided in `repository.rotation`.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from prometheus_backup import __version__
from prometheus_backup.errors import (
    BackupToolError,
    NewerFormat,
    RepositoryError,
    UsageError,
)
from prometheus_backup.events import BackupVerified, Listener, Step, Warned
from prometheus_backup.model import Finding, FindingKind, Level, Outcome, Subset, Verdict
from prometheus_backup.repository.archive import FolderVerdict
from prometheus_backup.repository.entry import PRESENT, BackupEntry, State
from prometheus_backup.repository.layout import MANIFEST, folder_of
from prometheus_backup.repository.repository import Repository
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
from prometheus_backup.verify.objects import ObjectVerifier, PartialResult, SharedChecks

LEVELS = (Level.SIZE, Level.STORED, Level.CHECKSUM, Level.TSDB)


@dataclass(frozen=True, slots=True)
class BackupResult:
    """The result for one backup; `cause` is why it is inconclusive, if it is.

    `rotation` is the progress of the backup's rotation after a part was verified.
    """

    result: Verification
    cause: str = ""
    rotation: Rotation | None = None


@dataclass(frozen=True, slots=True)
class VerifyReport:
    """The results, in the order in which the backups were verified."""

    checked: tuple[BackupResult, ...]

    @property
    def outcome(self) -> Outcome:
        """Return what all verdicts together mean for the command."""
        return Outcome.of(c.result.verdict for c in self.checked)


@dataclass(frozen=True, slots=True)
class Verifier:
    """Verifies backups of one repository at one level; with `subset`, a part of each.

    Level `tsdb` needs `scratch` space to check blocks in.
    """

    repository: Repository
    transfer: Transfer
    level: Level
    listener: Listener
    subset: Subset | None = None
    scratch: ScratchSpace | None = None
    _shared: SharedChecks = field(default_factory=SharedChecks)

    def verify(self, entries: Sequence[BackupEntry]) -> VerifyReport:
        """Verify these backups one after another and record each result."""
        if self.subset is None:
            return self._verify_all(entries, None)
        if self.level is Level.SIZE:
            raise UsageError(
                "cannot verify a part at level size: one listing covers the whole backup",
                hint="omit --subset",
            )
        longest_unread_first = sorted(entries, key=lambda e: last_read(e.rotations, self.level))
        return self._verify_all(longest_unread_first, self.subset)

    def _verify_all(self, entries: Sequence[BackupEntry], subset: Subset | None) -> VerifyReport:
        results = (self._verify_one(entry, subset) for entry in entries)
        return VerifyReport(tuple(r for r in results if r is not None))

    def _verify_one(self, entry: BackupEntry, subset: Subset | None) -> BackupResult | None:
        """Verify one backup and record the result; None if it was deleted meanwhile."""
        part = due(self._rotation(entry), subset) if subset else None
        which = f", part {part.part} of {part.parts}" if part else ""
        self.listener(Step("verify", f"verifying {entry.backup_id} at level {self.level}{which}"))
        started_at = self.repository.clock.now()
        partial = PartialResult()
        cause = ""
        try:
            self._check(entry, part, partial)
            cause = "; ".join(partial.unchecked)
        except RepositoryError as error:
            cause = error.message
            self.listener(Warned(f"cannot verify {entry.backup_id}: {cause}", error.hint))
        is_found = entry.state is State.COMMITTED and bool(cause or partial.findings)
        if is_found and self.repository.is_deleted(entry.backup_id):
            self.listener(Step("verify", f"{entry.backup_id} was deleted while it was verified"))
            return None
        result = self._result(entry, part, partial, complete=not cause)
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
        if entry.state is State.NEWER:  # this version must not write into its folder
            return BackupResult(result, cause)
        checked = () if cause else partial.checked_keys
        return BackupResult(result, cause, self._record(result, checked, started_at))

    def _rotation(self, entry: BackupEntry) -> Rotation | None:
        """Read the rotation again: another run may have advanced it since the listing."""
        try:
            return self.repository.results.rotation(entry.backup_id, self.level)
        except RepositoryError:  # the check itself will report the cause
            return next((r for r in entry.rotations if r.level is self.level), None)

    def _result(
        self,
        entry: BackupEntry,
        part: RotationPart | None,
        partial: PartialResult,
        *,
        complete: bool,
    ) -> Verification:
        findings = sorted(partial.findings, key=lambda f: f.key)
        return Verification(
            backup_id=entry.backup_id,
            level=self.level,
            verdict=_verdict(findings, complete=complete),
            verified_at=self.repository.clock.now(),
            tool_version=__version__,
            objects=partial.objects,
            bytes_read=partial.bytes_read,
            findings=tuple(RecordedFinding.of(f) for f in findings),
            rotation=part,
        )

    def _record(
        self, result: Verification, checked: Collection[str], started_at: datetime
    ) -> Rotation | None:
        """Record the result next to the backup, but faults of the archive next to its folders."""
        own = tuple(f for f in result.findings if folder_of(f"{f.key}/") is None)
        shared = tuple(f for f in result.findings if f not in own)
        try:
            self._record_verdicts(shared, checked)
            if shared and not own:
                return None  # the state of this backup follows from the verdicts
            result = result.model_copy(update={"findings": own})
            if result.rotation is not None:
                return self.repository.results.record_part(result, started_at=started_at)
            self.repository.results.record(result)
        except BackupToolError as error:
            self.listener(Warned(f"cannot record the result: {error.message}", error.hint))
        return None

    def _record_verdicts(
        self, findings: Sequence[RecordedFinding], checked: Collection[str]
    ) -> None:
        """Write a verdict for each folder with faults, and clear those on what is sound now."""
        archive, folders = self.repository.archive, self._shared.folders
        faulty: dict[str, list[RecordedFinding]] = {}
        for finding in findings:
            faulty.setdefault(folder_of(f"{finding.key}/") or "", []).append(finding)
        for name, found in faulty.items():
            objects = folders[name].objects if name in folders else {}
            archive.record(
                FolderVerdict(
                    folder=name,
                    level=self.level,
                    verified_at=self.repository.clock.now(),
                    tool_version=__version__,
                    findings=tuple(found),
                    versions={
                        f.key: objects[f.key].version if f.key in objects else "" for f in found
                    },
                )
            )
        for name in {folder_of(key) or "" for key in checked} - faulty.keys():
            if name in folders and folders[name].verdict_keys:
                archive.clear(folders[name], self.level, sound=checked)

    def _check(self, entry: BackupEntry, part: RotationPart | None, partial: PartialResult) -> None:
        if entry.state is State.ARCHIVED:
            self.repository.find(entry.backup_id)  # raises ObjectArchived with a hint
        if entry.read_error is not None:
            raise entry.read_error
        if entry.header is None:
            partial.findings.append(_unreadable(entry))
            partial.objects = 1
            return
        manifest = self.repository.manifest(entry.backup_id)
        verifier = ObjectVerifier(self.repository, self.transfer, manifest, partial, self._shared)
        keys = self._keys(verifier, part)
        partial.objects, partial.checked_keys = len(keys), keys
        # One listing shows all sizes, so they are checked for the whole backup in every part.
        right_size = verifier.check_sizes() & keys
        if self.level is Level.SIZE:
            return
        if self.level is Level.STORED:
            verify_checksums(verifier, right_size)
        elif self.level is Level.TSDB:
            if self.scratch is None:
                raise ValueError("level tsdb needs scratch space")
            verify_blocks(verifier, right_size, self.scratch)
        else:
            verifier.check_bytes(right_size)
        verifier.check_sums(right_size)

    def _keys(self, verifier: ObjectVerifier, part: RotationPart | None) -> set[str]:
        """Return the keys of the objects to check: all, or those of a part."""
        sizes = verifier.expected_sizes()
        if part is None:
            return set(sizes)
        # Level tsdb checks whole blocks, so all files of a block are in the same part.
        block_of = verifier.blocks_of_keys() if self.level is Level.TSDB else {}
        units: dict[str, int] = {}
        for key, size in sizes.items():
            unit = block_of.get(key, key)
            units[unit] = units.get(unit, 0) + size
        assigned = assign(units, part.parts, seed=verifier.manifest.backup_id)
        return {key for key in sizes if assigned[block_of.get(key, key)] == part.part}


def select_backups(
    repository: Repository, names: Sequence[str], *, every: bool
) -> tuple[BackupEntry, ...]:
    """Return the backups that a user asked for: names, or all of them.

    A backup with an unreadable manifest is included: verification reports it as a finding. Raises
    BackupNotFound, NewerFormat or UsageError.
    """
    if every:
        if names:
            raise UsageError("cannot verify: both backups and --all were given")
        return tuple(e for e in repository.entries() if e.state in PRESENT)
    return tuple(repository.named(name) for name in names or ("latest",))


def _unreadable(entry: BackupEntry) -> Finding:
    if entry.state is State.NEWER:
        raise NewerFormat(entry.problem)
    key = f"{entry.backup_id}/{MANIFEST}"
    return Finding(FindingKind.UNREADABLE_MANIFEST, key, entry.problem)


def _verdict(findings: Sequence[Finding], *, complete: bool) -> Verdict:
    if findings:
        return Verdict.FAIL
    return Verdict.PASS if complete else Verdict.INCONCLUSIVE
