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
    for program in ("apt-get", "apt-cache", "dpkg-deb"):
        if shutil.which(program) is None:
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
        apt = _PrivateApt(scratch, source.line(suite))
        updated = apt.run("apt-get", "update", "--error-on=any")
        if updated.returncode != 0:
            return f"apt-get update failed: {_last_error(updated)}"
        version = _offered(apt, "prometheus", major)
        if version is None:
            return f"carries no Prometheus {major}.x"
        wanted = [f"prometheus={version}"]
        if _offered(apt, "promtool", major) == version:  # a package of its own in newer suites
            wanted.append(f"promtool={version}")
        print(f"fetching {' and '.join(wanted)} from {suite}", flush=True)
        downloaded = apt.run("apt-get", "download", *wanted)
        if downloaded.returncode != 0:
            return f"apt-get download failed: {_last_error(downloaded)}"
        return _unpack(scratch, TOOLS / f"prometheus-{major}", major)


def _unpack(scratch: Path, destination: Path, major: int) -> str | None:
    tree, ready = scratch / "tree", scratch / "ready"
    for package in scratch.glob("*.deb"):
        subprocess.run(["dpkg-deb", "-x", str(package), str(tree)], check=True)
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


class _PrivateApt:
    """apt with its own sources, lists and cache, so that the machine's own stay untouched."""

    def __init__(self, scratch: Path, source_line: str) -> None:
        for needed in ("state/lists/partial", "cache/archives/partial"):
            (scratch / needed).mkdir(parents=True)
        sources = scratch / "sources.list"
        sources.write_text(source_line + "\n")
        self._directory = scratch
        self._configuration = scratch / "apt.conf"
        # Read after the machine's own configuration: the hooks there clean the machine's cache,
        # and its pins could hide a suite.
        self._configuration.write_text(
            "#clear APT::Update::Pre-Invoke;\n"
            "#clear APT::Update::Post-Invoke;\n"
            "#clear APT::Update::Post-Invoke-Success;\n"
            f'Dir::State "{scratch}/state";\n'
            f'Dir::Cache "{scratch}/cache";\n'
            f'Dir::Etc::sourcelist "{sources}";\n'
            'Dir::Etc::sourceparts "/dev/null";\n'
            'Dir::Etc::preferences "/dev/null";\n'
            'Dir::Etc::preferencesparts "/dev/null";\n'
            'APT::Sandbox::User "root";\n'  # its own user could not write in a private folder
            'Acquire::Languages "none";\n'
            'Acquire::IndexTargets::deb::Contents-deb::DefaultEnabled "false";\n'
            'Acquire::IndexTargets::deb::DEP-11::DefaultEnabled "false";\n'
            'Acquire::IndexTargets::deb::CNF::DefaultEnabled "false";\n'
            'Acquire::Retries "3";\n'
        )

    def run(self, program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [program, "-q", "-c", str(self._configuration), *arguments],
            cwd=self._directory,
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            env={**os.environ, "LC_ALL": "C.UTF-8", "DEBIAN_FRONTEND": "noninteractive"},
            check=False,
        )


def _offered(apt: _PrivateApt, package: str, major: int) -> str | None:
    """The newest version of that major that the suite offers, such as `2.42.0+ds-5+deb12u1`."""
    for line in apt.run("apt-cache", "madison", package).stdout.splitlines():
        fields = [field.strip() for field in line.split("|")]
        if len(fields) == 3 and re.match(rf"(\d+:)?{major}\.", fields[1]):
            return fields[1]
    return None


def _last_error(done: subprocess.CompletedProcess[str]) -> str:
    lines = [line for line in done.stderr.splitlines() if line.startswith(("E:", "Err:"))]
    return lines[-1] if lines else f"exit {done.returncode}"


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
