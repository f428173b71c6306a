"""Input series for the alert tests: healthy ones, and functions to change them.

Each series has one sample per hour. Hour 0 is promtool's time 0, so earlier times are negative. A
backup runs at two o'clock and takes five minutes.
"""

from collections.abc import Callable, Mapping

Value = Callable[[int], float | None]
"""The value of a series at an hour; None if it has no sample then."""
Series = Mapping[str, Value]

HOUR = 3600.0
DAY = 24 * HOUR
REPOSITORY = "s3://backups/prometheus"
_CRONJOB = 'namespace="observability",cronjob="prometheus-backup"'
_TOOL = f'repository="{REPOSITORY}",{_CRONJOB}'


def constant(value: float) -> Value:
    """Have the same value at every hour."""
    return lambda _: value


def until(hour: int, value: Value) -> Value:
    """End at an hour."""
    return lambda h: value(h) if h < hour else None


def since(hour: int, value: Value, before: float | None = None) -> Value:
    """Start at an hour; earlier, have another value or no sample."""
    return lambda h: value(h) if h >= hour else before


def run_start(hour: int) -> float:
    """Return the start time of the last run that has ended by this hour."""
    return ((hour - 3) // 24 * 24 + 2) * HOUR


def run_end(hour: int) -> float:
    """Return the end time of that run."""
    return run_start(hour) + 300


def frozen_at(value: Value, hour: int) -> Value:
    """Keep the value of that hour from then on."""
    return lambda h: value(min(h, hour))


def tool(short: str, **labels: str) -> str:
    """Return the name of a series of prometheus-backup."""
    more = "".join(f',{k}="{v}"' for k, v in labels.items())
    return f"prometheus_backup_{short}{{{_TOOL}{more}}}"


def kube(name: str, cronjob: str = _CRONJOB) -> str:
    """Return the name of a CronJob series of kube-state-metrics."""
    return f"kube_cronjob_{name}{{{cronjob}}}"


def job(name: str, job_name: str, **labels: str) -> str:
    """Return the name of a Job series of kube-state-metrics."""
    more = "".join(f',{k}="{v}"' for k, v in labels.items())
    return f'kube_job_{name}{{namespace="observability",job_name="{job_name}"{more}}}'


REPOSITORY_SERIES: Series = {
    tool("last_good_backup_timestamp_seconds"): run_end,
    tool("newest_recoverable_timestamp_seconds"): run_start,
    tool("oldest_backup_timestamp_seconds"): constant(-100 * DAY),
    tool("expected_interval_seconds"): constant(DAY),
    tool("good_backups"): constant(40),
    tool("unusable_backups", cause="verification_failed"): constant(0),
    tool("unusable_backups", cause="unreadable"): constant(0),
    tool("unusable_backups", cause="drill_failed"): constant(0),
    tool("unusable_backups", cause="degraded"): constant(0),
    tool("last_backup_degraded_blocks"): constant(0),
    tool("last_backup_size_bytes"): constant(3e10),
    tool("previous_backups_median_size_bytes"): constant(3e10),
    tool("repository_size_bytes"): constant(1.2e12),
    tool("repository_readable"): constant(1),
    tool("oldest_verification_timestamp_seconds"): lambda h: h * HOUR - 20 * DAY,
    tool("verified_backups", level="none"): constant(0),
    tool("last_verification_verdict", level="drill", verdict="pass"): constant(1),
    tool("last_verification_verdict", level="drill", verdict="fail"): constant(0),
    tool("last_verification_success_timestamp_seconds", level="drill"): constant(-2 * DAY),
}
"""The exporter's series for a healthy repository."""

RUN_SERIES: Series = {
    tool("last_run_exit_code", command="backup"): constant(0),
    tool("last_attempt_timestamp_seconds", command="backup"): run_end,
    tool("last_success_timestamp_seconds", command="backup"): run_end,
    tool("leaked_snapshots", command="backup"): constant(0),
}
"""The series that healthy runs push."""


def cronjob_series(labels: str = _CRONJOB) -> Series:
    """Return the series of kube-state-metrics for a healthy CronJob."""
    return {
        kube("info", labels): constant(1),
        kube("created", labels): constant(-100 * DAY),
        kube("spec_suspend", labels): constant(0),
        kube("status_active", labels): constant(0),
        kube("status_last_schedule_time", labels): run_start,
        kube("next_schedule_time", labels): lambda h: run_start(h) + DAY,
        kube("status_last_successful_time", labels): run_end,
    }


def failed_job(name: str, began: float, *, pods: int = 3) -> Series:
    """Return the series of kube-state-metrics for a Job that failed, from the next hour on."""
    from_hour = int(began // HOUR) + 1
    return {
        job("owner", name, owner_kind="CronJob", owner_name="prometheus-backup"): since(
            from_hour, constant(1)
        ),
        job("status_start_time", name): since(from_hour, constant(began)),
        job("status_failed", name, reason="BackoffLimitExceeded"): since(from_hour, constant(pods)),
        job("failed", name, condition="true"): since(from_hour, constant(1)),
        job("failed", name, condition="false"): since(from_hour, constant(0)),
        job("failed", name, condition="unknown"): since(from_hour, constant(0)),
    }
