"""A drill: restore a backup aside, start a real Prometheus on it, and ask what is recorded.

What is restored and asked is decided in `drill_plan`; here it is done, measured, and cleaned up.
"""

import contextlib
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path

from prometheus_backup import __version__
from prometheus_backup.datadir.scratch import Scratch
from prometheus_backup.drill.plan import Compared, DrillPlan, judge, plan_drill, same_language
from prometheus_backup.errors import (
    BackupToolError,
    RepositoryError,
    SourceError,
    SourceUnavailable,
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
from prometheus_backup.model import Finding, FindingKind, Level, Outcome, Verdict, rfc3339
from prometheus_backup.prometheus.answers import differences
from prometheus_backup.prometheus.client import Access, PrometheusClient, QueryFailed
from prometheus_backup.prometheus.fingerprints import MAX_RESPONSE_SIZE
from prometheus_backup.prometheus.process import LocalPrometheus, PrometheusBinary, deferred_signals
from prometheus_backup.prometheus.promql import DEFAULT_LOOKBACK, parse_duration
from prometheus_backup.repository.fingerprint import Fingerprint, read_answer
from prometheus_backup.repository.layout import MANIFEST
from prometheus_backup.repository.manifest import Manifest
from prometheus_backup.repository.repository import BackupEntry, Repository
from prometheus_backup.repository.verification import RecordedFinding, Verification
from prometheus_backup.restore.staging import ObjectAltered, Staging
from prometheus_backup.transfer import Transfer
from prometheus_backup.verify.objects import size_finding

_ROOM_TO_SPARE = 64 * 1024 * 1024
_QUERY_LIMIT = timedelta(minutes=2)
"""Longer than the source had: nothing is in the page cache."""
_POLL_SECONDS = 0.1
_STARTS = 3
_SHOWN_LOG = 15  # lines
_SHOWN_LINE = 500  # characters
_SHOWN_DIFFERENCES = 5
_NOT_THE_DATA = re.compile(
    "no space left|permission denied|too many open files|cannot allocate memory"
    "|resource temporarily unavailable|input/output error|out of memory|too many samples",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class DrillReport:
    """What a drill came to. `log` is the end of Prometheus' log, where that did not go well."""

    plan: DrillPlan
    result: Verification
    cause: str
    compared: tuple[Compared, ...]
    version: str
    log: tuple[str, ...]

    @property
    def outcome(self) -> Outcome:
        """Return FAULTY for any fault, PARTIAL where it proved nothing."""
        return {
            Verdict.FAIL: Outcome.FAULTY,
            Verdict.PASS: Outcome.DONE,
            Verdict.INCONCLUSIVE: Outcome.PARTIAL,
        }[self.result.verdict]


@dataclass(frozen=True, slots=True)
class Drill:
    """Drills backups of one repository; `wait` is how long Prometheus may take to be ready."""

    repository: Repository
    transfer: Transfer
    binary: PrometheusBinary
    scratch: Path
    wait: timedelta
    listener: Listener

    def run(
        self, entry: BackupEntry, *, start: datetime | None = None, end: datetime | None = None
    ) -> DrillReport:
        """Drill a backup, or the part of it between two instants, and record the result.

        Whatever happens, Prometheus is ended and what was restored is removed. Raises
        RepositoryLocked where another drill is at work in the directory, TargetUnusable where it
        has no room.
        """
        manifest = self.repository.manifest(entry.backup_id)
        plan = plan_drill(manifest, start=start, end=end)
        attempt = _Attempt(self, manifest, plan)
        if plan.blocks:
            attempt.go()
        else:
            attempt.cause = "it holds no block" + (" of these times" if plan.part else "")
        asked = {c.query for c in attempt.compared}
        open_ones = [
            Compared(f.query, f.at, Verdict.INCONCLUSIVE, "the drill did not get to it")
            for f in plan.ask
            if f.query not in asked
        ]
        compared = (*attempt.compared, *open_ones, *plan.unasked)
        verdict, cause = judge(attempt.findings, compared, cause=attempt.cause)
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
        self._tell(result)
        return DrillReport(plan, result, cause, compared, self.binary.version, attempt.log)

    def _tell(self, result: Verification) -> None:
        for finding in result.findings:
            self.listener(Warned(f"Verification failed: {finding.key}: {finding.detail}"))
        self.listener(
            BackupVerified(result.backup_id, result.level, result.verdict, len(result.findings))
        )
        try:
            self.repository.results.record(result)
        except BackupToolError as error:
            self.listener(Warned(f"the result could not be recorded: {error.message}", error.hint))


@dataclass(slots=True)
class _Attempt:
    """One drill at work, and what it has seen so far."""

    drill: Drill
    manifest: Manifest
    plan: DrillPlan
    findings: list[Finding] = field(default_factory=list)
    compared: list[Compared] = field(default_factory=list)
    cause: str = ""
    objects: int = 0
    read: int = 0
    log: tuple[str, ...] = ()
    seconds: dict[str, float] = field(default_factory=dict)

    def go(self) -> None:
        with Scratch.take(self.drill.scratch) as scratch:
            if scratch.leftovers:
                self._say("clean", "removing what a drill that was killed has left")
            scratch.prepare(size=self.plan.size + _ROOM_TO_SPARE)
            with self._step("restore", f"restoring {self.plan.backup_id} into {scratch.data}"):
                if not self._restore(scratch.data):
                    return
            with contextlib.ExitStack() as stack:
                with self._step("start", f"starting Prometheus {self.drill.binary.version} on it"):
                    started = self._start(scratch, stack)
                if started is not None:
                    server, client = started
                    self._require_loaded(server, client)
                    with self._step("ask", "asking what the source was asked"):
                        self._ask(server, client)

    def _restore(self, folder: Path) -> bool:
        drill, plan = self.drill, self.plan
        drill.listener(PlanMade(plan.files, plan.size, 0, 0))
        staging = Staging(drill.repository, drill.transfer, folder)
        try:
            self._look()
            if not self.findings:
                with contextlib.closing(staging.bring(plan.blocks, step="restore")) as whole:
                    for block in whole:
                        self.read += block.size
        except ObjectAltered as error:
            self.findings.append(Finding(FindingKind.ALTERED, error.key, "its bytes differ"))
        except RepositoryError as error:
            self.cause = error.message
            drill.listener(Warned(f"could not restore {plan.backup_id}: {self.cause}", error.hint))
        except OSError as error:
            raise TargetUnusable(
                f"cannot drill in {drill.scratch}: {error.strerror} ({error.filename})",
                hint="name another directory with --scratch",
            ) from error
        return not self.findings and not self.cause

    def _look(self) -> None:
        """Look by one listing whether all objects are there, before any is read."""
        store = self.drill.repository.store
        listed = {o.key: o.size for o in store.list(self.plan.backup_id)}
        self.objects = self.plan.files
        for file in (file for block in self.plan.blocks for file in block.files):
            if finding := size_finding(file.key, file.size, listed.get(file.key)):
                self.findings.append(finding)

    def _start(
        self, scratch: Scratch, stack: contextlib.ExitStack
    ) -> tuple[LocalPrometheus, PrometheusClient] | None:
        drill = self.drill
        source = self.manifest.prometheus
        if not same_language(source.version, drill.binary.version):
            drill.listener(
                Warned(
                    f"the source was Prometheus {source.version}, this is {drill.binary.version}",
                    "drill with a Prometheus of the same major version",
                )
            )
        lookback = parse_duration(source.lookback) or DEFAULT_LOOKBACK
        for _ in range(_STARTS):
            with deferred_signals():
                server = LocalPrometheus(
                    drill.binary, scratch.data, run=scratch.run, lookback=lookback
                )
                stack.enter_context(server)
            client = stack.enter_context(PrometheusClient(Access(server.url)))
            if self._is_ready(server, client):
                return server, client
            if server.exit_code is None or not _port_was_taken(server):
                break
        self._failed(server)
        return None

    def _is_ready(self, server: LocalPrometheus, client: PrometheusClient) -> bool:
        clock = self.drill.repository.clock
        deadline = clock.monotonic() + self.drill.wait.total_seconds()
        while server.exit_code is None and clock.monotonic() < deadline:
            try:
                client.require_ready()
            except SourceUnavailable:
                clock.sleep(_POLL_SECONDS)
            else:
                return True
        return False

    def _failed(self, server: LocalPrometheus) -> None:
        """Tell the data's fault from others: only the first is a finding."""
        lines = server.log()
        self.log = tuple(line[:_SHOWN_LINE] for line in lines[-_SHOWN_LOG:])
        code = server.exit_code
        if code is None:
            seconds = f"{self.drill.wait.total_seconds():.0f}"
            self.cause = f"Prometheus was not ready within {seconds} s"
            return
        errors = [line for line in lines if "err=" in line] or lines[-1:] or ["(nothing)"]
        said = f"Prometheus ended with {code} before it was ready: {errors[-1][:_SHOWN_LINE]}"
        if "opening storage failed" in said and not _NOT_THE_DATA.search(said):
            key = f"{self.plan.backup_id}/{MANIFEST}"
            self.findings.append(Finding(FindingKind.NOT_STARTED, key, said))
        else:
            self.cause = said

    def _require_loaded(self, server: LocalPrometheus, client: PrometheusClient) -> None:
        """See that Prometheus serves every block: it passes silently over what it cannot read."""
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
            self.cause = "Prometheus does not say how many blocks it has loaded"
        elif count < len(wanted):
            detail = f"Prometheus loaded {count} of {len(wanted)} blocks"
            self._not_loaded(f"{self.plan.backup_id}/{MANIFEST}", detail)
        if self.findings:
            self.log = tuple(line[:_SHOWN_LINE] for line in server.log()[-_SHOWN_LOG:])

    def _not_loaded(self, key: str, detail: str) -> None:
        self.findings.append(Finding(FindingKind.NOT_LOADED, key, detail))

    def _ask(self, server: LocalPrometheus, client: PrometheusClient) -> None:
        for fingerprint in self.plan.ask:
            compared = self._compare(fingerprint, server, client)
            self.compared.append(compared)
            self.drill.listener(
                FingerprintCompared(compared.query, compared.verdict.value, compared.detail)
            )
            if compared.verdict is Verdict.FAIL and compared.at is not None:
                key = f"{self.plan.backup_id}/{MANIFEST}"
                detail = f"{compared.query} at {rfc3339(compared.at)}: {compared.detail}"
                self.findings.append(Finding(FindingKind.OTHER_ANSWER, key, detail))

    def _compare(
        self, fingerprint: Fingerprint, server: LocalPrometheus, client: PrometheusClient
    ) -> Compared:
        at, recorded = fingerprint.at, fingerprint.answer
        assert at is not None and recorded is not None, "the plan asks no other"  # noqa: S101, PT018
        verdict, detail = Verdict.PASS, ""
        try:
            data = client.query(fingerprint.query, at=at, limit=_QUERY_LIMIT, max_bytes=MAX_RESPONSE_SIZE)
            differing = differences(recorded, read_answer(data))
        except QueryFailed as error:
            verdict, detail = _failure(error)
            if (code := server.exit_code) is not None:
                detail = f"Prometheus ended with {code} when it was asked"
        except ValueError as error:
            verdict, detail = Verdict.FAIL, str(error)
        else:
            if differing:
                verdict, detail = Verdict.FAIL, _shortened(differing)
        source, drilled = self.manifest.prometheus.version, self.drill.binary.version
        if verdict is Verdict.FAIL and not same_language(source, drilled):
            verdict = Verdict.INCONCLUSIVE
            detail = f"Prometheus {source} and {drilled} may answer differently: {detail}"
        return Compared(fingerprint.query, at, verdict, detail, len(recorded.series))

    @contextlib.contextmanager
    def _step(self, name: str, text: str) -> Iterator[None]:
        clock = self.drill.repository.clock
        self._say(name, text)
        began = clock.monotonic()
        yield
        self.seconds[name] = round(clock.monotonic() - began, 3)

    def _say(self, name: str, text: str) -> None:
        self.drill.listener(Step(name, text))


def _failure(error: QueryFailed) -> tuple[Verdict, str]:
    """A query that the source could answer, and this Prometheus cannot while it reads the data."""
    said = "".join(c if c.isprintable() else " " for c in error.message[:_SHOWN_LINE])
    of_the_data = error.kind == "execution" and not _NOT_THE_DATA.search(said)
    return (Verdict.FAIL if of_the_data else Verdict.INCONCLUSIVE), f"the query failed: {said}"


def _shortened(differing: tuple[str, ...]) -> str:
    shown = "; ".join(differing[:_SHOWN_DIFFERENCES])
    more = len(differing) - _SHOWN_DIFFERENCES
    return f"{shown}; and {more} more" if more > 0 else shown


def _port_was_taken(server: LocalPrometheus) -> bool:
    return any("address already in use" in line for line in server.log())
