"""A backup goes only into the repository of its own source."""

import json
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from devtools.fetch_prometheus import PrometheusBinaries
from devtools.prometheus import PrometheusFleet, PrometheusOptions, PrometheusServer
from tests.support.runs import cli, settings
from tests.support.stored_backups import LocalFiles, json_of, manifest_of, put_small_backup


@pytest.fixture
def quiet(
    start_prometheus: PrometheusFleet, prometheus_3: PrometheusBinaries, data_dir: Path
) -> PrometheusServer:
    """A Prometheus with four old blocks and an empty head."""
    return start_prometheus(prometheus_3, data_dir, PrometheusOptions(scrape_interval=None))


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    folder = tmp_path / "repository"
    folder.mkdir()
    return folder


def test_an_empty_repository_that_had_backups_is_refused(
    quiet: PrometheusServer, repository: Path
) -> None:
    """As if its volume were not mounted: the backup would fill the disk below it."""
    env = settings(quiet, repository, SKIP_HEAD="true")
    first = json_of(cli("backup", "--json", env=env))["backup_id"]
    shutil.rmtree(repository)
    repository.mkdir()

    again = cli("backup", env=env)
    checked = cli("check", env=env)

    assert again.returncode == 10
    assert f"it is empty, but {first} was made in it" in again.stderr
    assert "is its volume mounted?" in again.stderr
    assert list(repository.iterdir()) == []
    assert list((quiet.data_dir / "snapshots").iterdir()) == []
    assert checked.returncode == 10
    assert f"it is empty, but {first} was made in it" in checked.stdout + checked.stderr

    assert cli("backup", "--new-repository", env=env).returncode == 0
    assert cli("backup", env=env).returncode == 0


def test_another_repository_may_be_empty(quiet: PrometheusServer, repository: Path) -> None:
    assert cli("backup", env=settings(quiet, repository, SKIP_HEAD="true")).returncode == 0
    other = repository.with_name("other")
    other.mkdir()

    assert cli("backup", env=settings(quiet, other, SKIP_HEAD="true")).returncode == 0


@pytest.mark.parametrize("text", ["", "[]", "{", "[" * 100_000, '{"file:///x": 5}'])
def test_a_damaged_note_of_repositories_stops_no_backup(
    quiet: PrometheusServer, repository: Path, text: str
) -> None:
    note = quiet.data_dir / ".prometheus-backup" / "repositories.json"
    note.parent.mkdir()
    note.write_text(text)

    assert cli("backup", env=settings(quiet, repository, SKIP_HEAD="true")).returncode == 0
    assert [*json.loads(note.read_text())] == [f"file://{repository}"]


def backup_of_another_host(files: LocalFiles) -> str:
    identifier = put_small_backup(files, datetime.now(UTC) - timedelta(days=1))
    manifest = manifest_of(files, identifier)
    manifest["prometheus"]["hostname"] = "elsewhere"
    manifest["labels"] = {}
    files.put(f"{identifier}/metadata.json", json.dumps(manifest).encode())
    return identifier


def test_a_source_without_labels_is_told_apart_by_its_host_and_blocks(
    quiet: PrometheusServer, repository: Path
) -> None:
    other = backup_of_another_host(LocalFiles(repository))
    env = settings(quiet, repository, SKIP_HEAD="true")

    done = cli("backup", env=env)

    assert done.returncode == 2
    assert f"its newest backup, {other}, is of the Prometheus on elsewhere" in done.stderr
    assert "S3_PREFIX" in done.stderr


def test_a_source_that_moved_to_another_host_goes_on(
    quiet: PrometheusServer, repository: Path
) -> None:
    env = settings(quiet, repository, SKIP_HEAD="true")
    first = json_of(cli("backup", "--json", env=env))["backup_id"]
    files = LocalFiles(repository)
    manifest = manifest_of(files, first)
    manifest["prometheus"]["hostname"] = "elsewhere"
    files.put(f"{first}/metadata.json", json.dumps(manifest).encode())

    assert cli("backup", env=env).returncode == 0
