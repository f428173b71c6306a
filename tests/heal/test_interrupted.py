"""A heal that is killed with SIGKILL at each change to the disk, and resumed.

In between, Prometheus starts as soon as the blocks that prevent it are in the quarantine.
"""

import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest

from devtools.fetch_prometheus import PrometheusBinaries
from devtools.prometheus import PrometheusFleet
from prometheus_backup.model import Outcome
from prometheus_backup.tsdb.verification import check_block
from tests.support.contents import tree
from tests.support.damage import cut
from tests.support.damaged_directory import QUIET
from tests.support.heal_runs import heal, heal_and_die
from tests.support.segments import records
from tests.support.segments import segment as segment_of
from tests.support.stored_backups import LocalFiles

OTHER = "01ARYZ6S41TSV4RRFFQ69G5FAV"
WRONG = "01BX5ZZKBKACTAV9WEVGEMMVRZ"


@dataclass(frozen=True)
class Damaged:
    """A data directory with four blocks, each of which needs a different remedy.

    `sound` are its files before the damage, `bad` the files of the bad directories, by name;
    `stoppers` are the names of those that prevent Prometheus from starting.
    """

    sound: dict[str, bytes]
    bad: dict[str, dict[str, bytes]]
    stoppers: frozenset[str]


def make_damaged(data_dir: Path) -> Damaged:
    sound = tree(data_dir)
    spliced, mended, misnamed, covered = sorted(data_dir.iterdir())
    cut(spliced / "index", 1000)
    (mended / "tombstones").unlink()
    misnamed.rename(data_dir / WRONG)
    # No backup has a block of this name, but one with the same time range and another name.
    text = (covered / "meta.json").read_text().replace(covered.name, OTHER)
    (covered / "meta.json").write_text(text)
    cut(covered / "index", 1000)
    covered.rename(data_dir / OTHER)
    bad = {name: tree(data_dir / name) for name in (spliced.name, mended.name, OTHER)}
    return Damaged(sound, bad, frozenset({spliced.name, OTHER}))


def _blocks(data_dir: Path) -> set[str]:
    return {path.name for path in data_dir.iterdir()} - {".prometheus-backup"}


def _moved(data_dir: Path) -> dict[str, Path]:
    """The directories in the quarantine, by their original names."""
    quarantine = data_dir / ".prometheus-backup" / "quarantine"
    return {p.name.split("-")[1]: p for p in quarantine.glob("*-*") if p.is_dir()}


def _require_nothing_lost(data_dir: Path, expected: Damaged) -> None:
    """Each bad block is unchanged somewhere; each block in place is still bad, or sound."""
    moved = _moved(data_dir)
    for name, files in expected.bad.items():
        place = moved.get(name, data_dir / name)
        assert tree(place) == files, f"{name} has changed"
    for name in _blocks(data_dir):
        still_bad = name in expected.bad and name not in moved
        assert still_bad or name == WRONG or not check_block(data_dir / name).counts


def test_heal_killed_at_any_change_loses_nothing_and_can_be_resumed(
    start_prometheus: PrometheusFleet,
    prometheus_3: PrometheusBinaries,
    data_dir: Path,
    repository_files: LocalFiles,
    tmp_path: Path,
) -> None:
    expected = make_damaged(data_dir)
    resumed = started = 0
    for changes in range(1, 500):
        data = tmp_path / f"data-{changes}"
        shutil.copytree(data_dir, data)
        if not heal_and_die(data, repository_files.root, changes=changes):
            break
        _require_nothing_lost(data, expected)
        resumed += (data / ".prometheus-backup" / "heal" / "ready").is_dir()
        if changes % 2 and expected.stoppers <= _moved(data).keys():
            shutil.copytree(data, tmp_path / f"started-{changes}")
            start_prometheus(prometheus_3, tmp_path / f"started-{changes}", QUIET).kill()
            started += 1

        report = heal(data, repository_files.root)

        assert report.outcome is Outcome.DONE
        _require_nothing_lost(data, expected)
        found = {p: b for p, b in tree(data).items() if not p.startswith(".prometheus-backup")}
        assert found == expected.sound
        assert not (data / ".prometheus-backup" / "heal").exists()
        assert changes % 10 or heal(data, repository_files.root).plan.repairs == ()
        shutil.rmtree(data)
    else:
        pytest.fail("no heal was completed")
    assert started > 3, "the kills did not hit the time after the moves"
    assert resumed > 15, "the kills did not hit the middle"


def test_a_killed_repair_of_the_wal_can_be_repeated_at_any_point(tmp_path: Path) -> None:
    samples = [b"\x02" + bytes([n]) * 5000 for n in range(1, 15)]
    segment = segment_of(samples)
    damaged = segment[:100] + b"garbage" + segment[107:]
    checkpoint, killed = Path("wal/checkpoint.00000003/00000000"), 0
    for changes in range(1, 100):
        data = tmp_path / f"data-{changes}"
        (data / checkpoint.parent).mkdir(parents=True)
        for path in (checkpoint, Path("wal/00000004")):
            (data / path).write_bytes(damaged)
        (data / "wal/00000005").write_bytes(segment)
        if not heal_and_die(data, tmp_path, changes=changes):
            break
        killed += 1
        assert heal(data, tmp_path).outcome is Outcome.PARTIAL
        for path in (checkpoint, Path("wal/00000004")):
            assert records((data / path).read_bytes()) == samples[1:]
        moved = (data / ".prometheus-backup/quarantine").glob("*-wal-*")
        kept = [path for path in moved if path.read_bytes() == damaged]
        assert len({path.name.split("-wal-")[1][:8] for path in kept}) == 2
        assert sorted(p.name for p in (data / "wal").iterdir()) == [
            *("00000004", "00000005", "checkpoint.00000003"),
        ]
    assert killed > 6
