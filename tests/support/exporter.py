"""Runs `metrics --listen`."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

from devtools.s3 import S3Bucket
from prometheus_backup.metrics.exposition import parse
from tests.support.started_cli import StartedCli


def values(document: str) -> dict[str, float]:
    """Return the metrics that only have the label `repository`."""
    return {s.name: s.value for s in parse(document) if set(s.labels) == {"repository"}}


class Served:
    """A running exporter."""

    def __init__(self, started: StartedCli) -> None:
        """Wait until it listens."""
        self.started = started
        started.wait_for_log("serving metrics at")
        found = re.search(r"http://[^/\s\"]+", started.log())
        assert found
        self.url = found[0]

    @classmethod
    @contextmanager
    def over(cls, repository: Path | S3Bucket, directory: Path) -> Iterator["Served"]:
        """Serve the metrics of a repository, refreshed every second, within the block."""
        if isinstance(repository, S3Bucket):
            env = repository.endpoint.environment() | {"S3_BUCKET": repository.name}
        else:
            env = {"REPOSITORY": f"file://{repository}"}
        command = ("metrics", "--listen=127.0.0.1:0", "--refresh=1")
        with StartedCli(*command, env=env, directory=directory) as started:
            yield cls(started)

    def get(self, path: str) -> httpx.Response:
        """Request a path."""
        return httpx.get(f"{self.url}{path}", trust_env=False)

    @property
    def values(self) -> dict[str, float]:
        """The served metrics that only have the label `repository`."""
        return values(self.get("/metrics").text)
