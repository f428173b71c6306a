"""Sources for the ops: one Prometheus where its version does not matter; and backups to drill."""

import shutil
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from devtools import fetch_prometheus
from devtools.blocks import BlockSpec
from devtools.fetch_prometheus import PrometheusBinaries
from devtools.prometheus import PrometheusFleet, PrometheusServer
from devtools.s3 import S3Bucket
from devtools.seaweedfs import SeaweedFS
from tests.support.drills import Drillable, Drilling, make_drillable
from tests.support.patients import Patient, samples_of
from tests.support.stored import LocalFiles, S3Files, Stored, copy_to


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
    """A bucket that the tests of one module share."""
    return seaweedfs.endpoint().new_bucket()


@pytest.fixture
def files(bucket: S3Bucket, stored: Stored) -> S3Files:
    """The two real backups under a prefix of the test's own on SeaweedFS."""
    copied = S3Files(bucket, f"prefix-{uuid4().hex[:8]}")
    copy_to(copied, stored.root)
    return copied


@pytest.fixture(scope="session")
def _drillables() -> dict[int, Drillable]:
    return {}


def _drilling(
    major: int,
    made: dict[int, Drillable],
    tmp_path_factory: pytest.TempPathFactory,
    blocks: Path,
    directory: Path,
) -> Drilling:
    if major not in made:
        folder = tmp_path_factory.mktemp("drillable")
        made[major] = make_drillable(folder, fetch_prometheus.find(major), blocks)
    drillable = made[major]
    shutil.copytree(drillable.root, directory / "repository")
    files = LocalFiles(directory / "repository")
    return Drilling(files, drillable.backup, drillable.binaries, directory / "scratch")


@pytest.fixture(params=fetch_prometheus.MAJORS, ids="prometheus-{}".format)
def drilling(
    request: pytest.FixtureRequest,
    _drillables: dict[int, Drillable],
    tmp_path_factory: pytest.TempPathFactory,
    tsdb_blocks: Path,
    tmp_path: Path,
) -> Drilling:
    """A backup with fingerprints of every block, of 2.x and 3.x, drilled by the same."""
    return _drilling(request.param, _drillables, tmp_path_factory, tsdb_blocks, tmp_path)


@pytest.fixture
def drilling_3(
    _drillables: dict[int, Drillable],
    tmp_path_factory: pytest.TempPathFactory,
    tsdb_blocks: Path,
    tmp_path: Path,
) -> Drilling:
    """The same of 3.x, where the version does not matter."""
    return _drilling(3, _drillables, tmp_path_factory, tsdb_blocks, tmp_path)


@pytest.fixture
def patient(
    start_prometheus: PrometheusFleet,
    prometheus_binaries: PrometheusBinaries,
    data_dir: Path,
    repository_files: LocalFiles,
) -> Patient:
    """A data directory of four blocks for Prometheus 2.x and 3.x, and two backups of it."""
    return Patient(start_prometheus, prometheus_binaries, data_dir, repository_files.root)


@pytest.fixture(scope="session")
def sound_samples(
    tmp_path_factory: pytest.TempPathFactory,
    prometheus_3: PrometheusBinaries,
    tsdb_blocks: Path,
    tsdb_block_spec: BlockSpec,
) -> list[Any]:
    """What a Prometheus answers of the blocks of a patient while they are sound."""
    folder = tmp_path_factory.mktemp("sound") / "data"
    return samples_of(folder, prometheus_3, tsdb_blocks, tsdb_block_spec)
