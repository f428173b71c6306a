"""Restore a backup into a data directory: plan, download, check, then rename into place.

Existing files are never overwritten, and each block appears complete or not at all.
"""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from prometheus_backup.datadir.filesystem import (
    Owner,
    chown,
    require_free_space,
    require_matching_meta,
    require_owner,
    require_writable,
    set_owner_and_modes,
    sync_folder,
    target_errors,
    write_durably,
)
from prometheus_backup.datadir.lock import HostLock
from prometheus_backup.errors import (
    BackupToolError,
    BytesDiffer,
    TargetNotEmpty,
    TargetWouldLoseData,
    UsageError,
)
from prometheus_backup.events import BlockRestored, Listener, PlanMade, Step, Warned
from prometheus_backup.model import Outcome, counted, rfc3339
from prometheus_backup.prometheus.loading import RELOAD_TIMEOUT, LoadResult, wait_until_loaded
from prometheus_backup.prometheus.retention import TsdbRetention
from prometheus_backup.repository.layout import TOOL_FOLDER, backup_time
from prometheus_backup.repository.manifest import Manifest
from prometheus_backup.repository.repository import BackupEntry, Repository
from prometheus_backup.restore.placement import BlockAction
from prometheus_backup.restore.plan import (
    WHOLE_BACKUP,
    RestorePlan,
    RestoreRequest,
    TargetView,
    plan_restore,
)
from prometheus_backup.restore.staging import Staging
from prometheus_backup.restore.target import TargetDirectory, TargetState, file_system_size
from prometheus_backup.retention.policy import Candidate, Policy, decide
from prometheus_backup.transfer import Transfer
from prometheus_backup.tsdb.block import BlockUnusable

if TYPE_CHECKING:  # only for its types: importing an HTTP client takes time
    from prometheus_backup.prometheus.client import PrometheusClient

_STAGING = "restore"
_MARKER = "restore.json"
_SOON = timedelta(hours=48)


@dataclass(frozen=True, slots=True)
class RestoreOptions:
    """How to restore. `merge` allows a target with data; `owner` is the owner of restored files.

    `retention` overrides the retention that the target's Prometheus reports. With `stop_on_damage`,
    the first block that cannot be restored ends the restore; otherwise the others are restored.
    """

    merge: bool = False
    request: RestoreRequest = WHOLE_BACKUP
    retention: TsdbRetention | None = None
    ignore_retention: bool = False
    head_from: datetime | None = None
    owner: Owner | None = None
    timeout: timedelta = RELOAD_TIMEOUT
    stop_on_damage: bool = False


_DEFAULTS = RestoreOptions()


@dataclass(frozen=True, slots=True)
class PreparedRestore:
    """A plan and its inputs. `refusal` is why the plan must not be applied, None if it may."""

    plan: RestorePlan
    manifest: Manifest
    target_state: TargetState
    refusal: TargetWouldLoseData | None

    @property
    def fresh(self) -> bool:
        """Return whether the target is empty."""
        return not self.target_state.names


@dataclass(frozen=True, slots=True)
class DamagedBlock:
    """A block that could not be restored, and another backup that has it, if there is one."""

    ulid: str
    reason: str
    other_backup: str | None


@dataclass(frozen=True, slots=True)
class RestoreReport:
    """What a restore did; `load_result` is None if no Prometheus runs on the target."""

    plan: RestorePlan
    files: int
    seconds: float
    load_result: LoadResult | None
    damaged: tuple[DamagedBlock, ...] = ()

    @property
    def error(self) -> BytesDiffer | None:
        """Return the error to report if blocks could not be restored because they are damaged."""
        if not self.damaged:
            return None
        others = sorted({d.other_backup for d in self.damaged if d.other_backup})
        hint = "verify the other backups with `prometheus-backup verify --all`"
        if others:
            hint = f"restore {', '.join(others)} with --merge: the blocks are there"
        return BytesDiffer(
            f"cannot restore {counted(len(self.damaged), 'block')} of {self.plan.backup_id}; "
            "all others are restored",
            hint=hint,
        )

    @property
    def outcome(self) -> Outcome:
        """Return PARTIAL if blocks were left out or Prometheus did not load them."""
        loaded = self.load_result is None or self.load_result.done
        return Outcome.DONE if loaded and not self.plan.left_out else Outcome.PARTIAL


@dataclass(frozen=True, slots=True)
class Restore:
    """A restore of one backup into a target; `client` connects to the Prometheus that uses it."""

    repository: Repository
    transfer: Transfer
    target: Path
    policy: Policy
    listener: Listener
    client: PrometheusClient | None = None
    options: RestoreOptions = _DEFAULTS

    def prepare(self, entry: BackupEntry) -> PreparedRestore:
        """Plan the restore without writing anything.

        Raises TargetNotEmpty, TargetUnusable, and the errors of `TargetDirectory.inspect`.
        """
        manifest = self.repository.manifest(entry.backup_id)
        directory = TargetDirectory(
            self.target, self.client, self.transfer, self.options.head_from, self._empty_at()
        )
        self._require_empty(directory.names(), manifest)
        state = directory.inspect(manifest)
        plan = plan_restore(
            manifest,
            self._view(state),
            self.options.request,
            now=self.repository.clock.now(),
            extra_warnings=(*state.warnings, *self._extra_warnings(entry)),
        )
        _require_blocks(plan)
        self._require_usable(state, plan)
        return PreparedRestore(plan, manifest, state, self._refusal(plan, state))

    def apply(self, prepared: PreparedRestore) -> RestoreReport:
        """Write the blocks and wait until Prometheus has loaded them. Resumes if interrupted.

        A block that is damaged in the backup is left out, unless `stop_on_damage` is set: then
        BytesDiffer or ObjectNotFound is raised. Raises TargetWouldLoseData if the plan is refused,
        TargetUnusable, RepositoryLocked if another run uses the target, and the errors of the
        repository.
        """
        if prepared.refusal:
            raise prepared.refusal
        plan, clock = prepared.plan, self.repository.clock
        began = clock.monotonic()
        for warning in plan.warnings:
            self.listener(Warned(warning))
        damaged: dict[str, BackupToolError] = {}
        files = sum(len(block.files) for block in plan.place)
        if plan.place or self._marker.exists():
            self.listener(Step("restore", f"restoring {plan.backup_id} into {self.target}"))
            self.listener(PlanMade(files, plan.size, 0, 0))
            self._write(prepared, damaged)
        load_result = self._wait_until_loaded(prepared, damaged)
        seconds = clock.monotonic() - began
        found = self._damaged_blocks(prepared, damaged)
        return RestoreReport(plan, files, seconds, load_result, found)

    def _damaged_blocks(
        self, prepared: PreparedRestore, damaged: Mapping[str, BackupToolError]
    ) -> tuple[DamagedBlock, ...]:
        """Look for each damaged block in the other backups, the newest first."""
        other: dict[str, str] = {}
        folders = prepared.manifest.folders
        try:
            entries = [e for e in self.repository.entries() if e.intact] if damaged else []
            for entry in reversed(entries):
                if damaged.keys() <= other.keys():
                    break
                if entry.backup_id != prepared.manifest.backup_id:
                    for block in self.repository.manifest(entry.backup_id).blocks:
                        if block.folder not in folders:  # else it is the same damaged object
                            other.setdefault(block.ulid, entry.backup_id)
        except BackupToolError as error:  # the restore itself is done
            self.listener(Warned(f"cannot look into the other backups: {error.message}"))
        return tuple(DamagedBlock(u, e.message, other.get(u)) for u, e in damaged.items())

    @property
    def _folder(self) -> Path:
        return self.target / TOOL_FOLDER

    @property
    def _staging(self) -> Path:
        return self._folder / _STAGING

    @property
    def _marker(self) -> Path:
        return self._folder / _MARKER

    def _view(self, state: TargetState) -> TargetView:
        retention = state.retention
        retention_of = f"the Prometheus at {self.client.url}" if self.client else ""
        if self.options.retention is not None:
            retention, retention_of = self.options.retention, "the target (--target-retention)"
        on_disk = file_system_size(self.target)
        return TargetView(state.blocks, retention, retention_of, state.head_size, on_disk)

    def _empty_at(self) -> datetime | None:
        """Return when an interrupted restore began, None if there is none. It began empty."""
        with contextlib.suppress(KeyError, ValueError):
            return datetime.fromisoformat((self._read_mark() or {})["began_at"]).astimezone(UTC)
        return None

    def _read_mark(self) -> dict[str, str] | None:
        """Return the marker of an interrupted restore, None if there is none, {} if damaged."""
        with target_errors(self.target):
            if not self._marker.exists():
                return None
            try:
                mark = json.loads(self._marker.read_bytes())
            except ValueError:
                return {}
        return {k: str(v) for k, v in mark.items()} if isinstance(mark, dict) else {}

    def _require_empty(self, names: frozenset[str], manifest: Manifest) -> None:
        """Raise TargetNotEmpty if the target has data that this restore did not write."""
        if self.options.merge:
            return
        interrupted = self._read_mark()
        if interrupted is not None and not _is_of(interrupted, manifest):
            raise TargetNotEmpty(
                f"cannot restore {manifest.backup_id} into {self.target}: a restore of "
                f"{interrupted.get('backup_id', 'another backup')} was interrupted there",
                hint="restore that backup to resume, or use an empty directory",
            )
        if names and interrupted is None:
            raise TargetNotEmpty(
                f"cannot restore into {self.target}: it is not empty: it contains {min(names)!r}",
                hint="use an empty directory, or --merge to add the backup to the existing data",
            )

    def _extra_warnings(self, entry: BackupEntry) -> list[str]:
        """Return warnings about the backup that do not follow from its manifest."""
        warnings = []
        if entry.failure:
            warnings.append(
                f"verification at level {entry.failure.level} found faults in this backup"
            )
        now = self.repository.clock.now()
        # From the ids alone: other backups are not read, so none of them can stop a restore.
        judged = [Candidate(i, backup_time(i), good=True) for i in self.repository.ids()]
        soon = (now + _SOON).date()
        decisions = decide(judged, today=soon, policy=self.policy)
        goes = any(d.backup_id == entry.backup_id and not d.keep for d in decisions)
        if goes and not entry.held(soon):
            hours = _SOON // timedelta(hours=1)
            warnings.append(f"retention deletes this backup within {hours} hours")
        return warnings

    def _refusal(self, plan: RestorePlan, state: TargetState) -> TargetWouldLoseData | None:
        version = state.running.version if state.running else ""
        keep = plan.need.instruction(plan.retention, version=version) if plan.need else ""
        lenient = not state.names or self.options.ignore_retention
        if plan.retention.unknown and plan.place and not lenient:
            return TargetWouldLoseData(
                f"cannot restore into {self.target}: what the retention of {plan.retention_of} "
                f"would delete is unknown ({plan.retention.unknown!r})",
                hint="set --target-retention TIME[,SIZE], or use --ignore-retention",
            )
        if plan.loses_existing:
            return TargetWouldLoseData(
                f"cannot restore into {self.target}: after the restore, retention would delete "
                f"{counted(len(plan.loses_existing), 'existing block')}, such as "
                f"{plan.loses_existing[0]}",
                hint=f"{keep}; then run the command again, with --target-retention if Prometheus "
                "is stopped",
            )
        if plan.loses_restored and not lenient:
            since = f" (--from {rfc3339(plan.keeps_from)})" if plan.keeps_from else ""
            return TargetWouldLoseData(
                f"cannot restore into {self.target}: the retention of {plan.retention_of} would "
                f"delete {len(plan.loses_restored)} of the restored blocks",
                hint=f"{keep}, or restore only what it keeps{since}, or use --ignore-retention",
            )
        return None

    def _require_usable(self, state: TargetState, plan: RestorePlan) -> None:
        """Raise TargetUnusable if writing would fail or Prometheus could not use the result."""
        cannot = f"cannot restore into {self.target}"
        existing = self.target
        while not existing.exists() and existing != existing.parent:
            existing = existing.parent
        with target_errors(self.target):
            require_writable(existing, (self._folder, self._staging), cannot=cannot)
            if self.options.owner or state.names:  # else the user of Prometheus is unknown
                require_owner(self._owner(state), cannot=cannot)
            require_free_space(existing, self._staging, plan.size, cannot=cannot)

    def _owner(self, state: TargetState) -> Owner | None:
        return self.options.owner or state.owner

    def _write(self, prepared: PreparedRestore, damaged: dict[str, BackupToolError]) -> None:
        with target_errors(self.target):
            self.target.mkdir(parents=True, exist_ok=True)
            lock = HostLock.take(self.target)
            try:
                self._begin(prepared)
                self._place(prepared, damaged)
                if not damaged:  # else the same command can resume once the object is back
                    self._finish(prepared)
            finally:
                lock.release()

    def _begin(self, prepared: PreparedRestore) -> None:
        self._staging.mkdir(parents=True, exist_ok=True)
        if owner := self._owner(prepared.target_state):
            chown(self._staging, owner)  # before the first download, in case it is not allowed
        if prepared.fresh:
            mark = {**_mark(prepared.manifest), "began_at": rfc3339(self.repository.clock.now())}
            write_durably(self._marker, json.dumps(mark).encode())
        wanted = {b.ulid for b in prepared.plan.place}
        for leftover in self._staging.iterdir():
            if leftover.name not in wanted:
                shutil.rmtree(leftover)

    def _place(self, prepared: PreparedRestore, damaged: dict[str, BackupToolError]) -> None:
        staging = Staging(self.repository, self.transfer, self._staging)
        owner = self._owner(prepared.target_state)
        failed = None if self.options.stop_on_damage else damaged
        blocks = staging.download(prepared.plan.place, step="restore", failed=failed)
        with contextlib.closing(blocks) as complete:
            for block in complete:
                staged, final = staging.path(block), self.target / block.ulid
                try:
                    require_matching_meta(staged, block)
                except (BytesDiffer, BlockUnusable) as error:
                    if failed is None:
                        raise
                    failed[block.ulid] = error
                    continue
                set_owner_and_modes(staged, owner)
                if final.exists():
                    raise TargetNotEmpty(
                        f"cannot restore {block.ulid} into {self.target}: a block of this name "
                        "appeared during the restore",
                        hint="run the same command again",
                    )
                staged.rename(final)
                sync_folder(self.target)
                self.listener(BlockRestored(block.ulid, block.size))
        for cause in damaged.values():
            self.listener(Warned(cause.message))

    def _finish(self, prepared: PreparedRestore) -> None:
        """Remove our files. In a target that had data, our folder stays because it has the lock."""
        shutil.rmtree(self._staging)
        marked = self._marker.exists()
        self._marker.unlink(missing_ok=True)
        if prepared.fresh or marked:
            with contextlib.suppress(OSError):  # not empty: it has the intents of another run
                (self._folder / "runs").rmdir()
                (self._folder / "lock").unlink()
                self._folder.rmdir()
        elif owner := self._owner(prepared.target_state):
            for path in (self._folder, *self._folder.rglob("*")):
                chown(path, owner)

    def _wait_until_loaded(
        self, prepared: PreparedRestore, damaged: Collection[str]
    ) -> LoadResult | None:
        blocks = (*prepared.plan.place, *prepared.plan.present)
        ulids = [b.ulid for b in blocks if b.ulid not in damaged]
        if prepared.target_state.running is None or self.client is None or not ulids:
            return None
        self.listener(Step("load", f"waiting until {self.client.url} has loaded the blocks"))
        return wait_until_loaded(
            self.client,
            self.target,
            ulids,
            clock=self.repository.clock,
            timeout=self.options.timeout,
        )


def _require_blocks(plan: RestorePlan) -> None:
    """Raise UsageError if the backup has no block in the requested time range."""
    if plan.placements and all(p.action is BlockAction.OUTSIDE for p in plan.placements):
        begin = min(p.block.min_time for p in plan.placements)
        end = max(p.block.max_time for p in plan.placements)
        raise UsageError(
            f"cannot restore from {plan.backup_id}: it has no block in the requested time range",
            hint=f"the backup covers {rfc3339(begin)} to {rfc3339(end)}",
        )


def _mark(manifest: Manifest) -> dict[str, str]:
    return {"backup_id": manifest.backup_id, "run_id": manifest.run_id}


def _is_of(mark: dict[str, str], manifest: Manifest) -> bool:
    return _mark(manifest).items() <= mark.items()
