"""The host lock, which allows one run at a time on a data directory, and the intents of runs.

The kernel releases the lock when its holder dies. So a run that holds the lock knows that every
other run with an intent here is dead. See docs/design.md, "Interruption and concurrent runs".
"""

import contextlib
import errno
import fcntl
import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Self

from prometheus_backup.datadir.filesystem import write_durably
from prometheus_backup.errors import RepositoryLocked, SnapshotUnusable, UsageError
from prometheus_backup.repository.layout import TOOL_FOLDER

_FULL = (errno.ENOSPC, errno.EDQUOT)
_NOT_WRITABLE = {errno.EROFS, errno.EACCES, errno.EPERM}


@dataclass(frozen=True, slots=True)
class Intent:
    """What a run is about to do, recorded so that a later run can clean up after it.

    `asked_at` is the time of the snapshot request (RFC 3339, Prometheus' clock), `known` are the
    snapshots that existed before, and `snapshot` is the name of the run's own, once known.
    """

    run_id: str
    backup_id: str = ""
    repository: str = ""
    asked_at: str = ""
    known: tuple[str, ...] = ()
    snapshot: str = ""


class HostLock:
    """The lock on a data directory; `held` is False for a read-only one, which cannot be locked."""

    def __init__(self, folder: Path, descriptor: int | None) -> None:
        self._folder = folder
        self._descriptor = descriptor
        self._recorded: Intent | None = None

    @property
    def recorded(self) -> Intent | None:
        """Return the last recorded intent, the most complete record of what to clean up."""
        return self._recorded

    @property
    def held(self) -> bool:
        """Return whether the lock is held; a read-only directory cannot be locked."""
        return self._descriptor is not None

    @classmethod
    def take(cls, data_dir: Path) -> Self:
        """Take the lock, without waiting.

        Raises RepositoryLocked if another run holds it, UsageError if the directory does not exist,
        SnapshotUnusable if its volume is full.
        """
        folder = data_dir / TOOL_FOLDER
        try:
            (folder / "runs").mkdir(parents=True, exist_ok=True)
            descriptor = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            if error.errno in _NOT_WRITABLE:
                return cls(folder, None)
            if error.errno in _FULL:
                raise _unwritable(folder, error) from error
            raise UsageError(
                f"cannot lock {data_dir}: {error.strerror}",
                hint="set PROMETHEUS_DATA_DIR to Prometheus' data directory",
            ) from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(descriptor)
            if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
                raise RepositoryLocked(
                    f"cannot lock {data_dir}: another prometheus-backup is using it"
                ) from None
            raise UsageError(f"cannot lock {data_dir}: {error.strerror}") from error
        return cls(folder, descriptor)

    def release(self) -> None:
        """Release the lock."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def record(self, intent: Intent) -> None:
        """Write an intent durably; call this before carrying it out. Raises SnapshotUnusable."""
        self._recorded = intent
        if not self.held:
            return
        path = self._path(intent.run_id)
        try:
            write_durably(path, json.dumps(asdict(intent)).encode())
        except OSError as error:
            raise _unwritable(path, error) from error

    def forget(self, run_id: str) -> None:
        """Remove the intent of a run that has nothing left to clean up. A failure is harmless."""
        if self.held:
            with contextlib.suppress(OSError):
                self._path(run_id).unlink(missing_ok=True)

    def dead_intents(self, *, own_run_id: str) -> Sequence[Intent]:
        """Return the intents of other runs, which are dead because we hold the lock."""
        if not self.held:
            return []
        intents = []
        for path in (self._folder / "runs").glob("*.new"):
            path.unlink(missing_ok=True)  # the run died while it wrote this
        for path in sorted((self._folder / "runs").glob("*.json")):
            intent = _read(path)
            if intent is None:
                path.unlink(missing_ok=True)  # incomplete: the run died before it did anything
            elif intent.run_id != own_run_id:
                intents.append(intent)
        return intents

    def _path(self, run_id: str) -> Path:
        return self._folder / "runs" / f"{run_id}.json"


def _unwritable(path: Path, error: OSError) -> SnapshotUnusable:
    hint = "free disk space and inodes on Prometheus' volume" if error.errno in _FULL else None
    return SnapshotUnusable(f"cannot write {path}: {error.strerror}", hint=hint)


def _read(path: Path) -> Intent | None:
    """Return the intent in a file; None if it is not one that this program wrote completely."""
    try:
        fields = json.loads(path.read_bytes())
        intent = Intent(**fields | {"known": tuple(fields.get("known", ()))})
        if intent.asked_at:
            datetime.fromisoformat(intent.asked_at)
    except (OSError, ValueError, TypeError, AttributeError, RecursionError):
        return None
    texts = [v for n, v in asdict(intent).items() if n != "known"]
    is_ours = intent.run_id == path.stem and all(
        isinstance(text, str) for text in (*texts, *intent.known)
    )
    return intent if is_ours else None
