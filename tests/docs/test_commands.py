"""The program accepts every command line in the documentation."""

import re

import click
import pytest

from prometheus_backup.cli.commands import commands
from tests.support.command_lines import parse
from tests.support.pages import Page, commands_in, pages

_PAGES_WITH_COMMANDS = [page for page in pages() if any(commands_in(page))]


@pytest.mark.parametrize("page", _PAGES_WITH_COMMANDS, ids=lambda page: page.name)
def test_command_linesparse(page: Page, capsys: pytest.CaptureFixture[str]) -> None:
    for line in commands_in(page):
        if line == "prometheus-backup" or " COMMAND" in line:  # the program itself
            continue
        try:
            parse(line)
        except click.exceptions.Exit:  # --help was printed
            continue
        except click.UsageError as error:
            raise AssertionError(f"{page.name}: `{line}`: {error.format_message()}") from error
    capsys.readouterr()


def test_unknown_option_is_noticed() -> None:
    with pytest.raises(click.UsageError):
        parse("prometheus-backup backup --no-such-option")


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
