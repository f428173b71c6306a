"""A test case of the alerts: series with changes, and the alerts that must fire."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from tests.alerts.series import (
    HOUR,
    REPOSITORY,
    REPOSITORY_SERIES,
    RUN_SERIES,
    Series,
    Value,
    cronjob_series,
    failed_job,
    frozen_at,
    kube,
    run_end,
    tool,
    until,
)


@dataclass(frozen=True)
class Alert:
    """An alert that fires, with its labels."""

    name: str
    labels: Mapping[str, str] = field(default_factory=dict)
    severity: str = "high"


@dataclass(frozen=True)
class Case:
    """With this series, exactly these alerts fire at these hours."""

    name: str
    series: Series
    fires: Mapping[int, list[Alert]]


ABOUT_REPOSITORY = {"repository": REPOSITORY}
ABOUT_CRONJOB = {"namespace": "observability", "cronjob": "prometheus-backup"}
KUBE = cronjob_series()
ALL: Series = {**REPOSITORY_SERIES, **RUN_SERIES, **KUBE}
STAGING = 'namespace="staging",cronjob="prometheus-backup"'


def repository_alert(
    name: str, reason: str = "", *, severity: str = "high", **labels: str
) -> Alert:
    """Return an alert about the repository."""
    more = {"reason": reason} if reason else {}
    return Alert(name, {**ABOUT_REPOSITORY, **more, **labels}, severity)


def cronjob_alert(name: str, reason: str = "", *, severity: str = "high", **labels: str) -> Alert:
    """Return an alert about the CronJob."""
    more = {"reason": reason} if reason else {}
    return Alert(name, {**ABOUT_CRONJOB, **more, **labels}, severity)


def change(series: Series, **changes: Value) -> Series:
    """Replace some series of the repository, by short name."""
    return {**series, **{tool(name): value for name, value in changes.items()}}


def without(series: Series, *parts: str) -> Series:
    """Leave out the series whose names contain one of these parts."""
    return {n: v for n, v in series.items() if not any(p in n for p in parts)}


def silent_from(series: Series, hour: int) -> Series:
    """End all series at an hour."""
    return {name: until(hour, value) for name, value in series.items()}


def failing_from(hour: int) -> Series:
    """Let runs fail from an hour on: the CronJob is scheduled, but never succeeds."""
    return {
        **KUBE,
        kube("status_last_successful_time"): frozen_at(run_end, hour),
    }


FAILED_AT_26 = failed_job("prometheus-backup-1", 26 * HOUR)
FAILED = cronjob_alert("PrometheusBackupFailed", "job")
FAILED_WITHOUT_JOB = cronjob_alert("PrometheusBackupFailed", "cronjob")
MISSING = repository_alert("PrometheusBackupMissing", "overdue")
MISSING_BY_KUBE = cronjob_alert("PrometheusBackupMissing", "cronjob-overdue")
ABSENT = Alert("PrometheusBackupAbsent", {"reason": "everything"})
ABSENT_CRONJOB = cronjob_alert("PrometheusBackupAbsent", "cronjob")
ABSENT_REPOSITORY = repository_alert("PrometheusBackupAbsent", "repository")
