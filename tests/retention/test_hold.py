"""Holds: what they keep, how long, and what happens when one meets a deletion or a release."""

import json
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from prometheus_backup.errors import BackupNotFound, UsageError
from prometheus_backup.events import BackupKept
from prometheus_backup.model import CONTROL, Outcome
from prometheus_backup.repository.archive import ArchiveView
from prometheus_backup.repository.entry import BackupEntry
from prometheus_backup.repository.hold import Hold
from prometheus_backup.repository.layout import GUARD, HOLD, INCOMPLETE, MANIFEST
from prometheus_backup.repository.manifest import Incomplete, encode
from prometheus_backup.repository.repository import Repository
from prometheus_backup.retention import hold as module
from prometheus_backup.retention.hold import HoldPlan, place_hold, plan_hold, release
from prometheus_backup.retention.policy import Policy
from prometheus_backup.retention.prune import apply_prune, plan_prune
from prometheus_backup.stores.base import ObjectStore
from tests.support.contents import tree
from tests.support.interleavings import (
    Outcomes,
    Scenario,
    Scheduler,
    SteppedStore,
    all_interleavings,
)
from tests.support.memory_store import MemoryStore
from tests.support.repositories import NOON, ManualClock, make_backup, require_whole
from tests.support.runs import Recorder
from tests.support.stored_backups import Files, LocalFiles, json_of, put_small_backup, run_here

TODAY = NOON.date()
ONE_DAY = Policy(daily=1, monthly=0, yearly=0)
KEEP_LITTLE = {"RETENTION_DAILY": "1", "RETENTION_MONTHLY": "0", "RETENTION_YEARLY": "0"}
GUARD_KEY = f"{GUARD}/{MANIFEST}"


def hold_of(backup: str, until: date | None = None, reason: str = "audit") -> Hold:
    return Hold(backup_id=backup, reason=reason, held_at=NOON, until=until)


class OneByOne(Repository):
    """Reads its backups in the thread of the actor, so that every read waits for its turn."""

    def entries(self, view: ArchiveView | None = None) -> tuple[BackupEntry, ...]:
        del view
        return tuple(e for i in self.ids() if (e := self.entry(i)) is not None)


def prune(store: ObjectStore, clock: ManualClock, policy: Policy = ONE_DAY) -> Any:
    repository = Repository(store, clock=clock)
    entries, now = repository.entries(), clock.now()
    plan = plan_prune(entries, policy=policy, now=now, store_now=now)
    return apply_prune(repository, plan, run_id="prune", listener=Recorder())


# Meeting a deletion


def held_and_deleted(turns: Scheduler) -> Scenario:
    """A prune that has decided to delete a backup, and somebody who holds it."""
    clock = ManualClock()
    store = SteppedStore(turns, clock=clock)
    old = make_backup(store, clock, at=NOON - timedelta(days=9))

    def prunes() -> bool:
        return OneByOne(store, clock=clock).delete_backup(old, run_id="prune") is not None

    def holds() -> bool:
        plan = HoldPlan(hold_of(old), None)
        return place_hold(OneByOne(store, clock=clock), plan, run_id="hold")

    return Scenario(store, {"prune": prunes, "hold": holds})


def test_a_hold_that_succeeds_keeps_its_backup_in_every_interleaving_with_a_prune(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "_WAIT", timedelta(seconds=1))
    old = "backup-20250220-120000"
    outcomes_seen = set()

    def check(scenario: Scenario, outcomes: Outcomes) -> None:
        contents = scenario.store.contents()
        held = outcomes["hold"]
        outcomes_seen.add(held if isinstance(held, bool) else type(held))
        if isinstance(held, BackupNotFound):
            assert outcomes["prune"] is True
            assert not [key for key in contents if key.startswith(f"{old}/")]
            assert GUARD_KEY not in contents
            return
        assert isinstance(held, bool)
        kept = f"{old}/{MANIFEST}" in contents
        assert kept or not held, "what is said to be held is there"
        if held:
            assert outcomes["prune"] is False
            assert {f"{old}/{HOLD}", GUARD_KEY} <= contents.keys()
            assert f"{old}/{INCOMPLETE}" not in contents

    def whole(scenario: Scenario) -> None:
        contents = scenario.store.contents()
        require_whole({k: v for k, v in contents.items() if not k.startswith(f"{GUARD}/")})

    orders = all_interleavings(held_and_deleted, at_every_step=whole, at_the_end=check)
    assert orders > 10
    assert outcomes_seen >= {True, BackupNotFound}, "both may win"


def test_the_guard_stands_whenever_a_release_and_another_hold_have_ended() -> None:
    first, second = "backup-20250220-120000", "backup-20250221-120000"

    def make(turns: Scheduler) -> Scenario:
        clock = ManualClock()
        store = SteppedStore(turns, clock=clock)
        for days in (9, 8):
            make_backup(store, clock, at=NOON - timedelta(days=days))
        OneByOne(store, clock=clock).holds.put(hold_of(first))

        def releases() -> None:
            release(OneByOne(store, clock=clock), first)

        def holds() -> bool:
            own = OneByOne(store, clock=clock)
            return place_hold(own, HoldPlan(hold_of(second), None), run_id="hold")

        return Scenario(store, {"release": releases, "hold": holds})

    def check(scenario: Scenario, outcomes: Outcomes) -> None:
        assert outcomes == {"release": None, "hold": True}
        assert {GUARD_KEY, f"{second}/{HOLD}"} <= scenario.store.contents().keys()

    assert all_interleavings(make, at_the_end=check) > 5


def test_a_hold_beside_the_mark_of_a_dead_deletion_succeeds_and_beside_a_living_one_warns() -> None:
    clock = ManualClock()
    store = MemoryStore(clock=clock)
    old = make_backup(store, clock, at=NOON - timedelta(days=9))
    mark = Incomplete(run_id="prune", state="deleting", started_at=NOON)
    store.put_small(f"{old}/{INCOMPLETE}", encode(mark), options=CONTROL)
    plan = HoldPlan(hold_of(old), None)

    assert place_hold(Repository(store, clock=clock), plan, run_id="hold") is False
    clock.instant += timedelta(hours=25)
    assert place_hold(Repository(store, clock=clock), plan, run_id="hold") is True
    prune(store, clock)
    assert f"{old}/{MANIFEST}" in {o.key for o in store.list()}


def test_a_hold_placed_after_the_decision_is_reported_as_kept() -> None:
    clock, recorder = ManualClock(), Recorder()
    store = MemoryStore(clock=clock)
    old = make_backup(store, clock, at=NOON - timedelta(days=9))
    make_backup(store, clock, at=NOON)
    repository = Repository(store, clock=clock)
    plan = plan_prune(repository.entries(), policy=ONE_DAY, now=NOON, store_now=NOON)
    assert plan.delete == (old,)

    repository.holds.put(hold_of(old))
    report = apply_prune(repository, plan, run_id="prune", listener=recorder)

    assert (report.outcome, report.deleted) == (Outcome.DONE, ())
    assert (old, ("held since retention decided",)) in [
        (e.backup_id, e.reasons) for e in recorder.of(BackupKept)
    ]


# How long


def test_a_hold_with_a_date_ends_after_that_day_and_its_guard_with_it() -> None:
    clock = ManualClock()
    store = MemoryStore(clock=clock)
    old = make_backup(store, clock, at=NOON - timedelta(days=9))
    until = TODAY + timedelta(days=10)
    assert place_hold(
        Repository(store, clock=clock), HoldPlan(hold_of(old, until), None), run_id="hold"
    )

    for day in range(13):
        clock.instant = NOON + timedelta(days=day)
        make_backup(store, clock, at=clock.instant)
        deleted = prune(store, clock).deleted
        left = {o.key for o in store.list()}
        held = day <= 10
        assert (old in deleted) == (day == 11)
        assert (f"{old}/{MANIFEST}" in left) == held
        assert (GUARD_KEY in left) == held


def test_five_years_of_pruning_keep_what_is_held_and_nothing_else() -> None:
    clock = ManualClock(datetime(2021, 1, 1, 2, tzinfo=UTC))
    store, reference = MemoryStore(clock=clock), MemoryStore(clock=clock)
    policy = Policy(daily=3, monthly=2, yearly=1)
    held: dict[str, date | None] = {}
    end = datetime(2026, 1, 1, tzinfo=UTC)

    def manifests_in(found: MemoryStore) -> set[str]:
        return {o.key.split("/")[0] for o in found.list() if o.key.endswith(f"/{MANIFEST}")}

    number = 0
    while clock.instant < end:
        today = clock.instant.date()
        backup = make_backup(store, clock, at=clock.instant)
        make_backup(reference, clock, at=clock.instant)
        repository = Repository(store, clock=clock)
        if number % 60 == 0:
            until = today + timedelta(days=400) if number % 120 else None
            assert place_hold(repository, HoldPlan(hold_of(backup, until), None), run_id="hold")
            held[backup] = until
        if number % 300 == 299:
            released = min(b for b, until in held.items() if until is None)
            release(repository, released)
            del held[released]
        for found in (store, reference):
            assert prune(found, clock, policy).outcome is Outcome.DONE
        in_force = {b for b, until in held.items() if until is None or today <= until}
        left = manifests_in(store)
        assert left - {GUARD} == manifests_in(reference) | in_force, today
        assert (GUARD in left) == bool(in_force)
        number += 5
        clock.instant += timedelta(days=5)
    assert len(held) > 20


# Damage, and programs that do not know holds


@pytest.mark.parametrize(
    "body", [b"", b"{", b'{"backup_id": "backup-20250101-000000"}', b'{"until": "never"}']
)
def test_a_hold_that_cannot_be_parsed_holds_for_ever(tmp_path: Path, body: bytes) -> None:
    files = LocalFiles(tmp_path / "repository")
    old = put_small_backup(files, datetime(2020, 6, 15, tzinfo=UTC))
    put_small_backup(files, datetime.now(UTC))
    files.put(f"{old}/{HOLD}", body)

    done = json_of(run_here("prune", "--json", env=files.environment() | KEEP_LITTLE))

    assert done["deleted"] == []
    (kept,) = [d for d in done["decisions"] if d["backup_id"] == old]
    assert kept["reasons"] == ["held: its hold.json cannot be read"]


def test_to_a_program_of_format_1_the_guard_is_a_backup_of_a_newer_format(tmp_path: Path) -> None:
    """Version 1.0.0 changes nothing in a repository with such a backup (exit 14)."""
    files = LocalFiles(tmp_path / "repository")
    held = put_small_backup(files, datetime(2020, 6, 15, tzinfo=UTC))

    assert run_here("hold", held, "--reason=audit", env=files.environment()).returncode == 0

    assert json.loads(files.get(GUARD_KEY))["format_version"] > 1
    for command in (("list", "--ids"), ("timeline",), ("metrics",), ("verify", "--all")):
        done = run_here(*command, env=files.environment())
        assert done.returncode == 0, done.stderr
        assert GUARD not in done.stdout + done.stderr, "it is no backup to this program"
    assert run_here("show", GUARD, env=files.environment()).returncode == 30


# The commands


@pytest.fixture
def old_and_new(tmp_path: Path) -> tuple[LocalFiles, str, str]:
    files = LocalFiles(tmp_path / "repository")
    old = put_small_backup(files, datetime(2020, 6, 15, 2, tzinfo=UTC))
    return files, old, put_small_backup(files, datetime.now(UTC))


def run_on(files: Files, *arguments: str) -> str:
    done = run_here(*arguments, env=files.environment() | KEEP_LITTLE)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_held_backup_is_shown_with_its_reason_everywhere_and_survives_prune(
    old_and_new: tuple[LocalFiles, str, str],
) -> None:
    files, old, _ = old_and_new
    until = f"{datetime.now(UTC) + timedelta(days=90):%Y-%m-%d}"
    text = f"held until {until}: audit of 2020"

    placed = run_on(files, "hold", "2020-06-15", "--until", until, "--reason", " audit of 2020 ")

    assert placed.splitlines()[0] == f"{old} is {text}"
    row = next(r for r in run_on(files, "list").splitlines() if r.startswith(old))
    assert text in row
    assert "held" in row.split(text)[0]
    assert run_on(files, "list", "--state", "held", "--ids") == f"{old}\n"
    shown = run_on(files, "show", old)
    assert f"\nheld                     until {until}, since " in shown
    assert ": audit of 2020\n" in shown
    assert f"keep       {text}" in run_on(files, "prune", "--dry-run")
    metrics = run_on(files, "metrics")
    assert "prometheus_backup_held_backups{" in metrics
    (info,) = [line for line in metrics.splitlines() if "hold_info{" in line]
    assert f'backup_id="{old}"' in info
    assert f'until="{until}"' in info
    assert 'reason="audit of 2020"' in info
    assert json.loads(run_on(files, "prune", "--json"))["deleted"] == []


def test_released_it_is_deleted_and_the_guard_is_gone(
    old_and_new: tuple[LocalFiles, str, str],
) -> None:
    files, old, new = old_and_new
    run_on(files, "hold", old, "--reason", "one")
    run_on(files, "hold", new, "--reason", "two")
    before = tree(files.root)

    tried = run_on(files, "release", old, "--dry-run")
    assert tree(files.root) == before
    done = run_on(files, "release", old)

    assert "would be released; it was held: one" in tried
    assert "is released; it was held: one" in done
    assert "retention deletes it at the next run: " in tried
    assert "retention deletes it at the next run: " in done
    assert GUARD_KEY in tree(files.root), "the other one is still held"
    assert "keeps it: daily" in run_on(files, "release", new)
    assert GUARD not in {k.partition("/")[0] for k in tree(files.root)}
    assert run_on(files, "release", new) == f"{new} is not held\n"
    assert json.loads(run_on(files, "prune", "--json"))["deleted"] == [old]
    assert {k.partition("/")[0] for k in tree(files.root)} == {new}


def test_holds_work_on_s3_too(files: Files) -> None:
    old = put_small_backup(files, datetime(2020, 6, 15, 2, tzinfo=UTC))
    run_on(files, "hold", old, "--reason", "audit")

    assert old not in json.loads(run_on(files, "prune", "--json", "--allow-many"))["deleted"]
    assert old in run_on(files, "list", "--state", "held", "--ids")
    run_on(files, "release", old)
    assert json.loads(run_on(files, "prune", "--json"))["deleted"] == [old]
    assert not [k for k in files.all_keys() if k.startswith((old, GUARD))]


def test_a_dry_run_of_hold_writes_nothing(old_and_new: tuple[LocalFiles, str, str]) -> None:
    files, old, _ = old_and_new
    before = tree(files.root)

    assert "would be held: why" in run_on(files, "hold", old, "--reason", "why", "--dry-run")
    assert tree(files.root) == before


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("2020-06-15", "--reason", " "), 2, "the reason is empty"),
        (("2020-06-15", "--reason", "a\nb"), 2, "cannot be printed"),
        (("2020-06-15", "--reason", "a" * 501), 2, "too long"),
        (("2020-06-15", "--reason", "a", "--until", "2021-01-01"), 2, "is in the past"),
        (("2020-06-15", "--reason", "a", "--until", "soon"), 2, "cannot read time 'soon'"),
        (("2020-06-15",), 2, "--reason"),
        (("2020-06-16", "--reason", "a"), 30, "the nearest"),
    ],
)
def test_a_hold_that_makes_no_sense_is_refused_and_nothing_is_written(
    old_and_new: tuple[LocalFiles, str, str], arguments: tuple[str, ...], code: int, message: str
) -> None:
    files, _, _ = old_and_new
    before = tree(files.root)

    done = run_here("hold", *arguments, env=files.environment())

    assert done.returncode == code
    assert message in done.stderr
    assert tree(files.root) == before


TOMORROW = TODAY + timedelta(days=1)
LATER = TODAY + timedelta(days=30)


@pytest.mark.parametrize(
    ("present", "wanted"),
    [(TOMORROW, TOMORROW), (TOMORROW, LATER), (TOMORROW, None), (None, None)],
)
def test_a_new_hold_may_prolong_the_present_one(present: date | None, wanted: date | None) -> None:
    old, new = hold_of("backup-20200615-020000", present), hold_of("backup-20200615-020000", wanted)

    assert plan_hold(new, old, today=TODAY) == HoldPlan(new, old)


@pytest.mark.parametrize(("present", "wanted"), [(LATER, TOMORROW), (None, LATER)])
def test_no_new_hold_ends_the_present_one_earlier(present: date | None, wanted: date) -> None:
    old, new = hold_of("backup-20200615-020000", present), hold_of("backup-20200615-020000", wanted)

    with pytest.raises(UsageError, match="cannot end earlier"):
        plan_hold(new, old, today=TODAY)


def test_a_hold_that_has_ended_does_not_limit_a_new_one() -> None:
    ended = hold_of("backup-20200615-020000", TODAY - timedelta(days=1))
    new = hold_of("backup-20200615-020000", TODAY)

    assert plan_hold(new, ended, today=TODAY) == HoldPlan(new, None)
