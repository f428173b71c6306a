"""Builds container images with buildah: no engine, no service, and no registry is needed.

`python -m devtools.buildah` makes what tests build the project's image from, once: a base image
with Debian and Python, and the wheels of `requirements/runtime.txt`. Only that needs the network.
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

# What the official slim images leave out, too.
_LEFT_OUT = (
    "usr/share/doc",
    "usr/share/locale",
    "usr/share/man",
    "var/cache/apt",
    "var/lib/apt/lists",
)
_KEPT = "root-of-"


class NotRootError(ContainerToolMissingError):
    """Images are built by root only."""


class Buildah:
    """One store of images, in `.tools/images`; all that is in it can be made again."""

    def __init__(self, directory: Path = IMAGES) -> None:
        """Needs root: a base image has files of several users."""
        if os.geteuid() != 0:
            raise NotRootError(
                "cannot build a container image without root: its tests will fail "
                '(sudo env "PATH=$PATH" make test)'
            )
        directory.mkdir(parents=True, exist_ok=True)
        self.program = directory / "buildah"
        self.program.write_text(_program(find_buildah(), directory))
        self.program.chmod(0o755)

    def run(self, *arguments: str | Path, timeout: float = 600) -> str:
        """What `buildah ARGUMENTS` prints; an exit other than 0 raises, with its output."""
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
        """Whether the store has this image."""
        return bool(self.run("images", "--quiet", "--filter", f"reference={image}"))

    def offline(self) -> list[str]:
        """Flags of a build in which pip finds what it needs in `WHEELS`, and no network."""
        pip = self.program.with_name("pip.conf")
        pip.write_text("[global]\nno-index = true\nfind-links = /wheels\n")
        mounts = (f"{WHEELS}:/wheels:ro", f"{pip}:/etc/pip.conf:ro")
        return ["--network=none", *(f"--volume={mount}" for mount in mounts)]

    @contextmanager
    def container(self, image: str) -> Iterator[tuple[str, Path]]:
        """A new container of an image, and its root folder; gone at the end."""
        name = self.run("from", "--pull-never", image)
        try:
            yield name, Path(self.run("mount", name))
        finally:
            self.run("rm", name)

    def root(self, image: str) -> Path:
        """The root folder of an image, unpacked once and kept: to be read only."""
        name = f"{_KEPT}{_slug(image)}"
        if name not in self._containers():
            self.run("from", "--pull-never", f"--name={name}", image)
        return Path(self.run("mount", name))

    def keep_only(self, image: str) -> None:
        """Remove all other images of the same repository, and what was unpacked of them."""
        repository = image.rpartition(":")[0]
        for name in self._containers():
            if name.startswith(f"{_KEPT}{_slug(repository)}-") and name != f"{_KEPT}{_slug(image)}":
                self.run("rm", name)
        for other in self.run("images", "--format", "{{.Name}}:{{.Tag}}").splitlines():
            if other.startswith(f"{repository}:") and other != image:
                self.run("rmi", other)

    def _containers(self) -> list[str]:
        return self.run("containers", "--format", "{{.ContainerName}}").splitlines()

    def commit(self, container: str, image: str) -> None:
        """Make an image of a container."""
        self.run("commit", container, image)


def _program(buildah: Program, directory: Path) -> str:
    """Return a script that is buildah on one store, without settings of this machine.

    vfs and chroot need nothing of the kernel that a container or a virtual machine may not have.
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
def only_one_builder() -> Iterator[None]:
    """Several test workers at once: the second waits, and finds what the first has built."""
    IMAGES.mkdir(parents=True, exist_ok=True)
    with (IMAGES / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def make_base(buildah: Buildah) -> None:
    """Make the base image, of this machine's own Debian suite."""
    debootstrap, release = find_debootstrap(), os_release()
    sources = distribution_sources(release.codename)
    if not sources:
        raise ContainerToolMissingError(
            f"cannot make a base image: no apt source of this machine names {release.codename!r}"
        )
    print(f"making a base image of {release.family} {release.codename}", flush=True)
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
            raise ContainerToolMissingError(f"cannot make a base image:\n{done.stdout[-2000:]}")
        for left_out in _LEFT_OUT:
            shutil.rmtree(root / left_out, ignore_errors=True)
        buildah.commit(container, BASE)


def fetch_wheels(buildah: Buildah) -> None:
    """Download what the pins name, for the Python of the base image."""
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
    """Make base image and wheels; then touch the file that is named, if any."""
    try:
        buildah = Buildah()
        with only_one_builder():
            if not buildah.has(BASE):
                make_base(buildah)
            fetch_wheels(buildah)
    except NotRootError as error:
        print(error, file=sys.stderr)
        return 0  # all other tests can be run
    except (ContainerToolMissingError, subprocess.CalledProcessError) as error:
        print(error, file=sys.stderr)
        return 1
    for stamp in arguments:
        Path(stamp).touch()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
