"""Damaged records of WAL, WBL and checkpoint: what Prometheus does, and what `heal` saves.

The directory has four segments of two pages each, and out-of-order samples in four others.
"""

import os
import random
import shutil
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from devtools.fetch_prometheus import PrometheusBinaries
from devtools.processes import ProcessFailedError
from devtools.prometheus import PrometheusFleet, PrometheusOptions, PrometheusServer
from devtools.remote_write import Series, remote_write
from prometheus_backup.events import ignore
from prometheus_backup.heal.head import read_head
from prometheus_backup.heal.head_files import Entry, HeadFault, HeadFiles
from prometheus_backup.heal.head_plan import plan_head
from prometheus_backup.tsdb.reading import ReadFile
from prometheus_backup.tsdb.wal import Damage, SegmentReport, scan_segment
from tests.heal.test_head import OUT_OF_ORDER, Head
from tests.support.damaged_directory import NOBODY
from tests.support.segments import records
from tests.support.stored_backups import run_here

SEGMENTS, SERIES, WRITES = 4, 200, 12
"""Each write is a record of one sample of each series."""
EACH = SERIES * WRITES
LATE = EACH // 2


def fill(server: PrometheusServer, begin: datetime, late: datetime | None = None) -> None:
    """Write a segment: records in order, then half as many that are out of order."""
    values = random.Random(1)

    for n in range(WRITES):
        record(server, begin + timedelta(seconds=20 * n), values.random)
    for n in range(WRITES // 2):
        if late:
            record(server, late + timedelta(seconds=20 * n), values.random)


def record(server: PrometheusServer, at: datetime, value: Callable[[], float]) -> None:
    """Write one sample of each series."""
    names = [{"__name__": "many", "i": str(i)} for i in range(SERIES)]
    remote_write(server.url, [Series(name, [(at, value())]) for name in names])


@pytest.fixture(scope="session")
def large_wal(tmp_path_factory: pytest.TempPathFactory, prometheus_2: PrometheusBinaries) -> Path:
    """A data directory that Prometheus 2.x wrote: each start began a segment."""
    folder = tmp_path_factory.mktemp("large-wal") / "data"
    folder.mkdir()
    begin = datetime.now(UTC) - timedelta(minutes=50)
    for n in range(SEGMENTS):
        with PrometheusServer(prometheus_2, folder, OUT_OF_ORDER) as server:
            late = begin - timedelta(minutes=2 * (SEGMENTS - n))
            fill(server, begin + timedelta(minutes=10 * n), late)
            server.kill()
    return folder


@pytest.fixture
def head(
    large_wal: Path,
    tmp_path: Path,
    start_prometheus: PrometheusFleet,
    prometheus_binaries: PrometheusBinaries,
) -> Head:
    """A copy of it, for Prometheus 2.x and 3.x."""
    shutil.copytree(large_wal, tmp_path / "data")
    return Head(start_prometheus, prometheus_binaries, tmp_path / "data")


ALL = SEGMENTS * (EACH + LATE)


def samples(head: Head) -> int:
    """The number of samples that Prometheus has."""
    server = head.start()
    (found,) = server.query("sum(count_over_time(many[3h]))")
    server.kill()
    return int(found["value"][1])


def flip(path: Path, at: int) -> None:
    """Flip one bit."""
    write(path, at, bytes([path.read_bytes()[at] ^ 16]))


def write(path: Path, at: int, data: bytes) -> None:
    """Overwrite bytes of a file."""
    with path.open("r+b") as file:
        file.seek(at)
        file.write(data)


GARBAGE = b"these bytes do not belong here"


def make_checkpoint(data: Path) -> Path:
    """Make the first two segments the checkpoint, which has the same format."""
    folder = data / "wal/checkpoint.00000001"
    folder.mkdir()
    for name in ("00000000", "00000001"):
        (data / "wal" / name).rename(folder / name)
    return folder


def quarantined(head: Head) -> dict[str, bytes]:
    """The contents of the quarantine, by the name of the file without its time."""
    folder = head.data_dir / ".prometheus-backup/quarantine"
    return {p.name.split("-", 1)[1]: p.read_bytes() for p in folder.iterdir() if not p.suffix}


def test_heal_keeps_what_is_before_and_after_each_damage(head: Head, tmp_path: Path) -> None:
    wal, wbl = head.data_dir / "wal", head.data_dir / "wbl"
    flip(wal / "00000000", 15_000)
    write(wal / "00000001", 15_000, GARBAGE)
    os.truncate(wal / "00000002", 20_000)
    write(wal / "00000003", 10_000, bytes(512))
    write(wbl / "00000001", 5000, GARBAGE)
    damaged = {f"wal-{p.name}": p.read_bytes() for p in wal.iterdir()}
    damaged["wbl-00000001"] = (wbl / "00000001").read_bytes()
    shutil.copytree(head.data_dir, tmp_path / "copy")

    found = head.heal(code=41)["head"]
    assert [fault["path"] for fault in found] == [
        *(f"wal/0000000{n}" for n in range(4)),
        "wbl/00000001",
    ]
    assert {fault["effect"] for fault in found} == {"hides-data"}
    says = "Prometheus repairs this by itself, but deletes everything after it"
    assert [says in fault["fault"] for fault in found] == [True, False, False, False, True]
    assert f"{says}: 3 segments, about " in found[0]["fault"]
    assert found[0]["lost"] is None

    healed = head.heal("--apply", code=3)["head"]
    assert [len(fault["quarantine"]) for fault in healed] == [1] * 5
    assert quarantined(head) == damaged
    assert head.heal(code=3)["head"] == []
    # Lost are one record each of the second and the last segment, what was cut off of the third,
    # and one late record. The flipped bit lost nothing.
    (tmp_path / "cut").write_bytes(damaged["wal-00000002"])
    with ReadFile(tmp_path / "cut") as file:
        sound = scan_segment(file).sound_until
    cut = WRITES - len(records(damaged["wal-00000002"][:sound]))
    assert 0 < cut < WRITES
    assert samples(head) == ALL - (3 + cut) * SERIES
    assert samples(Head(head.fleet, head.binaries, tmp_path / "copy")) < EACH


def test_a_checkpoint_is_repaired_before_prometheus_deletes_the_wal(
    head: Head, tmp_path: Path
) -> None:
    folder = make_checkpoint(head.data_dir)
    write(folder / "00000001", 15_000, GARBAGE)
    flip(folder / "00000000", 25_000)
    copy = Head(head.fleet, head.binaries, tmp_path / "copy")
    shutil.copytree(head.data_dir, copy.data_dir)

    found = head.heal(code=41)["head"]
    assert {fault["effect"] for fault in found} == {"stops-start"}
    assert all("deletes all segments after the checkpoint" in fault["fault"] for fault in found)
    head.heal("--apply", code=3)
    assert head.heal(code=3)["head"] == []
    assert samples(head) == ALL - SERIES

    with pytest.raises(ProcessFailedError, match="repair corrupted WAL: rename"):
        copy.start()
    assert not list((copy.data_dir / "wal").glob("0*")), "it has deleted them"
    copy.heal("--apply", code=3)
    assert 2 * (EACH - SERIES) <= samples(copy) < ALL


def test_a_destroyed_segment_is_replaced_with_an_empty_one(head: Head) -> None:
    segment = head.data_dir / "wal/00000001"
    size = segment.stat().st_size
    (head.data_dir / "wal/00000002").write_bytes(bytes(size))
    segment.write_bytes(random.Random(1).randbytes(size))
    head.heal("--apply", code=3)
    assert {name: len(data) for name, data in quarantined(head).items()} == {
        "wal-00000001": size,
        "wal-00000002": size,
    }
    assert samples(head) == ALL - 2 * EACH


def test_a_torn_end_is_no_damage(head: Head) -> None:
    newest = head.data_dir / "wal/00000003"
    os.truncate(newest, newest.stat().st_size - 100)
    (head.data_dir / "wal/00000004").write_bytes(b"")
    late = head.data_dir / "wbl/00000003"
    write(late, late.stat().st_size - 50, bytes(50))
    before = head.tree()
    assert head.heal(code=3)["head"] == []
    assert head.heal("--apply", code=3)["head"] == []
    assert head.tree() == before


def test_a_wal_that_is_being_written_has_no_faults(head: Head) -> None:
    server = head.start()
    stop = threading.Event()
    begin = datetime.now(UTC) - timedelta(minutes=10)

    def keep_writing() -> None:
        times = (begin + timedelta(milliseconds=100 * n) for n in range(6000))
        while not stop.is_set():
            record(server, next(times), lambda: 1.5)

    writer = threading.Thread(target=keep_writing)
    writer.start()
    try:
        for _ in range(200):
            assert plan_head(read_head(head.data_dir, ignore)) == ()
    finally:
        stop.set()
        writer.join()


def test_damage_under_a_running_prometheus_is_left_until_it_is_stopped(head: Head) -> None:
    server = head.start()
    flip(head.data_dir / "wal/00000001", 15_000)
    before = (head.data_dir / "wal/00000001").read_bytes()
    for options, code in (((), 41), (("--apply",), 3)):
        (fault,) = head.heal(*options, url=server.url, code=code)["head"]
        assert fault["remedy"].startswith("leave it: Prometheus still has these samples in memory")
    assert (head.data_dir / "wal/00000001").read_bytes() == before
    server.kill()
    head.heal("--apply")
    assert samples(head) == ALL


@pytest.mark.parametrize("flag", ["--no-storage.tsdb.wal-compression", ""])
def test_any_flipped_bit_of_a_real_segment_is_turned_back(
    tmp_path: Path, prometheus_binaries: PrometheusBinaries, flag: str
) -> None:
    zstd = "--storage.tsdb.wal-compression-type=zstd"
    flags = (flag,) if flag else (zstd,) if prometheus_binaries.major > 2 else ()
    options = PrometheusOptions(scrape_interval=None, extra_flags=flags)
    begin = datetime.now(UTC) - timedelta(minutes=20)
    with PrometheusServer(prometheus_binaries, tmp_path / "data", options) as server:
        fill(server, begin)
        server.kill()
    whole = (tmp_path / "data/wal/00000000").read_bytes()
    values = random.Random(2)
    for _ in range(60):
        at, bit = values.randrange(len(whole)), values.randrange(8)
        (tmp_path / "flipped").write_bytes(
            whole[:at] + bytes([whole[at] ^ 1 << bit]) + whole[at + 1 :]
        )
        with ReadFile(tmp_path / "flipped") as file:
            (damage,) = scan_segment(file).damages
        assert damage.mended == whole[damage.start : damage.stop]


def test_the_output_says_what_prometheus_would_delete(head: Head) -> None:
    write(head.data_dir / "wal/00000001", 15_000, GARBAGE)
    command = ("heal", str(head.data_dir), f"--prometheus-url={NOBODY}")
    text = " ".join(run_here(*command).stdout.split())
    assert "deletes everything after it: 2 segments, about" in text
    assert "lost in wal/00000001: samples of about" in text
    text = " ".join(run_here(*command, "--apply").stdout.split())
    assert "repaired wal/00000001: take the damaged part out" in text
    assert "what was bad is in" in text


SOUND = SegmentReport(1 << 20, 1 << 20)
EMPTY = SegmentReport(0)
LOST = Damage(1000, 2000, "invalid checksum of a record")


def faults(
    wal: dict[str, SegmentReport], *, others: dict[str, SegmentReport] | None = None
) -> tuple[HeadFault, ...]:
    """The faults of segments of the WAL with these contents, and of others by their path."""
    file = Entry(is_file=True, size=1)
    entries = dict.fromkeys(wal, file)
    segments = {f"wal/{name}": report for name, report in wal.items()} | (others or {})
    checkpoint = {"00000000": file} if others else {}
    if others:
        entries["checkpoint.00000004"] = Entry(is_file=False, is_folder=True)
    return plan_head(
        HeadFiles({"wal": entries}, {"checkpoint.00000004": checkpoint}, segments=segments)
    )


def test_the_newest_segment_with_records_may_end_torn() -> None:
    torn = SegmentReport(2000, 1000, (LOST,))
    assert faults({"00000000": SOUND, "00000001": torn, "00000002": EMPTY}) == ()
    (fault,) = faults({"00000000": torn, "00000001": SOUND})
    assert fault.path == "wal/00000000"


def test_a_checkpoint_must_be_sound_to_its_end() -> None:
    torn = {"wal/checkpoint.00000004/00000000": SegmentReport(2000, 1000, (LOST,))}
    (fault,) = faults({"00000005": SOUND}, others=torn)
    assert fault.effect == "stops-start"
    assert "about 1.0 MiB" in fault.detail


def test_segments_that_prometheus_does_not_read_are_not_judged() -> None:
    bad = SegmentReport(1 << 20, 1 << 20, (LOST,))
    sound = {"wal/checkpoint.00000004/00000000": SOUND}
    assert faults({"00000004": bad, "00000005": SOUND}, others=sound) == ()
    (fault,) = faults({"00000000": SOUND, "0": bad})
    assert fault.detail.startswith("Prometheus takes it for segment 0")


def test_a_segment_that_cannot_be_read_is_reported() -> None:
    files = HeadFiles({"wal": {"00000000": Entry(is_file=True)}}, unread={"wal/00000000": "EIO"})
    (fault,) = plan_head(files)
    assert (fault.effect, fault.detail) == ("unknown", "it cannot be read: EIO")
