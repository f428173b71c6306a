"""Events that the core emits to a listener. Progress, logs and metrics are listeners.

An event is a frozen value with no behaviour; it never decides anything. Sizes are bytes.
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
    """Listen to nothing."""
    del event


@dataclass(frozen=True, slots=True)
class Step(Event):
    """A named step begins; `text` is a sentence for people."""

    name: str
    text: str


@dataclass(frozen=True, slots=True)
class Warned(Event):
    """Something is not as it should be, and the run goes on. `hint` says what to do."""

    text: str
    hint: str = ""


@dataclass(frozen=True, slots=True)
class SnapshotTaken(Event):
    """Prometheus has made a snapshot, or one was adopted after the connection broke."""

    name: str
    blocks: int
    size: int
    took: timedelta
    adopted: bool


@dataclass(frozen=True, slots=True)
class SnapshotRemoved(Event):
    """A snapshot directory is gone."""

    name: str


@dataclass(frozen=True, slots=True)
class SnapshotLeft(Event):
    """A snapshot directory of ours could not be removed and uses disk space."""

    name: str
    cause: str


@dataclass(frozen=True, slots=True)
class PlanMade(Event):
    """What a backup or a restore will move."""

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
    """This many more bytes of the long step are done (negative when a file is begun again)."""

    count: int


@dataclass(frozen=True, slots=True)
class LongStepEnded(Event):
    """The long step is over."""

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
    """One file was written below the target and its sha256 was right."""

    path: str
    size: int


@dataclass(frozen=True, slots=True)
class BlockRestored(Event):
    """A whole block was renamed into the target."""

    ulid: str
    size: int


@dataclass(frozen=True, slots=True)
class BlockMovedAway(Event):
    """A bad block was renamed out of a data directory, to `place`, and why."""

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
    """A TSDB block was read whole; `faults` things are wrong with it."""

    ulid: str
    verdict: str
    faults: int


@dataclass(frozen=True, slots=True)
class BackupCommitted(Event):
    """The manifest is written: the backup exists."""

    backup_id: str
    size: int
    uploaded: int
    copied: int


@dataclass(frozen=True, slots=True)
class BackupKept(Event):
    """Retention keeps a backup, and why."""

    backup_id: str
    reasons: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class BackupDeleted(Event):
    """Retention removed a backup, or what an interrupted run or deletion had left."""

    backup_id: str
    objects: int
    size: int
    reason: str


@dataclass(frozen=True, slots=True)
class FingerprintsTaken(Event):
    """The source was queried at the instant `at`: the number of queries answered, of their
    series in total, and of inconclusive queries.
    """

    at: datetime | None
    answered: int
    inconclusive: int
    series: int


@dataclass(frozen=True, slots=True)
class FingerprintCompared(Event):
    """A drill asked a query again; `verdict` pass, fail or inconclusive, `detail` says why."""

    query: str
    verdict: str
    detail: str
