"""Metrics of a repository, computed from its entries alone.

They stay correct if a CronJob stops, a Pushgateway is lost or a pod restarts.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from statistics import median

from prometheus_backup import __version__
from prometheus_backup.metrics.families import Sample, sample
from prometheus_backup.model import Layout, Level, Tier, Verdict
from prometheus_backup.repository.archive import ArchivedFolder
from prometheus_backup.repository.entry import BackupEntry, State, committed, newest_good
from prometheus_backup.repository.manifest import Header
from prometheus_backup.repository.verification import Verification, passed_levels
from prometheus_backup.retention.contents import continuous
from prometheus_backup.retention.policy import Policy, decide
from prometheus_backup.retention.prune import candidates

_MEDIAN_MOST = 7
_MEDIAN_LEAST = 3
_NONE = "none"


def repository_samples(
    entries: Sequence[BackupEntry],
    folders: Mapping[str, ArchivedFolder],
    *,
    policy: Policy,
    interval: timedelta,
    now: datetime,
) -> list[Sample]:
    """Return the metrics of a repository; entries are sorted, oldest first.

    `folders` are those of the archive.
    """
    backups = committed(entries)
    good = [e for e in backups if e.good]
    return [
        sample("build_info", 1, version=__version__),
        sample("repository_read_timestamp_seconds", now.timestamp()),
        sample("expected_interval_seconds", interval.total_seconds()),
        sample("good_backups", len(good)),
        sample("repository_size_bytes", _size(backups, folders)),
        *_tiers(backups, policy=policy, now=now),
        *_states(entries),
        *_holds(entries, now=now),
        *_newest(backups),
        *_archive(entries, folders),
        *_recoverable_range(good),
        *_verified(backups),
        *_verifications(entries),
        *_drill([v for e in entries for v in e.verifications if v.level is Level.DRILL]),
    ]


def _headers(entries: Iterable[BackupEntry]) -> list[Header]:
    return [e.header for e in entries if e.header is not None]


def _size(backups: Sequence[BackupEntry], folders: Mapping[str, ArchivedFolder]) -> int:
    """Return the size of all backups; in layout `archive`, all blocks are in the archive."""
    whole = (h.totals.bytes for h in _headers(backups) if h.layout is Layout.FULL)
    return sum(whole) + sum(f.size for f in folders.values())


def _archive(
    entries: Sequence[BackupEntry], folders: Mapping[str, ArchivedFolder]
) -> Iterable[Sample]:
    unwanted = [f for f in folders.values() if f.marked_at is not None]
    yield sample("archive_size_bytes", sum(f.size for f in folders.values()))
    yield sample("archive_blocks", len(folders))
    yield sample("archive_unwanted_size_bytes", sum(f.size for f in unwanted))
    yield sample("archive_unwanted_blocks", len(unwanted))
    without_hole = continuous(entries, folders)
    if without_hole is not None:
        at = without_hole.start.timestamp()
        yield sample("archive_oldest_continuous_timestamp_seconds", at)


def _tiers(backups: Sequence[BackupEntry], *, policy: Policy, now: datetime) -> Iterable[Sample]:
    decisions = decide(candidates(backups), today=now.date(), policy=policy, now=now)
    counts = Counter(d.tiers[-1].value if d.tiers else _NONE for d in decisions)
    for tier in (*(t.value for t in Tier), _NONE):
        yield sample("backups", counts[tier], tier=tier)


def _states(entries: Sequence[BackupEntry]) -> Iterable[Sample]:
    states = Counter(e.state for e in entries)
    failures = [e.failure for e in committed(entries) if e.failure is not None]
    causes = {
        "degraded": sum(bool(h.degraded) for h in _headers(entries)),
        "verification_failed": sum(f.level is not Level.DRILL for f in failures),
        "drill_failed": sum(f.level is Level.DRILL for f in failures),
        "unreadable": states[State.UNREADABLE],
        "archived": states[State.ARCHIVED],
        "newer_format": states[State.NEWER],
    }
    for cause, count in causes.items():
        yield sample("unusable_backups", count, cause=cause)
    begun = [e.time for e in entries if e.state is not State.FOREIGN]
    if begun:
        yield sample("last_begun_timestamp_seconds", max(begun).timestamp())
    for state in (State.INCOMPLETE, State.DELETING):
        yield sample("unfinished_backups", states[state], state=state.value)


def _holds(entries: Sequence[BackupEntry], *, now: datetime) -> Iterable[Sample]:
    held = [(e.backup_id, e.hold) for e in entries if e.hold and e.held(now.date())]
    yield sample("held_backups", len(held))
    for backup_id, hold in held:
        until = hold.until.isoformat() if hold.until else ""
        yield sample("hold_info", 1, backup_id=backup_id, until=until, reason=hold.reason)


def _newest(backups: Sequence[BackupEntry]) -> Iterable[Sample]:
    good = newest_good(backups)
    if good and good.header:
        yield sample("last_good_backup_timestamp_seconds", good.header.finished_at.timestamp())
    headers = _headers(backups)
    if not headers:
        return
    newest = headers[-1]
    totals = newest.totals
    yield sample("oldest_backup_timestamp_seconds", backups[0].time.timestamp())
    yield sample("last_backup_timestamp_seconds", newest.finished_at.timestamp())
    yield sample("last_backup_size_bytes", totals.bytes)
    yield sample("last_backup_blocks", totals.blocks)
    yield sample("last_backup_files", totals.files)
    yield sample("last_backup_uploaded_bytes", totals.uploaded_bytes)
    yield sample("last_backup_copied_bytes", totals.copied_bytes)
    took = newest.finished_at - newest.started_at
    yield sample("last_backup_duration_seconds", took.total_seconds())
    yield sample("last_backup_degraded_blocks", len(newest.degraded))
    if newest.recoverable_until:
        left_out = newest.started_at - newest.recoverable_until
        yield sample(
            "last_backup_left_out_seconds",
            left_out.total_seconds(),
            snapshot_mode=newest.snapshot_mode,
        )
    before = [h.totals.bytes for h in _headers(e for e in backups[:-1] if e.good)][-_MEDIAN_MOST:]
    if len(before) >= _MEDIAN_LEAST:
        yield sample("previous_backups_median_size_bytes", median(before))


def _recoverable_range(good: Sequence[BackupEntry]) -> Iterable[Sample]:
    """Yield the times of the oldest and newest samples in good backups."""
    begins = [h.min_time for h in _headers(good) if h.min_time]
    ends = [h.newest for h in _headers(good) if h.newest]
    if begins and ends:
        yield sample("oldest_recoverable_timestamp_seconds", min(begins).timestamp())
        yield sample("newest_recoverable_timestamp_seconds", max(ends).timestamp())


def _verified(backups: Sequence[BackupEntry]) -> Iterable[Sample]:
    levels = Counter(e.verified[0].value if e.verified else _NONE for e in backups)
    for level in (*(level.value for level in Level), _NONE):
        yield sample("verified_backups", levels[level], level=level)
    passes = [last for e in backups if e.good and (last := _last_pass(e)) is not None]
    if passes:
        yield sample("oldest_verification_timestamp_seconds", min(passes).timestamp())
    failures = (e.failure for e in backups)
    yield sample("findings", sum(len(f.findings) for f in failures if f is not None))


def _last_pass(entry: BackupEntry) -> datetime | None:
    """Return when a backup last passed at any level; its verification before the commit counts."""
    passed = [at for _, at in passed_levels(entry.verifications, entry.rotations)]
    if entry.header and entry.header.verified:
        passed.append(entry.header.finished_at)
    return max(passed, default=None)


def _verifications(entries: Sequence[BackupEntry]) -> Iterable[Sample]:
    """Yield the last result at each level, for a whole backup or a part of one."""
    results = [(v.level, v.verified_at, v.verdict) for e in entries for v in e.verifications]
    results += [(r.level, k.at, k.verdict) for e in entries for r in e.rotations for k in r.looked]
    for level in Level:
        of_level = sorted((at, verdict) for of, at, verdict in results if of is level)
        if not of_level:
            continue
        (at, last), name = of_level[-1], level.value
        yield sample("last_verification_timestamp_seconds", at.timestamp(), level=name)
        for verdict in Verdict:
            yield sample(
                "last_verification_verdict",
                last is verdict,
                level=name,
                verdict=verdict.value,
            )
        passed = [at for at, verdict in of_level if verdict is Verdict.PASS]
        if passed:
            at = passed[-1]
            yield sample("last_verification_success_timestamp_seconds", at.timestamp(), level=name)


def _drill(drills: Sequence[Verification]) -> Iterable[Sample]:
    """Yield the durations of the last conclusive drill."""
    conclusive = [d for d in drills if d.verdict is not Verdict.INCONCLUSIVE and d.seconds]
    if not conclusive:
        return
    last = max(conclusive, key=lambda d: d.verified_at)
    yield sample("last_drill_duration_seconds", sum(last.seconds.values()))
    for step, seconds in last.seconds.items():
        yield sample("last_drill_step_duration_seconds", seconds, step=step)
    yield sample("last_drill_restored_bytes", last.bytes_read)
