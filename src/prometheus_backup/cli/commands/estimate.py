"""`estimate`: what a month of backups costs."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from prometheus_backup.cli.command import command, option
from prometheus_backup.cli.context import CommandContext
from prometheus_backup.cli.options import Count
from prometheus_backup.cli.output import Output
from prometheus_backup.cli.render import Document, Row
from prometheus_backup.cli.tables import Column, table
from prometheus_backup.model import counted, size

if TYPE_CHECKING:
    from prometheus_backup.cost.estimate import Basis, EstimateReport
    from prometheus_backup.cost.model import Month
    from prometheus_backup.cost.prices import Price


@option(
    "--prices",
    "price_file",
    metavar="FILE",
    type=click.Path(path_type=Path, dir_okay=False),
    help="JSON file with your prices, in the format of `prices.classes` in the --json output.",
)
@option(
    "--noncurrent-days",
    type=Count(min=0),
    default=0,
    show_default=True,
    help="Days that a versioned bucket keeps deleted objects.",
)
@option(
    "--verify-days",
    type=Count(min=0),
    default=0,
    show_default=True,
    help="Days in which verification reads every byte once; 0 means never.",
)
@option("--nightly-upload", metavar="SIZE", help="With --tsdb-size: size of one nightly upload.")
@option(
    "--tsdb-retention",
    metavar="TIME",
    default="15d",
    show_default=True,
    help="With --tsdb-size: retention time.",
)
@option("--tsdb-size", metavar="SIZE", help="Estimate for a TSDB of this size, such as 100GB.")
@command("source", "repository", "retention")
def estimate(context: CommandContext, output: Output, **choices: Any) -> int:
    """Estimate what a month of backups costs on S3, by storage class.

    Uses --tsdb-size if given, else the repository, else the data directory. Nothing is sent or
    changed.
    """
    from prometheus_backup.cost.estimate import estimate as estimate_cost
    from prometheus_backup.cost.model import Usage

    prices = _prices(choices["price_file"])
    report = estimate_cost(
        _basis(context, choices),
        policy=context.policy(),
        usage=Usage(choices["verify_days"], choices["noncurrent_days"]),
        prices=prices,
    )
    output.result(
        estimate_document(report, prices),
        tables=[table(ESTIMATE_COLUMNS, estimate_rows(report))],
        lines=["", *estimate_lines(report)],
    )
    return 0


def _basis(context: CommandContext, choices: Mapping[str, Any]) -> "Basis":
    from prometheus_backup.config import parse_size
    from prometheus_backup.cost import estimate as basis
    from prometheus_backup.errors import UsageError
    from prometheus_backup.prometheus.retention import parse_tsdb_retention

    if choices["tsdb_size"]:
        retention = parse_tsdb_retention(choices["tsdb_retention"]).time
        if retention is None:
            raise UsageError(
                f"cannot parse retention {choices['tsdb_retention']!r}", hint="give it as 15d"
            )
        upload = choices["nightly_upload"]
        return basis.basis_of_size(
            parse_size(choices["tsdb_size"]),
            retention,
            upload=parse_size(upload) if upload else None,
        )
    if context.values["repository"] or context.values["s3_bucket"]:
        found = basis.basis_of_repository(context.repository())
        if found is not None:
            return found
    if not context.data_dir.is_dir():
        raise UsageError(
            "cannot estimate: found no backups and no data directory",
            hint="give --tsdb-size, or S3_BUCKET of a repository with backups, or "
            "PROMETHEUS_DATA_DIR",
        )
    return basis.basis_of_data_dir(context.data_dir)


def _prices(path: Path | None) -> "Mapping[str, Price]":
    import json

    from prometheus_backup.cost.prices import override_prices
    from prometheus_backup.errors import UsageError

    if path is None:
        return override_prices({})
    try:
        changes = json.loads(path.read_bytes())
    except OSError as error:
        raise UsageError(f"cannot read prices {path}: {error.strerror}") from None
    except ValueError as error:
        raise UsageError(f"cannot read prices {path}: {error}") from None
    if not isinstance(changes, dict) or not all(isinstance(v, dict) for v in changes.values()):
        raise UsageError(
            f"cannot read prices {path}: it is not a mapping of classes to prices",
            hint='such as {"STANDARD": {"gb_month": 0.021}}',
        )
    return override_prices(changes)


def estimate_document(report: "EstimateReport", prices: "Mapping[str, Price]") -> Document:
    """Return what `estimate --json` prints."""
    from prometheus_backup.cost.prices import AS_OF, REGION

    load = report.basis.workload
    return {
        "source": report.basis.source,
        "backup": {
            "size_bytes": load.size,
            "blocks": load.blocks,
            "files": load.files,
            "nightly_upload_bytes": load.upload,
        },
        "stored_backups": report.basis.stored_backups,
        "stored_bytes": report.basis.stored_bytes,
        "policy": asdict(report.policy),
        "kept_backups": round(report.kept.average, 2),
        "kept_bytes": round(report.kept.average * load.size),
        "strategies": [_month_document(m) for m in report.months],
        "prices": {
            "currency": "USD",
            "region": REGION,
            "as_of": AS_OF,
            "classes": {name: _price_document(price) for name, price in prices.items()},
        },
        "assumptions": [*assumptions(report)],
    }


def _month_document(month: "Month") -> Document:
    return {
        "name": month.strategy.name,
        "stages": [
            {"after_days": day, "storage_class": name} for day, name in month.strategy.stages
        ],
        "storage": round(month.storage, 4),
        "early_deletion": round(month.early_deletion, 4),
        "requests": round(month.requests, 4),
        "retrieval": round(month.retrieval, 4),
        "month": round(month.total, 4),
        "restore_newest": round(month.restore_newest, 4),
        "restore_oldest": round(month.restore_oldest, 4),
        "thaw_hours": month.thaw_hours,
    }


def _price_document(price: "Price") -> Document:
    return {name: value for name, value in asdict(price).items() if name != "untouched"}


ESTIMATE_COLUMNS = (
    Column("storage class", text=True),
    Column("storage", hide=3),
    Column("early deletion", hide=6),
    Column("requests", hide=5),
    Column("retrieval", hide=4),
    Column("month"),
    Column("restore newest", hide=1),
    Column("restore oldest", hide=2),
    Column("thaw time"),
)


def estimate_rows(report: "EstimateReport") -> Iterable[Row]:
    """Yield a row for each strategy, in dollars."""
    for month in report.months:
        yield (
            month.strategy.name,
            *(
                f"{dollars:,.2f}"
                for dollars in (
                    month.storage,
                    month.early_deletion,
                    month.requests,
                    month.retrieval,
                    month.total,
                    month.restore_newest,
                    month.restore_oldest,
                )
            ),
            f"{month.thaw_hours} h" if month.thaw_hours else "none",
        )


def estimate_lines(report: "EstimateReport") -> Iterable[str]:
    """Yield what the estimate is based on."""
    load, policy = report.basis.workload, report.policy
    yield (
        f"US dollars per month for one backup per night of {size(load.size)} in {load.files:,} "
        f"files: {size(load.upload)} uploaded, the rest copied within S3; based on "
        f"{report.basis.source}"
    )
    yield (
        f"This policy ({policy.daily} daily, {policy.monthly} monthly, {policy.yearly} yearly) "
        f"keeps {report.kept.average:.1f} backups, {size(report.kept.average * load.size)}"
    )
    if report.basis.stored_backups:
        yield (
            f"stored now: {counted(report.basis.stored_backups, 'backup')}, "
            f"{size(report.basis.stored_bytes)}"
        )
    for assumption in assumptions(report):
        yield f"assumed: {assumption}"


def assumptions(report: "EstimateReport") -> Iterable[str]:
    """Yield the assumptions of the estimate."""
    from prometheus_backup.cost.prices import AS_OF, REGION

    days, noncurrent = report.usage.verify_days, report.usage.noncurrent_days
    yield from report.basis.assumptions
    yield f"list prices of {REGION} as of {AS_OF}, the first 50 TB, without tax; see --prices"
    yield "one good backup per night, until the number of kept backups is stable"
    yield (
        f"verification reads every stored byte once in {counted(days, 'day')}"
        if days
        else "uploads are read back once (level checksum); nothing is read after that"
    )
    yield (
        f"the bucket keeps deleted objects for {counted(noncurrent, 'day')}"
        if noncurrent
        else "the bucket is not versioned, or keeps no deleted objects"
    )
    yield "all traffic stays in the region; restoring outside AWS or through NAT costs more"
    yield (
        "GLACIER and DEEP_ARCHIVE objects cannot be copied or verified: each night uploads "
        "everything, and a restore must wait for the thaw time"
    )
