"""What an estimate takes from a repository: its blocks, its pace, its source."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from prometheus_backup.cost.compaction import HOUR_MS, LONGEST, Compactor, SimulatedBlock
from prometheus_backup.cost.estimate import Basis, basis_of_repository, estimate
from prometheus_backup.cost.model import Usage
from prometheus_backup.cost.prices import PRICES
from prometheus_backup.cost.simulation import Pace
from prometheus_backup.model import Layout
from prometheus_backup.repository.repository import Repository
from prometheus_backup.retention.policy import Policy
from prometheus_backup.stores.local import LocalStore
from tests.support.archives import prune
from tests.support.histories import DAY, GB, newest_night, put_backup
from tests.support.memory_store import MemoryStore
from tests.support.repositories import ManualClock
from tests.support.stored_backups import LocalFiles
from tests.support.timeseries import SimulatedSource


@pytest.fixture(scope="module")
def archive() -> Repository:
    """Thirty nights of a simulated source, of which five are kept, and their history."""
    clock = ManualClock(datetime(2025, 1, 20, 2, tzinfo=UTC))
    store = MemoryStore(clock=clock)
    source = SimulatedSource(store, clock, retention=10 * DAY)
    policy = Policy(daily=5, monthly=0, yearly=0, history=60 * DAY)
    for night in range(30):
        source.backup(night)
        prune(store, clock, policy=policy)
        clock.instant += DAY
        source.advance()
    return Repository(store, clock=clock)


def _basis(repository: Repository) -> Basis:
    found = basis_of_repository(repository)
    assert found is not None
    return found


def test_the_blocks_of_the_archive_are_known_with_their_sizes(archive: Repository) -> None:
    basis, folders = _basis(archive), archive.archive.folders()

    assert basis.layout is Layout.ARCHIVE
    assert basis.stored_bytes == sum(f.size for f in folders.values())
    # Only what is about to be deleted is not known.
    marked = sum(f.size for f in folders.values() if f.marked_at)
    assert sum(basis.archived.sizes.values()) == pytest.approx(basis.stored_bytes, abs=marked)
    named = {b for s in basis.stored for b in s.blocks}
    assert len(basis.stored) == 5
    assert named
    assert basis.archived.unnamed
    assert not named & basis.archived.unnamed.keys()
    assert named | basis.archived.unnamed.keys() == basis.archived.sizes.keys()


def test_the_history_that_exists_is_in_the_forecast(archive: Repository) -> None:
    def first_month(history: timedelta) -> float:
        report = estimate(
            _basis(archive),
            policy=Policy(5, 0, 0, history=history),
            usage=Usage(),
            prices=PRICES,
            today=archive.clock.now().date(),
            storage_class=None,
        )
        assert report.used.months == ()
        return report.used.forecast.months[0].stored

    assert first_month(200 * DAY) > first_month(30 * DAY) > first_month(timedelta(0))


@pytest.mark.parametrize("late_ms", [0, 1, 15_000, 3_599_000])
def test_a_real_block_is_the_simulated_one(late_ms: int) -> None:
    begin = 480_000 * HOUR_MS
    assert SimulatedBlock.of(begin + late_ms, begin + 6 * HOUR_MS) == (
        begin,
        begin + 6 * HOUR_MS,
        False,
    )


def test_a_head_is_never_a_compacted_block() -> None:
    begin = 480_000 * HOUR_MS
    assert SimulatedBlock.of(begin, begin + HOUR_MS + 1).head


@pytest.mark.parametrize(
    ("retention", "compactor"),
    [
        ({"retention_time": "30d"}, Compactor.of(30 * DAY)),
        ({"retention_time": "100d or 10GiB"}, Compactor(100 * DAY, 15 * DAY)),
        ({"retention_time": "10GiB"}, Compactor(LONGEST * 10, 15 * DAY)),
        ({"retention_time": ""}, Compactor.of(15 * DAY)),
        ({"retention_time": "a while"}, Compactor.of(15 * DAY)),
    ],
)
def test_the_compactor_is_that_of_the_source(
    tmp_path: Path, retention: Mapping[str, str], compactor: Compactor
) -> None:
    files = LocalFiles(tmp_path)
    put_backup(files, newest_night(), size=GB, days=15, **retention)
    basis = _basis(Repository(LocalStore(tmp_path), clock=ManualClock(newest_night())))
    assert basis.tsdb.compactor == compactor
    filling = any("until then, backups grow" in text for text in basis.assumptions)
    assert filling is (compactor.window > 20 * DAY)


@pytest.mark.parametrize(
    ("hours", "gap"), [(0.25, 0.25), (1, 1), (5, 4.8), (24, 24), (30, 24), (72, 72)]
)
def test_the_pace_is_that_of_the_last_month(tmp_path: Path, hours: float, gap: float) -> None:
    files = LocalFiles(tmp_path)
    for n in range(9):
        put_backup(files, newest_night() - n * timedelta(hours=hours))
    basis = _basis(Repository(LocalStore(tmp_path), clock=ManualClock(newest_night())))
    assert basis.tsdb.pace == Pace(timedelta(hours=gap))
