"""Formats `--help`: options in groups, examples, exit codes, whole summaries."""

import click

from prometheus_backup.cli.manual import MANUAL, exits
from prometheus_backup.settings import GROUPS, SETTINGS, Setting

PROGRAM = "prometheus-backup"
GENERAL = "General options"
_OWN = "Options"
_TITLES = {
    "prometheus": "Prometheus",
    "source": "Prometheus",
    "repository": "Repository",
    "retention": "Retention",
    "backup": "Backup",
    "monitoring": "Monitoring",
    "reporting": "Monitoring",
    "healthcheck": "Monitoring",
    "rotation": "Verification",
    "scratch": "Scratch directory",
    "drill": "Drill",
    "output": GENERAL,
}
_TRANSFER = ("concurrency", "max_bandwidth")
_OF_GROUP = {s.name: name for name, settings in GROUPS.items() for s in settings}
_GENERAL = ("config", "as_json", "wide")


def heading(parameter: click.Parameter) -> str:
    """Return the heading of the group of options that an option belongs to."""
    name = parameter.name or ""
    if name in _GENERAL or "--help" in parameter.opts:
        return GENERAL
    return _setting_heading(SETTINGS[name]) if name in SETTINGS else _OWN


def _setting_heading(setting: Setting) -> str:
    if setting.name in _TRANSFER:
        return "Transfer"
    is_s3 = setting.env.startswith(("S3_", "AWS_"))
    return "S3" if is_s3 else _TITLES[_OF_GROUP[setting.name]]


def grouped_options(
    command: click.Command, context: click.Context
) -> list[tuple[str, list[tuple[str, str]]]]:
    """Return the help of the options by heading: the command's own first, the general ones last."""
    groups: dict[str, list[tuple[str, str]]] = {_OWN: []}
    for parameter in command.get_params(context):
        record = parameter.get_help_record(context)
        if record and isinstance(parameter, click.Option):
            groups.setdefault(heading(parameter), []).append(record)
    general = groups.pop(GENERAL)
    return [(title, records) for title, records in (*groups.items(), (GENERAL, general)) if records]


class HelpfulCommand(click.Command):
    """A command with options in groups, examples and exit codes."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options under a heading for each group, the command's own first."""
        for title, records in grouped_options(self, ctx):
            with formatter.section(title):
                formatter.write_dl(records)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the examples and the exit codes."""
        del ctx
        name = self.name or ""
        with formatter.section("Examples"):
            for example in MANUAL[name].examples:
                formatter.write_text(f"# {example.purpose}")
                formatter.write(f"  {PROGRAM} {example.arguments}\n")
        with formatter.section("Exit codes"):
            formatter.write_dl([*exits(name).items()])


class HelpfulGroup(click.Group):
    """A group that never shortens the summaries of its commands."""

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write each command with its whole summary."""
        commands = [(n, self.commands[n]) for n in self.list_commands(ctx)]
        with formatter.section("Commands"):
            formatter.write_dl([(n, c.get_short_help_str(limit=1000)) for n, c in commands])
