"""`prune --forget`: the way out of a lost manifest."""

import json
from datetime import timedelta
from pathlib import Path

import pytest

from prometheus_backup.repository.layout import CATALOG, MANIFEST, UNWANTED
from prometheus_backup.repository.repository import Repository
from prometheus_backup.stores.local import LocalStore
from tests.support import manifests
from tests.support.archives import BLOCK, BLOCKS, archive_run
from tests.support.repositories import ManualClock
from tests.support.stored_backups import LocalFiles, run_here

FIRST, SECOND = "backup-20250301-120000", "backup-20250302-120000"
MANY = {"RETENTION_DAILY": "9000"}


@pytest.fixture
def files(tmp_path: Path) -> LocalFiles:
    """A repository with two archive backups; the first has a block that the second lacks."""
    store, clock = LocalStore(tmp_path / "repository"), ManualClock()
    archive_run(store, clock, run_id="one", contents=BLOCKS)
    previous = Repository(store, clock=clock).manifest(FIRST)
    clock.instant += timedelta(days=1)
    archive_run(store, clock, run_id="two", contents=BLOCK, previous=previous)
    found = LocalFiles(tmp_path / "repository")
    prune(found)
    return found


def prune(files: LocalFiles, *arguments: str, code: int = 0) -> str:
    done = run_here("prune", *arguments, env=files.environment() | MANY)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


def marks(files: LocalFiles) -> list[str]:
    return [key for key in files.all_keys() if key.endswith(UNWANTED)]


@pytest.mark.parametrize("lost", ["its manifest", "its folder", "a readable manifest"])
def test_a_lost_backup_stops_deletions_until_it_is_forgotten(files: LocalFiles, lost: str) -> None:
    if lost == "a readable manifest":
        files.put(f"{FIRST}/{MANIFEST}", b"{")
    else:
        for key in [k for k in files.all_keys() if k.startswith(f"{FIRST}/")]:
            if lost == "its folder" or key.endswith(MANIFEST):
                files.delete(key)

    stopped = prune(files, code=3)
    assert f"run `prometheus-backup prune --forget {FIRST}`" in " ".join(stopped.split())
    assert not marks(files)

    before = sorted(files.root.rglob("*"))
    planned = prune(files, "--forget", FIRST, "--dry-run")
    assert f"would delete what is left of {FIRST}" in planned
    assert "mark" in planned
    assert sorted(files.root.rglob("*")) == before

    done = json.loads(prune(files, "--forget", FIRST, "--json"))
    assert done["forgotten"] == [FIRST]
    assert done["archive"]["blocked"] is None
    assert len(marks(files)) == 1
    assert not [k for k in files.all_keys() if k.startswith(f"{FIRST}/")]
    assert not [*(files.root / CATALOG).glob(f"{FIRST}*")]
    assert prune(files)


@pytest.mark.parametrize(
    ("backup", "code", "message"),
    [
        (SECOND, 2, "its manifest can be read, and all that it names is there"),
        ("backup-20240101-000000", 30, "there is no such backup"),
        ("latest", 30, "there is no such backup"),
        ("../../etc", 30, "there is no such backup"),
    ],
)
def test_only_a_lost_backup_can_be_forgotten(
    files: LocalFiles, backup: str, code: int, message: str
) -> None:
    before = files.all_keys()
    assert message in prune(files, "--forget", backup, code=code)
    assert files.all_keys() == before


def test_a_held_backup_is_not_forgotten(files: LocalFiles) -> None:
    assert run_here("hold", FIRST, "--reason", "audit", env=files.environment()).returncode == 0
    files.put(f"{FIRST}/{MANIFEST}", b"{")
    before = files.all_keys()
    assert f"prometheus-backup release {FIRST}" in prune(files, "--forget", FIRST, code=2)
    assert files.all_keys() == before


def test_what_an_interrupted_run_left_is_not_forgotten(files: LocalFiles) -> None:
    files.delete(f"{FIRST}/{MANIFEST}")
    mark = {"run_id": "r", "state": "deleting", "started_at": "2025-03-01T00:00:00Z"}
    files.put(f"{FIRST}/incomplete.json", json.dumps(mark).encode())
    assert "it is not a backup, but deleting" in prune(files, "--forget", FIRST, code=2)


@pytest.mark.parametrize("place", ["archive/claims/{}.json", "{}/incomplete.json"])
def test_a_claim_that_cannot_be_read_can_be_forgotten(files: LocalFiles, place: str) -> None:
    claimed = "backup-20250101-000000"
    files.put(place.format(claimed), b"{")
    assert f"prune --forget {claimed}" in " ".join(prune(files, code=3).split())
    prune(files, "--forget", claimed)
    assert place.format(claimed) not in files.all_keys()
    assert prune(files)


def test_a_backup_that_names_what_is_gone_can_be_forgotten(files: LocalFiles) -> None:
    (lost,) = [
        k
        for k in files.all_keys()
        if k.startswith(f"archive/{manifests.OTHER_ULID}/") and k.endswith("/index")
    ]
    files.delete(lost)
    stopped = " ".join(prune(files, code=3).split())
    assert f"{FIRST} names {lost}, which is not in the archive" in stopped
    assert f"prune --forget {FIRST}" in stopped
    assert json.loads(prune(files, "--forget", FIRST, "--json"))["archive"]["blocked"] is None
    assert [f"{lost.rpartition('/')[0]}/{UNWANTED}"] == marks(files)
    assert run_here("verify", "--all", env=files.environment()).returncode == 0
