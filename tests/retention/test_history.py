"""The history: the pure decision against a naive oracle, and the archive over simulated years."""

import shutil
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from devtools.prometheus import PrometheusServer
from prometheus_backup.model import Layout, rfc3339
from prometheus_backup.repository.repository import Repository
from prometheus_backup.retention.archive import history_manifest
from prometheus_backup.retention.history import HeldBlock, history
from prometheus_backup.retention.policy import Policy
from prometheus_backup.stores.local import LocalStore
from tests.support.archives import prune
from tests.support.memory_store import MemoryStore
from tests.support.repositories import ManualClock, require_whole
from tests.support.runs import FakeClock, options, take_backup
from tests.support.stored_backups import json_of, run_here
from tests.support.timeseries import SimulatedSource

_BLOCKS = st.lists(
    st.builds(
        lambda number, begin, length, held_by, partial: HeldBlock(
            f"archive/{number}", begin, begin + length, f"backup-{held_by}", partial
        ),
        st.integers(0, 999),
        st.integers(0, 12),
        st.integers(0, 5),
        st.integers(0, 4),
        st.booleans(),
    ),
    max_size=12,
    unique_by=lambda b: b.folder,
)


def oracle(blocks: Sequence[HeldBlock], since: int) -> set[str]:
    """The rule, instant by instant."""
    wanted: set[str] = set()
    for instant in range(since, 20):
        here = [b for b in blocks if b.begin_ms <= instant < b.end_ms]
        covering = [b.held_by for b in here if not b.partial]
        newest = max(covering, default="")
        wanted |= {b.folder for b in here if b.held_by == newest}
        wanted |= {b.folder for b in here if b.partial and b.held_by >= newest}
    return wanted


@given(_BLOCKS, st.integers(0, 14))
def test_the_history_is_what_the_newest_covering_backup_held(
    blocks: list[HeldBlock], since: int
) -> None:
    assert history(blocks, since_ms=since) == oracle(blocks, since)


def test_with_a_history_no_sample_younger_than_it_is_ever_lost() -> None:
    """Nights with a simulated compactor, gaps and a new Prometheus."""
    clock = ManualClock(datetime(2025, 1, 1, 2, tzinfo=UTC))
    store = MemoryStore(clock=clock)
    source = SimulatedSource(store, clock, retention=timedelta(days=15))
    policy = Policy(daily=3, monthly=0, yearly=0, history=timedelta(days=120))
    repository = Repository(store, clock=clock)
    start = clock.now()
    for night in range(260):
        if night == 150:
            source.begin_again()
        if night % 11 != 5:  # a night without a backup, which the next one makes up for
            source.backup(night)
            report = prune(store, clock, policy=policy)
            assert report.problems == ()
        if night % 60 == 59:
            require_whole({o.key: store.get(o.key, limit=1 << 30) for o in store.list()})
            since = max(start, clock.now() - policy.history)
            source.require_all_samples(
                history_manifest(repository, since_ms=int(since.timestamp() * 1000)), since
            )
        clock.instant += timedelta(days=1)
        source.advance()
    kept = repository.archive.folders()
    # No more than the history needs, and what waits for its deletion.
    assert sum(1 for f in kept.values() if f.marked_at is None) < 200


def test_restore_history_brings_back_what_no_kept_backup_holds(
    prometheus: PrometheusServer, tmp_path: Path
) -> None:
    root = tmp_path / "repository"
    store = LocalStore(root)
    chosen = options(layout=Layout.ARCHIVE)
    first = take_backup(prometheus, store, chosen).manifest
    oldest = min(first.blocks, key=lambda b: b.min_time)
    prometheus.stop()
    for path in (prometheus.data_dir / oldest.ulid).rglob("*"):
        if path.is_file():
            path.unlink()
    for path in sorted((prometheus.data_dir / oldest.ulid).rglob("*"), reverse=True):
        path.rmdir()
    (prometheus.data_dir / oldest.ulid).rmdir()
    prometheus.start()
    second = take_backup(prometheus, store, chosen).manifest
    assert oldest.ulid not in {b.ulid for b in second.blocks}
    env = {
        "REPOSITORY": f"file://{root}",
        "RETENTION_HISTORY": "5y",
        "RETENTION_DAILY": "0",
        "RETENTION_MONTHLY": "0",
        "RETENTION_YEARLY": "0",
    }
    json_of(run_here("prune", "--json", env=env))
    assert [e.backup_id for e in Repository(store, clock=FakeClock()).entries()] == [
        second.backup_id
    ]
    target = tmp_path / "target"
    planned = json_of(run_here("restore", "--history", str(target), "--dry-run", "--json", env=env))
    assert oldest.ulid in {b["ulid"] for b in planned["place"]}
    json_of(run_here("restore", "--history", str(target), "--json", env=env))
    assert (target / oldest.ulid / "index").is_file()
    shown = json_of(run_here("timeline", "--json", env=env))
    assert ["history"] in [s["backups"] for s in shown["stretches"]]
    page = str(tmp_path / "report.html")
    reported = json_of(run_here("report", "--output", page, "--json", env=env))
    assert reported["timeline"]["covered"][0]["from"] == rfc3339(oldest.min_time)
    assert oldest.min_time < min(b.min_time for b in second.blocks)
    opened = json_of(run_here("open", "--history", "--dry-run", "--json", env=env))
    assert opened["blocks"] == len(second.blocks) + 1
    refused = run_here("restore", "--history", "latest", str(target), env=env)
    assert refused.returncode == 2
    assert "cannot restore latest with --history" in refused.stderr
    gone = second.blocks[0]
    assert gone.folder is not None
    shutil.rmtree(root / gone.folder)
    damaged = run_here("restore", "--history", str(tmp_path / "other"), env=env)
    assert damaged.returncode == 40
    assert f"the history up to {second.backup_id}" in damaged.stdout
    assert f"DAMAGED: block {gone.ulid}" in damaged.stdout
