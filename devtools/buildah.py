"""Builds container images with buildah, without a container engine, service or registry.

`python -m devtools.buildah` prepares the inputs of the project's image for the tests, once: a base
image with Debian and Python, and the wheels of `requirements/runtime.txt`. Only this needs network
access.
"""

import fcntl
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from devtools.apt_sources import distribution_sources, os_release
from devtools.fetch_container_tools import (
    TOOLS,
    ContainerToolMissingError,
    Program,
    find_buildah,
    find_debootstrap,
)

IMAGES = TOOLS / "images"
WHEELS = IMAGES / "wheels"
BASE = "localhost/base"
PINS = Path(__file__).resolve().parent.parent / "requirements" / "runtime.txt"

# The official slim images leave this out, too.
_UNWANTED = (
    "usr/share/doc",
    "usr/share/locale",
    "usr/share/man",
    "var/cache/apt",
    "var/lib/apt/lists",
)
_ROOT_PREFIX = "root-of-"


class NotRootError(ContainerToolMissingError):
    """Building images requires root."""


class Buildah:
    """One image store, in `.tools/images`; everything in it can be recreated."""

    def __init__(self, directory: Path = IMAGES) -> None:
        """Open the store. Raises `NotRootError`: a base image has files of several users."""
        if os.geteuid() != 0:
            raise NotRootError(
                "cannot build a container image without root, so its tests will fail; run "
                'sudo env "PATH=$PATH" make test'
            )
        directory.mkdir(parents=True, exist_ok=True)
        self.program = directory / "buildah"
        self.program.write_text(_program(find_buildah(), directory))
        self.program.chmod(0o755)

    def run(self, *arguments: str | Path, timeout: float = 600) -> str:
        """Run `buildah ARGUMENTS`; return its output. Raises RuntimeError if it fails."""
        done = subprocess.run(
            [self.program, *arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        if done.returncode != 0:
            raise RuntimeError(
                f"buildah {' '.join(map(str, arguments))} ended with {done.returncode}:\n"
                f"{done.stdout}{done.stderr}"
            )
        return done.stdout.strip()

    def has(self, image: str) -> bool:
        """Return whether the store has this image."""
        return bool(self.run("images", "--quiet", "--filter", f"reference={image}"))

    def offline(self) -> list[str]:
        """Return build flags that make pip use `WHEELS` instead of the network."""
        pip = self.program.with_name("pip.conf")
        pip.write_text("[global]\nno-index = true\nfind-links = /wheels\n")
        mounts = (f"{WHEELS}:/wheels:ro", f"{pip}:/etc/pip.conf:ro")
        return ["--network=none", *(f"--volume={mount}" for mount in mounts)]

    @contextmanager
    def container(self, image: str) -> Iterator[tuple[str, Path]]:
        """Create a container of an image; yield its name and root folder; then remove it."""
        name = self.run("from", "--pull-never", image)
        try:
            yield name, Path(self.run("mount", name))
        finally:
            self.run("rm", name)

    def root(self, image: str) -> Path:
        """Return the root folder of an image, unpacked once and kept. Do not change it."""
        name = f"{_ROOT_PREFIX}{_slug(image)}"
        if name not in self._containers():
            self.run("from", "--pull-never", f"--name={name}", image)
        return Path(self.run("mount", name))

    def keep_only(self, image: str) -> None:
        """Remove all other images of the same repository, and their unpacked root folders."""
        repository = image.rpartition(":")[0]
        for name in self._containers():
            if (
                name.startswith(f"{_ROOT_PREFIX}{_slug(repository)}-")
                and name != f"{_ROOT_PREFIX}{_slug(image)}"
            ):
                self.run("rm", name)
        for other in self.run("images", "--format", "{{.Name}}:{{.Tag}}").splitlines():
            if other.startswith(f"{repository}:") and other != image:
                self.run("rmi", other)

    def _containers(self) -> list[str]:
        return self.run("containers", "--format", "{{.ContainerName}}").splitlines()

    def commit(self, container: str, image: str) -> None:
        """Create an image from a container."""
        self.run("commit", container, image)


def _program(buildah: Program, directory: Path) -> str:
    """Return a wrapper script that runs buildah on one store and ignores this machine's settings.

    vfs and chroot work with every kernel, also inside containers and virtual machines.
    """
    (directory / "policy.json").write_text('{"default": [{"type": "insecureAcceptAnything"}]}\n')
    (directory / "registries.conf").write_text("unqualified-search-registries = []\n")
    flags = (
        f"--root={directory / 'storage'}",
        f"--runroot={directory / 'run'}",
        "--storage-driver=vfs",
        f"--registries-conf={directory / 'registries.conf'}",
    )
    policy = f"--signature-policy={directory / 'policy.json'}"
    return f"""#!/bin/sh
export BUILDAH_ISOLATION=chroot
command=$1
shift
case $command in
  build | commit | from) set -- {policy} "$@" ;;
esac
exec {buildah.path} {shlex.join(flags)} "$command" "$@"
"""


def _slug(image: str) -> str:
    return image.rpartition("/")[2].replace(":", "-")


@contextmanager
def exclusive_build() -> Iterator[None]:
    """Lock the store: a second test worker waits, and then finds what the first one has built."""
    IMAGES.mkdir(parents=True, exist_ok=True)
    with (IMAGES / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def create_base(buildah: Buildah) -> None:
    """Create the base image from this machine's Debian or Ubuntu suite."""
    debootstrap, release = find_debootstrap(), os_release()
    sources = distribution_sources(release.codename)
    if not sources:
        raise ContainerToolMissingError(
            f"cannot create a base image: no apt source of this machine names {release.codename!r}"
        )
    print(f"creating a base image of {release.family} {release.codename}", flush=True)
    with buildah.container("scratch") as (container, root):
        done = subprocess.run(
            [
                str(debootstrap.path),
                "--variant=minbase",
                "--include=python3-venv,ca-certificates",
                release.codename,
                str(root),
                sources[0].uri,
            ],
            env={**os.environ, **debootstrap.environment},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            raise ContainerToolMissingError(f"cannot create a base image:\n{done.stdout[-2000:]}")
        for folder in _UNWANTED:
            shutil.rmtree(root / folder, ignore_errors=True)
        buildah.commit(container, BASE)


def fetch_wheels(buildah: Buildah) -> None:
    """Download the pinned packages for the Python version of the base image."""
    with buildah.container(BASE) as (_, root):
        (version,) = [
            found[1]
            for path in (root / "usr/bin").iterdir()
            if (found := re.fullmatch(r"python(3\.\d+)", path.name))
        ]
    shutil.rmtree(WHEELS, ignore_errors=True)
    pip = [sys.executable, "-m", "pip", "download", "-qqq", "--disable-pip-version-check"]
    subprocess.run(
        [
            *pip,
            "--require-hashes",
            "--only-binary=:all:",
            f"--python-version={version}",
            "--no-deps",
            f"--requirement={PINS}",
            f"--dest={WHEELS}",
        ],
        check=True,
    )


def main(arguments: list[str]) -> int:
    """Create the base image and the wheels; then touch the stamp file, if one is given."""
    try:
        buildah = Buildah()
        with exclusive_build():
            if not buildah.has(BASE):
                create_base(buildah)
            fetch_wheels(buildah)
    except NotRootError as error:
        print(error, file=sys.stderr)
        return 0  # all other tests can still run
    except (ContainerToolMissingError, subprocess.CalledProcessError) as error:
        print(error, file=sys.stderr)
        return 1
    for stamp in arguments:
        Path(stamp).touch()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
