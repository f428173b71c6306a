"""Turns a function into a command: adds options, output and error handling."""

import os
from collections.abc import Callable
from dataclasses import replace
from functools import wraps
from typing import Any

import click

from prometheus_backup.cli.context import CommandContext
from prometheus_backup.cli.help import HelpfulCommand, HelpfulGroup
from prometheus_backup.cli.monitoring import Monitoring
from prometheus_backup.cli.options import drop_overridden_address, with_settings
from prometheus_backup.cli.output import Output
from prometheus_backup.config import unknown_variables
from prometheus_backup.errors import BackupToolError, StopRequest
from prometheus_backup.events import Warned
from prometheus_backup.settings import SETTINGS


class _Version:
    """Reads the version only when needed."""

    def __str__(self) -> str:
        from prometheus_backup import __version__

        return __version__


class _Command(HelpfulCommand):
    """A command that refuses an option given twice: the last one would silently win."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if not ctx.resilient_parsing:  # which shell completion sets
            _, _, given = self.make_parser(ctx).parse_args(args=list(args))
            for option in given:
                is_flag = isinstance(option, click.Option) and option.is_flag
                if given.count(option) > 1 and not (is_flag or option.multiple):
                    raise click.UsageError(f"option {option.opts[0]} is given twice", ctx)
        return super().parse_args(ctx, args)


@click.group(
    cls=HelpfulGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(_Version())  # type: ignore[arg-type]  # click only formats it
def commands() -> None:
    """Back up a Prometheus TSDB to object storage, verify it, keep it by policy, restore it.

    Exit codes: 0 done, 2 usage, 3 done in part, 10-14 repository, 20-22 Prometheus, 30-33 restore,
    40 bytes differ, 41 verification found faults. `COMMAND --help` has those of each command.
    """


def command(*groups: str) -> Callable[[Callable[..., int]], click.Command]:
    """Turn a function `(context, output, **arguments) -> exit code` into a command."""

    def decorate(function: Callable[..., int]) -> click.Command:
        @wraps(function)
        def run(**values: Any) -> int:
            drop_overridden_address(click.get_current_context(), values)
            output = Output(values)
            _warn_of_unknown_variables(output)
            arguments = {k: values.pop(k) for k in list(values) if k not in SETTINGS}
            arguments.pop("as_json"), arguments.pop("wide")
            context = CommandContext.of(values, output.listener)
            # A dry run changes nothing, so it must not be reported as a successful run.
            monitoring = None if arguments.get("dry_run") else Monitoring(name, context)
            code, cause = BackupToolError.exit_code, "a bug"  # reported by `main`
            try:
                if monitoring:
                    context = replace(context, listener=monitoring.recording(output.listener))
                code, cause = function(context, output, **arguments), "done in part: see the log"
            except BackupToolError as error:
                output.failure(error)
                code, cause = error.exit_code, error.message
            except StopRequest as stop:
                output.failure(stop.error)
                code, cause = stop.error.exit_code, stop.error.message
            finally:
                if monitoring:
                    monitoring.end(code, cause)
                output.end()
            return code

        name = function.__name__.rstrip("_")
        return commands.command(name, cls=_Command)(with_settings(*groups)(run))

    return decorate


def _warn_of_unknown_variables(output: Output) -> None:
    for name, meant in unknown_variables(os.environ).items():
        hint = f"did you mean {meant}?" if meant else "docs/configuration.md lists all settings"
        output.listener(Warned(f"the environment variable {name} is not a setting", hint))


def argument(*names: str, **options: Any) -> Callable[[click.Command], click.Command]:
    """Add a positional argument to a command."""

    def decorate(target: click.Command) -> click.Command:
        target.params.append(click.Argument(names, **options))
        return target

    return decorate


def option(*names: str, **options: Any) -> Callable[[click.Command], click.Command]:
    """Add an option to a command that no other command has; it comes first in the help."""

    def decorate(target: click.Command) -> click.Command:
        target.params.insert(0, click.Option(names, **options))
        return target

    return decorate
