"""Drills that cannot be completed: stopped, killed, concurrent, without space or Prometheus."""

import os
import re
import signal
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from prometheus_backup.drill.run import Drill
from prometheus_backup.errors import BackupNotFound, RepositoryUnavailable
from prometheus_backup.events import ignore
from prometheus_backup.model import Outcome, Verdict
from prometheus_backup.prometheus.process import PrometheusBinary
from prometheus_backup.repository.repository import Repository
from prometheus_backup.stores.local import LocalStore
from tests.support.drills import Drilling, never_ready, program, servers
from tests.support.runs import FakeClock, transfer
from tests.support.started_cli import StartedCli
from tests.support.store_wrappers import ReadRecorder
from tests.support.waiting import wait_until

FOLDER = "prometheus-backup-drill"


def started(drilling: Drilling, directory: Path) -> StartedCli:
    """Start a drill that waits until its Prometheus is ready."""
    env = drilling.environment(PROMETHEUS_BINARY=never_ready(drilling, directory))
    return StartedCli("drill", drilling.backup, env=env, directory=directory / "drill")


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_stopped_drill_stops_prometheus_and_removes_restored_files(
    drilling_3: Drilling, tmp_path: Path, number: int, code: int
) -> None:
    with started(drilling_3, tmp_path) as drill:
        wait_until(lambda: len(servers(drilling_3.scratch)) == 1)
        assert list((drilling_3.scratch / FOLDER / "data").iterdir())
        drill.send(number)
        ended = drill.end()

    assert ended.code == code, ended.log
    assert servers(drilling_3.scratch) == []
    assert list(drilling_3.scratch.iterdir()) == []
    keys = drilling_3.files.all_keys()
    assert not [key for key in keys if key.endswith("verification-drill.json")]


def test_prometheus_ends_with_a_killed_drill_and_the_next_drill_removes_the_rest(
    drilling: Drilling, tmp_path: Path
) -> None:
    with started(drilling, tmp_path) as drill:
        wait_until(lambda: len(servers(drilling.scratch)) == 1)
        drill.kill()
        drill.end()
    wait_until(lambda: servers(drilling.scratch) == [])
    assert list((drilling.scratch / FOLDER / "data").iterdir()), "the killed drill left its files"

    done = drilling.run()

    assert done.returncode == 0, done.stderr
    assert "removing leftovers of a killed drill" in done.stderr


def test_a_second_drill_in_the_same_directory_is_exit_11(
    drilling_3: Drilling, tmp_path: Path
) -> None:
    with started(drilling_3, tmp_path) as drill:
        wait_until(lambda: len(servers(drilling_3.scratch)) == 1)
        restored = set((drilling_3.scratch / FOLDER / "data").iterdir())
        env = drilling_3.environment()
        with StartedCli("drill", "latest", env=env, directory=tmp_path / "second") as second:
            ended = second.end()
        assert ended.code == 11
        assert "another drill is running" in ended.log
        assert set((drilling_3.scratch / FOLDER / "data").iterdir()) >= restored
        assert len(servers(drilling_3.scratch)) == 1
        drill.send(signal.SIGTERM)
        drill.end()


def test_other_files_in_the_directory_are_not_removed(drilling_3: Drilling) -> None:
    drilling_3.scratch.mkdir()
    (drilling_3.scratch / "mine").write_text("mine")

    assert _run(drilling_3) == 0
    assert [p.name for p in drilling_3.scratch.iterdir()] == ["mine"]


def _run(drilling: Drilling) -> int:
    with StartedCli(
        "drill",
        drilling.backup,
        env=drilling.environment(),
        directory=drilling.scratch.with_name("output"),
    ) as drill:
        return drill.end().code


@pytest.mark.parametrize("kind", ["link", "file"])
def test_existing_link_or_file_is_not_used_as_scratch_folder(
    drilling_3: Drilling, tmp_path: Path, kind: str
) -> None:
    drilling_3.scratch.mkdir()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "precious").write_text("precious")
    if kind == "link":
        (drilling_3.scratch / FOLDER).symlink_to(tmp_path / "elsewhere")
    else:
        (drilling_3.scratch / FOLDER).write_text("a file")

    assert _run(drilling_3) == 33
    assert (tmp_path / "elsewhere" / "precious").read_text() == "precious"


def test_without_free_space_nothing_is_downloaded(drilling_3: Drilling) -> None:
    def huge(document: dict[str, Any]) -> None:
        document["blocks"][0]["files"][0]["size"] = 2**49

    drilling_3.change_manifest(huge)
    done = drilling_3.run()

    assert done.returncode == 33
    assert re.search(r"it needs [\d,]+ bytes, and [\d,]+ bytes are free", done.stderr)
    assert "--from" in done.stderr
    assert "restoring" not in done.stderr


@pytest.mark.parametrize(
    ("binary", "cause"),
    [
        ("no-such-prometheus", "not found in PATH"),
        ("/nonexistent/prometheus", "no such file"),
        (sys.executable, "cannot use"),
        ("/bin/true", "exit code 0"),
        ("/etc/passwd", "no such file"),
    ],
)
def test_without_a_prometheus_nothing_is_done(
    drilling_3: Drilling, binary: str, cause: str
) -> None:
    done = drilling_3.run(PROMETHEUS_BINARY=binary)

    assert done.returncode == 2
    assert cause in done.stderr
    assert "--prometheus-binary" in done.stderr
    assert not drilling_3.scratch.exists()


def test_prometheus_is_found_on_the_path(drilling_3: Drilling) -> None:
    path = f"{drilling_3.binaries.prometheus.parent}:{os.environ['PATH']}"
    assert drilling_3.run(PROMETHEUS_BINARY="prometheus", PATH=path).returncode == 0


def test_prometheus_that_exits_at_once_is_inconclusive_and_its_log_is_shown(
    drilling_3: Drilling, tmp_path: Path
) -> None:
    broken = program(
        tmp_path / "prometheus",
        "if sys.argv[1:] == ['--version']: sys.exit('prometheus, version 3.5.0')",
        "sys.exit('level=ERROR err=\"I cannot go on\"')",
    )
    value = drilling_3.result(code=3, PROMETHEUS_BINARY=broken)

    assert value["cause"].startswith("Prometheus exited with 1 before it was ready")
    assert "I cannot go on" in value["cause"]
    assert "I cannot go on" in value["log"][-1]
    assert value["findings"] == []
    assert {f["detail"] for f in value["fingerprints"]} == {"the drill did not get to it"}
    assert "ready for queries" not in drilling_3.run(PROMETHEUS_BINARY=broken).stdout


def test_prometheus_that_is_never_ready_is_inconclusive(
    drilling_3: Drilling, tmp_path: Path
) -> None:
    never = never_ready(drilling_3, tmp_path)
    for seconds in (1, 10, 60):  # until Prometheus has had time to log something
        value = drilling_3.result(f"--wait={seconds}s", code=3, PROMETHEUS_BINARY=never)
        assert value["cause"] == f"Prometheus was not ready within {seconds} s"
        if any("ready to receive web requests" in line for line in value["log"]):
            break
    else:
        pytest.fail("its log was not shown")
    assert servers(drilling_3.scratch) == []


def test_store_that_fails_during_a_drill_is_inconclusive_and_replaces_no_result(
    drilling_3: Drilling,
) -> None:
    drilling_3.result()
    before = drilling_3.recorded()

    def fail(key: str) -> None:
        if key.endswith("/index"):
            raise RepositoryUnavailable("the store has gone")

    store = ReadRecorder(LocalStore(drilling_3.files.root), before=fail)
    repository = Repository(store, clock=FakeClock())
    binary = PrometheusBinary.at(drilling_3.binaries.prometheus)
    wait = timedelta(minutes=1)
    job = Drill(repository, transfer(), binary, drilling_3.scratch, wait, ignore)
    report = job.run(repository.find(drilling_3.backup))

    assert (report.outcome, report.result.verdict) == (Outcome.PARTIAL, Verdict.INCONCLUSIVE)
    assert report.cause == "the store has gone"
    assert list(drilling_3.scratch.iterdir()) == []
    assert drilling_3.recorded() == before


def test_a_drill_of_a_backup_that_is_deleted_meanwhile_says_so_and_records_nothing(
    drilling_3: Drilling,
) -> None:
    files = LocalStore(drilling_3.files.root)

    def delete(key: str) -> None:
        if key.endswith("/index"):
            Repository(files, clock=FakeClock()).delete_backup(drilling_3.backup, run_id="other")

    repository = Repository(ReadRecorder(files, before=delete), clock=FakeClock())
    binary = PrometheusBinary.at(drilling_3.binaries.prometheus)
    wait = timedelta(minutes=1)
    job = Drill(repository, transfer(), binary, drilling_3.scratch, wait, ignore)
    with pytest.raises(BackupNotFound, match="it was deleted meanwhile"):
        job.run(repository.find(drilling_3.backup))
    assert list(files.list(drilling_3.backup)) == []
    assert list(drilling_3.scratch.iterdir()) == []


def test_range_that_ends_before_it_starts_is_a_usage_error(drilling_3: Drilling) -> None:
    done = drilling_3.run("--from=2025-01-02", "--to=2025-01-01")
    assert done.returncode == 2
    assert "--to is not after --from" in done.stderr
