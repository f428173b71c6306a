"""Worlds for the alerts: series by the hour, healthy unless a case changes some of them.

An hour is a sample; hour 0 is promtool's time 0, so what was before has negative times. A backup
runs at two o'clock and takes five minutes.
"""

from collections.abc import Callable, Mapping

Value = Callable[[int], float | None]
"""What a series is at an hour; None where it is not there."""
Series = Mapping[str, Value]

HOUR = 3600.0
DAY = 24 * HOUR
REPOSITORY = "s3://backups/prometheus"
_CRONJOB = 'namespace="observability",cronjob="prometheus-backup"'
_TOOL = f'repository="{REPOSITORY}",{_CRONJOB}'


def always(value: float) -> Value:
    """The same at every hour."""
    return lambda _: value


def until(hour: int, value: Value) -> Value:
    """Gone from an hour on."""
    return lambda h: value(h) if h < hour else None


def since(hour: int, value: Value, before: float | None = None) -> Value:
    """From an hour on; before, another value or nothing."""
    return lambda h: value(h) if h >= hour else before


def run_begin(hour: int) -> float:
    """When the last run began that is over at this hour."""
    return ((hour - 3) // 24 * 24 + 2) * HOUR


def run_end(hour: int) -> float:
    """When it ended."""
    return run_begin(hour) + 300


def stopped(value: Value, hour: int) -> Value:
    """What does not go on from an hour on: it stays as it was."""
    return lambda h: value(min(h, hour))


def tool(short: str, **labels: str) -> str:
    """The name of a series of the tool's own."""
    more = "".join(f',{k}="{v}"' for k, v in labels.items())
    return f"prometheus_backup_{short}{{{_TOOL}{more}}}"


def kube(name: str, cronjob: str = _CRONJOB) -> str:
    """The name of a series of the CronJob."""
    return f"kube_cronjob_{name}{{{cronjob}}}"


def job(name: str, job_name: str, **labels: str) -> str:
    """The name of a series of a Job of the CronJob."""
    more = "".join(f',{k}="{v}"' for k, v in labels.items())
    return f'kube_job_{name}{{namespace="observability",job_name="{job_name}"{more}}}'


REPOSITORY_WORLD: Series = {
    tool("last_good_backup_timestamp_seconds"): run_end,
    tool("newest_recoverable_timestamp_seconds"): run_begin,
    tool("oldest_backup_timestamp_seconds"): always(-100 * DAY),
    tool("expected_interval_seconds"): always(DAY),
    tool("good_backups"): always(40),
    tool("unusable_backups", cause="verification_failed"): always(0),
    tool("unusable_backups", cause="unreadable"): always(0),
    tool("unusable_backups", cause="drill_failed"): always(0),
    tool("unusable_backups", cause="degraded"): always(0),
    tool("last_backup_degraded_blocks"): always(0),
    tool("last_backup_size_bytes"): always(3e10),
    tool("previous_backups_median_size_bytes"): always(3e10),
    tool("repository_size_bytes"): always(1.2e12),
    tool("repository_readable"): always(1),
    tool("oldest_verification_timestamp_seconds"): lambda h: h * HOUR - 20 * DAY,
    tool("verified_backups", level="none"): always(0),
    tool("last_verification_verdict", level="drill", verdict="pass"): always(1),
    tool("last_verification_verdict", level="drill", verdict="fail"): always(0),
    tool("last_verification_success_timestamp_seconds", level="drill"): always(-2 * DAY),
}
"""What the exporter tells of a healthy repository."""

RUN_WORLD: Series = {
    tool("last_run_exit_code", command="backup"): always(0),
    tool("last_attempt_timestamp_seconds", command="backup"): run_end,
    tool("last_success_timestamp_seconds", command="backup"): run_end,
    tool("leaked_snapshots", command="backup"): always(0),
}
"""What healthy runs tell."""


def cronjob_world(labels: str = _CRONJOB) -> Series:
    """What kube-state-metrics tells of a healthy CronJob."""
    return {
        kube("info", labels): always(1),
        kube("created", labels): always(-100 * DAY),
        kube("spec_suspend", labels): always(0),
        kube("status_active", labels): always(0),
        kube("status_last_schedule_time", labels): run_begin,
        kube("next_schedule_time", labels): lambda h: run_begin(h) + DAY,
        kube("status_last_successful_time", labels): run_end,
    }


def failed_job(name: str, began: float, *, pods: int = 3) -> Series:
    """What kube-state-metrics tells of a Job that failed for good, from three o'clock on."""
    from_hour = int(began // HOUR) + 1
    return {
        job("owner", name, owner_kind="CronJob", owner_name="prometheus-backup"): since(
            from_hour, always(1)
        ),
        job("status_start_time", name): since(from_hour, always(began)),
        job("status_failed", name, reason="BackoffLimitExceeded"): since(from_hour, always(pods)),
        job("failed", name, condition="true"): since(from_hour, always(1)),
        job("failed", name, condition="false"): since(from_hour, always(0)),
        job("failed", name, condition="unknown"): since(from_hour, always(0)),
    }
