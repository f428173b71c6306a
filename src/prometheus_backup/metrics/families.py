"""The table of metrics: names, help texts, labels. docs/how-to/monitoring.md is generated from it.

Names begin with `prometheus_backup_` and end in the unit. All are gauges: each value describes the
last run or the current repository, and nothing accumulates over runs. Times are seconds since 1970.
An unknown value has no sample, never a zero.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

PREFIX = "prometheus_backup_"

REPOSITORY = "repository"
"""The label that every metric has: the repository's address. A repository has one source, so the
label identifies the source as well."""
COMMAND = "command"
"""The label of a run's metrics. Metrics without it describe the repository."""


@dataclass(frozen=True, slots=True)
class Family:
    """A metric: its full name, help text, and its labels in addition to `repository`."""

    name: str
    help: str
    labels: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Sample:
    """One value. `labelled` adds the labels that every metric has."""

    name: str
    value: float
    labels: Mapping[str, str] = field(default_factory=dict)


def sample(short: str, value: float, **labels: str) -> Sample:
    """Return a sample of the metric with this name, which is without the prefix."""
    return Sample(f"{PREFIX}{short}", float(value), labels)


def labelled(samples: Iterable[Sample], common: Mapping[str, str]) -> list[Sample]:
    """Return the samples with the labels that every metric has."""
    return [Sample(s.name, s.value, {**common, **s.labels}) for s in samples]


def _run(short: str, text: str, *labels: str) -> Family:
    return Family(f"{PREFIX}{short}", text, (COMMAND, *labels))


def _state(short: str, text: str, *labels: str) -> Family:
    return Family(f"{PREFIX}{short}", text, labels)


RUN = (
    _run(
        "last_attempt_timestamp_seconds",
        "When the last run of the command ended, successful or not.",
    ),
    _run(
        "last_success_timestamp_seconds",
        "When the last successful run of the command (exit code 0) ended.",
    ),
    _run("last_run_exit_code", "Exit code of the last run: docs/exit-codes.md."),
    _run("last_run_duration_seconds", "How long the last run took."),
    _run("last_run_phase_duration_seconds", "How long each phase of the last run took.", "phase"),
    _run("last_run_uploaded_bytes", "Bytes uploaded by the last run."),
    _run("last_run_uploaded_files", "Files uploaded by the last run."),
    _run("last_run_copied_bytes", "Bytes copied within the store by the last run."),
    _run("last_run_copied_files", "Files copied within the store by the last run."),
    _run("last_run_restored_bytes", "Bytes restored and verified by the last run."),
    _run("last_run_restored_files", "Files restored and verified by the last run."),
    _run("last_run_deleted_backups", "Backups and leftovers deleted by retention in the last run."),
    _run("last_run_deleted_objects", "Objects deleted by retention in the last run."),
    _run("last_run_deleted_bytes", "Bytes deleted by retention in the last run."),
    _run("last_run_findings", "Faults found in stored backups by the last run."),
    _run("leaked_snapshots", "Snapshots that the last run could not remove; they use disk space."),
)

STATE = (
    _state("build_info", "Always 1; the label is the version of prometheus-backup.", "version"),
    _state("repository_read_timestamp_seconds", "When the repository was last read for metrics."),
    _state("expected_interval_seconds", "How often a backup is expected (BACKUP_INTERVAL)."),
    _state("backups", "Backups by the highest retention tier that keeps them, or none.", "tier"),
    _state(
        "good_backups",
        "Backups that are committed, readable, not degraded, and have not failed verification.",
    ),
    _state("held_backups", "Backups that a hold keeps, whatever the retention policy says."),
    _state(
        "hold_info",
        "Always 1; the labels are a held backup, the last day of the hold (or empty), and why.",
        *("backup_id", "until", "reason"),
    ),
    _state(
        "unusable_backups",
        "Backups that are degraded, failed their verification, or cannot be read.",
        "cause",
    ),
    _state(
        "unfinished_backups",
        "Folders of backups or deletions that are in progress or were interrupted.",
        "state",
    ),
    _state(
        "last_begun_timestamp_seconds",
        "When the newest backup run that left any object started, committed or not.",
    ),
    _state(
        "repository_size_bytes",
        "Total size of all backups; blocks that they share count once.",
    ),
    _state("archive_size_bytes", "Size of the archive; 0 if there is none."),
    _state("archive_blocks", "Blocks in the archive, including those that will be deleted."),
    _state(
        "archive_unwanted_size_bytes", "Size of the blocks in the archive that will be deleted."
    ),
    _state("archive_unwanted_blocks", "Blocks in the archive that will be deleted."),
    _state(
        "archive_oldest_continuous_timestamp_seconds",
        "Time of the oldest sample in the archive that no hole separates from the newest; absent "
        "if the archive is empty.",
    ),
    _state("oldest_backup_timestamp_seconds", "When the oldest backup started."),
    _state("last_backup_timestamp_seconds", "When the newest backup was committed."),
    _state("last_good_backup_timestamp_seconds", "When the newest good backup was committed."),
    _state("last_backup_size_bytes", "Size of the newest backup."),
    _state("last_backup_blocks", "Blocks in the newest backup."),
    _state("last_backup_files", "Files in the newest backup."),
    _state("last_backup_uploaded_bytes", "Bytes uploaded for the newest backup."),
    _state("last_backup_copied_bytes", "Bytes copied within the store for the newest backup."),
    _state(
        "last_backup_duration_seconds", "How long the newest backup took, from start to commit."
    ),
    _state(
        "last_backup_degraded_blocks", "Blocks that are missing or damaged in the newest backup."
    ),
    _state(
        "last_backup_left_out_seconds",
        "Time before the start of the newest backup whose samples it leaves out, because they were "
        "only in memory; absent if it has them.",
        "snapshot_mode",
    ),
    _state(
        "previous_backups_median_size_bytes",
        "Median size of up to seven good backups before the newest; absent if fewer than three.",
    ),
    _state("oldest_recoverable_timestamp_seconds", "Time of the oldest sample in any good backup."),
    _state("newest_recoverable_timestamp_seconds", "Time of the newest sample in any good backup."),
    _state(
        "verified_backups", "Backups by the highest verification level passed, or none.", "level"
    ),
    _state(
        "oldest_verification_timestamp_seconds",
        "When the good backup that has waited longest was last verified, before its commit or "
        "since.",
    ),
    _state(
        "last_verification_timestamp_seconds",
        "When a stored backup was last verified at this level.",
        "level",
    ),
    _state(
        "last_verification_success_timestamp_seconds",
        "When a stored backup last passed at this level.",
        "level",
    ),
    _state(
        "last_verification_verdict",
        "1 for the verdict of the last verification at this level, 0 for the others.",
        "level",
        "verdict",
    ),
    _state(
        "last_drill_duration_seconds",
        "Duration of the last drill, from the first download to the last query: a measured RTO.",
    ),
    _state("last_drill_step_duration_seconds", "Duration of each step of the last drill.", "step"),
    _state("last_drill_restored_bytes", "Bytes restored by the last drill."),
    _state("findings", "Faults found by failed verifications that have not passed since."),
)

EXPORTER = (
    _state(
        "repository_readable",
        "1 if the exporter could read the repository the last time it tried, else 0.",
    ),
)

FAMILIES: Mapping[str, Family] = {f.name: f for f in (*RUN, *STATE, *EXPORTER)}
