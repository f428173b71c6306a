"""Runs a real Pushgateway on loopback."""

from pathlib import Path
from typing import Self

import httpx

from devtools.fetch_programs import PUSHGATEWAY
from devtools.processes import LOOPBACK, Process, clean_environment, with_free_ports


class Pushgateway:
    """A server that keeps pushed metrics in memory; a context manager that stops it."""

    def __init__(self, directory: Path) -> None:
        """Start it and wait until it answers; raises `ProcessFailedError`."""
        self._program = PUSHGATEWAY.find()
        self._directory = directory
        self._port = 0
        self._process = with_free_ports(1, lambda ports: self._start(ports[0]))

    @property
    def url(self) -> str:
        """Its URL."""
        return f"http://{LOOPBACK}:{self._port}"

    def metrics(self) -> str:
        """Return the metrics that Prometheus scrapes."""
        return httpx.get(f"{self.url}/metrics", trust_env=False).text

    def pause(self) -> None:
        """Stop answering until `resume`, with connections left open."""
        self._process.pause()

    def resume(self) -> None:
        """Answer again after `pause`."""
        self._process.resume()

    def stop(self) -> None:
        """Terminate it."""
        self._process.stop()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _start(self, port: int) -> Process:
        process = Process(
            "pushgateway",
            [
                self._program,
                f"--web.listen-address={LOOPBACK}:{port}",
                "--persistence.file=",
            ],
            log=self._directory / "pushgateway.log",
            environment=clean_environment(self._directory / "home"),
        )
        self._port = port
        process.wait_until(self._ready)
        process.check_listens(port)
        return process

    def _ready(self) -> bool:
        try:
            return httpx.get(f"{self.url}/-/ready", trust_env=False).is_success
        except httpx.TransportError:
            return False
