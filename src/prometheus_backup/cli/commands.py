"""The commands: each opens what it needs, calls one op, and writes its report."""

from collections.abc import Callable, Sequence
from functools import wraps
from pathlib import Path
from typing import Any

import click

from prometheus_backup.cli.options import with_settings
from prometheus_backup.cli.output import Output
from prometheus_backup.cli.wiring import Wiring
from prometheus_backup.config import SETTINGS
from prometheus_backup.errors import BackupToolError, StopRequest

_LEVELS = click.Choice(["size", "checksum"])


class _Version:
    """Reads the version only when it is asked for."""

    def __str__(self) -> str:
        from prometheus_backup import __version__

        return __version__


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(_Version())  # type: ignore[arg-type]  # click only formats it
def commands() -> None:
    """Back up a Prometheus TSDB to object storage, verify it, keep it by policy, restore it.

    Exit codes: 0 done, 2 usage, 3 done in part, 10-14 repository, 20-22 Prometheus, 30-33 restore,
    40 bytes differ, 41 verification found faults. All are in docs/exit-codes.md.
    """


def command(*groups: str) -> Callable[[Callable[..., int]], click.Command]:
    """Make a command of a function `(wiring, output, **arguments) -> exit code`."""

    def decorate(function: Callable[..., int]) -> click.Command:
        @wraps(function)
        def run(**values: Any) -> int:
            output = Output(values)
            try:
                arguments = {k: values.pop(k) for k in list(values) if k not in SETTINGS}
                arguments.pop("as_json")
                return function(Wiring.of(values, output.listener), output, **arguments)
            except BackupToolError as error:
                output.failure(error)
                return error.exit_code
            except StopRequest as stop:
                output.failure(stop.error)
                return stop.error.exit_code
            finally:
                output.end()

        name = function.__name__.rstrip("_")
        return commands.command(name)(with_settings(*groups)(run))

    return decorate


def argument(*names: str, **options: Any) -> Callable[[click.Command], click.Command]:
    """Add a positional argument to a command."""

    def decorate(target: click.Command) -> click.Command:
        target.params.append(click.Argument(names, **options))
        return target

    return decorate


def option(*names: str, **options: Any) -> Callable[[click.Command], click.Command]:
    """Add an option of its own to a command, first in its help."""

    def decorate(target: click.Command) -> click.Command:
        target.params.insert(0, click.Option(names, **options))
        return target

    return decorate


@command("source", "repository", "retention", "backup")
def backup(wiring: Wiring, output: Output) -> int:
    """Take a backup: snapshot, transfer, verify, commit, apply retention, clean up."""
    from prometheus_backup.cli import render
    from prometheus_backup.cli.output import summary
    from prometheus_backup.ops.backup import BackupRun

    options = wiring.backup_options()
    repository = wiring.unseen_repository()
    with wiring.client() as client:
        report = BackupRun(
            client=client,
            data_dir=wiring.data_dir,
            repository=repository,
            transfer=wiring.transfer(),
            options=options,
            run_id=wiring.run_id,
            listener=wiring.listener,
        ).run()
    output.result(
        render.backup_document(report),
        tables=[summary(render.backup_rows(report, url=repository.url))],
    )
    return report.outcome.exit_code


@command("repository", "retention")
def list_(wiring: Wiring, output: Output) -> int:
    """List the backups, how they stand, and why each is kept."""
    from prometheus_backup.cli import render
    from prometheus_backup.cli.output import table
    from prometheus_backup.ops.prune import candidates
    from prometheus_backup.retention import decide

    policy = wiring.policy()
    repository = wiring.repository()
    entries = repository.entries()
    decisions = decide(candidates(entries), today=wiring.clock.now().date(), policy=policy)
    output.result(
        render.list_document(entries, decisions, url=repository.url),
        tables=[table(render.LIST_HEADERS, render.list_rows(entries, decisions))]
        if entries
        else [],
        lines=[] if entries else [f"no backups in {repository.url}"],
    )
    return 0


@argument("backup", metavar="BACKUP|latest")
@command("repository")
def show(wiring: Wiring, output: Output, backup: str) -> int:
    """Show one backup: what it holds, where it came from, what verification found."""
    from prometheus_backup.cli import render
    from prometheus_backup.cli.output import summary, table

    repository = wiring.repository()
    entry = repository.find(backup)
    manifest = repository.manifest(entry.backup_id)
    output.result(
        render.show_document(entry, manifest),
        tables=[
            summary(render.show_rows(entry, manifest)),
            table(render.BLOCK_HEADERS, render.block_rows(manifest)),
        ],
    )
    return 0


@argument("backups", metavar="[BACKUP...|latest]", nargs=-1)
@option("--level", type=_LEVELS, default="checksum", show_default=True, help="How thoroughly.")
@option("--all", "every", is_flag=True, help="Verify every backup.")
@command("repository")
def verify(
    wiring: Wiring, output: Output, backups: Sequence[str], *, every: bool, level: str
) -> int:
    """Verify stored backups (latest, if none is named) and record the result beside them."""
    from prometheus_backup.cli import render
    from prometheus_backup.cli.output import table
    from prometheus_backup.model import Level
    from prometheus_backup.ops.verify import Verifier, choose

    repository = wiring.repository()
    verifier = Verifier(repository, wiring.transfer(), Level(level), wiring.listener)
    report = verifier.verify(choose(repository, backups, every=every))
    output.result(
        render.verify_document(report),
        tables=[table(render.VERIFY_HEADERS, render.verify_rows(report))],
        lines=render.verify_lines(report, url=repository.url),
    )
    return report.outcome.exit_code


@option("--dry-run", is_flag=True, help="Show what would be deleted, and why; delete nothing.")
@command("repository", "retention")
def prune(wiring: Wiring, output: Output, *, dry_run: bool) -> int:
    """Delete what retention lets go, and what interrupted runs left."""
    from prometheus_backup.cli import render
    from prometheus_backup.cli.output import table
    from prometheus_backup.ops.prune import apply_prune, plan_prune

    policy = wiring.policy()
    repository = wiring.repository()
    now = wiring.clock.now()
    # A dry run writes nothing, so it cannot ask the store for its time.
    store_now = now if dry_run else repository.store_now(run_id=wiring.run_id)
    plan = plan_prune(repository.entries(), policy=policy, now=now, store_now=store_now)
    report = None
    if not dry_run:
        report = apply_prune(repository, plan, run_id=wiring.run_id, listener=wiring.listener)
    done = "deleted" if report else "would delete"
    deleted, swept = (report.deleted, report.swept) if report else (plan.delete, plan.sweep)
    leftovers = f", {done} {render.counted(len(swept), 'leftover')}" if swept else ""
    doubt = [f"nothing may be deleted: {plan.doubt}"] if plan.doubt else []
    output.result(
        render.prune_document(plan, report),
        tables=[table(render.PRUNE_HEADERS, render.prune_rows(plan))],
        lines=[f"retention: {done} {render.counted(len(deleted), 'backup')}{leftovers}", *doubt],
    )
    return report.outcome.exit_code if report else 0


@argument("target", type=click.Path(path_type=Path))
@argument("backup", metavar="BACKUP|latest")
@option("--dry-run", is_flag=True, help="Show what would be restored; write nothing.")
@command("repository", "retention")
def restore(wiring: Wiring, output: Output, *, backup: str, target: Path, dry_run: bool) -> int:
    """Restore a backup into an empty or absent directory."""
    from prometheus_backup.cli import render
    from prometheus_backup.cli.output import table
    from prometheus_backup.ops.restore import Restore

    policy = wiring.policy()
    repository = wiring.repository()
    job = Restore(repository, wiring.transfer(), target, policy, wiring.listener)
    plan, manifest = job.plan(repository.find(backup))
    report = None if dry_run else job.apply(plan, manifest)
    said = "would restore" if report is None else "restored"
    lines = [f"{said} {plan.backup_id} into {target}: {render.size(plan.size)}"]
    if plan.need:
        lines += [
            "so that it keeps what is restored, start Prometheus with at least",
            f"  {plan.need.time_flag}",
            f"  and, if it has a limit by size, {plan.need.size_flag}",
        ]
    if report is None:
        lines += [f"warning: {w}" for w in plan.warnings]
    output.result(
        render.restore_document(plan, report, target=target),
        tables=[table(render.RESTORE_HEADERS, render.restore_rows(plan))],
        lines=lines,
    )
    return 0


@command("source", "repository", "retention", "backup")
def check(wiring: Wiring, output: Output) -> int:
    """Look at Prometheus, the repository and the settings, and say how to mend what is wrong."""
    from prometheus_backup.cli import render
    from prometheus_backup.ops import check as preflight

    report = preflight.check(
        settings=wiring.describe,
        connect=wiring.client,
        data_dir=wiring.data_dir,
        open_repository=wiring.unseen_repository,
        run_id=wiring.run_id,
        clock=wiring.clock,
    )
    lines = []
    for line in report.lines:
        lines.append(f"{'ok  ' if line.ok else 'FAIL'}  {line.subject}: {line.detail}")
        if line.fix:
            lines.append(f"      fix: {line.fix}")
    output.result(render.check_document(report), lines=lines)
    return report.exit_code
