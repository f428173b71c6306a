"""Drills with a Prometheus that is older than the source, or that needs the source's settings."""

import shutil
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from devtools.fetch_prometheus import PrometheusBinaries
from devtools.prometheus import PrometheusOptions, PrometheusServer
from prometheus_backup.model import Level
from prometheus_backup.stores.local import LocalStore
from tests.support.drills import HEAD_SUM, Drilling
from tests.support.newer_blocks import XOR2
from tests.support.runs import options, take_backup
from tests.support.stored_backups import LocalFiles

STEPS = "count_over_time(sum(devtools_head)[10m:])"
"""Depends on the evaluation interval."""
NAMES = 'label_replace(-devtools_head, "was", "$1", "__name__", "(.*)")'
"""Keeps the name with promql-delayed-name-removal only."""


def drilling_of(
    directory: Path,
    binaries: PrometheusBinaries,
    data: Path,
    chosen: PrometheusOptions,
    *queries: str,
) -> Drilling:
    """Return a drill of a backup of a Prometheus with these options."""
    root = directory / "repository"
    root.mkdir()
    with PrometheusServer(binaries, data, chosen) as server:
        server.fill_head()
        how = options(fingerprints=queries, verify=Level.TSDB)
        backup = take_backup(server, LocalStore(root), how).manifest.backup_id
        server.kill()
    return Drilling(LocalFiles(root), backup, binaries, directory / "scratch")


@pytest.fixture
def unusual(tmp_path: Path, data_dir: Path, prometheus_binaries: PrometheusBinaries) -> Drilling:
    """A backup of a Prometheus with an evaluation interval and, in 3.x, a feature of its own."""
    feature = "promql-delayed-name-removal,auto-gomaxprocs"
    chosen = PrometheusOptions(
        scrape_interval=None,
        config="  evaluation_interval: 15s",  # continues the global section
        extra_flags=(f"--enable-feature={feature}",),
    )
    return drilling_of(tmp_path, prometheus_binaries, data_dir, chosen, HEAD_SUM, STEPS, NAMES)


@pytest.fixture
def newer(tmp_path: Path, data_dir: Path, prometheus_3: PrometheusBinaries) -> Drilling:
    """A backup with a block that a 3.5 cannot read; its fingerprints do not read that block."""
    shutil.copytree(XOR2, data_dir / XOR2.name)
    quiet = PrometheusOptions(scrape_interval=None)
    return drilling_of(tmp_path, prometheus_3, data_dir, quiet, HEAD_SUM)


def verdicts(value: dict[str, Any]) -> dict[str, str]:
    return {f["query"]: f["verdict"] for f in value["fingerprints"]}


def test_a_drill_evaluates_queries_with_the_settings_of_the_source(unusual: Drilling) -> None:
    value = unusual.result()
    assert verdicts(value) == dict.fromkeys((HEAD_SUM, STEPS, NAMES), "pass")

    def without(document: dict[str, Any]) -> None:
        del document["prometheus"]["features"]
        del document["prometheus"]["evaluation_interval"]

    unusual.change_manifest(without)
    value = unusual.result(code=41)
    knows = unusual.binaries.major == 3
    names = "fail" if knows else "pass"
    assert verdicts(value) == {HEAD_SUM: "pass", STEPS: "fail", NAMES: names}


def test_a_difference_under_a_prometheus_without_a_feature_of_the_source_is_inconclusive(
    unusual: Drilling,
) -> None:
    def change(document: dict[str, Any]) -> None:
        document["prometheus"]["features"].append("use-start-timestamps")
        document["fingerprints"][0]["answer"]["series"][0]["value"] = "1"

    unusual.change_manifest(change)
    value = unusual.result(code=3)
    assert value["findings"] == []
    (detail,) = [f["detail"] for f in value["fingerprints"] if f["verdict"] == "inconclusive"]
    assert "use-start-timestamps" in detail
    assert "which Prometheus" in detail


def test_a_prometheus_that_cannot_read_a_block_ends_the_drill_before_the_download(
    newer: Drilling,
) -> None:
    value = newer.result(code=3)
    assert (value["verdict"], value["findings"], value["bytes_read"]) == ("inconclusive", [], 0)
    cause = "the backup has xor2 chunks, which Prometheus can read since 3.11: the drill uses 3.5"
    assert value["cause"].startswith(cause)
    assert newer.recorded()["verdict"] == "inconclusive"


@pytest.mark.parametrize("encodings", [None, {"xor": None, "xor2": None}])
def test_a_query_that_fails_on_a_newer_chunk_is_no_failure_of_the_backup(
    newer: Drilling, encodings: dict[str, None] | None
) -> None:
    query = '{__name__=~".+"}'
    inside = datetime(2026, 11, 28, 3, 32, 59, tzinfo=UTC)

    def change(document: dict[str, Any]) -> None:
        for block in document["blocks"]:
            del block["encodings"]
            if block["ulid"] == XOR2.name and encodings is not None:
                block["encodings"] = encodings
        (fingerprint,) = document["fingerprints"]
        fingerprint |= {"query": query, "at": inside.isoformat()}

    newer.change_manifest(change)
    value = newer.result(code=3)
    assert value["findings"] == []
    assert verdicts(value) == {query: "inconclusive"}
    (fingerprint,) = value["fingerprints"]
    assert "invalid chunk encoding" in fingerprint["detail"]
