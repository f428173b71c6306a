"""Files of the head that keep Prometheus from starting or hide samples, before and after `heal`.

The directory has four segments, each with samples of a series of its own and of one that all have.
"""

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from devtools.fetch_prometheus import PrometheusBinaries
from devtools.processes import ProcessFailedError
from devtools.prometheus import PrometheusFleet, PrometheusOptions, PrometheusServer
from prometheus_backup.events import ignore
from prometheus_backup.heal.head import read_head
from prometheus_backup.heal.head_files import Entry, HeadFault, HeadFiles
from prometheus_backup.heal.head_plan import plan_head
from tests.support.damaged_directory import NOBODY
from tests.support.stored_backups import json_of, run_here

HEADER = b"\x01\x30\xbc\x91\x01\0\0\0"
OUT_OF_ORDER = PrometheusOptions(
    scrape_interval=None, config="storage:\n  tsdb:\n    out_of_order_time_window: 1h\n"
)
SEGMENTS = 4


@dataclass(frozen=True)
class Head:
    """A data directory with a WAL of several segments."""

    fleet: PrometheusFleet
    binaries: PrometheusBinaries
    data_dir: Path

    def start(self) -> PrometheusServer:
        """Start Prometheus on it."""
        return self.fleet(self.binaries, self.data_dir, OUT_OF_ORDER)

    def heal(self, *options: str, url: str = NOBODY, code: int = 0) -> Any:
        """Run `heal` without a repository."""
        command = ("heal", str(self.data_dir), f"--prometheus-url={url}", "--json", *options)
        return json_of(run_here(*command), code=code)

    def tree(self) -> set[str]:
        """The paths of its files, without those of this program."""
        files = (p.relative_to(self.data_dir) for p in self.data_dir.rglob("*") if p.is_file())
        return {str(p) for p in files if p.parts[0] != ".prometheus-backup"}

    def values(self) -> dict[str, float]:
        """The number of samples of each series, by its number; `all` for the common one."""
        server = self.start()
        found = server.query('count_over_time({__name__=~"segment|common"}[1h])')
        server.kill()
        return {one["metric"].get("n", "all"): float(one["value"][1]) for one in found}


@pytest.fixture(scope="session")
def wal(tmp_path_factory: pytest.TempPathFactory, prometheus_2: PrometheusBinaries) -> Path:
    """A data directory that Prometheus 2.x wrote: each start began a segment."""
    folder = tmp_path_factory.mktemp("wal") / "data"
    folder.mkdir()
    begin = datetime.now(UTC) - timedelta(minutes=10)
    for n in range(SEGMENTS):
        with PrometheusServer(prometheus_2, folder, OUT_OF_ORDER) as server:
            at = begin + timedelta(minutes=n)
            server.write("segment", [(at, n)], n=str(n))
            server.write("common", [(at, n)])
            late = begin - timedelta(minutes=SEGMENTS - n)
            server.write("common", [(late, n)])
            server.kill()
    return folder


@pytest.fixture
def head(
    wal: Path,
    tmp_path: Path,
    start_prometheus: PrometheusFleet,
    prometheus_binaries: PrometheusBinaries,
) -> Head:
    """A copy of it, for Prometheus 2.x and 3.x."""
    shutil.copytree(wal, tmp_path / "data")
    return Head(start_prometheus, prometheus_binaries, tmp_path / "data")


ALL = {"all": 8, "0": 1, "1": 1, "2": 1, "3": 1}


def without(*series: str, common: int) -> dict[str, int]:
    """The samples of all series but these, with so many of the common one."""
    return {n: count for n, count in ALL.items() if n not in series} | {"all": common}


@dataclass(frozen=True)
class Case:
    """A damage; what Prometheus says about it; the samples and the files moved away by `heal`."""

    damage: Callable[[Path], None]
    says: str
    values: Mapping[str, int]
    moved: tuple[str, ...] = ()
    lost: bool = True


def _checkpoint(data: Path, number: str, *segments: int) -> None:
    """Make a checkpoint of segments, which has the same format."""
    folder = data / "wal" / f"checkpoint.{number}"
    folder.mkdir()
    for n in segments:
        (data / "wal" / f"{n:08d}").rename(folder / f"{n:08d}")


def _gap_in_checkpoint(data: Path) -> None:
    _checkpoint(data, "00000002", 0, 1, 2)
    (data / "wal/checkpoint.00000002/00000001").unlink()


def _gap_after_checkpoint(data: Path) -> None:
    _checkpoint(data, "00000000", 0)
    (data / "wal/00000001").unlink()


def _checkpoint_file(data: Path) -> None:
    (data / "wal/checkpoint.00000001").write_text("")


def _lost_checkpoint(data: Path) -> None:
    for n in (0, 1):
        (data / f"wal/{n:08d}").unlink()


def _stray_segment(data: Path) -> None:
    (data / "wal/20250101").write_text("notes")


def _second_name(data: Path) -> None:
    shutil.copy(data / "wal/00000001", data / "wal/1")


def _short_name(data: Path) -> None:
    (data / "wal/00000001").rename(data / "wal/1")


def _folder_as_segment(data: Path) -> None:
    (data / "wal/00000002").unlink()
    (data / "wal/00000002").mkdir()


def _wal_is_a_file(data: Path) -> None:
    shutil.rmtree(data / "wal")
    (data / "wal").write_text("")


def _head_chunks(
    *numbers: int, bad: int | None = None, content: bytes = b""
) -> Callable[[Path], None]:
    def damage(data: Path) -> None:
        folder = data / "chunks_head"
        folder.mkdir(exist_ok=True)
        for n in numbers:
            (folder / f"{n:06d}").write_bytes(content if n == bad else HEADER)

    return damage


def _unlink(path: str) -> Callable[[Path], None]:
    return lambda data: (data / path).unlink()


STOPS_START: Mapping[str, Case] = {
    "gap in the WAL": Case(
        _unlink("wal/00000001"), "segments are not sequential", without("1", common=7)
    ),
    "gap in the WBL": Case(
        _unlink("wbl/00000001"), "segments are not sequential", without(common=7)
    ),
    "gap in the checkpoint": Case(
        _gap_in_checkpoint, "segments are not sequential", without("1", common=7)
    ),
    "gap after the checkpoint": Case(
        _gap_after_checkpoint, "open WAL segment: 1", without("1", common=7)
    ),
    "checkpoint and its segments lost": Case(
        _lost_checkpoint, "open WAL segment: 0", {"2": 1, "3": 1}
    ),
    "checkpoint that is a file": Case(
        _checkpoint_file, "is not a directory", ALL, ("wal/checkpoint.00000001",)
    ),
    "stray file with a number": Case(
        _stray_segment, "segments are not sequential", ALL, ("wal/20250101",)
    ),
    "segment with two names": Case(_second_name, "segments are not sequential", ALL, ("wal/1",)),
    "segment with a short name": Case(_short_name, "open WAL segment: 1", ALL, lost=False),
    "gap in the head chunks": Case(
        _head_chunks(1, 2, 4, 5),
        "unsequential head chunk files",
        ALL,
        ("chunks_head/000004", "chunks_head/000005"),
        lost=False,
    ),
    "empty head chunk file": Case(
        _head_chunks(1, 2, 3, bad=2),
        "mmap",
        ALL,
        ("chunks_head/000002", "chunks_head/000003"),
        lost=False,
    ),
    "bad header of a head chunk file": Case(
        _head_chunks(1, 2, bad=1, content=b"notes and more"),
        "invalid magic number",
        ALL,
        ("chunks_head/000001", "chunks_head/000002"),
        lost=False,
    ),
    "unknown version of a head chunk file": Case(
        _head_chunks(1, bad=1, content=HEADER[:4] + b"\2\0\0\0"),
        "invalid chunk format version 2",
        ALL,
        ("chunks_head/000001",),
        lost=False,
    ),
    "WAL that is a file": Case(_wal_is_a_file, "not a directory", {}, ("wal",), lost=False),
}


@pytest.mark.parametrize("name", STOPS_START)
def test_prometheus_starts_again_with_as_many_samples_as_possible(head: Head, name: str) -> None:
    case = STOPS_START[name]
    case.damage(head.data_dir)
    before = head.tree()
    with pytest.raises(ProcessFailedError, match=case.says):
        head.start()
    found = head.heal(code=41)
    assert {fault["effect"] for fault in found["head"]} == {"stops-start"}
    healed = head.heal("--apply", code=3 if case.lost else 0)
    moved = [Path(path) for fault in healed["head"] for path in fault["quarantine"]]
    assert len(moved) == len(case.moved)
    assert all(path.exists() for path in moved)
    gone = before - head.tree() - set(case.moved)
    assert all(path == "wal/1" or "checkpoint" in path for path in gone), "these are renamed"
    assert head.heal(code=3)["head"] == []
    assert head.values() == case.values


def test_segments_after_a_directory_are_not_deleted(head: Head, tmp_path: Path) -> None:
    _folder_as_segment(head.data_dir)
    shutil.copytree(head.data_dir, tmp_path / "copy")
    # Repairing the WAL, Prometheus does not read the WBL either.
    assert Head(head.fleet, head.binaries, tmp_path / "copy").values() == without(
        "2", "3", common=2
    )

    (fault,) = head.heal(code=41)["head"]
    assert (fault["path"], fault["effect"]) == ("wal/00000002", "hides-data")
    head.heal("--apply", code=3)
    assert head.values() == without("2", common=7)


def _newer_checkpoint(data: Path) -> None:
    _checkpoint(data, "00000009", 0)


def _no_segments(data: Path) -> None:
    _checkpoint(data, "00000009", 0, 1, 2, 3)


@pytest.mark.parametrize("damage", [_newer_checkpoint, _no_segments])
def test_new_samples_are_not_ignored_because_of_a_newer_checkpoint(
    head: Head, tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    damage(head.data_dir)
    copy = Head(head.fleet, head.binaries, tmp_path / "copy")
    shutil.copytree(head.data_dir, copy.data_dir)
    (fault,) = head.heal(code=41)["head"]
    assert (fault["path"], fault["effect"]) == ("wal", "hides-data")
    head.heal("--apply", code=3)
    for directory, kept in ((copy, False), (head, True)):
        server = directory.start()
        server.write("segment", [(datetime.now(UTC), 1)], n="new")
        server.kill()
        assert ("new" in directory.values()) is kept


def test_nothing_is_changed_while_prometheus_runs(head: Head) -> None:
    server = head.start()
    (head.data_dir / "wal/00000001").unlink()
    before = head.tree()
    for options, code in (((), 41), (("--apply",), 3)):
        (fault,) = head.heal(*options, url=server.url, code=code)["head"]
        assert fault["remedy"] == "leave it: stop Prometheus, then run this command again"
    assert head.tree() == before


def test_sound_head_of_a_running_or_stopped_prometheus_has_no_faults(head: Head) -> None:
    assert plan_head(read_head(head.data_dir, ignore)) == ()
    server = head.start()
    server.restart()
    assert head.heal(url=server.url, code=3)["head"] == []
    server.stop()
    assert plan_head(read_head(head.data_dir, ignore)) == ()


FILE = Entry(is_file=True, size=10)


def paths(faults: tuple[HeadFault, ...]) -> list[tuple[str, str]]:
    """The steps of the repairs."""
    return [(step.action.value, step.path) for fault in faults for step in fault.steps]


def test_segments_beyond_a_large_gap_are_moved_away_and_the_larger_part_stays() -> None:
    wal = {f"{n:08d}": FILE for n in (0, *range(5000, 5003))}
    wal["checkpoint.00004999"] = Entry(is_file=False, is_folder=True)
    faults = plan_head(HeadFiles({"wal": wal}))
    assert paths(faults) == [("move-away", "wal/00000000")]


def test_names_that_prometheus_ignores_are_left() -> None:
    folder = Entry(is_file=False, is_folder=True)
    wal = {"00000000": FILE, "0000001.bak": FILE, "notes": FILE, "checkpoint.x": folder}
    wal |= {"checkpoint.00000007.tmp": folder, "99999999999999999999": FILE, "\u0664": FILE}
    assert plan_head(HeadFiles({"wal": wal, "chunks_head": {"+5": FILE, "x": FILE}})) == ()


def test_empty_last_head_chunk_file_is_left_to_prometheus() -> None:
    good = Entry(is_file=True, size=8, header=HEADER)
    for last in (Entry(is_file=True), Entry(is_file=True, size=128, header=bytes(8))):
        chunks = {"000001": good, "000002": last}
        assert plan_head(HeadFiles({"chunks_head": chunks})) == ()


def test_linked_folder_is_reported_and_left() -> None:
    files = HeadFiles({"wal": {"00000000": FILE, "00000002": FILE}}, links=frozenset({"wal"}))
    (fault,) = plan_head(files)
    assert (fault.steps, fault.remedy) == ((), "leave it: the directory is a link")
