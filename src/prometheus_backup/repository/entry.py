"""A backup of a repository as it was read: its state, and what is known of it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from enum import StrEnum

from prometheus_backup.errors import RepositoryError
from prometheus_backup.model import Level
from prometheus_backup.repository.hold import Hold
from prometheus_backup.repository.layout import backup_time
from prometheus_backup.repository.manifest import Header, Incomplete, NamedFolder
from prometheus_backup.repository.verification import (
    Rotation,
    Verification,
    passed_levels,
    uncleared_failures,
)
from prometheus_backup.spans import Span

GRACE = timedelta(hours=24)
"""A run is dead if its incomplete.json has not changed for this long, by the store's clock."""

_ROTATION_TOLERANCE = 1.1


class State(StrEnum):
    """The state of a `backup-*` folder."""

    COMMITTED = "committed"
    INCOMPLETE = "incomplete"
    DELETING = "deleting"
    FOREIGN = "foreign"
    UNREADABLE = "unreadable"
    ARCHIVED = "archived"
    NEWER = "newer-format"


CANNOT_BE_READ = (State.UNREADABLE, State.ARCHIVED, State.NEWER)
"""States of a backup of which the manifest cannot be read."""
PRESENT = (State.COMMITTED, *CANNOT_BE_READ)
"""States of a backup, whether or not its manifest can be read."""


@dataclass(frozen=True, slots=True)
class BackupEntry:
    """A `backup-*` folder of the repository, as it was when it was read.

    `header` (the manifest without its blocks) is set for COMMITTED only. `incomplete` may be set
    in any state, with the store's LastModified of it. `folders` are those of the archive that it
    names, and `shared_failures` the faults found in them. `problem` is why the manifest is
    unreadable; `read_error` is set if the store did not return an object, so the cause may be
    temporary.
    """

    backup_id: str
    state: State
    header: Header | None = None
    spans: tuple[Span, ...] = ()
    folders: Mapping[str, NamedFolder] = field(default_factory=dict)
    problem: str = ""
    incomplete: Incomplete | None = None
    incomplete_modified: datetime | None = None
    verifications: tuple[Verification, ...] = ()
    rotations: tuple[Rotation, ...] = ()
    shared_failures: tuple[Verification, ...] = ()
    hold: Hold | None = None
    read_error: RepositoryError | None = None

    @property
    def time(self) -> datetime:
        """Return the instant in the id."""
        return backup_time(self.backup_id)

    @property
    def failure(self) -> Verification | None:
        """Return a failed verification that no later pass has cleared, if there is one."""
        return next(iter(self._failures), None)

    @property
    def _failures(self) -> tuple[Verification, ...]:
        return self.shared_failures + uncleared_failures(self.verifications, self.rotations)

    @property
    def lost(self) -> tuple[str, ...]:
        """Return keys of the archive that it names and that do not exist."""
        findings = (f for failure in self.shared_failures for f in failure.findings)
        return tuple(f.key for f in findings if f.is_gone)

    @property
    def good(self) -> bool:
        """Return whether it is committed, readable, not degraded, and not failed."""
        return self.header is not None and not self.header.degraded and self.failure is None

    @property
    def intact(self) -> bool:
        """Return whether, as far as is known, its objects hold the bytes that were backed up.

        A degraded backup is intact, and so is one of blocks that were damaged on the source.
        """
        return self.header is not None and all(f.is_source_damage for f in self._failures)

    @property
    def corrupt_blocks(self) -> frozenset[str]:
        """Return the ULIDs of blocks that were already damaged when they were backed up."""
        findings = (f for failure in self._failures for f in failure.findings)
        return frozenset(
            name for f in findings if f.is_source_damage for name in f.key.split("/")[1:2]
        )

    @property
    def verified(self) -> tuple[Level, datetime] | None:
        """Return the highest level that the whole backup passed, and when."""
        passed = passed_levels(self.verifications, self.rotations)
        if self.header and self.header.verified:
            passed.append((self.header.verified, self.header.finished_at))
        return max(passed, key=lambda p: (p[0].rank, p[1]), default=None)

    def held(self, today: date) -> bool:
        """Return whether a hold keeps it on this UTC day, whatever retention says."""
        return self.hold is not None and self.hold.in_force(today)

    @property
    def read_whole_at(self) -> datetime | None:
        """Return when all its bytes were last read and right; None if they never were.

        The verification before the commit reads what was sent, and not what the store copied or the
        archive had.
        """
        passed = passed_levels(self.verifications, self.rotations)
        read = [at for level, at in passed if level.rank >= Level.CHECKSUM.rank]
        header = self.header
        sent_all = header and not header.totals.copied_bytes and not header.totals.shared_bytes
        if header and header.verified and sent_all:
            read += [header.finished_at] if header.verified.rank >= Level.CHECKSUM.rank else []
        return max(read, default=None)

    def is_stale(self, *, now: datetime, rotation: timedelta) -> bool:
        """Return whether a rotation of `verify` should have read it since it last was.

        `rotation` is how long one takes. A tenth more is allowed: runs start late, or fail once.
        """
        if self.header is None:
            return False
        made = max(self.time, self.header.finished_at)
        return now - max(made, self.read_whole_at or made) > rotation * _ROTATION_TOLERANCE

    def is_dead(self, *, store_now: datetime, dead_runs: frozenset[str]) -> bool:
        """Return whether the run that wrote its incomplete.json will never continue.

        `dead_runs` are run ids that the host lock proves dead; `store_now` is the store's time.
        """
        if self.incomplete is None or self.incomplete_modified is None:
            return False
        return (
            self.incomplete.state == "abandoned"
            or self.incomplete.run_id in dead_runs
            or store_now - self.incomplete_modified > GRACE
        )


def committed(entries: Sequence[BackupEntry]) -> tuple[BackupEntry, ...]:
    """Return the entries that have a readable manifest."""
    return tuple(e for e in entries if e.state is State.COMMITTED)


def newest_intact(entries: Sequence[BackupEntry]) -> BackupEntry | None:
    """Return the newest intact backup of these, oldest first.

    A degraded one counts: uploading everything again every night would not repair the source.
    """
    intact = [e for e in entries if e.intact]
    return intact[-1] if intact else None


def newest_good(entries: Sequence[BackupEntry]) -> BackupEntry | None:
    """Return the newest good backup of these, oldest first."""
    good = [e for e in entries if e.good]
    return good[-1] if good else None
