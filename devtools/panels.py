"""What the Grafana dashboard asks and how it shows the answers: its panels, row by row.

It answers, from the top: am I protected, since when, how far back can I go, did verification pass,
what does it cost, and how did the runs go. `dashboard` makes the file of it.
"""

from dataclasses import dataclass, field

_ONE = 'repository=~"$repository"'
_GREEN, _YELLOW, _RED = "green", "yellow", "red"


@dataclass(frozen=True)
class Panel:
    """One panel: its queries as legend and expression; `thresholds` colour from a value on."""

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
    """The newest that is told of a time, or of a number that only grows with it."""
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
            "Age of the newest good backup, as a multiple of how often one is expected. Above 1.1, "
            "one is missing.",
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
            "Committed, readable, not degraded and not failed.",
            thresholds=((None, _RED), (1, _YELLOW), (3, _GREEN)),
        ),
        Panel(
            "Bad backups",
            {"{{cause}}": f"max by (cause) ({_metric('unusable_backups')})"},
            "Backups that cannot be relied on, by cause.",
            thresholds=_ALARM,
        ),
        Panel(
            "Alerts firing",
            {
                "alerts": 'count(ALERTS{alertname=~"PrometheusBackup.*",alertstate="firing"})'
                " or vector(0)"
            },
            "Of those on backups: docs/how-to/alerts.md says what to do about each.",
            thresholds=_ALARM,
        ),
        Panel(
            "Repository readable",
            {"{{repository}}": f"min by (repository) ({_metric('repository_readable')})"},
            "Whether the exporter could read the repository the last time it tried.",
            mappings={"1": ("yes", _GREEN), "0": ("NO", _RED)},
        ),
    ),
    "How far back can I go?": (
        Panel(
            "Oldest sample",
            {"{{repository}}": f"{_newest('oldest_recoverable_timestamp_seconds')} * 1000"},
            "Time of the oldest sample that a good backup holds. There may be gaps in between.",
            unit="dateTimeAsIso",
            width=5,
        ),
        Panel(
            "Reaches back",
            {"{{repository}}": _age("oldest_recoverable_timestamp_seconds")},
            "How far back that is.",
            unit="s",
            width=5,
        ),
        Panel(
            "Lost if it burned down now",
            {"{{repository}}": _age("newest_recoverable_timestamp_seconds")},
            "Age of the newest sample in a good backup: the recovery point.",
            unit="s",
            width=5,
        ),
        Panel(
            "Backups by tier",
            {"{{tier}}": f"max by (tier) ({_metric('backups')})"},
            "What each backup is kept as; none: it goes, or is kept for lack of a better one.",
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
            "A sawtooth: a tooth for each backup. What rises above the line is late.",
            unit="s",
            kind="timeseries",
            width=15,
        ),
    ),
    "Did verification pass?": (
        Panel(
            "Last verdicts",
            {
                "{{level}}": "max by (level) "
                f"({_metric('last_verification_verdict', verdict='pass')})"
            },
            "Of the last look at a stored backup, by level. tsdb and drill say most.",
            mappings={"1": ("pass", _GREEN), "0": ("NOT PASSED", _RED)},
            width=6,
        ),
        Panel(
            "Since a look that passed",
            {
                "{{level}}": "time() - max by (level) "
                f"({_metric('last_verification_success_timestamp_seconds')})"
            },
            "How long ago a stored backup last passed, by level.",
            unit="s",
            width=6,
        ),
        Panel(
            "Not verified for the longest",
            {
                "{{repository}}": "time() - min by (repository) "
                f"({_metric('oldest_verification_timestamp_seconds')})"
            },
            "The good backup that has waited longest for a look at it.",
            unit="s",
            thresholds=((None, _GREEN), (92 * 86400, _YELLOW), (100 * 86400, _RED)),
        ),
        Panel(
            "Restore takes",
            {"{{repository}}": _newest("last_drill_duration_seconds")},
            "As long as the last drill took, from the first byte to proved answers.",
            unit="s",
        ),
        Panel(
            "Faults found",
            {"{{repository}}": _newest("findings")},
            "In backups whose failed verification stands.",
            thresholds=_ALARM,
        ),
        Panel(
            "Backups by the highest level passed",
            {"{{level}}": f"max by (level) ({_metric('verified_backups')})"},
            "none: never verified.",
            kind="timeseries",
            width=12,
            height=7,
            stacked=True,
        ),
        Panel(
            "Steps of the last drill",
            {"{{step}}": f"max by (step) ({_metric('last_drill_step_duration_seconds')})"},
            "Where the time of a restore goes.",
            unit="s",
            kind="timeseries",
            width=12,
            height=7,
        ),
    ),
    "What does it cost?": (
        Panel(
            "In the repository",
            {"{{repository}}": _newest("repository_size_bytes")},
            "Bytes of all backups together.",
            unit="bytes",
        ),
        Panel(
            "A month",
            {"{{repository}}": f"{_newest('repository_size_bytes')} / 1e9 * $price"},
            "Storage alone, at the price above for a GB and month; requests, and what other "
            "classes cost to read, come on top: docs/explanation/cost.md.",
            unit="currencyUSD",
        ),
        Panel(
            "Newest backup",
            {
                "{{repository}}": _newest("last_backup_size_bytes"),
                "usual": _newest("previous_backups_median_size_bytes"),
            },
            "Its size, and the median of those before it.",
            unit="bytes",
        ),
        Panel(
            "Size of the repository",
            {"{{repository}}": _newest("repository_size_bytes")},
            "Levels off once the oldest backups go as new ones come.",
            unit="bytes",
            kind="timeseries",
            width=12,
            height=7,
        ),
        Panel(
            "Sent and copied for the newest backup",
            {
                "sent": _newest("last_backup_uploaded_bytes"),
                "copied by the store": _newest("last_backup_copied_bytes"),
            },
            "What is copied costs no traffic and little time, but room like any other.",
            unit="bytes",
            kind="timeseries",
            width=12,
            height=7,
            stacked=True,
        ),
    ),
    "How did the runs go? (Pushgateway or textfile)": (
        Panel(
            "Exit codes",
            {"{{command}}": f"max by (command) ({_metric('last_run_exit_code')})"},
            "Of the last run of each command: docs/exit-codes.md.",
            thresholds=((None, _GREEN), (1, _RED), (3, _YELLOW), (4, _RED)),
            width=6,
        ),
        Panel(
            "Since the last success",
            {
                "{{command}}": "time() - max by (command) "
                f"({_metric('last_success_timestamp_seconds')})"
            },
            "Of each command, by exit 0.",
            unit="s",
            width=6,
        ),
        Panel(
            "Snapshots left behind",
            {"{{repository}}": _newest("leaked_snapshots")},
            "They pin disk space of Prometheus.",
            thresholds=_ALARM,
        ),
        Panel(
            "Deleted by the last run",
            {
                "{{command}}": f"max by (command) ({_metric('last_run_deleted_bytes')})",
            },
            "By retention.",
            unit="bytes",
        ),
        Panel(
            "Last attempt",
            {
                "{{command}}": "time() - max by (command) "
                f"({_metric('last_attempt_timestamp_seconds')})"
            },
            "How long ago a run of each command ended, however.",
            unit="s",
        ),
        Panel(
            "Duration of the last backup by phase",
            {
                "{{phase}}": "max by (phase) "
                f"({_metric('last_run_phase_duration_seconds', command='backup')})"
            },
            "Where the time of a backup goes.",
            unit="s",
            kind="timeseries",
            width=12,
            height=7,
            stacked=True,
        ),
        Panel(
            "Bytes of the last backup",
            {
                "sent": f"max({_metric('last_run_uploaded_bytes', command='backup')})",
                "copied by the store": f"max({_metric('last_run_copied_bytes', command='backup')})",
                "deleted": f"max({_metric('last_run_deleted_bytes', command='backup')})",
            },
            "Sent, copied and deleted.",
            unit="bytes",
            kind="timeseries",
            width=12,
            height=7,
        ),
    ),
}
