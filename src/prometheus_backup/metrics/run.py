"""Metrics of one run: a listener that counts its events."""

import threading
from collections import Counter
from collections.abc import Mapping

from prometheus_backup import events
from prometheus_backup.clock import Clock
from prometheus_backup.metrics.families import Sample, sample

_DELETED = ("deleted_backups", "deleted_objects", "deleted_bytes")
_UPLOADED = ("uploaded_bytes", "uploaded_files", "copied_bytes", "copied_files")
_RESTORED = ("restored_bytes", "restored_files")
_COUNTED: Mapping[str, tuple[str, ...]] = {
    "backup": (*_UPLOADED, *_DELETED),
    "prune": _DELETED,
    "restore": _RESTORED,
    "drill": (*_RESTORED, "findings"),
    "verify": ("findings",),
}
"""The counters of each command, reported even if they are zero."""


class RunRecorder:
    """Records the events of one run, from any thread; `samples` returns its metrics."""

    def __init__(self, command: str, clock: Clock) -> None:
        self._command = command
        self._clock = clock
        self._lock = threading.Lock()
        self._began = clock.monotonic()
        self._counts: Counter[str] = Counter()
        self._leaked: set[str] = set()
        self._phases: dict[str, float] = {}
        self._phase = ""
        self._phase_began = self._began

    def __call__(self, event: events.Event) -> None:
        """Count one event."""
        with self._lock:
            match event:
                case events.Step(name=name):
                    self._enter(name)
                case events.FileUploaded(size=size):
                    self._counts += Counter(uploaded_bytes=size, uploaded_files=1)
                case events.FileCopied(size=size):
                    self._counts += Counter(copied_bytes=size, copied_files=1)
                case events.FileRestored(size=size):
                    self._counts += Counter(restored_bytes=size, restored_files=1)
                case events.BackupDeleted(objects=objects, size=size):
                    self._counts += Counter(
                        deleted_backups=1, deleted_objects=objects, deleted_bytes=size
                    )
                case events.BackupVerified(findings=findings):
                    self._counts["findings"] += findings
                case events.SnapshotLeft(name=name):
                    self._leaked.add(name)
                case events.SnapshotRemoved(name=name):
                    self._leaked.discard(name)

    def samples(self, exit_code: int) -> list[Sample]:
        """Return the metrics of the run, which has ended.

        The time of the last success is included only if this run succeeded; callers must keep the
        value of earlier runs.
        """
        with self._lock:
            self._enter("")
            counts, leaked, phases = dict(self._counts), len(self._leaked), dict(self._phases)
        command, now = self._command, self._clock.now().timestamp()
        samples = [sample("last_attempt_timestamp_seconds", now, command=command)]
        if exit_code == 0:
            samples.append(sample("last_success_timestamp_seconds", now, command=command))
        samples += [
            sample("last_run_exit_code", exit_code, command=command),
            sample(
                "last_run_duration_seconds",
                self._clock.monotonic() - self._began,
                command=command,
            ),
        ]
        samples += [
            sample("last_run_phase_duration_seconds", seconds, command=command, phase=phase)
            for phase, seconds in phases.items()
        ]
        samples += [
            sample(f"last_run_{name}", counts.get(name, 0), command=command)
            for name in _COUNTED.get(command, ())
        ]
        if command == "backup":
            samples.append(sample("leaked_snapshots", leaked, command=command))
        return samples

    def _enter(self, phase: str) -> None:
        now = self._clock.monotonic()
        if self._phase:
            spent = self._phases.get(self._phase, 0.0)
            self._phases[self._phase] = spent + now - self._phase_began
        self._phase, self._phase_began = phase, now
