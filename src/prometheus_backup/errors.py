"""All errors that this program raises on purpose. Each class defines its exit code.

::

    BackupToolError                  1
    +-- UsageError                   2   settings or arguments that cannot be used
    +-- RepositoryError
    |   +-- RepositoryNotFound      10
    |   +-- RepositoryLocked        11
    |   +-- RepositoryDenied        12
    |   +-- RepositoryUnavailable   13
    |   +-- RepositoryFull          13   it can still delete
    |   +-- NewerFormat             14
    |   +-- ObjectArchived          13   it must be thawed first
    |   +-- ObjectNotFound          10   a missing key; usually handled before it gets here
    |   +-- ObjectExists            11   a create-only put of an existing key
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

    `hint` is one sentence that says what to do; each class has a general one.
    """

    exit_code: ClassVar[int] = 1
    default_hint: ClassVar[str] = ""

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = self.default_hint if hint is None else hint

    def __str__(self) -> str:
        return self.message  # callers may have added context to it

    @property
    def published_name(self) -> str:
        """Return the name of the class in the tree above, also for a subclass elsewhere."""
        return next(c.__name__ for c in type(self).__mro__ if c.__module__ == __name__)


class UsageError(BackupToolError):
    """Settings or arguments that cannot be used."""

    exit_code = 2
    default_hint = "see `prometheus-backup --help` and docs/configuration.md"


class RepositoryError(BackupToolError):
    """A request to the repository failed."""

    exit_code = 13


class RepositoryNotFound(RepositoryError):
    """The bucket or container does not exist."""

    exit_code = 10
    default_hint = "create the bucket, or correct REPOSITORY (S3_BUCKET, S3_ENDPOINT_URL)"


class RepositoryLocked(RepositoryError):
    """Another run holds the lock or the backup id."""

    exit_code = 11
    default_hint = "wait for the other run to finish, then try again"


class RepositoryDenied(RepositoryError):
    """Credentials are missing, wrong, or lack a permission."""

    exit_code = 12
    default_hint = "check the credentials and the permissions of their user or role"


class RepositoryUnavailable(RepositoryError):
    """The store did not answer, or answered with an error of its own."""

    exit_code = 13
    default_hint = "check the network, the endpoint and the health of the store, then try again"


class RepositoryFull(RepositoryError):
    """There is no room for another object, or a quota is used up."""

    exit_code = 13
    default_hint = (
        "`prometheus-backup prune` deletes what retention does not keep, and works on a full "
        "store; else lower RETENTION_*, raise the quota or free disk space"
    )


class NewerFormat(RepositoryError):
    """A backup was written by a newer version of this program."""

    exit_code = 14
    default_hint = "upgrade prometheus-backup"


class ObjectArchived(RepositoryError):
    """An object is in an archive class of S3: it must be thawed, which takes hours."""

    exit_code = 13
    default_hint = "thaw it (docs/how-to/troubleshooting.md), wait, then try again"


class ObjectNotFound(RepositoryError):
    """No object has this key."""

    exit_code = 10


class ObjectExists(RepositoryError):
    """A create-only put found that the key already exists."""

    exit_code = 11


class SourceError(BackupToolError):
    """Prometheus, the source of the backup, caused the failure."""

    exit_code = 20


class SourceUnavailable(SourceError):
    """Prometheus is down, not ready, denies access, or is not a Prometheus server."""

    exit_code = 20
    default_hint = "check PROMETHEUS_URL, and that Prometheus is running and ready"


class AdminApiDisabled(SourceError):
    """The snapshot endpoint is disabled."""

    exit_code = 21
    default_hint = (
        "start Prometheus with --web.enable-admin-api, or set SNAPSHOT_MODE=blocks, which needs no "
        "Admin API and leaves out what is only in memory"
    )


class SnapshotUnusable(SourceError):
    """The snapshot is unreadable, empty, partial, or not in the configured data directory."""

    exit_code = 22


class RestoreError(BackupToolError):
    """A restore is not possible."""

    exit_code = 33


class BackupNotFound(RestoreError):
    """No committed backup has this id."""

    exit_code = 30
    default_hint = "run `prometheus-backup list` to see all backups"


class TargetNotEmpty(RestoreError):
    """The target directory already contains data."""

    exit_code = 31
    default_hint = "restore into a new or empty directory"


class TargetWouldLoseData(RestoreError):
    """The target's retention would delete restored or existing blocks."""

    exit_code = 32


class TargetUnusable(RestoreError):
    """The target has too little space, denies access, or is not a directory."""

    exit_code = 33


class IntegrityError(BackupToolError):
    """Data is damaged."""

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
    """A signal stopped the run, after it cleaned up."""

    exit_code = 130


class Interrupted(Stopped):
    """SIGINT, Ctrl-C."""

    exit_code = 130


class Terminated(Stopped):
    """SIGTERM, or SIGHUP when the terminal or SSH session was closed."""

    exit_code = 143


class StopRequest(BaseException):
    """Carries a Stopped error from the signal handler to the command line.

    Not an Exception, like KeyboardInterrupt: code that catches failures and continues, such as a
    deletion that reports what it could not delete, must not catch this.
    """

    def __init__(self, error: Stopped) -> None:
        super().__init__(error.message)
        self.error = error
