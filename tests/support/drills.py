"""Creates backups for drills, damages them, and drills them."""

import hashlib
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from devtools.fetch_prometheus import PrometheusBinaries
from devtools.prometheus import PrometheusServer
from prometheus_backup.repository.manifest import decode_manifest, sha256sums
from prometheus_backup.stores.local import LocalStore
from tests.support.runs import options, take_backup
from tests.support.stored_backups import LocalFiles, json_of, manifest_of, run_here

HEAD_SUM = "sum(devtools_head)"
HEAD_COUNT = "sum by (series) (count_over_time(devtools_head[20m]))"
ALL_COUNT = "sum by (series) (count_over_time(devtools_value[50y]))"
QUERIES = (HEAD_SUM, HEAD_COUNT, ALL_COUNT)
"""Together they read every block: four old ones, and the one of the head."""

EMPTY_TOMBSTONES = b"\x01\x30\xba\x30\x01\x00\x00\x00\x00"
"""A file without entries: magic, version, CRC (tsdb/docs/format/tombstones.md)."""


@dataclass(frozen=True, slots=True)
class Drillable:
    """A `file://` repository with a backup that has fingerprints. Do not change it."""

    root: Path
    backup: str
    binaries: PrometheusBinaries


def make_drillable(
    directory: Path, binaries: PrometheusBinaries, blocks: Path, *, seed: int = 0
) -> Drillable:
    """Back up a Prometheus with a head and four blocks, each with a deleted series."""
    data, root = directory / "data", directory / "repository"
    shutil.copytree(blocks, data)
    root.mkdir()
    with PrometheusServer(binaries, data) as server:
        server.fill_head(seed=seed)
        server.delete_series('devtools_value{series="3"}')
        chosen = options(fingerprints=QUERIES)
        backup = take_backup(server, LocalStore(root), chosen).manifest.backup_id
        server.kill()
    return Drillable(root, backup, binaries)


@dataclass(frozen=True, slots=True)
class Drilling:
    """Drills a backup in a copy of its repository, which tests may damage."""

    files: LocalFiles
    backup: str
    binaries: PrometheusBinaries
    scratch: Path

    def environment(self, **more: str) -> dict[str, str]:
        """Return the environment variables for the drill command."""
        return {
            **self.files.environment(),
            "PROMETHEUS_BINARY": str(self.binaries.prometheus),
            "SCRATCH_DIR": str(self.scratch),
            **more,
        }

    def run(self, *arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
        """Drill it; assert that it leaves nothing in the scratch directory."""
        done = run_here("drill", self.backup, *arguments, env=self.environment(**more))
        assert not self.scratch.exists() or not list(self.scratch.iterdir())
        return done

    def result(self, *arguments: str, code: int = 0, **more: str) -> dict[str, Any]:
        """Drill it, expecting this exit code; return the JSON document."""
        value = json_of(self.run(*arguments, "--json", **more), code=code)
        assert isinstance(value, dict)
        return value

    def kinds(self, *arguments: str) -> set[str]:
        """Drill it, expecting failure; return the kinds of the findings."""
        return {finding["kind"] for finding in self.result(*arguments, code=41)["findings"]}

    def recorded(self) -> dict[str, Any]:
        """Return the result that is stored with the backup."""
        value = json.loads(self.files.get(f"{self.backup}/verification-drill.json"))
        assert isinstance(value, dict)
        return value

    def change_manifest(self, change: Callable[[dict[str, Any]], None]) -> None:
        """Change the manifest and SHA256SUMS, so that they are still consistent."""
        document = manifest_of(self.files, self.backup)
        change(document)
        blocks = document["blocks"]
        document["totals"] |= {
            "blocks": len(blocks),
            "files": sum(len(b["files"]) for b in blocks),
            "bytes": sum(f["size"] for b in blocks for f in b["files"]),
        }
        data = json.dumps(document).encode()
        manifest = decode_manifest(data, backup_id=self.backup)
        self.files.put(f"{self.backup}/metadata.json", data)
        self.files.put(f"{self.backup}/SHA256SUMS", sha256sums(manifest))

    def replace_file(self, ulid: str, path: str, body: bytes) -> None:
        """Replace a file, and its size and checksum in the manifest."""

        def change(document: dict[str, Any]) -> None:
            (file,) = [
                file
                for block in document["blocks"]
                for file in block["files"]
                if block["ulid"] == ulid and file["path"] == path
            ]
            file |= {"size": len(body), "sha256": hashlib.sha256(body).hexdigest()}

        self.change_manifest(change)
        self.files.put(f"{self.backup}/{ulid}/{path}", body)

    def ulids(self) -> list[str]:
        """Return the backup's blocks, the oldest first and the one of the head last."""
        blocks = manifest_of(self.files, self.backup)["blocks"]
        return [b["ulid"] for b in sorted(blocks, key=lambda b: str(b["min_time"]))]


def program(path: Path, *lines: str) -> str:
    """Write an executable Python program; return its path."""
    path.write_text("\n".join([f"#!{sys.executable}", "import os, sys, time", *lines, ""]))
    path.chmod(0o755)
    return str(path)


def never_ready(drilling: Drilling, directory: Path) -> str:
    """The real Prometheus, under a URL path that the drill does not use."""
    real = str(drilling.binaries.prometheus)
    return program(
        directory / "prometheus",
        "flags = [a for a in sys.argv[1:] if not a.startswith('--web.route-prefix')]",
        f"os.execv({real!r}, [{real!r}, *flags])",
    )


def servers(scratch: Path) -> list[psutil.Process]:
    """The Prometheus processes that use a scratch directory."""
    return [
        p
        for p in psutil.process_iter(["cmdline", "cwd", "status"])
        if (p.info["cwd"] or "").startswith(f"{scratch}/")
        and "--storage.tsdb.path=../data" in (p.info["cmdline"] or ())
        and p.info["status"] != psutil.STATUS_ZOMBIE
    ]
