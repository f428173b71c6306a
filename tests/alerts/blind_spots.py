"""The blind spots of alerts on kube-state-metrics alone, which count failed pods and completion
times; lettered in the order of the table in docs/how-to/monitoring.md."""

from tests.alerts.happenings import (
    ABSENT,
    ABSENT_CRONJOB,
    ABSENT_REPOSITORY,
    ALL,
    FAILED,
    FAILED_AT_26,
    FAILED_UNSEEN,
    KUBE,
    MISSING,
    MISSING_BY_KUBE,
    STAGING,
    Case,
    about,
    about_cronjob,
    change,
    failing,
    gone,
    without,
)
from tests.alerts.worlds import (
    DAY,
    HOUR,
    REPOSITORY_WORLD,
    always,
    cronjob_world,
    failed_job,
    job,
    kube,
    run_begin,
    run_end,
    since,
    stopped,
    tool,
    until,
)

BLIND_SPOTS = [
    Case("healthy: both watch", ALL, {h: [] for h in (3, 26, 27, 49, 50, 51, 72, 90)}),
    Case("healthy: only kube-state-metrics", KUBE, {h: [] for h in (3, 26, 27, 50, 90)}),
    Case("healthy: only the exporter", REPOSITORY_WORLD, {h: [] for h in (3, 26, 50, 90)}),
    # A: nothing is exported.
    Case("A: nothing was ever told", {}, {1: [ABSENT]}),
    Case(
        "A: everything falls silent",
        gone(ALL, 40),
        {39: [], 42: [ABSENT, ABSENT_CRONJOB, ABSENT_REPOSITORY], 90: [ABSENT]},
    ),
    Case(
        "A: kube-state-metrics is down, the exporter is there",
        {**REPOSITORY_WORLD, **gone(KUBE, 40)},
        {39: [], 42: [ABSENT_CRONJOB], 70: []},
    ),
    Case(
        "A: only kube-state-metrics watches, and the CronJob is deleted",
        gone(KUBE, 40),
        {39: [], 42: [ABSENT, ABSENT_CRONJOB], 90: [ABSENT]},
    ),
    Case(
        "A: the exporter is gone, and kube-state-metrics takes over",
        {**gone(REPOSITORY_WORLD, 40), **failing(20)},
        {
            33: [FAILED_UNSEEN],
            35: [FAILED_UNSEEN],
            42: [FAILED_UNSEEN, MISSING_BY_KUBE, ABSENT_REPOSITORY],
        },
    ),
    # B: a pod failed, and its retry succeeded.
    Case(
        "B: a pod failed and its retry succeeded",
        {
            **ALL,
            job("owner", "j", owner_kind="CronJob", owner_name="prometheus-backup"): always(1),
            job("status_start_time", "j"): always(26 * HOUR),
            job("status_failed", "j", reason=""): since(26, always(1)),
            job("complete", "j", condition="true"): since(27, always(1)),
        },
        {h: [] for h in (26, 27, 28, 30, 40)},
    ),
    Case(
        "B: the retry takes hours, and the first try has told of its failure",
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
            kube("status_last_schedule_time"): lambda h: run_begin(h + 1),
            kube("status_last_successful_time"): lambda h: (
                run_end(25) if 26 <= h < 29 else run_end(h)
            ),
        },
        {h: [] for h in (26, 27, 28, 29, 30, 40)},
    ),
    # C: yesterday's failed Job is kept, today's succeeded.
    Case(
        "C: a failed Job is kept after the next success",
        {
            **KUBE,
            **FAILED_AT_26,
            kube("status_last_successful_time"): lambda h: run_end(25) if h < 51 else run_end(h),
        },
        {26: [], 29: [FAILED], 49: [FAILED, MISSING_BY_KUBE], 51: [], 60: []},
    ),
    # D: Jobs are removed at once.
    Case(
        "D: no Job is kept, and runs fail",
        failing(25),
        {26: [], 29: [FAILED_UNSEEN], 32: [FAILED_UNSEEN, MISSING_BY_KUBE]},
    ),
    Case(
        "D: no Job is kept, and the controller starts none",
        {
            **KUBE,
            kube("status_last_successful_time"): stopped(run_end, 20),
            kube("status_last_schedule_time"): stopped(run_begin, 20),
            kube("next_schedule_time"): stopped(lambda h: run_begin(h) + DAY, 20),
        },
        {27: [], 29: [], 31: [MISSING_BY_KUBE], 80: [MISSING_BY_KUBE]},
    ),
    # E: several instances.
    Case(
        "E: one of two CronJobs is stale, a Job beside them is fresh",
        {
            **cronjob_world('namespace="observability",cronjob="prometheus-verify"'),
            **cronjob_world(STAGING),
            **failing(1),
        },
        {34: [FAILED_UNSEEN, MISSING_BY_KUBE]},
    ),
    Case(
        "E: one of two repositories is stale",
        {
            **{
                n.replace("s3://backups/prometheus", "s3://other"): v
                for n, v in REPOSITORY_WORLD.items()
            },
            **change(REPOSITORY_WORLD, last_good_backup_timestamp_seconds=stopped(run_end, 1)),
        },
        {34: [MISSING]},
    ),
    # F: never a success.
    Case(
        "F: the CronJob never succeeded",
        {
            **without(KUBE, "status_last_successful_time"),
            kube("created"): always(0),
            kube("status_last_schedule_time"): since(3, run_begin),
        },
        {
            2: [],
            5: [FAILED_UNSEEN],
            30: [FAILED_UNSEEN, about_cronjob("PrometheusBackupNeverSucceeded", "cronjob")],
        },
    ),
    Case(
        "F: the CronJob never succeeded, and none of its runs was started",
        {
            **without(KUBE, "status_last_successful_time", "status_last_schedule_time"),
            kube("created"): always(0),
            kube("next_schedule_time"): always(2 * HOUR),
        },
        {20: [], 30: [about_cronjob("PrometheusBackupNeverSucceeded", "cronjob")]},
    ),
    Case(
        "F: the repository never held a good backup",
        {
            tool("good_backups"): always(0),
            tool("expected_interval_seconds"): always(DAY),
            tool("repository_readable"): always(1),
        },
        {
            20: [],
            29: [about("PrometheusBackupNeverSucceeded", "repository")],
            196: [about("PrometheusBackupNeverSucceeded", "repository")],
        },
    ),
    # G: a Job failed without a failed pod, such as by its deadline.
    Case(
        "G: a Job failed and counts no failed pod",
        {
            **KUBE,
            **failed_job("prometheus-backup-1", 26 * HOUR, pods=0),
            kube("status_last_successful_time"): stopped(run_end, 25),
        },
        {26: [], 29: [FAILED]},
    ),
    # H: other schedules, and late runs.
    Case(
        "H: a weekly schedule",
        {
            **change(
                REPOSITORY_WORLD,
                expected_interval_seconds=always(7 * DAY),
                last_good_backup_timestamp_seconds=always(2 * HOUR),
                newest_recoverable_timestamp_seconds=always(2 * HOUR),
            ),
        },
        {h: [] for h in (30, 100, 168, 172)} | {175: [MISSING]},
    ),
    Case(
        "H: a weekly schedule by kube-state-metrics",
        {
            **KUBE,
            kube("status_last_schedule_time"): always(2 * HOUR),
            kube("status_last_successful_time"): always(2 * HOUR + 300),
            kube("next_schedule_time"): always(2 * HOUR + 7 * DAY),
        },
        {h: [] for h in (30, 100, 168, 172)} | {175: [MISSING_BY_KUBE]},
    ),
    Case(
        "H: a weekly schedule whose first run is still to come",
        {
            **without(KUBE, "status_last_successful_time", "status_last_schedule_time"),
            kube("created"): always(0),
            kube("next_schedule_time"): always(6 * DAY),
        },
        {30: [], 90: []},
    ),
    Case(
        "H: a weekly schedule of which the repository holds nothing yet",
        {
            tool("good_backups"): always(0),
            tool("expected_interval_seconds"): always(7 * DAY),
        },
        {
            40: [],
            100: [],
            194: [about("PrometheusBackupNeverSucceeded", "repository-weekly")],
        },
    ),
    Case(
        "H: a run two hours later than usual",
        {
            **ALL,
            tool("last_good_backup_timestamp_seconds"): lambda h: run_end(h - 2),
            tool("newest_recoverable_timestamp_seconds"): lambda h: run_begin(h - 2),
            kube("status_last_successful_time"): lambda h: run_end(h - 2),
            kube("status_active"): lambda h: 1 if h % 24 in (2, 3, 4) else 0,
        },
        {h: [] for h in (26, 27, 28, 29, 50, 51, 52, 53)},
    ),
    # I: success that is none.
    Case(
        "I: a backup that holds far less",
        change(ALL, last_backup_size_bytes=since(51, always(1e10), 3e10)),
        {50: [], 51: [about("PrometheusBackupShrunk")]},
    ),
    Case(
        "I: a degraded backup",
        change(ALL, last_backup_degraded_blocks=since(51, always(2), 0)),
        {50: [], 51: [about("PrometheusBackupDegraded")]},
    ),
    Case(
        "I: backups of a Prometheus that takes in nothing",
        change(ALL, newest_recoverable_timestamp_seconds=stopped(run_begin, 40)),
        {50: [], 53: [about("PrometheusBackupContentStale")]},
    ),
    Case(
        "I: a suspended CronJob",
        {
            **without(failing(30), "next_schedule_time"),
            kube("next_schedule_time"): until(30, lambda h: run_begin(h) + DAY),
            kube("status_last_schedule_time"): stopped(run_begin, 30),
            kube("spec_suspend"): since(30, always(1), 0),
        },
        {
            31: [],
            36: [about_cronjob("PrometheusBackupSuspended", severity="warning")],
            60: [
                about_cronjob("PrometheusBackupSuspended", severity="warning"),
                about_cronjob("PrometheusBackupMissing", "cronjob-suspended"),
            ],
        },
    ),
    # J: the Prometheus that is backed up is down. If it evaluates the rules itself, no rule helps:
    # tests/cli/test_monitoring.py has the dead man's switch. Another one hears of it.
    Case(
        "J: the source is down, and another Prometheus watches its repository",
        change(
            REPOSITORY_WORLD,
            last_good_backup_timestamp_seconds=stopped(run_end, 20),
            newest_recoverable_timestamp_seconds=stopped(run_begin, 20),
        ),
        {28: [], 32: [MISSING]},
    ),
]
