"""The base class and the field types of all documents in a repository.

Everything that is parsed with them is untrusted input. Format: docs/repository-format.md.
"""

from datetime import UTC, date, datetime
from typing import Annotated

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    ConfigDict,
    Field,
    PlainSerializer,
)

from prometheus_backup.model import rfc3339
from prometheus_backup.repository.layout import (
    check_path,
    folder_of,
    is_archive_folder,
    is_backup_id,
    is_ulid,
)


def _backup_id(text: str) -> str:
    if not is_backup_id(text):
        raise ValueError("not of the form backup-YYYYMMDD-HHMMSS")
    return text


def _ulid(text: str) -> str:
    if not is_ulid(text):
        raise ValueError("not a ULID")
    return text


def _key(text: str) -> str:
    check_path(text)
    folder, separator, _ = text.partition("/")
    if not (separator and is_backup_id(folder)) and folder_of(text) is None:
        raise ValueError("a key must be inside a backup or the archive of this repository")
    return text


def _archive_folder(text: str) -> str:
    if not is_archive_folder(text):
        raise ValueError("not a folder of the archive")
    return text


def require_printable(text: str) -> str:
    """Return a text that is safe to print. Raises ValueError for any other."""
    if not text.isprintable():
        raise ValueError("contains unprintable characters")
    return text


def _utc(value: datetime) -> datetime:
    try:
        return value.astimezone(UTC)
    except OverflowError:
        raise ValueError("is outside the years 1 to 9999 in UTC") from None


Instant = Annotated[
    AwareDatetime,
    AfterValidator(_utc),
    PlainSerializer(rfc3339, when_used="json"),
]
IsoDate = date
"""A day in UTC, as `2025-01-22`."""
BackupId = Annotated[str, AfterValidator(_backup_id)]
Ulid = Annotated[str, AfterValidator(_ulid)]
RelativePath = Annotated[str, AfterValidator(check_path)]
Key = Annotated[str, AfterValidator(_key)]
ArchiveFolder = Annotated[str, AfterValidator(_archive_folder)]
"""`archive/<ULID>/<backup that kept it first>`."""
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
StoredChecksum = Annotated[str, Field(pattern=r"^[A-Z0-9]{3,12}:[A-Za-z0-9+/=]{4,128}$")]
"""A store's checksum of a whole object: `NAME:` and base64."""
Size = Annotated[int, Field(ge=0, le=2**50)]
Count = Annotated[int, Field(ge=0)]
Text = Annotated[str, Field(max_length=4096), AfterValidator(require_printable)]
"""Printed to terminals, so it must not contain control characters."""


class Document(BaseModel):
    """Base of every stored document: strict, frozen, ignores unknown fields."""

    # Newer minor versions may add fields; a change of meaning increases format_version.
    model_config = ConfigDict(strict=True, frozen=True, extra="ignore")
