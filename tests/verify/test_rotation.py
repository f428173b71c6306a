"""Verification of real backups in parts: what each run reads, finds and records."""

import json
import threading
from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from prometheus_backup.errors import RepositoryUnavailable
from prometheus_backup.model import Level, Outcome, Subset, Verdict
from prometheus_backup.repository.entry import BackupEntry
from prometheus_backup.repository.layout import ARCHIVE
from prometheus_backup.repository.repository import Repository
from prometheus_backup.repository.rotation import assign
from prometheus_backup.stores.base import ObjectStore
from prometheus_backup.stores.local import LocalStore
from prometheus_backup.verify.run import Verifier, VerifyReport, select_backups
from tests.support.repositories import ManualClock
from tests.support.runs import Recorder, transfer
from tests.support.store_wrappers import ReadRecorder, StoreWrapper
from tests.support.stored_backups import (
    LocalFiles,
    StoredBackups,
    block_keys,
    flip_one_bit,
    json_of,
    manifest_of,
    put_small_backup,
    run_here,
)

PARTS = 4
BEGIN = datetime(2125, 3, 1, 3, tzinfo=UTC)  # long after the real backups were made


class Days:
    """A repository whose backups are verified in parts, one run a day."""

    def __init__(self, files: LocalFiles) -> None:
        self.files = files
        self.clock = ManualClock(BEGIN)
        self.store = ReadRecorder(LocalStore(files.root))

    def run(
        self, *names: str, part: int | None = None, store: ObjectStore | None = None
    ) -> VerifyReport:
        """Verify the part that is due (or this one) of all backups (or these)."""
        return self._verify(names, Subset(part, PARTS), store=store or self.store)

    def run_whole(self, *names: str, level: Level) -> VerifyReport:
        """Verify all of these backups."""
        return self._verify(names, None, store=self.store, level=level)

    def _verify(
        self,
        names: tuple[str, ...],
        subset: Subset | None,
        *,
        store: ObjectStore,
        level: Level = Level.CHECKSUM,
    ) -> VerifyReport:
        repository = Repository(store, clock=self.clock)
        recorder = Recorder()
        verifier = Verifier(repository, transfer(recorder), level, recorder, subset)
        report = verifier.verify(select_backups(repository, names, every=not names))
        self.clock.instant += timedelta(days=1)
        return report

    def entry(self, backup: str) -> BackupEntry:
        """The entry of a backup in the repository."""
        entry = Repository(LocalStore(self.files.root), clock=self.clock).entry(backup)
        assert entry is not None
        return entry

    def part_of(self, backup: str, key: str) -> int:
        """The part that an object is in."""
        sizes = {f["key"]: f["size"] for b in self._blocks(backup) for f in b["files"]}
        sums = f"{backup}/SHA256SUMS"
        sizes[sums] = len(self.files.get(sums))
        return assign(sizes, PARTS, seed=backup)[key]

    def key_in_part(self, backup: str, part: int) -> str:
        """A block file in this part."""
        return next(k for k in block_keys(self.files, backup) if self.part_of(backup, k) == part)

    def _blocks(self, backup: str) -> Any:
        return manifest_of(self.files, backup)["blocks"]


@pytest.fixture
def days(repository_files: LocalFiles) -> Days:
    return Days(repository_files)


def test_as_many_runs_as_parts_read_every_file_of_every_backup_once(
    days: Days, stored: StoredBackups
) -> None:
    reports = [days.run() for _ in range(PARTS)]

    everything = [k for b in (stored.first, stored.second) for k in block_keys(days.files, b)]
    assert Counter(days.store.read) == Counter(everything)
    assert [r.outcome for r in reports] == [Outcome.DONE] * PARTS
    total = sum(
        manifest_of(days.files, b)["totals"]["bytes"] for b in (stored.first, stored.second)
    )
    read = [sum(c.result.bytes_read for c in r.checked) for r in reports]
    sums = sum(len(days.files.get(f"{b}/SHA256SUMS")) for b in (stored.first, stored.second))
    assert sum(read) == total + sums
    assert max(read) < total / 2, "no run reads most of it"


def test_a_backup_passes_with_its_last_part_as_of_the_first(
    days: Days, stored: StoredBackups
) -> None:
    committed = days.entry(stored.first).verified
    for _ in range(PARTS - 1):
        days.run()
        assert days.entry(stored.first).verified == committed

    (checked, _) = days.run().checked

    assert days.entry(stored.first).verified == (Level.CHECKSUM, BEGIN)
    assert checked.rotation is not None
    assert (checked.rotation.passed, checked.rotation.passed_at) == (PARTS, BEGIN)


def test_a_backup_committed_midway_is_verified_completely(days: Days) -> None:
    days.run()
    days.run()
    late = put_small_backup(days.files, datetime(2125, 3, 2, tzinfo=UTC))

    reports = [days.run() for _ in range(PARTS)]

    of_late = [c for r in reports for c in r.checked if c.result.backup_id == late]
    assert [c.result.rotation.part for c in of_late if c.result.rotation] == [1, 2, 3, 4]
    assert [k for k in days.store.read if k.startswith(late)] == block_keys(days.files, late)
    assert days.entry(late).verified == (Level.CHECKSUM, BEGIN + timedelta(days=2))


@pytest.mark.parametrize("day", range(1, PARTS + 1))
def test_an_altered_object_is_found_on_the_day_of_its_part_and_counts_at_once(
    days: Days, stored: StoredBackups, day: int
) -> None:
    bad = days.key_in_part(stored.second, day)
    flip_one_bit(days.files, bad)

    reports = [days.run() for _ in range(PARTS)]

    outcomes = [Outcome.DONE] * PARTS
    outcomes[day - 1] = Outcome.FAULTY
    assert [r.outcome for r in reports] == outcomes
    entry = days.entry(stored.second)
    assert entry.failure is not None
    assert entry.failure.verified_at == BEGIN + timedelta(days=day - 1)
    assert [f.key for f in entry.failure.findings] == [bad]
    assert not entry.good
    assert days.entry(stored.first).good


def test_a_missing_object_is_found_on_the_first_day_whatever_its_part(
    days: Days, stored: StoredBackups
) -> None:
    days.files.delete(days.key_in_part(stored.second, PARTS))

    assert days.run().outcome is Outcome.FAULTY
    assert not days.entry(stored.second).good


def test_a_failed_part_counts_until_every_part_has_passed_since(
    days: Days, stored: StoredBackups
) -> None:
    bad = days.key_in_part(stored.second, 3)
    whole = flip_one_bit(days.files, bad)
    for _ in range(3):
        days.run()
    days.files.put(bad, whole)

    days.run()  # part 4
    assert not days.entry(stored.second).good
    days.run(part=3)
    assert not days.entry(stored.second).good, "parts 1 and 2 were last read before the fault"
    days.run()
    days.run()

    assert days.entry(stored.second).good
    assert days.entry(stored.second).verified == (Level.CHECKSUM, BEGIN + timedelta(days=3))


def test_a_failed_part_is_cleared_by_a_pass_of_the_whole_backup(
    days: Days, stored: StoredBackups
) -> None:
    bad = days.key_in_part(stored.second, 1)
    whole = flip_one_bit(days.files, bad)
    days.run(stored.second)
    days.files.put(bad, whole)

    assert days.run_whole(stored.second, level=Level.SIZE).outcome is Outcome.DONE
    assert not days.entry(stored.second).good
    assert days.run_whole(stored.second, level=Level.CHECKSUM).outcome is Outcome.DONE

    assert days.entry(stored.second).good


def test_findings_of_parts_are_listed_and_shown(days: Days, stored: StoredBackups) -> None:
    bad = days.key_in_part(stored.second, 2)
    flip_one_bit(days.files, bad)
    days.run()
    days.run()
    env = days.files.environment()

    listed = run_here("list", env=env).stdout
    shown = run_here("show", stored.second, env=env).stdout
    sound = run_here("show", stored.first, env=env).stdout

    assert "FAILED checksum 2125-03-02" in next(
        r for r in listed.splitlines() if stored.second in r
    )
    assert bad in shown
    assert "checksum 2/4" in shown
    assert "1 of 4 passed" in shown
    assert "2 of 4 passed" in sound
    assert "checksum 2/4" not in sound


def test_a_new_fault_is_not_hidden_by_an_earlier_pass(days: Days, stored: StoredBackups) -> None:
    for _ in range(PARTS):
        days.run()
    env = days.files.environment()
    assert "since 2125-03-01 03:00:00" in run_here("show", stored.second, env=env).stdout
    flip_one_bit(days.files, days.key_in_part(stored.second, 1))

    days.run()

    shown = run_here("show", stored.second, env=env).stdout
    assert "3 of 4 passed" in shown
    assert "since" not in shown


class _Dies(Exception):
    """Simulates SIGKILL: nothing is written after it."""


class _KilledAt(StoreWrapper):
    """A store at whose n-th read the process dies."""

    def __init__(self, store: ObjectStore, *, reads: int) -> None:
        super().__init__(store)
        self._left = reads
        self._lock = threading.Lock()

    def stream(self, key: str) -> Any:
        with self._lock:
            self._left -= 1
            if self._left < 0:
                raise _Dies
        return self.inner.stream(key)


def test_a_run_that_is_killed_is_continued_by_the_next(days: Days, stored: StoredBackups) -> None:
    """Killed in the second backup: the first continues, the second repeats its part."""
    of_first = sum(days.part_of(stored.first, k) == 1 for k in block_keys(days.files, stored.first))
    with pytest.raises(_Dies):
        days.run(store=_KilledAt(LocalStore(days.files.root), reads=of_first + 1))

    days.clock.instant += timedelta(days=1)
    report = days.run()

    parts = {
        c.result.backup_id: c.result.rotation.part for c in report.checked if c.result.rotation
    }
    assert parts == {stored.first: 2, stored.second: 1}
    assert report.checked[0].result.backup_id == stored.second, "who waits longest comes first"


def test_jobs_without_a_disk_continue_from_the_state_in_the_repository(
    days: Days, stored: StoredBackups
) -> None:
    env = days.files.environment()
    began = datetime.now(UTC).replace(microsecond=0)
    seen = []
    for _ in range(PARTS):
        done = run_here("verify", "--all", "--subset", f"next/{PARTS}", "--json", env=env)
        seen += [
            (r["backup_id"], r["rotation"]["part"], r["rotation"]["parts_passed"])
            for r in json_of(done)["results"]
        ]

    assert sorted(seen) == [
        (b, n, n) for b in (stored.first, stored.second) for n in range(1, PARTS + 1)
    ]
    listed = json.loads(run_here("list", "--json", env=env).stdout)["backups"]
    assert all(datetime.fromisoformat(entry["verified"]["at"]) >= began for entry in listed)


class _RunsOtherBetween(StoreWrapper):
    """Starts and finishes another run after this run has read the progress, before it writes it."""

    def __init__(self, store: ObjectStore, other: Any) -> None:
        super().__init__(store)
        self._other = other

    def put_small(self, key: str, body: bytes, *, options: Any) -> None:
        if "/rotation-" in key and self._other is not None:
            other, self._other = self._other, None
            other()
        self.inner.put_small(key, body, options=options)


def test_two_runs_at_once_lose_no_fault_and_read_lost_progress_again(
    days: Days, stored: StoredBackups
) -> None:
    bad = days.key_in_part(stored.second, 2)
    flip_one_bit(days.files, bad)

    def other() -> None:
        days.run(stored.second, part=2)

    days.run(stored.second, part=1, store=_RunsOtherBetween(days.store, other))

    entry = days.entry(stored.second)
    assert entry.failure is not None
    assert [f.key for f in entry.failure.findings] == [bad]
    (rotation,) = entry.rotations
    assert [r.part for r in rotation.looked] == [1], "the other's progress was overwritten"
    again = days.run(stored.second)
    assert again.checked[0].result.rotation is not None
    assert again.checked[0].result.rotation.part == 2
    assert again.outcome is Outcome.FAULTY


def test_a_store_that_dies_is_inconclusive_and_the_part_is_due_again(
    days: Days, stored: StoredBackups
) -> None:
    def no_answer(key: str) -> None:
        raise RepositoryUnavailable(f"cannot read {key}: the store does not answer")

    days.run(stored.second)
    report = days.run(
        stored.second, store=ReadRecorder(LocalStore(days.files.root), before=no_answer)
    )

    assert report.outcome is Outcome.PARTIAL
    assert report.checked[0].result.verdict is Verdict.INCONCLUSIVE
    assert days.entry(stored.second).good
    parts = []
    for _ in range(PARTS - 1):
        (checked,) = days.run(stored.second).checked
        assert checked.result.rotation is not None
        parts.append(checked.result.rotation.part)
    assert parts == [3, 4, 2]
    assert days.entry(stored.second).verified == (Level.CHECKSUM, BEGIN)


def test_an_unreadable_manifest_counts_in_parts_too(days: Days, stored: StoredBackups) -> None:
    key = f"{stored.first}/metadata.json"
    days.files.put(key, days.files.get(key)[:500])

    assert days.run().outcome is Outcome.FAULTY
    assert not days.entry(stored.first).good
    assert days.entry(stored.second).good


def test_the_last_line_of_a_listing_is_still_the_newest_backup(
    days: Days, stored: StoredBackups
) -> None:
    days.run()

    assert max(path.name for path in days.files.root.iterdir()) == stored.second
    assert {path.name for path in days.files.root.iterdir()} == {
        ARCHIVE,
        stored.first,
        stored.second,
    }


WRONG = ["0/7", "8/7", "next/0", "next/1001", "7", "a/b", "-1/7", "1/7/9", ""]


@pytest.mark.parametrize("subset", WRONG)
def test_an_invalid_subset_is_refused(repository_files: LocalFiles, subset: str) -> None:
    done = run_here("verify", f"--subset={subset}", env=repository_files.environment())

    assert done.returncode == 2
    assert "next/7" in done.stderr


def test_a_part_at_level_size_is_refused(repository_files: LocalFiles) -> None:
    done = run_here("verify", "--level=size", "--subset=1/7", env=repository_files.environment())

    assert done.returncode == 2
    assert "one listing" in done.stderr
