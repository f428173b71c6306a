"""Writes the computed tables of docs/: `python -m devtools.tables`.

Each is between `<!-- table NAME: made by devtools.tables -->` and `<!-- end -->`. tests/docs/
fails if one is out of date.
"""

import re
from collections.abc import Callable, Iterable
from datetime import timedelta
from pathlib import Path

from devtools.durations import BENCHMARKS, Expected, durations, measured
from prometheus_backup.cost.lifetimes import expected_workload, simulate_lifetimes
from prometheus_backup.cost.model import STRATEGIES, Month, Strategy, Usage, month
from prometheus_backup.cost.prices import PRICES
from prometheus_backup.retention.policy import Policy

DOCS = Path(__file__).parent.parent / "docs"
PAGES = (
    DOCS / "explanation" / "cost.md",
    DOCS / "how-to" / "tuning.md",
    DOCS / "how-to" / "disaster-recovery.md",
)

_GB = 1000**3
_SIZES = (10 * _GB, 50 * _GB, 100 * _GB, 500 * _GB)
_RETENTION = timedelta(days=15)
_STANDARD, _LIFECYCLE = STRATEGIES[:2]
_POLICIES = (
    Policy(30, 12, 3),
    Policy(14, 12, 3),
    Policy(7, 12, 3),
    Policy(7, 4, 1),
    Policy(30, 0, 0),
)
_ROTATIONS = (0, 90, 30, 7)
_LINKS = {"1 Gbit/s": 1e9, "10 Gbit/s": 1e10}

Row = Iterable[object]


def update_tables(page: str) -> str:
    """Return the page with all its tables recomputed."""

    def table(match: re.Match[str]) -> str:
        return f"{match[1]}{_TABLES[match[2]]()}{match[3]}"

    updated, count = _MARKED.subn(table, page)
    if not count:
        raise ValueError("the page has no marks for a table")
    return updated


def _month(strategy: Strategy, size: int, policy: Policy, usage: Usage | None = None) -> Month:
    usage = usage or Usage()
    return month(
        strategy,
        workload=expected_workload(size, _RETENTION),
        kept=simulate_lifetimes(policy, noncurrent_days=usage.noncurrent_days),
        usage=usage,
        prices=PRICES,
    )


def _costs() -> str:
    rows = []
    for strategy in STRATEGIES:
        months = [_month(strategy, size, Policy()) for size in _SIZES]
        wait = f"{months[0].thaw_hours} h" if months[0].thaw_hours else "none"
        rows.append((strategy.name, *(f"{m.total:,.0f}" for m in months), wait))
    return _markdown(
        ("storage class of block files", *_sizes(), "wait to restore the oldest"), rows
    )


def _parts() -> str:
    rows = []
    for strategy in STRATEGIES:
        m = _month(strategy, 100 * _GB, Policy())
        dollars = (m.storage, m.early_deletion, m.requests, m.retrieval, m.total, m.restore_oldest)
        rows.append((strategy.name, *(f"{d:,.2f}" for d in dollars)))
    head = ("storage", "early deletion", "requests", "retrieval", "total", "restore of the oldest")
    return _markdown(("storage class of block files, 100 GB", *head), rows)


def _policies() -> str:
    rows = []
    for policy in _POLICIES:
        kept = simulate_lifetimes(policy).average
        months = [_month(s, 100 * _GB, policy).total for s in (_STANDARD, _LIFECYCLE)]
        versioned = _month(_LIFECYCLE, 100 * _GB, policy, Usage(noncurrent_days=14)).total
        name = f"{policy.daily} / {policy.monthly} / {policy.yearly}"
        rows.append((name, f"{kept:.1f}", *(f"{m:,.0f}" for m in (*months, versioned))))
    return _markdown(
        (
            "daily / monthly / yearly, 100 GB",
            "backups kept",
            _STANDARD.name,
            _LIFECYCLE.name,
            "the same, versioned for 14 days",
        ),
        rows,
    )


def _verification() -> str:
    rows = []
    for strategy in (_STANDARD, _LIFECYCLE):
        usages = [Usage(verify_days=days) for days in _ROTATIONS]
        months = [_month(strategy, 100 * _GB, Policy(), usage).total for usage in usages]
        rows.append((strategy.name, *(f"{m:,.0f}" for m in months)))
    head = (f"everything every {days} days" if days else "nothing" for days in _ROTATIONS)
    return _markdown(("storage class of block files; verification reads", *head), rows)


def _durations() -> str:
    rates = measured(BENCHMARKS.read_text())
    rows = []
    for size in _SIZES:
        for name, bits in _LINKS.items():
            e = durations(size, bits=bits, rates=rates)
            rows.append((f"{size // _GB} GB", name, *_times(e)))
    head = ("snapshot", "first upload", "first total", "sent a night", "nightly upload and copies")
    return _markdown(("TSDB", "link", *head, "nightly total", "restore"), rows)


def _restores() -> str:
    rates = measured(BENCHMARKS.read_text())
    rows = []
    for name, bits in _LINKS.items():
        times = [durations(size, bits=bits, rates=rates).restore for size in _SIZES]
        rows.append((name, *(_time(seconds) for seconds in times)))
    return _markdown(("restore over", *_sizes()), rows)


def _times(e: Expected) -> Row:
    yield from (_time(s) for s in (e.snapshot, e.first_upload, e.first_total))
    yield f"{e.sent / _GB:.1f} GB"
    yield from (_time(s) for s in (e.night_upload, e.night_total, e.restore))


def _time(seconds: float) -> str:
    """Format seconds: `45 s`, `12 min`, `1 h 20 min`."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60} min"


def _sizes() -> Row:
    return (f"{size // _GB} GB" for size in _SIZES)


def _markdown(header: Row, rows: Iterable[Row]) -> str:
    lines = [list(map(str, row)) for row in (header, *rows)]
    lines.insert(1, ["---"] * len(lines[0]))
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


_TABLES: dict[str, Callable[[], str]] = {
    "costs": _costs,
    "parts": _parts,
    "policies": _policies,
    "verification": _verification,
    "durations": _durations,
    "restores": _restores,
}
_MARKED = re.compile(
    r"(<!-- table (\w+): made by devtools\.tables -->\n).*?(<!-- end -->)", re.DOTALL
)


def main() -> None:
    """Write the pages."""
    for page in PAGES:
        page.write_text(update_tables(page.read_text()))


if __name__ == "__main__":
    main()
