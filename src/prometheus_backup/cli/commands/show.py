"""`show`: one backup in detail."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

from prometheus_backup.cli.command import argument, command
from prometheus_backup.cli.completion import backup_ids
from prometheus_backup.cli.context import CommandContext
from prometheus_backup.cli.output import Output
from prometheus_backup.cli.render import (
    AsOf,
    Document,
    Row,
    between,
    day,
    entry_document,
    fingerprints,
    last_read,
    left_out,
    ready_after,
    second,
    span,
    state_text,
    verified,
)
from prometheus_backup.cli.tables import Column, summary, table
from prometheus_backup.model import Verdict, counted, rfc3339, size

if TYPE_CHECKING:
    from prometheus_backup.repository.entry import BackupEntry
    from prometheus_backup.repository.manifest import Manifest
    from prometheus_backup.repository.verification import Verification


@argument("backup", metavar="BACKUP", shell_complete=backup_ids)
@command("repository", "rotation")
def show(context: CommandContext, output: Output, backup: str) -> int:
    """Show one backup: its contents, source and verification results."""

    repository = context.repository(hurried=True)
    entry = repository.find(backup)
    with repository.reading(entry.backup_id, verb="show"):
        manifest, as_of = repository.manifest(entry.backup_id), context.as_of_now()
    output.result(
        show_document(entry, manifest, as_of),
        tables=[
            summary(show_rows(entry, manifest, as_of)),
            table(LEVEL_COLUMNS, level_rows(entry)),
            table(BLOCK_COLUMNS, block_rows(manifest)),
        ],
    )
    return 0


def show_document(entry: "BackupEntry", manifest: "Manifest", as_of: AsOf) -> Document:
    """Return what `show --json` prints: the stored manifest, and the verification results since."""
    return {
        **entry_document(entry, None, as_of),
        "manifest": manifest.model_dump(mode="json"),
        "verifications": [v.model_dump(mode="json") for v in entry.verifications],
        "rotations": [r.model_dump(mode="json") for r in entry.rotations],
    }


def show_rows(entry: "BackupEntry", manifest: "Manifest", as_of: AsOf) -> Iterable[Row]:
    """Yield the details of a backup, label and value."""
    yield "backup", manifest.backup_id
    yield "state", state_text(entry, as_of)
    if entry.held(as_of.now.date()) and entry.hold:
        until = entry.hold.until or "it is released"
        since = day(entry.hold.held_at)
        yield "held", f"until {until}, since {since}: {entry.hold.reason}"
    yield "taken", f"{rfc3339(manifest.started_at)} to {rfc3339(manifest.finished_at)}"
    yield "source", f"{manifest.prometheus_url} (Prometheus {manifest.prometheus.version})"
    if manifest.labels:
        yield "labels", ", ".join(f"{k}={v}" for k, v in sorted(manifest.labels.items()))
    yield "layout", manifest.layout.value
    yield "snapshot", manifest.snapshot_name
    yield "retention of the source", manifest.retention_time or "off: it deletes no data"
    totals = manifest.totals
    shared = f"; {size(totals.shared_bytes)} were in the archive" if totals.shared_bytes else ""
    yield "contents", f"{size(totals.bytes)} in {counted(totals.blocks, 'block')}{shared}"
    yield "time range", span(manifest)
    if missing := left_out(manifest):
        yield "left out", missing
    yield "fingerprints", fingerprints(manifest)
    yield "verified", verified(entry)
    yield "last read whole", _last_read(entry, as_of)
    for result in entry.verifications:
        if result.verdict is Verdict.PASS and (ready := ready_after(result)) is not None:
            part = f", of {between(result.part)}" if result.part else ""
            yield "time to recover", f"{ready:.1f} s (drill of {day(result.verified_at)}{part})"
    for reason in manifest.degraded:
        yield "degraded", reason
    for verification in entry.verifications:
        for finding in verification.findings:
            yield f"finding ({verification.level})", str(finding)


def _last_read(entry: "BackupEntry", as_of: AsOf) -> str:
    at = entry.read_whole_at
    text = last_read(entry, as_of.now) + (f" ({second(at)})" if at else "")
    if entry.is_stale(now=as_of.now, rotation=as_of.rotation):
        text += f"; stale: `verify` should read it every {as_of.rotation.days} days"
    return text


LEVEL_COLUMNS = (
    Column("level", text=True),
    Column("result"),
    Column("at (UTC)"),
    Column("objects", hide=2),
    Column("read", hide=1),
    Column("findings"),
)


def level_rows(entry: "BackupEntry") -> Iterable[Row]:
    """Yield verification results: before the commit, after it, and in parts."""
    header = entry.header
    if header and header.verified:
        when = second(header.finished_at)
        yield header.verified.value, "pass before the commit", when, "", "", ""
    for result in sorted(entry.verifications, key=lambda v: v.level.rank):
        yield (
            _level(result),
            result.verdict.value,
            second(result.verified_at),
            f"{result.objects:,}",
            size(result.bytes_read),
            str(len(result.findings)),
        )
    for rotation in sorted(entry.rotations, key=lambda r: r.level.rank):
        yield (
            f"{rotation.level} in parts",
            f"{rotation.passed} of {rotation.parts} passed",
            f"since {second(rotation.intact_since)}" if rotation.intact_since else "",
            f"{sum(r.objects for r in rotation.looked):,}",
            size(sum(r.bytes_read for r in rotation.looked)),
            "",
        )


def _level(result: "Verification") -> str:
    if result.part:
        return f"{result.level} of {between(result.part)}"
    return f"{result.level} {result.rotation}" if result.rotation else result.level.value


BLOCK_COLUMNS = (
    Column("block"),
    Column("from (UTC)"),
    Column("to (UTC)"),
    Column("level", hide=5),
    Column("series", hide=4),
    Column("samples", hide=3),
    Column("size", hide=2),
    Column("at the source", hide=1),
)


def block_rows(manifest: "Manifest") -> Iterable[Row]:
    """Yield a row for each block of a backup."""
    for block in manifest.blocks:
        yield (
            block.ulid,
            second(block.min_time),
            second(block.max_time),
            str(block.level),
            f"{block.stats.get('numSeries', 0):,}",
            f"{block.stats.get('numSamples', 0):,}",
            size(block.size),
            _soundness(block.faults),
        )


def _soundness(faults: tuple[str, ...] | None) -> str:
    if faults is None:
        return "not checked"
    return "corrupt" if faults else "sound"
