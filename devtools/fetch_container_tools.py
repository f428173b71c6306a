"""Puts kubectl, buildah and debootstrap into `.tools/`, from the Debian packages.

Like `fetch_prometheus`: nothing is installed, no service is started, and the archive is the one
that this machine's apt sources name. What is installed already is used as it is.
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
_OLDEST_KUBECTL = (1, 27)  # its kustomize 5 is the first with all that the manifests use
_KUBECTL_SUITES = ("forky", "testing", "trixie")


class ContainerToolMissingError(RuntimeError):
    """A tool is not there; the message says how to get it."""


@dataclass(frozen=True)
class Program:
    """A program, and what it must find in its environment to run from where it was unpacked."""

    path: Path
    environment: dict[str, str]


def find_kubectl() -> Program:
    """The kubectl that `KUBECTL` names, else that of `.tools/`, else of PATH, if new enough."""
    named = os.environ.get("KUBECTL")
    candidates = [named] if named else [str(_KUBECTL), shutil.which("kubectl")]
    for candidate in candidates:
        if candidate and _kubectl_version(candidate) >= _OLDEST_KUBECTL:
            return Program(Path(candidate), {})
    oldest = ".".join(map(str, _OLDEST_KUBECTL))
    raise ContainerToolMissingError(
        f"cannot find kubectl {oldest} or newer: run `make test`, which fetches it, or install it "
        "and name it in KUBECTL"
    )


def find_buildah() -> Program:
    """Buildah, which builds images without a container engine."""
    return _find("buildah", "usr/bin/buildah", {})


def find_debootstrap() -> Program:
    """Debootstrap, which makes the base image of tests."""
    scripts = {"DEBOOTSTRAP_DIR": str(_TREE / "usr/share/debootstrap")}
    return _find("debootstrap", "usr/sbin/debootstrap", scripts)


def fetch() -> None:
    """Download into `.tools/` what `find_...` does not find yet."""
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
    complaints = []
    for suite in (os_release().codename, *_KUBECTL_SUITES):
        with tempfile.TemporaryDirectory(dir=TOOLS, prefix="apt-") as name:
            complaint = _kubectl_from(suite, Path(name))
        if complaint is None:
            find_kubectl()
            return
        complaints.append(f"  {suite}: {complaint}")
    raise ContainerToolMissingError("\n".join([str(missing), *complaints]))


def _kubectl_from(suite: str, scratch: Path) -> str | None:
    """Take kubectl from one suite; say why not, where it cannot."""
    apt, complaint = _apt(suite, scratch, beside_installed=False)
    if complaint:
        return complaint
    version = apt.offered("kubectl")  # older suites have it in kubernetes-client, and too old
    if version is None:
        return "carries no package kubectl"
    print(f"fetching kubectl={version} from {suite}", flush=True)
    if complaint := apt.download(f"kubectl={version}"):
        return complaint
    apt.unpack(scratch / "tree")
    program = scratch / "tree/usr/bin/kubectl"
    if _kubectl_version(str(program)) < _OLDEST_KUBECTL:
        return f"kubectl {version} is too old, or does not run on this machine"
    program.replace(_KUBECTL)
    return None


def _fetch_tree(missing: ContainerToolMissingError) -> None:
    """Unpack buildah and debootstrap, with the libraries that this machine does not have."""
    suite = os_release().codename
    with tempfile.TemporaryDirectory(dir=TOOLS, prefix="apt-") as name:
        scratch = Path(name)
        apt, complaint = _apt(suite, scratch, beside_installed=True)
        print(f"fetching buildah and debootstrap from {suite}", flush=True)
        complaint = complaint or apt.download_with_missing("buildah", "debootstrap", "patchelf")
        if complaint:
            raise ContainerToolMissingError(f"{missing}\n  {suite}: {complaint}")
        tree = scratch / "tree"
        apt.unpack(tree)
        _find_own_libraries(tree)
        # Only whole trees ever appear under the final name: a run that is cut leaves none.
        shutil.rmtree(_TREE, ignore_errors=True)
        tree.rename(_TREE)
    find_buildah()
    find_debootstrap()


def _find_own_libraries(tree: Path) -> None:
    """Let buildah find the libraries that came with it, in the tree's final place.

    LD_LIBRARY_PATH would not do, nor $ORIGIN: it starts itself again from a copy in memory, with
    an environment of the container's.
    """
    patchelf = shutil.which("patchelf") or str(tree / "usr/bin/patchelf")
    libraries = [str(_TREE / folder.relative_to(tree)) for folder in tree.glob("usr/lib/*-linux-*")]
    subprocess.run(
        [patchelf, "--force-rpath", "--set-rpath", ":".join(libraries), tree / "usr/bin/buildah"],
        check=True,
    )


def _apt(suite: str, scratch: Path, *, beside_installed: bool) -> tuple[PrivateApt, str | None]:
    if program := missing_program():
        raise ContainerToolMissingError(
            f"cannot fetch kubectl, buildah and debootstrap: {program} is missing, and only Debian "
            "and Ubuntu have it; install all three by hand"
        )
    lines = [source.line(suite) for source in distribution_sources(os_release().codename)]
    apt = PrivateApt(scratch, *lines, beside_installed=beside_installed)
    return apt, apt.update()


def main() -> int:
    """Fetch all."""
    try:
        fetch()
    except ContainerToolMissingError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
