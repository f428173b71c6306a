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

from prometheus_backup.cli import streams
from prometheus_backup.cli.commands import commands
from prometheus_backup.cli.help import PROGRAM
from prometheus_backup.cli.options import given_as
from prometheus_backup.cli.output import Output
from prometheus_backup.config import without_service_links
from prometheus_backup.errors import (
    BackupToolError,
    Interrupted,
    Stopped,
    StopRequest,
    Terminated,
    UsageError,
)
from prometheus_backup.settings import SETTINGS


def main() -> NoReturn:
    """Run the command line; exit with its code."""
    # Otherwise NumPy starts a thread per core, for linear algebra that is not used here.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    streams.open_closed_files()
    streams.protect()
    code = run(sys.argv[1:])
    streams.finish()
    if any(not t.daemon for t in threading.enumerate() if t is not threading.main_thread()):
        os._exit(code)  # a worker that hangs in the network must not keep the process alive
    sys.exit(code)


def run(arguments: Sequence[str]) -> int:
    """Run the command line with these arguments; return the exit code."""
    kept = without_service_links(os.environ)
    for name in {s.env for s in SETTINGS.values()} & (set(os.environ) - set(kept)):
        del os.environ[name]
    try:
        _stop_by_exception(signal.SIGTERM, Terminated("stopped by SIGTERM after cleaning up"))
        _stop_by_exception(signal.SIGINT, Interrupted("stopped by Ctrl-C after cleaning up"))
        if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # which `nohup` sets
            _stop_by_exception(signal.SIGHUP, Terminated("stopped by SIGHUP after cleaning up"))
        return _run(arguments)
    except StopRequest as stop:
        return _print_error(stop.error, arguments)
    finally:
        _ignore_signals()


def _run(arguments: Sequence[str]) -> int:
    stdout = sys.stdout
    try:
        code = commands.main([*arguments], prog_name=PROGRAM, standalone_mode=False)
        return int(code or 0)
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.ctx.get_help() if error.ctx else "", err=True)
        return UsageError.exit_code
    except click.ClickException as error:
        return _print_error(UsageError(_click_message(error), hint=_click_hint(error)), arguments)
    except BackupToolError as error:
        return _print_error(error, arguments)
    except SystemExit as end:
        if sys.stdout is stdout:
            raise
        # The command lost a connection (EPIPE), which click mistook for a closed output pipe.
        sys.stdout = stdout
        return _report_bug(end.__context__ or end, arguments)
    except (StopRequest, KeyboardInterrupt):
        raise
    except BaseException as error:  # noqa: BLE001 -- the last resort; a Rust panic is not an Exception
        return _report_bug(error, arguments)


def _report_bug(error: BaseException, arguments: Sequence[str]) -> int:
    traceback.print_exception(error)
    bug = BackupToolError(
        f"this is a bug in prometheus-backup: {type(error).__name__}: {error}",
        hint="please report it with the traceback",
    )
    return _print_error(bug, arguments)


def _print_error(error: BackupToolError, arguments: Sequence[str]) -> int:
    """Report an error that occurred outside a command, in the requested format."""
    flag = "--log-format"
    form = os.environ.get("LOG_FORMAT", "")
    for argument, following in zip(arguments, [*arguments[1:], ""], strict=True):
        if argument == flag:
            form = following
        elif argument.startswith(f"{flag}="):
            form = argument.removeprefix(f"{flag}=")
    log_format = "json" if form.lower() == "json" else "text"
    Output({"as_json": "--json" in arguments, "quiet": True, "log_format": log_format}).failure(
        error
    )
    return error.exit_code


def _click_message(error: click.ClickException) -> str:
    context = getattr(error, "ctx", None)
    path = context.command_path if context else PROGRAM
    parameter = getattr(error, "param", None)
    if context and parameter and not isinstance(error, click.MissingParameter):
        text = re.sub(r"\s+", " ", error.message).rstrip(".")
        return f"cannot use {given_as(context, parameter)}: {text[0].lower()}{text[1:]}"
    text = re.sub(r"\s+", " ", error.format_message()).rstrip(".")
    return f"cannot run `{path}`: {text[0].lower()}{text[1:]}"


def _click_hint(error: click.ClickException) -> str:
    context = getattr(error, "ctx", None)
    path = context.command_path if context else PROGRAM
    return getattr(error, "hint", None) or f"see `{path} --help`"


def _stop_by_exception(number: signal.Signals, error: Stopped) -> None:
    """Turn the first signal into an exception in the main thread; ignore those that follow."""

    def stop(signum: int, frame: FrameType | None) -> None:
        del signum, frame
        _ignore_signals()
        raise StopRequest(error)

    signal.signal(number, stop)


def _ignore_signals() -> None:
    # Not SIG_IGN: Python would print a traceback for a signal that is already pending.
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _do_nothing)


def _do_nothing(signum: int, frame: FrameType | None) -> None:
    del signum, frame
