"""Fixtures for the real components: Prometheus 2.x and 3.x, SeaweedFS, moto, the `aws` client.

A missing component fails the test with a hint; no test is skipped. Servers with session scope run
once in each pytest-xdist worker.
"""

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from uuid import uuid4

import pytest
from hypothesis import HealthCheck, settings

from devtools import fetch_prometheus
from devtools.aws_cli import AwsCli
from devtools.blocks import BlockSpec, write_openmetrics_blocks
from devtools.fetch_prometheus import PrometheusBinaries
from devtools.moto_server import MotoServer
from devtools.prometheus import PrometheusFleet, PrometheusServer
from devtools.pushgateway import Pushgateway
from devtools.s3 import S3Bucket, S3Endpoint
from devtools.seaweedfs import SeaweedFS
from prometheus_backup.tsdb import parallel
from tests.support.stored_backups import (
    LocalFiles,
    S3Files,
    StoredBackups,
    copy_to,
    make_stored_backups,
)

# Settings of the user or machine that runs the tests must not reach the code under test.
_FOREIGN_VARIABLES = (
    "AWS_",
    "AZURE_",
    "CURL_CA_BUNDLE",
    "GOOGLE_",
    "PROMETHEUS_URL",
    "PROMETHEUS_DATA_DIR",
    "REQUESTS_CA_BUNDLE",
    "S3_",
    "SSL_CERT_",
)


# The same examples in each run, and no deadline: tests also run on slow machines.
settings.register_profile(
    "tests", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)


def pytest_configure() -> None:
    """Make this process's environment the same on every machine."""
    settings.load_profile("tests")
    for name in list(os.environ):
        if name.startswith(_FOREIGN_VARIABLES) or name.lower().endswith("_proxy"):
            del os.environ[name]
    os.environ.update(
        AWS_CONFIG_FILE=os.devnull,
        AWS_SHARED_CREDENTIALS_FILE=os.devnull,
        AWS_EC2_METADATA_DISABLED="true",
    )


@pytest.fixture(scope="session")
def prometheus_2() -> PrometheusBinaries:
    """Prometheus 2.x."""
    return fetch_prometheus.find(2)


@pytest.fixture(scope="session")
def prometheus_3() -> PrometheusBinaries:
    """Prometheus 3.x."""
    return fetch_prometheus.find(3)


@pytest.fixture(scope="session", params=fetch_prometheus.MAJORS, ids="prometheus-{}".format)
def prometheus_binaries(request: pytest.FixtureRequest) -> PrometheusBinaries:
    """Prometheus 2.x and 3.x: a test that uses this runs with both."""
    return fetch_prometheus.find(request.param)


@pytest.fixture
def start_prometheus(tmp_path: Path) -> Iterator[PrometheusFleet]:
    """Start servers: `start_prometheus(binaries, data_dir, PrometheusOptions(...))`."""
    with PrometheusFleet(tmp_path) as fleet:
        yield fleet


@pytest.fixture(scope="session")
def tsdb_block_spec() -> BlockSpec:
    """The contents of the blocks in `tsdb_blocks` and `data_dir`."""
    return BlockSpec()


@pytest.fixture
def small_blocks_in_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Check blocks in processes of their own even if that is slower."""
    monkeypatch.setattr(parallel, "MIN_PARALLEL_BYTES", 0)


@pytest.fixture(scope="session")
def tsdb_blocks(
    tmp_path_factory: pytest.TempPathFactory,
    prometheus_2: PrometheusBinaries,
    tsdb_block_spec: BlockSpec,
) -> Path:
    """A data directory with four blocks, shared by all tests: do not modify it."""
    directory = tmp_path_factory.mktemp("tsdb") / "data"
    write_openmetrics_blocks(directory, prometheus_2.promtool, tsdb_block_spec)
    return directory


@pytest.fixture
def data_dir(tmp_path: Path, tsdb_blocks: Path) -> Path:
    """A data directory with four blocks, for one test."""
    directory = tmp_path / "prometheus-data"
    shutil.copytree(tsdb_blocks, directory)
    return directory


@pytest.fixture
def prometheus(
    start_prometheus: PrometheusFleet, prometheus_binaries: PrometheusBinaries, data_dir: Path
) -> PrometheusServer:
    """A running server, 2.x and 3.x, with four old blocks and a head of the last half hour."""
    server = start_prometheus(prometheus_binaries, data_dir)
    server.fill_head()
    return server


@pytest.fixture(scope="session")
def seaweedfs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SeaweedFS]:
    """A shared SeaweedFS; a test that pauses or kills it must use `own_seaweedfs`."""
    with SeaweedFS(tmp_path_factory.mktemp("seaweedfs")) as server:
        yield server


@pytest.fixture
def own_seaweedfs(tmp_path: Path) -> Iterator[SeaweedFS]:
    """A SeaweedFS for one test, which may pause, restart or kill it."""
    with SeaweedFS(tmp_path / "seaweedfs") as server:
        yield server


@pytest.fixture
def s3_bucket(seaweedfs: SeaweedFS) -> Iterator[S3Bucket]:
    """An empty bucket on SeaweedFS."""
    bucket = seaweedfs.endpoint().new_bucket()
    yield bucket
    bucket.remove()


@pytest.fixture
def pushgateway(tmp_path: Path) -> Iterator[Pushgateway]:
    """A Pushgateway for one test."""
    with Pushgateway(tmp_path / "pushgateway") as server:
        yield server


@pytest.fixture(scope="session")
def _moto_process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MotoServer]:
    with MotoServer(tmp_path_factory.mktemp("moto")) as server:
        yield server


@pytest.fixture
def moto(_moto_process: MotoServer) -> Iterator[MotoServer]:
    """An empty moto; it does not enforce IAM by default."""
    yield _moto_process
    _moto_process.stop_enforcing_iam()
    _moto_process.reset()


@pytest.fixture
def moto_bucket(moto: MotoServer) -> S3Bucket:
    """An empty bucket on moto."""
    return moto.endpoint().new_bucket()


@pytest.fixture
def aws(tmp_path: Path) -> Callable[[S3Endpoint], AwsCli]:
    """Return the real `aws` client for an endpoint: `aws(s3_bucket.endpoint)("s3", "ls")`."""
    return lambda endpoint: AwsCli(endpoint, tmp_path / "aws-home")


@pytest.fixture(scope="session")
def stored(
    tmp_path_factory: pytest.TempPathFactory, prometheus_2: PrometheusBinaries, tsdb_blocks: Path
) -> StoredBackups:
    """A repository with two real backups, shared by all tests: do not modify it."""
    return make_stored_backups(tmp_path_factory.mktemp("stored"), prometheus_2, tsdb_blocks)


@pytest.fixture
def repository_files(tmp_path: Path, stored: StoredBackups) -> LocalFiles:
    """A `file://` repository with the backups of `stored`, for one test."""
    shutil.copytree(stored.root, tmp_path / "repository")
    return LocalFiles(tmp_path / "repository")


@pytest.fixture
def source(
    start_prometheus: PrometheusFleet, prometheus_3: PrometheusBinaries, data_dir: Path
) -> PrometheusServer:
    """A running 3.x with four old blocks and a head of the last half hour."""
    server = start_prometheus(prometheus_3, data_dir)
    server.fill_head()
    return server


@pytest.fixture(scope="module")
def bucket(seaweedfs: SeaweedFS) -> S3Bucket:
    """A bucket shared by the tests of one module."""
    return seaweedfs.endpoint().new_bucket()


@pytest.fixture
def files(bucket: S3Bucket, stored: StoredBackups) -> S3Files:
    """The two real backups on SeaweedFS, under a prefix for one test."""

    copied = S3Files(bucket, f"prefix-{uuid4().hex[:8]}")
    copy_to(copied, stored.root)
    return copied
