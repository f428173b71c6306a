"""Restore a backup into an empty directory: staged, every file checked, renamed, newest first."""

import contextlib
import errno
import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from prometheus_backup.errors import (
    BackupToolError,
    TargetNotEmpty,
    TargetUnusable,
)
from prometheus_backup.events import (
    BlockRestored,
    Listener,
    PlanMade,
    Step,
    Warned,
)
from prometheus_backup.layout import TOOL_FOLDER
from prometheus_backup.manifest import Manifest
from prometheus_backup.ops.prune import candidates
from prometheus_backup.ops.staging import Staging, sync_folder
from prometheus_backup.repository import Entry, Repository, committed
from prometheus_backup.restore_plan import RestorePlan, plan_restore
from prometheus_backup.retention import Policy, decide
from prometheus_backup.transfer import Transfer

_STAGING = "restore"
_MARKER = "restore.json"
_HARMLESS = frozenset({"lost+found", TOOL_FOLDER})
_ROOM_TO_SPARE = 64 * 1024 * 1024
_SOON = timedelta(hours=48)


@dataclass(frozen=True, slots=True)
class RestoreReport:
    """What a restore did."""

    plan: RestorePlan
    target: Path
    files: int
    size: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Restore:
    """A restore of one backup into one target directory."""

    repository: Repository
    transfer: Transfer
    target: Path
    policy: Policy
    listener: Listener

    def plan(self, entry: Entry) -> tuple[RestorePlan, Manifest]:
        """Decide what would be done; nothing is written.

        Raises TargetNotEmpty or TargetUnusable where it cannot be done.
        """
        manifest = self.repository.manifest(entry.backup_id)
        present = self._present(manifest)
        plan = plan_restore(
            manifest,
            present=present,
            now=self.repository.clock.now(),
            pruned_within=self._pruned_within(entry),
            failed=entry.failure.level if entry.failure else "",
        )
        self._require_room(plan)
        return plan, manifest

    def apply(self, plan: RestorePlan, manifest: Manifest) -> RestoreReport:
        """Write the blocks. Cut off at any point, the same command continues it.

        Raises TargetUnusable, BytesDiffer where an object is not what the manifest says, and
        whatever the repository raises.
        """
        clock = self.repository.clock
        began = clock.monotonic()
        for warning in plan.warnings:
            self.listener(Warned(warning))
        self.listener(Step("restore", f"restoring {plan.backup_id} into {self.target}"))
        files = sum(len(block.files) for block in plan.place)
        self.listener(PlanMade(files, plan.size, 0, 0))
        with _target_errors(self.target):
            self._begin(manifest)
            self._place(plan)
            self._finish()
        return RestoreReport(plan, self.target, files, plan.size, clock.monotonic() - began)

    @property
    def _folder(self) -> Path:
        return self.target / TOOL_FOLDER

    def _present(self, manifest: Manifest) -> frozenset[str]:
        """Return the blocks that an interrupted restore of this backup has placed."""
        with _target_errors(self.target):
            if not self.target.exists():
                return frozenset()
            if not self.target.is_dir():
                raise TargetUnusable(f"cannot restore into {self.target}: it is not a directory")
            names = {e.name for e in self.target.iterdir()} - _HARMLESS
            marker = self._folder / _MARKER
            interrupted = _read_mark(marker) if marker.exists() else None
        if interrupted is not None and interrupted != _mark(manifest):
            raise TargetNotEmpty(
                f"cannot restore {manifest.backup_id} into {self.target}: a restore of "
                f"{interrupted.get('backup_id', 'another backup')} was interrupted there",
                hint="restore that backup again to continue it, or use an empty directory",
            )
        ours = {b.ulid for b in manifest.blocks} if interrupted else set()
        if strangers := names - ours:
            raise TargetNotEmpty(f"cannot restore into {self.target}: it holds {min(strangers)!r}")
        return frozenset(names)

    def _pruned_within(self, entry: Entry) -> timedelta | None:
        now = self.repository.clock.now()
        judged = candidates(committed(self.repository.entries()))
        decisions = decide(judged, today=(now + _SOON).date(), policy=self.policy)
        going = any(d.backup_id == entry.backup_id and not d.keep for d in decisions)
        return _SOON if going else None

    def _require_room(self, plan: RestorePlan) -> None:
        place = self.target
        while not place.exists() and place != place.parent:
            place = place.parent
        with _target_errors(self.target):
            if not os.access(place, os.W_OK | os.X_OK):
                raise TargetUnusable(
                    f"cannot restore into {self.target}: no permission to write to {place}",
                    hint="run as a user that may write there, or choose another directory",
                )
            staged = sum(f.stat().st_size for f in self._staging.rglob("*") if f.is_file())
            free = shutil.disk_usage(place).free + staged
        if plan.size + _ROOM_TO_SPARE > free:
            raise TargetUnusable(
                f"cannot restore into {self.target}: {plan.size:,} bytes are needed, "
                f"{free:,} are free",
                hint="free some room, or choose another directory",
            )

    @property
    def _staging(self) -> Path:
        return self._folder / _STAGING

    def _begin(self, manifest: Manifest) -> None:
        self._staging.mkdir(parents=True, exist_ok=True)
        marker = self._folder / _MARKER
        marker.with_suffix(".new").write_text(json.dumps(_mark(manifest)))
        marker.with_suffix(".new").replace(marker)
        wanted = {b.ulid for b in manifest.blocks}
        for leftover in self._staging.iterdir():
            if leftover.name not in wanted:
                shutil.rmtree(leftover)

    def _place(self, plan: RestorePlan) -> None:
        staging = Staging(self.repository, self.transfer, self._staging)
        with contextlib.closing(staging.bring(plan.place, step="restore")) as whole:
            for block in whole:
                staging.path(block).rename(self.target / block.ulid)
                sync_folder(self.target)
                self.listener(BlockRestored(block.ulid, block.size))

    def _finish(self) -> None:
        shutil.rmtree(self._staging)
        (self._folder / _MARKER).unlink()
        with contextlib.suppress(OSError):  # a data directory may hold the lock of `backup`, too
            self._folder.rmdir()


def _mark(manifest: Manifest) -> dict[str, str]:
    return {"backup_id": manifest.backup_id, "run_id": manifest.run_id}


def _read_mark(marker: Path) -> dict[str, str]:
    try:
        mark = json.loads(marker.read_bytes())
    except ValueError:
        return {}
    return mark if isinstance(mark, dict) else {}


@contextlib.contextmanager
def _target_errors(target: Path) -> Iterator[None]:
    try:
        yield
    except BackupToolError:
        raise
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        raise TargetUnusable(
            f"cannot restore into {target}: {error.strerror} ({error.filename})",
            hint="free some room, then run the same command again: it continues"
            if full
            else "run as a user that may write there, or choose another directory",
        ) from error
