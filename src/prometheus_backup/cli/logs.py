"""The listener for pods and files: a log line per step, and every ten seconds in a long one."""

import json
import sys
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from prometheus_backup import events
from prometheus_backup.cli.pace import Pace
from prometheus_backup.clock import Clock, SystemClock
from prometheus_backup.model import size

_EVERY = 10.0  # seconds between lines of a long step
_LEVELS = ("debug", "info", "warning", "error")


class Log:
    """Lines on standard error: time, level, text, then `name=value` fields; or JSON objects."""

    def __init__(self, *, level: str, form: str) -> None:
        self._shown = _LEVELS[_LEVELS.index(level) :]
        self._json = form == "json"
        self._lock = threading.Lock()

    def debug(self, text: str, **fields: object) -> None:
        """Write a detail for developers."""
        self._write("debug", text, fields)

    def info(self, text: str, **fields: object) -> None:
        """Write a normal event."""
        self._write("info", text, fields)

    def warning(self, text: str, **fields: object) -> None:
        """Write a problem that does not stop the command."""
        self._write("warning", text, fields)

    def error(self, text: str, **fields: object) -> None:
        """Write why the command failed."""
        self._write("error", text, fields)

    def _write(self, level: str, text: str, fields: dict[str, object]) -> None:
        if level not in self._shown:
            return
        now = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        if self._json:
            line = json.dumps({"time": now, "level": level, "message": text, **fields}, default=str)
        else:
            named = (f"{k}={_quoted(str(v))}" for k, v in fields.items())
            line = " ".join([now, f"{level:7}", text, *named])
        with self._lock:
            sys.stderr.write(line + "\n")
            sys.stderr.flush()


class LogListener:
    """Turns events into log lines."""

    def __init__(self, log: Log, clock: Clock | None = None) -> None:
        self._log = log
        self._lock = threading.Lock()
        self._clock = clock or SystemClock()
        self._pace = Pace(self._clock)
        self._next = 0.0
        self._lines: dict[type[events.Event], Callable[[Any], None]] = {
            events.LongStepBegan: self._long_step,
            events.Step: self._step,
            events.Warned: self._warned,
            events.SnapshotTaken: self._snapshot,
            events.BlocksHeld: self._held,
            events.SnapshotRemoved: self._removed,
            events.SnapshotLeft: self._left,
            events.PlanMade: self._planned,
            events.FileUploaded: self._uploaded,
            events.FileCopied: self._copied,
            events.BlockRestored: self._restored,
            events.BlockChecked: self._checked,
            events.BlockMovedAway: self._quarantined,
            events.BackupVerified: self._verified,
            events.BackupCommitted: self._committed,
            events.BackupKept: self._kept,
            events.BackupDeleted: self._deleted,
            events.ArchiveFolderDeleted: self._archive_deleted,
            events.FingerprintsTaken: self._fingerprints,
            events.FingerprintCompared: self._compared,
        }

    def __call__(self, event: events.Event) -> None:
        """Log one event."""
        if isinstance(event, events.BytesMoved):
            self._count(event)
            return
        line = self._lines.get(type(event))
        if line is not None:
            line(event)

    def _count(self, event: events.BytesMoved) -> None:
        with self._lock:
            pace = self._pace
            pace.add(event)
            if self._clock.monotonic() < self._next:
                return
            self._next = self._clock.monotonic() + _EVERY
            done, total, rate, left = pace.done, pace.total, pace.rate, pace.seconds_left
        self._log.info(
            "progress",
            done=size(done),
            total=size(total),
            rate=f"{size(rate)}/s",
            seconds_left=left or 0,
        )

    def _long_step(self, event: events.LongStepBegan) -> None:
        with self._lock:
            self._pace.begin(event)
            self._next = self._clock.monotonic() + _EVERY

    def _step(self, event: events.Step) -> None:
        self._log.info(event.text, step=event.name)

    def _warned(self, event: events.Warned) -> None:
        self._log.warning(event.text, **({"hint": event.hint} if event.hint else {}))

    def _snapshot(self, event: events.SnapshotTaken) -> None:
        self._log.info(
            "snapshot adopted" if event.adopted else "snapshot taken",
            snapshot=event.name,
            blocks=event.blocks,
            bytes=event.size,
            seconds=round(event.took.total_seconds(), 1),
        )

    def _held(self, event: events.BlocksHeld) -> None:
        self._log.info(
            "blocks linked" if event.linked else "blocks held open",
            blocks=event.blocks,
            bytes=event.size,
            seconds=round(event.took.total_seconds(), 1),
        )

    def _removed(self, event: events.SnapshotRemoved) -> None:
        self._log.info("snapshot removed", snapshot=event.name)

    def _left(self, event: events.SnapshotLeft) -> None:
        self._log.warning(
            "snapshot could not be removed and uses disk space",
            snapshot=event.name,
            cause=event.cause,
            hint="run as the same user as Prometheus, with the volume mounted read-write",
        )

    def _planned(self, event: events.PlanMade) -> None:
        self._log.info(
            "planned",
            transfer_files=event.upload_files,
            transfer_bytes=event.upload_size,
            copy_files=event.copy_files,
            copy_bytes=event.copy_size,
        )

    def _uploaded(self, event: events.FileUploaded) -> None:
        self._log.debug("uploaded", key=event.key, bytes=event.size)

    def _copied(self, event: events.FileCopied) -> None:
        self._log.debug("copied by the store", key=event.key, bytes=event.size)

    def _restored(self, event: events.BlockRestored) -> None:
        self._log.info("block restored", block=event.ulid, bytes=event.size)

    def _checked(self, event: events.BlockChecked) -> None:
        log = self._log.error if event.verdict == "fail" else self._log.debug
        log(
            "block is corrupt" if event.verdict == "fail" else f"block checked: {event.verdict}",
            block=event.ulid,
            faults=event.faults,
        )

    def _quarantined(self, event: events.BlockMovedAway) -> None:
        self._log.info("block moved away", block=event.name, to=event.place, because=event.reason)

    def _verified(self, event: events.BackupVerified) -> None:
        log = self._log.error if event.verdict == "fail" else self._log.info
        log(
            "Verification failed" if event.verdict == "fail" else f"verification: {event.verdict}",
            backup=event.backup_id,
            level=event.level,
            **({"part": event.part} if event.part else {}),
            findings=event.findings,
        )

    def _committed(self, event: events.BackupCommitted) -> None:
        self._log.info(
            "backup committed",
            backup=event.backup_id,
            bytes=event.size,
            uploaded_bytes=event.uploaded,
            copied_bytes=event.copied,
        )

    def _kept(self, event: events.BackupKept) -> None:
        self._log.debug("retention keeps", backup=event.backup_id, because="; ".join(event.reasons))

    def _deleted(self, event: events.BackupDeleted) -> None:
        self._log.info(
            "retention deleted", backup=event.backup_id, objects=event.objects, because=event.reason
        )

    def _archive_deleted(self, event: events.ArchiveFolderDeleted) -> None:
        self._log.info(
            "retention deleted from the archive",
            folder=event.folder,
            objects=event.objects,
            bytes=event.size,
            because="no backup names it",
        )

    def _fingerprints(self, event: events.FingerprintsTaken) -> None:
        self._log.info(
            "fingerprints taken",
            at=event.at.isoformat() if event.at else "",
            answered=event.answered,
            series=event.series,
            inconclusive=event.inconclusive,
        )

    def _compared(self, event: events.FingerprintCompared) -> None:
        log = self._log.info if event.verdict == "pass" else self._log.warning
        detail = {"because": event.detail} if event.detail else {}
        log(f"fingerprint: {event.verdict}", query=event.query, **detail)


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False) if not text or set(text) & set(' "=') else text
