"""Command-line options made from the table of settings in `config`."""

import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import click
from click.core import ParameterSource

from prometheus_backup.config import parse_bandwidth, parse_labels, parse_period, read_file
from prometheus_backup.errors import UsageError
from prometheus_backup.settings import GROUPS, SETTINGS, Setting

_F = TypeVar("_F", bound=Callable[..., Any])
_REPEATABLE = {"labels": "K=V", "queries": "QUERY"}
"""Kinds of settings that may be given more than once."""

_CHECKED: dict[str, Callable[[str], object]] = {
    "bandwidth": parse_bandwidth,
    "duration": parse_period,
}
_RANKS = (
    ParameterSource.COMMANDLINE,
    ParameterSource.ENVIRONMENT,
    ParameterSource.DEFAULT_MAP,
    ParameterSource.DEFAULT,
    None,
)
"""The first of these takes precedence."""

_SOURCES: Mapping[ParameterSource | None, str] = {
    ParameterSource.COMMANDLINE: "flag",
    ParameterSource.ENVIRONMENT: "environment",
    ParameterSource.DEFAULT_MAP: "file",
}
_USER = re.compile(r"://[^/\s]*@")
_SECRET = frozenset({"healthcheck_url"})
"""Whoever knows this URL can report a run that was none."""

CONFIG = f"{__name__}.config"
"""Key in a context's `meta`: the path of the configuration file that was read."""


def with_settings(*groups: str) -> Callable[[_F], _F]:
    """Add the options of these groups or settings, and the options that every command has."""

    def decorate(function: _F) -> _F:
        for option in reversed([*_options(groups), *_common()]):
            function = option(function)
        return function

    return decorate


def _options(groups: Iterable[str]) -> Iterable[Callable[[_F], _F]]:
    for group in groups:
        for setting in GROUPS.get(group) or (SETTINGS[group],):
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
        arguments |= {"type": Count(min=least), "metavar": "N"}
    elif setting.kind in _REPEATABLE:
        metavar = _REPEATABLE[setting.kind]
        # A wrong METRICS_LABELS is a warning: monitoring fails no run.
        kind = _LabelText() if setting.name == "labels" else _UnsplitText()
        arguments |= {"type": kind, "multiple": True, "metavar": metavar, "default": ()}
    elif setting.choices:
        arguments["type"] = _AliasedChoice(setting)
    elif setting.kind in _CHECKED:
        arguments["type"] = _CheckedText(setting.kind)
    elif setting.kind == "path":
        arguments["metavar"] = "PATH"
    return click.option(*names, **arguments)


class _UnsplitText(click.types.StringParamType):
    """Text that is not split: click would split an environment variable at spaces."""

    def split_envvar_value(self, rv: str) -> Sequence[str]:
        return [rv]


class _LabelText(_UnsplitText):
    """Labels, `K=V` separated by commas; they are parsed where they are used."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        try:
            parse_labels((str(value),))
        except UsageError as error:
            raise InvalidSetting(error.message, ctx, param, hint=error.hint) from None
        return str(value)


class _AliasedChoice(click.Choice[str]):
    """One of the choices in any case, or an alias of one."""

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting.choices)
        self._aliases = setting.aliases

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        known = {c.lower(): c for c in self.choices} | dict(self._aliases)
        return super().convert(known.get(str(value).lower(), value), param, ctx)


class _CheckedText(click.types.StringParamType):
    """Text that must be a valid value of its kind; it is parsed where it is used."""

    def __init__(self, kind: str) -> None:
        self._kind = kind

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        try:
            _CHECKED[self._kind](str(value))
        except UsageError as error:
            message = f"{str(value)!r} is not a {self._kind} with a unit"
            raise InvalidSetting(message, ctx, param, hint=error.hint) from None
        return str(value)


class Count(click.IntRange):
    """A whole number of at least `min`."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Return the number. Raises InvalidSetting."""
        try:
            return int(super().convert(value, param, ctx))
        except click.BadParameter:
            message = f"{str(value)!r} is not a whole number of at least {self.min}"
            raise InvalidSetting(message, ctx, param) from None


class InvalidSetting(click.BadParameter):
    """A value that cannot be used, with a hint."""

    def __init__(
        self,
        message: str,
        ctx: click.Context | None,
        param: click.Parameter | None,
        *,
        hint: str = "",
    ) -> None:
        super().__init__(message, ctx, param)
        self.hint = hint


def given_as(context: click.Context, parameter: click.Parameter) -> str:
    """Return where the value of a parameter comes from: its flag, variable or key in the file."""
    source, name = context.get_parameter_source(parameter.name or ""), parameter.name or ""
    if source is ParameterSource.DEFAULT_MAP:
        return f"{name} in {context.meta.get(CONFIG)}"
    if source is ParameterSource.ENVIRONMENT:
        names = parameter.envvar or ()
        names = [names] if isinstance(names, str) else names
        return next((n for n in names if os.environ.get(n)), name)
    return parameter.opts[0] if isinstance(parameter, click.Option) else name.upper()


@dataclass(frozen=True, slots=True)
class GivenSetting:
    """A setting of a command: its value, and where that comes from.

    `source` is `flag`, `environment`, `file` or `default`; `place` is the flag, the variable or the
    key in the file, empty for a default.
    """

    name: str
    value: Any
    source: str
    place: str


def given_settings(context: click.Context) -> Iterator[GivenSetting]:
    """Yield every setting of a command. A URL that is a secret is not shown."""
    for parameter in context.command.params:
        name = parameter.name or ""
        if name not in SETTINGS:
            continue
        source = _SOURCES.get(context.get_parameter_source(name), "default")
        value = context.params.get(name)
        yield GivenSetting(
            name=SETTINGS[name].env,
            value="(secret)" if value and name in _SECRET else _without_password(value),
            source=source,
            place="" if source == "default" else given_as(context, parameter),
        )


def _without_password(value: Any) -> Any:
    """Return a value without the user and password that a URL in it may have."""
    if isinstance(value, str):
        return _USER.sub("://***@", value)
    return [*map(_without_password, value)] if isinstance(value, tuple) else value


def drop_overridden_address(context: click.Context, values: dict[str, Any]) -> None:
    """Remove the repository's address or the bucket if the other one takes precedence.

    Both name the repository: a flag replaces a variable, and a variable replaces the file.
    """
    names = [name for name in ("repository", "s3_bucket") if values.get(name)]
    ranks = [_RANKS.index(context.get_parameter_source(name)) for name in names]
    for name, rank in zip(names, ranks, strict=True):
        if rank > min(ranks):
            values[name] = None


def _load(context: click.Context, parameter: click.Parameter, path: Path | None) -> None:
    del parameter
    if path is not None:
        context.default_map = read_file(path)
        context.meta[CONFIG] = path
