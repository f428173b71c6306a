"""Command-line options made from the table of settings in `config`."""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click

from prometheus_backup.config import read_file
from prometheus_backup.settings import GROUPS, Setting

_F = TypeVar("_F", bound=Callable[..., Any])
_REPEATABLE = {"labels": "K=V", "queries": "QUERY"}
"""Kinds of settings that may be given more than once."""

CONFIG = f"{__name__}.config"
"""Key in a context's `meta`: the path of the configuration file that was read."""


def with_settings(*groups: str) -> Callable[[_F], _F]:
    """Add the options of these groups, and the options that every command has."""

    def decorate(function: _F) -> _F:
        for option in reversed([*_options(groups), *_common()]):
            function = option(function)
        return function

    return decorate


def _options(groups: Iterable[str]) -> Iterable[Callable[[_F], _F]]:
    for group in groups:
        for setting in GROUPS[group]:
            yield _option(setting)


def _common() -> Iterable[Callable[[_F], _F]]:
    yield click.option(
        "--config",
        type=click.Path(path_type=Path, dir_okay=False),
        envvar="PROMETHEUS_BACKUP_CONFIG",
        show_envvar=True,
        is_eager=True,
        expose_value=False,
        callback=_load,
        help="YAML file of settings; flags and environment variables take precedence.",
    )
    yield click.option(
        "--json",
        "as_json",
        is_flag=True,
        help="Write one JSON document to standard output, everything else to standard error.",
    )
    yield click.option(
        "--wide",
        is_flag=True,
        help="Show all columns of a table, also if they are wider than the terminal.",
    )
    yield from _options(["output"])


def _option(setting: Setting) -> Callable[[_F], _F]:
    arguments: dict[str, Any] = {
        "envvar": [setting.env, *setting.also_env],
        "show_envvar": True,
        "help": setting.help,
        "default": setting.default,
        "show_default": setting.default_text or setting.default is not None,
    }
    names = [setting.option, setting.name]
    if setting.kind == "flag":
        names[0] = f"{setting.option}/--no-{setting.option.removeprefix('--')}"
    elif setting.kind == "integer":
        least = 1 if setting.name == "concurrency" else 0
        arguments |= {"type": click.IntRange(min=least), "metavar": "N"}
    elif setting.kind in _REPEATABLE:
        metavar = _REPEATABLE[setting.kind]
        arguments |= {"type": _UnsplitText(), "multiple": True, "metavar": metavar, "default": ()}
    elif setting.choices:
        arguments["type"] = click.Choice(setting.choices)
    elif setting.kind == "path":
        arguments["metavar"] = "PATH"
    return click.option(*names, **arguments)


class _UnsplitText(click.types.StringParamType):
    """Text that is not split: click would split an environment variable at spaces."""

    def split_envvar_value(self, rv: str) -> Sequence[str]:
        return [rv]


def _load(context: click.Context, parameter: click.Parameter, path: Path | None) -> None:
    del parameter
    if path is not None:
        context.default_map = read_file(path)
        context.meta[CONFIG] = path
