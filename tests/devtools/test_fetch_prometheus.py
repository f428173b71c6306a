"""Finding Prometheus, which `make setup` has fetched."""

from pathlib import Path

import pytest

from devtools import fetch_prometheus
from devtools.fetch_prometheus import PrometheusBinaries, PrometheusMissingError


def test_both_major_versions_are_found(prometheus_binaries: PrometheusBinaries) -> None:
    assert prometheus_binaries.version.startswith(f"{prometheus_binaries.major}.")


def test_folder_with_another_version_is_refused(
    monkeypatch: pytest.MonkeyPatch, prometheus_2: PrometheusBinaries
) -> None:
    monkeypatch.setenv("PROMETHEUS_3_DIR", str(prometheus_2.prometheus.parent))
    with pytest.raises(PrometheusMissingError, match="cannot use PROMETHEUS_3_DIR"):
        fetch_prometheus.fetch(3)
    monkeypatch.setenv("PROMETHEUS_2_DIR", str(prometheus_2.prometheus.parent))
    assert fetch_prometheus.find(2) == prometheus_2


def test_error_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(fetch_prometheus, "TOOLS", tmp_path)
    monkeypatch.delenv("PROMETHEUS_2_DIR", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(PrometheusMissingError, match=r"make setup.*PROMETHEUS_2_DIR"):
        fetch_prometheus.find(2)
    with pytest.raises(PrometheusMissingError, match="apt-get is missing"):
        fetch_prometheus.fetch(2)
