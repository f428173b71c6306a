"""Puts together the root of the final image: what the program needs of this one, and no more.

Runs in the build stage, by the Python that the image is to have: `python3 assemble.py /image`.
Taken are the program, the interpreter with its library, the shared libraries that any of them is
linked with, certificates, and the records by which scanners know of which packages the files are.
Left out are shell, package manager, and every other program.
"""

import compileall
import re
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path

PROGRAM = Path("/opt/prometheus-backup")
LIBRARY = Path(sysconfig.get_path("stdlib"))
LEFT_OUT = ("ensurepip", "idlelib", "lib2to3", "pydoc_data", "test", "tkinter", "turtledemo")
ALSO_LEFT_OUT = ("__pycache__", "config-*", "dist-packages", "site-packages")
MERGED = ("bin", "lib", "lib64", "sbin")  # links into /usr, in Debian
ALSO_TAKEN = ("etc/ld.so.cache", "etc/os-release", "etc/ssl", "usr/lib/os-release", "usr/lib/ssl")
WRITTEN = {
    "etc/passwd": "root:x:0:0:root:/:/sbin/nologin\nnobody:x:65534:65534:nobody:/:/sbin/nologin\n",
    "etc/group": "root:x:0:\nnogroup:x:65534:\n",
    "etc/nsswitch.conf": "hosts: files dns\n",
}
FOLDERS = {"dev": 0o755, "proc": 0o755, "sys": 0o755, "tmp": 0o1777}
PACKAGES = Path("/var/lib/dpkg")


def main(image: Path) -> None:
    """Make the folder `image`."""
    image.mkdir()
    for name in MERGED:
        if Path("/", name).is_symlink():
            (image / name).symlink_to(Path("/", name).readlink())
    take(PROGRAM, image)
    take(LIBRARY, image, *LEFT_OUT, *ALSO_LEFT_OUT)
    compileall.compile_dir(inside(image, LIBRARY), stripdir=image, quiet=1)
    taken = [PROGRAM / "bin" / "python3", *shared_libraries(image)]
    for path in [*taken, *(Path("/", name) for name in ALSO_TAKEN)]:
        take(path, image)
    for name, text in WRITTEN.items():
        (image / name).write_text(text)
    for name, mode in FOLDERS.items():
        (image / name).mkdir()
        (image / name).chmod(mode)
    record_packages([*taken, LIBRARY / "os.py"], image)


def inside(image: Path, path: Path) -> Path:
    """Return the place of a path in the image."""
    return image / path.relative_to("/")


def take(path: Path, image: Path, *left_out: str) -> None:
    """Copy a file, a folder or a chain of links to its place in the image."""
    path = path.parent.resolve() / path.name
    place = inside(image, path)
    place.parent.mkdir(parents=True, exist_ok=True)
    if path.is_symlink():
        if not place.is_symlink():
            place.symlink_to(path.readlink())
        take(path.parent / path.readlink(), image)
    elif path.is_dir():
        ignore = shutil.ignore_patterns(*left_out)
        shutil.copytree(path, place, symlinks=True, ignore=ignore, dirs_exist_ok=True)
    elif path.exists():
        shutil.copy2(path, place)


def shared_libraries(image: Path) -> list[Path]:
    """Return what the interpreter and the compiled modules in the image are linked with."""
    modules = [path for path in image.rglob("*.so*") if path.is_file()]
    found = set()
    for binary in [Path(sys.executable).resolve(), *modules]:
        listed = subprocess.run(["ldd", binary], capture_output=True, text=True, check=False)
        found |= set(re.findall(r"(?:=> |^\t)(/\S+) \(", listed.stdout, re.MULTILINE))
    return sorted(path for path in map(Path, found) if not path.is_relative_to(image))


def record_packages(taken: list[Path], image: Path) -> None:
    """Write down the packages that the files are of, as distroless images do."""
    owners = {"base-files", "ca-certificates", *_owners({str(path.resolve()) for path in taken})}
    records = image / "var/lib/dpkg/status.d"
    records.mkdir(parents=True)
    for record in re.split(r"\n\n+", (PACKAGES / "status").read_text()):
        name = re.match(r"Package: (\S+)", record)
        if name and name[1] in owners:
            (records / name[1]).write_text(f"{record}\n")


def _owners(files: set[str]) -> Iterator[str]:
    """Yield the packages that installed any of these files."""
    for listing in (PACKAGES / "info").glob("*.list"):
        installed = {str(Path(line).resolve()) for line in listing.read_text().splitlines()}
        if installed & files:
            yield listing.name.removesuffix(".list").partition(":")[0]


if __name__ == "__main__":
    main(Path(sys.argv[1]))
