"""`restore`: restore a backup into an empty directory, or merge it into an existing one."""

from collections.abc import Iterable, Mapping
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from prometheus_backup.cli.command import argument, command, option
from prometheus_backup.cli.completion import backup_ids
from prometheus_backup.cli.context import CommandContext
from prometheus_backup.cli.options import Count
from prometheus_backup.cli.output import Output
from prometheus_backup.cli.render import Document, Row, instant, second
from prometheus_backup.cli.tables import Column, table
from prometheus_backup.errors import UsageError
from prometheus_backup.events import Warned
from prometheus_backup.model import Outcome, counted, ms_from_instant, rfc3339, size
from prometheus_backup.prometheus.versions import RETENTION_IN_CONFIGURATION, is_before, release

if TYPE_CHECKING:
    from prometheus_backup.repository.manifest import Block, Manifest
    from prometheus_backup.repository.repository import Repository
    from prometheus_backup.restore.placement import Placement
    from prometheus_backup.restore.plan import RestorePlan
    from prometheus_backup.restore.run import PreparedRestore, RestoreOptions, RestoreReport


_NOTABLY_OLDER = timedelta(days=1)
"""`--at` reports a backup that is older than the time asked for by more than this."""


@argument("target", type=click.Path(path_type=Path), required=False)
@argument("backup", metavar="BACKUP", shell_complete=backup_ids)
@option(
    "--history",
    is_flag=True,
    help="Without BACKUP: restore what the archive holds of all times, also of deleted backups.",
)
@option("--dry-run", is_flag=True, help="Show what would be restored; write nothing.")
@option(
    "--merge",
    is_flag=True,
    help="Merge into an existing data directory; Prometheus may be running.",
)
@option(
    "--from",
    "since",
    metavar="TIME",
    help="Only blocks that end after this time (2025-01-22, -7d).",
)
@option("--to", "until", metavar="TIME", help="Only blocks that begin before this time.")
@option(
    "--at",
    metavar="TIME",
    help="With `latest`: the newest backup made at or before this time; a date means its end.",
)
@option(
    "--target-retention",
    metavar="TIME[,SIZE]",
    help="Retention of the Prometheus that uses the target.",
)
@option(
    "--target-version",
    metavar="VERSION",
    help="Version of the Prometheus that uses the target, if none is running or it is upgraded.",
)
@option(
    "--ignore-retention",
    is_flag=True,
    help="Also restore blocks that the target's retention will delete.",
)
@option(
    "--head-from",
    metavar="TIME",
    help="Time of the oldest sample in the target's WAL, if it cannot be detected.",
)
@option(
    "--undelete",
    is_flag=True,
    help="With --merge: bring back samples that were deleted in the target since the backup.",
)
@option(
    "--accept-undeleted", is_flag=True, help="Also restore blocks that bring deleted series back."
)
@option("--stop-on-damage", is_flag=True, help="Stop at the first block that is damaged.")
@option(
    "--chown",
    metavar="USER[:GROUP]",
    help="Owner of the restored files (default: owner of the target).",
)
@option(
    "--wait",
    type=Count(min=0),
    metavar="SECONDS",
    help="How long to wait for a running Prometheus to load the blocks.  "
    "[default: three times its reload interval, at least 180]",
)
@command("repository", "retention", "prometheus", "monitoring", "reporting")
def restore(
    context: CommandContext,
    output: Output,
    *,
    backup: str,
    target: Path | None,
    dry_run: bool,
    history: bool,
    **choices: Any,
) -> int:
    """Restore a backup into a new or empty directory, or with --merge into an existing one.

    Existing data is never overwritten or deleted. If interrupted, run the same command again to
    resume.
    """
    from prometheus_backup.restore.run import Restore
    from prometheus_backup.restore.target import holds_data

    backup, target = _named(backup, target, history=history)
    options = restore_options(context, choices)
    at = context.instant(choices["at"], end_of_day=True)
    if at is not None and backup != "latest":
        raise UsageError(f"cannot use --at with {backup}", hint="--at chooses for `latest`")
    context.require_apart(target, "target")
    policy = context.policy()
    repository = context.repository()
    client = context.client() if holds_data(target) else None
    job = Restore(repository, context.transfer(), target, policy, context.listener, client, options)
    entry = repository.find(backup, at=at)
    if at is not None and at - entry.time > _NOTABLY_OLDER:
        older = (at - entry.time).days
        context.listener(
            Warned(f"{entry.backup_id} is {counted(older, 'day')} older than {rfc3339(at)}")
        )
    prepared = job.prepare(entry, _history(repository, options) if history else None)
    report = None if dry_run else job.apply(prepared)
    output.result(
        {"history": history, **restore_document(prepared, report, target=target)},
        tables=[table(RESTORE_COLUMNS, restore_rows(prepared.plan))],
        lines=restore_lines(
            prepared,
            report,
            what=f"the history up to {prepared.manifest.backup_id}" if history else entry.backup_id,
            target=target,
        ),
    )
    if report is not None:
        if report.error is not None:
            output.refusal(report.error)
            return report.error.exit_code
        return report.outcome.exit_code
    if prepared.refusal is not None:
        output.refusal(prepared.refusal)
        return prepared.refusal.exit_code
    return (Outcome.PARTIAL if prepared.plan.left_out else Outcome.DONE).exit_code


def _named(backup: str, target: Path | None, *, history: bool) -> tuple[str, Path]:
    """Return the backup and the target; `--history` takes the target alone."""
    if not history:
        if target is None:
            raise UsageError(
                "cannot restore: TARGET is missing", hint="usage: restore BACKUP TARGET"
            )
        return backup, target
    if target is not None:
        raise UsageError(
            f"cannot restore {backup} with --history: it restores what all backups held",
            hint="usage: restore --history TARGET",
        )
    return "latest", Path(backup)


def _history(repository: "Repository", options: "RestoreOptions") -> "Manifest":
    from prometheus_backup.retention.archive import history_manifest

    start = options.request.time_range.start
    return history_manifest(repository, since_ms=ms_from_instant(start) if start else -(1 << 63))


def restore_options(context: CommandContext, choices: Mapping[str, Any]) -> "RestoreOptions":
    """Return the restore options from the command line. Raises UsageError."""
    from prometheus_backup.prometheus.retention import parse_target_retention
    from prometheus_backup.restore.placement import TimeRange
    from prometheus_backup.restore.plan import RestoreRequest
    from prometheus_backup.restore.run import RestoreOptions
    from prometheus_backup.restore.target import parse_owner

    wanted = TimeRange(context.instant(choices["since"]), context.instant(choices["until"]))
    if wanted.start and wanted.end and wanted.start >= wanted.end:
        raise UsageError(
            f"cannot restore from {rfc3339(wanted.start)} to {rfc3339(wanted.end)}: "
            "the end is not after the start"
        )
    if choices["undelete"] and not choices["merge"]:
        raise UsageError(
            "cannot use --undelete without --merge",
            hint="it brings samples back into a data directory that has lost them",
        )
    retention, owner = choices["target_retention"], choices["chown"]
    version = choices["target_version"] or ""
    if version and release(version) is None:
        raise UsageError(
            f"cannot use --target-version {version!r}: it is not a version",
            hint="use the version that `prometheus --version` prints, such as 3.5.3",
        )
    return RestoreOptions(
        merge=choices["merge"],
        request=RestoreRequest(wanted, choices["accept_undeleted"], choices["undelete"]),
        retention=parse_target_retention(retention) if retention is not None else None,
        ignore_retention=choices["ignore_retention"],
        head_from=context.instant(choices["head_from"]),
        owner=parse_owner(owner) if owner is not None else None,
        timeout=None if choices["wait"] is None else timedelta(seconds=choices["wait"]),
        stop_on_damage=choices["stop_on_damage"],
        version=version,
    )


def restore_document(
    prepared: "PreparedRestore", report: "RestoreReport | None", *, target: Path
) -> Document:
    """Return what `restore --json` prints; `report` None is a dry run."""
    plan = prepared.plan
    return {
        "dry_run": report is None,
        "backup_id": plan.backup_id,
        "target": str(target),
        "place": [{**_block(p.block), "copy": p.copy or None} for p in plan.placed],
        "present": [b.ulid for b in plan.present],
        "skipped": [_skipped(p) for p in plan.skipped],
        "deleted": [b.ulid for b in plan.deleted],
        "bytes": plan.size,
        "gaps": [{"from": rfc3339(g.start), "to": rfc3339(g.end)} for g in plan.gaps],
        "in_memory_from": instant(plan.memory_from),
        "retention": {
            "of": plan.retention_of,
            "deletes_existing": list(plan.loses_existing),
            "deletes_restored": list(plan.loses_restored),
        },
        "required_flags": required_flags(plan),
        "needs_version": plan.needs.since if plan.needs else None,
        "required_configuration": dict(plan.need.configuration) if plan.need else {},
        "refused": prepared.refusal.message if prepared.refusal else None,
        "warnings": list(plan.warnings),
        **({} if report is None else _done(report)),
    }


def restore_lines(
    prepared: "PreparedRestore", report: "RestoreReport | None", *, what: str, target: Path
) -> Iterable[str]:
    """Yield the lines that `restore` prints below its table; `what` is restored."""
    plan = prepared.plan
    if plan.place:
        verb = "would restore" if report is None else "restored"
        damaged = {} if report is None else {d.ulid: d for d in report.damaged}
        placed = [b for b in plan.place if b.ulid not in damaged]
        blocks = f"{counted(len(placed), 'block')}, {size(sum(b.size for b in placed))}"
        yield f"{verb} {what} into {target}: {blocks}"
        for block in damaged.values():
            where = f"; {block.other_backup} has this block" if block.other_backup else ""
            yield f"DAMAGED: block {block.ulid}: {block.reason}{where}"
    else:
        yield f"nothing to restore of {what} into {target}"
    if plan.deleted:
        yield f"{_deletions(len(plan.deleted))}: --undelete brings the samples back"
    if plan.left_out:
        yield f"not restored: {counted(len(plan.left_out), 'block')}, see above"
    for gap in plan.gaps:
        yield f"no samples from {second(gap.start)} to {second(gap.end)} (UTC)"
    if report is not None and report.load_result is not None:
        yield _loading_line(report)
    yield from _retention_lines(prepared)
    if report is None:
        yield from (f"warning: {w}" for w in plan.warnings)


RESTORE_COLUMNS = (
    Column("block"),
    Column("from (UTC)"),
    Column("to (UTC)"),
    Column("size", hide=1),
    Column("", text=True),
)


def restore_rows(plan: "RestorePlan") -> Iterable[Row]:
    """Yield a row for each block, newest first, in the order in which they are restored."""
    for placement in plan.placements:
        yield (*_block_cells(placement.block), _result_text(placement))


def _deletions(count: int) -> str:
    has = "has" if count == 1 else "have"
    return f"{counted(count, 'block')} {has} deletions that the backup does not have"


def required_flags(plan: "RestorePlan") -> list[str]:
    """Return the Prometheus flags that keep both the existing and the restored data."""
    return [plan.need.time_flag, plan.need.size_flag] if plan.need else []


def _result_text(placement: "Placement") -> str:
    text = placement.reason
    if placement.action.left_out:
        text = f"SKIPPED: {text}"
    if placement.not_before is not None:
        text += f"; it can be restored from about {second(placement.not_before)}"
    if placement.overlaps:
        text = f"overlaps {counted(len(placement.overlaps), 'block')}, which Prometheus will merge"
    return text


def _retention_lines(prepared: "PreparedRestore") -> Iterable[str]:
    plan = prepared.plan
    if plan.need is None:
        return
    if not prepared.fresh and not plan.loses_restored and not plan.loses_existing:
        yield f"the retention of {plan.retention_of} keeps all restored blocks"
        return
    yield "to keep the restored data, Prometheus needs at least this retention:"
    running = prepared.target_state.running
    version = running.version if running else ""
    limits = plan.need.configuration
    if is_before(version, RETENTION_IN_CONFIGURATION) or not version:
        yield f"  {plan.need.time_flag}"
        yield f"  {plan.need.size_flag}, if it has a size limit"
    if not is_before(version, RETENTION_IN_CONFIGURATION):
        yield "In Prometheus 3.8 and newer, the configuration file counts instead of the flags:"
        yield "  storage:"
        yield "    tsdb:"
        yield "      retention:"
        yield f"        time: {limits['time']}"
        yield f"        size: {limits['size']}  # only if its size is limited"


def _loading_line(report: "RestoreReport") -> str:
    loading = report.load_result
    assert loading is not None  # noqa: S101 -- the caller checked
    if loading.done:
        return f"Prometheus has loaded all blocks after {loading.seconds:.0f} s"
    return f"Prometheus has NOT loaded the blocks within {loading.seconds:.0f} s: {loading.problem}"


def _done(report: "RestoreReport") -> Document:
    loading = report.load_result
    return {
        "outcome": report.outcome.value,
        "files": report.files,
        "damaged": [
            {"ulid": d.ulid, "reason": d.reason, "other_backup": d.other_backup}
            for d in report.damaged
        ],
        "loaded": loading.done if loading else None,
        "loading": loading.problem if loading else "",
        "seconds": round(report.seconds, 3),
    }


def _block(block: "Block") -> Document:
    return {
        "ulid": block.ulid,
        "min_time": rfc3339(block.min_time),
        "max_time": rfc3339(block.max_time),
        "bytes": block.size,
    }


def _skipped(placement: "Placement") -> Document:
    return {
        **_block(placement.block),
        "standing": placement.action.value,
        "left_out": placement.action.left_out,
        "reason": placement.reason,
        "not_before": instant(placement.not_before),
    }


def _block_cells(block: "Block") -> tuple[str, str, str, str]:
    return block.ulid, second(block.min_time), second(block.max_time), size(block.size)
