"""What the report shows, computed from the backups of a repository. Pure."""

from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from prometheus_backup import __version__
from prometheus_backup.cost.estimate import basis_of_entries, plan_of
from prometheus_backup.cost.forecast import Forecast, forecast
from prometheus_backup.cost.model import STRATEGIES, Strategy, Usage
from prometheus_backup.cost.prices import PRICES
from prometheus_backup.model import Level
from prometheus_backup.report.nights import Mark, Month, mark_of, months
from prometheus_backup.report.verdict import Verdict, judge
from prometheus_backup.repository.entry import BackupEntry, committed
from prometheus_backup.repository.manifest import Header
from prometheus_backup.repository.verification import Verification
from prometheus_backup.retention.policy import Decision, Policy, decide
from prometheus_backup.retention.prune import candidates
from prometheus_backup.spans import Span
from prometheus_backup.timeline.plan import Timeline, coverages_of, plan_timeline

_MOST_DRILLS = 20


Forecasts = dict[Hashable, Forecast | None]
"""The last forecast of a repository, by what it was made from."""


@dataclass(frozen=True, slots=True)
class Expected:
    """What is expected of a repository.

    Of backups: one in each `interval`, kept as the policy says, each read whole in each `rotation`.
    """

    policy: Policy
    interval: timedelta
    rotation: timedelta


@dataclass(frozen=True, slots=True)
class Line:
    """A backup in the table, with the decision of retention; None if it is not judged."""

    entry: BackupEntry
    mark: Mark
    decision: Decision | None


@dataclass(frozen=True, slots=True)
class Report:
    """Everything that the page shows. `settings` are names and values, as text.

    `forecast` is None without a backup, and `strategy` is the storage class whose cost it has.
    `lines` are oldest first, `failures` and `drills` newest first.
    """

    repository: str
    made_at: datetime
    version: str
    settings: Mapping[str, str]
    verdict: Verdict
    months: tuple[Month, ...]
    timeline: Timeline
    drills: tuple[Verification, ...]
    failures: tuple[Verification, ...]
    lines: tuple[Line, ...]
    forecast: Forecast | None
    strategy: str | None

    @property
    def headers(self) -> tuple[Header, ...]:
        """Return the manifests that could be read, oldest first."""
        return tuple(line.entry.header for line in self.lines if line.entry.header)


def plan_report(
    entries: Sequence[BackupEntry],
    *,
    repository: str,
    expected: Expected,
    storage_class: str | None,
    now: datetime,
    history: Sequence[Span] = (),
    forecasts: Forecasts | None = None,
) -> Report:
    """Compute the report of a repository; entries are oldest first.

    `storage_class` is that of new backups on S3; without one, nothing is said of the cost.
    `history` is what the archive holds beyond the backups. `forecasts` keeps the last forecast for
    the next report on the same day.
    """
    policy, interval, rotation = expected.policy, expected.interval, expected.rotation
    timeline = plan_timeline(
        coverages_of(entries),
        window=None,
        policy=policy,
        interval=interval,
        now=now,
        history=history,
    )
    decided = decide(candidates(entries), today=now.date(), policy=policy)
    by_id = {d.backup_id: d for d in decided}
    failures = [f for e in committed(entries) if (f := e.failure) is not None]
    drills = [v for e in entries for v in e.verifications if v.level is Level.DRILL]
    used = [s for s in STRATEGIES if s.name == storage_class]
    return Report(
        repository=repository,
        made_at=now,
        version=__version__,
        settings=dict(_settings(entries, expected)),
        verdict=judge(entries, interval=interval, now=now),
        months=months(entries, timeline.missing, rotation=rotation, now=now),
        timeline=timeline,
        drills=_newest_first(drills)[:_MOST_DRILLS],
        failures=_newest_first(failures),
        lines=tuple(
            Line(e, mark_of(e, rotation=rotation, now=now), by_id.get(e.backup_id)) for e in entries
        ),
        forecast=_forecast(entries, policy, used, now, {} if forecasts is None else forecasts),
        strategy=storage_class if used else None,
    )


def _forecast(
    entries: Sequence[BackupEntry],
    policy: Policy,
    used: Sequence[Strategy],
    now: datetime,
    known: Forecasts,
) -> Forecast | None:
    backups = tuple((e.backup_id, e.good, e.hold) for e in entries)
    key = backups, policy, tuple(used), now.date()
    if key not in known:
        known.clear()
        basis = basis_of_entries(entries, source="")
        plan = plan_of(basis, policy=policy, today=now.date()) if basis else None
        known[key] = forecast(plan, strategies=used, usage=Usage(), prices=PRICES) if plan else None
    return known[key]


def _newest_first(results: Sequence[Verification]) -> tuple[Verification, ...]:
    return tuple(sorted(results, key=lambda v: v.verified_at, reverse=True))


def _settings(entries: Sequence[BackupEntry], expected: Expected) -> Iterator[tuple[str, str]]:
    policy = expected.policy
    yield (
        "retention",
        f"{policy.daily} daily, {policy.monthly} monthly, {policy.yearly} yearly",
    )
    if policy.history:
        yield "history of the archive", f"{policy.history.days} days"
    yield "a backup is expected every", f"{expected.interval / timedelta(hours=1):g} hours"
    yield "verify should read every backup every", f"{expected.rotation.days} days"
    headers = [e.header for e in entries if e.header]
    if headers:
        newest = headers[-1]
        yield "layout of the newest backup", newest.layout.value
        yield "source", newest.prometheus_url
        yield "Prometheus", newest.prometheus.version
        yield "retention of Prometheus", newest.retention_time
        labels = ", ".join(f"{name}={value}" for name, value in sorted(newest.labels.items()))
        yield "labels", labels or "none"
        yield "verification before the commit", newest.verified.value if newest.verified else "off"
