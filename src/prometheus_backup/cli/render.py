"""Reports as JSON documents and as tables. The JSON is an interface: docs/json.md."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prometheus_backup.model import rfc3339

if TYPE_CHECKING:
    from prometheus_backup.manifest import Manifest
    from prometheus_backup.ops.backup import BackupReport
    from prometheus_backup.ops.check import CheckReport
    from prometheus_backup.ops.prune import PrunePlan, PruneReport
    from prometheus_backup.ops.restore import RestoreReport
    from prometheus_backup.ops.verify import VerifyReport
    from prometheus_backup.repository import Entry
    from prometheus_backup.restore_plan import RestorePlan
    from prometheus_backup.retention import Decision

Document = dict[str, Any]
Row = Sequence[str]


def size(count: float) -> str:
    """Return bytes for people, in binary units."""
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if abs(count) < 1024 or unit == "TiB":
            return f"{count:,.0f} {unit}" if unit == "B" else f"{count:,.1f} {unit}"
        count /= 1024
    raise AssertionError("the loop returns")


def counted(count: int, noun: str) -> str:
    """Return `1 backup`, `2 backups`."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def backup_document(report: "BackupReport") -> Document:
    """Return what `backup --json` prints."""
    manifest = report.manifest
    return {
        "backup_id": manifest.backup_id,
        "outcome": report.outcome.value,
        "problems": list(report.problems),
        "degraded": list(manifest.degraded),
        "snapshot_name": manifest.snapshot_name,
        "verified": manifest.verified,
        "totals": manifest.totals.model_dump(),
        "min_time": _instant(manifest.min_time),
        "max_time": _instant(manifest.max_time),
        "started_at": rfc3339(manifest.started_at),
        "finished_at": rfc3339(manifest.finished_at),
        "phase_seconds": dict(report.phases),
        "retention": _pruned(report.prune),
    }


def backup_rows(report: "BackupReport", *, url: str) -> Iterable[Row]:
    """Yield the summary of a backup, label and value."""
    manifest, totals = report.manifest, report.manifest.totals
    yield "backup", f"{url}/{manifest.backup_id}"
    yield "holds", f"{size(totals.bytes)} in {totals.blocks} blocks, {_span(manifest)}"
    yield "uploaded", size(totals.uploaded_bytes)
    yield "copied by the store", size(totals.copied_bytes)
    yield "verified", manifest.verified.value if manifest.verified else "no (unverified)"
    yield "retention", f"{counted(len(report.prune.deleted), 'backup')} deleted"
    yield "took", f"{sum(report.phases.values()):.1f} s"
    for reason in manifest.degraded:
        yield "degraded", reason
    for problem in report.problems:
        yield "left undone", problem


def list_document(
    entries: Sequence["Entry"], decisions: Sequence["Decision"], *, url: str
) -> Document:
    """Return what `list --json` prints."""
    by_id = {d.backup_id: d for d in decisions}
    return {
        "repository": url,
        "backups": [_entry(e, by_id.get(e.backup_id)) for e in entries],
    }


LIST_HEADERS = (
    "backup",
    "size",
    "blocks",
    "oldest (UTC)",
    "newest (UTC)",
    "verified",
    "state",
    "kept because",
)


def list_rows(entries: Sequence["Entry"], decisions: Sequence["Decision"]) -> Iterable[Row]:
    """Yield a row for each backup."""
    by_id = {d.backup_id: d for d in decisions}
    for entry in entries:
        decision = by_id.get(entry.backup_id)
        why = "; ".join(decision.reasons) if decision else ""
        if decision and not decision.keep:
            why = f"goes at the next prune ({why})"
        manifest = entry.header
        if manifest is None:
            yield entry.backup_id, "", "", "", "", "", entry.state.value, entry.problem
            continue
        yield (
            entry.backup_id,
            size(manifest.totals.bytes),
            str(manifest.totals.blocks),
            _day(manifest.min_time),
            _day(manifest.max_time),
            _verified(entry),
            _standing(entry),
            why,
        )


def show_document(entry: "Entry", manifest: "Manifest") -> Document:
    """Return what `show --json` prints: the manifest as it is stored, and what is known since."""
    return {
        **_entry(entry, None),
        "manifest": manifest.model_dump(mode="json"),
        "verifications": [v.model_dump(mode="json") for v in entry.verifications],
    }


def show_rows(entry: "Entry", manifest: "Manifest") -> Iterable[Row]:
    """Yield the details of a backup, label and value."""
    yield "backup", manifest.backup_id
    yield "state", _standing(entry)
    yield "taken", f"{rfc3339(manifest.started_at)} to {rfc3339(manifest.finished_at)}"
    yield "source", f"{manifest.prometheus_url} (Prometheus {manifest.prometheus.version})"
    if manifest.labels:
        yield "labels", ", ".join(f"{k}={v}" for k, v in sorted(manifest.labels.items()))
    yield "snapshot", manifest.snapshot_name
    yield "retention of the source", manifest.retention_time
    yield "holds", f"{size(manifest.totals.bytes)} in {manifest.totals.blocks} blocks"
    yield "time range", _span(manifest)
    yield "verified", _verified(entry)
    for reason in manifest.degraded:
        yield "degraded", reason
    for verification in entry.verifications:
        for finding in verification.findings:
            yield f"finding ({verification.level})", f"{finding.key}: {finding.detail}"


BLOCK_HEADERS = ("block", "from (UTC)", "to (UTC)", "level", "series", "samples", "size")


def block_rows(manifest: "Manifest") -> Iterable[Row]:
    """Yield a row for each block of a backup."""
    for block in manifest.blocks:
        yield (
            block.ulid,
            _second(block.min_time),
            _second(block.max_time),
            str(block.level),
            f"{block.stats.get('numSeries', 0):,}",
            f"{block.stats.get('numSamples', 0):,}",
            size(block.size),
        )


def verify_document(report: "VerifyReport") -> Document:
    """Return what `verify --json` prints."""
    return {
        "outcome": report.outcome.value,
        "results": [
            {**c.result.model_dump(mode="json", exclude={"rotation"}), "cause": c.cause}
            for c in report.checked
        ],
    }


VERIFY_HEADERS = ("backup", "level", "result", "objects", "read", "findings")


def verify_rows(report: "VerifyReport") -> Iterable[Row]:
    """Yield a row for each backup, then one for each finding."""
    for checked in report.checked:
        result = checked.result
        yield (
            result.backup_id,
            result.level.value,
            result.verdict.value,
            f"{result.objects:,}",
            size(result.bytes_read),
            checked.cause or str(len(result.findings)),
        )
        for finding in result.findings:
            yield "", "", finding.kind.value, "", "", f"{finding.key}: {finding.detail}"


def verify_lines(report: "VerifyReport", *, url: str) -> list[str]:
    """Return what a reader must know of the results."""
    if not report.checked:
        return [f"nothing was verified: {url} holds no backup"]
    if any(checked.result.findings for checked in report.checked):
        said = "a backup with findings does not count as good: `restore latest` passes over it, and"
        return [f"{said} the next backup copies nothing from it"]
    return []


def prune_document(plan: "PrunePlan", report: "PruneReport | None") -> Document:
    """Return what `prune --json` prints; `report` None is a dry run."""
    return {
        "dry_run": report is None,
        "decisions": [
            {
                "backup_id": d.backup_id,
                "keep": d.keep,
                "tiers": [t.value for t in d.tiers],
                "reasons": list(d.reasons),
            }
            for d in plan.decisions
        ],
        "would_sweep": list(plan.sweep),
        "unreadable": list(plan.unreadable),
        "foreign": list(plan.foreign),
        "doubt": plan.doubt,
        **({} if report is None else {"outcome": report.outcome.value, **_pruned(report)}),
    }


PRUNE_HEADERS = ("backup", "retention", "because")


def prune_rows(plan: "PrunePlan") -> Iterable[Row]:
    """Yield a row for each decision."""
    for decision in plan.decisions:
        word = "keep" if decision.keep else "delete"
        yield decision.backup_id, word, "; ".join(decision.reasons)
    for backup_id in plan.sweep:
        yield backup_id, "sweep", "left by an interrupted run or deletion"
    for backup_id in plan.unreadable:
        yield backup_id, "keep", "its manifest cannot be read"
    for backup_id in plan.foreign:
        yield backup_id, "keep", "not made by this program"


def restore_document(
    plan: "RestorePlan", report: "RestoreReport | None", *, target: Path
) -> Document:
    """Return what `restore --json` prints; `report` None is a dry run."""
    return {
        "dry_run": report is None,
        "backup_id": plan.backup_id,
        "target": str(target),
        "place": [_block(b) for b in plan.place],
        "present": [b.ulid for b in plan.present],
        "bytes": plan.size,
        "warnings": list(plan.warnings),
        "required_flags": required_flags(plan),
        **({} if report is None else {"files": report.files, "seconds": round(report.seconds, 3)}),
    }


RESTORE_HEADERS = ("block", "from (UTC)", "to (UTC)", "size", "")


def restore_rows(plan: "RestorePlan") -> Iterable[Row]:
    """Yield a row for each block, newest first, as they are placed."""
    for block in plan.present:
        yield (*_block_cells(block), "already there")
    for block in plan.place:
        yield (*_block_cells(block), "")


def required_flags(plan: "RestorePlan") -> list[str]:
    """Return the flags with which Prometheus keeps what is restored."""
    return [plan.need.time_flag, plan.need.size_flag] if plan.need else []


def check_document(report: "CheckReport") -> Document:
    """Return what `check --json` prints."""
    return {
        "ok": report.exit_code == 0,
        "checks": [
            {"subject": li.subject, "ok": li.ok, "detail": li.detail, "fix": li.fix}
            for li in report.lines
        ],
    }


def _pruned(report: "PruneReport") -> Document:
    return {
        "deleted": list(report.deleted),
        "swept": list(report.swept),
        "problems": list(report.problems),
    }


def _entry(entry: "Entry", decision: "Decision | None") -> Document:
    manifest, verified, failure = entry.header, entry.verified, entry.failure
    return {
        "backup_id": entry.backup_id,
        "time": rfc3339(entry.time),
        "state": entry.state.value,
        "good": entry.good,
        "problem": entry.problem,
        "size_bytes": manifest.totals.bytes if manifest else None,
        "blocks": manifest.totals.blocks if manifest else None,
        "min_time": _instant(manifest.min_time) if manifest else None,
        "max_time": _instant(manifest.max_time) if manifest else None,
        "labels": dict(manifest.labels) if manifest else {},
        "degraded": list(manifest.degraded) if manifest else [],
        "verified": {"level": verified[0], "at": rfc3339(verified[1])} if verified else None,
        "failed": {"level": failure.level, "at": rfc3339(failure.verified_at)} if failure else None,
        "keep": decision.keep if decision else None,
        "tiers": [t.value for t in decision.tiers] if decision else [],
        "reasons": list(decision.reasons) if decision else [],
    }


def _block(block: Any) -> Mapping[str, Any]:
    return {
        "ulid": block.ulid,
        "min_time": rfc3339(block.min_time),
        "max_time": rfc3339(block.max_time),
        "bytes": block.size,
    }


def _block_cells(block: Any) -> tuple[str, str, str, str]:
    return block.ulid, _second(block.min_time), _second(block.max_time), size(block.size)


def _standing(entry: "Entry") -> str:
    if entry.failure:
        return "failed"
    if entry.header and entry.header.degraded:
        return "degraded"
    return "good"


def _verified(entry: "Entry") -> str:
    if failure := entry.failure:
        return f"FAILED {failure.level} {failure.verified_at:%Y-%m-%d}"
    verified = entry.verified
    return f"{verified[0].value} {verified[1]:%Y-%m-%d}" if verified else "unverified"


def _span(manifest: Any) -> str:
    if manifest.min_time is None:
        return "no samples"
    return f"{rfc3339(manifest.min_time)} to {rfc3339(manifest.max_time)}"


def _day(instant: datetime | None) -> str:
    return f"{instant:%Y-%m-%d %H:%M}" if instant else ""


def _second(instant: datetime) -> str:
    return f"{instant:%Y-%m-%d %H:%M:%S}"


def _instant(instant: datetime | None) -> str | None:
    return rfc3339(instant) if instant else None
