"""Events that the core emits to a listener. Progress, logs and metrics are listeners.

An event is a frozen value without behaviour. Sizes are in bytes.
"""

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta


@dataclass(frozen=True, slots=True)
class Event:
    """Root of all events."""


Listener = Callable[[Event], None]


def ignore(event: Event) -> None:
    """Ignore the event: the listener for callers that need none."""
    del event


@dataclass(frozen=True, slots=True)
class Step(Event):
    """A named step begins; `text` is a sentence for people."""

    name: str
    text: str


@dataclass(frozen=True, slots=True)
class Warned(Event):
    """A problem that does not stop the run. `hint` says what to do."""

    text: str
    hint: str = ""


@dataclass(frozen=True, slots=True)
class SnapshotTaken(Event):
    """Prometheus took a snapshot, or one was adopted after the connection was lost."""

    name: str
    blocks: int
    size: int
    took: timedelta
    adopted: bool


@dataclass(frozen=True, slots=True)
class BlocksHeld(Event):
    """The blocks on disk are kept readable: linked, or else held open."""

    blocks: int
    size: int
    took: timedelta
    linked: bool


@dataclass(frozen=True, slots=True)
class SnapshotRemoved(Event):
    """A snapshot directory was removed."""

    name: str


@dataclass(frozen=True, slots=True)
class SnapshotLeft(Event):
    """A snapshot directory of this program could not be removed and uses disk space."""

    name: str
    cause: str


@dataclass(frozen=True, slots=True)
class PlanMade(Event):
    """The files and bytes that a backup will upload and copy, or a restore will download."""

    upload_files: int
    upload_size: int
    copy_files: int
    copy_size: int


@dataclass(frozen=True, slots=True)
class LongStepBegan(Event):
    """A step that moves bytes begins; progress is counted against `total`."""

    name: str
    total: int


@dataclass(frozen=True, slots=True)
class BytesMoved(Event):
    """`count` more bytes of the long step are done (negative if a file is started again).

    `transferred` is false for bytes that the store copied.
    """

    count: int
    transferred: bool = True


@dataclass(frozen=True, slots=True)
class LongStepEnded(Event):
    """The long step ended."""

    name: str


@contextlib.contextmanager
def long_step(listener: Listener, name: str, total: int) -> Iterator[None]:
    """Emit LongStepBegan, then LongStepEnded when the block ends."""
    listener(LongStepBegan(name, total))
    try:
        yield
    finally:
        listener(LongStepEnded(name))


@dataclass(frozen=True, slots=True)
class FileUploaded(Event):
    """One object was sent."""

    key: str
    size: int


@dataclass(frozen=True, slots=True)
class FileCopied(Event):
    """One object was copied by the store."""

    key: str
    size: int


@dataclass(frozen=True, slots=True)
class FileRestored(Event):
    """One file was written into the target, and its SHA-256 matches the manifest."""

    path: str
    size: int


@dataclass(frozen=True, slots=True)
class BlockRestored(Event):
    """A whole block was renamed into the target."""

    ulid: str
    size: int


@dataclass(frozen=True, slots=True)
class BlockMovedAway(Event):
    """A bad block was moved out of a data directory to `place`."""

    name: str
    place: str
    reason: str


@dataclass(frozen=True, slots=True)
class BackupVerified(Event):
    """A backup was verified with this number of `findings`. `part` is `3/7`, or empty."""

    backup_id: str
    level: str
    verdict: str
    findings: int
    part: str = ""


@dataclass(frozen=True, slots=True)
class BlockChecked(Event):
    """A TSDB block was read completely, with this number of `faults`."""

    ulid: str
    verdict: str
    faults: int


@dataclass(frozen=True, slots=True)
class BackupCommitted(Event):
    """The manifest was written: the backup exists."""

    backup_id: str
    size: int
    uploaded: int
    copied: int


@dataclass(frozen=True, slots=True)
class BackupKept(Event):
    """Retention keeps a backup, for these reasons."""

    backup_id: str
    reasons: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ArchiveFolderDeleted(Event):
    """A block that no backup names was deleted from the archive; size in bytes."""

    folder: str
    objects: int
    size: int


@dataclass(frozen=True, slots=True)
class BackupDeleted(Event):
    """Retention deleted a backup, or leftovers of an interrupted run or deletion."""

    backup_id: str
    objects: int
    size: int
    reason: str


@dataclass(frozen=True, slots=True)
class FingerprintsTaken(Event):
    """The source was queried at the instant `at`.

    Counts the queries answered, the series in all answers, and the inconclusive queries.
    """

    at: datetime | None
    answered: int
    inconclusive: int
    series: int


@dataclass(frozen=True, slots=True)
class FingerprintCompared(Event):
    """A drill repeated a query. `verdict` is pass, fail or inconclusive; `detail` says why."""

    query: str
    verdict: str
    detail: str
