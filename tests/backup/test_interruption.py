"""kill -9 of the real command line: at each of its requests to the store, and at random times."""

import json
import random
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from devtools.blocks import BlockSpec, write_openmetrics_blocks
from devtools.fetch_prometheus import PrometheusBinaries
from devtools.prometheus import PrometheusFleet, PrometheusOptions, PrometheusServer
from devtools.s3 import S3Bucket
from prometheus_backup.datadir.lock import HostLock, Intent
from prometheus_backup.errors import SourceUnavailable
from prometheus_backup.events import SnapshotRemoved
from prometheus_backup.model import Outcome, rfc3339
from prometheus_backup.repository.layout import INCOMPLETE
from prometheus_backup.repository.manifest import Incomplete, decode
from prometheus_backup.stores.local import LocalStore
from tests.support.contents import CLEAN, in_catalog, traces, tree
from tests.support.memory_store import MemoryStore
from tests.support.repositories import require_no_extra_objects, require_whole, visible
from tests.support.runs import Recorder, cli, settings, take_backup
from tests.support.s3 import open_s3
from tests.support.s3_proxy import S3Proxy, S3Request
from tests.support.started_cli import StartedCli
from tests.support.waiting import wait_until

ONE_BLOCK = BlockSpec(blocks=1, series=5)


@dataclass
class Scene:
    """A small source, a bucket, and a proxy in front of the bucket."""

    source: PrometheusServer
    bucket: S3Bucket
    proxy: S3Proxy
    folder: Path

    def environment(self, prefix: str, **more: str) -> dict[str, str]:
        """Settings with one worker, so that requests have the same order, and without the head."""
        chosen = {"AWS_ENDPOINT_URL": self.proxy.url, "CONCURRENCY": "1", "SKIP_HEAD": "true"}
        return settings(self.source, self.bucket, S3_PREFIX=prefix, **(chosen | more))

    def contents(self, prefix: str) -> dict[str, bytes]:
        """Every object of a repository but its catalogue, read without our code."""
        keys = [k.removeprefix(f"{prefix}/") for k in self.bucket.keys(f"{prefix}/")]
        return {k: self.bucket.get(f"{prefix}/{k}") for k in keys if not in_catalog(k)}

    def killed_at(self, number: int, prefix: str) -> bool:
        """Run `backup` and kill it at the given request; return False if it never sends it."""
        with StartedCli(
            "backup", env=self.environment(prefix), directory=self.folder / f"{prefix}-{number}"
        ) as run:

            def gate(request: S3Request) -> bool:
                if request.number >= number:
                    run.kill()
                return request.number < number

            self.proxy.begin(gate)
            code = run.end().code
            assert code in (0, -9), run.log()
        self.proxy.begin()
        return code == -9

    def backup(self, prefix: str, **more: str) -> Any:
        """Run `backup` to its end; return its JSON output."""
        done = cli("backup", "--json", env=self.environment(prefix, **more))
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)


@pytest.fixture
def scene(
    start_prometheus: PrometheusFleet,
    prometheus_3: PrometheusBinaries,
    s3_bucket: S3Bucket,
    tmp_path: Path,
) -> Iterator[Scene]:
    """A Prometheus with one block, of which a backup takes 26 requests to SeaweedFS."""
    data = tmp_path / "data"
    write_openmetrics_blocks(data, prometheus_3.promtool, ONE_BLOCK)
    source = start_prometheus(prometheus_3, data, PrometheusOptions(scrape_interval=None))
    with S3Proxy(s3_bucket.endpoint.url) as proxy:
        yield Scene(source, s3_bucket, proxy, tmp_path / "runs")


def folders(contents: dict[str, bytes]) -> set[str]:
    return {key.partition("/")[0] for key in contents}


@pytest.mark.parametrize("part", range(3))
def test_run_killed_at_any_request_leaves_nothing_partial_and_the_next_one_cleans_up(
    scene: Scene, part: int
) -> None:
    """For every n: a run killed before request n arrives, then a run without interruption."""
    visible_after: list[int] = []
    number = 1 + part
    while scene.killed_at(number, prefix := f"n{number}"):
        left = scene.contents(prefix)
        require_whole(left)
        visible_after.append(len(visible(left)))

        report = take_backup(scene.source, open_s3(scene.bucket, prefix=prefix))

        after = scene.contents(prefix)
        require_whole(after)
        require_no_extra_objects(after)
        assert not [key for key in after if key.endswith(INCOMPLETE)]
        made = report.manifest.backup_id
        assert folders(after) == set(visible(after)) == {*visible(left), made}
        assert set(report.prune.swept) == folders(left) - set(visible(left))
        assert report.outcome is Outcome.DONE
        assert traces(scene.source.data_dir) == CLEAN
        number += 3
    # Before the commit, no backup is visible; after it, a complete one.
    assert visible_after == sorted(visible_after)
    assert {0, 1} == set(visible_after)
    assert len(visible_after) >= 8


def test_consecutive_killed_runs_never_damage_an_earlier_backup(scene: Scene) -> None:
    earlier = scene.backup("p")["backup_id"]
    before = {k: v for k, v in scene.contents("p").items() if k.startswith(earlier)}
    for number in range(6, 30, 4):
        assert scene.killed_at(number, "p")
        left = scene.contents("p")
        assert {k: v for k, v in left.items() if k.startswith(earlier)} == before
        require_whole(left)
    assert scene.backup("p")["outcome"] == "done"

    assert folders(scene.contents("p")) == set(visible(scene.contents("p")))
    listed = json.loads(cli("list", "--json", env=scene.environment("p")).stdout)["backups"]
    assert {b["backup_id"] for b in listed} == set(visible(scene.contents("p")))
    assert all(b["good"] for b in listed)
    verified = cli("verify", "--all", env=scene.environment("p"))
    assert verified.returncode == 0, verified.stderr
    assert traces(scene.source.data_dir) == CLEAN


def test_next_run_copies_uploaded_files_and_reads_them_back(scene: Scene) -> None:
    """The heartbeat has recorded one finished file; all others are uploaded again."""
    prefix = "salvage"
    env = scene.environment(prefix, VERIFY_LEVEL="size")
    with StartedCli("backup", env=env, directory=scene.folder / prefix) as run:
        uploads: list[str] = []

        def gate(request: S3Request) -> bool:
            if request.method == "PUT" and not request.path.endswith(".json"):
                uploads.append(request.path)
                if len(uploads) > 1:
                    run.end()  # held until it is killed
                    return False
            return True

        def finished() -> list[str]:
            found = [k for k in scene.bucket.keys(prefix) if k.endswith(INCOMPLETE)]
            document = decode(Incomplete, scene.bucket.get(found[0])) if found else None
            return [file.path for file in document.finished] if document else []

        scene.proxy.begin(gate)
        wait_until(lambda: bool(finished()))
        arrived = finished()
        run.kill()
        assert run.end().code == -9
    assert len(arrived) == 1
    [dead] = folders(scene.contents(prefix))
    salvaged = next(
        len(body) for key, body in scene.contents(prefix).items() if key.endswith(arrived[0])
    )

    scene.proxy.begin()
    report = scene.backup(prefix, VERIFY_LEVEL="size")

    assert report["totals"]["copied_bytes"] == salvaged
    assert report["totals"]["uploaded_bytes"] == report["totals"]["bytes"] - salvaged
    assert report["retention"]["swept"] == [dead]
    reads = [r.path for r in scene.proxy.requests if r.method == "GET" and "?" not in r.path]
    # At this level, only files that were never verified are read.
    blocks = [path for path in reads if not path.endswith("n")]
    assert [path.rpartition("/")[2] for path in blocks] == [arrived[0].rpartition("/")[2]]
    assert report["backup_id"] in blocks[0]
    contents = scene.contents(prefix)
    require_whole(contents)
    require_no_extra_objects(contents)
    assert folders(contents) == {report["backup_id"]}
    assert traces(scene.source.data_dir) == CLEAN


def test_runs_killed_at_random_times_leave_a_local_repository_intact(
    scene: Scene, tmp_path: Path
) -> None:
    repository = tmp_path / "repository"
    env = settings(scene.source, repository)
    chance = random.Random(2)
    killed = 0
    for count in range(6):
        with StartedCli("backup", env=env, directory=tmp_path / str(count)) as run:
            run.wait_for_log("step=check")
            time.sleep(chance.uniform(0, 0.25))
            run.kill()
            killed += run.end().code == -9
        require_whole(tree(repository))
    assert killed > 0

    done = cli("backup", "--json", env=env)
    assert done.returncode == 0, done.stderr
    contents = tree(repository)
    require_whole(contents)
    require_no_extra_objects(contents)
    assert folders(contents) == set(visible(contents))
    assert traces(scene.source.data_dir) == CLEAN
    assert cli("verify", "--all", env=env).returncode == 0


def test_snapshot_of_a_dead_run_is_removed_even_if_the_next_run_fails(
    data_dir: Path, start_prometheus: PrometheusFleet, prometheus_3: PrometheusBinaries
) -> None:
    server = start_prometheus(prometheus_3, data_dir)
    left = server.snapshot()
    lock = HostLock.take(data_dir)
    lock.record(Intent("dead", backup_id="backup-20250122-020000", snapshot=left.name))
    lock.release()
    server.stop()
    recorder = Recorder()

    with pytest.raises(SourceUnavailable):
        take_backup(server, MemoryStore(), listener=recorder)

    assert not left.exists()
    assert [event.name for event in recorder.of(SnapshotRemoved)] == [left.name]


@pytest.mark.parametrize("names", [("a", "b"), ("b", "a")])
@pytest.mark.parametrize("second_is_named", [True, False])
def test_snapshots_of_two_dead_runs_within_seconds_are_both_removed(
    scene: Scene, tmp_path: Path, names: tuple[str, str], *, second_is_named: bool
) -> None:
    """The first died before it knew its snapshot's name; the second listed that snapshot."""
    data_dir = scene.source.data_dir
    asked_at = rfc3339(datetime.now(UTC).replace(microsecond=0))
    first, second = (scene.source.snapshot().name for _ in names)
    lock = HostLock.take(data_dir)
    lock.record(Intent(names[0], asked_at=asked_at))
    named = second if second_is_named else ""
    lock.record(Intent(names[1], asked_at=asked_at, known=(first,), snapshot=named))
    lock.release()

    take_backup(scene.source, LocalStore(tmp_path / "repository"))

    assert traces(data_dir) == CLEAN


def test_ambiguous_snapshots_are_kept(scene: Scene, tmp_path: Path) -> None:
    data_dir = scene.source.data_dir
    earlier = scene.source.snapshot().name
    asked_at = rfc3339(datetime.now(UTC).replace(microsecond=0))
    made = {scene.source.snapshot().name for _ in range(2)}
    lock = HostLock.take(data_dir)
    lock.record(Intent("dead", asked_at=asked_at, known=(earlier,)))
    lock.release()
    recorder = Recorder()

    take_backup(scene.source, LocalStore(tmp_path / "repository"), listener=recorder)

    assert {path.name for path in (data_dir / "snapshots").iterdir()} == made | {earlier}
    assert all(name in recorder.warnings for name in made)
