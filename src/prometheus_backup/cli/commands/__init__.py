"""The commands, one module each: it opens what it needs, calls one op, and writes its report.

A new one is listed here, in the order of the help.
"""

from prometheus_backup.cli.command import commands
from prometheus_backup.cli.commands import (  # noqa: F401 -- importing adds them to `commands`
    backup,
    check,
    daily,
    drill,
    estimate,
    heal,
    inspect,
    list_,
    metrics,
    prune,
    restore,
    show,
    verify,
)

__all__ = ["commands"]
