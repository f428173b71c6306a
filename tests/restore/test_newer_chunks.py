"""Blocks with chunks that the target's Prometheus cannot read are left out."""

import json
import shutil
import subprocess
from datetime import UTC, datetime
from pathlib import Path

import pytest

from devtools.fetch_prometheus import PrometheusBinaries
from devtools.prometheus import PrometheusFleet, PrometheusOptions
from prometheus_backup.model import Level
from prometheus_backup.stores.local import LocalStore
from tests.support.newer_blocks import MIXED, XOR2
from tests.support.runs import options, take_backup
from tests.support.serving import ServingPrometheus
from tests.support.stored_backups import LocalFiles, json_of, manifest_of, run_here

QUIET = PrometheusOptions(scrape_interval=None, retention="100y")
MIXED_NEEDS = (
    "has float-histogram-st, histogram-st and xor2 chunks, which Prometheus can read since 3.14"
)
ALL = '{__name__=~".+"}'
INSIDE_XOR2 = datetime(2026, 11, 28, 3, 32, 59, tzinfo=UTC)


@pytest.fixture
def newer(
    start_prometheus: PrometheusFleet,
    prometheus_3: PrometheusBinaries,
    tsdb_blocks: Path,
    tmp_path: Path,
) -> LocalFiles:
    """A repository with one backup of four old blocks, one of 3.12 and one of 3.14."""
    data, root = tmp_path / "source", tmp_path / "newer-repository"
    shutil.copytree(tsdb_blocks, data)
    for block in (XOR2, MIXED):
        shutil.copytree(block, data / block.name)
    root.mkdir()
    server = start_prometheus(prometheus_3, data, QUIET)
    take_backup(server, LocalStore(root), options(verify=Level.TSDB, skip_head=True))
    server.kill()
    return LocalFiles(root)


def restore(
    files: LocalFiles, target: Path, *more: str, url: str = "http://127.0.0.1:9"
) -> subprocess.CompletedProcess[str]:
    env = files.environment() | {"PROMETHEUS_URL": url}
    return run_here("restore", "latest", str(target), "--wait=90", *more, env=env)


def make_old(files: LocalFiles, version: str) -> None:
    """Make the backup one of this Prometheus, by a program that did not record encodings."""
    (backup,) = [p.name for p in files.root.iterdir() if p.name.startswith("backup-")]
    document = manifest_of(files, backup)
    for block in document["blocks"]:
        block.pop("encodings", None)
    document["prometheus"]["version"] = version
    files.put(f"{backup}/metadata.json", json.dumps(document).encode())


def test_a_running_prometheus_gets_only_the_blocks_that_it_can_read(
    newer: LocalFiles,
    start_prometheus: PrometheusFleet,
    prometheus_3: PrometheusBinaries,
    tmp_path: Path,
) -> None:
    (target := tmp_path / "target").mkdir()
    server = start_prometheus(prometheus_3, target, QUIET)

    done = restore(newer, target, "--merge", "--json", url=server.url)

    value = json_of(done, code=3)
    assert len(value["place"]) == 4
    reasons = {b["ulid"]: (b["standing"], b["reason"]) for b in value["skipped"]}
    version = server.get("status/buildinfo")["version"]
    xor2 = f"it has xor2 chunks, which Prometheus can read since 3.11, and this is {version}"
    mixed = f"it {MIXED_NEEDS}, and this is {version}"
    assert reasons == {XOR2.name: ("newer-chunks", xor2), MIXED.name: ("newer-chunks", mixed)}
    assert server.query(ALL, INSIDE_XOR2) == []

    # Without the rule, queries fail.
    shutil.copytree(XOR2, target / XOR2.name)
    server.restart()
    with pytest.raises(RuntimeError, match="invalid chunk encoding"):
        server.query(ALL, INSIDE_XOR2)


@pytest.mark.parametrize(
    ("version", "more", "left_out"),
    [
        ("2.42.0", (), {XOR2.name, MIXED.name}),
        ("3.10.0", (), {XOR2.name, MIXED.name}),
        ("3.12.0", (), {MIXED.name}),
        ("3.14.0", (), set()),
        ("3.5.3", ("--target-version=3.14.0",), set()),
        ("3.14.0", ("--target-version=3.13",), {MIXED.name}),
    ],
)
def test_the_version_of_the_target_decides(
    newer: LocalFiles, tmp_path: Path, version: str, more: tuple[str, ...], left_out: set[str]
) -> None:
    (target := tmp_path / "target").mkdir()
    (target / "wal").mkdir()
    with ServingPrometheus(target, version=version, retention="100y") as server:
        done = restore(newer, target, "--merge", "--dry-run", "--json", *more, url=server.url)

    value = json_of(done, code=3 if left_out else 0)
    assert {b["ulid"] for b in value["skipped"]} == left_out
    assert value["needs_version"] is None


def test_without_a_known_version_all_is_restored_with_a_warning(
    newer: LocalFiles, tmp_path: Path
) -> None:
    value = json_of(restore(newer, tmp_path / "target", "--dry-run", "--json"))
    assert value["needs_version"] == "3.14"
    warning = f"this backup {MIXED_NEEDS}: use no older Prometheus on the target"
    assert warning in value["warnings"]

    done = restore(newer, tmp_path / "target")
    assert done.returncode == 0
    assert warning in done.stderr

    done = restore(newer, tmp_path / "other", "--target-version=3.5.3")
    assert done.returncode == 3
    assert not (tmp_path / "other" / XOR2.name).exists()


@pytest.mark.parametrize(
    ("source", "target", "warned"),
    [("3.12.0", "3.5.3", True), ("3.12.0", "3.12.0", False), ("3.10.0", "3.5.3", False)],
)
def test_an_old_backup_does_not_say_what_it_has_so_a_warning_does(
    newer: LocalFiles, tmp_path: Path, source: str, target: str, warned: bool
) -> None:
    make_old(newer, source)
    done = restore(newer, tmp_path / "target", "--dry-run", "--json", f"--target-version={target}")
    warnings = json_of(done)["warnings"]
    assert any("does not say how its chunks are encoded" in w for w in warnings) is warned


def test_a_version_that_is_none_is_refused(newer: LocalFiles, tmp_path: Path) -> None:
    done = restore(newer, tmp_path / "target", "--target-version=newest")
    assert done.returncode == 2
    assert "cannot use --target-version 'newest': it is not a version" in done.stderr
