"""Damaged chunks in `chunks_head`: what Prometheus does with them, and what `heal` does.

The directory has several files of chunks, and all of their samples in the WAL, too.
"""

import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from devtools.fetch_prometheus import PrometheusBinaries
from devtools.prometheus import PrometheusFleet, PrometheusServer
from devtools.remote_write import Series, remote_write
from prometheus_backup.events import BytesMoved, Event, LongStepBegan, ignore
from prometheus_backup.heal.head import read_head
from prometheus_backup.heal.head_plan import plan_head
from tests.heal.test_head import OUT_OF_ORDER, Head

STARTS, SERIES, SAMPLES = 3, 20, 190
"""A chunk is full after 120 samples, and each start begins a file, if it writes a chunk."""
ALL = STARTS * SERIES * SAMPLES


@pytest.fixture(scope="session")
def chunk_files(tmp_path_factory: pytest.TempPathFactory, prometheus_2: PrometheusBinaries) -> Path:
    """A data directory that Prometheus 2.x wrote."""
    folder = tmp_path_factory.mktemp("head-chunks") / "data"
    folder.mkdir()
    times = (datetime.now(UTC) - timedelta(seconds=10 * n) for n in range(600, 0, -1))
    for _ in range(STARTS):
        with PrometheusServer(prometheus_2, folder, OUT_OF_ORDER) as server:
            new = [next(times) for _ in range(SAMPLES)]
            remote_write(
                server.url,
                [
                    Series(
                        {"__name__": "full", "i": str(i)}, [(at, at.timestamp() % 97) for at in new]
                    )
                    for i in range(SERIES)
                ],
            )
    return folder


@pytest.fixture
def head(
    chunk_files: Path,
    tmp_path: Path,
    start_prometheus: PrometheusFleet,
    prometheus_binaries: PrometheusBinaries,
) -> Head:
    """A copy of it, for Prometheus 2.x and 3.x."""
    shutil.copytree(chunk_files, tmp_path / "data")
    return Head(start_prometheus, prometheus_binaries, tmp_path / "data")


def samples(server: PrometheusServer) -> int:
    """The number of samples that Prometheus has."""
    (found,) = server.query("sum(count_over_time(full[3h]))")
    return int(found["value"][1])


def chunk_paths(head: Head) -> list[Path]:
    """The files of chunks, the oldest first."""
    return sorted((head.data_dir / "chunks_head").iterdir())


def overwrite(path: Path, at: int, data: bytes) -> None:
    """Overwrite bytes of a file."""
    with path.open("r+b") as opened:
        opened.seek(at)
        opened.write(data)


def test_zeros_in_a_file_hide_samples_until_it_is_moved_away(head: Head, tmp_path: Path) -> None:
    first, *_ = files = chunk_paths(head)
    overwrite(first, 8, bytes(1000))
    copy = Head(head.fleet, head.binaries, tmp_path / "copy")
    shutil.copytree(head.data_dir, copy.data_dir)
    (fault,) = head.heal(code=41)["head"]
    assert (fault["path"], fault["effect"]) == (f"chunks_head/{first.name}", "hides-data")
    (healed,) = head.heal("--apply")["head"]
    assert len(healed["quarantine"]) == len(files)
    assert samples(head.start()) == ALL
    assert samples(copy.start()) < ALL


def test_a_damaged_chunk_loses_nothing_once_prometheus_is_restarted(head: Head) -> None:
    server = head.start()
    overwrite(chunk_paths(head)[0], 100, b"garbage")
    with pytest.raises(RuntimeError, match="422"):
        samples(server)
    (fault,) = head.heal(url=server.url, code=41)["head"]
    assert fault["effect"] == "fails-queries"
    assert fault["remedy"].startswith("restart Prometheus: it deletes this file and all after it")
    server.kill()
    (fault,) = head.heal()["head"]
    assert (fault["effect"], fault["quarantine"]) == ("none", [])
    assert head.heal("--quick", code=3)["head"] == []
    assert samples(head.start()) == ALL


def test_what_a_crash_may_leave_in_the_newest_file_is_no_fault(head: Head) -> None:
    assert plan_head(read_head(head.data_dir, ignore)) == ()
    newest = chunk_paths(head)[-1]
    content = newest.read_bytes()
    overwrite(newest, 8, bytes(1000))
    assert plan_head(read_head(head.data_dir, ignore)) == ()
    written = len(content.rstrip(b"\0"))
    for torn in (written - 10, written - 150, written // 2):
        newest.write_bytes(content[:torn] + bytes(len(content) - torn))
        assert plan_head(read_head(head.data_dir, ignore)) == ()
        newest.write_bytes(content[:torn])
        assert plan_head(read_head(head.data_dir, ignore)) == ()


def test_progress_counts_each_byte_once(head: Head) -> None:
    events: list[Event] = []
    read_head(head.data_dir, events.append)
    (begin,) = (event for event in events if isinstance(event, LongStepBegan))
    done = sum(event.count for event in events if isinstance(event, BytesMoved))
    assert done == begin.total > 0
