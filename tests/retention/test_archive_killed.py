"""kill -9 of a backup and of a prune in layout `archive`, at their steps, on real stores.

On S3, a step is a request; in a directory, a call to the file system. `EVERY` chooses the steps.
"""

import itertools
import os
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from devtools.blocks import BlockSpec, write_openmetrics_blocks
from devtools.fetch_prometheus import PrometheusBinaries
from devtools.prometheus import PrometheusFleet, PrometheusServer
from devtools.s3 import S3Bucket
from prometheus_backup.clock import SystemClock
from prometheus_backup.events import ignore
from prometheus_backup.model import Layout, Outcome, PutOptions
from prometheus_backup.repository.layout import ARCHIVE, CLAIMS, MANIFEST, RESTORE_SCRIPT, SUMS
from prometheus_backup.repository.repository import Repository
from prometheus_backup.retention.policy import Policy
from prometheus_backup.retention.prune import apply_prune, plan_prune
from prometheus_backup.stores.base import ObjectStore
from prometheus_backup.stores.local import LocalStore
from tests.support import manifests
from tests.support.archives import BLOCK, BLOCKS, Contents, archive_run, prune
from tests.support.contents import CLEAN, in_catalog, traces
from tests.support.killed import killed_at_call, killed_at_request
from tests.support.memory_store import MemoryStore
from tests.support.repositories import ManualClock, require_whole, visible
from tests.support.restore_runs import restore
from tests.support.runs import options, take_backup
from tests.support.s3 import open_s3
from tests.support.s3_proxy import S3Proxy

EVERY = int(os.environ.get("EVERY_STEP_OF_KILLED_RUNS", "12"))
"""One of so many steps; 1 is all of them, which takes more than ten minutes (--timeout=0)."""
DAY = timedelta(days=1)
ONE_DAY = Policy(daily=1, monthly=0, yearly=0)
THIRD: Contents = {
    **BLOCKS,
    f"{manifests.ULID[:-1]}F": {"index": b"a third index", "meta.json": b"{2}"},
}


def is_block(key: str) -> bool:
    return key.startswith(f"{ARCHIVE}/{manifests.ULID[:4]}")


def contents(store: ObjectStore) -> dict[str, bytes]:
    return {o.key: b"".join(store.stream(o.key)) for o in store.list()}


def require_no_leftovers(store: ObjectStore) -> None:
    """Every object is named by a backup, or belongs to one."""
    found = contents(store)
    made = visible(found)
    named = {f.key for m in made.values() for _, f in m.files()}
    named |= {f"{folder}/block.json" for m in made.values() for folder in m.folders}
    named |= {f"{i}/{name}" for i in made for name in (MANIFEST, SUMS, RESTORE_SCRIPT)}
    assert {k for k in found if not in_catalog(k) and not k.startswith(".")} == named
    assert not any(store.list(CLAIMS))


def prune_later(store: ObjectStore, policy: Policy) -> None:
    """Apply retention on each of the next days, as the clocks of machine and store will be."""
    for day in (2, 4, 6):
        now = datetime.now(UTC) + day * DAY
        repository = Repository(store, clock=SystemClock())
        view = repository.archive.view()
        entries = repository.entries(view)
        plan = plan_prune(entries, policy=policy, now=now, store_now=now, archive=view.folders)
        report = apply_prune(repository, plan, run_id=f"day {day}", listener=ignore)
        assert report.outcome is Outcome.DONE, report.problems


class Place(ABC):
    """Stores that begin with the same objects; a command can be killed at its steps there."""

    every = EVERY

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()

    @abstractmethod
    def store(self, name: str) -> ObjectStore:
        """Return the store of this name."""

    @abstractmethod
    def kill(self, name: str, number: int, command: str, env: dict[str, str]) -> bool:
        """Kill a command at a step; return whether it came that far."""

    def copy(self, before: ObjectStore, name: str) -> ObjectStore:
        """Make a store with the objects of another."""
        store = self.store(name)
        for key, body in contents(before).items():
            store.put(key, [body], size=len(body), options=PutOptions())
        return store


class Directories(Place):
    """Local directories. A step is a call to the file system."""

    every = 4 * EVERY if EVERY > 1 else 1

    def store(self, name: str) -> ObjectStore:
        return LocalStore(self.folder / name)

    def kill(self, name: str, number: int, command: str, env: dict[str, str]) -> bool:
        root = self.folder / name
        env = env | {"REPOSITORY": f"file://{root}"}
        return killed_at_call(number, root, command, env=env, log=self.folder / f"{name}.log")


class Buckets(Place):
    """Prefixes of a bucket. A step is a request."""

    def __init__(self, folder: Path, bucket: S3Bucket, proxy: S3Proxy) -> None:
        super().__init__(folder)
        self._bucket = bucket
        self._proxy = proxy

    def store(self, name: str) -> ObjectStore:
        return open_s3(self._bucket, prefix=name)

    def kill(self, name: str, number: int, command: str, env: dict[str, str]) -> bool:
        env = (
            env
            | self._bucket.endpoint.environment()
            | {"AWS_ENDPOINT_URL": self._proxy.url}
            | {"S3_BUCKET": self._bucket.name, "S3_PREFIX": name}
        )
        log = self.folder / f"{name}.log"
        return killed_at_request(number, self._proxy, command, env=env, log=log)


@pytest.fixture(params=[Directories, Buckets])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    if request.param is Directories:
        yield Directories(tmp_path / "repositories")
        return
    bucket = request.getfixturevalue("s3_bucket")
    with S3Proxy(bucket.endpoint.url) as proxy:
        yield Buckets(tmp_path / "runs", bucket, proxy)


@pytest.fixture
def source(
    start_prometheus: PrometheusFleet, prometheus_3: PrometheusBinaries, tmp_path: Path
) -> PrometheusServer:
    """A Prometheus with one block and a head, which is another block in each backup."""
    data = tmp_path / "data"
    write_openmetrics_blocks(data, prometheus_3.promtool, BlockSpec(blocks=1, series=5))
    server = start_prometheus(prometheus_3, data)
    server.fill_head()
    return server


def test_a_backup_killed_at_any_step_loses_nothing_and_leaves_nothing(
    place: Place, source: PrometheusServer, tmp_path: Path
) -> None:
    shared = options(layout=Layout.ARCHIVE)
    before = MemoryStore()
    earlier = take_backup(source, before, shared).manifest.backup_id
    env = {
        "PROMETHEUS_URL": source.url,
        "PROMETHEUS_DATA_DIR": str(source.data_dir),
        "LAYOUT": "archive",
        "CONCURRENCY": "1",
    }
    counts = Counter[int]()
    for number in itertools.count(1, place.every):
        store = place.copy(before, name := f"n{number}")
        if not place.kill(name, number, "backup", env):
            break
        left = contents(store)
        require_whole(left)
        assert earlier in visible(left)
        counts[len(visible(left))] += 1

        report = take_backup(source, store, shared)

        assert report.outcome is Outcome.DONE, report.problems
        assert traces(source.data_dir) == CLEAN
        prune_later(store, Policy(daily=30))
        require_no_leftovers(store)
        made = visible(contents(store))
        assert set(made) == {*visible(left), report.manifest.backup_id}
        for backup_id in made:
            restore(store, backup_id, tmp_path / f"restored-{number}" / backup_id)
    assert counts.keys() == {1, 2}, "it is killed before and after its commit"


def test_a_prune_killed_at_any_step_loses_nothing_and_the_next_ones_complete_it(
    place: Place,
) -> None:
    """It deletes a backup, marks what only that one named, and deletes what was marked before."""
    clock = ManualClock(datetime.now(UTC).replace(microsecond=0) - 4 * DAY)
    before = MemoryStore(clock=clock)
    previous = None
    for contents_then in (THIRD, BLOCKS, BLOCK):
        made = archive_run(before, clock, run_id="a run", contents=contents_then, previous=previous)
        previous = Repository(before, clock=clock).manifest(made)
        prune(before, clock)
        clock.instant += DAY
    assert previous is not None
    kept = previous.backup_id
    env = {"RETENTION_DAILY": "1", "RETENTION_MONTHLY": "0", "RETENTION_YEARLY": "0"}
    seen = Counter[int]()
    for number in itertools.count(1, place.every):
        store = place.copy(before, name := f"n{number}")
        killed = place.kill(name, number, "prune", env)
        left = contents(store)
        require_whole(left)
        assert kept in visible(left)
        seen[len({k.split("/")[1] for k in left if is_block(k)})] += 1
        prune_later(store, ONE_DAY)
        require_no_leftovers(store)
        assert set(visible(contents(store))) == {kept}
        if not killed:
            break
    assert len(seen) > 1, "something was deleted in some cases"
