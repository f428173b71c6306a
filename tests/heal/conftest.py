"""Data directories to heal."""

from pathlib import Path
from typing import Any

import pytest

from devtools.blocks import BlockSpec
from devtools.fetch_prometheus import PrometheusBinaries
from devtools.prometheus import PrometheusFleet
from tests.support.damaged_directory import DamagedDirectory, samples_of
from tests.support.stored_backups import LocalFiles


@pytest.fixture
def damaged(
    start_prometheus: PrometheusFleet,
    prometheus_binaries: PrometheusBinaries,
    data_dir: Path,
    repository_files: LocalFiles,
) -> DamagedDirectory:
    """A data directory of four blocks for Prometheus 2.x and 3.x, and two backups of it."""
    return DamagedDirectory(start_prometheus, prometheus_binaries, data_dir, repository_files.root)


@pytest.fixture(scope="session")
def sound_samples(
    tmp_path_factory: pytest.TempPathFactory,
    prometheus_3: PrometheusBinaries,
    tsdb_blocks: Path,
    tsdb_block_spec: BlockSpec,
) -> list[Any]:
    """The samples that a Prometheus serves from these blocks while they are sound."""
    folder = tmp_path_factory.mktemp("sound") / "data"
    return samples_of(folder, prometheus_3, tsdb_blocks, tsdb_block_spec)
