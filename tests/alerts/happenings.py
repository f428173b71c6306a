"""What changes in a world, and what is then said of it."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from tests.alerts.worlds import (
    HOUR,
    REPOSITORY,
    REPOSITORY_WORLD,
    RUN_WORLD,
    Series,
    Value,
    cronjob_world,
    failed_job,
    kube,
    run_end,
    stopped,
    tool,
    until,
)


@dataclass(frozen=True)
class Alert:
    """An alert that fires, with the labels that tell of what; severity `high` if not said."""

    name: str
    labels: Mapping[str, str] = field(default_factory=dict)
    severity: str = "high"


@dataclass(frozen=True)
class Case:
    """At these hours of this world exactly these alerts fire."""

    name: str
    world: Series
    fires: Mapping[int, list[Alert]]


ABOUT_REPOSITORY = {"repository": REPOSITORY}
ABOUT_CRONJOB = {"namespace": "observability", "cronjob": "prometheus-backup"}
KUBE = cronjob_world()
ALL: Series = {**REPOSITORY_WORLD, **RUN_WORLD, **KUBE}
STAGING = 'namespace="staging",cronjob="prometheus-backup"'


def about(name: str, reason: str = "", *, severity: str = "high", **labels: str) -> Alert:
    """An alert about the repository."""
    more = {"reason": reason} if reason else {}
    return Alert(name, {**ABOUT_REPOSITORY, **more, **labels}, severity)


def about_cronjob(name: str, reason: str = "", *, severity: str = "high", **labels: str) -> Alert:
    """An alert about the CronJob."""
    more = {"reason": reason} if reason else {}
    return Alert(name, {**ABOUT_CRONJOB, **more, **labels}, severity)


def change(world: Series, **changes: Value) -> Series:
    """A world with some series of the repository changed, by short name."""
    return {**world, **{tool(name): value for name, value in changes.items()}}


def without(world: Series, *parts: str) -> Series:
    """A world without the series whose names have one of these parts."""
    return {n: v for n, v in world.items() if not any(p in n for p in parts)}


def gone(world: Series, hour: int) -> Series:
    """A world of which nothing is told from an hour on."""
    return {name: until(hour, value) for name, value in world.items()}


def failing(hour: int) -> Series:
    """Runs fail from an hour on: the CronJob is started, and has no success."""
    return {
        **KUBE,
        kube("status_last_successful_time"): stopped(run_end, hour),
    }


FAILED_AT_26 = failed_job("prometheus-backup-1", 26 * HOUR)
FAILED = about_cronjob("PrometheusBackupFailed", "job")
FAILED_UNSEEN = about_cronjob("PrometheusBackupFailed", "cronjob")
MISSING = about("PrometheusBackupMissing", "overdue")
MISSING_BY_KUBE = about_cronjob("PrometheusBackupMissing", "cronjob-overdue")
ABSENT = Alert("PrometheusBackupAbsent", {"reason": "everything"})
ABSENT_CRONJOB = about_cronjob("PrometheusBackupAbsent", "cronjob")
ABSENT_REPOSITORY = about("PrometheusBackupAbsent", "repository")
