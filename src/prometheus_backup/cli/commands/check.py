"""`check`: a preflight."""

from collections.abc import Iterable, Sequence
from functools import partial

import click

from prometheus_backup.cli.command import command
from prometheus_backup.cli.context import CommandContext
from prometheus_backup.cli.options import GivenSetting, given_settings
from prometheus_backup.cli.output import Output
from prometheus_backup.cli.preflight import monitoring_lines
from prometheus_backup.cli.render import Document, Row
from prometheus_backup.cli.reporting import advice_of
from prometheus_backup.cli.tables import summary
from prometheus_backup.errors import UsageError
from prometheus_backup.model import CheckLine, Layout, Outcome, SnapshotMode


@command(
    "prometheus",
    "source",
    "repository",
    "retention",
    "backup",
    "monitoring",
    "reporting",
    "healthcheck",
)
def check(context: CommandContext, output: Output) -> int:
    """Check Prometheus, the repository and the settings; suggest a fix for each problem."""
    from prometheus_backup.backup import check as preflight

    report = preflight.check(
        settings=context.describe,
        connect=context.client,
        data_dir=context.data_dir,
        open_repository=partial(context.unchecked_repository, hurried=True),
        run_id=context.run_id,
        clock=context.clock,
        block_class=_block_class(context),
        mode=SnapshotMode(context.values["snapshot_mode"]),
        layout=Layout(context.values["layout"]),
    )
    results = [*report.lines, *monitoring_lines(context)]
    code = report.exit_code
    if code == 0 and not all(line.ok for line in results):
        code = Outcome.PARTIAL.exit_code
    given = [*given_settings(click.get_current_context())]
    advice = advice_of(context, report.entries)
    output.result(
        check_document(results, given, advice, ok=code == 0),
        tables=[
            summary([*check_rows(results), *(("", f"advice: {text}") for text in advice)]),
            summary(setting_rows(given)),
        ],
    )
    return code


def check_rows(results: Sequence[CheckLine]) -> Iterable[Row]:
    """Yield a row for each check, and one for each fix."""
    for line in results:
        yield "ok  " if line.ok else "FAIL", f"{line.subject}: {line.detail}"
        if line.fix:
            yield "", f"fix: {line.fix}"


def setting_rows(given: Sequence[GivenSetting]) -> Iterable[Row]:
    """Yield a row for each setting that has another value than its default."""
    for setting in given:
        if setting.source != "default":
            yield setting.name, f"{_shown(setting.value)} ({setting.source} {setting.place})"
    yield "others", "have their defaults: docs/configuration.md"


def _shown(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, tuple | list) else str(value)


def _block_class(context: CommandContext) -> str | None:
    try:
        return context.backup_options().storage_class
    except UsageError:  # the line on the settings says it
        return None


def check_document(
    results: Sequence[CheckLine],
    given: Sequence[GivenSetting],
    advice: Sequence[str],
    *,
    ok: bool,
) -> Document:
    """Return what `check --json` prints."""
    return {
        "ok": ok,
        "checks": [
            {"subject": li.subject, "ok": li.ok, "detail": li.detail, "fix": li.fix}
            for li in results
        ],
        "advice": [*advice],
        "settings": [
            {"name": s.name, "value": s.value, "source": s.source, "place": s.place} for s in given
        ],
    }
