"""Fetches the Prometheus Pushgateway from its Debian package into `.tools/`.

Like `fetch_prometheus`, it installs nothing, starts no service, and uses the archive from this
machine's apt sources. A Pushgateway that is already installed is used.
"""

import os
import shutil
import sys
import tempfile
from pathlib import Path

from devtools.apt_sources import distribution_sources, os_release
from devtools.private_apt import PrivateApt, missing_program

TOOLS = Path(__file__).resolve().parent.parent / ".tools"
_PACKAGE = "prometheus-pushgateway"
_SUITES = ("trixie", "forky", "testing")


class PushgatewayMissingError(RuntimeError):
    """The Pushgateway is missing; the message says how to get it."""


def find() -> Path:
    """Find the program: from `PUSHGATEWAY`, else `.tools/`, else PATH."""
    candidates = [os.environ.get("PUSHGATEWAY"), str(TOOLS / _PACKAGE)]
    for name in (*candidates, shutil.which(_PACKAGE), shutil.which("pushgateway")):
        if name and os.access(name, os.X_OK):
            return Path(name)
    raise PushgatewayMissingError(
        "cannot find the Pushgateway: run `make test`, which fetches it, or install "
        f"{_PACKAGE}, or set PUSHGATEWAY to its path"
    )


def fetch() -> Path:
    """Find the program; if it is missing, download it into `.tools/` first."""
    TOOLS.mkdir(exist_ok=True)
    try:
        return find()
    except PushgatewayMissingError as error:
        if program := missing_program():
            raise PushgatewayMissingError(f"{error} ({program} is missing)") from None
        failures = []
        for suite in dict.fromkeys((os_release().codename, *_SUITES)):
            failure = _download(suite)
            if failure is None:
                return find()
            failures.append(f"  {suite}: {failure}")
        raise PushgatewayMissingError("\n".join([str(error), *failures])) from None


def _download(suite: str) -> str | None:
    """Fetch it from one suite; return the reason if that fails."""
    with tempfile.TemporaryDirectory(dir=TOOLS, prefix="apt-") as name:
        scratch = Path(name)
        lines = [source.line(suite) for source in distribution_sources(os_release().codename)]
        apt = PrivateApt(scratch, *lines)
        if failure := apt.update():
            return failure
        version = apt.newest_version(_PACKAGE)
        if version is None:
            return f"has no package {_PACKAGE}"
        print(f"fetching {_PACKAGE}={version} from {suite}", flush=True)
        if failure := apt.download(f"{_PACKAGE}={version}"):
            return failure
        apt.unpack(scratch / "tree")
        (scratch / "tree" / "usr" / "bin" / _PACKAGE).replace(TOOLS / _PACKAGE)
    return None


def main() -> int:
    """Fetch it."""
    try:
        print(fetch())
    except PushgatewayMissingError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
