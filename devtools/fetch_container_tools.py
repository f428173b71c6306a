"""Fetches kubectl, buildah and debootstrap from Debian packages into `.tools/`.

Like `fetch_prometheus`, it installs nothing, starts no service, and uses the archive from this
machine's apt sources. Programs that are already installed are used.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from devtools.apt_sources import distribution_sources, os_release
from devtools.private_apt import PrivateApt, missing_program

TOOLS = Path(__file__).resolve().parent.parent / ".tools"
_TREE = TOOLS / "containers"
_KUBECTL = TOOLS / "kubectl"
_OLDEST_KUBECTL = (1, 27)  # the first with kustomize 5, which the manifests need
_KUBECTL_SUITES = ("forky", "testing", "trixie")


class ContainerToolMissingError(RuntimeError):
    """A tool is missing; the message says how to get it."""


@dataclass(frozen=True)
class Program:
    """A program, and the environment variables that it needs to run from `.tools/`."""

    path: Path
    environment: dict[str, str]


def find_kubectl() -> Program:
    """Find a kubectl that is new enough: from `KUBECTL`, else `.tools/`, else PATH."""
    named = os.environ.get("KUBECTL")
    candidates = [named] if named else [str(_KUBECTL), shutil.which("kubectl")]
    for candidate in candidates:
        if candidate and _kubectl_version(candidate) >= _OLDEST_KUBECTL:
            return Program(Path(candidate), {})
    oldest = ".".join(map(str, _OLDEST_KUBECTL))
    raise ContainerToolMissingError(
        f"cannot find kubectl {oldest} or newer: run `make test`, which fetches it, or install it "
        "and set KUBECTL to its path"
    )


def find_buildah() -> Program:
    """Find buildah, which builds images without a container engine."""
    return _find("buildah", "usr/bin/buildah", {})


def find_debootstrap() -> Program:
    """Find debootstrap, which creates the base image for tests."""
    scripts = {"DEBOOTSTRAP_DIR": str(_TREE / "usr/share/debootstrap")}
    return _find("debootstrap", "usr/sbin/debootstrap", scripts)


def fetch() -> None:
    """Download the missing tools into `.tools/`."""
    TOOLS.mkdir(exist_ok=True)
    try:
        find_kubectl()
    except ContainerToolMissingError as error:
        _fetch_kubectl(error)
    try:
        find_buildah()
        find_debootstrap()
    except ContainerToolMissingError as error:
        _fetch_tree(error)


def _find(name: str, unpacked: str, environment: dict[str, str]) -> Program:
    path = _TREE / unpacked
    if path.is_file():
        return Program(path, environment)
    if installed := shutil.which(name):
        return Program(Path(installed), {})
    raise ContainerToolMissingError(
        f"cannot find {name}: run `make test`, which fetches it, or `apt-get install {name}`"
    )


def _kubectl_version(program: str) -> tuple[int, int]:
    try:
        done = subprocess.run(
            [program, "version", "--client"], capture_output=True, text=True, timeout=60, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return (0, 0)
    found = re.search(r"v(\d+)\.(\d+)", done.stdout)
    return (int(found[1]), int(found[2])) if found else (0, 0)


def _fetch_kubectl(missing: ContainerToolMissingError) -> None:
    failures = []
    for suite in (os_release().codename, *_KUBECTL_SUITES):
        with tempfile.TemporaryDirectory(dir=TOOLS, prefix="apt-") as name:
            failure = _kubectl_from(suite, Path(name))
        if failure is None:
            find_kubectl()
            return
        failures.append(f"  {suite}: {failure}")
    raise ContainerToolMissingError("\n".join([str(missing), *failures]))


def _kubectl_from(suite: str, scratch: Path) -> str | None:
    """Fetch kubectl from one suite; return the reason if that fails."""
    apt, failure = _apt(suite, scratch, use_installed=False)
    if failure:
        return failure
    version = apt.newest_version(
        "kubectl"
    )  # older suites only have an old one, in kubernetes-client
    if version is None:
        return "has no package kubectl"
    print(f"fetching kubectl={version} from {suite}", flush=True)
    if failure := apt.download(f"kubectl={version}"):
        return failure
    apt.unpack(scratch / "tree")
    program = scratch / "tree/usr/bin/kubectl"
    if _kubectl_version(str(program)) < _OLDEST_KUBECTL:
        return f"kubectl {version} is too old or does not run on this machine"
    program.replace(_KUBECTL)
    return None


def _fetch_tree(missing: ContainerToolMissingError) -> None:
    """Unpack buildah and debootstrap, with the libraries that this machine lacks."""
    suite = os_release().codename
    with tempfile.TemporaryDirectory(dir=TOOLS, prefix="apt-") as name:
        scratch = Path(name)
        apt, failure = _apt(suite, scratch, use_installed=True)
        print(f"fetching buildah and debootstrap from {suite}", flush=True)
        failure = failure or apt.download_with_dependencies("buildah", "debootstrap", "patchelf")
        if failure:
            raise ContainerToolMissingError(f"{missing}\n  {suite}: {failure}")
        tree = scratch / "tree"
        apt.unpack(tree)
        _set_library_path(tree)
        # Renamed when complete, so that an interrupted run never leaves a partial tree.
        shutil.rmtree(_TREE, ignore_errors=True)
        tree.rename(_TREE)
    find_buildah()
    find_debootstrap()


def _set_library_path(tree: Path) -> None:
    """Make buildah use the libraries that were unpacked with it, at their final path.

    LD_LIBRARY_PATH and $ORIGIN do not work: buildah re-executes itself from a copy in memory, with
    the environment of the container.
    """
    patchelf = shutil.which("patchelf") or str(tree / "usr/bin/patchelf")
    libraries = [str(_TREE / folder.relative_to(tree)) for folder in tree.glob("usr/lib/*-linux-*")]
    subprocess.run(
        [patchelf, "--force-rpath", "--set-rpath", ":".join(libraries), tree / "usr/bin/buildah"],
        check=True,
    )


def _apt(suite: str, scratch: Path, *, use_installed: bool) -> tuple[PrivateApt, str | None]:
    if program := missing_program():
        raise ContainerToolMissingError(
            f"cannot fetch kubectl, buildah and debootstrap: {program} is missing (only Debian "
            "and Ubuntu have it); install all three by hand"
        )
    lines = [source.line(suite) for source in distribution_sources(os_release().codename)]
    apt = PrivateApt(scratch, *lines, use_installed=use_installed)
    return apt, apt.update()


def main() -> int:
    """Fetch all tools."""
    try:
        fetch()
    except ContainerToolMissingError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
