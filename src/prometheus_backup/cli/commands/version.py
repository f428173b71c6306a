"""`version`: the version of the program."""

import platform

from prometheus_backup.cli.command import command
from prometheus_backup.cli.context import CommandContext
from prometheus_backup.cli.output import Output
from prometheus_backup.cli.render import Document


@command()
def version(context: CommandContext, output: Output) -> int:
    """Print the version."""
    del context
    document = version_document()
    output.result(document, lines=[f"prometheus-backup {document['version']}"])
    return 0


def version_document() -> Document:
    """Return what `version --json` prints."""
    from prometheus_backup import __version__

    return {"version": __version__, "python": platform.python_version()}
