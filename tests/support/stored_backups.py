"""Repositories with real backups: created once, and copied for each test, which may damage them."""

import contextlib
import io
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol

from devtools.fetch_prometheus import PrometheusBinaries
from devtools.prometheus import PrometheusServer
from devtools.s3 import S3Bucket
from prometheus_backup.cli.main import run
from prometheus_backup.repository.layout import backup_id
from prometheus_backup.stores.local import LocalStore
from tests.support import manifests
from tests.support.contents import in_catalog, tree
from tests.support.faulty_stores import flip_a_bit
from tests.support.runs import bare_environment, options, take_backup


@dataclass(frozen=True, slots=True)
class StoredBackups:
    """A `file://` repository with two backups of one Prometheus: `first` with its head block,
    `second`, the newest, without it, so that all its blocks are old. Do not change it."""

    root: Path
    first: str
    second: str


def make_stored_backups(
    directory: Path, binaries: PrometheusBinaries, blocks: Path
) -> StoredBackups:
    """Make two backups of a Prometheus with these blocks and a head."""
    data = directory / "data"
    shutil.copytree(blocks, data)
    root = directory / "repository"
    root.mkdir()
    store = LocalStore(root)
    with PrometheusServer(binaries, data) as server:
        server.fill_head()
        first = take_backup(server, store).manifest.backup_id
        second = take_backup(server, store, options(skip_head=True)).manifest.backup_id
        server.kill()
    return StoredBackups(root, first, second)


class Files(Protocol):
    """Access to the objects of a repository, by relative key, to read and damage them.

    `all_keys` leaves the catalogue out.
    """

    def get(self, key: str) -> bytes: ...
    def put(self, key: str, data: bytes) -> None: ...
    def delete(self, key: str) -> None: ...
    def all_keys(self) -> list[str]: ...
    def environment(self) -> dict[str, str]: ...


@dataclass(frozen=True, slots=True)
class LocalFiles:
    """A repository in a directory."""

    root: Path

    def get(self, key: str) -> bytes:
        return (self.root / key).read_bytes()

    def put(self, key: str, data: bytes) -> None:
        path = self.root / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)

    def delete(self, key: str) -> None:
        (self.root / key).unlink()

    def all_keys(self) -> list[str]:
        return sorted(tree(self.root))

    def environment(self) -> dict[str, str]:
        """Return the environment variables that select this repository."""
        return {"REPOSITORY": f"file://{self.root}"}


@dataclass(frozen=True, slots=True)
class S3Files:
    """A repository under a prefix of a bucket."""

    bucket: S3Bucket
    prefix: str

    def get(self, key: str) -> bytes:
        return self.bucket.get(f"{self.prefix}/{key}")

    def put(self, key: str, data: bytes) -> None:
        self.bucket.put(f"{self.prefix}/{key}", data)

    def delete(self, key: str) -> None:
        self.bucket.delete(f"{self.prefix}/{key}")

    def all_keys(self) -> list[str]:
        found = (k.removeprefix(f"{self.prefix}/") for k in self.bucket.keys(f"{self.prefix}/"))
        return [key for key in found if not in_catalog(key)]

    def environment(self) -> dict[str, str]:
        """Return the environment variables that select this repository."""
        return {
            **self.bucket.endpoint.environment(),
            "S3_BUCKET": self.bucket.name,
            "S3_PREFIX": self.prefix,
        }


def copy_to(files: Files, root: Path) -> None:
    """Copy all files of a `file://` repository into another one."""
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda item: files.put(*item), tree(root).items()))


def manifest_of(files: Files, backup: str) -> dict[str, Any]:
    """Return the manifest of a backup as JSON values."""
    value = json.loads(files.get(f"{backup}/metadata.json"))
    assert isinstance(value, dict)
    return value


def block_keys(files: Files, backup: str) -> list[str]:
    """Return the keys of all block files of a backup, in manifest order."""
    blocks = manifest_of(files, backup)["blocks"]
    return [file["key"] for block in blocks for file in block["files"]]


def flip_one_bit(files: Files, key: str) -> bytes:
    """Change an object but not its size; return its original bytes."""
    body = files.get(key)
    files.put(key, flip_a_bit(body))
    return body


def put_small_backup(files: Files, taken: datetime, **changes: Any) -> str:
    """Write a valid backup of one tiny block, taken at the given time; return its id."""
    identifier = backup_id(taken)
    key = f"{identifier}/{manifests.ULID}/index"
    body = b"0123456789"
    sha256 = "84d89877f0d4041efb6bf91a16f0248f2fd573e6af05c19f96bedb9f882f7882"
    block = manifests.block(manifests.file(key=key, sha256=sha256))
    files.put(key, body)
    files.put(f"{identifier}/SHA256SUMS", f"{sha256}  {manifests.ULID}/index\n".encode())
    document = {"backup_id": identifier, "blocks": [block]} | changes
    files.put(f"{identifier}/metadata.json", manifests.encoded(**document))
    return identifier


def run_here(
    *arguments: str, env: Mapping[str, str] | None = None, stdin: str = ""
) -> subprocess.CompletedProcess[str]:
    """Run the command line in this process, with only the environment `env`. This is fast.

    Use `cli()` for tests that need a separate process: pipes, signals, a terminal.
    """
    out, err = io.StringIO(), io.StringIO()
    with (
        _restored_process_state(),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
        _standard_input(stdin),
    ):
        os.environ.clear()
        os.environ.update(bare_environment(env or {}))
        code = run(arguments)
    return subprocess.CompletedProcess(arguments, code, out.getvalue(), err.getvalue())


@contextlib.contextmanager
def _standard_input(text: str) -> Iterator[None]:
    before = sys.stdin
    sys.stdin = io.TextIOWrapper(io.BytesIO(text.encode()))
    try:
        yield
    finally:
        sys.stdin = before


def json_of(done: subprocess.CompletedProcess[str], *, code: int = 0) -> Any:
    """Check the exit code of a command; return the JSON document from its standard output."""
    assert done.returncode == code, f"{done.args} ended with {done.returncode}:\n{done.stderr}"
    return json.loads(done.stdout)


@contextlib.contextmanager
def _restored_process_state() -> Iterator[None]:
    """Restore the environment and the signal handlers afterwards."""
    environment = dict(os.environ)
    handlers = {s: signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(environment)
        for number, handler in handlers.items():
            signal.signal(number, handler)
