"""`restore`: bring a backup back."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from prometheus_backup.cli.command import argument, command, option
from prometheus_backup.cli.output import Output, table
from prometheus_backup.cli.render import Document, Row, second, size
from prometheus_backup.cli.wiring import Wiring
from prometheus_backup.model import rfc3339

if TYPE_CHECKING:
    from prometheus_backup.ops.restore import RestoreReport
    from prometheus_backup.restore_plan import RestorePlan


@argument("target", type=click.Path(path_type=Path))
@argument("backup", metavar="BACKUP|latest")
@option("--dry-run", is_flag=True, help="Show what would be restored; write nothing.")
@command("repository", "retention", "monitoring", "reporting")
def restore(wiring: Wiring, output: Output, *, backup: str, target: Path, dry_run: bool) -> int:
    """Restore a backup into an empty or absent directory."""
    from prometheus_backup.ops.restore import Restore

    policy = wiring.policy()
    repository = wiring.repository()
    job = Restore(repository, wiring.transfer(), target, policy, wiring.listener)
    plan, manifest = job.plan(repository.find(backup))
    report = None if dry_run else job.apply(plan, manifest)
    said = "would restore" if report is None else "restored"
    lines = [f"{said} {plan.backup_id} into {target}: {size(plan.size)}"]
    if plan.need:
        lines += [
            "so that it keeps what is restored, start Prometheus with at least",
            f"  {plan.need.time_flag}",
            f"  and, if it has a limit by size, {plan.need.size_flag}",
        ]
    if report is None:
        lines += [f"warning: {w}" for w in plan.warnings]
    output.result(
        restore_document(plan, report, target=target),
        tables=[table(RESTORE_HEADERS, restore_rows(plan))],
        lines=lines,
    )
    return 0


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


def _block(block: Any) -> Mapping[str, Any]:
    return {
        "ulid": block.ulid,
        "min_time": rfc3339(block.min_time),
        "max_time": rfc3339(block.max_time),
        "bytes": block.size,
    }


def _block_cells(block: Any) -> tuple[str, str, str, str]:
    return block.ulid, second(block.min_time), second(block.max_time), size(block.size)
