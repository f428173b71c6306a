"""Find the backups that a name may mean: an id, the beginning of one, or a date. Pure.

A date such as `2026-03-01` means that day in UTC.
"""

import re
from bisect import bisect_left
from collections.abc import Sequence

from prometheus_backup.repository.layout import is_backup_id

_PREFIX = "backup-"
_DATE = re.compile(r"(\d{4})-(\d\d)-(\d\d)")


def is_date(name: str) -> bool:
    """Return whether the name is a date, which means the newest good backup of that day."""
    return _DATE.fullmatch(name) is not None


def matching(name: str, ids: Sequence[str]) -> tuple[str, ...]:
    """Return the ids, of these sorted ones, that the name may mean, oldest first."""
    if is_backup_id(name):
        return (name,) if name in ids else ()
    beginning = _beginning(name)
    return tuple(i for i in ids if i.startswith(beginning)) if beginning else ()


def neighbours(name: str, ids: Sequence[str]) -> tuple[str, ...]:
    """Return the newest id before what the name means, and the oldest after it."""
    place = bisect_left(ids, _beginning(name) or name)
    after = [i for i in ids[place:] if not i.startswith(_beginning(name) or name)]
    return (*ids[max(place - 1, 0) : place], *after[:1])


def _beginning(name: str) -> str:
    """Return the beginning of the ids that the name may mean; empty if there are none."""
    if date := _DATE.fullmatch(name):
        return _PREFIX + "".join(date.groups())
    return name if name.startswith(_PREFIX) and len(name) > len(_PREFIX) else ""
