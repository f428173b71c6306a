"""The error for an object in an archive class of S3, with the commands that thaw it."""

import re

from prometheus_backup.errors import ObjectArchived

CODES = ("InvalidObjectState", "ObjectNotInActiveTierError")
"""S3's error codes for reading and for copying such an object."""

_DAYS = 7
_BACKUP = re.compile(r"s3://(?P<bucket>[^/]+)/(?P<prefix>.*?backup-\d{8}-\d{6}/)")


def archived(verb: str, place: str) -> ObjectArchived:
    """Return the error for an archived object at `s3://BUCKET/KEY`, with the command that thaws it.

    If the object belongs to a backup, the command thaws the whole backup.
    """
    message = (
        f"cannot {verb} {place}: it is archived (GLACIER or DEEP_ARCHIVE) and must be thawed "
        "first, which takes hours"
    )
    found = _BACKUP.match(place)
    return ObjectArchived(message, hint=_hint(found["bucket"], found["prefix"]) if found else None)


def _hint(bucket: str, prefix: str) -> str:
    return (
        f"thaw the backup, then run this again: {thaw_command(bucket, prefix)} ; "
        f"check the progress with: {progress_command(bucket, prefix)}"
    )


def thaw_command(bucket: str, prefix: str) -> str:
    """Return the shell command that asks S3 to thaw all archived objects below a prefix."""
    request = f"Days={_DAYS},GlacierJobParameters={{Tier=Standard}}"
    return (
        f"aws s3api list-objects-v2 --bucket {bucket} --prefix {prefix} --output text --query "
        "\"Contents[?StorageClass=='GLACIER'||StorageClass=='DEEP_ARCHIVE'].[Key]\" | xargs -I KEY "
        f"aws s3api restore-object --bucket {bucket} --key KEY --restore-request '{request}'"
    )


def progress_command(bucket: str, prefix: str) -> str:
    """Return the shell command that prints for each object whether it is thawed."""
    return (
        f"aws s3api list-objects-v2 --bucket {bucket} --prefix {prefix} --output text "
        '--optional-object-attributes RestoreStatus --query "Contents[].[Key,StorageClass,'
        'RestoreStatus.IsRestoreInProgress]"'
    )
