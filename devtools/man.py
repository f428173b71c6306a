"""Generates the man pages in docs/man from the commands: `python -m devtools.man`.

They have the same content as `--help`. Installing the program installs them (pyproject.toml).
"""

import inspect
from collections.abc import Iterator
from pathlib import Path

import click

from prometheus_backup.cli.commands import commands
from prometheus_backup.cli.help import PROGRAM, grouped_options
from prometheus_backup.cli.manual import COMMON_EXITS, MANUAL, exits

FOLDER = Path(__file__).parent.parent / "docs" / "man"


def pages() -> dict[str, str]:
    """Return the content of each page by file name."""
    found = {f"{PROGRAM}.1": "\n".join([*_program_page(), ""])}
    for name in commands.commands:
        found[f"{PROGRAM}-{name}.1"] = "\n".join([*_command_page(name), ""])
    return found


def _program_page() -> Iterator[str]:
    yield _title(PROGRAM)
    yield from _name(PROGRAM, "back up a Prometheus TSDB to object storage, verify and restore it")
    yield from (".SH SYNOPSIS", rf".B {_escaped(PROGRAM)}", "COMMAND [OPTIONS] [ARGS]")
    yield from _description(commands)
    yield ".SH COMMANDS"
    for name, command in sorted(commands.commands.items()):
        yield from _item(f"{PROGRAM}-{name}(1)", command.get_short_help_str(limit=1000))
    yield from _exit_status(COMMON_EXITS)
    yield ".SH SHELL COMPLETION"
    yield _escaped("Put this into ~/.bashrc; with zsh, zsh_source, and with fish, fish_source:")
    yield from _code(f'eval "$(_PROMETHEUS_BACKUP_COMPLETE=bash_source {PROGRAM})"')


def _command_page(name: str) -> Iterator[str]:
    command = commands.commands[name]
    context = click.Context(command, info_name=f"{PROGRAM} {name}", **commands.context_settings)
    yield _title(f"{PROGRAM}-{name}")
    yield from _name(f"{PROGRAM}-{name}", command.get_short_help_str(limit=1000).rstrip("."))
    yield from (".SH SYNOPSIS", rf".B {_escaped(f'{PROGRAM} {name}')}")
    yield _escaped(" ".join(command.collect_usage_pieces(context)))
    yield from _description(command)
    yield ".SH OPTIONS"
    for title, records in grouped_options(command, context):
        yield f".SS {_escaped(title)}"
        for term, text in records:
            yield from _item(term, text)
    yield ".SH EXAMPLES"
    for example in MANUAL[name].examples:
        yield from (".PP", _escaped(example.purpose))
        yield from _code(f"{PROGRAM} {example.arguments}")
    yield from _exit_status(exits(name))
    yield from (".SH SEE ALSO", rf".BR {_escaped(PROGRAM)} (1)")


def _title(name: str) -> str:
    return rf'.TH {_escaped(name.upper())} 1 "" "prometheus\-backup" "User Commands"'


def _name(name: str, summary: str) -> Iterator[str]:
    yield from (".SH NAME", rf"{_escaped(name)} \- {_escaped(summary)}")


def _description(command: click.Command) -> Iterator[str]:
    yield ".SH DESCRIPTION"
    for paragraph in inspect.cleandoc(command.help or "").split("\n\n"):
        yield from (".PP", _escaped(" ".join(paragraph.split())))


def _exit_status(codes: dict[str, str]) -> Iterator[str]:
    yield ".SH EXIT STATUS"
    for code, meaning in codes.items():
        yield from _item(code, meaning)


def _item(term: str, text: str) -> Iterator[str]:
    yield from (".TP", rf"\fB{_escaped(term)}\fR", _escaped(text))


def _code(line: str) -> Iterator[str]:
    yield from (".PP", ".nf", rf"\fB{_escaped(line)}\fR", ".fi")


def _escaped(text: str) -> str:
    """Return text that roff prints as it is; a line must not begin with a control character."""
    escaped = text.replace("\\", r"\e").replace("-", r"\-").replace("'", r"\(aq")
    escaped = escaped.replace("`", r"\(ga").replace("^", r"\(ha").replace("~", r"\(ti")
    return rf"\&{escaped}" if escaped.startswith((".", "'")) else escaped


def main() -> None:
    """Write the pages, and remove those of commands that no longer exist."""
    FOLDER.mkdir(exist_ok=True)
    for path in FOLDER.glob("*.1"):
        path.unlink()
    for name, text in pages().items():
        (FOLDER / name).write_text(text)


if __name__ == "__main__":
    main()
