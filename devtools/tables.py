"""Writes the computed tables of docs/: `python -m devtools.tables`.

Each is between `<!-- table NAME: made by devtools.tables -->` and `<!-- end -->`. tests/docs/
fails if one is out of date.
"""

import re
from collections.abc import Callable, Iterable
from datetime import timedelta
from functools import cache
from pathlib import Path

from devtools.durations import BENCHMARKS, Expected, durations, measured
from prometheus_backup.cost.compaction import Compactor
from prometheus_backup.cost.lifetimes import Kept, steady
from prometheus_backup.cost.model import STRATEGIES, Month, Strategy, Usage, month, requests_of
from prometheus_backup.cost.prices import PRICES
from prometheus_backup.cost.simulation import DAY, Pace
from prometheus_backup.cost.tsdb import Tsdb, expected_workload
from prometheus_backup.model import Layout
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
FULL, ARCHIVE = Layout.FULL, Layout.ARCHIVE
_COMPARED = (10 * _GB, 100 * _GB, 500 * _GB)
_HISTORY = Policy(history=timedelta(days=400))
_HOURLY = Policy(all_for=timedelta(hours=48))
_POLICIES = (
    ("30 / 12 / 3", Policy(30, 12, 3), False),
    ("14 / 12 / 3", Policy(14, 12, 3), False),
    ("7 / 12 / 3", Policy(7, 12, 3), False),
    ("7 / 4 / 1", Policy(7, 4, 1), False),
    ("30 / 0 / 0", Policy(30, 0, 0), False),
    ("30 / 12 / 3, every hour, `RETENTION_ALL=48h`", _HOURLY, True),
    ("30 / 12 / 3, history of 400 days", _HISTORY, False),
    ("30 / 0 / 0, history of 400 days", Policy(30, 0, 0, history=timedelta(days=400)), False),
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


@cache
def _kept(size: int, policy: Policy, layout: Layout, *, hourly: bool, noncurrent: int) -> Kept:
    compactor = Compactor.of(_RETENTION)
    tsdb = Tsdb(size, compactor, Pace(timedelta(hours=1) if hourly else DAY))
    # Whole copies have no history.
    return steady(
        policy if layout is ARCHIVE else policy.without_history,
        layout=layout,
        tsdb=tsdb,
        load=expected_workload(size, compactor, tsdb.pace),
        noncurrent_days=noncurrent,
    )


def _month(
    strategy: Strategy,
    size: int,
    policy: Policy,
    layout: Layout,
    usage: Usage | None = None,
    *,
    hourly: bool = False,
) -> Month:
    usage = usage or Usage()
    kept = _kept(size, policy, layout, hourly=hourly, noncurrent=usage.noncurrent_days)
    load = expected_workload(size, Compactor.of(_RETENTION), kept.pace)
    return month(strategy, workload=load, kept=kept, usage=usage, prices=PRICES)


def _layouts() -> str:
    rows = []
    for size in _COMPARED:
        load = expected_workload(size, Compactor.of(_RETENTION))
        for layout, policy in ((FULL, Policy()), (ARCHIVE, Policy()), (ARCHIVE, _HISTORY)):
            kept = _kept(size, policy, layout, hourly=False, noncurrent=0)
            months = [_month(s, size, policy, layout).total for s in (_STANDARD, _LIFECYCLE)]
            copied = load.size - load.upload if layout is FULL else 0
            rows.append(
                (
                    f"{size // _GB} GB, {layout}" + (" + history" if policy.history else ""),
                    f"{kept.stored / _GB:,.0f} GB",
                    f"{copied / _GB:,.0f} GB",
                    f"{requests_of(load, kept).total:,.0f}",
                    *(f"{m:,.0f}" for m in months),
                )
            )
    head = ("stored", "copied a night", "requests a night", _STANDARD.name, _LIFECYCLE.name)
    return _markdown(("TSDB, layout", *head), rows)


def _shares() -> str:
    rows = []
    for text, policy, hourly in (
        ("30 nights", Policy(30, 0, 0), False),
        ("30 / 12 / 3", Policy(), False),
        ("30 / 12 / 3, and a history of 400 days", _HISTORY, False),
        ("30 / 12 / 3, every hour, `RETENTION_ALL=48h`", _HOURLY, True),
    ):
        full, archive = (
            _kept(100 * _GB, policy, x, hourly=hourly, noncurrent=0).stored for x in (FULL, ARCHIVE)
        )
        rows.append(
            (text, f"{full / _GB:,.0f} GB", f"{archive / _GB:,.0f} GB", f"{archive / full:.0%}")
        )
    return _markdown(("backups, 100 GB", FULL, ARCHIVE, "share"), rows)


def _costs() -> str:
    rows = []
    for strategy in STRATEGIES:
        months = [_month(strategy, z, Policy(), x) for z in _COMPARED for x in (FULL, ARCHIVE)]
        wait = f"{months[0].thaw_hours} h" if months[0].thaw_hours else "none"
        rows.append((strategy.name, *(f"{m.total:,.0f}" for m in months), wait))
    sizes = [f"{size // _GB} GB, {layout}" for size in _COMPARED for layout in (FULL, ARCHIVE)]
    return _markdown(("storage class of block files", *sizes, "wait to restore the oldest"), rows)


def _parts(layout: Layout) -> str:
    rows = []
    for strategy in STRATEGIES:
        m = _month(strategy, 100 * _GB, Policy(), layout)
        dollars = (m.storage, m.early_deletion, m.requests, m.retrieval, m.total, m.restore_oldest)
        rows.append((strategy.name, *(f"{d:,.2f}" for d in dollars)))
    head = ("storage", "early deletion", "requests", "retrieval", "total", "restore of the oldest")
    return _markdown((f"layout {layout}, 100 GB", *head), rows)


def _policies() -> str:
    rows = []
    for text, policy, hourly in _POLICIES:
        kept = _kept(100 * _GB, policy, FULL, hourly=hourly, noncurrent=0).backups
        months = [
            _month(strategy, 100 * _GB, policy, layout, hourly=hourly).total
            for strategy in (_STANDARD, _LIFECYCLE)
            for layout in (FULL, ARCHIVE)
        ]
        versioned = [
            _month(_LIFECYCLE, 100 * _GB, policy, x, Usage(noncurrent_days=14), hourly=hourly).total
            for x in (FULL, ARCHIVE)
        ]
        # A full backup has no history, so it does not compare.
        cells = [f"{m:,.0f}" for m in (*months, *versioned)]
        cells = ["" if policy.history and n % 2 == 0 else c for n, c in enumerate(cells)]
        rows.append((text, f"{kept:.0f}", *cells))
    names = (_STANDARD.name, _LIFECYCLE.name, "the same, versioned for 14 days")
    return _markdown(
        (
            "daily / monthly / yearly, 100 GB",
            "backups kept",
            *(f"{name}, {layout}" for name in names for layout in (FULL, ARCHIVE)),
        ),
        rows,
    )


def _verification() -> str:
    rows = []
    for layout in (FULL, ARCHIVE):
        for strategy in (_STANDARD, _LIFECYCLE):
            usages = [Usage(verify_days=days) for days in _ROTATIONS]
            months = [_month(strategy, 100 * _GB, Policy(), layout, u).total for u in usages]
            rows.append((f"{strategy.name}, {layout}", *(f"{m:,.0f}" for m in months)))
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
    "layouts": _layouts,
    "shares": _shares,
    "parts": lambda: _parts(FULL),
    "parts_archive": lambda: _parts(ARCHIVE),
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
