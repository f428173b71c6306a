"""The entry point: runs a command, turns errors and signals into messages and exit codes."""

import os
import re
import signal
import sys
import threading
import traceback
from collections.abc import Sequence
from types import FrameType
from typing import NoReturn

import click

from prometheus_backup.cli.commands import commands
from prometheus_backup.config import SETTINGS, without_service_links
from prometheus_backup.errors import BackupToolError, Interrupted, Terminated, UsageError


def main() -> NoReturn:
    """Run the command line; exit with its code."""
    code = run(sys.argv[1:])
    sys.stdout.flush()
    sys.stderr.flush()
    if any(not t.daemon for t in threading.enumerate() if t is not threading.main_thread()):
        os._exit(code)  # a worker stuck in the network must not keep the process
    sys.exit(code)


def run(arguments: Sequence[str]) -> int:
    """Run the command line with these arguments; return the exit code."""
    kept = without_service_links(os.environ)
    for name in {s.env for s in SETTINGS.values()} & (set(os.environ) - set(kept)):
        del os.environ[name]
    _stop_by_exception(signal.SIGTERM, Terminated("stopped by SIGTERM after cleaning up"))
    _stop_by_exception(signal.SIGINT, Interrupted("stopped by Ctrl-C after cleaning up"))
    try:
        return int(commands.main(args=[*arguments], standalone_mode=False) or 0)
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.ctx.get_help() if error.ctx else "", err=True)
        return UsageError.exit_code
    except click.ClickException as error:
        return _say(UsageError(_click_message(error), hint=_click_hint(error)))
    except BackupToolError as error:
        return _say(error)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception:  # noqa: BLE001 -- the last resort: a bug is told, with its traceback
        traceback.print_exc()
        print(  # noqa: T201
            "error: this is a bug in prometheus-backup; please report it with the lines above",
            file=sys.stderr,
        )
        return 1


def _say(error: BackupToolError) -> int:
    click.echo(f"error: {error.message}", err=True)
    if error.hint:
        click.echo(f"hint: {error.hint}", err=True)
    return error.exit_code


def _click_message(error: click.ClickException) -> str:
    context = getattr(error, "ctx", None)
    path = context.command_path if context else "prometheus-backup"
    text = re.sub(r"\s+", " ", error.format_message()).rstrip(".")
    return f"cannot run `{path}`: {text[0].lower()}{text[1:]}"


def _click_hint(error: click.ClickException) -> str:
    context = getattr(error, "ctx", None)
    path = context.command_path if context else "prometheus-backup"
    return f"`{path} --help` shows what it takes"


def _stop_by_exception(number: signal.Signals, error: BackupToolError) -> None:
    """Turn the first signal into an exception in the main thread; ignore those that follow."""

    def stop(signum: int, frame: FrameType | None) -> None:
        del signum, frame
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        raise error

    signal.signal(number, stop)
