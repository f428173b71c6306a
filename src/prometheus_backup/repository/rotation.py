"""Reading a backup in parts: what is in which part, which part is due, what has passed. Pure.

Every backup has a rotation of its own, so that backups come and go without moving anything in
another one: a part is a function of the backup alone, and one that is committed while others are
half read is read whole in as many runs as there are parts.
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
    """Return the part, 1 to `parts`, of each of these things, by name; sizes in bytes.

    Largest first, each into the part that has fewest bytes so far, so that no part has more than
    the average and one thing besides. `seed` (the backup's id) chooses with which part to begin,
    lest the large things of all backups come together in the first.
    """
    first = int.from_bytes(hashlib.sha256(seed.encode()).digest()[:8])
    loads = [(0, turn, 1 + (first + turn) % parts) for turn in range(parts)]
    assigned = {}
    for name in sorted(sizes, key=lambda n: (-sizes[n], n)):
        load, turn, part = loads[0]
        assigned[name] = part
        # A thing without bytes counts as one byte, else they would all come into one part.
        heapq.heapreplace(loads, (load + max(sizes[name], 1), turn, part))
    return assigned


def due(rotation: Rotation | None, subset: Subset) -> RotationPart:
    """Return the part to look at: the one that was asked for, else the one that waits longest.

    Parts never looked at come first, then those at which the last look was inconclusive, but not
    twice running, so that a part that can never be read does not keep the others waiting.
    """
    if subset.part is not None:
        return RotationPart(part=subset.part, parts=subset.parts)
    looked = _looks(rotation, subset.parts)
    latest = max(looked.values(), key=lambda k: k.at, default=None)
    unsettled = {
        n
        for n in range(1, subset.parts + 1)
        if n not in looked or (_is_inconclusive(looked[n]) and looked[n] is not latest)
    }
    waiting = unsettled or looked
    number = min(waiting, key=lambda n: (looked[n].at if n in looked else _NEVER, n))
    return RotationPart(part=number, parts=subset.parts)


def last_read(rotations: Sequence[Rotation], level: Level) -> datetime:
    """Return when a rotation of this level last looked at a part; the year 1 for never.

    Runs begin with the backup that waits longest: one that is cut off every night, say by a time
    limit, would else never come to the last ones.
    """
    return max((k.at for r in rotations if r.level is level for k in r.looked), default=_NEVER)


def advanced(rotation: Rotation | None, result: Verification, *, began: datetime) -> Rotation:
    """Return the rotation after a part was looked at; `began` is when its look did.

    A rotation in another number of parts begins anew, and keeps what an earlier one has proved.
    """
    part = result.rotation
    if part is None:
        raise ValueError("a result of a whole backup belongs to no rotation")
    look = PartResult(
        part=part.part,
        at=began,
        verdict=result.verdict,
        objects=result.objects,
        bytes_read=result.bytes_read,
    )
    looks = _looks(rotation, part.parts) | {part.part: look}
    proved = rotation.passed_at if rotation else None
    if len(looks) == part.parts and all(k.verdict is Verdict.PASS for k in looks.values()):
        oldest = min(k.at for k in looks.values())
        proved = max(proved, oldest) if proved else oldest
    return Rotation(
        backup_id=result.backup_id,
        level=result.level,
        parts=part.parts,
        looked=tuple(looks[n] for n in sorted(looks)),
        passed_at=proved,
    )


def _is_inconclusive(look: PartResult) -> bool:
    return look.verdict is Verdict.INCONCLUSIVE


def _looks(rotation: Rotation | None, parts: int) -> dict[int, PartResult]:
    if rotation is None or rotation.parts != parts:
        return {}
    return {look.part: look for look in rotation.looked}
