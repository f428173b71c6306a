"""Sources for the ops: one Prometheus where its version does not matter."""

from pathlib import Path

import pytest

from devtools.fetch_prometheus import PrometheusBinaries
from devtools.prometheus import PrometheusFleet, PrometheusServer


@pytest.fixture
def source(
    start_prometheus: PrometheusFleet, prometheus_3: PrometheusBinaries, data_dir: Path
) -> PrometheusServer:
    """A running 3.x with four old blocks and a head of the last half hour."""
    server = start_prometheus(prometheus_3, data_dir)
    server.fill_head()
    return server
