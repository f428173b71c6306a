"""Runs a real nginx on loopback with a given configuration."""

import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Self

from devtools.fetch_programs import NGINX
from devtools.processes import LOOPBACK, Process, clean_environment, with_free_ports


class Nginx:
    """A server; a context manager that stops it.

    `replaced` are texts of the configuration and what stands there instead, such as paths; the port
    `listen` is replaced by a free one.
    """

    def __init__(
        self, configuration: str, directory: Path, *, listen: str, replaced: Mapping[str, str]
    ) -> None:
        """Start it and wait until it listens; raises `ProcessFailedError`."""
        self._program = NGINX.find()
        self._directory = directory
        for old, new in replaced.items():
            if old not in configuration:
                raise ValueError(f"the configuration does not contain {old!r}")
            configuration = configuration.replace(old, new)
        self._configuration = configuration
        self._listen = listen
        self.port = 0
        self._process = with_free_ports(1, lambda ports: self._start(ports[0]))

    @property
    def url(self) -> str:
        """Its URL."""
        return f"http://{LOOPBACK}:{self.port}"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.stop()

    def _start(self, port: int) -> Process:
        self._directory.mkdir(parents=True, exist_ok=True)
        file = self._directory / "nginx.conf"
        file.write_text(
            self._configuration.replace(f"listen {self._listen};", f"listen {LOOPBACK}:{port};")
        )
        process = Process(
            "nginx",
            [self._program, "-e", "stderr", "-c", file, "-g", "daemon off; master_process off;"],
            log=self._directory / "nginx.log",
            environment=clean_environment(self._directory / "home"),
        )
        self.port = port
        process.wait_until(self._ready)
        process.check_listens(port)
        return process

    def _ready(self) -> bool:
        try:
            socket.create_connection((LOOPBACK, self.port), timeout=5).close()
        except OSError:
            return False
        return True
