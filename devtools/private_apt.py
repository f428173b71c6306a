"""Runs apt with private sources, lists and cache: downloads packages, installs nothing."""

import os
import re
import shutil
import subprocess
from pathlib import Path


class PrivateApt:
    """apt with its state in a scratch folder; this machine's apt is not changed.

    With `use_installed`, dependencies that are installed on this machine are not downloaded.
    """

    def __init__(self, scratch: Path, *source_lines: str, use_installed: bool = False) -> None:
        for needed in ("state/lists/partial", "cache/archives/partial"):
            (scratch / needed).mkdir(parents=True)
        sources = scratch / "sources.list"
        sources.write_text("".join(f"{line}\n" for line in source_lines))
        self._directory = scratch
        self._configuration = scratch / "apt.conf"
        # Read after this machine's configuration, whose hooks would clean its cache and whose pins
        # could hide a suite.
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
            'APT::Sandbox::User "root";\n'  # the user _apt cannot write to this folder
            'APT::Install-Recommends "false";\n'
            'Debug::NoLocking "true";\n'  # nothing is installed, so no lock is needed
            'Acquire::Languages "none";\n'
            'Acquire::IndexTargets::deb::Contents-deb::DefaultEnabled "false";\n'
            'Acquire::IndexTargets::deb::DEP-11::DefaultEnabled "false";\n'
            'Acquire::IndexTargets::deb::CNF::DefaultEnabled "false";\n'
            'Acquire::Retries "3";\n'
        )
        if use_installed:
            with self._configuration.open("a") as configuration:
                configuration.write('Dir::State::status "/var/lib/dpkg/status";\n')

    def update(self) -> str | None:
        """Update the package lists; return the reason if that fails."""
        return _failure("update", self.run("apt-get", "update", "--error-on=any"))

    def download(self, *packages: str) -> str | None:
        """Download packages such as `prometheus=2.42.0+ds-5`; return the reason if that fails."""
        return _failure("download", self.run("apt-get", "download", *packages))

    def download_with_dependencies(self, *packages: str) -> str | None:
        """Download packages and their missing dependencies; return the reason if that fails."""
        done = self.run("apt-get", "install", "--yes", "--download-only", *packages)
        return _failure("install --download-only", done)

    def newest_version(self, package: str, version: str = "") -> str | None:
        """Return the newest version with this prefix, such as `2.42.0+ds-5+deb12u1` for `2.`."""
        for line in self.run("apt-cache", "madison", package).stdout.splitlines():
            fields = [field.strip() for field in line.split("|")]
            if len(fields) == 3 and re.match(rf"(\d+:)?{re.escape(version)}", fields[1]):
                return fields[1]
        return None

    def unpack(self, tree: Path) -> None:
        """Unpack all downloaded packages into `tree`."""
        for package in self._directory.rglob("*.deb"):
            subprocess.run(["dpkg-deb", "-x", str(package), str(tree)], check=True)

    def run(self, program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run `apt-get` or `apt-cache` with these sources."""
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
    """Return the first apt program that is missing on this machine, if any."""
    programs = ("apt-get", "apt-cache", "dpkg-deb")
    return next((program for program in programs if shutil.which(program) is None), None)


def _failure(what: str, done: subprocess.CompletedProcess[str]) -> str | None:
    if done.returncode == 0:
        return None
    lines = [line for line in done.stderr.splitlines() if line.startswith(("E:", "Err:"))]
    return f"apt-get {what} failed: {lines[-1] if lines else f'exit {done.returncode}'}"
