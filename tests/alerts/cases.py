"""All cases of the alert tests."""

from tests.alerts.case import (
    ABOUT_CRONJOB,
    ABOUT_REPOSITORY,
    ALL,
    FAILED,
    FAILED_AT_26,
    KUBE,
    MISSING,
    Alert,
    Case,
    change,
    cronjob_alert,
    repository_alert,
    without,
)
from tests.alerts.kube_state_metrics_gaps import KUBE_STATE_METRICS_GAPS
from tests.alerts.series import (
    DAY,
    HOUR,
    REPOSITORY,
    REPOSITORY_SERIES,
    RUN_SERIES,
    Series,
    constant,
    frozen_at,
    kube,
    run_end,
    run_start,
    since,
    tool,
)


def _without_cronjob_labels(series: Series) -> Series:
    """Remove the CronJob labels, as if METRICS_LABELS was not set."""
    labels = ",".join(f'{k}="{v}"' for k, v in ABOUT_CRONJOB.items())
    return {name.replace(f",{labels}", ""): value for name, value in series.items()}


def _pushed(short: str) -> str:
    """Return the name of a series as exposed by a Pushgateway."""
    return f'prometheus_backup_{short}{{repository="{REPOSITORY}",job="prometheus-backup"}}'


_REPOSITORY_DECIDES = [
    Case(
        "the repository decides: the CronJob is suspended, but backups still arrive",
        {
            **REPOSITORY_SERIES,
            **without(KUBE, "next_schedule_time"),
            kube("status_last_successful_time"): frozen_at(run_end, 25),
            kube("status_last_schedule_time"): frozen_at(run_start, 25),
            kube("spec_suspend"): since(26, constant(1), 0),
        },
        {60: [cronjob_alert("PrometheusBackupSuspended", severity="warning")]},
    ),
    Case(
        "the repository decides: Jobs end with exit code 3, but good backups arrive",
        {**ALL, **FAILED_AT_26, kube("status_last_successful_time"): frozen_at(run_end, 25)},
        {29: [FAILED], 34: [FAILED], 49: [FAILED]},
    ),
    Case(
        "the repository decides: Jobs succeed, but no good backup arrives",
        change(ALL, last_good_backup_timestamp_seconds=frozen_at(run_end, 25)),
        {27: [], 32: [MISSING]},
    ),
    Case(
        "the CronJob was recreated, and the repository has backups",
        {
            **REPOSITORY_SERIES,
            **without(KUBE, "status_last_successful_time", "status_last_schedule_time"),
            kube("next_schedule_time"): constant(2 * HOUR),
        },
        {1: [], 5: []},
    ),
    Case(
        "all good backups are gone",
        change(
            without(REPOSITORY_SERIES, "last_good", "recoverable", "oldest"),
            good_backups=since(40, constant(0), 40),
        ),
        {
            39: [],
            42: [
                repository_alert("PrometheusBackupMissing", "gone"),
                repository_alert("PrometheusBackupRepositoryShrinking"),
            ],
        },
    ),
]

_RUNS = [
    Case(
        "the last run failed, outside Kubernetes",
        _without_cronjob_labels(
            {
                **REPOSITORY_SERIES,
                **RUN_SERIES,
                tool("last_run_exit_code", command="backup"): since(51, constant(13), 0),
                tool("last_good_backup_timestamp_seconds"): frozen_at(run_end, 50),
            }
        ),
        {50: [], 53: [repository_alert("PrometheusBackupFailed", "run")]},
    ),
    Case(
        "a run by hand succeeded, but did not push metrics",
        {
            **REPOSITORY_SERIES,
            **RUN_SERIES,
            tool("last_run_exit_code", command="backup"): constant(20),
            tool("last_attempt_timestamp_seconds", command="backup"): constant(26 * HOUR),
            tool("last_good_backup_timestamp_seconds"): lambda h: max(
                run_end(25), 30 * HOUR if h >= 30 else 0
            ),
            tool("newest_recoverable_timestamp_seconds"): lambda h: (
                30 * HOUR if h >= 30 else run_start(25)
            ),
        },
        {29: [cronjob_alert("PrometheusBackupFailed", "run", **ABOUT_REPOSITORY)], 31: [], 40: []},
    ),
    Case(
        "a snapshot could not be removed",
        {**ALL, tool("leaked_snapshots", command="backup"): since(51, constant(1), 0)},
        {50: [], 51: [repository_alert("PrometheusBackupSnapshotLeak", severity="warning")]},
    ),
]


def _of_replica(number: int, series: Series) -> Series:
    """Return the series of a replica's repository, as the exporter of a fleet labels them."""
    own = f'repository="{REPOSITORY}-{number}",cluster="production",replica="prometheus-{number}"'
    return {n.replace(f'repository="{REPOSITORY}"', own): v for n, v in series.items()}


def _replica_alert(number: int, name: str, **labels: str) -> Alert:
    about = {
        "repository": f"{REPOSITORY}-{number}",
        "cluster": "production",
        "replica": f"prometheus-{number}",
    }
    return Alert(name, {**about, **labels})


_TWO_REPLICAS = [
    Case(
        "two replicas: the backups of one are missing",
        {
            **_of_replica(0, REPOSITORY_SERIES),
            **_of_replica(
                1,
                change(
                    REPOSITORY_SERIES, last_good_backup_timestamp_seconds=frozen_at(run_end, 25)
                ),
            ),
        },
        {27: [], 32: [_replica_alert(1, "PrometheusBackupMissing", reason="overdue")]},
    ),
    Case(
        "two replicas: a snapshot of one is damaged, backups of the other disappear",
        {
            **_of_replica(
                0, change(REPOSITORY_SERIES, last_backup_degraded_blocks=since(40, constant(2), 0))
            ),
            **_of_replica(1, change(REPOSITORY_SERIES, good_backups=since(40, constant(20), 40))),
        },
        {
            39: [],
            42: [
                _replica_alert(0, "PrometheusBackupDegraded"),
                _replica_alert(1, "PrometheusBackupRepositoryShrinking"),
            ],
        },
    ),
    Case(
        "two replicas: a run of one failed",
        {
            **_of_replica(0, {**REPOSITORY_SERIES, **RUN_SERIES}),
            **_of_replica(
                1,
                {
                    **change(
                        REPOSITORY_SERIES, last_good_backup_timestamp_seconds=frozen_at(run_end, 50)
                    ),
                    **RUN_SERIES,
                    tool("last_run_exit_code", command="backup"): since(51, constant(13), 0),
                },
            ),
        },
        {
            50: [],
            53: [_replica_alert(1, "PrometheusBackupFailed", reason="run", **ABOUT_CRONJOB)],
        },
    ),
]

_WARNING = "warning"
_REPOSITORIES = [
    Case(
        "the repository cannot be read",
        change(
            REPOSITORY_SERIES,
            repository_readable=since(40, constant(0), 1),
        ),
        {40: [], 42: [repository_alert("PrometheusBackupRepositoryUnreadable", severity=_WARNING)]},
    ),
    Case(
        "a verification found faults",
        {
            **REPOSITORY_SERIES,
            tool("unusable_backups", cause="verification_failed"): since(40, constant(2), 0),
        },
        {
            39: [],
            40: [
                repository_alert("PrometheusBackupVerificationFailed", cause="verification_failed")
            ],
        },
    ),
    Case(
        "a manifest cannot be read",
        {
            **REPOSITORY_SERIES,
            tool("unusable_backups", cause="unreadable"): since(40, constant(1), 0),
        },
        {39: [], 40: [repository_alert("PrometheusBackupVerificationFailed", cause="unreadable")]},
    ),
    Case(
        "a backup waits longer than any rotation takes",
        change(REPOSITORY_SERIES, oldest_verification_timestamp_seconds=constant(-99 * DAY)),
        {
            20: [],
            27: [repository_alert("PrometheusBackupVerificationStale", "old", severity=_WARNING)],
        },
    ),
    Case(
        "a rotation of 90 days is on time",
        change(
            REPOSITORY_SERIES, oldest_verification_timestamp_seconds=lambda h: h * HOUR - 91 * DAY
        ),
        {26: [], 50: []},
    ),
    Case(
        "verification has stopped",
        {
            **REPOSITORY_SERIES,
            tool("last_verification_timestamp_seconds", level="checksum"): constant(-7 * DAY),
            tool("last_verification_timestamp_seconds", level="drill"): since(1, constant(HOUR)),
        },
        {
            20: [],
            27: [
                repository_alert("PrometheusBackupVerificationStale", "stopped", severity=_WARNING)
            ],
        },
    ),
    Case(
        "backups are not verified",
        {**REPOSITORY_SERIES, tool("verified_backups", level="none"): since(4, constant(1), 0)},
        {
            51: [],
            54: [repository_alert("PrometheusBackupVerificationStale", "never", severity=_WARNING)],
        },
    ),
    Case(
        "a drill failed",
        {
            **REPOSITORY_SERIES,
            tool("last_verification_verdict", level="drill", verdict="pass"): since(
                40, constant(0), 1
            ),
            tool("last_verification_verdict", level="drill", verdict="fail"): since(
                40, constant(1), 0
            ),
        },
        {39: [], 40: [repository_alert("PrometheusBackupDrillFailed")]},
    ),
    Case(
        "a drill of an older backup failed, but one of a newer backup passed",
        {
            **REPOSITORY_SERIES,
            tool("unusable_backups", cause="drill_failed"): since(40, constant(1), 0),
        },
        {39: [], 40: [repository_alert("PrometheusBackupDrillFailed")]},
    ),
    Case(
        "no drill has passed recently",
        {
            **REPOSITORY_SERIES,
            tool("last_verification_success_timestamp_seconds", level="drill"): constant(-9 * DAY),
        },
        {20: [], 27: [repository_alert("PrometheusBackupDrillStale", "old", severity=_WARNING)]},
    ),
    Case(
        "no drill has ever run, and backups are ten days old",
        change(
            without(REPOSITORY_SERIES, 'level="drill"'),
            oldest_backup_timestamp_seconds=constant(-9 * DAY),
        ),
        {20: [], 27: [repository_alert("PrometheusBackupDrillStale", "never", severity=_WARNING)]},
    ),
    Case(
        "retention deletes one backup a day",
        change(REPOSITORY_SERIES, good_backups=lambda h: 44 - h // 24),
        {h: [] for h in (26, 50, 74, 95)},
    ),
    Case(
        "a young repository loses two of three backups by policy",
        change(REPOSITORY_SERIES, good_backups=since(40, constant(1), 3)),
        {41: [], 60: []},
    ),
    Case(
        "somebody deletes backups",
        change(REPOSITORY_SERIES, good_backups=since(40, constant(20), 40)),
        {39: [], 42: [repository_alert("PrometheusBackupRepositoryShrinking")], 95: []},
    ),
    Case(
        "the repository grows by more than half in a week",
        change(REPOSITORY_SERIES, repository_size_bytes=since(170, constant(2e12), 1.2e12)),
        {
            169: [],
            173: [repository_alert("PrometheusBackupRepositoryGrowing", severity=_WARNING)],
        },
    ),
    Case(
        "a young repository doubles",
        change(
            REPOSITORY_SERIES,
            repository_size_bytes=lambda h: 3e10 * (1 + h // 24),
            oldest_backup_timestamp_seconds=constant(0),
        ),
        {h: [] for h in (100, 173, 190)},
    ),
    Case(
        "a backup is much larger",
        change(REPOSITORY_SERIES, last_backup_size_bytes=since(51, constant(7e10), 3e10)),
        {50: [], 51: [repository_alert("PrometheusBackupGrown", severity=_WARNING)]},
    ),
    Case(
        "a Pushgateway has outdated values, the exporter current ones",
        {
            **REPOSITORY_SERIES,
            _pushed("last_good_backup_timestamp_seconds"): constant(0),
            _pushed("good_backups"): constant(39),
            _pushed("expected_interval_seconds"): constant(DAY),
        },
        {h: [] for h in (26, 50, 90)},
    ),
]

CASES = [*KUBE_STATE_METRICS_GAPS, *_REPOSITORY_DECIDES, *_RUNS, *_TWO_REPLICAS, *_REPOSITORIES]
