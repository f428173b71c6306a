"""Runs the real `aws` client, as a user without this project would, against one S3 server."""

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from devtools.processes import clean_environment
from devtools.s3 import S3Endpoint

_AWS = Path(sys.executable).parent / "aws"


@dataclass(frozen=True)
class AwsCli:
    """The client with the endpoint's credentials and none of the user's own settings."""

    endpoint: S3Endpoint
    home: Path

    def __call__(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run `aws ARGUMENTS`; an exit other than 0 raises, with its output, unless not checked."""
        done = subprocess.run(
            [str(_AWS), *arguments],
            env=self.environment(),
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            timeout=300,
            check=False,
        )
        if check and done.returncode != 0:
            raise RuntimeError(
                f"aws {' '.join(arguments)} ended with {done.returncode}:\n"
                f"{done.stdout}{done.stderr}"
            )
        return done

    def shell(self, script: str) -> str:
        """The output of a shell script in which `aws` is this client, as in a user's notes."""
        environment = self.environment()
        environment["PATH"] = f"{_AWS.parent}:{environment['PATH']}"
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", script],
            env=environment,
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            timeout=300,
            check=False,
        )
        if done.returncode != 0:
            raise RuntimeError(f"{script!r} ended with {done.returncode}:\n{done.stderr}")
        return done.stdout

    def environment(self) -> dict[str, str]:
        """What the client runs in."""
        return clean_environment(self.home, AWS_PAGER="", **self.endpoint.environment())
