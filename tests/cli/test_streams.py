"""Output that nobody can read: the work is done all the same, and the exit code is the same."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import IO

import pytest

from devtools.fetch_prometheus import PrometheusBinaries
from devtools.prometheus import PrometheusFleet
from tests.support.contents import tree
from tests.support.damage import cut
from tests.support.runs import bare_environment, command, settings
from tests.support.stored_backups import LocalFiles, StoredBackups, block_keys

Streams = tuple[int | IO[bytes], int | IO[bytes]]
Lost = Callable[[], AbstractContextManager[Streams]]


@contextmanager
def reader_left() -> Iterator[Streams]:
    """A pipe for both streams without a reader, such as `2>&1 | head -0`."""
    read_end, write_end = os.pipe()
    os.close(read_end)
    try:
        yield write_end, write_end
    finally:
        os.close(write_end)


@contextmanager
def full_disk() -> Iterator[Streams]:
    with Path("/dev/full").open("wb") as full:
        yield full, full


LOST = pytest.mark.parametrize("lost", [reader_left, full_disk])


def run_without_reader(lost: Lost, *arguments: str, env: Mapping[str, str]) -> int:
    with lost() as (stdout, stderr):
        return subprocess.run(
            command(*arguments),
            env=bare_environment(env),
            stdout=stdout,
            stderr=stderr,
            timeout=120,
            check=False,
        ).returncode


@LOST
def test_a_backup_is_made_without_a_reader(
    start_prometheus: PrometheusFleet,
    prometheus_3: PrometheusBinaries,
    data_dir: Path,
    tmp_path: Path,
    lost: Lost,
) -> None:
    server = start_prometheus(prometheus_3, data_dir)
    repository = tmp_path / "repository"
    repository.mkdir()

    code = run_without_reader(lost, "backup", "--log-level=debug", env=settings(server, repository))

    assert code == 0
    (backup,) = repository.glob("backup-*")
    assert (backup / "metadata.json").exists()
    assert not (backup / "incomplete.json").exists()
    assert list((data_dir / "snapshots").iterdir()) == []


@LOST
def test_a_restore_is_completed_without_a_reader(
    repository_files: LocalFiles,
    stored: StoredBackups,
    tmp_path: Path,
    lost: Lost,
) -> None:
    target = tmp_path / "target"

    code = run_without_reader(
        lost, "restore", stored.first, str(target), env=repository_files.environment()
    )

    assert code == 0
    keys = block_keys(repository_files, stored.first)
    assert set(tree(target)) == {key.partition("/")[2] for key in keys}


@LOST
def test_a_verification_finds_faults_without_a_reader(
    repository_files: LocalFiles,
    stored: StoredBackups,
    lost: Lost,
) -> None:
    """All backups are verified, and each has its result recorded."""
    repository_files.delete(block_keys(repository_files, stored.second)[0])

    code = run_without_reader(lost, "verify", "--all", env=repository_files.environment())

    assert code == 41
    for backup in (stored.first, stored.second):
        assert (repository_files.root / backup / "verification-checksum.json").exists()


@LOST
def test_bad_blocks_are_healed_without_a_reader(
    repository_files: LocalFiles,
    data_dir: Path,
    lost: Lost,
) -> None:
    sound = tree(data_dir)
    cut(min(data_dir.glob("01*/index")), 100)

    code = run_without_reader(
        lost,
        "heal",
        str(data_dir),
        "--apply",
        "--prometheus-url=http://127.0.0.1:9",
        env=repository_files.environment(),
    )

    assert code == 0
    healed = {p: body for p, body in tree(data_dir).items() if not p.startswith(".prometheus")}
    assert healed == sound


def test_a_result_that_could_not_be_written_is_reported(
    repository_files: LocalFiles,
) -> None:
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            command("list"),
            env=bare_environment(repository_files.environment()),
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            timeout=60,
            check=False,
        )

    assert done.returncode == 0
    assert "cannot write to standard output: No space left on device" in done.stderr


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-", "<&- >&- 2>&-"])
def test_closed_standard_files_do_no_harm(
    repository_files: LocalFiles, stored: StoredBackups, tmp_path: Path, closed: str
) -> None:
    """No file that is restored gets the number of a closed one, which libraries write to."""
    done = subprocess.run(
        [
            "sh",
            "-c",
            f'exec "$@" {closed}',
            "sh",
            *command("restore", stored.first, str(tmp_path / "target")),
        ],
        env=bare_environment(repository_files.environment()),
        timeout=60,
        check=False,
    )

    assert done.returncode == 0
    for key in block_keys(repository_files, stored.first):
        assert (tmp_path / "target" / key.partition("/")[2]).read_bytes() == repository_files.get(
            key
        )


def test_characters_that_the_encoding_lacks_are_escaped(repository_files: LocalFiles) -> None:
    env = repository_files.environment() | {"PYTHONIOENCODING": "ascii"}
    done = subprocess.run(
        command("show", "caf\u00e9"),
        env=bare_environment(env),
        capture_output=True,
        timeout=60,
        check=False,
    )

    assert done.returncode == 30
    assert b"caf\\xe9" in done.stderr
    assert b"Traceback" not in done.stderr


INTERRUPT_DURING_IMPORT = """
import os, signal, sys

class Interrupter:
    def find_spec(self, name, path=None, target=None):
        if name == {module!r}:
            os.kill(os.getpid(), signal.SIGINT)

sys.meta_path.insert(0, Interrupter())
sys.argv[1:] = ["list"]
from prometheus_backup.__main__ import main
main()
"""


@pytest.mark.parametrize(
    "module", ["click", "prometheus_backup.cli.output", "prometheus_backup.repository.repository"]
)
def test_ctrl_c_during_the_imports_shows_no_traceback(
    repository_files: LocalFiles, module: str
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", INTERRUPT_DURING_IMPORT.format(module=module)],
        env=bare_environment(repository_files.environment()),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert done.returncode in (-signal.SIGINT, 130)
    assert "Traceback" not in done.stderr
