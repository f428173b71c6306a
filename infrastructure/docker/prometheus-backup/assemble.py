"""Builds the root file system of the final image from the build stage: `assemble.py /image`.

It must run with the Python that the image will contain. It copies the program, the interpreter with
its standard library, the shared libraries they are linked with, certificates, and the package
records that vulnerability scanners read. Everything else, such as the shell, is left out.
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
IGNORED_MODULES = ("ensurepip", "idlelib", "lib2to3", "pydoc_data", "test", "tkinter", "turtledemo")
IGNORED_PATTERNS = ("__pycache__", "config-*", "dist-packages", "site-packages")
MERGED = ("bin", "lib", "lib64", "sbin")  # links into /usr on Debian
ALSO_COPIED = ("etc/ld.so.cache", "etc/os-release", "etc/ssl", "usr/lib/os-release", "usr/lib/ssl")
GENERATED = {
    "etc/passwd": "root:x:0:0:root:/:/sbin/nologin\nnobody:x:65534:65534:nobody:/:/sbin/nologin\n",
    "etc/group": "root:x:0:\nnogroup:x:65534:\n",
    "etc/nsswitch.conf": "hosts: files dns\n",
}
FOLDERS = {"dev": 0o755, "proc": 0o755, "sys": 0o755, "tmp": 0o1777}
PACKAGES = Path("/var/lib/dpkg")


def main(image: Path) -> None:
    """Create the directory `image`."""
    image.mkdir()
    for name in MERGED:
        if Path("/", name).is_symlink():
            (image / name).symlink_to(Path("/", name).readlink())
    copy(PROGRAM, image)
    copy(LIBRARY, image, *IGNORED_MODULES, *IGNORED_PATTERNS)
    compileall.compile_dir(inside(image, LIBRARY), stripdir=image, quiet=1)
    copied = [PROGRAM / "bin" / "python3", *shared_libraries(image)]
    for path in [*copied, *(Path("/", name) for name in ALSO_COPIED)]:
        copy(path, image)
    for name, text in GENERATED.items():
        (image / name).write_text(text)
    for name, mode in FOLDERS.items():
        (image / name).mkdir()
        (image / name).chmod(mode)
    record_packages([*copied, LIBRARY / "os.py"], image)


def inside(image: Path, path: Path) -> Path:
    """Return the path inside the image directory."""
    return image / path.relative_to("/")


def copy(path: Path, image: Path, *ignored: str) -> None:
    """Copy a file, directory or chain of links into the image."""
    path = path.parent.resolve() / path.name
    target = inside(image, path)
    target.parent.mkdir(parents=True, exist_ok=True)
    if path.is_symlink():
        if not target.is_symlink():
            target.symlink_to(path.readlink())
        copy(path.parent / path.readlink(), image)
    elif path.is_dir():
        ignore = shutil.ignore_patterns(*ignored)
        shutil.copytree(path, target, symlinks=True, ignore=ignore, dirs_exist_ok=True)
    elif path.exists():
        shutil.copy2(path, target)


def shared_libraries(image: Path) -> list[Path]:
    """Return the libraries that the interpreter and compiled modules are linked with."""
    modules = [path for path in image.rglob("*.so*") if path.is_file()]
    found = set()
    for binary in [Path(sys.executable).resolve(), *modules]:
        listed = subprocess.run(["ldd", binary], capture_output=True, text=True, check=False)
        found |= set(re.findall(r"(?:=> |^\t)(/\S+) \(", listed.stdout, re.MULTILINE))
    return sorted(path for path in map(Path, found) if not path.is_relative_to(image))


def record_packages(copied: list[Path], image: Path) -> None:
    """Record the packages that own the files, in the format of distroless images."""
    owners = {"base-files", "ca-certificates", *_owners({str(path.resolve()) for path in copied})}
    records = image / "var/lib/dpkg/status.d"
    records.mkdir(parents=True)
    for record in re.split(r"\n\n+", (PACKAGES / "status").read_text()):
        name = re.match(r"Package: (\S+)", record)
        if name and name[1] in owners:
            (records / name[1]).write_text(f"{record}\n")


def _owners(files: set[str]) -> Iterator[str]:
    """Yield the packages that own any of these files."""
    for listing in (PACKAGES / "info").glob("*.list"):
        installed = {str(Path(line).resolve()) for line in listing.read_text().splitlines()}
        if installed & files:
            yield listing.name.removesuffix(".list").partition(":")[0]


if __name__ == "__main__":
    main(Path(sys.argv[1]))
