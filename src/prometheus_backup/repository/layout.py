"""Names of backups and their objects (docs/repository-format.md), of blocks and of snapshots.

Only rules for text: nothing here knows whether an object with a name exists.
"""

import re
from datetime import UTC, datetime
from functools import lru_cache

from prometheus_backup.model import Layout

MANIFEST = "metadata.json"
INCOMPLETE = "incomplete.json"
SUMS = "SHA256SUMS"
RESTORE_SCRIPT = "RESTORE.sh"
OWN = "own"
"""Folder of a backup's own block files in layout `archive`, so that a copy is no data directory."""

ARCHIVE = "archive"
"""The blocks that backups share. Sorts before `backup-`, so backups stay last."""
CLAIMS = f"{ARCHIVE}/claims"
CATALOG = f"{ARCHIVE}/catalog"
"""What other documents say of each backup, in short. Sorts after the archive's folders."""
BLOCK = "block.json"
UNWANTED = "unwanted.json"
FORGOTTEN = "forgotten.json"
VERSIONS = "versions"
LAST = "last"
HOLD = "hold.json"
GUARD = "backup-19700101-000000"
"""Looks like a backup of a newer format to programs that do not know holds: they delete nothing."""
PROBE_PREFIX = ".probe-"
"""Objects that `check` writes and removes. Sorts before `backup-`, so backups stay last."""

TOOL_FOLDER = ".prometheus-backup"
"""The only folder this program creates in a data directory. Prometheus ignores it."""

_BACKUP_ID = re.compile(r"backup-([0-9]{4})" + r"([0-9]{2})" * 2 + "-" + r"([0-9]{2})" * 3)
_BACKUP_TIME = "%Y%m%d-%H%M%S"
_VERIFICATION = re.compile(r"verification-([a-z]+)(?:-[1-9][0-9]*-of-[1-9][0-9]*)?\.json")
_VERDICT = re.compile(r"verdict-([a-z]+)\.json")
_ROTATION = re.compile(r"rotation-([a-z]+)\.json")

# A ULID is 26 characters of Crockford's base 32 and begins with 48 bits of milliseconds, so the
# first character is at most 7. https://github.com/ulid/spec
_ULID = re.compile(r"[0-7][0-9A-HJKMNP-TV-Z]{25}")
_CROCKFORD = {c: i for i, c in enumerate("0123456789ABCDEFGHJKMNPQRSTVWXYZ")}

# web/api/v1/api.go snapshot(): UTC time and random hex, zero-padded since Prometheus 2.23.
_SNAPSHOT = re.compile(r"([0-9]{8}T[0-9]{6}Z)-[0-9a-f]{1,16}")


def backup_id(instant: datetime) -> str:
    """Return the id of a backup that starts at this instant."""
    return "backup-" + instant.astimezone(UTC).strftime(_BACKUP_TIME)


def backup_time(identifier: str) -> datetime:
    """Return the instant in a backup id. Raises ValueError if it is not one."""
    match = _BACKUP_ID.fullmatch(identifier)
    if match is None:
        raise ValueError(f"not a backup id: {identifier!r}")
    # strptime takes ten times as long, and a listing of the archive has a hundred thousand ids.
    year, month, day, hour, minute, second = map(int, match.groups())
    return datetime(year, month, day, hour, minute, second, tzinfo=UTC)


@lru_cache(maxsize=10_000)  # a listing of the archive asks for each object
def is_backup_id(text: str) -> bool:
    """Return whether this is `backup-YYYYMMDD-HHMMSS` with a valid date and time."""
    try:
        backup_time(text)
    except ValueError:
        return False
    return True


def claim_key(identifier: str, layout: Layout) -> str:
    """Return the key of the claim of a run that makes this backup.

    In layout `archive` it is not in the backup's folder, which then appears at the commit.
    """
    if layout is Layout.ARCHIVE:
        return f"{CLAIMS}/{identifier}.json"
    return f"{identifier}/{INCOMPLETE}"


def claimed_id(key: str) -> str | None:
    """Return the backup id in the key of a claim in the archive; None for other keys."""
    folder, _, name = key.rpartition("/")
    identifier = name.removesuffix(".json")
    is_claim = folder == CLAIMS and name.endswith(".json") and is_backup_id(identifier)
    return identifier if is_claim else None


def catalog_key(identifier: str) -> str:
    """Return the key of the catalogue's entry of a backup."""
    return f"{CATALOG}/{identifier}.json"


def catalog_blocks_key(identifier: str) -> str:
    """Return the key of the list of folders of the archive that a backup names."""
    return f"{CATALOG}/{identifier}-blocks.json.gz"


def catalogued_id(key: str) -> str | None:
    """Return the backup id in the key of an entry of the catalogue; None for other keys."""
    identifier = key.removeprefix(f"{CATALOG}/").removesuffix(".json")
    return identifier if is_backup_id(identifier) and catalog_key(identifier) == key else None


def version_of(key: str) -> tuple[str, str] | None:
    """Return the path and the backup of a version of a file in the archive; None for other keys."""
    parts = key.split("/", maxsplit=5)
    return (parts[5], parts[4]) if len(parts) == 6 and parts[3] == VERSIONS else None


def archive_folder(ulid: str, keeper: str) -> str:
    """Return the folder of a block in the archive; `keeper` is the backup that kept it first."""
    return f"{ARCHIVE}/{ulid}/{keeper}"


def folder_of(key: str) -> str | None:
    """Return the archive folder that a key is in; None if it is in none."""
    parts = key.split("/")
    if len(parts) > 3 and parts[0] == ARCHIVE and is_ulid(parts[1]) and is_backup_id(parts[2]):
        return "/".join(parts[:3])
    return None


_LAST = re.compile(r"(backup-[0-9]{8}-[0-9]{6})_(-?[0-9]{1,19})_(-?[0-9]{1,19})(_partial)?\.json")


def last_name(backup: str, begin_ms: int, end_ms: int, *, partial: bool) -> str:
    """Return the name of the object that says which backup was the last to name a folder.

    All that the history is decided by is in the name, so that a listing is enough.
    """
    return f"{LAST}/{backup}_{begin_ms}_{end_ms}{'_partial' if partial else ''}.json"


def parse_last(name: str) -> tuple[str, int, int, bool] | None:
    """Return backup id, begin, end and `partial` of such a name; None for other names."""
    match = _LAST.fullmatch(name.removeprefix(f"{LAST}/"))
    if match is None or not name.startswith(f"{LAST}/") or not is_backup_id(match[1]):
        return None
    return match[1], int(match[2]), int(match[3]), match[4] is not None


@lru_cache(maxsize=50_000)  # the catalogue names each folder once for every backup
def is_archive_folder(name: str) -> bool:
    """Return whether this is the name of a folder of the archive."""
    return folder_of(f"{name}/") == name


def verification_name(level: str, *, part: tuple[int, int] | None = None) -> str:
    """Return the name of the object that holds the last result of a verification level.

    With `part` (number, total), the object that holds the faults of that part.
    """
    suffix = f"-{part[0]}-of-{part[1]}" if part else ""
    return f"verification-{level}{suffix}.json"


def verification_level(name: str) -> str | None:
    """Return the level whose result an object of this name contains; None for other names."""
    match = _VERIFICATION.fullmatch(name)
    return match[1] if match else None


def verdict_name(level: str) -> str:
    """Return the name of the object that holds the faults that a level found in a folder."""
    return f"verdict-{level}.json"


def is_verdict_name(name: str) -> bool:
    """Return whether an object of this name holds the faults of a folder of the archive."""
    return _VERDICT.fullmatch(name) is not None


def is_control_path(path: str) -> bool:
    """Return whether this path in a folder of the archive is not a file that all backups share."""
    return (
        path in (BLOCK, UNWANTED, FORGOTTEN) or path.startswith((f"{VERSIONS}/", f"{LAST}/"))
    ) or is_verdict_name(path)


def rotation_name(level: str) -> str:
    """Return the name of the object that holds the progress of a level's rotation."""
    return f"rotation-{level}.json"


def is_rotation_name(name: str) -> bool:
    """Return whether an object of this name holds the progress of a rotation."""
    return _ROTATION.fullmatch(name) is not None


def is_result_name(name: str) -> bool:
    """Return whether an object of this name holds a result of verification."""
    return is_rotation_name(name) or verification_level(name) is not None


def is_ulid(text: str) -> bool:
    """Return whether this can be the name of a block."""
    return _ULID.fullmatch(text) is not None


def ulid_time_ms(ulid: str) -> int:
    """Return the creation time in a ULID, in milliseconds since 1970."""
    value = 0
    for character in ulid[:10]:
        value = value * 32 + _CROCKFORD[character]
    return value


def snapshot_time(name: str) -> datetime | None:
    """Return when Prometheus began the snapshot of this name; None for other names."""
    match = _SNAPSHOT.fullmatch(name)
    if match is None:
        return None
    try:
        return datetime.strptime(match[1], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
    except ValueError:
        return None


_FORBIDDEN = re.compile(r"[\x00-\x1f\x7f\\]")
_MAX_DEPTH = 16
"""Maximum number of names in a path. A block needs two (`chunks/000001`), a key four."""


def check_path(path: str) -> str:
    """Return the path if it is relative and stays below its root; raise ValueError otherwise.

    Manifests are untrusted input: check a path from one before it is joined to a directory.
    """
    if not path or len(path) > 512:
        raise ValueError("a path must have 1 to 512 characters")
    if _FORBIDDEN.search(path):
        raise ValueError(f"control characters or backslashes in path {path!r}")
    parts = path.split("/")
    if len(parts) > _MAX_DEPTH:
        raise ValueError(f"a path must have at most {_MAX_DEPTH} names")
    if any(part in ("", ".", "..") for part in parts):
        raise ValueError(f"path {path!r} is absolute or leaves its directory")
    return path
