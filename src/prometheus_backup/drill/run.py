"""Drill a backup: restore it to a scratch directory, start Prometheus on it, compare queries.

`plan.py` decides what to restore and query; this module does it, measures it, and cleans up.
"""

import contextlib
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path

from prometheus_backup import __version__
from prometheus_backup.datadir.scratch import Scratch
from prometheus_backup.drill.plan import (
    Comparison,
    DrillPlan,
    doubts,
    judge,
    plan_drill,
    unreadable,
)
from prometheus_backup.errors import (
    BackupToolError,
    RepositoryError,
    SourceError,
    TargetUnusable,
)
from prometheus_backup.events import (
    BackupVerified,
    FingerprintCompared,
    Listener,
    PlanMade,
    Step,
    Warned,
)
from prometheus_backup.folder import Folder
from prometheus_backup.model import Finding, FindingKind, Level, Outcome, Verdict, counted, rfc3339
from prometheus_backup.prometheus.answers import differences
from prometheus_backup.prometheus.client import PrometheusClient, QueryFailed
from prometheus_backup.prometheus.fingerprints import MAX_RESPONSE_SIZE
from prometheus_backup.prometheus.process import LocalPrometheus, PrometheusBinary
from prometheus_backup.prometheus.query_settings import query_settings
from prometheus_backup.prometheus.startup import PrometheusStarter
from prometheus_backup.repository.entry import BackupEntry
from prometheus_backup.repository.fingerprint import Fingerprint, read_answer
from prometheus_backup.repository.layout import MANIFEST
from prometheus_backup.repository.manifest import Manifest
from prometheus_backup.repository.repository import Repository
from prometheus_backup.repository.verification import RecordedFinding, Verification
from prometheus_backup.restore.staging import ObjectAltered, Staging
from prometheus_backup.transfer import Transfer
from prometheus_backup.verify.objects import size_finding

_RESERVED_SPACE = 64 * 1024 * 1024
_QUERY_TIMEOUT = timedelta(minutes=2)
"""Longer than for the source, because nothing is in the page cache."""
_MAX_LOG_LINES = 15
_MAX_LINE_LENGTH = 500
_MAX_DIFFERENCES = 5
_NEWER_CHUNKS = "invalid chunk encoding"
"""The chunk has a right checksum, but this Prometheus cannot decode it (tsdb/chunkenc)."""
_ENVIRONMENT_ERROR = re.compile(
    "no space left|permission denied|too many open files|cannot allocate memory"
    "|resource temporarily unavailable|input/output error|out of memory|too many samples",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class DrillReport:
    """The result of a drill. `log` is the end of Prometheus' log, if starting it failed."""

    plan: DrillPlan
    result: Verification
    cause: str
    comparisons: tuple[Comparison, ...]
    version: str
    log: tuple[str, ...]

    @property
    def outcome(self) -> Outcome:
        """Return FAULTY if there are findings, PARTIAL if the drill was inconclusive."""
        return Outcome.of([self.result.verdict])


@dataclass(frozen=True, slots=True)
class Drill:
    """Drills backups of one repository; `wait` is how long to wait until Prometheus is ready."""

    repository: Repository
    transfer: Transfer
    binary: PrometheusBinary
    scratch: Path
    wait: timedelta
    listener: Listener

    def run(
        self, entry: BackupEntry, *, start: datetime | None = None, end: datetime | None = None
    ) -> DrillReport:
        """Drill a backup, or its blocks between two times, and record the result.

        Always stops Prometheus and removes the restored files. Raises RepositoryLocked if another
        drill uses the scratch directory, TargetUnusable if it cannot be used or is too small.
        """
        with self.repository.reading(entry.backup_id, verb="drill"):
            manifest = self.repository.manifest(entry.backup_id)
        plan = plan_drill(manifest, start=start, end=end)
        attempt = _Attempt(self, manifest, plan)
        if plan.blocks:
            attempt.run()
        else:
            attempt.cause = "it has no block" + (" in this time range" if plan.part else "")
        if attempt.cause or attempt.findings:
            self.repository.require_present(entry.backup_id, verb="drill")
        compared = {c.query for c in attempt.comparisons}
        unfinished = [
            Comparison(f.query, f.at, Verdict.INCONCLUSIVE, "the drill did not get to it")
            for f in plan.queries
            if f.query not in compared
        ]
        comparisons = (*attempt.comparisons, *unfinished, *plan.skipped)
        verdict, cause = judge(attempt.findings, comparisons, cause=attempt.cause)
        result = Verification(
            backup_id=entry.backup_id,
            level=Level.DRILL,
            verdict=verdict,
            verified_at=self.repository.clock.now(),
            tool_version=__version__,
            objects=attempt.objects,
            bytes_read=attempt.read,
            findings=tuple(RecordedFinding.of(f) for f in attempt.findings),
            part=plan.part,
            seconds=attempt.seconds,
        )
        self._record(result)
        return DrillReport(plan, result, cause, comparisons, self.binary.version, attempt.log)

    def _record(self, result: Verification) -> None:
        for finding in result.findings:
            self.listener(Warned(f"Verification failed: {finding.key}: {finding.detail}"))
        self.listener(
            BackupVerified(result.backup_id, result.level, result.verdict, len(result.findings))
        )
        try:
            self.repository.results.record(result)
        except BackupToolError as error:
            self.listener(Warned(f"cannot record the result: {error.message}", error.hint))


@dataclass(slots=True)
class _Attempt:
    """One running drill and its results so far."""

    drill: Drill
    manifest: Manifest
    plan: DrillPlan
    findings: list[Finding] = field(default_factory=list)
    comparisons: list[Comparison] = field(default_factory=list)
    cause: str = ""
    objects: int = 0
    read: int = 0
    log: tuple[str, ...] = ()
    seconds: dict[str, float] = field(default_factory=dict)
    doubts: tuple[str, ...] = ()

    def run(self) -> None:
        version = self.drill.binary.version
        self.cause = unreadable(self.plan.blocks, version=version)
        if self.cause:
            return
        with Scratch.take(self.drill.scratch) as scratch:
            if scratch.leftovers:
                self._announce("clean", "removing leftovers of a killed drill")
            scratch.prepare(size=self.plan.size + _RESERVED_SPACE)
            with self._step("restore", f"restoring {self.plan.backup_id} into {scratch.data.path}"):
                if not self._restore(scratch.data):
                    return
            with contextlib.ExitStack() as stack:
                with self._step("start", f"starting Prometheus {version} on the restored data"):
                    started = self._start(scratch, stack)
                if started is not None:
                    server, client = started
                    self._require_loaded(server, client)
                    with self._step("ask", "running the recorded queries"):
                        self._run_queries(server, client)

    def _restore(self, folder: Folder) -> bool:
        drill, plan = self.drill, self.plan
        drill.listener(PlanMade(plan.files, plan.size, 0, 0))
        staging = Staging(drill.repository, drill.transfer, folder)
        try:
            self._check_listing()
            if not self.findings:
                with contextlib.closing(staging.download(plan.blocks, step="restore")) as blocks:
                    for block in blocks:
                        self.read += block.size
        except ObjectAltered as error:
            self.findings.append(Finding(FindingKind.ALTERED, error.key, "its bytes differ"))
        except RepositoryError as error:
            self.cause = error.message
            drill.listener(Warned(f"cannot restore {plan.backup_id}: {self.cause}", error.hint))
        except OSError as error:
            raise TargetUnusable(
                f"cannot drill in {drill.scratch}: {error.strerror} ({error.filename})",
                hint="set --scratch to another directory",
            ) from error
        return not self.findings and not self.cause

    def _check_listing(self) -> None:
        """Check with one listing that all objects exist, before reading any."""
        repository = self.drill.repository
        listed = {o.key: o.size for o in repository.store.list(self.plan.backup_id)}
        if self.manifest.folders:
            archive = repository.archive.folders().values()
            listed |= {o.key: o.size for folder in archive for o in folder.objects.values()}
        self.objects = self.plan.files
        for file in (file for block in self.plan.blocks for file in block.files):
            if finding := size_finding(file.key, file.size, listed.get(file.key)):
                self.findings.append(finding)

    def _start(
        self, scratch: Scratch, stack: contextlib.ExitStack
    ) -> tuple[LocalPrometheus, PrometheusClient] | None:
        drill = self.drill
        starter = PrometheusStarter(drill.binary, drill.wait, drill.repository.clock)
        queries = query_settings(self.manifest.prometheus)
        server, client = starter.start(stack, scratch.data, run=scratch.run, queries=queries)
        if client is not None:
            self._find_doubts(server)
            return server, client
        self._explain_failed_start(server)
        return None

    def _find_doubts(self, server: LocalPrometheus) -> None:
        self.doubts = doubts(
            self.manifest,
            version=self.drill.binary.version,
            unknown_features=server.unknown_features(),
        )
        for doubt in self.doubts:
            self.drill.listener(Warned(doubt, "use the version of Prometheus that was backed up"))

    def _explain_failed_start(self, server: LocalPrometheus) -> None:
        """Record a finding if the data prevented the start, else a cause."""
        lines = server.log()
        self.log = tuple(line[:_MAX_LINE_LENGTH] for line in lines[-_MAX_LOG_LINES:])
        code = server.exit_code
        if code is None:
            seconds = f"{self.drill.wait.total_seconds():.0f}"
            self.cause = f"Prometheus was not ready within {seconds} s"
            return
        errors = [line for line in lines if "err=" in line] or lines[-1:] or ["(nothing)"]
        line = errors[-1][:_MAX_LINE_LENGTH]
        message = f"Prometheus exited with {code} before it was ready: {line}"
        if "opening storage failed" in message and not _ENVIRONMENT_ERROR.search(message):
            key = f"{self.plan.backup_id}/{MANIFEST}"
            self.findings.append(Finding(FindingKind.NOT_STARTED, key, message))
        else:
            self.cause = message

    def _require_loaded(self, server: LocalPrometheus, client: PrometheusClient) -> None:
        """Check that Prometheus has loaded every block: it silently skips those it cannot read."""
        try:
            loaded = client.loaded_blocks()
            count = client.count_loaded_blocks() if loaded is None else None
        except SourceError as error:
            self.cause = error.message
            return
        wanted = self.plan.loaded
        if loaded is not None:
            for ulid in sorted(wanted - loaded):
                self._not_loaded(f"{self.plan.backup_id}/{ulid}/meta.json", "it was not loaded")
        elif count is None:
            self.cause = "Prometheus does not report how many blocks it has loaded"
        elif count < len(wanted):
            detail = f"Prometheus loaded {count} of {counted(len(wanted), 'block')}"
            self._not_loaded(f"{self.plan.backup_id}/{MANIFEST}", detail)
        if self.findings:
            self.log = tuple(line[:_MAX_LINE_LENGTH] for line in server.log()[-_MAX_LOG_LINES:])

    def _not_loaded(self, key: str, detail: str) -> None:
        self.findings.append(Finding(FindingKind.NOT_LOADED, key, detail))

    def _run_queries(self, server: LocalPrometheus, client: PrometheusClient) -> None:
        for fingerprint in self.plan.queries:
            compared = self._compare(fingerprint, server, client)
            self.comparisons.append(compared)
            self.drill.listener(
                FingerprintCompared(compared.query, compared.verdict.value, compared.detail)
            )
            if compared.verdict is Verdict.FAIL and compared.at is not None:
                key = f"{self.plan.backup_id}/{MANIFEST}"
                detail = f"{compared.query} at {rfc3339(compared.at)}: {compared.detail}"
                self.findings.append(Finding(FindingKind.OTHER_ANSWER, key, detail))

    def _compare(
        self, fingerprint: Fingerprint, server: LocalPrometheus, client: PrometheusClient
    ) -> Comparison:
        at, recorded = fingerprint.at, fingerprint.answer
        assert at is not None and recorded is not None, "the plan skips others"  # noqa: S101, PT018
        verdict, detail = Verdict.PASS, ""
        try:
            data = client.query(
                fingerprint.query, at=at, limit=_QUERY_TIMEOUT, max_bytes=MAX_RESPONSE_SIZE
            )
            found = differences(recorded, read_answer(data))
        except QueryFailed as error:
            verdict, detail = _failure(error)
            if (code := server.exit_code) is not None:
                detail = f"Prometheus exited with {code} during the query"
        except ValueError as error:
            verdict, detail = Verdict.FAIL, str(error)
        else:
            if found:
                verdict, detail = Verdict.FAIL, _shortened(found)
        if verdict is Verdict.FAIL and self.doubts:
            verdict = Verdict.INCONCLUSIVE
            detail = f"{'; '.join(self.doubts)}: {detail}"
        return Comparison(fingerprint.query, at, verdict, detail, len(recorded.series))

    @contextlib.contextmanager
    def _step(self, name: str, text: str) -> Iterator[None]:
        clock = self.drill.repository.clock
        self._announce(name, text)
        began = clock.monotonic()
        yield
        self.seconds[name] = round(clock.monotonic() - began, 3)

    def _announce(self, name: str, text: str) -> None:
        self.drill.listener(Step(name, text))


def _failure(error: QueryFailed) -> tuple[Verdict, str]:
    """Return FAIL if the restored data made the query fail, since the source could answer it."""
    message = "".join(c if c.isprintable() else " " for c in error.message[:_MAX_LINE_LENGTH])
    other = _ENVIRONMENT_ERROR.search(message) or _NEWER_CHUNKS in message
    data_error = error.kind == "execution" and not other
    return (Verdict.FAIL if data_error else Verdict.INCONCLUSIVE), f"the query failed: {message}"


def _shortened(found: tuple[str, ...]) -> str:
    shown = "; ".join(found[:_MAX_DIFFERENCES])
    more = len(found) - _MAX_DIFFERENCES
    return f"{shown}; and {more} more" if more > 0 else shown
