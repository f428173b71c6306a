"""Builds the command line of each program: ours and the ones it is compared with.

Every program runs with its defaults, except for the server address and options that silence it.
`fetch_peers.py` obtains the programs, `measure.py` measures them.
"""

import os
import shlex
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

from bench.fetch_peers import Peers
from bench.measure import Command
from devtools.processes import LOOPBACK, clean_environment, free_port
from devtools.s3 import S3Endpoint

PREFIX = "data"
OURS = Path(sys.executable).parent / "prometheus-backup"
_VM_SNAPSHOT = "20260101000000-0000000000000001"
"""vmbackup reads only snapshots with names of this form."""


@dataclass(frozen=True)
class Run:
    """What one run uses: a bucket, a scratch folder, and the number of the attempt."""

    bucket: str
    folder: Path
    attempt: int


@dataclass(frozen=True)
class Commands:
    """Builds the commands. `snapshot` is the directory of a Prometheus snapshot."""

    peers: Peers
    server: S3Endpoint
    home: Path
    data_dir: Path
    snapshot: Path
    prometheus_url: str

    def _command(self, *argv: str | Path, **environment: str) -> Command:
        common = clean_environment(self.home, **self.server.environment())
        return Command(tuple(map(str, argv)), common | environment)

    # Ours

    def ours_backup(self, run: Run, level: str) -> Command:
        """A whole run against S3: snapshot call, upload, verification, manifest."""
        options = ("backup", "--verify-level", level)
        return self._command(OURS, *options, **self._our_settings(self._our_bucket(run)))

    def ours_archive(self, run: Run) -> Command:
        """The same in layout `archive`, at the default level."""
        settings = self._our_settings(self._our_bucket(run))
        return self._command(OURS, "backup", "--layout", "archive", **settings)

    def ours_backup_local(self, run: Run, level: str) -> Command:
        """The same with a directory as the repository."""
        options = ("backup", "--verify-level", level)
        repository = {"REPOSITORY": f"file://{run.folder / 'repository'}"}
        return self._command(OURS, *options, **self._our_settings(repository))

    def ours_restore(self, run: Run) -> Command:
        """Restore of the newest backup into a directory that does not exist yet."""
        settings = self._our_settings(self._our_bucket(run))
        return self._command(OURS, "restore", "latest", run.folder / "target", **settings)

    def ours_help(self, _: Run) -> Command:
        """Startup only."""
        return self._command(OURS, "--help")

    def python_start(self, _: Run) -> Command:
        """The interpreter alone, for scale."""
        return self._command(sys.executable, "-c", "pass")

    def _our_settings(self, repository: dict[str, str]) -> dict[str, str]:
        source = {"PROMETHEUS_URL": self.prometheus_url, "PROMETHEUS_DATA_DIR": str(self.data_dir)}
        return repository | source

    def _our_bucket(self, run: Run) -> dict[str, str]:
        # The other programs do not request encryption.
        return {
            "S3_BUCKET": run.bucket,
            "S3_PREFIX": PREFIX,
            "S3_ENDPOINT_URL": self.server.url,
            "S3_SSE": "none",
        }

    # Peers, first backup

    def s5cmd_upload(self, run: Run) -> Command:
        """Plain parallel copy."""
        return self._s5cmd("cp", f"{self.snapshot}/", f"s3://{run.bucket}/{PREFIX}/")

    def rclone_upload(self, run: Run) -> Command:
        """Plain copy that checksums each file before the upload."""
        return self._rclone("copy", str(self.snapshot), f":s3:{run.bucket}/{PREFIX}")

    def aws_upload(self, run: Run) -> Command:
        """The AWS command line."""
        options = ("s3", "cp", "--recursive", "--only-show-errors")
        target = f"s3://{run.bucket}/{PREFIX}/"
        return self._command(self.peers.aws, *options, self.snapshot, target)

    def restic_upload(self, run: Run) -> Command:
        """Deduplicating, encrypting and compressing backup."""
        return self._restic(self._restic_bucket(run), "backup", str(self.snapshot))

    def restic_prepare(self, run: Run) -> Command:
        """Create restic's repository."""
        return self._restic(self._restic_bucket(run), "init")

    def vmbackup_upload(self, run: Run) -> Command:
        """VictoriaMetrics' backup program, which has the same purpose as ours."""
        return self._vmbackup(f"-dst=s3://{run.bucket}/{PREFIX}")

    # Peers, second backup

    def vmbackup_second(self, run: Run) -> Command:
        """A new backup for which the store copies data from the first one."""
        origin = f"-origin=s3://{run.bucket}/{PREFIX}"
        return self._vmbackup(f"-dst=s3://{run.bucket}/second-{run.attempt}", origin)

    # Peers, restore

    def s5cmd_restore(self, run: Run) -> Command:
        """Plain parallel copy."""
        return self._s5cmd("cp", f"s3://{run.bucket}/{PREFIX}/*", f"{run.folder / 'target'}/")

    def s5cmd_restore_checked(self, run: Run) -> Command:
        """The same, then a SHA-256 of every file, which ours calculates while downloading."""
        download = self.s5cmd_restore(run)
        target = run.folder / "target"
        check = f"find {shlex.quote(str(target))} -type f -print0 | xargs -0 -P 2 -n 4 sha256sum"
        return self._command("/bin/sh", "-c", f"{shlex.join(download.argv)} && {check}")

    def vmrestore(self, run: Run) -> Command:
        """Restore of a vmbackup."""
        return self._command(
            self.peers.vmrestore,
            f"-storageDataPath={run.folder / 'target'}",
            f"-src=s3://{run.bucket}/{PREFIX}",
            *self._vm_options(),
        )

    # Peers, local store

    def rclone_local(self, run: Run) -> Command:
        """Copy between directories."""
        return self._rclone("copy", str(self.snapshot), str(run.folder / "repository"))

    def restic_local(self, run: Run) -> Command:
        """Backup into a directory."""
        return self._restic(str(run.folder / "repository"), "backup", str(self.snapshot))

    def restic_local_prepare(self, run: Run) -> Command:
        """Create restic's repository in a directory."""
        return self._restic(str(run.folder / "repository"), "init")

    def cp_local(self, run: Run) -> Command:
        """The minimum cost of copying, without checksums."""
        copy = shutil.which("cp") or "/bin/cp"
        return self._command(copy, "-r", "--reflink=never", self.snapshot, run.folder / "target")

    # Common to several

    def _s5cmd(self, *arguments: str) -> Command:
        return self._command(
            self.peers.s5cmd, "--endpoint-url", self.server.url, "--log", "error", *arguments
        )

    def _rclone(self, *arguments: str) -> Command:
        return self._command(
            self.peers.rclone,
            *arguments,
            RCLONE_CONFIG=os.devnull,
            RCLONE_S3_PROVIDER="SeaweedFS",
            RCLONE_S3_ENV_AUTH="true",
            RCLONE_S3_ENDPOINT=self.server.url,
            RCLONE_S3_REGION=self.server.region,
        )

    def _restic_bucket(self, run: Run) -> str:
        return f"s3:{self.server.url}/{run.bucket}/{PREFIX}"

    def _restic(self, repository: str, *arguments: str) -> Command:
        settings = {"RESTIC_REPOSITORY": repository, "RESTIC_PASSWORD": "bench"}
        return self._command(self.peers.restic, "--quiet", *arguments, **settings)

    def _vmbackup(self, *arguments: str) -> Command:
        return self._command(
            self.peers.vmbackup,
            f"-storageDataPath={self._vm_storage()}",
            f"-snapshotName={_VM_SNAPSHOT}",
            *arguments,
            *self._vm_options(),
        )

    def _vm_options(self) -> tuple[str, str]:
        listen = f"-httpListenAddr={LOOPBACK}:{free_port()}"
        return f"-customS3Endpoint={self.server.url}", listen

    def _vm_storage(self) -> Path:
        """Hard links to the snapshot's files in the directory layout that vmbackup requires."""
        storage = self.home / "vmstorage"
        snapshot = storage / "snapshots" / _VM_SNAPSHOT
        if not snapshot.exists():
            shutil.copytree(self.snapshot, snapshot, copy_function=os.link)
        return storage
