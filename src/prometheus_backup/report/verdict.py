"""The first line of the report: is the source protected, why, and since when. Pure."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from prometheus_backup.model import Level, counted
from prometheus_backup.repository.entry import CANNOT_BE_READ, BackupEntry, committed, newest_good
from prometheus_backup.retention.policy import FUTURE_TOLERANCE
from prometheus_backup.timeline.plan import LATE


class Protection(StrEnum):
    """Whether the newest samples could be recovered from a good backup."""

    PROTECTED = "protected"
    PROBLEMS = "protected, with problems"
    UNPROTECTED = "not protected"


@dataclass(frozen=True, slots=True)
class Verdict:
    """The verdict, its reasons, and since when it is so; None if there never was a good backup.

    Protection begins with the first of the good backups that were made without a missing one.
    """

    protection: Protection
    reasons: tuple[str, ...]
    since: datetime | None


def judge(entries: Sequence[BackupEntry], *, interval: timedelta, now: datetime) -> Verdict:
    """Judge a repository. `interval` is how often a backup is expected."""
    problems = tuple(_problems(entries, now))
    # A backup of tomorrow proves that a clock was wrong, and not that there is a backup of today.
    entries = [e for e in entries if e.time - now <= FUTURE_TOLERANCE]
    newest = newest_good(committed(entries))
    if newest is None:
        return Verdict(Protection.UNPROTECTED, ("there is no good backup", *problems), None)
    late = newest.time + interval * LATE
    if now > late:
        old = f"the newest good backup is {_age(now - newest.time)} old: {newest.backup_id}"
        return Verdict(Protection.UNPROTECTED, (old, *problems), late)
    fine = f"the newest good backup is {_age(now - newest.time)} old"
    protection = Protection.PROBLEMS if problems else Protection.PROTECTED
    return Verdict(protection, (fine, *problems), _unbroken_since(entries, interval))


def _unbroken_since(entries: Iterable[BackupEntry], interval: timedelta) -> datetime:
    times = sorted((e.time for e in entries if e.good), reverse=True)
    since = times[0]
    for time in times[1:]:
        if since - time > interval * LATE:
            break
        since = time
    return since


def _problems(entries: Sequence[BackupEntry], now: datetime) -> Iterator[str]:
    backups = committed(entries)
    failures = [f for e in backups if (f := e.failure) is not None]
    drills = sum(f.level is Level.DRILL for f in failures)
    if count := len(failures) - drills:
        yield f"{counted(count, 'backup')} failed verification"
    if drills:
        yield f"{counted(drills, 'backup')} failed a drill"
    if count := sum(e.state in CANNOT_BE_READ for e in entries):
        yield f"{counted(count, 'backup')} cannot be read"
    if count := sum(e.time - now > FUTURE_TOLERANCE for e in backups):
        yield f"{counted(count, 'backup')} dated in the future: a clock was wrong"
    if backups and backups[-1].header and backups[-1].header.degraded:
        yield "the newest backup is degraded: blocks of the source are missing"
    newest = newest_good(backups)
    if newest is not None and newest.verified is None:
        yield "the newest good backup was never verified"


def _age(age: timedelta) -> str:
    hours = max(age, timedelta()) // timedelta(hours=1)
    return counted(hours, "hour") if hours < 48 else counted(hours // 24, "day")
