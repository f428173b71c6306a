"""What happens to backups, and which alerts that is."""

from tests.alerts.blind_spots import BLIND_SPOTS
from tests.alerts.happenings import (
    ABOUT_CRONJOB,
    ABOUT_REPOSITORY,
    ALL,
    FAILED,
    FAILED_AT_26,
    KUBE,
    MISSING,
    Case,
    about,
    about_cronjob,
    change,
    without,
)
from tests.alerts.worlds import (
    DAY,
    HOUR,
    REPOSITORY,
    REPOSITORY_WORLD,
    RUN_WORLD,
    Series,
    always,
    kube,
    run_begin,
    run_end,
    since,
    stopped,
    tool,
)


def _plain(world: Series) -> Series:
    """A world whose tool was told of no CronJob."""
    about_it = ",".join(f'{k}="{v}"' for k, v in ABOUT_CRONJOB.items())
    return {name.replace(f",{about_it}", ""): value for name, value in world.items()}


def _pushed(short: str) -> str:
    """The name of a series that a Pushgateway tells as well."""
    return f'prometheus_backup_{short}{{repository="{REPOSITORY}",job="prometheus-backup"}}'


_JUDGES = [
    Case(
        "the repository decides: the CronJob is suspended, and backups come by another way",
        {
            **REPOSITORY_WORLD,
            **without(KUBE, "next_schedule_time"),
            kube("status_last_successful_time"): stopped(run_end, 25),
            kube("status_last_schedule_time"): stopped(run_begin, 25),
            kube("spec_suspend"): since(26, always(1), 0),
        },
        {60: [about_cronjob("PrometheusBackupSuspended", severity="warning")]},
    ),
    Case(
        "the repository decides: Jobs end with 3, and good backups arrive",
        {**ALL, **FAILED_AT_26, kube("status_last_successful_time"): stopped(run_end, 25)},
        {29: [FAILED], 34: [FAILED], 49: [FAILED]},
    ),
    Case(
        "the repository decides: Jobs succeed, and nothing good arrives",
        change(ALL, last_good_backup_timestamp_seconds=stopped(run_end, 25)),
        {27: [], 32: [MISSING]},
    ),
    Case(
        "the CronJob was made anew, and the repository has backups",
        {
            **REPOSITORY_WORLD,
            **without(KUBE, "status_last_successful_time", "status_last_schedule_time"),
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
        _plain(
            {
                **REPOSITORY_WORLD,
                **RUN_WORLD,
                tool("last_run_exit_code", command="backup"): since(51, always(13), 0),
                tool("last_good_backup_timestamp_seconds"): stopped(run_end, 50),
            }
        ),
        {50: [], 53: [about("PrometheusBackupFailed", "run")]},
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
        {29: [about_cronjob("PrometheusBackupFailed", "run", **ABOUT_REPOSITORY)], 31: [], 40: []},
    ),
    Case(
        "a snapshot could not be removed",
        {**ALL, tool("leaked_snapshots", command="backup"): since(51, always(1), 0)},
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
        "a backup waits longer than any rotation takes",
        change(REPOSITORY_WORLD, oldest_verification_timestamp_seconds=always(-99 * DAY)),
        {
            20: [],
            27: [about("PrometheusBackupVerificationStale", "old", severity=_WARNING)],
        },
    ),
    Case(
        "a rotation by 90 days goes round",
        change(
            REPOSITORY_WORLD, oldest_verification_timestamp_seconds=lambda h: h * HOUR - 91 * DAY
        ),
        {26: [], 50: []},
    ),
    Case(
        "nobody verifies any more",
        {
            **REPOSITORY_WORLD,
            tool("last_verification_timestamp_seconds", level="checksum"): always(-7 * DAY),
            tool("last_verification_timestamp_seconds", level="drill"): since(1, always(HOUR)),
        },
        {20: [], 27: [about("PrometheusBackupVerificationStale", "stopped", severity=_WARNING)]},
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

CASES = [*BLIND_SPOTS, *_JUDGES, *_RUNS, *_REPOSITORIES]
