"""Renders a report as one HTML page that loads nothing and runs nothing.

Labels, manifests and findings are untrusted: the templates escape every value, and the policy in
the page forbids what an escape could have missed.
"""

import base64
import hashlib
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cache
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from prometheus_backup.cost.forecast import growth_text
from prometheus_backup.cost.prices import AS_OF, REGION
from prometheus_backup.model import counted, printable, rfc3339, size
from prometheus_backup.report import charts, nights
from prometheus_backup.report.document import (
    MOST_CHARACTERS,
    MOST_FAILURES,
    MOST_FINDINGS,
    MOST_REMOVALS,
    embedded,
    report_document,
    sha256_of,
)
from prometheus_backup.report.plan import Report


@dataclass(frozen=True, slots=True)
class Page:
    """A rendered page, the hash of the data that it shows, and its Content-Security-Policy."""

    html: str
    sha256: str
    policy: str


def render(report: Report) -> Page:
    """Render a report."""
    environment = _environment()
    style, _, _ = PackageLoader(__package__).get_source(environment, "style.css")
    policy = f"default-src 'none'; style-src '{_hash(style)}'; img-src data:; base-uri 'none'"
    policy += "; form-action 'none'"
    data = embedded(report_document(report))
    html = environment.get_template("page.html").render(
        report=report,
        style=Markup(style),  # noqa: S704 -- a file of this package
        policy=policy,
        data=Markup(data),  # noqa: S704 -- `embedded` has escaped it
        sha256=sha256_of(data),
        bars=charts.timeline_bars(report.timeline),
        ticks=charts.ticks(report.timeline.window),
        size_bars=charts.size_bars([(h.started_at, h.totals.bytes) for h in report.headers]),
        month_bars=charts.monthly_bars(m.stored for m in report.forecast.months)
        if report.forecast
        else (),
        growth=growth_text(report.forecast) if report.forecast else "",
        prices=f"list prices of {REGION} as of {AS_OF}",
        month_runs=nights.runs(report.months),
        legend=tuple(nights.legend(report.months)),
        ranges=_ranges(report),
        most_removals=MOST_REMOVALS,
        most=(MOST_FAILURES, MOST_FINDINGS),
    )
    return Page(html, sha256_of(data), policy)


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader(__package__),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "ago": _ago,
        "bytes": size,
        "capitalize_first": lambda text: text[:1].upper() + text[1:],
        "counted": counted,
        "instant": rfc3339,
        "duration": _length,
        "minute": lambda at: f"{at:%Y-%m-%d %H:%M}" if at else "",
        "percent": lambda value: f"{value:.2f}",
        "short": lambda text: printable(str(text), max_length=MOST_CHARACTERS),
    }
    return environment


def _ranges(report: Report) -> list[tuple[str, Any]]:
    timeline = report.timeline
    found = [("recoverable", s) for s in timeline.covered] + [
        ("missing", s) for s in timeline.holes
    ]
    return sorted(found, key=lambda r: r[1].start)


def _hash(style: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()}"


def _ago(at: datetime, now: datetime) -> str:
    days = (now - at) // timedelta(days=1)
    if days < 0:
        return "in the future"
    return {0: "today", 1: "1 day ago"}.get(days, f"{days} days ago")


def _length(length: timedelta) -> str:
    hours = length / timedelta(hours=1)
    return f"{hours:.1f} hours" if hours < 48 else f"{hours / 24:,.1f} days"
