"""Runs the real `aws` client against an S3 server, as a user without this project would."""

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from devtools.processes import clean_environment
from devtools.s3 import S3Endpoint

_AWS = Path(sys.executable).parent / "aws"


@dataclass(frozen=True)
class AwsCli:
    """The client with the endpoint's credentials and without the user's settings."""

    endpoint: S3Endpoint
    home: Path

    def __call__(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run `aws ARGUMENTS`. With `check`, raises RuntimeError with its output if it fails."""
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
        """Run a shell script in which `aws` is this client; return its output."""
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
        """Return the environment of the client."""
        return clean_environment(self.home, AWS_PAGER="", **self.endpoint.environment())
