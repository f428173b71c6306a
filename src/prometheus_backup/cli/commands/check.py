"""`check`: a preflight."""

from typing import TYPE_CHECKING

from prometheus_backup.cli.command import command
from prometheus_backup.cli.output import Output
from prometheus_backup.cli.render import Document
from prometheus_backup.cli.wiring import Wiring

if TYPE_CHECKING:
    from prometheus_backup.ops.check import CheckReport


@command("prometheus", "source", "repository", "retention", "backup")
def check(wiring: Wiring, output: Output) -> int:
    """Look at Prometheus, the repository and the settings, and say how to mend what is wrong."""
    from prometheus_backup.ops import check as preflight

    report = preflight.check(
        settings=wiring.describe,
        connect=wiring.client,
        data_dir=wiring.data_dir,
        open_repository=wiring.unseen_repository,
        run_id=wiring.run_id,
        clock=wiring.clock,
    )
    lines = []
    for line in report.lines:
        lines.append(f"{'ok  ' if line.ok else 'FAIL'}  {line.subject}: {line.detail}")
        if line.fix:
            lines.append(f"      fix: {line.fix}")
    output.result(check_document(report), lines=lines)
    return report.exit_code


def check_document(report: "CheckReport") -> Document:
    """Return what `check --json` prints."""
    return {
        "ok": report.exit_code == 0,
        "checks": [
            {"subject": li.subject, "ok": li.ok, "detail": li.detail, "fix": li.fix}
            for li in report.lines
        ],
    }
