"""Restore a backup into a data directory: planned, staged, every file checked, renamed, owned.

Nothing that is there is overwritten, and a block appears whole or not at all.
"""

from __future__ import annotations

import contextlib
import json
import shutil
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from prometheus_backup.datadir.filesystem import (
    Owner,
    chown,
    hand_over,
    require_as_announced,
    require_owner,
    require_room,
    require_writable,
    target_errors,
)
from prometheus_backup.datadir.lock import HostLock
from prometheus_backup.errors import (
    TargetNotEmpty,
    TargetWouldLoseData,
    UsageError,
)
from prometheus_backup.events import BlockRestored, Listener, PlanMade, Step, Warned
from prometheus_backup.model import Outcome, rfc3339
from prometheus_backup.prometheus.loading import PATIENCE, LoadResult, wait_until_loaded
from prometheus_backup.prometheus.retention import TsdbRetention
from prometheus_backup.repository.layout import TOOL_FOLDER
from prometheus_backup.repository.manifest import Manifest
from prometheus_backup.repository.repository import BackupEntry, Repository, committed
from prometheus_backup.restore.placement import BlockAction
from prometheus_backup.restore.plan import (
    ALL,
    RestorePlan,
    RestoreRequest,
    TargetView,
    plan_restore,
)
from prometheus_backup.restore.staging import Staging, sync_folder
from prometheus_backup.restore.target import TargetDirectory, TargetState
from prometheus_backup.retention.policy import Policy, decide
from prometheus_backup.retention.prune import candidates
from prometheus_backup.transfer import Transfer

if TYPE_CHECKING:  # for its types alone: importing an HTTP client takes time
    from prometheus_backup.prometheus.client import PrometheusClient

_STAGING = "restore"
_MARKER = "restore.json"
_SOON = timedelta(hours=48)


@dataclass(frozen=True, slots=True)
class RestoreOptions:
    """How to restore. `merge` allows the target to hold data; `owner` is whose the files shall be.

    `retention` is that of the target's Prometheus, where the caller knows better than it.
    """

    merge: bool = False
    wish: RestoreRequest = ALL
    retention: TsdbRetention | None = None
    ignore_retention: bool = False
    head_from: datetime | None = None
    owner: Owner | None = None
    patience: timedelta = PATIENCE


_PLAIN = RestoreOptions()


@dataclass(frozen=True, slots=True)
class PreparedRestore:
    """A plan with what it was made from. `refusal` is why it cannot be carried out, if so."""

    plan: RestorePlan
    manifest: Manifest
    survey: TargetState
    refusal: TargetWouldLoseData | None

    @property
    def fresh(self) -> bool:
        """Tell whether the target holds nothing."""
        return not self.survey.names


@dataclass(frozen=True, slots=True)
class RestoreReport:
    """What a restore did; `loading` is None where no Prometheus runs on the target."""

    plan: RestorePlan
    files: int
    seconds: float
    loading: LoadResult | None

    @property
    def outcome(self) -> Outcome:
        """Return PARTIAL where something was left out, or was not taken in."""
        taken = self.loading is None or self.loading.loaded
        return Outcome.DONE if taken and not self.plan.left_out else Outcome.PARTIAL


@dataclass(frozen=True, slots=True)
class Restore:
    """A restore of one backup into one target directory; `client` is asked for its Prometheus."""

    repository: Repository
    transfer: Transfer
    target: Path
    policy: Policy
    listener: Listener
    client: PrometheusClient | None = None
    options: RestoreOptions = _PLAIN

    def prepare(self, entry: BackupEntry) -> PreparedRestore:
        """Decide what would be done; nothing is written.

        Raises TargetNotEmpty, TargetUnusable, and what `TargetDirectory.survey` does.
        """
        manifest = self.repository.manifest(entry.backup_id)
        directory = TargetDirectory(
            self.target, self.client, self.transfer, self.options.head_from, self._empty_at()
        )
        self._require_empty(directory.names(), manifest)
        survey = directory.survey(manifest)
        plan = plan_restore(
            manifest,
            self._view(survey),
            self.options.wish,
            now=self.repository.clock.now(),
            caveats=(*survey.warnings, *self._caveats(entry)),
        )
        _require_blocks(plan)
        self._require_usable(survey, plan)
        return PreparedRestore(plan, manifest, survey, self._refusal(plan, survey))

    def apply(self, prepared: PreparedRestore) -> RestoreReport:
        """Write the blocks, and wait for them to be loaded. Cut off, the same command continues it.

        Raises TargetWouldLoseData where the plan is refused, TargetUnusable, BytesDiffer where an
        object is not what the manifest says, RepositoryLocked where another run is at work on the
        target, and whatever the repository raises.
        """
        if prepared.refusal:
            raise prepared.refusal
        plan, clock = prepared.plan, self.repository.clock
        began = clock.monotonic()
        for warning in plan.warnings:
            self.listener(Warned(warning))
        files = sum(len(block.files) for block in plan.place)
        if plan.place or self._marked:
            self.listener(Step("restore", f"restoring {plan.backup_id} into {self.target}"))
            self.listener(PlanMade(files, plan.size, 0, 0))
            self._write(prepared)
        loading = self._wait(prepared)
        return RestoreReport(plan, files, clock.monotonic() - began, loading)

    @property
    def _folder(self) -> Path:
        return self.target / TOOL_FOLDER

    @property
    def _staging(self) -> Path:
        return self._folder / _STAGING

    @property
    def _marker(self) -> Path:
        return self._folder / _MARKER

    @property
    def _marked(self) -> bool:
        return self._marker.exists()

    def _view(self, survey: TargetState) -> TargetView:
        whose = f"the Prometheus at {self.client.url}" if self.client else ""
        retention = survey.retention
        if self.options.retention is not None:
            retention, whose = self.options.retention, "the target, as --target-retention says,"
        return TargetView(survey.held, retention, whose, survey.head_size)

    def _empty_at(self) -> datetime | None:
        """Return when an interrupted restore began here, if one did: then there was no data."""
        with contextlib.suppress(KeyError, ValueError):
            return datetime.fromisoformat((self._read_mark() or {})["began_at"]).astimezone(UTC)
        return None

    def _read_mark(self) -> dict[str, str] | None:
        """Return what an interrupted restore left; nothing in it where it is damaged."""
        with target_errors(self.target):
            if not self._marked:
                return None
            try:
                mark = json.loads(self._marker.read_bytes())
            except ValueError:
                return {}
        return {k: str(v) for k, v in mark.items()} if isinstance(mark, dict) else {}

    def _require_empty(self, names: frozenset[str], manifest: Manifest) -> None:
        """Raise TargetNotEmpty where there is data that may not be there, and is not ours."""
        if self.options.merge:
            return
        interrupted = self._read_mark()
        if interrupted is not None and not _is_of(interrupted, manifest):
            raise TargetNotEmpty(
                f"cannot restore {manifest.backup_id} into {self.target}: a restore of "
                f"{interrupted.get('backup_id', 'another backup')} was interrupted there",
                hint="restore that backup again to continue it, or use an empty directory",
            )
        if names and interrupted is None:
            raise TargetNotEmpty(
                f"cannot restore into {self.target}: it holds {min(names)!r}",
                hint="use an empty directory, or --merge to put the backup beside what is there",
            )

    def _caveats(self, entry: BackupEntry) -> list[str]:
        """Return what is to be known of the backup besides what its manifest says."""
        caveats = []
        if entry.failure:
            caveats.append(
                f"verification at level {entry.failure.level} found faults in this backup"
            )
        now = self.repository.clock.now()
        judged = candidates(committed(self.repository.entries()))
        decisions = decide(judged, today=(now + _SOON).date(), policy=self.policy)
        if any(d.backup_id == entry.backup_id and not d.keep for d in decisions):
            hours = _SOON // timedelta(hours=1)
            caveats.append(f"retention deletes this backup within {hours} hours")
        return caveats

    def _refusal(self, plan: RestorePlan, survey: TargetState) -> TargetWouldLoseData | None:
        flags = f"{plan.need.time_flag} {plan.need.size_flag}" if plan.need else ""
        if plan.loses_held:
            return TargetWouldLoseData(
                f"cannot restore into {self.target}: with these blocks beside them, retention "
                f"would delete {len(plan.loses_held)} blocks that are there, such as "
                f"{plan.loses_held[0]}",
                hint=f"start its Prometheus with at least {flags}, then say so with "
                "--target-retention",
            )
        if plan.loses_placed and survey.names and not self.options.ignore_retention:
            since = f"--from {rfc3339(plan.keeps_from)}" if plan.keeps_from else ""
            return TargetWouldLoseData(
                f"cannot restore into {self.target}: the retention of {plan.retention_of} would "
                f"delete {len(plan.loses_placed)} of the restored blocks",
                hint=f"start its Prometheus with at least {flags}, or restore only what it keeps "
                f"({since}), or say --ignore-retention",
            )
        return None

    def _require_usable(self, survey: TargetState, plan: RestorePlan) -> None:
        """Raise TargetUnusable where writing would fail, or Prometheus could not use the result."""
        cannot = f"cannot restore into {self.target}"
        place = self.target
        while not place.exists() and place != place.parent:
            place = place.parent
        with target_errors(self.target):
            require_writable(place, (self._folder, self._staging), cannot=cannot)
            if self.options.owner or survey.names:  # else it is not known who will use it
                require_owner(self._owner(survey), cannot=cannot)
            require_room(place, self._staging, plan.size, cannot=cannot)

    def _owner(self, survey: TargetState) -> Owner | None:
        return self.options.owner or survey.owner

    def _write(self, prepared: PreparedRestore) -> None:
        with target_errors(self.target):
            self.target.mkdir(parents=True, exist_ok=True)
            lock = HostLock.take(self.target)
            try:
                self._begin(prepared)
                self._place(prepared)
                self._finish(prepared)
            finally:
                lock.release()

    def _begin(self, prepared: PreparedRestore) -> None:
        self._staging.mkdir(parents=True, exist_ok=True)
        if owner := self._owner(prepared.survey):
            chown(self._staging, owner)  # before the first byte, in case it is not allowed
        if prepared.fresh:
            staged = self._marker.with_suffix(".new")
            mark = {**_mark(prepared.manifest), "began_at": rfc3339(self.repository.clock.now())}
            staged.write_text(json.dumps(mark))
            staged.replace(self._marker)
        wanted = {b.ulid for b in prepared.plan.place}
        for leftover in self._staging.iterdir():
            if leftover.name not in wanted:
                shutil.rmtree(leftover)

    def _place(self, prepared: PreparedRestore) -> None:
        staging = Staging(self.repository, self.transfer, self._staging)
        owner = self._owner(prepared.survey)
        with contextlib.closing(staging.bring(prepared.plan.place, step="restore")) as whole:
            for block in whole:
                staged, final = staging.path(block), self.target / block.ulid
                require_as_announced(staged, block)
                hand_over(staged, owner)
                if final.exists():
                    raise TargetNotEmpty(
                        f"cannot restore {block.ulid} into {self.target}: it appeared meanwhile",
                        hint="run the same command again: it looks anew",
                    )
                staged.rename(final)
                sync_folder(self.target)
                self.listener(BlockRestored(block.ulid, block.size))

    def _finish(self, prepared: PreparedRestore) -> None:
        """Remove what was ours alone; where data was before, the folder stays, for its lock."""
        shutil.rmtree(self._staging)
        marked = self._marked
        self._marker.unlink(missing_ok=True)
        if prepared.fresh or marked:
            with contextlib.suppress(OSError):  # another run's intents are there
                (self._folder / "runs").rmdir()
                (self._folder / "lock").unlink()
                self._folder.rmdir()
        elif owner := self._owner(prepared.survey):
            for path in (self._folder, *self._folder.rglob("*")):
                chown(path, owner)

    def _wait(self, prepared: PreparedRestore) -> LoadResult | None:
        there = [b.ulid for b in (*prepared.plan.place, *prepared.plan.present)]
        if prepared.survey.running is None or self.client is None or not there:
            return None
        self.listener(Step("load", f"waiting until {self.client.url} has loaded the blocks"))
        return wait_until_loaded(
            self.client,
            self.target,
            there,
            clock=self.repository.clock,
            patience=self.options.patience,
        )


def _require_blocks(plan: RestorePlan) -> None:
    """Raise UsageError where a part of the time is asked for in which the backup has nothing."""
    if plan.placements and all(p.standing is BlockAction.OUTSIDE for p in plan.placements):
        begin = min(p.block.min_time for p in plan.placements)
        end = max(p.block.max_time for p in plan.placements)
        raise UsageError(
            f"cannot restore that part of {plan.backup_id}: it has no block in it",
            hint=f"the backup holds {rfc3339(begin)} to {rfc3339(end)}",
        )


def _mark(manifest: Manifest) -> dict[str, str]:
    return {"backup_id": manifest.backup_id, "run_id": manifest.run_id}


def _is_of(mark: dict[str, str], manifest: Manifest) -> bool:
    return _mark(manifest).items() <= mark.items()
