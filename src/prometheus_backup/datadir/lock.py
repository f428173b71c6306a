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

from prometheus_backup.errors import RepositoryLocked, SnapshotUnusable, UsageError
from prometheus_backup.folder import Folder
from prometheus_backup.repository.layout import TOOL_FOLDER

_RUNS = "runs"
_LOCK = "lock"
_JSON = ".json"
_PART = ".new"
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

    def __init__(self, runs: Folder | None, descriptor: int | None) -> None:
        self._runs = runs
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
        try:
            with Folder.hold(data_dir) as held, held.child(TOOL_FOLDER, create=True) as folder:
                descriptor = folder.open(_LOCK, os.O_RDWR | os.O_CREAT)
                try:
                    runs = folder.child(_RUNS, create=True)
                except OSError:
                    os.close(descriptor)
                    raise
        except OSError as error:
            if error.errno in _NOT_WRITABLE:
                return cls(None, None)
            if error.errno in _FULL:
                raise _unwritable(data_dir / TOOL_FOLDER, error) from error
            raise _not_locked(data_dir, error) from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(descriptor)
            runs.close()
            if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
                raise RepositoryLocked(
                    f"cannot lock {data_dir}: another prometheus-backup is using it"
                ) from None
            raise UsageError(f"cannot lock {data_dir}: {error.strerror}") from error
        return cls(runs, descriptor)

    def release(self) -> None:
        """Release the lock."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
        if self._runs is not None:
            self._runs.close()
            self._runs = None

    def record(self, intent: Intent) -> None:
        """Write an intent durably; call this before carrying it out. Raises SnapshotUnusable."""
        self._recorded = intent
        if self._runs is None:
            return
        try:
            self._runs.write(f"{intent.run_id}{_JSON}", json.dumps(asdict(intent)).encode())
        except OSError as error:
            raise _unwritable(self._runs.path, error) from error

    def forget(self, run_id: str) -> None:
        """Remove the intent of a run that has nothing left to clean up. A failure is harmless."""
        if self._runs is not None:
            with contextlib.suppress(OSError):
                self._runs.unlink(f"{run_id}{_JSON}")

    def dead_intents(self, *, own_run_id: str) -> Sequence[Intent]:
        """Return the intents of other runs, which are dead because we hold the lock."""
        if self._runs is None:
            return []
        intents = []
        for name in self._runs.names():
            run_id = name.removesuffix(_JSON)
            intent = _read(self._runs, name) if name.endswith(_JSON) else None
            if intent is None or intent.run_id != run_id:
                # Incomplete: the run died while it wrote this, before it did anything.
                if name.endswith((_JSON, _PART)):
                    self._runs.unlink(name)
            elif intent.run_id != own_run_id:
                intents.append(intent)
        return intents


def _not_locked(data_dir: Path, error: OSError) -> UsageError:
    if error.errno in (errno.ENOTDIR, errno.ELOOP) and data_dir.is_dir():
        return UsageError(
            f"cannot lock {data_dir}: {error.filename} is not a directory or file of this program",
            hint="move it away; links are not followed",
        )
    return UsageError(
        f"cannot lock {data_dir}: {error.strerror}",
        hint="set PROMETHEUS_DATA_DIR to Prometheus' data directory",
    )


def _unwritable(path: Path, error: OSError) -> SnapshotUnusable:
    hint = "free disk space and inodes on Prometheus' volume" if error.errno in _FULL else None
    return SnapshotUnusable(f"cannot write {path}: {error.strerror}", hint=hint)


def _read(runs: Folder, name: str) -> Intent | None:
    """Return the intent in a file; None if it is not one that this program wrote completely."""
    try:
        fields = json.loads(runs.read(name))
        intent = Intent(**fields | {"known": tuple(fields.get("known", ()))})
        if intent.asked_at:
            datetime.fromisoformat(intent.asked_at)
    except (OSError, ValueError, TypeError, AttributeError, RecursionError):
        return None
    texts = [v for n, v in asdict(intent).items() if n != "known"]
    return intent if all(isinstance(text, str) for text in (*texts, *intent.known)) else None
