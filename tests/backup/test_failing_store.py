"""A store that becomes unreachable, comes back, or runs out of space during a backup."""

import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from devtools.blocks import BlockSpec, write_openmetrics_blocks
from devtools.fetch_prometheus import PrometheusBinaries
from devtools.prometheus import PrometheusFleet, PrometheusOptions, PrometheusServer
from devtools.seaweedfs import SeaweedFS
from prometheus_backup.errors import RepositoryUnavailable
from prometheus_backup.events import Event, FileUploaded, SnapshotRemoved
from prometheus_backup.model import Outcome
from prometheus_backup.stores.local import LocalStore
from prometheus_backup.stores.objectstore import Patience
from tests.support.contents import CLEAN, keys, traces, tree
from tests.support.repositories import require_no_extra_objects, require_whole, visible
from tests.support.runs import Recorder, cli, settings, take_backup
from tests.support.s3 import open_s3


@pytest.fixture
def source(
    start_prometheus: PrometheusFleet, prometheus_3: PrometheusBinaries, tmp_path: Path
) -> PrometheusServer:
    """A Prometheus with two small blocks and an empty head."""
    data = tmp_path / "data"
    write_openmetrics_blocks(data, prometheus_3.promtool, BlockSpec(blocks=2, series=5))
    return start_prometheus(prometheus_3, data, PrometheusOptions(scrape_interval=None))


def snapshots(source: PrometheusServer) -> list[str]:
    return [path for path in traces(source.data_dir) if path.startswith("snapshots/")]


def sizes(source: PrometheusServer, name: str) -> list[int]:
    return [path.stat().st_size for path in source.data_dir.glob(f"*/{name}")]


NO_BYTECODE = {"PYTHONDONTWRITEBYTECODE": "1"}
"""With a limit on file size, Python would leave truncated bytecode files to other tests."""


class AtFirstUpload(Recorder):
    """A recorder that calls a function once, after the first upload."""

    def __init__(self, happen: Callable[[], None]) -> None:
        super().__init__()
        self._happen = happen
        self._once = threading.Lock()

    def __call__(self, event: Event) -> None:
        super().__call__(event)
        if isinstance(event, FileUploaded) and self._once.acquire(blocking=False):
            self._happen()


def test_backup_waits_for_a_store_that_does_not_respond_for_some_seconds(
    source: PrometheusServer, own_seaweedfs: SeaweedFS
) -> None:
    bucket = own_seaweedfs.endpoint().new_bucket()
    resumed = threading.Event()

    def freeze() -> None:
        """Connections stay open, but the server does not respond for a while."""
        own_seaweedfs.pause()
        threading.Timer(2.0, resume).start()

    def resume() -> None:
        resumed.set()
        own_seaweedfs.resume()

    report = take_backup(source, open_s3(bucket), listener=AtFirstUpload(freeze))
    assert resumed.is_set(), "the run ended while the store was silent"
    assert report.outcome is Outcome.DONE
    found = {k.partition("/")[2]: bucket.get(k) for k in bucket.keys("prometheus-snapshots/")}
    require_whole(found)
    require_no_extra_objects(found)
    assert [*visible(found)] == [report.manifest.backup_id]


def test_store_that_dies_ends_the_run_with_exit_13_and_removes_the_snapshot(
    source: PrometheusServer, own_seaweedfs: SeaweedFS, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Retries normally last three minutes; here, less."""
    short = Patience(answer=5, retries=2, retrying=5)
    monkeypatch.setattr("prometheus_backup.stores.objectstore.PATIENT", short)
    recorder = AtFirstUpload(own_seaweedfs.kill)
    bucket = own_seaweedfs.endpoint().new_bucket()
    store = open_s3(bucket)

    with pytest.raises(RepositoryUnavailable, match="Upload failed") as caught:
        take_backup(source, store, listener=recorder)

    assert caught.value.exit_code == 13
    assert "no connection" in caught.value.message
    assert len(recorder.of(SnapshotRemoved)) == 1
    assert snapshots(source) == []
    assert "cannot record the end of this run" in recorder.warnings
    # The intent remains, so that the next run knows that this one is dead.
    own_seaweedfs.restart()
    monkeypatch.undo()
    store = open_s3(bucket)
    report = take_backup(source, store)
    assert len(report.prune.swept) == 1
    assert report.outcome is Outcome.DONE
    assert {key.partition("/")[0] for key in keys(store)} == {report.manifest.backup_id}
    assert traces(source.data_dir) == CLEAN


def test_full_local_repository_ends_the_run_with_exit_13_and_no_partial_files(
    source: PrometheusServer, tmp_path: Path
) -> None:
    """A kernel limit on file size makes a write fail in the middle, like a full disk."""
    repository = tmp_path / "repository"
    env = settings(source, repository)
    index, chunks = (min(sizes(source, name)) for name in ("index", "chunks/000001"))
    assert index < chunks

    # Large enough for the control files.
    done = cli("backup", env=env | NO_BYTECODE, prefix=("prlimit", f"--fsize={chunks - 1}"))

    assert done.returncode == 13, done.stderr
    assert "Upload failed" in done.stderr
    assert snapshots(source) == []
    left = tree(repository)
    assert visible(left) == {}
    assert not [key for key in left if ".staged-" in key]
    assert not [key for key in left if "/chunks/" in key]

    report = take_backup(source, LocalStore(repository))
    assert report.outcome is Outcome.DONE
    found = tree(repository)
    require_whole(found)
    assert {key.partition("/")[0] for key in found} == {report.manifest.backup_id}
    assert traces(source.data_dir) == CLEAN


def test_restore_into_a_full_target_exits_33_and_can_be_resumed(
    source: PrometheusServer, tmp_path: Path
) -> None:
    repository, target = tmp_path / "repository", tmp_path / "target"
    take_backup(source, LocalStore(repository))
    env = {"REPOSITORY": f"file://{repository}"}
    chunks = min(sizes(source, "chunks/000001"))

    # One byte too small: the last byte of a file cannot be written.
    done = cli(
        "restore",
        "latest",
        str(target),
        env=env | NO_BYTECODE,
        prefix=("prlimit", f"--fsize={chunks - 1}"),
    )

    assert done.returncode == 33, done.stderr
    assert not [*target.glob("*/meta.json")]
    again = cli("restore", "latest", str(target), env=env)
    assert again.returncode == 0, again.stderr
    assert len([*target.glob("*/meta.json")]) == 2
