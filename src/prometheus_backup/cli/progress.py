"""The listener for terminals: a line per step, and a bar with bytes, rate and time left."""

import threading
from datetime import timedelta

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskID, TextColumn

from prometheus_backup import events
from prometheus_backup.cli.pace import Pace
from prometheus_backup.clock import Clock, SystemClock
from prometheus_backup.model import counted, size

_NAMES = {
    "transfer": "transferring",
    "verify": "verifying",
    "restore": "restoring",
    "inspect": "reading",
    "scan": "checking",
    "log": "checking the WAL",
    "heal": "downloading blocks",
}


class ProgressListener:
    """Turns events into lines and a bar on a terminal's standard error."""

    def __init__(self, console: Console, clock: Clock | None = None) -> None:
        self._console = console
        self._pace = Pace(clock or SystemClock())
        self._lock = threading.Lock()
        self._progress: Progress | None = None
        self._task: TaskID | None = None

    def __call__(self, event: events.Event) -> None:
        """Show one event."""
        match event:
            case events.BytesMoved():
                self._advance(event)
            case events.LongStepBegan():
                self._begin(event)
            case events.LongStepEnded():
                self.stop()
            case events.Step(text=text):
                self._print(f"[bold]·[/bold] {escape(text)}")
            case events.Warned(text=text, hint=hint):
                self._warn(text + (f"\n  hint: {hint}" if hint else ""))
            case events.SnapshotLeft(name=name, cause=cause):
                self._warn(f"snapshot {name} could not be removed ({cause}) and uses disk space")
            case _:
                if detail := _detail(event):
                    self._print(f"  {escape(detail)}")

    def stop(self) -> None:
        """Remove the bar."""
        if self._progress is not None:
            self._progress.stop()
            self._progress = self._task = None

    def _begin(self, event: events.LongStepBegan) -> None:
        self.stop()
        if not event.total:
            return
        self._pace.begin(event)
        self._progress = Progress(
            TextColumn("  {task.description}"),
            BarColumn(),
            TextColumn("{task.fields[pace]}"),
            console=self._console,
            transient=True,
        )
        name = _NAMES.get(event.name, event.name)
        self._task = self._progress.add_task(name, total=event.total, pace=self._pace_text())
        self._progress.start()

    def _advance(self, event: events.BytesMoved) -> None:
        with self._lock:
            if self._progress is None or self._task is None:
                return
            self._pace.add(event)
            self._progress.update(self._task, completed=self._pace.done, pace=self._pace_text())

    def _pace_text(self) -> str:
        pace = self._pace
        left = pace.seconds_left
        time = "" if left is None else f"  {timedelta(seconds=left)} left"
        return f"{size(pace.done)} of {size(pace.total)}  {size(pace.rate)}/s{time}"

    def _warn(self, text: str) -> None:
        self._print(f"[yellow]warning:[/yellow] {escape(text)}")

    def _print(self, text: str) -> None:
        self._console.print(text, highlight=False, soft_wrap=True)


def _detail(event: events.Event) -> str:
    match event:
        case events.SnapshotTaken(name=name, blocks=blocks, size=total):
            return f"snapshot {name}: {counted(blocks, 'block')}, {size(total)}"
        case events.BlocksHeld(blocks=blocks, size=total, linked=linked):
            return (
                f"{counted(blocks, 'block')} {'linked' if linked else 'held open'}, {size(total)}"
            )
        case events.PlanMade(upload_files=files, upload_size=total, copy_files=0):
            return f"{counted(files, 'file')} to transfer, {size(total)}"
        case events.PlanMade():
            return (
                f"{counted(event.upload_files, 'file')} to transfer, {size(event.upload_size)}; "
                f"{event.copy_files} copied by the store, {size(event.copy_size)}"
            )
        case events.BlockChecked(ulid=ulid, verdict="fail", faults=faults):
            return f"block {ulid} is corrupt: {counted(faults, 'fault')}"
        case events.FingerprintsTaken(answered=answered, series=series, inconclusive=rest):
            failed = f", {rest} inconclusive" if rest else ""
            return f"{counted(answered, 'fingerprint')} of {series:,} series{failed}"
        case events.FingerprintCompared(query=query, verdict=verdict):
            return f"{verdict}: {query}"
        case events.BlockMovedAway(name=name, place=place):
            return f"{name} moved away to {place}"
        case events.BackupDeleted(backup_id=backup_id, reason=reason):
            return f"retention deleted {backup_id} ({reason})"
        case _:
            return ""
