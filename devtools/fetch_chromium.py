"""Fetches Chromium from its Debian package into `.tools/`, for the tests of the report.

Like `fetch_prometheus`, it installs nothing, starts no service, and uses the archive from this
machine's apt sources. A Chromium that is already installed is used.
"""

import os
import shutil
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from devtools.apt_sources import distribution_sources, os_release
from devtools.private_apt import PrivateApt, missing_program

TOOLS = Path(__file__).resolve().parent.parent / ".tools"
_TREE = TOOLS / "chromium"
_PROGRAM = _TREE / "usr/lib/chromium/chromium"
_PACKAGES = ("chromium", "fonts-dejavu-core")
_NEEDLESS = ("usr/share/doc", "usr/share/man", "usr/share/locale", "usr/share/icons")
_ALIASES = {
    "sans": "DejaVu Sans",
    "system-ui": "DejaVu Sans",
    "sans-serif": "DejaVu Sans",
    "monospace": "DejaVu Sans Mono",
}
_FONTS = _TREE / "fonts.conf"


class ChromiumMissingError(RuntimeError):
    """Chromium is missing; the message says how to get it."""


@dataclass(frozen=True)
class Chromium:
    """The program, and the environment variables that it needs to run from `.tools/`."""

    path: Path
    environment: dict[str, str]


def find() -> Chromium:
    """Find the program: from `CHROMIUM`, else `.tools/`, else PATH."""
    named = os.environ.get("CHROMIUM")
    if named and os.access(named, os.X_OK):
        return Chromium(Path(named), {})
    if os.access(_PROGRAM, os.X_OK):
        libraries = {str(p.parent) for p in _TREE.glob("usr/lib/*-linux-*/**/*.so*")}
        environment = {"LD_LIBRARY_PATH": ":".join(sorted(libraries))}
        return Chromium(_PROGRAM, environment | {"FONTCONFIG_FILE": str(_FONTS)})
    if installed := shutil.which("chromium"):
        return Chromium(Path(installed), {})
    raise ChromiumMissingError(
        "cannot find Chromium: run `make test`, which fetches it, or `apt-get install chromium`, "
        "or set CHROMIUM to its path"
    )


def fetch() -> Chromium:
    """Find the program; if it is missing, download it into `.tools/` first."""
    TOOLS.mkdir(exist_ok=True)
    try:
        return find()
    except ChromiumMissingError as error:
        if program := missing_program():
            raise ChromiumMissingError(f"{error} ({program} is missing)") from None
        suite = os_release().codename
        if failure := _download(suite):
            raise ChromiumMissingError(f"{error}\n  {suite}: {failure}") from None
        return find()


def _download(suite: str) -> str | None:
    """Unpack it with the libraries that this machine lacks; return the reason if that fails."""
    with tempfile.TemporaryDirectory(dir=TOOLS, prefix="apt-") as name:
        scratch = Path(name)
        lines = [source.line(suite) for source in distribution_sources(suite)]
        apt = PrivateApt(scratch, *lines, use_installed=True)
        print(f"fetching {' and '.join(_PACKAGES)} from {suite}", flush=True)
        if failure := apt.update() or apt.download_with_dependencies(*_PACKAGES):
            return failure
        tree = scratch / "tree"
        apt.unpack(tree)
        for folder in _NEEDLESS:
            shutil.rmtree(tree / folder, ignore_errors=True)
        (tree / _FONTS.name).write_text(
            '<?xml version="1.0"?><!DOCTYPE fontconfig SYSTEM "fonts.dtd"><fontconfig>'
            '<include ignore_missing="yes">/etc/fonts/fonts.conf</include>'
            f"<dir>{_TREE}/usr/share/fonts</dir><dir>/usr/share/fonts</dir>"
            f"<cachedir>{_TREE}/font-cache</cachedir>"
            + "".join(
                f"<alias><family>{name}</family><prefer><family>{font}</family></prefer></alias>"
                for name, font in _ALIASES.items()
            )
            + "</fontconfig>\n"
        )
        # Renamed when complete, so that an interrupted run never leaves a partial tree.
        shutil.rmtree(_TREE, ignore_errors=True)
        tree.rename(_TREE)
    return None


def main() -> int:
    """Fetch it."""
    try:
        print(fetch().path)
    except ChromiumMissingError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
