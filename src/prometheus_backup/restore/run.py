"""Restore a backup into a data directory: plan, download, check, then rename into place.

Existing files are never overwritten, and each block appears complete or not at all.
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from prometheus_backup.datadir.filesystem import (
    require_free_space,
    require_owner,
    require_writable,
    target_errors,
)
from prometheus_backup.errors import (
    BackupToolError,
    BytesDiffer,
    TargetNotEmpty,
    TargetWouldLoseData,
    UsageError,
)
from prometheus_backup.events import Listener, PlanMade, Step, Warned
from prometheus_backup.folder import Owner
from prometheus_backup.model import Outcome, counted, rfc3339
from prometheus_backup.prometheus.loading import LoadResult, reload_timeout, wait_until_loaded
from prometheus_backup.prometheus.retention import TsdbRetention
from prometheus_backup.repository.entry import BackupEntry
from prometheus_backup.repository.layout import TOOL_FOLDER, backup_time
from prometheus_backup.repository.manifest import Block, Manifest
from prometheus_backup.repository.repository import Repository
from prometheus_backup.restore.marker import began_at, is_of, read_mark
from prometheus_backup.restore.placement import BlockAction
from prometheus_backup.restore.plan import (
    WHOLE_BACKUP,
    RestorePlan,
    RestoreRequest,
    TargetView,
    plan_restore,
)
from prometheus_backup.restore.target import (
    TargetDirectory,
    TargetState,
    file_system_size,
    hints_of,
)
from prometheus_backup.restore.writing import STAGING, Writer
from prometheus_backup.retention.policy import Candidate, Policy, decide
from prometheus_backup.transfer import Transfer
from prometheus_backup.tsdb.meta import META, UnusableMeta, load_meta

if TYPE_CHECKING:  # only for its types: importing an HTTP client takes time
    from prometheus_backup.prometheus.client import PrometheusClient

_SOON = timedelta(hours=48)


@dataclass(frozen=True, slots=True)
class RestoreOptions:
    """How to restore. `merge` allows a target with data; `owner` is the owner of restored files.

    `retention` and `version` override those that the target's Prometheus reports. With
    `stop_on_damage`, the first block that cannot be restored ends the restore; otherwise the others
    are restored.
    """

    merge: bool = False
    request: RestoreRequest = WHOLE_BACKUP
    retention: TsdbRetention | None = None
    ignore_retention: bool = False
    head_from: datetime | None = None
    owner: Owner | None = None
    timeout: timedelta | None = None
    stop_on_damage: bool = False
    version: str = ""


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

    def prepare(self, entry: BackupEntry, manifest: Manifest | None = None) -> PreparedRestore:
        """Plan the restore without writing anything. `manifest` is by default the backup's own.

        Raises TargetNotEmpty, TargetUnusable, and the errors of `TargetDirectory.inspect`.
        """
        if manifest is None:
            with self.repository.reading(entry.backup_id, verb="restore"):
                manifest = self.repository.manifest(entry.backup_id)
        mark = self._read_mark()
        directory = TargetDirectory(
            self.target, self.client, self.transfer, self.options.head_from, began_at(mark)
        )
        self._require_empty(directory.names(), manifest, mark)
        state = directory.inspect(manifest)
        plan = plan_restore(
            manifest,
            self._view(state),
            self.options.request,
            now=self.repository.clock.now(),
            ahead=self._hints_ahead(manifest),
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
        if plan.place or self._read_mark() is not None:
            self.listener(Step("restore", f"restoring {plan.backup_id} into {self.target}"))
            self.listener(PlanMade(files, plan.size, 0, 0))
            damaged = self._write_present(prepared)
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

    def _view(self, state: TargetState) -> TargetView:
        retention = state.retention
        retention_of = f"the Prometheus at {self.client.url}" if self.client else ""
        if self.options.retention is not None:
            retention, retention_of = self.options.retention, "the target (--target-retention)"
        on_disk = file_system_size(self.target)
        version = self.options.version or (state.running.version if state.running else "")
        blocks = replace(state.blocks, version=version)
        return TargetView(blocks, retention, retention_of, state.head_size, on_disk)

    def _read_mark(self) -> dict[str, str] | None:
        with target_errors(self.target):
            return read_mark(self.target)

    def _require_empty(
        self, names: frozenset[str], manifest: Manifest, interrupted: Mapping[str, str] | None
    ) -> None:
        """Raise TargetNotEmpty if the target has data that this restore did not write."""
        if self.options.merge:
            return
        if interrupted is not None and not is_of(interrupted, manifest):
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

    def _hints_ahead(self, manifest: Manifest) -> dict[str, tuple[str, ...]]:
        """Return the hints in the meta.json of each block that ends after now."""
        now = self.repository.clock.now()
        ahead = [b for b in manifest.blocks if b.max_time > now]
        return {block.ulid: self._hints(block) for block in ahead}

    def _hints(self, block: Block) -> tuple[str, ...]:
        for file in block.files:
            if file.path == META:
                with contextlib.suppress(BackupToolError, UnusableMeta):
                    meta = load_meta(self.repository.store.get(file.key, limit=file.size))
                    return hints_of(meta)
        return ()  # unknown, as if it had none: the restore itself reports what is wrong

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
        folder = self.target / TOOL_FOLDER
        staging = folder / STAGING
        with target_errors(self.target):
            require_writable(existing, (folder, staging), cannot=cannot)
            if self.options.owner or state.names:  # else the user of Prometheus is unknown
                require_owner(self._owner(state), cannot=cannot)
            require_free_space(existing, staging, plan.size, cannot=cannot)

    def _owner(self, state: TargetState) -> Owner | None:
        return self.options.owner or state.owner

    def _write_present(self, prepared: PreparedRestore) -> dict[str, BackupToolError]:
        """Write the blocks. Raise BackupNotFound if some are missing since retention deleted them.

        Complete blocks stay in the target, where another backup can be merged with them.
        """
        backup_id = prepared.plan.backup_id
        with self.repository.reading(backup_id, verb="restore"):
            damaged = self._write(prepared)
        if damaged:
            self.repository.require_present(backup_id, verb="restore")
        return damaged

    def _write(self, prepared: PreparedRestore) -> dict[str, BackupToolError]:
        return Writer(
            repository=self.repository,
            transfer=self.transfer,
            target=self.target,
            manifest=prepared.manifest,
            blocks=prepared.plan.place,
            copies=prepared.plan.copies,
            owner=self._owner(prepared.target_state),
            fresh=prepared.fresh,
            stop_on_damage=self.options.stop_on_damage,
        ).write()

    def _wait_until_loaded(
        self, prepared: PreparedRestore, damaged: Collection[str]
    ) -> LoadResult | None:
        plan = prepared.plan
        ulids = [p.name for p in plan.placed if p.block.ulid not in damaged]
        ulids += [b.ulid for b in plan.present]
        running, timeout = prepared.target_state.running, self.options.timeout
        if running is None or self.client is None or not ulids:
            return None
        self.listener(Step("load", f"waiting until {self.client.url} has loaded the blocks"))
        return wait_until_loaded(
            self.client,
            self.target,
            ulids,
            clock=self.repository.clock,
            timeout=reload_timeout(running.reload_interval) if timeout is None else timeout,
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
