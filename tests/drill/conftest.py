"""Backups to drill, one made by each major version of Prometheus."""

import shutil
from pathlib import Path

import pytest

from devtools import fetch_prometheus
from tests.support.drills import Drillable, Drilling, make_drillable
from tests.support.stored_backups import LocalFiles


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
    """A backup of 3.x, for tests that do not depend on the version."""
    return _drilling(3, _drillables, tmp_path_factory, tsdb_blocks, tmp_path)
