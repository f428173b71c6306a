"""Creates blocks of a backup and of a target, for tests of the restore and heal plans."""

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from prometheus_backup.repository.manifest import Block
from prometheus_backup.restore.target_blocks import TargetBlock
from tests.support import manifests

DAY = datetime(2025, 6, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)


def ulid(number: int) -> str:
    return f"01JJ5W0B8ZC6X3M1S4T9Q2V7{number:02d}"


def block(
    number: int,
    begin: float = 0,
    end: float = 2,
    *,
    sources: Sequence[int] = (),
    parents: Sequence[int] = (),
    stats: Mapping[str, int] | None = None,
    tombstones: str = "",
) -> Block:
    """Return a block of a backup; times are hours of the day."""
    key = f"{manifests.BACKUP_ID}/{ulid(number)}/index"
    files = [manifests.file(key=key)]
    if tombstones:
        files.append(manifests.file("tombstones", ulid=ulid(number), sha256=tombstones))
    fields: dict[str, Any] = {
        **manifests.block(*files, ulid=ulid(number)),
        "stats": stats or {},
        "min_time": (DAY + begin * HOUR).isoformat(),
        "max_time": (DAY + end * HOUR).isoformat(),
        "sources": [ulid(n) for n in sources or (number,)],
        "parents": [ulid(n) for n in parents],
    }
    return Block.model_validate_json(json.dumps(fields))


def existing(
    number: int,
    begin: float = 0,
    end: float = 2,
    *,
    sources: Sequence[int] = (),
    parents: Sequence[int] = (),
    **state: Any,
) -> TargetBlock:
    """Return a block of the target; times are hours of the day."""
    return TargetBlock(
        ulid(number),
        DAY + begin * HOUR,
        DAY + end * HOUR,
        tuple(ulid(n) for n in sources or (number,)),
        tuple(ulid(n) for n in parents),
        **state,
    )
