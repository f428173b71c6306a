"""Metrics of a run, counted from its events."""

from datetime import timedelta

from prometheus_backup import events
from prometheus_backup.metrics.families import COMMAND, FAMILIES, PREFIX, Sample
from prometheus_backup.metrics.run import RunRecorder
from tests.support.repositories import NOON, ManualClock


def values(samples: list[Sample]) -> dict[str, float]:
    """Return values by name without the prefix, and by phase if there is one."""
    return {
        s.name.removeprefix(PREFIX)
        + "".join(f" {v}" for k, v in s.labels.items() if k == "phase"): s.value
        for s in samples
    }


def test_bytes_files_and_objects_are_counted() -> None:
    recorder = RunRecorder("backup", ManualClock())

    for event in [
        events.FileUploaded("a", 10),
        events.FileUploaded("b", 5),
        events.FileCopied("c", 100),
        events.BackupDeleted("backup-20250101-020000", 7, 1000, "daily"),
        events.BackupDeleted("backup-20250102-020000", 3, 0, "left"),
        events.BytesMoved(15),
    ]:
        recorder(event)
    reported = values(recorder.samples(0))

    assert (reported["last_run_uploaded_bytes"], reported["last_run_uploaded_files"]) == (15, 2)
    assert (reported["last_run_copied_bytes"], reported["last_run_copied_files"]) == (100, 1)
    assert reported["last_run_deleted_backups"] == 2
    assert (reported["last_run_deleted_objects"], reported["last_run_deleted_bytes"]) == (10, 1000)


def test_phase_ends_when_the_next_begins_and_repeated_phases_add_up() -> None:
    clock = ManualClock()
    recorder = RunRecorder("verify", clock)

    for phase, seconds in [("verify", 2), ("commit", 3), ("verify", 5)]:
        recorder(events.Step(phase, "a step"))
        clock.instant += timedelta(seconds=seconds)
    reported = values(recorder.samples(0))

    assert reported["last_run_phase_duration_seconds verify"] == 7
    assert reported["last_run_phase_duration_seconds commit"] == 3
    assert reported["last_run_duration_seconds"] == 10


def test_only_exit_0_is_a_success() -> None:
    clock = ManualClock()
    for code in (0, 3, 20, 143):
        reported = values(RunRecorder("backup", clock).samples(code))
        assert reported["last_attempt_timestamp_seconds"] == NOON.timestamp()
        assert ("last_success_timestamp_seconds" in reported) == (code == 0)
        assert reported["last_run_exit_code"] == code


def test_snapshot_removed_later_is_not_leaked() -> None:
    recorder = RunRecorder("backup", ManualClock())

    recorder(events.SnapshotLeft("one", "no permission"))
    recorder(events.SnapshotLeft("two", "no permission"))
    recorder(events.SnapshotLeft("two", "no permission"))
    recorder(events.SnapshotRemoved("one"))

    assert values(recorder.samples(3))["leaked_snapshots"] == 1


def test_findings_of_all_backups_are_added_up() -> None:
    recorder = RunRecorder("verify", ManualClock())

    recorder(events.BackupVerified("backup-20250101-020000", "checksum", "fail", 2))
    recorder(events.BackupVerified("backup-20250102-020000", "checksum", "fail", 1))

    assert values(recorder.samples(41))["last_run_findings"] == 3


def test_samples_have_the_names_and_labels_of_the_table() -> None:
    for command in ("backup", "prune", "verify", "restore", "drill"):
        recorder = RunRecorder(command, ManualClock())
        recorder(events.Step("check", "a step"))
        for one in recorder.samples(0):
            assert {*one.labels} == {*FAMILIES[one.name].labels}
            assert one.labels[COMMAND] == command
