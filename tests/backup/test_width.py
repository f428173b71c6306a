"""How many files the real command line transfers at once: small ones, and large ones."""

import os
import re
import threading
from collections.abc import Mapping
from pathlib import Path

import pytest

from devtools.blocks import BlockSpec, write_openmetrics_blocks
from devtools.fetch_prometheus import PrometheusBinaries
from devtools.s3 import S3Bucket
from prometheus_backup.transfer import SMALL_FILE
from tests.support.runs import cli
from tests.support.s3_proxy import S3Proxy, S3Request

LARGE_WORKERS = min(2 * (os.cpu_count() or 1), 4)
BLOCK_FILE = re.compile(r"/[0-9A-Z]{26}/(meta\.json|tombstones|index|chunks/\d+)(\?|$)")


class Turnstile:
    """Holds requests for block files until `expected` of them wait, and a moment longer.

    After that, all pass. `most` is how many waited at once.
    """

    def __init__(self, expected: int, *, large_only: bool) -> None:
        self.most = 0
        self._expected = expected
        self._large_only = large_only
        self._waiting = 0
        self._open = False
        self._changed = threading.Condition()

    def __call__(self, request: S3Request) -> bool:
        found = BLOCK_FILE.search(request.path)
        if found and not (self._large_only and found[1] in ("meta.json", "tombstones")):
            self._wait()
        return True

    def _wait(self) -> None:
        with self._changed:
            if self._open:
                return
            self._waiting += 1
            self.most = max(self.most, self._waiting)
            self._changed.notify_all()
            self._changed.wait_for(
                lambda: self._open or self._waiting >= self._expected, timeout=30
            )
            self._changed.wait_for(lambda: self._open, timeout=0.3)
            self._open = True
            self._changed.notify_all()


@pytest.fixture(scope="module")
def small_blocks(
    tmp_path_factory: pytest.TempPathFactory, prometheus_2: PrometheusBinaries
) -> Path:
    """A data directory with 32 small files."""
    directory = tmp_path_factory.mktemp("small") / "data"
    spec = BlockSpec(blocks=8, series=2)
    write_openmetrics_blocks(directory, prometheus_2.promtool, spec)
    return directory


@pytest.fixture(scope="module")
def large_blocks(tmp_path_factory: pytest.TempPathFactory, small_blocks: Path) -> Path:
    """The same blocks, but with every index and chunk file of just over a mebibyte."""
    directory = tmp_path_factory.mktemp("large") / "data"
    for file in (f for f in small_blocks.rglob("*") if f.is_file()):
        copy = directory / file.relative_to(small_blocks)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(file.read_bytes())
        if file.name not in ("meta.json", "tombstones"):
            os.truncate(copy, SMALL_FILE)
    return directory


def observed(
    data: Path, bucket: S3Bucket, folder: Path, *, expected: int, env: Mapping[str, str]
) -> dict[str, int]:
    """Run each command through a proxy; return how many requests for files it made at once."""
    folder.mkdir()
    large_only = any((f.stat().st_size >= SMALL_FILE) for f in data.rglob("index"))
    commands = {
        "backup": ("backup",),
        "verify": ("verify", "latest"),
        "restore": ("restore", "latest", str(folder / "target"), "--ignore-retention"),
    }
    if not large_only:
        scratch = ("--scratch", str(folder / "scratch"))
        commands["verify blocks"] = ("verify", "latest", "--level", "tsdb", *scratch)
    most = {}
    with S3Proxy(bucket.endpoint.url) as proxy:
        variables = {
            **bucket.endpoint.environment(),
            "AWS_ENDPOINT_URL": proxy.url,
            "S3_BUCKET": bucket.name,
            "PROMETHEUS_DATA_DIR": str(data),
            "SNAPSHOT_MODE": "blocks",
            **env,
        }
        for name, command in commands.items():
            gate = Turnstile(expected, large_only=large_only)
            proxy.begin(gate)
            done = cli(*command, env=variables)
            assert done.returncode in (0, 3), done.stderr  # 3: no Prometheus answers
            most[name] = gate.most
        proxy.begin()
    return most


@pytest.mark.parametrize(
    ("env", "expected"), [({}, 16), ({"CONCURRENCY": "3"}, 3)], ids=["default", "CONCURRENCY"]
)
def test_small_files_are_transferred_16_at_once_or_as_many_as_concurrency_says(
    small_blocks: Path, s3_bucket: S3Bucket, tmp_path: Path, env: dict[str, str], expected: int
) -> None:
    most = observed(small_blocks, s3_bucket, tmp_path / "run", expected=expected, env=env)
    assert set(most.values()) == {expected}, most
    assert "verify blocks" in most


@pytest.mark.parametrize(
    ("env", "expected"),
    [({}, LARGE_WORKERS), ({"CONCURRENCY": "6"}, 6)],
    ids=["default", "CONCURRENCY"],
)
def test_large_files_are_transferred_by_the_workers_for_large_files_only(
    large_blocks: Path, s3_bucket: S3Bucket, tmp_path: Path, env: dict[str, str], expected: int
) -> None:
    most = observed(large_blocks, s3_bucket, tmp_path / "run", expected=expected, env=env)
    assert set(most.values()) == {expected}, most
