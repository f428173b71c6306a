"""The panels of the Grafana dashboard: queries, titles and thresholds, row by row.

`devtools.dashboard` writes them as the JSON file that Grafana imports.
"""

from dataclasses import dataclass, field

_ONE = 'repository=~"$repository"'
_GREEN, _YELLOW, _RED = "green", "yellow", "red"


@dataclass(frozen=True)
class Panel:
    """One panel. `queries` maps legends to expressions; a threshold colours values from it up."""

    title: str
    queries: dict[str, str]
    description: str
    unit: str = "short"
    kind: str = "stat"
    width: int = 4
    height: int = 4
    thresholds: tuple[tuple[float | None, str], ...] = ((None, _GREEN),)
    mappings: dict[str, tuple[str, str]] = field(default_factory=dict)
    stacked: bool = False


def _metric(short: str, **labels: str) -> str:
    matchers = [_ONE, *(f'{name}="{value}"' for name, value in labels.items())]
    return f"prometheus_backup_{short}{{{','.join(matchers)}}}"


def _newest(short: str) -> str:
    """Select the newest reported time, or the highest number, if several targets report it."""
    return f"max by (repository) ({_metric(short)})"


def _age(short: str) -> str:
    return f"time() - {_newest(short)}"


_EXPECTED = _newest("expected_interval_seconds")
_ALARM = ((None, _GREEN), (1, _RED))

ROWS: dict[str, tuple[Panel, ...]] = {
    "Am I protected?": (
        Panel(
            "Last good backup, in intervals",
            {"{{repository}}": f"({_age('last_good_backup_timestamp_seconds')}) / {_EXPECTED}"},
            "Age of the newest good backup, in multiples of the expected interval. Above 1.1, a "
            "backup is missing.",
            thresholds=((None, _GREEN), (1.05, _YELLOW), (1.13, _RED)),
        ),
        Panel(
            "Last good backup",
            {"{{repository}}": _age("last_good_backup_timestamp_seconds")},
            "How long ago the newest good backup was committed.",
            unit="s",
        ),
        Panel(
            "Good backups",
            {"{{repository}}": f"min by (repository) ({_metric('good_backups')})"},
            "Backups that are committed, readable, not degraded, and have not failed verification.",
            thresholds=((None, _RED), (1, _YELLOW), (3, _GREEN)),
        ),
        Panel(
            "Bad backups",
            {"{{cause}}": f"max by (cause) ({_metric('unusable_backups')})"},
            "Backups that cannot be trusted, by cause.",
            thresholds=_ALARM,
        ),
        Panel(
            "Alerts firing",
            {
                "alerts": 'count(ALERTS{alertname=~"PrometheusBackup.*",alertstate="firing"})'
                " or vector(0)"
            },
            "Firing alerts about backups. docs/how-to/alerts.md says how to respond to each.",
            thresholds=_ALARM,
        ),
        Panel(
            "Repository readable",
            {"{{repository}}": f"min by (repository) ({_metric('repository_readable')})"},
            "Whether the exporter could read the repository at its last attempt.",
            mappings={"1": ("yes", _GREEN), "0": ("NO", _RED)},
        ),
    ),
    "How far back can I go?": (
        Panel(
            "Oldest sample",
            {"{{repository}}": f"{_newest('oldest_recoverable_timestamp_seconds')} * 1000"},
            "Time of the oldest sample in any good backup. There may be gaps after it.",
            unit="dateTimeAsIso",
            width=5,
        ),
        Panel(
            "Age of the oldest sample",
            {"{{repository}}": _age("oldest_recoverable_timestamp_seconds")},
            "How far back the backups go.",
            unit="s",
            width=5,
        ),
        Panel(
            "Data loss if Prometheus fails now",
            {"{{repository}}": _age("newest_recoverable_timestamp_seconds")},
            "Age of the newest sample in any good backup: the recovery point.",
            unit="s",
            width=5,
        ),
        Panel(
            "Backups by tier",
            {"{{tier}}": f"max by (tier) ({_metric('backups')})"},
            "Retention tier of each backup. none: due for pruning, or kept for another reason.",
            kind="timeseries",
            width=9,
            height=8,
            stacked=True,
        ),
        Panel(
            "Age of the newest good backup",
            {
                "{{repository}}": _age("last_good_backup_timestamp_seconds"),
                "expected": _EXPECTED,
            },
            "Drops with each backup. Above the line, a backup is late.",
            unit="s",
            kind="timeseries",
            width=15,
        ),
    ),
    "Did verification pass?": (
        Panel(
            "Last results",
            {
                "{{level}}": "max by (level) "
                f"({_metric('last_verification_verdict', verdict='pass')})"
            },
            "Result of the last verification of stored backups. tsdb and drill prove most.",
            mappings={"1": ("pass", _GREEN), "0": ("NOT PASSED", _RED)},
            width=6,
        ),
        Panel(
            "Since the last pass",
            {
                "{{level}}": "time() - max by (level) "
                f"({_metric('last_verification_success_timestamp_seconds')})"
            },
            "How long ago a stored backup last passed verification, by level.",
            unit="s",
            width=6,
        ),
        Panel(
            "Not verified for the longest",
            {
                "{{repository}}": "time() - min by (repository) "
                f"({_metric('oldest_verification_timestamp_seconds')})"
            },
            "Time since the last verification of the good backup that has waited longest.",
            unit="s",
            thresholds=((None, _GREEN), (92 * 86400, _YELLOW), (100 * 86400, _RED)),
        ),
        Panel(
            "Restore duration",
            {"{{repository}}": _newest("last_drill_duration_seconds")},
            "Duration of the last drill, from the first byte to the last checked query.",
            unit="s",
        ),
        Panel(
            "Findings",
            {"{{repository}}": _newest("findings")},
            "Findings in backups that failed verification and have not passed since.",
            thresholds=_ALARM,
        ),
        Panel(
            "Backups by the highest level passed",
            {"{{level}}": f"max by (level) ({_metric('verified_backups')})"},
            "Highest verification level each backup has passed. none: never verified.",
            kind="timeseries",
            width=12,
            height=7,
            stacked=True,
        ),
        Panel(
            "Steps of the last drill",
            {"{{step}}": f"max by (step) ({_metric('last_drill_step_duration_seconds')})"},
            "How long each step of a restore takes.",
            unit="s",
            kind="timeseries",
            width=12,
            height=7,
        ),
    ),
    "What does it cost?": (
        Panel(
            "Repository size",
            {"{{repository}}": _newest("repository_size_bytes")},
            "Total size of all backups; blocks that they share count once.",
            unit="bytes",
        ),
        Panel(
            "Cost per month",
            {"{{repository}}": f"{_newest('repository_size_bytes')} / 1e9 * $price"},
            "Storage only, at the price per GB and month set above. Requests, and retrieval from "
            "other storage classes, cost extra: docs/explanation/cost.md.",
            unit="currencyUSD",
        ),
        Panel(
            "Size of the newest backup",
            {
                "{{repository}}": _newest("last_backup_size_bytes"),
                "usual": _newest("previous_backups_median_size_bytes"),
            },
            "Compared with the median size of earlier backups.",
            unit="bytes",
        ),
        Panel(
            "Archive",
            {
                "in use": f"{_newest('archive_size_bytes')} - "
                f"{_newest('archive_unwanted_size_bytes')}",
                "will be deleted": _newest("archive_unwanted_size_bytes"),
            },
            "Size of the blocks that backups in layout archive share, and of the history.",
            unit="bytes",
        ),
        Panel(
            "Blocks in the archive",
            {
                "all": _newest("archive_blocks"),
                "will be deleted": _newest("archive_unwanted_blocks"),
            },
            "What neither a backup nor the history needs is deleted 24 hours after it is marked.",
        ),
        Panel(
            "Archive without a hole",
            {"{{repository}}": _age("archive_oldest_continuous_timestamp_seconds")},
            "Age of the oldest sample in the archive that no hole separates from the newest.",
            unit="s",
        ),
        Panel(
            "Repository size over time",
            {"{{repository}}": _newest("repository_size_bytes")},
            "Levels off once retention deletes as many backups as are added.",
            unit="bytes",
            kind="timeseries",
            width=12,
            height=7,
        ),
        Panel(
            "Uploaded and copied for the newest backup",
            {
                "uploaded": _newest("last_backup_uploaded_bytes"),
                "copied by the store": _newest("last_backup_copied_bytes"),
            },
            "Copies inside the store cause no traffic and take little time, but use space.",
            unit="bytes",
            kind="timeseries",
            width=12,
            height=7,
            stacked=True,
        ),
    ),
    "How did the last runs go? (Pushgateway or textfile)": (
        Panel(
            "Exit codes",
            {"{{command}}": f"max by (command) ({_metric('last_run_exit_code')})"},
            "Exit code of the last run of each command: docs/exit-codes.md.",
            thresholds=((None, _GREEN), (1, _RED), (3, _YELLOW), (4, _RED)),
            width=6,
        ),
        Panel(
            "Since the last success",
            {
                "{{command}}": "time() - max by (command) "
                f"({_metric('last_success_timestamp_seconds')})"
            },
            "Time since each command last ended with exit code 0.",
            unit="s",
            width=6,
        ),
        Panel(
            "Snapshots left behind",
            {"{{repository}}": _newest("leaked_snapshots")},
            "Snapshots that could not be removed. They use disk space of Prometheus.",
            thresholds=_ALARM,
        ),
        Panel(
            "Deleted by the last run",
            {
                "{{command}}": f"max by (command) ({_metric('last_run_deleted_bytes')})",
            },
            "Bytes deleted by retention.",
            unit="bytes",
        ),
        Panel(
            "Last attempt",
            {
                "{{command}}": "time() - max by (command) "
                f"({_metric('last_attempt_timestamp_seconds')})"
            },
            "How long ago each command last ran, whatever its result.",
            unit="s",
        ),
        Panel(
            "Duration of the last backup by phase",
            {
                "{{phase}}": "max by (phase) "
                f"({_metric('last_run_phase_duration_seconds', command='backup')})"
            },
            "How long each phase of a backup takes.",
            unit="s",
            kind="timeseries",
            width=12,
            height=7,
            stacked=True,
        ),
        Panel(
            "Bytes of the last backup",
            {
                "uploaded": f"max({_metric('last_run_uploaded_bytes', command='backup')})",
                "copied by the store": f"max({_metric('last_run_copied_bytes', command='backup')})",
                "deleted": f"max({_metric('last_run_deleted_bytes', command='backup')})",
            },
            "Bytes uploaded, copied inside the store, and deleted.",
            unit="bytes",
            kind="timeseries",
            width=12,
            height=7,
        ),
    ),
}
