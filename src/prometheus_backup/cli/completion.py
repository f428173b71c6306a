"""Completes backup ids in the shell. Other values are completed by click."""

from typing import Any

import click
from click.shell_completion import CompletionItem

from prometheus_backup.cli.context import CommandContext
from prometheus_backup.cli.options import drop_overridden_address
from prometheus_backup.events import ignore


def backup_ids(
    context: click.Context, parameter: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Return `latest` and the backups of the repository, newest first; no error is shown.

    The repository's settings come from the command line so far, the environment and the file.
    """
    del parameter
    values: dict[str, Any] = dict(context.params)
    try:
        drop_overridden_address(context, values)
        repository = CommandContext.of(values, ignore).unchecked_repository(hurried=True)
        names = ["latest", *reversed(repository.ids())]
    except BaseException:  # noqa: BLE001 -- a message would end up in the user's command line
        names = ["latest"]
    return [CompletionItem(name) for name in names if name.startswith(incomplete)]
