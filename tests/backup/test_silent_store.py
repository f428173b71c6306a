"""A store that accepts connections and never answers. Without a limit, everything would wait."""

import threading
from collections.abc import Iterator
from pathlib import Path
from signal import SIGINT, SIGTERM

import pytest

from devtools.prometheus import PrometheusServer
from devtools.s3 import S3Bucket
from tests.support.contents import traces
from tests.support.faulty_http import Answer, Request
from tests.support.limited_store import LimitedStore
from tests.support.runs import settings
from tests.support.started_cli import StartedCli
from tests.support.stored_backups import json_of, run_here

_SOON = 60.0
"""Seconds. A run without the limits waits for five minutes."""


class Silence:
    """Once it is begun, no request gets an answer until the end of the test."""

    def __init__(self) -> None:
        self.begins_at: tuple[str, str] = ("", "")
        self.began = threading.Event()
        self.ended = threading.Event()

    def __call__(self, request: Request) -> Answer | None:
        method, path = self.begins_at
        if request.method == method and path in request.path:
            self.began.set()
        if self.began.is_set():
            self.ended.wait()
        return None


@pytest.fixture
def silence() -> Iterator[Silence]:
    """The silence of `store`."""
    silence = Silence()
    yield silence
    silence.ended.set()


@pytest.fixture
def store(s3_bucket: S3Bucket, silence: Silence) -> Iterator[LimitedStore]:
    """A server in front of the bucket's that can fall silent."""
    with LimitedStore(s3_bucket.endpoint.url, silence) as server:
        yield server
        silence.ended.set()


def _environment(source: PrometheusServer, bucket: S3Bucket, store: LimitedStore) -> dict[str, str]:
    return settings(source, bucket, AWS_ENDPOINT_URL=store.url, SKIP_HEAD="true")


@pytest.mark.parametrize(
    ("method", "path"),
    [("PUT", "/chunks/"), ("PUT", "metadata.json")],
    ids=["transfer", "commit"],
)
def test_stopped_backup_removes_its_snapshot_and_ends_while_the_store_is_silent(
    source: PrometheusServer,
    s3_bucket: S3Bucket,
    store: LimitedStore,
    silence: Silence,
    tmp_path: Path,
    method: str,
    path: str,
) -> None:
    silence.begins_at = (method, path)
    env = _environment(source, s3_bucket, store)
    with StartedCli("backup", env=env, directory=tmp_path / "run") as run:
        assert silence.began.wait(_SOON), run.log()
        run.send(SIGTERM)
        ended = run.end(deadline=_SOON)

    assert ended.code == 143, ended.log
    assert "Traceback" not in ended.log
    assert [p for p in traces(source.data_dir) if p.startswith("snapshots/")] == []
    removed = ended.log.index("snapshot removed")
    assert removed < ended.log.index("cannot record the end of this run")


@pytest.mark.parametrize(
    ("arguments", "begins_at"),
    [(("check",), ("GET", "")), (("list",), ("GET", "backup-"))],
    ids=["check at once", "list later"],
)
def test_a_command_that_somebody_waits_for_gives_up_and_names_the_address(
    source: PrometheusServer,
    s3_bucket: S3Bucket,
    store: LimitedStore,
    silence: Silence,
    tmp_path: Path,
    arguments: tuple[str, ...],
    begins_at: tuple[str, str],
) -> None:
    s3_bucket.put("prometheus-snapshots/backup-20250122-020000/metadata.json", b"{}")
    silence.begins_at = begins_at
    env = _environment(source, s3_bucket, store)
    with StartedCli(*arguments, env=env, directory=tmp_path / "run") as run:
        ended = run.end(deadline=_SOON)

    assert ended.code == 13, ended.log
    told = ended.output + ended.log
    assert f"no connection to {store.url} (no answer in time)" in told
    assert "Traceback" not in told


@pytest.mark.parametrize(
    ("arguments", "path"),
    [
        (("list",), "/archive/catalog/backup-"),
        (("verify", "latest"), "/chunks/"),
        (("restore", "latest", "TARGET"), "/chunks/"),
    ],
    ids=["list", "verify", "restore"],
)
def test_ctrl_c_ends_a_command_while_the_store_is_silent(
    source: PrometheusServer,
    s3_bucket: S3Bucket,
    store: LimitedStore,
    silence: Silence,
    tmp_path: Path,
    arguments: tuple[str, ...],
    path: str,
) -> None:
    env = _environment(source, s3_bucket, store)
    json_of(run_here("backup", "--json", env=env), code=0)
    silence.begins_at = ("GET", path)
    arguments = tuple(str(tmp_path / "target") if a == "TARGET" else a for a in arguments)
    with StartedCli(*arguments, env=env, directory=tmp_path / "run") as run:
        assert silence.began.wait(_SOON), run.log()
        run.send(SIGINT)
        ended = run.end(deadline=_SOON)

    assert ended.code == 130, ended.log
    assert "Traceback" not in ended.log
