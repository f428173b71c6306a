"""moto's S3 server, for what only AWS does: encryption headers, storage classes, IAM, archive thaw.

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
    """moto in a process of its own; any credentials may do all until IAM is enforced."""

    def __init__(self, directory: Path) -> None:
        """Start it, and return when it answers; raises `ProcessFailedError`."""
        if not _MOTO.is_file():
            raise FileNotFoundError(f"cannot find {_MOTO}: run `make setup`")
        self._directory = directory
        self._port = 0
        self._process = with_free_ports(1, self._start)

    @property
    def url(self) -> str:
        """The endpoint, of S3 and of every other service."""
        return f"http://{LOOPBACK}:{self._port}"

    @property
    def pid(self) -> int:
        """The server's process id."""
        return self._process.pid

    def endpoint(self, credentials: Credentials = ADMIN) -> S3Endpoint:
        """Where and as whom to talk to it."""
        return S3Endpoint(url=self.url, region="us-east-1", credentials=credentials)

    def reset(self) -> None:
        """Forget all buckets, users and roles."""
        self._post("/moto-api/reset")

    # moto counts how many requests it lets through unauthenticated: none, or any number.

    def enforce_iam(self) -> None:
        """From the next request on, credentials and policies count, as on AWS."""
        self._post("/moto-api/reset-auth", b"0")

    def stop_enforcing_iam(self) -> None:
        """Any credentials may do all again."""
        self._post("/moto-api/reset-auth", b"inf")

    @contextmanager
    def enforcing_iam(self) -> Iterator[None]:
        """Credentials and policies count within the block."""
        self.enforce_iam()
        try:
            yield
        finally:
            self.stop_enforcing_iam()

    def new_user(self, *statements: dict[str, object]) -> Credentials:
        """A user with these policy statements, such as `{"Effect": "Allow", "Action": ...}`.

        To be made while IAM is not enforced; counts once it is.
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
        """A boto3 client for users, roles and policies, to be used while IAM is not enforced."""
        client: IAMClient = boto3.client(
            "iam",
            endpoint_url=self.url,
            region_name="us-east-1",
            aws_access_key_id=ADMIN.access_key,
            aws_secret_access_key=ADMIN.secret_key,
        )
        return client

    def pause(self) -> None:
        """Stop answering, with connections left open, until `resume`."""
        self._process.pause()

    def resume(self) -> None:
        """Answer again after `pause`."""
        self._process.resume()

    def kill(self) -> None:
        """End it: connections are refused from now on."""
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
                # Not the instance metadata of the machine that runs the tests.
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
