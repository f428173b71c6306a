"""`job`: print a Kubernetes Job that runs another command in the pod of the backup."""

import json
import sys
from collections.abc import Sequence
from typing import Any

import click

from prometheus_backup.cli.command import argument, command, commands, option
from prometheus_backup.cli.context import CommandContext
from prometheus_backup.cli.help import PROGRAM
from prometheus_backup.cli.output import Output
from prometheus_backup.errors import UsageError

_NOT_AS_JOB = {
    "backup": "`kubectl create job NAME --from=cronjob/prometheus-backup` starts one that counts",
    "daily": "the CronJob starts the backups",
    "job": "run it here",
    "metrics": "the exporter is a Deployment",
    "version": "the version is the tag of the image",
}
"""Commands that do not run as a Job of their own, and why."""
_IN_DATA_DIR = {
    "heal": ("directory", ()),
    "inspect": ("path", ()),
    "restore": ("target", ("--merge",)),
}
"""Argument that is the data directory unless it is given, and the options that then follow."""
_LARGEST_INPUT = 10_000_000


@argument("arguments", metavar="[ARGUMENTS]...", nargs=-1, type=click.UNPROCESSED)
@argument("command_name", metavar="COMMAND", type=click.UNPROCESSED)
@option(
    "--container",
    metavar="NAME",
    help="Container of this program, if the pod has several that could be it.",
)
@command()
def job(
    context: CommandContext,
    output: Output,
    *,
    command_name: str,
    arguments: Sequence[str],
    container: str | None,
) -> int:
    """Print a Kubernetes Job that runs COMMAND with the settings and the volume of the backup.

    Reads the CronJob from standard input, as `kubectl get cronjob NAME -o json` prints it. In
    `restore BACKUP`, `restore --history`, `heal` and `inspect`, the directory is Prometheus' data
    directory, and `restore` merges. The Job has a new name each time, does not belong to the
    CronJob, and does not count as a backup.
    """
    del context
    from prometheus_backup.kubernetes.job import CronJobPod
    from prometheus_backup.kubernetes.job import job as make_job

    target = _command(command_name)
    pod = CronJobPod.of(_cronjob(), container=container, commands=[*commands.commands])
    words = _completed(target, arguments, pod.data_dir)
    given = _parsed(target, words)
    dry_run = bool(given.get("dry_run")) or (command_name == "heal" and not given.get("apply"))
    document = make_job(pod, command_name, words, dry_run=dry_run)
    output.result(document, verbatim=json.dumps(document, indent=2).splitlines())
    return 0


job.context_settings = {"ignore_unknown_options": True, "allow_interspersed_args": False}
"""Options after COMMAND belong to it."""


def _command(name: str) -> click.Command:
    found = commands.commands.get(name)
    if found is None:
        names = ", ".join(sorted(set(commands.commands) - set(_NOT_AS_JOB)))
        raise UsageError(f"cannot make a Job: there is no command {name!r}", hint=f"use {names}")
    if name in _NOT_AS_JOB:
        raise UsageError(f"cannot make a Job for {name}", hint=_NOT_AS_JOB[name])
    return found


def _cronjob() -> Any:
    hint = f"run kubectl get cronjob NAME -o json | {PROGRAM} job ... | kubectl create -f -"
    if sys.stdin.isatty():
        raise UsageError("cannot read the CronJob: nothing is piped in", hint=hint)
    text = sys.stdin.buffer.read(_LARGEST_INPUT)
    if not text.strip():
        raise UsageError("cannot read the CronJob: standard input is empty", hint=hint)
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise UsageError("cannot read the CronJob: standard input is not JSON", hint=hint) from None


def _completed(target: click.Command, words: Sequence[str], data_dir: str) -> list[str]:
    """Return the arguments with the data directory, if the command needs it and none is given."""
    name, options = _IN_DATA_DIR.get(target.name or "", ("", ()))
    given = _raw(target, words)
    if given.get("history"):  # `restore --history TARGET` names no backup: the target is first
        name = "backup"
    if not name or name in given or (name == "target" and "backup" not in given):
        return [*words]
    return [*words, data_dir, *(o for o in options if o not in words)]


def _parsed(target: click.Command, words: Sequence[str]) -> dict[str, Any]:
    """Return the values of the arguments. Raises click.UsageError for what the Job would refuse.

    The settings of this machine are not used: those of the pod count.
    """
    context = _context(target)
    values = _raw(target, words)
    for parameter in target.get_params(context):
        name = parameter.name or ""
        if name in values:
            values[name] = parameter.type_cast_value(context, values[name])
        elif parameter.required:
            raise click.MissingParameter(ctx=context, param=parameter)
    return values


def _raw(target: click.Command, words: Sequence[str]) -> dict[str, Any]:
    context = _context(target)
    values, left, _ = target.make_parser(context).parse_args(args=[*words])
    if left:
        raise click.UsageError(f"Got unexpected extra arguments ({' '.join(left)})", context)
    return {k: v for k, v in values.items() if isinstance(v, (str, bool, list, tuple))}  # given


def _context(target: click.Command) -> click.Context:
    parent = click.Context(commands, info_name=PROGRAM, **commands.context_settings)
    return click.Context(target, info_name=target.name, parent=parent)
