"""Snapshots whose response is lost: adopted if they are certainly ours, else removed or kept.

A proxy in front of a real Prometheus cuts the connection at the snapshot request.
"""

import json
import shutil
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from devtools.prometheus import PrometheusServer
from prometheus_backup.backup.snapshot import remove_lost_snapshot, snapshot_names, snapshot_path
from prometheus_backup.datadir.lock import Intent
from prometheus_backup.errors import SnapshotUnusable, SourceUnavailable
from prometheus_backup.events import SnapshotLeft, SnapshotRemoved, SnapshotTaken
from prometheus_backup.model import Outcome
from prometheus_backup.prometheus.access import Access
from tests.support.contents import CLEAN, SnapshotKeeper, keys, live_blocks, objects, traces, tree
from tests.support.memory_store import MemoryStore
from tests.support.runs import FakeClock, Recorder, cli, settings, take_backup
from tests.support.sources import FakePrometheus, Proxy

QUICK = 50.0
"""Speed of the clock in tests that wait for a timeout."""

Forward = Callable[[], None]


def later(action: Callable[[], object], seconds: float) -> None:
    """Call `action` in a thread, after a delay."""
    thread = threading.Timer(seconds, action)
    thread.daemon = True
    thread.start()


def leave_half_a_snapshot(data_dir: Path) -> Path:
    """Create what Prometheus leaves behind if it is killed while it writes the head block."""
    name = f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}-00000000deadbeef"
    folder = data_dir / "snapshots" / name
    (folder / "01JJ5W0B8ZC6X3M1S4T9Q2V7KD.tmp-for-creation" / "chunks").mkdir(parents=True)
    return folder


def assert_only_a_claim_is_left(store: MemoryStore) -> None:
    """Nothing was committed."""
    assert [key.rpartition("/")[2] for key in keys(store)] == ["incomplete.json"]


@pytest.mark.parametrize("answer", [None, 502, 504])
def test_a_snapshot_whose_response_was_lost_is_adopted_and_not_requested_again(
    prometheus: PrometheusServer, tmp_path: Path, answer: int | None
) -> None:
    def cut(forward: Forward) -> int | None:
        later(forward, 0.3)
        return answer

    keeper, store = SnapshotKeeper(prometheus.data_dir, tmp_path / "kept"), MemoryStore()
    with Proxy(prometheus.url, on_snapshot=cut) as proxy:
        report = take_backup(
            Access(proxy.url),
            store,
            data_dir=prometheus.data_dir,
            listener=keeper,
            clock=FakeClock(speed=5),
        )
        assert len(proxy.snapshot_requests) == 1
    assert report.outcome is Outcome.DONE
    (taken,) = keeper.of(SnapshotTaken)
    assert taken.adopted
    assert taken.blocks == 5
    assert "waiting for the snapshot to appear" in keeper.warnings
    assert keeper.of(SnapshotRemoved) == [SnapshotRemoved(taken.name)]
    stored, snapshot = objects(store, report.manifest.backup_id), tree(keeper.kept)
    assert {path: stored[path] for path in snapshot} == snapshot
    assert traces(prometheus.data_dir) == CLEAN


def head_is_being_written(head: Path, old: Path, aside: Path) -> tuple[Path, Path]:
    """Rename the head block to its name while Prometheus writes it."""
    del old, aside
    return head, head.with_name(f"{head.name}.tmp-for-creation")


def head_is_not_started(head: Path, old: Path, aside: Path) -> tuple[Path, Path]:
    """Move the head block away: it is written last."""
    del old
    return head, aside / head.name


def an_old_block_is_not_linked_yet(head: Path, old: Path, aside: Path) -> tuple[Path, Path]:
    """Move one of the other blocks away."""
    del head
    return old, aside / old.name


def a_chunk_file_is_not_linked_yet(head: Path, old: Path, aside: Path) -> tuple[Path, Path]:
    """Move a chunk file away: Prometheus links meta.json first and the chunks last."""
    del head
    return old / "chunks" / "000001", aside / "000001"


@pytest.mark.parametrize(
    "unfinished",
    [
        head_is_being_written,
        head_is_not_started,
        an_old_block_is_not_linked_yet,
        a_chunk_file_is_not_linked_yet,
    ],
)
def test_a_snapshot_is_adopted_only_once_it_is_complete(
    source: PrometheusServer,
    tmp_path: Path,
    unfinished: Callable[[Path, Path, Path], tuple[Path, Path]],
) -> None:
    def cut(forward: Forward) -> None:
        forward()
        (folder,) = (source.data_dir / "snapshots").iterdir()
        live = {path.name for path in live_blocks(source.data_dir)}
        (head,) = (path for path in folder.iterdir() if path.name not in live)
        whole, part = unfinished(head, folder / min(live), tmp_path)
        whole.rename(part)
        later(lambda: shutil.move(part, whole), 0.7)

    with Proxy(source.url, on_snapshot=cut) as proxy:
        report = take_backup(
            Access(proxy.url),
            MemoryStore(),
            data_dir=source.data_dir,
            clock=FakeClock(speed=10),
        )
    assert report.outcome is Outcome.DONE
    assert (report.manifest.totals.blocks, report.manifest.totals.files) == (5, 20)
    assert traces(source.data_dir) == CLEAN


def test_backup_waits_for_a_frozen_prometheus(source: PrometheusServer) -> None:
    # It is stopped while it handles the request, and continues later.
    def cut(forward: Forward) -> None:
        source.pause()
        later(forward, 0)
        later(source.resume, 1)

    recorder = Recorder()
    with Proxy(source.url, on_snapshot=cut) as proxy:
        report = take_backup(
            Access(proxy.url),
            MemoryStore(),
            data_dir=source.data_dir,
            listener=recorder,
            clock=FakeClock(speed=5),
        )
        assert len(proxy.snapshot_requests) == 1
    assert report.outcome is Outcome.DONE
    assert report.manifest.totals.blocks == 5
    assert report.manifest.degraded == ()
    assert traces(source.data_dir) == CLEAN


def test_a_snapshot_that_appears_after_the_run_gave_up_is_removed_by_the_next_run(
    source: PrometheusServer,
) -> None:
    store = MemoryStore()
    with Proxy(source.url, on_snapshot=lambda _: None) as proxy:
        with pytest.raises(SnapshotUnusable, match="no snapshot appeared") as caught:
            take_backup(
                Access(proxy.url),
                store,
                data_dir=source.data_dir,
                clock=FakeClock(speed=QUICK),
            )
        assert len(proxy.snapshot_requests) == 1
    assert caught.value.exit_code == 22
    assert caught.value.message.startswith("Failed to create snapshot: ")
    assert_only_a_claim_is_left(store)
    assert len(traces(source.data_dir)) == len(CLEAN) + 1, "the intent stays, for the next run"

    late = source.snapshot()
    report = take_backup(source, store)
    assert report.outcome is Outcome.DONE
    assert not late.exists()
    assert traces(source.data_dir) == CLEAN


def test_an_incomplete_snapshot_of_a_killed_prometheus_is_removed(source: PrometheusServer) -> None:
    def die(forward: Forward) -> None:
        del forward
        leave_half_a_snapshot(source.data_dir)
        source.kill()

    store, recorder = MemoryStore(), Recorder()
    with Proxy(source.url, on_snapshot=die) as proxy:
        with pytest.raises(SnapshotUnusable, match="was not completed") as caught:
            take_backup(
                Access(proxy.url),
                store,
                data_dir=source.data_dir,
                listener=recorder,
                clock=FakeClock(speed=QUICK),
            )
        assert len(proxy.snapshot_requests) == 1
    assert caught.value.exit_code == 22
    assert caught.value.message.startswith("Failed to create snapshot: ")
    assert len(recorder.of(SnapshotRemoved)) == 1
    assert_only_a_claim_is_left(store)
    assert traces(source.data_dir) == CLEAN


def test_if_two_snapshots_appear_neither_is_adopted_nor_removed(
    source: PrometheusServer,
) -> None:
    def two(forward: Forward) -> None:
        forward()
        source.snapshot()  # a user's, in the same second

    store, recorder = MemoryStore(), Recorder()
    with (
        Proxy(source.url, on_snapshot=two) as proxy,
        pytest.raises(SnapshotUnusable, match="unclear which is ours") as caught,
    ):
        take_backup(Access(proxy.url), store, data_dir=source.data_dir, listener=recorder)
    assert caught.value.exit_code == 22
    names = snapshot_names(source.data_dir)
    assert len(names) == 2
    assert all(name in caught.value.message for name in names)
    assert recorder.of(SnapshotRemoved) == []
    assert_only_a_claim_is_left(store)


def test_a_users_own_snapshots_are_never_removed(source: PrometheusServer) -> None:
    mine = source.snapshot()
    (mine.parent / "my-notes").mkdir()
    before = tree(mine)

    def cut(forward: Forward) -> None:
        later(forward, 0.2)

    with Proxy(source.url, on_snapshot=cut) as proxy:
        access, store = Access(proxy.url), MemoryStore()
        take_backup(access, store, data_dir=source.data_dir, clock=FakeClock(speed=5))
    take_backup(source, MemoryStore())
    assert tree(mine) == before
    assert {path.name for path in mine.parent.iterdir()} == {mine.name, "my-notes"}


@pytest.mark.parametrize(
    "name", ["../../x", "..", "/etc", "", "20250122T020000Z-0123456789abcdef/../..", "my-notes"]
)
def test_an_invalid_snapshot_name_is_refused(tmp_path: Path, data_dir: Path, name: str) -> None:
    victim = tmp_path / "x"
    victim.mkdir()
    (data_dir / "snapshots" / "my-notes").mkdir(parents=True)
    store = MemoryStore()
    answer = {"/api/v1/admin/tsdb/snapshot": (200, {"name": name})}
    with FakePrometheus(answer) as server:
        error = SnapshotUnusable if name else SourceUnavailable
        with pytest.raises(error, match=r"^Failed to create snapshot: "):
            take_backup(Access(server.url), store, data_dir=data_dir)
        assert len(server.snapshot_requests) == 1
    assert victim.is_dir()
    assert traces(data_dir) == [*CLEAN, "snapshots/my-notes"]
    assert_only_a_claim_is_left(store)


def test_a_snapshot_that_existed_before_is_not_adopted(data_dir: Path) -> None:
    name = "20250122T020003Z-0000000000000003"
    users_own = data_dir / "snapshots" / name
    users_own.mkdir(parents=True)
    store = MemoryStore()
    with (
        FakePrometheus({"/api/v1/admin/tsdb/snapshot": (200, {"name": name})}) as server,
        pytest.raises(SnapshotUnusable, match="existed before"),
    ):
        take_backup(Access(server.url), store, data_dir=data_dir)
    assert users_own.is_dir()
    assert_only_a_claim_is_left(store)


def test_prometheus_fails_to_take_a_snapshot(
    prometheus: PrometheusServer,
) -> None:
    # Every snapshot fails while a block has no tombstones file; a partial directory remains.
    lost = next(prometheus.data_dir.glob("*/tombstones"))
    lost.unlink()
    store = MemoryStore()
    with pytest.raises(SnapshotUnusable, match="Prometheus says: create snapshot") as caught:
        take_backup(prometheus, store)
    assert caught.value.exit_code == 22
    assert caught.value.message.startswith("Failed to create snapshot: ")
    assert caught.value.hint
    assert_only_a_claim_is_left(store)
    assert traces(prometheus.data_dir) == CLEAN


def test_the_admin_api_is_disabled_between_the_check_and_the_request(data_dir: Path) -> None:
    off = {"status": "error", "errorType": "unavailable", "error": "admin APIs disabled"}
    with FakePrometheus({"/api/v1/admin/tsdb/snapshot": (500, off)}) as server:
        with pytest.raises(Exception, match="Failed to create snapshot: admin APIs") as caught:
            take_backup(Access(server.url), MemoryStore(), data_dir=data_dir)
        assert caught.value.exit_code == 21  # type: ignore[attr-defined]
        assert len(server.snapshot_requests) == 1
    assert traces(data_dir) == CLEAN


def test_skip_head_is_passed_to_prometheus(source: PrometheusServer, tmp_path: Path) -> None:
    with Proxy(source.url) as proxy:
        env = settings(source, tmp_path / "repository", PROMETHEUS_URL=proxy.url, SKIP_HEAD="true")
        done = cli("backup", "--json", env=env)
        assert proxy.snapshot_requests == ["/api/v1/admin/tsdb/snapshot?skip_head=true"]
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["totals"]["blocks"] == 4


def test_a_lost_snapshot_still_in_progress_is_left_for_the_next_run(tmp_path: Path) -> None:
    half = leave_half_a_snapshot(tmp_path)
    recorder = Recorder()
    intent = Intent("run", asked_at=datetime.now(UTC).isoformat(timespec="seconds"))
    assert not remove_lost_snapshot(tmp_path, intent, listener=recorder)
    assert half.is_dir()
    assert recorder.events == []


def test_a_lost_snapshot_is_identified_by_the_time_in_its_name(tmp_path: Path) -> None:
    folder = tmp_path / "snapshots"
    names = {
        "20250122T015950Z-0000000000000001": "before",
        "20250122T020001Z-0000000000000002": "known",
        "20250122T020003Z-0000000000000003": "ours",
        "20250122T023000Z-0000000000000004": "long after",
        "20250122T020003Z-notes": "no snapshot",
    }
    for name in names:
        (folder / name / "01JJ5W0B8ZC6X3M1S4T9Q2V7KD").mkdir(parents=True)
    intent = Intent(
        "run", asked_at="2025-01-22T02:00:02Z", known=("20250122T020001Z-0000000000000002",)
    )
    recorder = Recorder()
    assert remove_lost_snapshot(tmp_path, intent, listener=recorder)
    left = {names[path.name] for path in folder.iterdir()}
    assert left == {"before", "known", "long after", "no snapshot"}
    assert recorder.events == [SnapshotRemoved("20250122T020003Z-0000000000000003")]
    # A run that had not requested a snapshot has none to remove.
    assert remove_lost_snapshot(tmp_path, Intent("other"), listener=recorder)
    assert {names[path.name] for path in folder.iterdir()} == left


def test_a_snapshot_that_was_already_removed_is_no_problem(tmp_path: Path) -> None:
    recorder = Recorder()
    intent = Intent("run", snapshot="20250122T020003Z-0000000000000003")
    assert remove_lost_snapshot(tmp_path, intent, listener=recorder)
    assert recorder.events == []


def test_a_snapshot_that_cannot_be_removed_is_reported(tmp_path: Path) -> None:
    name = "20250122T020003Z-0000000000000003"
    (tmp_path / "elsewhere" / name).mkdir(parents=True)
    (tmp_path / "snapshots").symlink_to("elsewhere")  # links are not followed
    recorder = Recorder()
    assert not remove_lost_snapshot(tmp_path, Intent("run", snapshot=name), listener=recorder)
    assert [e.name for e in recorder.of(SnapshotLeft)] == [name]


def test_snapshot_paths_stay_inside_the_snapshots_directory(tmp_path: Path) -> None:
    good = "20250122T020003Z-0000000000000003"
    assert snapshot_path(tmp_path, good) == tmp_path / "snapshots" / good
    for bad in ("..", "../" + good, good + "/..", good.lower(), ""):
        with pytest.raises(SnapshotUnusable, match="is not a snapshot name"):
            snapshot_path(tmp_path, bad)
