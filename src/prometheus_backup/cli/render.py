"""Text and JSON that several commands share. The JSON is an interface: docs/json.md."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from prometheus_backup.model import rfc3339

if TYPE_CHECKING:
    from prometheus_backup.repository.entry import BackupEntry
    from prometheus_backup.repository.hold import Hold
    from prometheus_backup.repository.manifest import Header, Manifest
    from prometheus_backup.repository.verification import TimeRange, Verification
    from prometheus_backup.retention.policy import Decision
    from prometheus_backup.retention.prune import PruneReport
    from prometheus_backup.tsdb.faults import Fault


@dataclass(frozen=True, slots=True)
class AsOf:
    """When a state is shown, and how long a rotation of `verify` takes: what is old by then."""

    now: datetime
    rotation: timedelta


Document = dict[str, Any]
Row = Sequence[str]


def pruned_document(report: "PruneReport") -> Document:
    """Return the result of retention, for JSON."""
    return {
        "deleted": list(report.deleted),
        "swept": list(report.swept),
        "archive_deleted": [f.name for f in report.archived],
        "problems": list(report.problems),
    }


def hold_document(hold: "Hold | None") -> Document | None:
    """Return a hold, for JSON."""
    if hold is None:
        return None
    until = hold.until.isoformat() if hold.until else None
    return {"reason": hold.reason, "until": until, "held_at": rfc3339(hold.held_at)}


def entry_document(entry: "BackupEntry", decision: "Decision | None", as_of: AsOf) -> Document:
    """Return a backup as in `list --json` and `show --json`."""
    manifest, verified, failure = entry.header, entry.verified, entry.failure
    return {
        "backup_id": entry.backup_id,
        "time": rfc3339(entry.time),
        "state": entry.state.value,
        "good": entry.good,
        "layout": manifest.layout.value if manifest else None,
        "problem": entry.problem,
        "size_bytes": manifest.totals.bytes if manifest else None,
        "blocks": manifest.totals.blocks if manifest else None,
        "min_time": instant(manifest.min_time) if manifest else None,
        "max_time": instant(manifest.max_time) if manifest else None,
        "snapshot_mode": manifest.snapshot_mode if manifest else None,
        "recoverable_until": instant(manifest.newest) if manifest else None,
        "labels": dict(manifest.labels) if manifest else {},
        "degraded": list(manifest.degraded) if manifest else [],
        "verified": {"level": verified[0], "at": rfc3339(verified[1])} if verified else None,
        "failed": {"level": failure.level, "at": rfc3339(failure.verified_at)} if failure else None,
        "last_read": instant(entry.read_whole_at),
        "stale": entry.is_stale(now=as_of.now, rotation=as_of.rotation),
        "hold": hold_document(entry.hold),
        "keep": decision.keep if decision else None,
        "tiers": [t.value for t in decision.tiers] if decision else [],
        "reasons": list(decision.reasons) if decision else [],
    }


def fault_document(fault: "Fault") -> Document:
    """Return a fault of a block as in `inspect --json` and `heal --json`."""
    return {
        "kind": fault.kind.value,
        "effect": fault.kind.effect.value,
        "file": fault.file,
        "offset": fault.offset,
        "series": fault.series,
        "detail": fault.detail,
    }


STATE_WORDS = (
    *("good", "degraded", "failed", "stale", "held"),
    *("incomplete", "deleting", "foreign", "unreadable", "archived", "newer-format"),
)
"""What `state_words` may return."""


def state_words(entry: "BackupEntry", as_of: AsOf) -> tuple[str, ...]:
    """Return the words for the state of a backup, the most important one first."""
    stored = entry.state.value
    words = {
        stored: entry.header is None,
        "failed": entry.failure is not None,
        "degraded": entry.header is not None and bool(entry.header.degraded),
        "good": entry.good,
        "stale": entry.is_stale(now=as_of.now, rotation=as_of.rotation),
        "held": entry.held(as_of.now.date()),
    }
    return tuple(word for word, applies in words.items() if applies)


def state_text(entry: "BackupEntry", as_of: AsOf) -> str:
    """Return the words for the state of a backup as one text."""
    return ", ".join(state_words(entry, as_of))


def verified(entry: "BackupEntry") -> str:
    """Return at which level and when a backup was verified."""
    if failure := entry.failure:
        return f"FAILED {failure.level} {failure.verified_at:%Y-%m-%d}"
    verified = entry.verified
    return f"{verified[0].value} {verified[1]:%Y-%m-%d}" if verified else "unverified"


def last_read(entry: "BackupEntry", now: datetime) -> str:
    """Return how long ago all bytes of a backup were last read and found right."""
    at = entry.read_whole_at
    return "never" if at is None else ago(now - at)


def ago(length: timedelta) -> str:
    """Return how long ago something was, in the largest unit of which there are two."""
    days = length.days
    if days >= 2 * 365:
        return f"{days / 365.25:.1f} years ago"
    if days >= 2:
        return f"{days} days ago"
    hours = max(length, timedelta()) // timedelta(hours=1)
    return f"{hours} hours ago" if hours >= 2 else "just now"


def span(manifest: Any) -> str:
    """Return the time range that a backup covers."""
    if manifest.min_time is None:
        return "no samples"
    return f"{rfc3339(manifest.min_time)} to {rfc3339(manifest.max_time)}"


def left_out(header: "Header") -> str:
    """Return which samples a backup leaves out; empty if it has all."""
    end = header.recoverable_until
    if end is None:
        return ""
    minutes = max(header.started_at - end, timedelta()) // timedelta(minutes=1)
    return f"samples after {rfc3339(end)} ({minutes // 60} h {minutes % 60} min): only in memory"


def fingerprints(manifest: "Manifest") -> str:
    """Return how many fingerprint queries the source answered."""
    if not manifest.fingerprints:
        return "none"
    answers = [f.answer for f in manifest.fingerprints if f.answer is not None]
    series = sum(len(a.series) for a in answers)
    failed = len(manifest.fingerprints) - len(answers)
    text = f"{len(answers)} answered, with {series:,} series"
    return text + (f"; {failed} inconclusive" if failed else "")


def between(part: "TimeRange") -> str:
    """Return the time range of a part of a backup."""
    return f"{instant(part.start) or 'the beginning'} to {instant(part.end) or 'the end'}"


def ready_after(result: "Verification") -> float | None:
    """Return the seconds until a drill's Prometheus answered queries; None if it did not."""
    steps = result.seconds
    return steps["restore"] + steps["start"] if "ask" in steps else None


def day(instant: datetime | None) -> str:
    """Return an instant to the minute; empty if None."""
    return f"{instant:%Y-%m-%d %H:%M}" if instant else ""


def second(instant: datetime) -> str:
    """Return an instant to the second."""
    return f"{instant:%Y-%m-%d %H:%M:%S}"


def instant(instant: datetime | None) -> str | None:
    """Return an instant for JSON."""
    return rfc3339(instant) if instant else None
