"""Open a window into the past: fetch the blocks, start Prometheus on them, remove everything.

`plan.py` decides what to fetch.
"""

import contextlib
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from prometheus_backup.clock import Clock
from prometheus_backup.datadir.scratch import Scratch
from prometheus_backup.errors import (
    BackupToolError,
    SourceError,
    SourceUnavailable,
    TargetUnusable,
    UsageError,
)
from prometheus_backup.events import Listener, PlanMade, Step, Warned
from prometheus_backup.folder import Folder
from prometheus_backup.model import Outcome, counted
from prometheus_backup.prometheus.client import PrometheusClient
from prometheus_backup.prometheus.process import LocalPrometheus, PrometheusBinary, free_port
from prometheus_backup.prometheus.startup import PrometheusStarter
from prometheus_backup.prometheus.versions import same_semantics
from prometheus_backup.repository.repository import Repository
from prometheus_backup.restore.staging import Staging
from prometheus_backup.transfer import Transfer
from prometheus_backup.window.plan import WindowPlan, page_address

_VERB = "open"
_RESERVED_SPACE = 64 * 1024 * 1024
_ATTEMPTS = 3
_POLL_SECONDS = 0.5
_MAX_LINE_LENGTH = 500


@dataclass(frozen=True, slots=True)
class Room:
    """The bytes that a window needs in its scratch directory, and those that are free there."""

    needed: int
    free: int

    @property
    def fits(self) -> bool:
        """Return whether there is enough space."""
        return self.needed <= self.free


def room_for(plan: WindowPlan, scratch: Path) -> Room:
    """Return the room for a window in a scratch directory, which may not exist yet."""
    existing = scratch.absolute()
    while not existing.exists():
        existing = existing.parent
    try:
        free = shutil.disk_usage(existing).free
    except OSError as error:
        raise TargetUnusable(f"cannot open in {scratch}: {error.strerror}") from error
    return Room(plan.size + _RESERVED_SPACE, free)


@dataclass(frozen=True, slots=True)
class OpenWindow:
    """A running Prometheus with the blocks of a window. `address` is that of its page."""

    address: str
    outcome: Outcome
    server: LocalPrometheus
    clock: Clock

    def wait(self) -> None:
        """Wait until Prometheus ends, which it does not do by itself; raise SourceUnavailable."""
        while (code := self.server.exit_code) is None:
            self.clock.sleep(_POLL_SECONDS)
        raise SourceUnavailable(
            f"cannot keep the window open: Prometheus ended with {code}: {_last_line(self.server)}",
            hint="check the memory and the disk space, or open a shorter time range",
        )


@dataclass(frozen=True, slots=True)
class WindowOpener:
    """Opens windows on one repository; `wait` is how long to wait until Prometheus is ready."""

    repository: Repository
    transfer: Transfer
    binary: PrometheusBinary
    scratch: Path
    wait: timedelta
    listener: Listener

    @contextlib.contextmanager
    def open(self, plan: WindowPlan, *, port: int | None = None) -> Iterator[OpenWindow]:
        """Fetch the blocks and start Prometheus; at the end, stop it and remove all files.

        Raises RepositoryLocked if another window uses the scratch directory, TargetUnusable if that
        is too small or cannot be used, SourceUnavailable if Prometheus does not start, UsageError
        if the port is taken, and the errors of the repository if no block can be fetched.
        """
        with Scratch.take(self.scratch, verb=_VERB) as scratch, contextlib.ExitStack() as stack:
            if scratch.leftovers:
                self.listener(Step("clean", "removing leftovers of a killed window"))
            scratch.prepare(size=plan.size + _RESERVED_SPACE)
            fetched = self._fetch(plan, scratch.data)
            version = self.binary.version
            self.listener(Step("start", f"starting Prometheus {version} on the blocks"))
            server, client = self._start(stack, scratch, plan, port)
            whole = self._has_loaded(client, fetched) and fetched == {b.ulid for b in plan.blocks}
            address = page_address(server.url, client.query_page(), plan.span)
            outcome = Outcome.DONE if whole and not plan.left_out else Outcome.PARTIAL
            yield OpenWindow(address, outcome, server, self.repository.clock)

    def _fetch(self, plan: WindowPlan, folder: Folder) -> set[str]:
        """Fetch the blocks; return the ULIDs of the sound ones."""
        self.listener(Step("restore", f"fetching {plan.backup_id} into {folder.path}"))
        self.listener(PlanMade(plan.files, plan.size, 0, 0))
        staging = Staging(self.repository, self.transfer, folder)
        failed: dict[str, BackupToolError] = {}
        try:
            blocks = staging.download(plan.blocks, step="restore", failed=failed)
            with contextlib.closing(blocks) as complete:
                fetched = {block.ulid for block in complete}
        except OSError as error:
            raise TargetUnusable(
                f"cannot open in {self.scratch}: {error.strerror} ({error.filename})",
                hint="set --scratch to another directory",
            ) from error
        if failed:
            self.repository.require_present(plan.backup_id, verb="open")
        for ulid, cause in failed.items():
            self.listener(Warned(f"without block {ulid}: {cause.message}"))
            folder.remove(ulid)
        if not fetched:
            raise next(iter(failed.values()))
        return fetched

    def _start(
        self, stack: contextlib.ExitStack, scratch: Scratch, plan: WindowPlan, port: int | None
    ) -> tuple[LocalPrometheus, PrometheusClient]:
        if not same_semantics(plan.version, self.binary.version):
            self.listener(
                Warned(
                    f"the source was Prometheus {plan.version}: {self.binary.version} may answer "
                    "differently",
                    "use a Prometheus of the same major version",
                )
            )
        starter = PrometheusStarter(self.binary, self.wait, self.repository.clock)
        for _ in range(_ATTEMPTS):
            server, client = starter.start(
                stack,
                scratch.data,
                run=scratch.run,
                queries=plan.queries,
                port=port or free_port(),
            )
            # Another Prometheus may answer at this port, while ours is about to give up.
            if client is not None and _serves(client, scratch.data):
                return server, client
            if client is not None or server.port_was_taken:
                if port is None:
                    continue
                raise UsageError(
                    f"cannot open a window at port {port}: another process uses it",
                    hint="choose another --port, or leave it out",
                )
            break
        raise self._not_started(server)

    def _not_started(self, server: LocalPrometheus) -> SourceUnavailable:
        code = server.exit_code
        cause = f"Prometheus was not ready within {self.wait.total_seconds():.0f} s"
        if code is not None:
            cause = f"Prometheus ended with {code} before it was ready: {_last_line(server)}"
        return SourceUnavailable(
            f"cannot open a window: {cause}",
            hint="use the version of Prometheus that was backed up, or a longer --wait",
        )

    def _has_loaded(self, client: PrometheusClient, fetched: set[str]) -> bool:
        """Return whether Prometheus has loaded every block: it skips those it cannot read."""
        try:
            loaded = client.loaded_blocks()
            count = client.count_loaded_blocks() if loaded is None else len(fetched & loaded)
        except SourceError as error:
            self.listener(Warned(error.message, error.hint))
            return False
        if count is not None and count >= len(fetched):
            return True
        self.listener(Warned(f"Prometheus loaded {count or 0} of {counted(len(fetched), 'block')}"))
        return False


def _serves(client: PrometheusClient, data: Folder) -> bool:
    """Return whether this Prometheus has the data directory."""
    return os.path.realpath(client.status().storage_path) == os.path.realpath(data.path)


def _last_line(server: LocalPrometheus) -> str:
    lines = server.log()
    errors = [line for line in lines if "err=" in line] or lines[-1:] or ["(nothing)"]
    return errors[-1][:_MAX_LINE_LENGTH]
