"""The part of `check` that tests the monitoring settings."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

from prometheus_backup.cli.context import CommandContext
from prometheus_backup.errors import UsageError
from prometheus_backup.model import CheckLine
from prometheus_backup.prometheus.promql import format_duration
from prometheus_backup.settings import SETTINGS

_METRICS_SETTINGS = ("backup_interval", "metrics_labels", "metrics_textfile", "pushgateway_url")


def monitoring_lines(context: CommandContext) -> Iterator[CheckLine]:
    """Yield a line for each configured destination. Nothing is sent to them."""
    values = context.values
    if any(values[name] != SETTINGS[name].default for name in _METRICS_SETTINGS if values[name]):
        hint = "see docs/configuration.md"
        yield _line("monitoring: settings", lambda: _settings(context), fix=hint)
    if values["metrics_textfile"]:
        yield _line(
            "monitoring: METRICS_TEXTFILE",
            lambda: _textfile(Path(values["metrics_textfile"])),
            fix="set it to a .prom file in the textfile collector's directory, and make the "
            "directory writable for the backup's user",
        )
    if values["pushgateway_url"]:
        yield _line(
            "monitoring: PUSHGATEWAY_URL",
            lambda: _pushgateway(values["pushgateway_url"]),
            fix="check the address, and that no network policy blocks the backup",
        )
    if values["healthcheck_url"]:
        yield _line(
            "monitoring: HEALTHCHECK_URL",
            lambda: _healthcheck(values["healthcheck_url"]),
            fix="set it to the complete URL from the service, including https://",
        )


def _line(subject: str, check: Callable[[], str], *, fix: str) -> CheckLine:
    try:
        return CheckLine(subject, ok=True, detail=check())
    except UsageError as error:
        return CheckLine(subject, ok=False, detail=error.message, fix=error.hint or fix)
    except OSError as error:
        return CheckLine(subject, ok=False, detail=error.strerror or str(error), fix=fix)


def _settings(context: CommandContext) -> str:
    labels = context.metrics_labels()
    interval = format_duration(context.interval)
    return f"one backup every {interval}, {', '.join(f'{k}={v}' for k, v in labels.items())}"


def _textfile(path: Path) -> str:
    if path.suffix != ".prom":
        raise OSError(f"the collector ignores {path}: its name does not end in .prom")
    if not os.access(path.parent, os.W_OK | os.X_OK):
        raise OSError(f"cannot write to {path.parent}")
    return f"{path.parent} is writable"


def _pushgateway(url: str) -> str:
    from prometheus_backup.metrics.push import ready

    ready(url)
    return "the Pushgateway is reachable"


def _healthcheck(url: str) -> str:
    # Not pinged: the service would take the ping for a successful backup.
    scheme, _, rest = url.partition("://")
    if scheme not in ("http", "https") or not rest:
        raise OSError("it is not an http or https URL")
    return "is set (not pinged by this check)"
