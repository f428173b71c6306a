"""The program accepts every command line in the documentation."""

import re
import shlex

import click
import pytest

from prometheus_backup.cli.commands import commands
from tests.support.pages import Page, commands_in, pages

_PAGES_WITH_COMMANDS = [page for page in pages() if any(commands_in(page))]


def _parse(line: str) -> None:
    """Parse a command line like the program; raise click.UsageError if it is wrong."""
    arguments = shlex.split(line)[1:]
    context = commands.make_context("prometheus-backup", arguments[:1])
    name, command, _ = commands.resolve_command(context, arguments)
    assert name is not None
    assert command is not None
    command.make_context(name, arguments[1:], parent=context)


@pytest.mark.parametrize("page", _PAGES_WITH_COMMANDS, ids=lambda page: page.name)
def test_command_lines_parse(page: Page, capsys: pytest.CaptureFixture[str]) -> None:
    for line in commands_in(page):
        if line == "prometheus-backup" or " COMMAND" in line:  # the program itself
            continue
        try:
            _parse(line)
        except click.exceptions.Exit:  # --help was printed
            continue
        except click.UsageError as error:
            raise AssertionError(f"{page.name}: `{line}`: {error.format_message()}") from error
    capsys.readouterr()


def test_unknown_option_is_noticed() -> None:
    with pytest.raises(click.UsageError):
        _parse("prometheus-backup backup --no-such-option")


def test_pages_show_every_command() -> None:
    shown = {line.split()[1] for page in pages() for line in commands_in(page) if " " in line}
    assert set(commands.commands) <= shown


@pytest.mark.parametrize("page", pages(), ids=lambda page: page.name)
def test_mentioned_options_exist(page: Page) -> None:
    known = {"--help", "--version"} | {
        option
        for command in commands.commands.values()
        for parameter in command.params
        for option in [*parameter.opts, *parameter.secondary_opts]
    }
    named = {
        code.split()[0] for code in page.inline_code() if re.match(r"--[a-z0-9-]+(?: |$)", code)
    }
    foreign = {"--web"}  # options of Prometheus, which have dots
    assert {n for n in named if n.partition(".")[0] not in foreign} <= known
