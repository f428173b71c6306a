"""Simulates what both layouts store of a Prometheus that keeps 15 days: `python -m bench.storage`.

The blocks are those that Prometheus' compactor makes (2, 6 and 18 hours), and the head of each
backup. Retention, the archive's included, is that of the program. It takes seconds.
"""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from statistics import mean

from bench.report import Target, table
from prometheus_backup.cost.compaction import Compactor
from prometheus_backup.cost.simulation import DAY
from prometheus_backup.model import ms_from_instant
from prometheus_backup.retention.policy import Policy
from tests.support.nights import simulate_nights

TITLE = "Bytes stored, simulated"
_INTRODUCTION = """\
By `python -m bench.storage`: the blocks of a Prometheus that keeps 15 days, as its compactor makes
them (2, 6 and 18 h), with the head that each backup adds, and the program's own retention. Layout
`archive` compared with whole copies, at the end of the last night or as the mean over the nights
of a year. Every block has an index; its size is given as a share of a whole copy.
"""
RETENTION = timedelta(days=15)
HOUR = timedelta(hours=1)
YEAR = 365
SMALL_INDEX, LARGE_INDEX = 0.5, 2.0
"""Hours of samples that take as many bytes as the index of a block."""


def index_share(index_hours: float) -> float:
    """Return which share of a whole copy the indexes are."""
    at = ms_from_instant(datetime(2025, 6, 1, 2, tzinfo=UTC))
    blocks = Compactor.of(RETENTION).snapshot(at)
    indexes = index_hours * len(blocks)
    return indexes / (indexes + sum(b.hours for b in blocks))


def thirty_nights() -> Iterator[str]:
    """Yield what 30 nightly backups take, compared with as many whole copies."""
    for index_hours, limit in ((0.0, 0.15), (SMALL_INDEX, 0.15), (LARGE_INDEX, 0.17)):
        nights = simulate_nights(
            Policy(30, 0, 0), retention=RETENTION, days=30, index_hours=index_hours
        )
        what = f"30 nights, indexes {index_share(index_hours):.0%} of a copy / whole copies"
        yield Target(what, limit, nights.ratios[-1]).row()


def tiers() -> Iterator[str]:
    """Yield what 30/12/3 takes, on the average of each year."""
    for index_hours in (0.0, LARGE_INDEX):
        nights = simulate_nights(
            Policy(30, 12, 3), retention=RETENTION, days=3 * YEAR, index_hours=index_hours
        )
        for year in range(3):
            ratio = mean(nights.ratios[year * YEAR : (year + 1) * YEAR])
            indexes = f"indexes {index_share(index_hours):.0%} of a copy"
            what = f"30/12/3, year {year + 1}, {indexes} / whole copies"
            yield Target(what, 0.42, ratio).row()


def hourly() -> str:
    """Return what hourly backups take, compared with nightly ones."""
    nightly = simulate_nights(Policy(30, 12, 3), retention=RETENTION, days=2 * YEAR)
    policy = Policy(30, 12, 3, all_for=48 * HOUR)
    hours = simulate_nights(policy, retention=RETENTION, days=2 * YEAR, gap=HOUR)
    ratio = mean(hours.archive[-YEAR:]) / mean(nightly.archive[-YEAR:])
    return Target("hourly with `RETENTION_ALL=48h` / nightly, 30/12/3", 1.1, ratio).row()


def history() -> Iterator[str]:
    """Yield what a history takes, for comparison."""
    for days in (90, YEAR):
        policy = Policy(30, 0, 0, history=days * DAY)
        nights = simulate_nights(policy, retention=RETENTION, days=2 * YEAR)
        yield (
            f"| 30 nights and a history of {days} days / the 30 whole copies | | "
            f"{nights.ratios[-1]:.2f} | |"
        )


def run_benchmarks() -> str:
    """Simulate everything; return the section of the report."""
    rows = [*thirty_nights(), *tiers(), hourly(), *history()]
    head = ("bytes stored", "target", "ratio", "")
    return f"## {TITLE}\n\n{_INTRODUCTION}\n{table('', head, rows)}"


def main() -> None:
    """Command line of the simulation."""
    print(run_benchmarks())


if __name__ == "__main__":
    main()
