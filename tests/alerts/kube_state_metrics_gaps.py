"""What alerts on kube-state-metrics alone would miss, because they only count failed pods and
completion times. The letters follow the table in docs/how-to/monitoring.md."""

from tests.alerts.case import (
    ABSENT,
    ABSENT_CRONJOB,
    ABSENT_REPOSITORY,
    ALL,
    FAILED,
    FAILED_AT_26,
    FAILED_WITHOUT_JOB,
    KUBE,
    MISSING,
    MISSING_BY_KUBE,
    STAGING,
    Case,
    change,
    cronjob_alert,
    failing_from,
    repository_alert,
    silent_from,
    without,
)
from tests.alerts.series import (
    DAY,
    HOUR,
    REPOSITORY_SERIES,
    constant,
    cronjob_series,
    failed_job,
    frozen_at,
    job,
    kube,
    run_end,
    run_start,
    since,
    tool,
    until,
)

KUBE_STATE_METRICS_GAPS = [
    Case(
        "healthy: kube-state-metrics and the exporter",
        ALL,
        {h: [] for h in (3, 26, 27, 49, 50, 51, 72, 90)},
    ),
    Case("healthy: only kube-state-metrics", KUBE, {h: [] for h in (3, 26, 27, 50, 90)}),
    Case("healthy: only the exporter", REPOSITORY_SERIES, {h: [] for h in (3, 26, 50, 90)}),
    # A: nothing is exported.
    Case("A: there are no metrics at all", {}, {1: [ABSENT]}),
    Case(
        "A: all metrics stop",
        silent_from(ALL, 40),
        {39: [], 42: [ABSENT, ABSENT_CRONJOB, ABSENT_REPOSITORY], 90: [ABSENT]},
    ),
    Case(
        "A: kube-state-metrics is down, the exporter is up",
        {**REPOSITORY_SERIES, **silent_from(KUBE, 40)},
        {39: [], 42: [ABSENT_CRONJOB], 70: []},
    ),
    Case(
        "A: there is only kube-state-metrics, and the CronJob is deleted",
        silent_from(KUBE, 40),
        {39: [], 42: [ABSENT, ABSENT_CRONJOB], 90: [ABSENT]},
    ),
    Case(
        "A: the exporter is gone, and kube-state-metrics takes over",
        {**silent_from(REPOSITORY_SERIES, 40), **failing_from(20)},
        {
            33: [FAILED_WITHOUT_JOB],
            35: [FAILED_WITHOUT_JOB],
            42: [FAILED_WITHOUT_JOB, MISSING_BY_KUBE, ABSENT_REPOSITORY],
        },
    ),
    # B: a pod failed, and its retry succeeded.
    Case(
        "B: a pod failed and its retry succeeded",
        {
            **ALL,
            job("owner", "j", owner_kind="CronJob", owner_name="prometheus-backup"): constant(1),
            job("status_start_time", "j"): constant(26 * HOUR),
            job("status_failed", "j", reason=""): since(26, constant(1)),
            job("complete", "j", condition="true"): since(27, constant(1)),
        },
        {h: [] for h in (26, 27, 28, 30, 40)},
    ),
    Case(
        "B: the retry takes hours, after the first attempt has reported its failure",
        {
            **ALL,
            tool("last_run_exit_code", command="backup"): lambda h: 20 if 26 <= h < 29 else 0,
            tool("last_attempt_timestamp_seconds", command="backup"): lambda h: (
                26 * HOUR + 60 if 26 <= h < 29 else run_end(h)
            ),
            tool("last_good_backup_timestamp_seconds"): lambda h: (
                run_end(25) if 26 <= h < 29 else run_end(h)
            ),
            kube("status_active"): lambda h: 1 if 26 <= h < 29 else 0,
            kube("status_last_schedule_time"): lambda h: run_start(h + 1),
            kube("status_last_successful_time"): lambda h: (
                run_end(25) if 26 <= h < 29 else run_end(h)
            ),
        },
        {h: [] for h in (26, 27, 28, 29, 30, 40)},
    ),
    # C: yesterday's failed Job is kept, today's has succeeded.
    Case(
        "C: a failed Job is kept after the next success",
        {
            **KUBE,
            **FAILED_AT_26,
            kube("status_last_successful_time"): lambda h: run_end(25) if h < 51 else run_end(h),
        },
        {26: [], 29: [FAILED], 49: [FAILED, MISSING_BY_KUBE], 51: [], 60: []},
    ),
    # D: Jobs are removed immediately.
    Case(
        "D: no Job is kept, and runs fail",
        failing_from(25),
        {26: [], 29: [FAILED_WITHOUT_JOB], 32: [FAILED_WITHOUT_JOB, MISSING_BY_KUBE]},
    ),
    Case(
        "D: no Job is kept, and the controller starts no new ones",
        {
            **KUBE,
            kube("status_last_successful_time"): frozen_at(run_end, 20),
            kube("status_last_schedule_time"): frozen_at(run_start, 20),
            kube("next_schedule_time"): frozen_at(lambda h: run_start(h) + DAY, 20),
        },
        {27: [], 29: [], 31: [MISSING_BY_KUBE], 80: [MISSING_BY_KUBE]},
    ),
    # E: several instances.
    Case(
        "E: one of two CronJobs is stale, the Job of another one is recent",
        {
            **cronjob_series('namespace="observability",cronjob="prometheus-verify"'),
            **cronjob_series(STAGING),
            **failing_from(1),
        },
        {34: [FAILED_WITHOUT_JOB, MISSING_BY_KUBE]},
    ),
    Case(
        "E: one of two repositories is stale",
        {
            **{
                n.replace("s3://backups/prometheus", "s3://other"): v
                for n, v in REPOSITORY_SERIES.items()
            },
            **change(REPOSITORY_SERIES, last_good_backup_timestamp_seconds=frozen_at(run_end, 1)),
        },
        {34: [MISSING]},
    ),
    # F: no success so far.
    Case(
        "F: the CronJob never succeeded",
        {
            **without(KUBE, "status_last_successful_time"),
            kube("created"): constant(0),
            kube("status_last_schedule_time"): since(3, run_start),
        },
        {
            2: [],
            5: [FAILED_WITHOUT_JOB],
            30: [FAILED_WITHOUT_JOB, cronjob_alert("PrometheusBackupNeverSucceeded", "cronjob")],
        },
    ),
    Case(
        "F: the CronJob never succeeded, and none of its runs was started",
        {
            **without(KUBE, "status_last_successful_time", "status_last_schedule_time"),
            kube("created"): constant(0),
            kube("next_schedule_time"): constant(2 * HOUR),
        },
        {20: [], 30: [cronjob_alert("PrometheusBackupNeverSucceeded", "cronjob")]},
    ),
    Case(
        "F: the repository has never had a good backup",
        {
            tool("good_backups"): constant(0),
            tool("expected_interval_seconds"): constant(DAY),
            tool("repository_readable"): constant(1),
        },
        {
            20: [],
            29: [repository_alert("PrometheusBackupNeverSucceeded", "repository")],
            196: [repository_alert("PrometheusBackupNeverSucceeded", "repository")],
        },
    ),
    # G: a Job failed without a failed pod, for example by its deadline.
    Case(
        "G: a Job failed without a failed pod",
        {
            **KUBE,
            **failed_job("prometheus-backup-1", 26 * HOUR, pods=0),
            kube("status_last_successful_time"): frozen_at(run_end, 25),
        },
        {26: [], 29: [FAILED]},
    ),
    # H: other schedules, and late runs.
    Case(
        "H: a weekly schedule",
        {
            **change(
                REPOSITORY_SERIES,
                expected_interval_seconds=constant(7 * DAY),
                last_good_backup_timestamp_seconds=constant(2 * HOUR),
                newest_recoverable_timestamp_seconds=constant(2 * HOUR),
            ),
        },
        {h: [] for h in (30, 100, 168, 172)} | {175: [MISSING]},
    ),
    Case(
        "H: a weekly schedule, only kube-state-metrics",
        {
            **KUBE,
            kube("status_last_schedule_time"): constant(2 * HOUR),
            kube("status_last_successful_time"): constant(2 * HOUR + 300),
            kube("next_schedule_time"): constant(2 * HOUR + 7 * DAY),
        },
        {h: [] for h in (30, 100, 168, 172)} | {175: [MISSING_BY_KUBE]},
    ),
    Case(
        "H: a weekly schedule whose first run is still to come",
        {
            **without(KUBE, "status_last_successful_time", "status_last_schedule_time"),
            kube("created"): constant(0),
            kube("next_schedule_time"): constant(6 * DAY),
        },
        {30: [], 90: []},
    ),
    Case(
        "H: a weekly schedule, and the repository has no backup yet",
        {
            tool("good_backups"): constant(0),
            tool("expected_interval_seconds"): constant(7 * DAY),
        },
        {
            40: [],
            100: [],
            194: [repository_alert("PrometheusBackupNeverSucceeded", "repository-weekly")],
        },
    ),
    Case(
        "H: a run two hours later than usual",
        {
            **ALL,
            tool("last_good_backup_timestamp_seconds"): lambda h: run_end(h - 2),
            tool("newest_recoverable_timestamp_seconds"): lambda h: run_start(h - 2),
            kube("status_last_successful_time"): lambda h: run_end(h - 2),
            kube("status_active"): lambda h: 1 if h % 24 in (2, 3, 4) else 0,
        },
        {h: [] for h in (26, 27, 28, 29, 50, 51, 52, 53)},
    ),
    # I: runs that succeed, but are useless.
    Case(
        "I: a backup is much smaller",
        change(ALL, last_backup_size_bytes=since(51, constant(1e10), 3e10)),
        {50: [], 51: [repository_alert("PrometheusBackupShrunk")]},
    ),
    Case(
        "I: a degraded backup",
        change(ALL, last_backup_degraded_blocks=since(51, constant(2), 0)),
        {50: [], 51: [repository_alert("PrometheusBackupDegraded")]},
    ),
    Case(
        "I: Prometheus is not ingesting samples",
        change(ALL, newest_recoverable_timestamp_seconds=frozen_at(run_start, 40)),
        {50: [], 53: [repository_alert("PrometheusBackupContentStale")]},
    ),
    Case(
        "I: a suspended CronJob",
        {
            **without(failing_from(30), "next_schedule_time"),
            kube("next_schedule_time"): until(30, lambda h: run_start(h) + DAY),
            kube("status_last_schedule_time"): frozen_at(run_start, 30),
            kube("spec_suspend"): since(30, constant(1), 0),
        },
        {
            31: [],
            36: [cronjob_alert("PrometheusBackupSuspended", severity="warning")],
            60: [
                cronjob_alert("PrometheusBackupSuspended", severity="warning"),
                cronjob_alert("PrometheusBackupMissing", "cronjob-suspended"),
            ],
        },
    ),
    # J: the source is down. Its own rules cannot fire then: only another Prometheus or a dead man's
    # switch (tests/cli/test_monitoring.py) reports it.
    Case(
        "J: the source is down, and another Prometheus monitors its repository",
        change(
            REPOSITORY_SERIES,
            last_good_backup_timestamp_seconds=frozen_at(run_end, 20),
            newest_recoverable_timestamp_seconds=frozen_at(run_start, 20),
        ),
        {28: [], 32: [MISSING]},
    ),
]
