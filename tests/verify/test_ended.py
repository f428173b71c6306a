"""Verification in parts that is killed, stopped or run twice at once: real processes."""

import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from devtools.s3 import S3Bucket
from tests.support.s3_proxy import S3Proxy, S3Request
from tests.support.started_cli import StartedCli
from tests.support.stored_backups import S3Files, StoredBackups, block_keys, json_of, run_here


@pytest.fixture
def proxy(bucket: S3Bucket) -> Iterator[S3Proxy]:
    with S3Proxy(bucket.endpoint.url) as before:
        yield before


class Halt:
    """A gate that blocks every read of a block file of one backup, and records when it does."""

    def __init__(self, backup: str) -> None:
        self._backup = backup
        self.reached = threading.Event()
        self.open = threading.Event()

    def __call__(self, request: S3Request) -> bool:
        if request.method == "GET" and f"/{self._backup}/0" in request.path:
            self.reached.set()
            self.open.wait(60)
        return True


def through(files: S3Files, proxy: S3Proxy) -> dict[str, str]:
    return files.environment() | {"AWS_ENDPOINT_URL": proxy.url}


def turn(files: S3Files, *arguments: str, parts: int, code: int = 0) -> list[tuple[str, int]]:
    """Verify the due part of all backups; return (backup, part) in order."""
    command = ("verify", "--all", "--subset", f"next/{parts}", *arguments, "--json")
    done = run_here(*command, env=files.environment())
    results: list[dict[str, Any]] = json_of(done, code=code)["results"]
    return [(r["backup_id"], r["rotation"]["part"]) for r in results]


def verified_at(files: S3Files) -> list[str | None]:
    """The level that each backup has passed."""
    backups = json_of(run_here("list", "--json", env=files.environment()))["backups"]
    return [backup["verified"]["at"] for backup in backups]


def test_a_run_that_is_killed_is_continued_by_the_next(
    files: S3Files, stored: StoredBackups, proxy: S3Proxy, tmp_path: Path
) -> None:
    halt = Halt(stored.second)
    proxy.begin(halt)
    arguments = ("verify", "--all", "--subset", "next/2")
    with StartedCli(*arguments, env=through(files, proxy), directory=tmp_path / "run") as run:
        assert halt.reached.wait(60), run.log()
        run.kill()
        run.end()
    halt.open.set()
    before = verified_at(files)

    # The first backup has its result. The second has waited longer, so it comes first now.
    assert turn(files, parts=2) == [(stored.second, 1), (stored.first, 2)]
    first, second = verified_at(files)
    assert first != before[0], "all of it has passed"
    assert second == before[1]
    assert turn(files, parts=2) == [(stored.second, 2), (stored.first, 1)]
    assert verified_at(files)[1] != before[1]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_run_at_level_tsdb_that_is_stopped_leaves_nothing_in_its_scratch_directory(
    files: S3Files, stored: StoredBackups, proxy: S3Proxy, tmp_path: Path, number: int, code: int
) -> None:
    scratch = tmp_path / "scratch"
    halt = Halt(stored.second)
    proxy.begin(halt)
    arguments = ("verify", "--all", "--level", "tsdb", "--scratch", str(scratch))
    with StartedCli(*arguments, env=through(files, proxy), directory=tmp_path / "run") as run:
        assert halt.reached.wait(60), run.log()
        assert any(scratch.rglob("*")), "it is at work"
        run.send(number)
        halt.open.set()
        ended = run.end()

    assert ended.code == code
    assert list(scratch.iterdir()) == []
    known = [k for k in files.all_keys() if k.endswith("verification-tsdb.json")]
    assert known == [f"{stored.first}/verification-tsdb.json"], "what was done counts"


def test_two_runs_at_once_find_every_fault_and_lose_none(
    files: S3Files, stored: StoredBackups, proxy: S3Proxy, tmp_path: Path
) -> None:
    """Both run at the same time; each backup has a fault in each of two parts."""
    bad = {}
    for backup in (stored.first, stored.second):
        keys = [k for k in block_keys(files, backup) if k.endswith("/index")]
        for key in keys[:3]:
            body = files.get(key)
            files.put(key, body[:-1] + bytes([body[-1] ^ 1]))
        bad[backup] = set(keys[:3])
    halt = Halt(stored.first)
    proxy.begin(halt)
    arguments = ("verify", "--all", "--subset")
    one = StartedCli(*arguments, "1/2", env=through(files, proxy), directory=tmp_path / "one")
    two = StartedCli(*arguments, "2/2", env=through(files, proxy), directory=tmp_path / "two")
    with one, two:
        assert halt.reached.wait(60)
        halt.open.set()
        codes = [one.end().code, two.end().code]

    shown = [
        json_of(run_here("show", backup, "--json", env=files.environment()))
        for backup in (stored.first, stored.second)
    ]
    for backup in shown:
        found = {f["key"] for v in backup["verifications"] for f in v["findings"]}
        assert found == bad[backup["backup_id"]]
        assert backup["good"] is False
    assert 41 in codes
    assert set(codes) <= {0, 41}
