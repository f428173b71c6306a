"""Merge into Prometheus servers of 3.8 to 3.14, whose retention may be in their configuration.

These versions are not in Debian: doubles answer as they do.
"""

import shutil
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.support.contents import live_blocks
from tests.support.serving import ServingPrometheus
from tests.support.stored_backups import LocalFiles, StoredBackups, json_of, run_here

FOR_EVER = "retention:\n  time: 100y"
A_DAY = "retention:\n  time: 1d"
TINY, LARGE = "percentage: 0.00000001", "percentage: 80"


@pytest.fixture
def missing(data_dir: Path) -> str:
    """Remove the second oldest block from the target; return its name."""
    name = sorted(live_blocks(data_dir), key=lambda b: b.name)[1].name
    shutil.rmtree(data_dir / name)
    return name


def merge(
    server: ServingPrometheus, files: LocalFiles, backup: str, target: Path, *more: str
) -> subprocess.CompletedProcess[str]:
    """Merge a backup into the directory that a server serves."""
    env = files.environment() | {"PROMETHEUS_URL": server.url}
    return run_here("restore", backup, str(target), "--merge", "--wait=60", *more, env=env)


@pytest.mark.parametrize(
    ("version", "tsdb", "flag", "keeps"),
    [
        ("3.8.1", FOR_EVER, "15d", True),
        ("3.10.0", FOR_EVER, "15d", True),
        ("3.14.0", FOR_EVER, "15d", True),
        ("3.8.1", A_DAY, "100y", False),
        ("3.14.0", A_DAY, "100y", False),
        ("3.10.0", "retention:\n  size: 1TiB", "1d", False),
        ("3.11.0", "retention:\n  size: 1TiB", "1d", True),
        ("3.11.0", f"retention:\n  {LARGE}", "1d", True),
        ("3.14.0", f"retention:\n  {TINY}", "100y", False),
        ("3.14.0", f"retention:\n  size: 1TiB\n  {TINY}", "100y", False),
        ("3.14.0", f"retention:\n  size: 1KiB\n  {LARGE}", "1d", True),
        ("3.14.0", f"out_of_order_time_window: 1h\nretention:\n  time: 1d\n  {LARGE}", "1d", False),
    ],
)
def test_the_retention_that_counts_decides_whether_a_merge_is_refused(
    data_dir: Path,
    missing: str,
    repository_files: LocalFiles,
    stored: StoredBackups,
    version: str,
    tsdb: str,
    flag: str,
    keeps: bool,
) -> None:
    with ServingPrometheus(data_dir, version=version, tsdb=tsdb, retention=flag) as server:
        done = merge(server, repository_files, stored.second, data_dir)

    assert done.returncode == (0 if keeps else 32), done.stderr
    assert (data_dir / missing).exists() is keeps
    if not keeps:
        assert "under storage.tsdb.retention in its configuration file" in done.stderr
        assert ("instead of a percentage" in done.stderr) is (TINY in tsdb or LARGE in tsdb)


@pytest.mark.parametrize("more", [(), ("--dry-run",)])
def test_a_retention_that_cannot_be_computed_is_refused(
    data_dir: Path,
    missing: str,
    repository_files: LocalFiles,
    stored: StoredBackups,
    more: tuple[str, ...],
) -> None:
    tsdb = "retention:\n  time: 100y\n  percentage: 1e-07"
    with ServingPrometheus(data_dir, version="3.14.0", tsdb=tsdb) as server:
        refused = merge(server, repository_files, stored.second, data_dir, *more)
        assert not (data_dir / missing).exists()
        told = ("--target-retention=100y", *more)
        accepted = merge(server, repository_files, stored.second, data_dir, *told)

    assert refused.returncode == 32
    assert "is unknown ('1e-07%')" in refused.stderr
    assert "--target-retention" in refused.stderr
    assert accepted.returncode == 0, accepted.stderr


def test_the_percentage_of_the_source_is_computed_for_the_disk_of_a_stopped_target(
    data_dir: Path, missing: str, repository_files: LocalFiles, stored: StoredBackups
) -> None:
    command = ("restore", stored.second, str(data_dir), "--merge")
    env = repository_files.environment()
    tiny = run_here(*command, "--target-retention=100y,0.00000001%", env=env)
    assert tiny.returncode == 32
    assert not (data_dir / missing).exists()
    assert run_here(*command, "--target-retention=100y,80%", env=env).returncode == 0


def test_an_empty_head_leaves_no_block_out_however_long_prometheus_has_been_running(
    data_dir: Path, missing: str, repository_files: LocalFiles, stored: StoredBackups
) -> None:
    with ServingPrometheus(data_dir, version="3.14.0", tsdb=FOR_EVER) as server:
        done = merge(server, repository_files, stored.first, data_dir, "--json")
    document = json_of(done)
    assert len(document["place"]) == 2, "the missing one, and that of the head"
    assert document["skipped"] == []
    assert missing in {block["ulid"] for block in document["place"]}


def test_a_head_with_samples_leaves_out_what_ends_after_its_start(
    data_dir: Path, missing: str, repository_files: LocalFiles, stored: StoredBackups
) -> None:
    began = datetime.now(UTC) - timedelta(days=1)
    with ServingPrometheus(data_dir, version="3.14.0", tsdb=FOR_EVER, head_from=began) as server:
        document = json_of(
            merge(server, repository_files, stored.first, data_dir, "--json"), code=3
        )
    assert [block["ulid"] for block in document["place"]] == [missing]
    assert [block["standing"] for block in document["skipped"]] == ["in-memory"]


def test_a_restore_into_an_empty_directory_prints_both_forms_of_retention(
    repository_files: LocalFiles, stored: StoredBackups, tmp_path: Path
) -> None:
    command = ("restore", stored.second, str(tmp_path / "target"))
    done = run_here(*command, env=repository_files.environment())
    assert done.returncode == 0
    lines = done.stdout.splitlines()
    (flag,) = (line for line in lines if "--storage.tsdb.retention.time=" in line)
    (time,) = (line for line in lines if line.startswith("        time: "))
    assert flag.partition("=")[2] == time.partition(": ")[2]
    assert "In Prometheus 3.8 and newer, the configuration file counts" in done.stdout
