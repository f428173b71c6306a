"""Verify a backup in parts: which object is in which part, which part is due. Pure.

Every backup has its own rotation, and its parts depend on nothing but the backup. New and deleted
backups therefore do not change the parts of the others, and every backup is verified completely in
as many runs as it has parts.
"""

import hashlib
import heapq
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

from prometheus_backup.model import Level, Subset, Verdict
from prometheus_backup.repository.verification import (
    PartResult,
    Rotation,
    RotationPart,
    Verification,
)

_NEVER = datetime.min.replace(tzinfo=UTC)


def assign(sizes: Mapping[str, int], parts: int, *, seed: str) -> dict[str, int]:
    """Return the part, 1 to `parts`, of each item, by name; sizes in bytes.

    The largest item comes first, and each goes to the part with the fewest bytes so far. So no part
    exceeds the average by more than one item. `seed` (the backup's id) selects the first part:
    otherwise the largest item of every backup would be in part 1.
    """
    first = int.from_bytes(hashlib.sha256(seed.encode()).digest()[:8])
    loads = [(0, turn, 1 + (first + turn) % parts) for turn in range(parts)]
    assigned = {}
    for name in sorted(sizes, key=lambda n: (-sizes[n], n)):
        load, turn, part = loads[0]
        assigned[name] = part
        # An empty item counts as one byte, otherwise all of them would go to the same part.
        heapq.heapreplace(loads, (load + max(sizes[name], 1), turn, part))
    return assigned


def due(rotation: Rotation | None, subset: Subset) -> RotationPart:
    """Return the part to verify: the requested one, or the one that was not read for longest.

    Parts never read come first, then those whose last result was inconclusive. The latest result
    does not count, so that a part that can never be read does not block the others.
    """
    if subset.part is not None:
        return RotationPart(part=subset.part, parts=subset.parts)
    results = _results(rotation, subset.parts)
    latest = max(results.values(), key=lambda k: k.at, default=None)
    unsettled = {
        n
        for n in range(1, subset.parts + 1)
        if n not in results or (_is_inconclusive(results[n]) and results[n] is not latest)
    }
    waiting = unsettled or results
    number = min(waiting, key=lambda n: (results[n].at if n in results else _NEVER, n))
    return RotationPart(part=number, parts=subset.parts)


def last_read(rotations: Sequence[Rotation], level: Level) -> datetime:
    """Return when a rotation of this level last read a part; the year 1 if never.

    Runs begin with the backup that was not read for longest. Otherwise runs that are interrupted
    every night, say by a time limit, would never reach the last backups.
    """
    return max((k.at for r in rotations if r.level is level for k in r.looked), default=_NEVER)


def advance(rotation: Rotation | None, result: Verification, *, started_at: datetime) -> Rotation:
    """Return the rotation after a part was verified; `started_at` is when that began.

    If the number of parts has changed, a new rotation begins and keeps `passed_at`.
    """
    part = result.rotation
    if part is None:
        raise ValueError("the result of a whole backup belongs to no rotation")
    new = PartResult(
        part=part.part,
        at=started_at,
        verdict=result.verdict,
        objects=result.objects,
        bytes_read=result.bytes_read,
    )
    results = _results(rotation, part.parts) | {part.part: new}
    passed_at = rotation.passed_at if rotation else None
    if len(results) == part.parts and all(r.verdict is Verdict.PASS for r in results.values()):
        oldest = min(r.at for r in results.values())
        passed_at = max(passed_at, oldest) if passed_at else oldest
    return Rotation(
        backup_id=result.backup_id,
        level=result.level,
        parts=part.parts,
        looked=tuple(results[n] for n in sorted(results)),
        passed_at=passed_at,
    )


def _is_inconclusive(result: PartResult) -> bool:
    return result.verdict is Verdict.INCONCLUSIVE


def _results(rotation: Rotation | None, parts: int) -> dict[int, PartResult]:
    if rotation is None or rotation.parts != parts:
        return {}
    return {result.part: result for result in rotation.looked}
