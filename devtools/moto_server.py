"""Runs moto's S3 server, for AWS features: encryption headers, storage classes, IAM, archives.

It keeps everything in memory: store megabytes in it, not gigabytes.
"""

from __future__ import annotations

import json
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Self

import boto3
import httpx

from devtools.processes import LOOPBACK, Process, clean_environment, with_free_ports
from devtools.s3 import Credentials, S3Endpoint

if TYPE_CHECKING:
    from mypy_boto3_iam import IAMClient

ADMIN = Credentials("AKIAMOTOTESTS0000000", "moto-test-secret")

_MOTO = Path(sys.executable).parent / "moto_server"
_APP = Path(__file__).parent / "moto_app.py"


class MotoServer:
    """moto in its own process. Any credentials are allowed everything until IAM is enforced."""

    def __init__(self, directory: Path) -> None:
        """Start it and wait until it answers; raises `ProcessFailedError`."""
        if not _MOTO.is_file():
            raise FileNotFoundError(f"cannot find {_MOTO}: run `make setup`")
        self._directory = directory
        self._port = 0
        self._process = with_free_ports(1, self._start)

    @property
    def url(self) -> str:
        """The endpoint of S3 and all other services."""
        return f"http://{LOOPBACK}:{self._port}"

    @property
    def pid(self) -> int:
        """The server's process id."""
        return self._process.pid

    def endpoint(self, credentials: Credentials = ADMIN) -> S3Endpoint:
        """Return the endpoint with these credentials."""
        return S3Endpoint(url=self.url, region="us-east-1", credentials=credentials)

    def reset(self) -> None:
        """Delete all buckets, users and roles."""
        self._post("/moto-api/reset")

    # The body is the number of requests that moto allows without authentication.

    def enforce_iam(self) -> None:
        """Enforce credentials and policies from the next request on, as on AWS."""
        self._post("/moto-api/reset-auth", b"0")

    def stop_enforcing_iam(self) -> None:
        """Allow everything to any credentials again."""
        self._post("/moto-api/reset-auth", b"inf")

    @contextmanager
    def enforcing_iam(self) -> Iterator[None]:
        """Enforce credentials and policies within the block."""
        self.enforce_iam()
        try:
            yield
        finally:
            self.stop_enforcing_iam()

    def new_user(self, *statements: dict[str, object]) -> Credentials:
        """Create a user with these policy statements, such as `{"Effect": "Allow", "Action": ...}`.

        Call it while IAM is not enforced.
        """
        iam = self.iam()
        name = f"user-{uuid.uuid4().hex[:12]}"
        iam.create_user(UserName=name)
        iam.put_user_policy(
            UserName=name,
            PolicyName="rights",
            PolicyDocument=json.dumps({"Version": "2012-10-17", "Statement": list(statements)}),
        )
        key = iam.create_access_key(UserName=name)["AccessKey"]
        return Credentials(key["AccessKeyId"], key["SecretAccessKey"])

    def iam(self) -> IAMClient:
        """Return a boto3 client for users, roles and policies. Use it while IAM is not enforced."""
        client: IAMClient = boto3.client(
            "iam",
            endpoint_url=self.url,
            region_name="us-east-1",
            aws_access_key_id=ADMIN.access_key,
            aws_secret_access_key=ADMIN.secret_key,
        )
        return client

    def pause(self) -> None:
        """Stop answering until `resume`, with connections left open."""
        self._process.pause()

    def resume(self) -> None:
        """Answer again after `pause`."""
        self._process.resume()

    def kill(self) -> None:
        """Kill it: connections are refused from now on."""
        self._process.kill()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def _post(self, path: str, body: bytes = b"") -> None:
        with httpx.Client(trust_env=False, timeout=10) as client:
            client.post(f"{self.url}{path}", content=body).raise_for_status()

    def _start(self, ports: list[int]) -> Process:
        (self._port,) = ports
        process = Process(
            "moto_server",
            [sys.executable, _APP, "-H", LOOPBACK, "-p", str(self._port)],
            log=self._directory / "moto.log",
            environment=clean_environment(
                self._directory / "home",
                # Do not use the instance metadata of the machine that runs the tests.
                AWS_EC2_METADATA_DISABLED="true",
            ),
        )
        process.wait_until(self._answers)
        process.check_listens(self._port)
        return process

    def _answers(self) -> bool:
        try:
            with httpx.Client(trust_env=False, timeout=5) as client:
                return client.get(f"{self.url}/moto-api/data.json").is_success
        except httpx.HTTPError:
            return False
