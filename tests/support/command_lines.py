"""Parses command lines as the program does, without running them."""

import shlex

import click

from prometheus_backup.cli.commands import commands


def parse(line: str) -> click.Context:
    """Parse `prometheus-backup COMMAND ...`; raise click.UsageError if it is wrong."""
    arguments = shlex.split(line)[1:]
    context = commands.make_context("prometheus-backup", arguments[:1])
    name, command, _ = commands.resolve_command(context, arguments)
    assert name is not None
    assert command is not None
    return command.make_context(name, arguments[1:], parent=context)
