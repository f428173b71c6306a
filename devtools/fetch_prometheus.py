"""Puts Prometheus 2.x and 3.x (prometheus and promtool) into `.tools/`, from the Debian packages.

Nothing is installed and no service is started: the packages are downloaded with a private apt
state, and unpacked. The archive is the machine's own, as its apt sources name it; only the suite
differs. Uses the standard library alone, so that it also runs before the virtual environment is
there: `python -m devtools.fetch_prometheus [2] [3]`.
"""

import fcntl
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from devtools.apt_sources import AptSource, distribution_sources, os_release
from devtools.private_apt import PrivateApt, missing_program

TOOLS = Path(__file__).resolve().parent.parent / ".tools"
MAJORS = (2, 3)
PROGRAMS = ("prometheus", "promtool")

# Suites tried after the machine's own, in this order. Debian 12 and 13 carry 2.x, 14 and later
# carry 3.x; the aliases at the end outlive the names.
OTHER_SUITES = {
    ("debian", 2): ("bookworm", "trixie"),
    ("debian", 3): ("forky", "testing", "unstable"),
    ("ubuntu", 2): ("noble", "plucky", "questing"),
    ("ubuntu", 3): ("resolute", "devel"),
}


class PrometheusMissingError(RuntimeError):
    """A Prometheus of the wanted major version is not there; the message says how to get it."""


@dataclass(frozen=True)
class PrometheusBinaries:
    """One Prometheus version: the server and its tool, of the same release."""

    major: int
    version: str
    prometheus: Path
    promtool: Path


def find(major: int) -> PrometheusBinaries:
    """The binaries from `PROMETHEUS_<major>_DIR`, else `.tools/`, else PATH.

    Raises `PrometheusMissingError` where none of them has that major version.
    """
    variable = f"PROMETHEUS_{major}_DIR"
    named = os.environ.get(variable)
    if named:
        binaries = _in_directory(Path(named))
        if binaries is None or binaries.major != major:
            raise PrometheusMissingError(
                f"cannot use {variable}={named}: it holds no working prometheus and promtool "
                f"of version {major}.x"
            )
        return binaries
    candidates = [TOOLS / f"prometheus-{major}"]
    on_path = shutil.which("prometheus")
    if on_path:
        candidates.append(Path(on_path).parent)
    for directory in candidates:
        binaries = _in_directory(directory)
        if binaries is not None and binaries.major == major:
            return binaries
    raise PrometheusMissingError(
        f"cannot find Prometheus {major}.x: run `make setup`, or put prometheus and promtool "
        f"{major}.x into a folder and name it in {variable}"
    )


def fetch(major: int) -> PrometheusBinaries:
    """The binaries that `find` finds, downloaded into `.tools/` first where there are none."""
    TOOLS.mkdir(exist_ok=True)
    with _only_one_fetcher():
        try:
            return find(major)
        except PrometheusMissingError:
            if os.environ.get(f"PROMETHEUS_{major}_DIR"):
                raise  # the user named a place: downloading another one would hide the mistake
        _download(major)
        return find(major)


def _in_directory(directory: Path) -> PrometheusBinaries | None:
    prometheus, promtool = (directory / name for name in PROGRAMS)
    if not (prometheus.is_file() and promtool.is_file()):
        return None
    versions = {_version(prometheus), _version(promtool)}
    version = versions.pop()
    if version is None or versions:
        return None
    return PrometheusBinaries(
        major=int(version.split(".")[0]), version=version, prometheus=prometheus, promtool=promtool
    )


def _version(program: Path) -> str | None:
    try:
        done = subprocess.run(
            [str(program), "--version"], capture_output=True, text=True, timeout=60, check=False
        )
    except OSError:
        return None
    # 2.x prints it on stderr in some releases, on stdout in others.
    found = re.search(r"version (\d+\.\d+\.\d+)", done.stdout + done.stderr)
    return found.group(1) if found and done.returncode == 0 else None


@contextmanager
def _only_one_fetcher() -> Iterator[None]:
    """Two `make` runs at once: the second waits, and then finds what the first has fetched."""
    with (TOOLS / ".fetch.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _download(major: int) -> None:
    variable = f"PROMETHEUS_{major}_DIR"
    otherwise = (
        f"; otherwise put prometheus and promtool {major}.x into a folder and name it in {variable}"
    )
    if program := missing_program():
        raise PrometheusMissingError(
            f"cannot fetch Prometheus {major}.x: {program} is missing, and only Debian and "
            f"Ubuntu have it{otherwise}"
        )
    release = os_release()
    sources = distribution_sources(release.codename)
    if not sources:
        raise PrometheusMissingError(
            f"cannot fetch Prometheus {major}.x: no apt source of this machine names its own "
            f"suite, {release.codename!r}{otherwise}"
        )
    suites = dict.fromkeys((release.codename, *OTHER_SUITES.get((release.family, major), ())))
    complaints = []
    for suite in suites:
        for source in sources:
            complaint = _download_from(source, suite, major)
            if complaint is None:
                return
            complaints.append(f"  {suite}: {complaint}")
    raise PrometheusMissingError(
        f"cannot fetch Prometheus {major}.x with apt (is the network there?){otherwise}\n"
        + "\n".join(complaints)
    )


def _download_from(source: AptSource, suite: str, major: int) -> str | None:
    """Unpack Prometheus from one suite into `.tools/`; say why not, where it cannot."""
    with tempfile.TemporaryDirectory(dir=TOOLS, prefix="apt-") as scratch_name:
        scratch = Path(scratch_name)
        apt = PrivateApt(scratch, source.line(suite))
        if complaint := apt.update():
            return complaint
        version = apt.offered("prometheus", f"{major}.")
        if version is None:
            return f"carries no Prometheus {major}.x"
        wanted = [f"prometheus={version}"]
        if apt.offered("promtool", f"{major}.") == version:  # its own package in newer suites
            wanted.append(f"promtool={version}")
        print(f"fetching {' and '.join(wanted)} from {suite}", flush=True)
        if complaint := apt.download(*wanted):
            return complaint
        apt.unpack(scratch / "tree")
        return _unpack(scratch, TOOLS / f"prometheus-{major}", major)


def _unpack(scratch: Path, destination: Path, major: int) -> str | None:
    tree, ready = scratch / "tree", scratch / "ready"
    ready.mkdir()
    for program in PROGRAMS:
        unpacked = tree / "usr" / "bin" / program
        if not unpacked.is_file():
            return f"its package holds no {program}"
        unpacked.rename(ready / program)
    binaries = _in_directory(ready)
    if binaries is None or binaries.major != major:
        return "its programs do not run on this machine"
    # Only whole folders ever appear under the final name: a run that is cut leaves none.
    shutil.rmtree(destination, ignore_errors=True)
    ready.rename(destination)
    return None


def main(arguments: list[str]) -> int:
    """Fetch the major versions named, or all."""
    for major in [int(argument) for argument in arguments] or MAJORS:
        try:
            binaries = fetch(major)
        except PrometheusMissingError as error:
            print(error, file=sys.stderr)
            return 1
        print(f"Prometheus {binaries.version}: {binaries.prometheus.parent}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
