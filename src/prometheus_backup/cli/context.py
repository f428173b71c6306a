"""Builds the objects that a command needs from its settings."""

import os
import re
import shutil
import tempfile
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prometheus_backup.cli.render import AsOf
from prometheus_backup.cli.store import address, checked_url, open_settings_store
from prometheus_backup.clock import Clock, SystemClock
from prometheus_backup.config import (
    parse_bandwidth,
    parse_instant,
    parse_labels,
    parse_period,
    parse_queries,
)
from prometheus_backup.errors import UsageError
from prometheus_backup.events import Listener
from prometheus_backup.model import Layout, Level, SnapshotMode
from prometheus_backup.repository.names import is_date
from prometheus_backup.retention.policy import Policy

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from prometheus_backup.backup.options import BackupOptions
    from prometheus_backup.prometheus.client import PrometheusClient
    from prometheus_backup.repository.catalog import CatalogMemory
    from prometheus_backup.repository.repository import Repository
    from prometheus_backup.stores.base import ObjectStore
    from prometheus_backup.transfer import Transfer
    from prometheus_backup.verify.blocks import ScratchSpace

_WORKERS_PER_CORE = 2
_PROMETHEUS_LOGIN = "give PROMETHEUS_USERNAME and PROMETHEUS_PASSWORD_FILE"
_MOST_WORKERS = 4
"""More workers do not make a fast store faster, and each needs some parts of 8 MiB in memory."""


@dataclass(frozen=True, slots=True)
class CommandContext:
    """The settings of one command, and what is built from them."""

    values: Mapping[str, Any]
    listener: Listener
    run_id: str
    clock: Clock

    @classmethod
    def of(cls, values: Mapping[str, Any], listener: Listener) -> "CommandContext":
        """Return the context of one run, with a run id of its own."""
        return cls(values, listener, uuid.uuid4().hex, SystemClock())

    @property
    def data_dir(self) -> Path:
        """Return the data directory of the source."""
        return Path(self.values["data_dir"])

    def instant(self, text: str | None, *, end_of_day: bool = False) -> datetime | None:
        """Return the instant that an option such as `--from` names; None without one.

        A bare date means its beginning, or with `end_of_day` its last microsecond.
        """
        if text is None:
            return None
        instant = parse_instant(text, now=self.clock.now())
        if end_of_day and is_date(text.strip()):
            return instant + timedelta(days=1, microseconds=-1)
        return instant

    def client(self) -> "PrometheusClient":
        """Return the access to Prometheus."""
        from prometheus_backup.prometheus.access import Access
        from prometheus_backup.prometheus.client import PrometheusClient

        values = self.values
        return PrometheusClient(
            Access(
                url=checked_url("Prometheus at", values["prometheus_url"], hint=_PROMETHEUS_LOGIN),
                username=values["prometheus_username"],
                password_file=values["prometheus_password_file"],
                bearer_token_file=values["prometheus_bearer_token_file"],
                ca_file=values["prometheus_ca_file"],
                cert_file=values["prometheus_cert_file"],
                key_file=values["prometheus_key_file"],
            )
        )

    def repository(
        self, *, hurried: bool = False, memory: "CatalogMemory | None" = None
    ) -> "Repository":
        """Return the repository after a first request, so that wrong settings fail early.

        `hurried` gives up early; `memory` is what is known of it from earlier.
        """
        repository = self.unchecked_repository(hurried=hurried, memory=memory)
        repository.store.ping()
        return repository

    def unchecked_repository(
        self, *, hurried: bool = False, memory: "CatalogMemory | None" = None
    ) -> "Repository":
        """Return the repository without contacting the store."""
        from prometheus_backup.repository.repository import Repository

        return Repository(self._store(hurried=hurried), clock=self.clock, memory=memory)

    def require_apart(self, directory: Path, what: str) -> None:
        """Raise UsageError if a local repository and this directory contain each other.

        Backups would use the disk space of what they back up, and could be lost with it.
        """
        from prometheus_backup.stores.location import parse_location

        location = parse_location(address(self.values))
        if location.scheme != "file":
            return
        root, other = (Path(os.path.realpath(p)) for p in (location.path, directory))
        if root.is_relative_to(other) or other.is_relative_to(root):
            raise UsageError(
                f"cannot use repository {location} with {what} {directory}: one contains the other",
                hint="use a directory on another disk, so that one failure cannot destroy both",
            )

    def transfer(self) -> "Transfer":
        """Return the worker pool."""
        from prometheus_backup.transfer import BandwidthLimit, Transfer, keep_freed_memory

        keep_freed_memory()
        return Transfer(
            workers=self._workers,
            small_workers=self._small_workers,
            limit=BandwidthLimit(bytes_per_second=self._bandwidth, clock=self.clock),
            listener=self.listener,
        )

    def policy(self) -> Policy:
        """Return the retention policy."""
        values = self.values
        return Policy(
            values["retention_daily"],
            values["retention_monthly"],
            values["retention_yearly"],
            all_for=_period(values["retention_all"]),
            history=_period(values["retention_history"]) or timedelta(0),
        )

    def backup_options(self, *, new_repository: bool = False) -> "BackupOptions":
        """Return the options of `backup`."""
        from prometheus_backup.backup.options import BackupOptions

        values = self.values
        verify = Level(values["verify_level"]) if values["verify_backup"] else None
        return BackupOptions(
            labels=parse_labels(values["labels"]),
            policy=self.policy(),
            layout=Layout(values["layout"]),
            mode=SnapshotMode(values["snapshot_mode"]),
            storage_class=self._storage_class(
                reads=verify is not None and verify.rank >= Level.CHECKSUM.rank
            ),
            verify=verify,
            skip_head=values["skip_head"],
            rehash=values["rehash"],
            allow_empty=values["allow_empty"],
            fingerprints=self._fingerprints(),
            processes=self.processes,
            new_repository=new_repository,
        )

    def describe(self) -> str:
        """Check that all settings can be used together; return them in one line."""
        options, policy = self.backup_options(), self.policy()
        self.require_apart(self.data_dir, "data directory")
        level = options.verify.value if options.verify else "off"
        return (
            f"retention {policy.daily} daily, {policy.monthly} monthly, {policy.yearly} yearly; "
            f"verification {level}; {self._workers} workers"
        )

    def prometheus_binary(
        self,
        *,
        hint: str = "set --prometheus-binary, or run the drill in an image that contains "
        "Prometheus",
    ) -> Path:
        """Return the Prometheus to start. Raises UsageError, with the hint, if it is not found."""
        name = str(self.values["prometheus_binary"])
        found = shutil.which(name)
        if found is None:
            where = "no such file" if "/" in name else "not found in PATH"
            raise UsageError(
                f"cannot run Prometheus {name!r}: {where}",
                hint=hint,
            )
        return Path(found).resolve()

    def scratch(self) -> Path:
        """Return the directory for downloaded blocks."""
        return Path(self.values["scratch"] or tempfile.gettempdir())

    def scratch_space(self) -> "AbstractContextManager[ScratchSpace]":
        """Return the context manager for the scratch space of `verify`."""
        from prometheus_backup.verify.blocks import open_scratch_space

        return open_scratch_space(self.scratch(), processes=self.processes)

    @property
    def drill_wait(self) -> timedelta:
        """Return how long a drill waits until its Prometheus is ready."""
        return parse_period(self.values["drill_wait"])

    def _fingerprints(self) -> tuple[str, ...]:
        from prometheus_backup.prometheus.fingerprints import DEFAULT_QUERIES

        values = self.values
        if not values["fingerprints"]:
            return ()
        texts = [*DEFAULT_QUERIES, *values["fingerprint_queries"]]
        if path := values["fingerprint_file"]:
            try:
                texts.append(Path(path).read_text())
            except (OSError, UnicodeDecodeError) as error:
                cause = getattr(error, "strerror", None) or error
                raise UsageError(f"cannot read fingerprint file {path}: {cause}") from None
        return parse_queries(texts)

    @property
    def interval(self) -> timedelta:
        """Return how often a backup is expected."""
        try:
            return parse_period(self.values["backup_interval"])
        except UsageError as error:
            raise UsageError(
                f"cannot use BACKUP_INTERVAL: {error.message}", hint=error.hint
            ) from None

    def metrics_labels(self) -> Mapping[str, str]:
        """Return the labels of every metric: the repository's address, and the operator's own."""
        from prometheus_backup.metrics.families import FAMILIES, REPOSITORY
        from prometheus_backup.stores.location import parse_location

        own = parse_labels(self.values["metrics_labels"])
        taken = own.keys() & {REPOSITORY, *(n for f in FAMILIES.values() for n in f.labels)}
        if taken:
            raise UsageError(
                f"cannot use METRICS_LABELS: {', '.join(sorted(taken))} would replace a built-in "
                "label",
                hint="choose another name",
            )
        return {REPOSITORY: str(parse_location(address(self.values))), **own}

    def as_of_now(self) -> AsOf:
        """Return what is old now."""
        return AsOf(self.clock.now(), parse_period(self.values["verify_rotation"]))

    @property
    def processes(self) -> int:
        """Return how many blocks are checked at once: each needs a core and about 50 MB."""
        return min(len(os.sched_getaffinity(0)), _MOST_WORKERS)

    @property
    def _workers(self) -> int:
        cores = os.cpu_count() or 1
        return self.values["concurrency"] or min(_WORKERS_PER_CORE * cores, _MOST_WORKERS)

    @property
    def _small_workers(self) -> int:
        from prometheus_backup.transfer import SMALL_WORKERS

        return int(self.values["concurrency"] or SMALL_WORKERS)

    @property
    def _bandwidth(self) -> int | None:
        text = self.values["max_bandwidth"]
        return parse_bandwidth(str(text)) if text is not None else None

    def _store(self, *, hurried: bool) -> "ObjectStore":
        from prometheus_backup.transfer import SMALL_WORKERS

        return open_settings_store(
            self.values,
            os.environ,
            connections=max(self._workers, SMALL_WORKERS) + 4,
            hurried=hurried,
        )

    def _storage_class(self, *, reads: bool) -> str | None:
        from prometheus_backup.stores.location import parse_location

        if parse_location(address(self.values)).scheme != "s3":
            return None
        from prometheus_backup.stores.classes import ARCHIVE_CLASSES, STORAGE_CLASSES

        name = str(self.values["storage_class"]).strip()
        elsewhere = self.values["s3_endpoint_url"] and re.fullmatch(r"[A-Za-z0-9_.-]+", name)
        if name not in STORAGE_CLASSES and not elsewhere:  # Ceph has classes of its own
            raise UsageError(
                f"cannot use storage class {name!r}: S3 has no such class",
                hint=f"use one of {', '.join(STORAGE_CLASSES)}",
            )
        if name in ARCHIVE_CLASSES and reads:
            raise UsageError(
                f"cannot use storage class {name} with verification level checksum: its objects "
                "cannot be read for hours",
                hint="use STANDARD, and a lifecycle rule for old block files "
                "(docs/explanation/cost.md), or VERIFY_LEVEL=size",
            )
        return name


def _period(text: str | None) -> timedelta | None:
    return parse_period(text) if text else None
