"""All errors that this program raises on purpose. Each class defines its exit code.

::

    BackupToolError                  1
    +-- UsageError                   2   settings or arguments that cannot be used
    +-- RepositoryError
    |   +-- RepositoryNotFound      10
    |   +-- RepositoryLocked        11
    |   +-- RepositoryDenied        12
    |   +-- RepositoryUnavailable   13
    |   +-- NewerFormat             14
    |   +-- ObjectArchived          13   it must be thawed first
    |   +-- ObjectNotFound          10   a key that is absent; mostly caught below the ops
    |   +-- ObjectExists            11   a create-only put that lost
    +-- SourceError
    |   +-- SourceUnavailable       20
    |   +-- AdminApiDisabled        21
    |   +-- SnapshotUnusable        22
    +-- RestoreError
    |   +-- BackupNotFound          30
    |   +-- TargetNotEmpty          31
    |   +-- TargetWouldLoseData     32
    |   +-- TargetUnusable          33
    +-- IntegrityError
    |   +-- BytesDiffer             40   during a run
    |   +-- UnreadableManifest      41
    +-- Stopped
        +-- Interrupted            130
        +-- Terminated             143

Outcomes that are not errors (done in part, findings) are `model.Outcome`. A message has the form
`cannot <verb> <object>: <cause>`; the hint says what to do.
"""

from typing import ClassVar


class BackupToolError(Exception):
    """Root of the tree.

    `hint` is one sentence for the reader at 3 a.m. about what to do; the class has a general one.
    """

    exit_code: ClassVar[int] = 1
    default_hint: ClassVar[str] = ""

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = self.default_hint if hint is None else hint

    def __str__(self) -> str:
        return self.message  # which may have been given a context on its way up


class UsageError(BackupToolError):
    """Settings or arguments that cannot be used."""

    exit_code = 2
    default_hint = "see `prometheus-backup --help` and docs/configuration.md"


class RepositoryError(BackupToolError):
    """The repository could not do what was asked."""

    exit_code = 13


class RepositoryNotFound(RepositoryError):
    """The bucket or container does not exist."""

    exit_code = 10
    default_hint = "create the bucket, or correct REPOSITORY (S3_BUCKET, S3_ENDPOINT_URL)"


class RepositoryLocked(RepositoryError):
    """Another run is at work."""

    exit_code = 11
    default_hint = "wait for the other run to finish, then try again"


class RepositoryDenied(RepositoryError):
    """Credentials are missing, wrong, or not enough."""

    exit_code = 12
    default_hint = "check the credentials and the permissions of their user or role"


class RepositoryUnavailable(RepositoryError):
    """The store did not answer, or answered with an error of its own."""

    exit_code = 13
    default_hint = "check the network, the endpoint and the health of the store, then try again"


class NewerFormat(RepositoryError):
    """A backup was written by a newer version of this program."""

    exit_code = 14
    default_hint = "upgrade prometheus-backup"


class ObjectArchived(RepositoryError):
    """An object is in an archive class of S3: it must be thawed, for hours, before it is read."""

    exit_code = 13
    default_hint = "thaw it (docs/how-to/troubleshooting.md), wait, then try again"


class ObjectNotFound(RepositoryError):
    """No object has this key."""

    exit_code = 10


class ObjectExists(RepositoryError):
    """A create-only put found the key taken."""

    exit_code = 11


class SourceError(BackupToolError):
    """The Prometheus that is backed up is the cause."""

    exit_code = 20


class SourceUnavailable(SourceError):
    """Prometheus is down, not ready, refuses us, or is no Prometheus server."""

    exit_code = 20
    default_hint = "check PROMETHEUS_URL, and that Prometheus is running and ready"


class AdminApiDisabled(SourceError):
    """The snapshot endpoint is switched off."""

    exit_code = 21
    default_hint = "start Prometheus with --web.enable-admin-api"


class SnapshotUnusable(SourceError):
    """The snapshot is unreadable, empty, partial, or not on the data directory that we see."""

    exit_code = 22


class RestoreError(BackupToolError):
    """A restore cannot be done as asked."""

    exit_code = 33


class BackupNotFound(RestoreError):
    """No committed backup has this id."""

    exit_code = 30
    default_hint = "run `prometheus-backup list` to see all backups"


class TargetNotEmpty(RestoreError):
    """The target directory holds something already."""

    exit_code = 31
    default_hint = "restore into a new or empty directory"


class TargetWouldLoseData(RestoreError):
    """The target's retention would delete restored or existing blocks."""

    exit_code = 32


class TargetUnusable(RestoreError):
    """No room, no permission, or not a directory."""

    exit_code = 33


class IntegrityError(BackupToolError):
    """Bytes are not what they should be."""

    exit_code = 40


class BytesDiffer(IntegrityError):
    """Bytes read, stored or copied are wrong, and sending them again did not help."""

    exit_code = 40
    default_hint = "nothing was committed; check the disk, the memory and the store, then try again"


class UnreadableManifest(IntegrityError):
    """A backup's metadata.json is not a manifest that can be trusted."""

    exit_code = 41
    default_hint = "the backup is kept and never changed; inspect its metadata.json by hand"


class Stopped(BackupToolError):
    """A signal asked the run to end; it cleaned up first."""

    exit_code = 130


class Interrupted(Stopped):
    """SIGINT, Ctrl-C."""

    exit_code = 130


class Terminated(Stopped):
    """SIGTERM."""

    exit_code = 143


class StopRequest(BaseException):
    """Carries a Stopped from the signal to the command line.

    No Exception, as KeyboardInterrupt is none: code that passes over a failure and goes on, such as
    a deletion that reports what it could not delete, must not pass over this.
    """

    def __init__(self, error: Stopped) -> None:
        super().__init__(error.message)
        self.error = error
