"""Reports the end of a run to monitoring. Failures here are logged and change no outcome."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from prometheus_backup.cli.context import CommandContext
from prometheus_backup.clock import Clock
from prometheus_backup.errors import (
    BackupToolError,
    Interrupted,
    NewerFormat,
    RepositoryDenied,
    RepositoryNotFound,
    RepositoryUnavailable,
    Terminated,
)
from prometheus_backup.events import Event, Listener, Warned

if TYPE_CHECKING:
    from prometheus_backup.metrics.families import Sample
    from prometheus_backup.metrics.run import RunRecorder
    from prometheus_backup.repository.archive import ArchivedFolder
    from prometheus_backup.repository.entry import BackupEntry

_T = TypeVar("_T")

_RUNS = ("backup", "verify", "prune", "restore", "drill")
"""Commands that are reported; `check` only checks the settings."""
_CHANGES_NO_REPOSITORY = ("restore",)
_UNREAD = {
    e.exit_code for e in (RepositoryNotFound, RepositoryDenied, RepositoryUnavailable, NewerFormat)
}
_STOPPED = {Interrupted.exit_code, Terminated.exit_code}


class Monitoring:
    """Reports one run to the configured destinations, if any."""

    def __init__(self, command: str, context: CommandContext) -> None:
        values = context.values if command in _RUNS else {}
        self._command = command
        self._context = context
        self._warn = context.listener
        self._healthcheck = values.get("healthcheck_url")
        self._pushgateway = values.get("pushgateway_url")
        self._textfile = values.get("metrics_textfile")
        wanted = self._pushgateway or self._textfile
        self._recorder = _recorder(command, context.clock) if wanted else None

    def recording(self, listener: Listener) -> Listener:
        """Return a listener that records each event for the metrics, then passes it on."""
        recorder = self._recorder
        if recorder is None:
            return listener

        def record(event: Event) -> None:
            recorder(event)
            listener(event)

        return record

    def end(self, exit_code: int, cause: str) -> None:
        """Report to all destinations that the run ended with this exit code.

        `cause` says why, unless it is 0.
        """
        # First, so that the duration excludes the steps below.
        run = self._recorder.samples(exit_code) if self._recorder else None
        if self._healthcheck:
            self._ping(self._healthcheck, None if exit_code == 0 else f"exit {exit_code}: {cause}")
        if run:
            self._publish(run, exit_code)

    def _ping(self, url: str, failure: str | None) -> None:
        from prometheus_backup.metrics.push import ping

        self._try("cannot ping HEALTHCHECK_URL", lambda: ping(url, failure=failure))

    def _publish(self, samples: "Sequence[Sample]", exit_code: int) -> None:
        labels = self._try("cannot make metrics", self._context.metrics_labels)
        if labels is None:
            return
        from prometheus_backup.metrics.families import labelled

        run = labelled(samples, labels)
        found = self._try("cannot read the repository for metrics", lambda: self._state(exit_code))
        state = labelled(found, labels) if found else None
        if self._textfile:
            self._write(Path(self._textfile), run, state)
        if self._pushgateway:
            self._push(self._pushgateway, run, state)

    def _state(self, exit_code: int) -> "Sequence[Sample] | None":
        """Return the repository's metrics; None if it did not change or was unavailable.

        Also None after a signal: there is no time to read the repository.
        """
        if self._command in _CHANGES_NO_REPOSITORY or exit_code in _UNREAD | _STOPPED:
            return None
        return repository_state(self._context)

    def _write(self, path: Path, run: "Sequence[Sample]", state: "Sequence[Sample] | None") -> None:
        from prometheus_backup.metrics.textfile import update_textfile

        self._try(f"cannot write metrics to {path}", lambda: update_textfile(path, run, state))

    def _push(self, url: str, run: "Sequence[Sample]", state: "Sequence[Sample] | None") -> None:
        from prometheus_backup.metrics.push import push

        self._try("cannot push metrics to PUSHGATEWAY_URL", lambda: push(url, run, state))

    def _try(self, subject: str, action: Callable[[], _T]) -> _T | None:
        try:
            return action()
        except BackupToolError as error:
            self._warn(Warned(f"{subject}: {error.message}", error.hint))
        except OSError as error:
            self._warn(Warned(f"{subject}: {error.strerror or error}"))
        except Exception as error:  # noqa: BLE001 -- monitoring must not change the outcome
            # Not the text: that of a library may contain a URL or a header.
            self._warn(Warned(f"{subject}: this is a bug: {type(error).__name__}"))
        return None


def _recorder(command: str, clock: Clock) -> "RunRecorder":
    from prometheus_backup.metrics.run import RunRecorder

    return RunRecorder(command, clock)


def repository_state(context: CommandContext) -> "list[Sample]":
    """Return the metrics of the repository. Raises RepositoryError if it cannot be read."""
    repository = context.repository()
    view = repository.archive.view()
    return state_of(context, repository.entries(view), view.folders)


def state_of(
    context: CommandContext,
    entries: "Sequence[BackupEntry]",
    folders: "Mapping[str, ArchivedFolder]",
) -> "list[Sample]":
    """Return the metrics of these backups, and of the folders of the archive."""
    from prometheus_backup.metrics.state import repository_samples

    return repository_samples(
        entries,
        folders,
        policy=context.policy(),
        interval=context.interval,
        now=context.clock.now(),
    )
