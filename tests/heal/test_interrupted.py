"""A heal that is killed with SIGKILL at any change that it makes to the disk, and continued.

In between, Prometheus starts once the blocks that stop it are away, whatever else is left to do.
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
from tests.support.stored_backups import LocalFiles

OTHER = "01ARYZ6S41TSV4RRFFQ69G5FAV"
WRONG = "01BX5ZZKBKACTAV9WEVGEMMVRZ"


@dataclass(frozen=True)
class Ill:
    """A data directory with four blocks of which each needs another remedy.

    `sound` is what it held before, `bad` the files of the directories that are bad, by name;
    `stoppers` are those that keep Prometheus from starting.
    """

    sound: dict[str, bytes]
    bad: dict[str, dict[str, bytes]]
    stoppers: frozenset[str]


def make_ill(data_dir: Path) -> Ill:
    sound = tree(data_dir)
    spliced, mended, misnamed, covered = sorted(data_dir.iterdir())
    cut(spliced / "index", 1000)
    (mended / "tombstones").unlink()
    misnamed.rename(data_dir / WRONG)
    # A block that no backup has; one of the same time and of another name is in the backups.
    text = (covered / "meta.json").read_text().replace(covered.name, OTHER)
    (covered / "meta.json").write_text(text)
    cut(covered / "index", 1000)
    covered.rename(data_dir / OTHER)
    bad = {name: tree(data_dir / name) for name in (spliced.name, mended.name, OTHER)}
    return Ill(sound, bad, frozenset({spliced.name, OTHER}))


def _blocks(data_dir: Path) -> set[str]:
    return {path.name for path in data_dir.iterdir()} - {".prometheus-backup"}


def _moved(data_dir: Path) -> dict[str, Path]:
    """What is in the quarantine, by the name that it had."""
    quarantine = data_dir / ".prometheus-backup" / "quarantine"
    return {p.name.split("-")[1]: p for p in quarantine.glob("*-*") if p.is_dir()}


def _require_nothing_lost(data_dir: Path, ill: Ill) -> None:
    """Each bad block is somewhere, as it was; what is in a place is either bad still or whole."""
    moved = _moved(data_dir)
    for name, files in ill.bad.items():
        place = moved.get(name, data_dir / name)
        assert tree(place) == files, f"{name} is not what it was"
    for name in _blocks(data_dir):
        still_bad = name in ill.bad and name not in moved
        assert still_bad or name == WRONG or not check_block(data_dir / name).counts


def test_killed_at_any_change_it_loses_nothing_and_is_continued(
    start_prometheus: PrometheusFleet,
    prometheus_3: PrometheusBinaries,
    data_dir: Path,
    repository_files: LocalFiles,
    tmp_path: Path,
) -> None:
    ill = make_ill(data_dir)
    continued = started = 0
    for changes in range(1, 500):
        damaged = tmp_path / f"patient-{changes}"
        shutil.copytree(data_dir, damaged)
        if not heal_and_die(damaged, repository_files.root, changes=changes):
            break
        _require_nothing_lost(damaged, ill)
        continued += (damaged / ".prometheus-backup" / "heal" / "ready").is_dir()
        if changes % 2 and ill.stoppers <= _moved(damaged).keys():
            shutil.copytree(damaged, tmp_path / f"started-{changes}")
            start_prometheus(prometheus_3, tmp_path / f"started-{changes}", QUIET).kill()
            started += 1

        report = heal(damaged, repository_files.root)

        assert report.outcome is Outcome.DONE
        _require_nothing_lost(damaged, ill)
        found = {p: b for p, b in tree(damaged).items() if not p.startswith(".prometheus-backup")}
        assert found == ill.sound
        assert not (damaged / ".prometheus-backup" / "heal").exists()
        assert changes % 10 or heal(damaged, repository_files.root).plan.repairs == ()
        shutil.rmtree(damaged)
    else:
        pytest.fail("no heal came to its end")
    assert started > 3, "it was killed between the moves and the end"
    assert continued > 15, "the kills did not hit the middle"
