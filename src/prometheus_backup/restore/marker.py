"""The marker of a restore into an empty directory, so that the same command can resume it."""

import contextlib
import errno
import json
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

from prometheus_backup.folder import Folder
from prometheus_backup.model import rfc3339
from prometheus_backup.repository.layout import TOOL_FOLDER
from prometheus_backup.repository.manifest import Manifest

MARKER = "restore.json"
_NONE = {errno.ENOENT, errno.ENOTDIR, errno.ELOOP}


def read_mark(target: Path) -> dict[str, str] | None:
    """Return the marker of an interrupted restore, None if there is none, {} if damaged.

    Raises OSError.
    """
    try:
        with Folder.hold(target) as held, held.child(TOOL_FOLDER) as folder:
            mark = json.loads(folder.read(MARKER))
    except OSError as error:
        if error.errno in _NONE:
            return None
        raise
    except (ValueError, RecursionError):
        return {}
    return {k: str(v) for k, v in mark.items()} if isinstance(mark, dict) else {}


def write_mark(folder: Folder, manifest: Manifest, *, began_at: datetime) -> None:
    """Record durably which backup is being restored. Raises OSError."""
    mark = {**_identity(manifest), "began_at": rfc3339(began_at)}
    folder.write(MARKER, json.dumps(mark).encode())


def is_of(mark: Mapping[str, str], manifest: Manifest) -> bool:
    """Return whether it was this backup that was being restored."""
    return _identity(manifest).items() <= mark.items()


def began_at(mark: Mapping[str, str] | None) -> datetime | None:
    """Return when an interrupted restore began, None if there is none. It began empty."""
    with contextlib.suppress(KeyError, ValueError):
        return datetime.fromisoformat((mark or {})["began_at"]).astimezone(UTC)
    return None


def _identity(manifest: Manifest) -> dict[str, str]:
    return {"backup_id": manifest.backup_id, "run_id": manifest.run_id}
