"""A repository on a volume that has no room for two copies of what a killed run left."""

import contextlib
import json
import shutil
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from devtools.blocks import BlockSpec, write_openmetrics_blocks
from devtools.fetch_prometheus import PrometheusBinaries
from devtools.prometheus import PrometheusFleet, PrometheusOptions, PrometheusServer
from prometheus_backup.repository.manifest import Incomplete, decode
from tests.support.contents import CLEAN, traces, tree
from tests.support.repositories import require_no_extra_objects, require_whole, visible
from tests.support.runs import cli, settings
from tests.support.serving import ServingPrometheus
from tests.support.started_cli import StartedCli
from tests.support.stored_backups import json_of, run_here
from tests.support.waiting import wait_until

LARGE = BlockSpec(blocks=5, series=800)
EARLIER = datetime(2025, 1, 22, tzinfo=UTC)
HEAD_BLOCK = "01JZZZZZZZZZZZZZZZZZZZZZZZ/chunks/000001"


@pytest.fixture(scope="module")
def large_blocks(
    tmp_path_factory: pytest.TempPathFactory, prometheus_3: PrometheusBinaries
) -> Path:
    """Some megabytes of old blocks."""
    directory = tmp_path_factory.mktemp("large") / "data"
    write_openmetrics_blocks(directory, prometheus_3.promtool, LARGE)
    return directory


@pytest.fixture
def source(
    start_prometheus: PrometheusFleet,
    prometheus_3: PrometheusBinaries,
    large_blocks: Path,
    tmp_path: Path,
) -> PrometheusServer:
    """A Prometheus with these blocks."""
    data = tmp_path / "data"
    shutil.copytree(large_blocks, data)
    return start_prometheus(prometheus_3, data, PrometheusOptions(scrape_interval=None))


@pytest.fixture
def volume(source: PrometheusServer, tmp_path: Path) -> Iterator[Path]:
    """A file system with room for one and a third backups."""
    (path := tmp_path / "volume").mkdir()
    size = used(source.data_dir) * 4 // 3
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(path)], check=True)
    yield path
    subprocess.run(["umount", str(path)], check=True)


def used(folder: Path) -> int:
    """The bytes of all files, which may come and go meanwhile."""
    total = 0
    for path in folder.rglob("*"):
        with contextlib.suppress(FileNotFoundError):
            total += path.stat().st_size
    return total


def kill_a_run(
    source: PrometheusServer, repository: Path, directory: Path, layout: str = "full"
) -> str:
    """Kill a run that has recorded more than half of its bytes as stored; return its backup id."""
    size = used(source.data_dir)
    speed = {"CONCURRENCY": "1", "MAX_BANDWIDTH": f"{size // 14000}kB/s"}  # it records every 5 s
    env = settings(source, repository, SKIP_HEAD="true", LAYOUT=layout, **speed)
    with StartedCli("backup", env=env, directory=directory) as run:
        wait_until(lambda: recorded(repository) > size // 2, deadline=120)
        run.kill()
        assert run.end().code == -9, run.log()
    (claim,) = claims(repository)
    return claim.stem if layout == "archive" else claim.parent.name


def claims(repository: Path) -> list[Path]:
    """The claims of runs in both layouts."""
    return [*repository.glob("backup-*/incomplete.json"), *repository.glob("archive/claims/*.json")]


def recorded(repository: Path) -> int:
    """The bytes of the files that the incomplete run says it has stored."""
    for path in claims(repository):
        document = decode(Incomplete, path.read_bytes())
        return sum(f.size for f in document.finished) if document else 0
    return 0


def fill(folder: Path) -> None:
    """Use all room that is left, as the head block of the killed run would, which never returns."""
    path = folder / HEAD_BLOCK
    path.parent.mkdir(parents=True)
    with contextlib.suppress(OSError), path.open("wb", buffering=0) as file:
        while True:
            file.write(b"0" * 4096)


@pytest.mark.parametrize("full", [False, True], ids=["room for a third", "full to the last byte"])
@pytest.mark.parametrize("layout", ["full", "archive"])
def test_the_night_after_a_kill_succeeds_on_a_volume_without_room_for_two_copies(
    source: PrometheusServer, volume: Path, tmp_path: Path, layout: str, full: bool
) -> None:
    repository = volume / "repository"
    repository.mkdir()
    dead = kill_a_run(source, repository, tmp_path / "killed", layout)
    if full:
        head = HEAD_BLOCK.partition("/")[0]
        fill(repository / "archive" / head / dead if layout == "archive" else repository / dead)

    env = settings(source, repository, SKIP_HEAD="true", LAYOUT=layout)
    value = json_of(cli("backup", "--json", env=env))

    contents = tree(repository)
    require_whole(contents)
    if layout == "full":
        require_no_extra_objects(contents)
    assert set(visible(contents)) == {value["backup_id"]}
    assert not [key for key in contents if dead in key]
    assert traces(source.data_dir) == CLEAN
    copied = value["totals"]["copied_bytes"]
    assert (copied == 0) is full, "what a killed run left is used if there is room to begin"


def test_a_volume_that_is_too_small_is_said_every_night_and_not_filled_any_further(
    source: PrometheusServer, volume: Path
) -> None:
    repository = volume / "repository"
    repository.mkdir()
    (volume / "other").write_bytes(b"0" * (used(source.data_dir) // 2))

    for _ in range(3):
        done = cli("backup", env=settings(source, repository, SKIP_HEAD="true"))
        assert done.returncode == 13
        assert "No space left on device" in done.stderr
        assert "prometheus-backup prune" in done.stderr
        assert len(list(repository.glob("backup-*/0*"))) <= LARGE.blocks * 2

    (volume / "other").unlink()
    done = cli("backup", "--json", env=settings(source, repository, SKIP_HEAD="true"))
    json_of(done)
    require_no_extra_objects(tree(repository))


@pytest.mark.parametrize("limit", ["size=1m", "nr_inodes=8"])
def test_check_tells_of_a_volume_without_room_or_inodes(tmp_path: Path, limit: str) -> None:
    (path := tmp_path / "volume").mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", limit, "tmpfs", str(path)], check=True)
    try:
        for name in ("repository", "data"):
            (path / name).mkdir()
        with contextlib.suppress(OSError):
            for number in range(8):
                with (path / f"fill-{number}").open("wb", buffering=0) as file:
                    file.write(b"0" * (1024 * 1024 if "size" in limit else 1))
        with ServingPrometheus(path / "data", version="3.5.3", head_from=EARLIER) as server:
            env = {
                "REPOSITORY": f"file://{path}/repository",
                "PROMETHEUS_URL": server.url,
                "PROMETHEUS_DATA_DIR": str(path / "data"),
            }
            done = run_here("check", "--json", env=env)
    finally:
        subprocess.run(["umount", str(path)], check=True)

    failed = {c["subject"]: c for c in json.loads(done.stdout)["checks"] if not c["ok"]}
    assert "No space left on device" in failed["repository: write"]["detail"]
    room = failed["data directory: room for the head block"]
    assert ("no free inodes" in room["detail"]) is ("inodes" in limit)
    assert room["fix"]
    assert done.returncode == 22
