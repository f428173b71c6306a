"""Puts Prometheus' Pushgateway into `.tools/`, from the Debian package.

Like `fetch_prometheus`: nothing is installed, no service is started, and the archive is the one
that this machine's apt sources name. One that is installed is used as it is.
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
    """The Pushgateway is not there; the message says how to get it."""


def find() -> Path:
    """The program that `PUSHGATEWAY` names, else that of `.tools/`, else of PATH."""
    candidates = [os.environ.get("PUSHGATEWAY"), str(TOOLS / _PACKAGE)]
    for name in (*candidates, shutil.which(_PACKAGE), shutil.which("pushgateway")):
        if name and os.access(name, os.X_OK):
            return Path(name)
    raise PushgatewayMissingError(
        "cannot find the Pushgateway: run `make test`, which fetches it, or install "
        f"{_PACKAGE}, or name the program in PUSHGATEWAY"
    )


def fetch() -> Path:
    """The program that `find` finds, downloaded into `.tools/` first where there is none."""
    TOOLS.mkdir(exist_ok=True)
    try:
        return find()
    except PushgatewayMissingError as error:
        if program := missing_program():
            raise PushgatewayMissingError(f"{error} ({program} is missing)") from None
        complaints = []
        for suite in dict.fromkeys((os_release().codename, *_SUITES)):
            complaint = _download(suite)
            if complaint is None:
                return find()
            complaints.append(f"  {suite}: {complaint}")
        raise PushgatewayMissingError("\n".join([str(error), *complaints])) from None


def _download(suite: str) -> str | None:
    """Take it from one suite; say why not, where it cannot."""
    with tempfile.TemporaryDirectory(dir=TOOLS, prefix="apt-") as name:
        scratch = Path(name)
        lines = [source.line(suite) for source in distribution_sources(os_release().codename)]
        apt = PrivateApt(scratch, *lines)
        if complaint := apt.update():
            return complaint
        version = apt.offered(_PACKAGE)
        if version is None:
            return f"carries no package {_PACKAGE}"
        print(f"fetching {_PACKAGE}={version} from {suite}", flush=True)
        if complaint := apt.download(f"{_PACKAGE}={version}"):
            return complaint
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
