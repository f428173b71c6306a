"""apt with sources, lists and cache of its own: takes packages of any suite, installs nothing."""

import os
import re
import shutil
import subprocess
from pathlib import Path


class PrivateApt:
    """One set of sources in a scratch folder; the machine's own apt stays untouched.

    With `beside_installed`, what is installed on this machine counts as there, so that `install`
    downloads only what is missing; without, nothing is installed.
    """

    def __init__(self, scratch: Path, *source_lines: str, beside_installed: bool = False) -> None:
        for needed in ("state/lists/partial", "cache/archives/partial"):
            (scratch / needed).mkdir(parents=True)
        sources = scratch / "sources.list"
        sources.write_text("".join(f"{line}\n" for line in source_lines))
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
            'APT::Install-Recommends "false";\n'
            'Debug::NoLocking "true";\n'  # the lock is the machine's, and nothing is installed
            'Acquire::Languages "none";\n'
            'Acquire::IndexTargets::deb::Contents-deb::DefaultEnabled "false";\n'
            'Acquire::IndexTargets::deb::DEP-11::DefaultEnabled "false";\n'
            'Acquire::IndexTargets::deb::CNF::DefaultEnabled "false";\n'
            'Acquire::Retries "3";\n'
        )
        if beside_installed:
            with self._configuration.open("a") as configuration:
                configuration.write('Dir::State::status "/var/lib/dpkg/status";\n')

    def update(self) -> str | None:
        """Read the lists; say why not, where that fails."""
        return _complaint("update", self.run("apt-get", "update", "--error-on=any"))

    def download(self, *packages: str) -> str | None:
        """Download these packages alone, such as `prometheus=2.42.0+ds-5`; say why not."""
        return _complaint("download", self.run("apt-get", "download", *packages))

    def download_with_missing(self, *packages: str) -> str | None:
        """Download these packages and all that they need and is not installed; say why not."""
        done = self.run("apt-get", "install", "--yes", "--download-only", *packages)
        return _complaint("install --download-only", done)

    def offered(self, package: str, version: str = "") -> str | None:
        """The newest version on offer that starts so, such as `2.42.0+ds-5+deb12u1` for `2.`."""
        for line in self.run("apt-cache", "madison", package).stdout.splitlines():
            fields = [field.strip() for field in line.split("|")]
            if len(fields) == 3 and re.match(rf"(\d+:)?{re.escape(version)}", fields[1]):
                return fields[1]
        return None

    def unpack(self, tree: Path) -> None:
        """Unpack all that was downloaded into `tree`."""
        for package in self._directory.rglob("*.deb"):
            subprocess.run(["dpkg-deb", "-x", str(package), str(tree)], check=True)

    def run(self, program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run `apt-get` or `apt-cache` on these sources."""
        return subprocess.run(
            [program, "-q", "-c", str(self._configuration), *arguments],
            cwd=self._directory,
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            env={**os.environ, "LC_ALL": "C.UTF-8", "DEBIAN_FRONTEND": "noninteractive"},
            check=False,
        )


def missing_program() -> str | None:
    """Name the first program of apt that this machine does not have, if any."""
    programs = ("apt-get", "apt-cache", "dpkg-deb")
    return next((program for program in programs if shutil.which(program) is None), None)


def _complaint(what: str, done: subprocess.CompletedProcess[str]) -> str | None:
    if done.returncode == 0:
        return None
    lines = [line for line in done.stderr.splitlines() if line.startswith(("E:", "Err:"))]
    return f"apt-get {what} failed: {lines[-1] if lines else f'exit {done.returncode}'}"
