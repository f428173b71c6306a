"""`daily`: a built-in timer for sidecar containers, which have no cron."""

import json
import re
import subprocess
import sys
from datetime import datetime, time

import click

from prometheus_backup.backup.schedule import first_start, next_start
from prometheus_backup.cli.command import argument, command
from prometheus_backup.cli.context import CommandContext
from prometheus_backup.cli.options import CONFIG
from prometheus_backup.cli.output import Output
from prometheus_backup.errors import UsageError
from prometheus_backup.events import Step
from prometheus_backup.model import Outcome, rfc3339
from prometheus_backup.repository.layout import backup_time

_LONGEST_SLEEP = 60.0
"""Seconds. Short, because the clock may be changed or the machine suspended while waiting."""


@argument("at", metavar="HH:MM[:SS]")
@command()
def daily(context: CommandContext, output: Output, *, at: str) -> int:
    """Run `backup` every day at this time (UTC), until stopped.

    For a sidecar container next to Prometheus, if no CronJob can mount the volume. Settings come
    from the environment or the configuration file. A missed backup is made immediately. A run
    that fails with a temporary error is retried twice.
    """
    del output
    due, clock, tries, flags = _time_of_day(at), context.clock, 1, _flags(context)
    start = first_start(due, now=clock.now(), newest=_newest_backup(flags))
    while True:
        context.listener(Step("wait", f"next backup at {rfc3339(start)}"))
        while (left := (start - clock.now()).total_seconds()) > 0:
            clock.sleep(min(left, _LONGEST_SLEEP))
        code = _run("backup", *flags)
        context.listener(Step("end", f"backup ended with exit {code}"))
        start, tries = next_start(due, now=clock.now(), exit_code=code, tries=tries)


def _time_of_day(text: str) -> time:
    try:
        if re.fullmatch(r"\d\d:\d\d(:\d\d)?", text):
            return time.fromisoformat(text)
    except ValueError:
        pass
    raise UsageError(f"cannot read time of day {text!r}", hint="give it as HH:MM, in UTC")


def _flags(context: CommandContext) -> list[str]:
    """Return the common flags to pass on to the commands."""
    values, config = context.values, click.get_current_context().meta.get(CONFIG)
    flags = [f"--log-level={values['log_level']}", f"--log-format={values['log_format']}"]
    flags += ["--quiet"] if values["quiet"] else []
    return [*flags, f"--config={config}"] if config else flags


def _newest_backup(flags: list[str]) -> datetime | None:
    """Return when the newest backup started; None if there is none or `list` fails.

    A backup that cannot be read counts: it was made.
    """
    list_all = _command("list", "--json", *flags)
    done = subprocess.run(list_all, stdin=subprocess.DEVNULL, capture_output=True, check=False)
    if done.returncode not in (Outcome.DONE.exit_code, Outcome.PARTIAL.exit_code):
        return None  # the backup will say why
    backups = [entry["backup_id"] for entry in json.loads(done.stdout)["backups"]]
    return max(map(backup_time, backups), default=None)


def _run(*arguments: str) -> int:
    """Run a command in a child process, so that its memory is freed afterwards."""
    child = subprocess.Popen(_command(*arguments), stdin=subprocess.DEVNULL)
    try:
        return child.wait()
    finally:
        if child.poll() is None:  # we are being stopped: let the backup clean up first
            child.terminate()
            child.wait()


def _command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "prometheus_backup", *arguments]
