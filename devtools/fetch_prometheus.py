"""Fetches Prometheus 2.x and 3.x (prometheus and promtool) from Debian packages into `.tools/`.

`python -m devtools.fetch_prometheus [2] [3]` downloads and unpacks the packages with a private apt
state; it installs nothing and starts no service. It uses the archive from this machine's apt
sources, if necessary with another suite. It only needs the standard library, so that it also runs
before the virtual environment exists.
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

# Suites to try after this machine's own, in this order. Debian 12 and 13 have 2.x, 14 and later
# have 3.x. The aliases at the end still work when the codenames are outdated.
OTHER_SUITES = {
    ("debian", 2): ("bookworm", "trixie"),
    ("debian", 3): ("forky", "testing", "unstable"),
    ("ubuntu", 2): ("noble", "plucky", "questing"),
    ("ubuntu", 3): ("resolute", "devel"),
}


class PrometheusMissingError(RuntimeError):
    """The requested major version of Prometheus is missing; the message says how to get it."""


@dataclass(frozen=True)
class PrometheusBinaries:
    """The prometheus and promtool binaries of one release."""

    major: int
    version: str
    prometheus: Path
    promtool: Path


def find(major: int) -> PrometheusBinaries:
    """Find the binaries: in `PROMETHEUS_<major>_DIR`, else `.tools/`, else PATH.

    Raises `PrometheusMissingError` if none of them has that major version.
    """
    variable = f"PROMETHEUS_{major}_DIR"
    named = os.environ.get(variable)
    if named:
        binaries = _in_directory(Path(named))
        if binaries is None or binaries.major != major:
            raise PrometheusMissingError(
                f"cannot use {variable}={named}: it has no working prometheus and promtool "
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
        f"{major}.x into a folder and set {variable} to it"
    )


def fetch(major: int) -> PrometheusBinaries:
    """Find the binaries; if they are missing, download them into `.tools/` first."""
    TOOLS.mkdir(exist_ok=True)
    with _fetch_lock():
        try:
            return find(major)
        except PrometheusMissingError:
            if os.environ.get(f"PROMETHEUS_{major}_DIR"):
                raise  # downloading another one would hide the mistake in the variable
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
    # Some 2.x releases print the version to stderr, others to stdout.
    found = re.search(r"version (\d+\.\d+\.\d+)", done.stdout + done.stderr)
    return found.group(1) if found and done.returncode == 0 else None


@contextmanager
def _fetch_lock() -> Iterator[None]:
    """Take a lock, so that a second `make` waits and then uses what the first has fetched."""
    with (TOOLS / ".fetch.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _download(major: int) -> None:
    variable = f"PROMETHEUS_{major}_DIR"
    otherwise = (
        f"; otherwise put prometheus and promtool {major}.x into a folder and set {variable} to it"
    )
    if program := missing_program():
        raise PrometheusMissingError(
            f"cannot fetch Prometheus {major}.x: {program} is missing (only Debian and "
            f"Ubuntu have it){otherwise}"
        )
    release = os_release()
    sources = distribution_sources(release.codename)
    if not sources:
        raise PrometheusMissingError(
            f"cannot fetch Prometheus {major}.x: no apt source of this machine has its "
            f"suite {release.codename!r}{otherwise}"
        )
    suites = dict.fromkeys((release.codename, *OTHER_SUITES.get((release.family, major), ())))
    failures = []
    for suite in suites:
        for source in sources:
            failure = _download_from(source, suite, major)
            if failure is None:
                return
            failures.append(f"  {suite}: {failure}")
    raise PrometheusMissingError(
        f"cannot fetch Prometheus {major}.x with apt (no network?){otherwise}\n"
        + "\n".join(failures)
    )


def _download_from(source: AptSource, suite: str, major: int) -> str | None:
    """Unpack Prometheus from one suite into `.tools/`; return the reason if that fails."""
    with tempfile.TemporaryDirectory(dir=TOOLS, prefix="apt-") as scratch_name:
        scratch = Path(scratch_name)
        apt = PrivateApt(scratch, source.line(suite))
        if failure := apt.update():
            return failure
        version = apt.newest_version("prometheus", f"{major}.")
        if version is None:
            return f"has no Prometheus {major}.x"
        wanted = [f"prometheus={version}"]
        if (
            apt.newest_version("promtool", f"{major}.") == version
        ):  # a separate package in newer suites
            wanted.append(f"promtool={version}")
        print(f"fetching {' and '.join(wanted)} from {suite}", flush=True)
        if failure := apt.download(*wanted):
            return failure
        apt.unpack(scratch / "tree")
        return _unpack(scratch, TOOLS / f"prometheus-{major}", major)


def _unpack(scratch: Path, destination: Path, major: int) -> str | None:
    tree, ready = scratch / "tree", scratch / "ready"
    ready.mkdir()
    for program in PROGRAMS:
        unpacked = tree / "usr" / "bin" / program
        if not unpacked.is_file():
            return f"its package has no {program}"
        unpacked.rename(ready / program)
    binaries = _in_directory(ready)
    if binaries is None or binaries.major != major:
        return "its programs do not run on this machine"
    # Renamed when complete, so that an interrupted run never leaves a partial folder.
    shutil.rmtree(destination, ignore_errors=True)
    ready.rename(destination)
    return None


def main(arguments: list[str]) -> int:
    """Fetch the given major versions, or all."""
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
