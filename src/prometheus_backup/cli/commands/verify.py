"""`verify`: compare stored backups with what was backed up."""

from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import nullcontext
from typing import TYPE_CHECKING

import click

from prometheus_backup.cli.command import argument, command, option
from prometheus_backup.cli.completion import backup_ids
from prometheus_backup.cli.context import CommandContext
from prometheus_backup.cli.output import Output
from prometheus_backup.cli.render import Document, Row, instant, second
from prometheus_backup.cli.tables import Column, table
from prometheus_backup.config import parse_subset
from prometheus_backup.model import Verdict, counted, size

if TYPE_CHECKING:
    from prometheus_backup.repository.verification import Rotation
    from prometheus_backup.verify.run import BackupResult, VerifyReport

_NOT_SHOWN = {"rotation", "part", "seconds"}
"""Fields of a recorded result that this command reports in another form, or never sets."""
_LEVELS = click.Choice(["size", "stored", "checksum", "tsdb"])


@argument("backups", metavar="[BACKUP...|latest]", nargs=-1, shell_complete=backup_ids)
@option("--level", type=_LEVELS, default="checksum", show_default=True, help="How thorough.")
@option("--all", "every", is_flag=True, help="Verify every backup.")
@option(
    "--subset",
    metavar="N/T|next/T",
    help="Only part N of T of each backup, or the next part due; T runs cover everything.",
)
@command("repository", "scratch", "retention", "monitoring", "reporting")
def verify(
    context: CommandContext,
    output: Output,
    backups: Sequence[str],
    *,
    every: bool,
    level: str,
    subset: str | None,
) -> int:
    """Verify stored backups (default: latest) and record the results in the repository."""
    from prometheus_backup.model import Level
    from prometheus_backup.verify.run import Verifier, select_backups

    parts = parse_subset(subset)
    repository = context.repository()
    entries = select_backups(repository, backups, every=every)
    with context.scratch_space() if level == Level.TSDB else nullcontext() as scratch:
        verifier = Verifier(
            repository, context.transfer(), Level(level), context.listener, parts, scratch
        )
        report = verifier.verify(entries)
    output.result(
        verify_document(report),
        tables=[table(VERIFY_COLUMNS, verify_rows(report))],
        lines=verify_lines(report, url=repository.url),
    )
    return report.outcome.exit_code


def verify_document(report: "VerifyReport") -> Document:
    """Return what `verify --json` prints."""
    return {
        "outcome": report.outcome.value,
        "results": [
            {
                **c.result.model_dump(mode="json", exclude=_NOT_SHOWN),
                "cause": c.cause,
                "rotation": _rotation_document(c),
            }
            for c in report.checked
        ],
    }


def _rotation_document(checked: "BackupResult") -> Document | None:
    part, rotation = checked.result.rotation, checked.rotation
    if part is None:
        return None
    return {
        "part": part.part,
        "parts": part.parts,
        "parts_passed": rotation.passed if rotation else None,
        "passed_at": instant(rotation.passed_at) if rotation else None,
    }


VERIFY_COLUMNS = (
    Column("backup"),
    Column("level"),
    Column("result"),
    Column("objects", hide=2),
    Column("read", hide=1),
    Column("findings", text=True),
)


def verify_rows(report: "VerifyReport") -> Iterable[Row]:
    """Yield a row for each backup, then one for each finding."""
    for checked in report.checked:
        result = checked.result
        yield (
            result.backup_id,
            f"{result.level} {result.rotation}" if result.rotation else result.level.value,
            result.verdict.value,
            f"{result.objects:,}",
            size(result.bytes_read),
            checked.cause or str(len(result.findings)),
        )
        for finding in result.findings:
            yield "", "", finding.kind.value, "", "", str(finding)


def verify_lines(report: "VerifyReport", *, url: str) -> list[str]:
    """Return the lines below the table: rotations, the total, the consequences of findings."""
    if not report.checked:
        return [f"nothing was verified: {url} contains no backups"]
    lines = [
        f"{c.result.backup_id}: {rotation_text(c.rotation)}" for c in report.checked if c.rotation
    ]
    lines.append(verify_total(report))
    findings = [f for c in report.checked for f in c.result.findings]
    if findings:
        reusable = "only sound blocks" if all(f.is_source_damage for f in findings) else "nothing"
        lines.append(
            "a backup with findings is not good: `restore latest` skips it, and the next backup "
            f"reuses {reusable} from it"
        )
    return lines


def verify_total(report: "VerifyReport") -> str:
    """Return how many backups were verified, with which results."""
    verdicts = Counter(c.result.verdict for c in report.checked)
    words = {Verdict.PASS: "passed", Verdict.FAIL: "failed", Verdict.INCONCLUSIVE: "inconclusive"}
    results = ", ".join(f"{verdicts[v]:,} {words[v]}" for v in words if verdicts[v])
    return f"verified {counted(len(report.checked), 'backup')}: {results}"


def rotation_text(rotation: "Rotation") -> str:
    """Return the progress of a rotation."""
    passed = f"{rotation.passed} of {counted(rotation.parts, 'part')} passed at level"
    whole = f"; complete since {second(rotation.intact_since)}" if rotation.intact_since else ""
    return f"{passed} {rotation.level}{whole}"
