"""`estimate`: what a month of backups costs."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from prometheus_backup.cli.command import command, option
from prometheus_backup.cli.context import CommandContext
from prometheus_backup.cli.options import Count
from prometheus_backup.cli.output import Output
from prometheus_backup.cli.render import Document, Row
from prometheus_backup.cli.reporting import class_in_use
from prometheus_backup.cli.tables import Column, Table, table
from prometheus_backup.errors import UsageError
from prometheus_backup.model import Layout, counted, size
from prometheus_backup.retention.policy import Policy

if TYPE_CHECKING:
    from prometheus_backup.cost.estimate import Basis, EstimateReport, LayoutEstimate
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
@command("source", "repository", "retention", "layout")
def estimate(context: CommandContext, output: Output, **choices: Any) -> int:
    """Estimate what backups store and cost on S3, in both layouts and by storage class.

    Shows a month once the number of backups is stable, and the next 12 months. Uses --tsdb-size if
    given, else the repository, else the data directory. Outside S3 it estimates bytes only. Nothing
    is sent or changed.
    """
    from prometheus_backup.cost.estimate import estimate as estimate_cost
    from prometheus_backup.cost.model import STRATEGIES, Usage

    prices, in_use = _prices(choices["price_file"]), class_in_use(context)
    if in_use is not None and in_use not in {s.name for s in STRATEGIES}:
        raise UsageError(
            f"cannot estimate the cost of storage class {in_use!r}: its prices are not known",
            hint="set S3_STORAGE_CLASS to a class of S3",
        )
    report = estimate_cost(
        _basis(context, choices),
        policy=context.policy(),
        usage=Usage(choices["verify_days"], choices["noncurrent_days"]),
        prices=prices,
        today=context.clock.now().date(),
        in_use=_given_layout(context),
        storage_class=in_use,
    )
    by_class = [table(ESTIMATE_COLUMNS, estimate_rows(report, in_use))]
    output.result(
        estimate_document(report, prices, in_use),
        tables=[
            *(by_class if in_use else ()),
            table(LAYOUT_COLUMNS, layout_rows(report, in_use)),
            _month_table(report, in_use),
        ],
        lines=["", *estimate_lines(report, in_use)],
    )
    return 0


def _given_layout(context: CommandContext) -> Layout | None:
    """Return the layout that was set; None if none was."""
    source = click.get_current_context().get_parameter_source("layout")
    return None if source is ParameterSource.DEFAULT else Layout(context.values["layout"])


def _basis(context: CommandContext, choices: Mapping[str, Any]) -> "Basis":
    from prometheus_backup.config import parse_size
    from prometheus_backup.cost import estimate as basis
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


def estimate_document(
    report: "EstimateReport", prices: "Mapping[str, Price]", in_use: str | None
) -> Document:
    """Return what `estimate --json` prints. Without a class in use there are no prices."""
    from prometheus_backup.cost.forecast import forecast_document
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
        "stored_backups": len(report.basis.stored),
        "stored_bytes": report.basis.stored_bytes,
        "policy": {name: getattr(report.policy, name) for name in ("daily", "monthly", "yearly")},
        "kept_backups": round(report.used.kept.backups, 2),
        "kept_bytes": round(report.used.kept.stored),
        "layouts": [_layout_document(x, report.used, in_use) for x in report.layouts],
        "forecast": forecast_document(report.used.forecast, in_use),
        "strategies": [_month_document(m, report, in_use) for m in report.used.months],
        "prices": {
            "currency": "USD",
            "region": REGION,
            "as_of": AS_OF,
            "classes": {name: _price_document(price) for name, price in prices.items()},
        }
        if in_use
        else None,
        "assumptions": [*assumptions(report, in_use)],
    }


def _layout_document(
    layout: "LayoutEstimate", used: "LayoutEstimate", in_use: str | None
) -> Document:
    return {
        "layout": layout.layout.value,
        "history_days": layout.history.days,
        "in_use": layout.in_use,
        "stored_bytes": round(layout.kept.stored),
        "stored_objects": round(layout.kept.objects),
        "nightly_copied_bytes": round(layout.copied),
        "nightly_requests": round(layout.nightly.total),
        "month": round(layout.month(in_use).total, 4) if in_use else None,
        "next_12_months": round(layout.forecast.total(in_use), 4) if in_use else None,
        "month_12_stored_bytes": round(layout.forecast.months[-1].stored),
        "difference_percent": round(_difference(layout, used, in_use), 1),
    }


def _month_document(month: "Month", report: "EstimateReport", in_use: str | None) -> Document:
    return {
        "name": month.strategy.name,
        "in_use": month.strategy.name == in_use,
        "stages": [
            {"after_days": day, "storage_class": name} for day, name in month.strategy.stages
        ],
        "storage": round(month.storage, 4),
        "early_deletion": round(month.early_deletion, 4),
        "requests": round(month.requests, 4),
        "retrieval": round(month.retrieval, 4),
        "month": round(month.total, 4),
        "next_12_months": round(report.used.forecast.total(month.strategy.name), 4),
        "restore_newest": round(month.restore_newest, 4),
        "restore_oldest": round(month.restore_oldest, 4),
        "thaw_hours": month.thaw_hours,
    }


def _price_document(price: "Price") -> Document:
    return {name: value for name, value in asdict(price).items() if name != "untouched"}


def _difference(layout: "LayoutEstimate", used: "LayoutEstimate", in_use: str | None) -> float:
    """Return how much more a layout costs than the one in use, or stores if there is no cost."""
    one, other = (x.month(in_use).total if in_use else x.kept.stored for x in (layout, used))
    return (one / other - 1) * 100 if other else 0.0


LAYOUT_COLUMNS = (
    Column("layout"),
    Column("stored"),
    Column("copied a night", hide=1),
    Column("requests a night", hide=2),
    Column("month"),
    Column("12 months"),
    Column("change"),
)


def layout_rows(report: "EstimateReport", in_use: str | None) -> Iterable[Row]:
    """Yield a row for each layout, compared with the one in use."""
    for layout in report.layouts:
        difference = _difference(layout, report.used, in_use)
        yield (
            f"{layout.name} (in use)" if layout.in_use else layout.name,
            size(layout.kept.stored),
            size(layout.copied),
            f"{layout.nightly.total:,.0f}",
            f"{layout.month(in_use).total:,.2f}" if in_use else "",
            f"{layout.forecast.total(in_use):,.2f}" if in_use else "",
            "" if layout.in_use else f"{difference:+.0f} %",
        )


ESTIMATE_COLUMNS = (
    Column("storage class", text=True),
    Column("storage", hide=3),
    Column("early deletion", hide=6),
    Column("requests", hide=5),
    Column("retrieval", hide=4),
    Column("month"),
    Column("next 12 months"),
    Column("restore newest", hide=1),
    Column("restore oldest", hide=2),
    Column("thaw time"),
)


def estimate_rows(report: "EstimateReport", in_use: str | None) -> Iterable[Row]:
    """Yield a row for each strategy, in dollars."""
    for month in report.used.months:
        name = month.strategy.name
        yield (
            f"{name} (in use)" if name == in_use else name,
            *(
                f"{dollars:,.2f}"
                for dollars in (
                    month.storage,
                    month.early_deletion,
                    month.requests,
                    month.retrieval,
                    month.total,
                    report.used.forecast.total(name),
                    month.restore_newest,
                    month.restore_oldest,
                )
            ),
            f"{month.thaw_hours} h" if month.thaw_hours else "none",
        )


MONTH_COLUMNS = (Column("month"), Column("backups"), Column("stored"), Column("US dollars"))


def _month_table(report: "EstimateReport", in_use: str | None) -> Table:
    """Return the next twelve months; without a class in use, there is no cost."""
    columns = MONTH_COLUMNS if in_use else MONTH_COLUMNS[:-1]
    return table(columns, (row[: len(columns)] for row in month_rows(report, in_use)))


def month_rows(report: "EstimateReport", in_use: str | None) -> Iterable[Row]:
    """Yield a row for each of the next twelve months."""
    for month in report.used.forecast.months:
        dollars = month.dollars.get(in_use or "")
        yield (
            f"{month.first:%Y-%m}",
            f"{month.backups:.1f}",
            size(month.stored),
            "" if dollars is None else f"{dollars:,.2f}",
        )


def estimate_lines(report: "EstimateReport", in_use: str | None) -> Iterable[str]:
    """Yield what the next twelve months add up to, and what the estimate is based on."""
    load, policy, used = report.basis.workload, report.policy, report.used
    first, last = used.forecast.months[0], used.forecast.months[-1]
    yield (
        f"next 12 months, {first.first:%Y-%m} to {last.first:%Y-%m}, layout {used.layout}: "
        f"stored {size(first.stored)} to {size(last.stored)}"
        + (f", {_year(report, in_use)} US dollars with {in_use}" if in_use else "")
    )
    yield (
        f"one backup is {size(load.size)} in {load.files:,} files, of which a night adds "
        f"{size(load.upload)}; based on {report.basis.source}"
    )
    yield (
        f"This policy ({_policy_text(policy)}) "
        f"keeps {used.kept.backups:.1f} backups: "
        + ", ".join(f"{size(x.kept.stored)} in layout {x.name}" for x in report.layouts)
    )
    if report.basis.stored:
        yield (
            f"stored now: {counted(len(report.basis.stored), 'backup')}, "
            f"{size(report.basis.stored_bytes)}"
        )
    for assumption in assumptions(report, in_use):
        yield f"assumed: {assumption}"


def _policy_text(policy: Policy) -> str:
    tiers = f"{policy.daily} daily, {policy.monthly} monthly, {policy.yearly} yearly"
    young = f", all for {policy.all_for / timedelta(hours=1):g} hours" if policy.all_for else ""
    history = f", a history of {policy.history.days} days" if policy.history else ""
    return tiers + young + history


def _year(report: "EstimateReport", in_use: str) -> str:
    return f"{report.used.forecast.total(in_use):,.2f}"


def assumptions(report: "EstimateReport", in_use: str | None) -> Iterable[str]:
    """Yield the assumptions of the estimate."""
    from prometheus_backup.cost.forecast import growth_text
    from prometheus_backup.cost.prices import AS_OF, REGION

    days, noncurrent = report.usage.verify_days, report.usage.noncurrent_days
    yield from report.basis.assumptions
    yield (
        "layouts: once the number of backups is stable, without growth; archive: blocks as "
        "Prometheus compacts them, and the head of each snapshot"
    )
    if report.basis.stored:
        yield growth_text(report.used.forecast)
    if not in_use:
        return
    yield f"list prices of {REGION} as of {AS_OF}, the first 50 TB, without tax; see --prices"
    yield "the column month: all backups of one size, once their number is stable"
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
