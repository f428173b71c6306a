"""The commands, one module each: it builds what it needs, runs one capability, prints the report.

Import a new command here.
"""

from prometheus_backup.cli.command import commands
from prometheus_backup.cli.commands import (  # noqa: F401 -- importing adds them to `commands`
    backup,
    check,
    daily,
    drill,
    estimate,
    heal,
    history,
    hold,
    inspect,
    job,
    list_,
    metrics,
    open_,
    prune,
    release,
    report,
    restore,
    show,
    timeline,
    verify,
    version,
)

__all__ = ["commands"]
