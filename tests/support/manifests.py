"""A small valid manifest as JSON values, for tests to change and damage."""

import json
from typing import Any

BACKUP_ID = "backup-20250122-020000"
ULID = "01JJ5W0B8ZC6X3M1S4T9Q2V7KD"
OTHER_ULID = "01JJ5W0B8ZC6X3M1S4T9Q2V7KE"

Json = dict[str, Any]


def file(path: str = "index", *, ulid: str = ULID, **changes: Any) -> Json:
    """Return a file entry with the default key."""
    return {
        "path": path,
        "size": 10,
        "sha256": "ab" * 32,
        "key": f"{BACKUP_ID}/{ulid}/{path}",
    } | changes


def block(*files: Json, **changes: Any) -> Json:
    """Return a block entry that covers two hours."""
    return {
        "ulid": ULID,
        "min_time": "2025-01-22T00:00:00Z",
        "max_time": "2025-01-22T02:00:00Z",
        "level": 1,
        "sources": [ULID],
        "parents": [],
        "stats": {"numSamples": 7, "numSeries": 2, "numChunks": 2},
        "files": list(files) or [file()],
    } | changes


def document(**changes: Any) -> Json:
    """Return the manifest of a backup with one block; `changes` replace top-level fields.

    The totals are those of the blocks, if these can be added up.
    """
    blocks = changes.get("blocks", [block()])
    return {
        "snapshot_name": "20250122T020000Z-0123456789abcdef",
        "backup_id": BACKUP_ID,
        "timestamp": "2025-01-22T02:00:00Z",
        "prometheus_url": "http://localhost:9090",
        "retention_time": "15d",
        "storage_size_bytes": 10,
        "format_version": 1,
        "tool_version": "1.0.0",
        "run_id": "7d0c2b4e",
        "started_at": "2025-01-22T02:00:00Z",
        "finished_at": "2025-01-22T02:00:09.125Z",
        "labels": {"cluster": "eu-1", "replica": "a"},
        "degraded": [],
        "verified": "checksum",
        "prometheus": {
            "version": "3.5.0",
            "revision": "8be3a9560fbdd18a94dedec4b747c35178177202",
            "hostname": None,
            "retention": "15d",
            "out_of_order": None,
        },
        "min_time": "2025-01-22T00:00:00Z",
        "max_time": "2025-01-22T02:00:00Z",
        "blocks": blocks,
        "totals": totals(blocks),
        "fingerprints": [],
    } | changes


def totals(blocks: list[Json]) -> Json:
    """Return the totals of the blocks, or zeros if they are too damaged to add up."""
    sums = {"blocks": 0, "files": 0, "bytes": 0}
    try:
        files = [f for b in blocks for f in b["files"]]
        sums = {"blocks": len(blocks), "files": len(files), "bytes": sum(f["size"] for f in files)}
    except (TypeError, KeyError):
        pass
    return sums | {"uploaded_bytes": 10, "copied_bytes": 0}


def encoded(**changes: Any) -> bytes:
    """Return `document(**changes)` as bytes of JSON."""
    return json.dumps(document(**changes)).encode()


OLD_SCRIPT = json.dumps(
    {
        "snapshot_name": "20240301T020000Z-6a1f0c2d9b7e4835",
        "backup_id": "backup-20240301-020000",
        "timestamp": "2024-03-01T02:00:07Z",
        "prometheus_url": "http://prometheus:9090",
        "retention_time": "15d",
        "storage_size_bytes": 123456789,
    }
).encode()
"""A metadata.json of the script that this program replaced."""
