"""What happens to backups, and which alerts that is. The letters are the blind spots of alerts on
kube-state-metrics alone, which count failed pods and completion times."""

from tests.alerts.worlds import (
    DAY,
    HOUR,
    REPOSITORY,
    REPOSITORY_WORLD,
    RUN_WORLD,
    Alert,
    Case,
    Series,
    Value,
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

_REPOSITORY = {"repository": REPOSITORY}
_CRONJOB = {"namespace": "observability", "cronjob": "prometheus-backup"}
_KUBE = cronjob_world()
_ALL: Series = {**REPOSITORY_WORLD, **RUN_WORLD, **_KUBE}
_STAGING = 'namespace="staging",cronjob="prometheus-backup"'


def about(name: str, reason: str = "", *, severity: str = "high", **labels: str) -> Alert:
    """An alert about the repository."""
    more = {"reason": reason} if reason else {}
    return Alert(name, {**_REPOSITORY, **more, **labels}, severity)


def about_cronjob(name: str, reason: str = "", *, severity: str = "high", **labels: str) -> Alert:
    """An alert about the CronJob."""
    more = {"reason": reason} if reason else {}
    return Alert(name, {**_CRONJOB, **more, **labels}, severity)


def change(world: Series, **changes: Value) -> Series:
    """A world with some series of the repository changed, by short name."""
    return {**world, **{tool(name): value for name, value in changes.items()}}


def without(world: Series, *parts: str) -> Series:
    """A world without the series whose names have one of these parts."""
    return {n: v for n, v in world.items() if not any(p in n for p in parts)}


def gone(world: Series, hour: int) -> Series:
    """A world of which nothing is told from an hour on."""
    return {name: until(hour, value) for name, value in world.items()}


def _pushed(short: str) -> str:
    """The name of a series that a Pushgateway tells as well."""
    return f'prometheus_backup_{short}{{repository="{REPOSITORY}",job="prometheus-backup"}}'


def _failing(hour: int) -> Series:
    """Runs fail from an hour on: the CronJob is started, and has no success."""
    return {
        **_KUBE,
        kube("status_last_successful_time"): stopped(run_end, hour),
    }


_FAILED_AT_26 = failed_job("prometheus-backup-1", 26 * HOUR)
_FAILED = about_cronjob("PrometheusBackupFailed", "job")
_FAILED_UNSEEN = about_cronjob("PrometheusBackupFailed", "cronjob")
_MISSING = about("PrometheusBackupMissing", "overdue")
_MISSING_BY_KUBE = about_cronjob("PrometheusBackupMissing", "cronjob-overdue")
_ABSENT = Alert("PrometheusBackupAbsent", {"reason": "everything"})
_ABSENT_CRONJOB = about_cronjob("PrometheusBackupAbsent", "cronjob")
_ABSENT_REPOSITORY = about("PrometheusBackupAbsent", "repository")

_ROWS = [
    Case("healthy: both watch", _ALL, {h: [] for h in (3, 26, 27, 49, 50, 51, 72, 90)}),
    Case("healthy: only kube-state-metrics", _KUBE, {h: [] for h in (3, 26, 27, 50, 90)}),
    Case("healthy: only the exporter", REPOSITORY_WORLD, {h: [] for h in (3, 26, 50, 90)}),
    # A: nothing is exported.
    Case("A: nothing was ever told", {}, {1: [_ABSENT]}),
    Case(
        "A: everything falls silent",
        gone(_ALL, 40),
        {39: [], 42: [_ABSENT, _ABSENT_CRONJOB, _ABSENT_REPOSITORY], 90: [_ABSENT]},
    ),
    Case(
        "A: kube-state-metrics is down, the exporter is there",
        {**REPOSITORY_WORLD, **gone(_KUBE, 40)},
        {39: [], 42: [_ABSENT_CRONJOB], 70: []},
    ),
    Case(
        "A: only kube-state-metrics watches, and the CronJob is deleted",
        gone(_KUBE, 40),
        {39: [], 42: [_ABSENT, _ABSENT_CRONJOB], 90: [_ABSENT]},
    ),
    Case(
        "A: the exporter is gone, and kube-state-metrics takes over",
        {**gone(REPOSITORY_WORLD, 40), **_failing(20)},
        {
            33: [_FAILED_UNSEEN],
            35: [_FAILED_UNSEEN],
            42: [_FAILED_UNSEEN, _MISSING_BY_KUBE, _ABSENT_REPOSITORY],
        },
    ),
    # B: a pod failed, and its retry succeeded.
    Case(
        "B: a pod failed and its retry succeeded",
        {
            **_ALL,
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
            **_ALL,
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
            **_KUBE,
            **_FAILED_AT_26,
            kube("status_last_successful_time"): lambda h: run_end(25) if h < 51 else run_end(h),
        },
        {26: [], 29: [_FAILED], 49: [_FAILED, _MISSING_BY_KUBE], 51: [], 60: []},
    ),
    # D: Jobs are removed at once.
    Case(
        "D: no Job is kept, and runs fail",
        _failing(25),
        {26: [], 29: [_FAILED_UNSEEN], 32: [_FAILED_UNSEEN, _MISSING_BY_KUBE]},
    ),
    Case(
        "D: no Job is kept, and the controller starts none",
        {
            **_KUBE,
            kube("status_last_successful_time"): stopped(run_end, 20),
            kube("status_last_schedule_time"): stopped(run_begin, 20),
            kube("next_schedule_time"): stopped(lambda h: run_begin(h) + DAY, 20),
        },
        {27: [], 29: [], 31: [_MISSING_BY_KUBE], 80: [_MISSING_BY_KUBE]},
    ),
    # E: several instances.
    Case(
        "E: one of two CronJobs is stale, a Job beside them is fresh",
        {
            **cronjob_world('namespace="observability",cronjob="prometheus-verify"'),
            **cronjob_world(_STAGING),
            **_failing(1),
        },
        {34: [_FAILED_UNSEEN, _MISSING_BY_KUBE]},
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
        {34: [_MISSING]},
    ),
    # F: never a success.
    Case(
        "F: the CronJob never succeeded",
        {
            **without(_KUBE, "status_last_successful_time"),
            kube("created"): always(0),
            kube("status_last_schedule_time"): since(3, run_begin),
        },
        {
            2: [],
            5: [_FAILED_UNSEEN],
            30: [_FAILED_UNSEEN, about_cronjob("PrometheusBackupNeverSucceeded", "cronjob")],
        },
    ),
    Case(
        "F: the CronJob never succeeded, and none of its runs was started",
        {
            **without(_KUBE, "status_last_successful_time", "status_last_schedule_time"),
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
        {20: [], 29: [about("PrometheusBackupNeverSucceeded", "repository")]},
    ),
    # G: a Job failed without a failed pod, such as by its deadline.
    Case(
        "G: a Job failed and counts no failed pod",
        {
            **_KUBE,
            **failed_job("prometheus-backup-1", 26 * HOUR, pods=0),
            kube("status_last_successful_time"): stopped(run_end, 25),
        },
        {26: [], 29: [_FAILED]},
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
        {h: [] for h in (30, 100, 168, 172)} | {175: [_MISSING]},
    ),
    Case(
        "H: a weekly schedule by kube-state-metrics",
        {
            **_KUBE,
            kube("status_last_schedule_time"): always(2 * HOUR),
            kube("status_last_successful_time"): always(2 * HOUR + 300),
            kube("next_schedule_time"): always(2 * HOUR + 7 * DAY),
        },
        {h: [] for h in (30, 100, 168, 172)} | {175: [_MISSING_BY_KUBE]},
    ),
    Case(
        "H: a weekly schedule whose first run is still to come",
        {
            **without(_KUBE, "status_last_successful_time", "status_last_schedule_time"),
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
            **_ALL,
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
        change(_ALL, last_backup_size_bytes=since(51, always(1e10), 3e10)),
        {50: [], 51: [about("PrometheusBackupShrunk")]},
    ),
    Case(
        "I: a degraded backup",
        change(_ALL, last_backup_degraded_blocks=since(51, always(2), 0)),
        {50: [], 51: [about("PrometheusBackupDegraded")]},
    ),
    Case(
        "I: backups of a Prometheus that takes in nothing",
        change(_ALL, newest_recoverable_timestamp_seconds=stopped(run_begin, 40)),
        {50: [], 53: [about("PrometheusBackupContentStale")]},
    ),
    Case(
        "I: a suspended CronJob",
        {
            **without(_failing(30), "next_schedule_time"),
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
]

_JUDGES = [
    Case(
        "the repository decides: Jobs end with 3, and good backups arrive",
        {**_ALL, **_FAILED_AT_26, kube("status_last_successful_time"): stopped(run_end, 25)},
        {29: [_FAILED], 34: [_FAILED], 49: [_FAILED]},
    ),
    Case(
        "the repository decides: Jobs succeed, and nothing good arrives",
        change(_ALL, last_good_backup_timestamp_seconds=stopped(run_end, 25)),
        {27: [], 32: [_MISSING]},
    ),
    Case(
        "the CronJob was made anew, and the repository has backups",
        {
            **REPOSITORY_WORLD,
            **without(_KUBE, "status_last_successful_time", "status_last_schedule_time"),
            kube("next_schedule_time"): always(2 * HOUR),
        },
        {1: [], 5: []},
    ),
    Case(
        "all good backups are gone",
        change(
            without(REPOSITORY_WORLD, "last_good", "recoverable", "oldest"),
            good_backups=since(40, always(0), 40),
        ),
        {
            39: [],
            42: [
                about("PrometheusBackupMissing", "gone"),
                about("PrometheusBackupRepositoryShrinking"),
            ],
        },
    ),
]

_RUNS = [
    Case(
        "the last run failed, outside of Kubernetes",
        {
            **REPOSITORY_WORLD,
            **RUN_WORLD,
            tool("last_run_exit_code", command="backup"): since(51, always(13), 0),
            tool("last_good_backup_timestamp_seconds"): stopped(run_end, 50),
        },
        {50: [], 53: [about_cronjob("PrometheusBackupFailed", "run", **_REPOSITORY)]},
    ),
    Case(
        "a run by hand mended it, and told no Pushgateway",
        {
            **REPOSITORY_WORLD,
            **RUN_WORLD,
            tool("last_run_exit_code", command="backup"): always(20),
            tool("last_attempt_timestamp_seconds", command="backup"): always(26 * HOUR),
            tool("last_good_backup_timestamp_seconds"): lambda h: max(
                run_end(25), 30 * HOUR if h >= 30 else 0
            ),
            tool("newest_recoverable_timestamp_seconds"): lambda h: (
                30 * HOUR if h >= 30 else run_begin(25)
            ),
        },
        {29: [about_cronjob("PrometheusBackupFailed", "run", **_REPOSITORY)], 31: [], 40: []},
    ),
    Case(
        "a snapshot could not be removed",
        {**_ALL, tool("leaked_snapshots", command="backup"): since(51, always(1), 0)},
        {50: [], 51: [about("PrometheusBackupSnapshotLeak", severity="warning")]},
    ),
]

_WARNING = "warning"
_REPOSITORIES = [
    Case(
        "the repository cannot be read",
        change(
            REPOSITORY_WORLD,
            repository_readable=since(40, always(0), 1),
        ),
        {40: [], 42: [about("PrometheusBackupRepositoryUnreadable", severity=_WARNING)]},
    ),
    Case(
        "a verification found faults",
        {
            **REPOSITORY_WORLD,
            tool("unusable_backups", cause="verification_failed"): since(40, always(2), 0),
        },
        {39: [], 40: [about("PrometheusBackupVerificationFailed", cause="verification_failed")]},
    ),
    Case(
        "a manifest cannot be read",
        {**REPOSITORY_WORLD, tool("unusable_backups", cause="unreadable"): since(40, always(1), 0)},
        {39: [], 40: [about("PrometheusBackupVerificationFailed", cause="unreadable")]},
    ),
    Case(
        "nobody verifies any more",
        change(REPOSITORY_WORLD, oldest_verification_timestamp_seconds=always(-34 * DAY)),
        {
            20: [],
            27: [about("PrometheusBackupVerificationStale", "old", severity=_WARNING)],
        },
    ),
    Case(
        "backups are made unverified",
        {**REPOSITORY_WORLD, tool("verified_backups", level="none"): since(4, always(1), 0)},
        {
            51: [],
            54: [about("PrometheusBackupVerificationStale", "never", severity=_WARNING)],
        },
    ),
    Case(
        "a drill failed",
        {
            **REPOSITORY_WORLD,
            tool("last_verification_verdict", level="drill", verdict="pass"): since(
                40, always(0), 1
            ),
            tool("last_verification_verdict", level="drill", verdict="fail"): since(
                40, always(1), 0
            ),
        },
        {39: [], 40: [about("PrometheusBackupDrillFailed")]},
    ),
    Case(
        "a drill of an older backup failed, and a newer one's passed since",
        {
            **REPOSITORY_WORLD,
            tool("unusable_backups", cause="drill_failed"): since(40, always(1), 0),
        },
        {39: [], 40: [about("PrometheusBackupDrillFailed")]},
    ),
    Case(
        "no drill passes any more",
        {
            **REPOSITORY_WORLD,
            tool("last_verification_success_timestamp_seconds", level="drill"): always(-9 * DAY),
        },
        {20: [], 27: [about("PrometheusBackupDrillStale", "old", severity=_WARNING)]},
    ),
    Case(
        "no drill was ever done, and backups are ten days old",
        change(
            without(REPOSITORY_WORLD, 'level="drill"'),
            oldest_backup_timestamp_seconds=always(-9 * DAY),
        ),
        {20: [], 27: [about("PrometheusBackupDrillStale", "never", severity=_WARNING)]},
    ),
    Case(
        "retention lets one backup go a day",
        change(REPOSITORY_WORLD, good_backups=lambda h: 44 - h // 24),
        {h: [] for h in (26, 50, 74, 95)},
    ),
    Case(
        "a young repository, whose policy lets two of three go",
        change(REPOSITORY_WORLD, good_backups=since(40, always(1), 3)),
        {41: [], 60: []},
    ),
    Case(
        "somebody deletes backups",
        change(REPOSITORY_WORLD, good_backups=since(40, always(20), 40)),
        {39: [], 42: [about("PrometheusBackupRepositoryShrinking")], 95: []},
    ),
    Case(
        "the repository grows by half in a week",
        change(REPOSITORY_WORLD, repository_size_bytes=since(170, always(2e12), 1.2e12)),
        {
            169: [],
            173: [about("PrometheusBackupRepositoryGrowing", severity=_WARNING)],
        },
    ),
    Case(
        "a young repository doubles",
        change(
            REPOSITORY_WORLD,
            repository_size_bytes=lambda h: 3e10 * (1 + h // 24),
            oldest_backup_timestamp_seconds=always(0),
        ),
        {h: [] for h in (100, 173, 190)},
    ),
    Case(
        "a backup that holds far more",
        change(REPOSITORY_WORLD, last_backup_size_bytes=since(51, always(7e10), 3e10)),
        {50: [], 51: [about("PrometheusBackupGrown", severity=_WARNING)]},
    ),
    Case(
        "a Pushgateway tells what it knew yesterday, the exporter what is so now",
        {
            **REPOSITORY_WORLD,
            _pushed("last_good_backup_timestamp_seconds"): always(0),
            _pushed("good_backups"): always(39),
            _pushed("expected_interval_seconds"): always(DAY),
        },
        {h: [] for h in (26, 50, 90)},
    ),
]

CASES = [*_ROWS, *_JUDGES, *_RUNS, *_REPOSITORIES]
