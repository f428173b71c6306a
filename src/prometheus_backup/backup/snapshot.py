"""Take a snapshot, adopt one whose answer was lost, remove those that are ours, and no others."""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path

from prometheus_backup.clock import Clock
from prometheus_backup.datadir.lock import HostLock, Intent
from prometheus_backup.errors import SnapshotUnusable, SourceError
from prometheus_backup.events import Listener, SnapshotLeft, SnapshotRemoved, SnapshotTaken, Warned
from prometheus_backup.model import SourceBlock, SourceFile, ms_from_instant, rfc3339
from prometheus_backup.prometheus.client import PrometheusClient, SnapshotConnectionLost
from prometheus_backup.repository.layout import snapshot_time, ulid_time_ms
from prometheus_backup.tsdb.block import live_ulids, read_block, read_blocks

SNAPSHOTS = "snapshots"

# Prometheus names the directory when it takes the request up, so a snapshot of ours is dated
# between the request and its arrival. The clock we compare by is Prometheus' own, to the second.
_EARLIEST = timedelta(seconds=-2)
_LATEST = timedelta(seconds=15)

_POLL_SECONDS = 1.0
_APPEARS_WITHIN = 60.0
_STALLED_AFTER = 15 * 60.0  # a snapshot waits, empty, while a compaction runs
_GONE_AFTER = 60.0


class SnapshotUnfinished(SnapshotUnusable):
    """We gave up waiting, but Prometheus may complete the snapshot yet, or make it again."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A snapshot directory, what is in it, and the live blocks that it should hold but does not."""

    name: str
    path: Path
    blocks: tuple[SourceBlock, ...]
    missing: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class SnapshotRequest:
    """What was so before a snapshot was asked for. `asked_at` is by Prometheus' clock."""

    data_dir: Path
    asked_at: datetime
    known: frozenset[str]
    live: frozenset[str]
    expects_head: bool


def take_snapshot(
    client: PrometheusClient,
    request: SnapshotRequest,
    *,
    lock: HostLock,
    intent: Intent,
    clock: Clock,
    listener: Listener,
) -> Snapshot:
    """Ask for a snapshot and read it.

    Raises AdminApiDisabled, SourceUnavailable or SnapshotUnusable. The caller removes the snapshot
    that the intent recorded last speaks of, whatever happens.
    """
    lock.record(intent)
    began = clock.monotonic()
    adopted = False
    try:
        name = client.take_snapshot(skip_head=not request.expects_head)
    except SnapshotConnectionLost as error:
        listener(Warned(f"{error.message}; waiting for the snapshot to appear"))
        name = _await_lost(client, request, lock=lock, intent=intent, clock=clock)
        adopted = True
    path = snapshot_path(request.data_dir, name)
    if name in request.known:
        raise SnapshotUnusable(
            f"Failed to create snapshot: Prometheus names {name!r}, which was there before"
        )
    if not path.is_dir():
        raise SnapshotUnusable(
            f"Failed to create snapshot: Prometheus made {name!r}, but it is not in "
            f"{request.data_dir / SNAPSHOTS}",
            hint="another replica answered, or PROMETHEUS_DATA_DIR is not its directory; the "
            "snapshot is still there and must be removed by hand",
        )
    lock.record(replace(intent, snapshot=name))
    snapshot = _read(path, request)
    took = timedelta(seconds=clock.monotonic() - began)
    size = sum(b.size for b in snapshot.blocks)
    listener(SnapshotTaken(name, len(snapshot.blocks), size, took, adopted))
    return snapshot


def snapshot_path(data_dir: Path, name: str) -> Path:
    """Return where a snapshot lies. Raises SnapshotUnusable for a name that Prometheus never gives.

    The name comes over the network and is removed recursively later: it is not trusted.
    """
    if snapshot_time(name) is None:
        raise SnapshotUnusable(f"Failed to create snapshot: {name!r} is no snapshot name")
    return data_dir / SNAPSHOTS / name


def snapshot_names(data_dir: Path) -> frozenset[str]:
    """Return the names of the snapshots there are."""
    try:
        entries = list((data_dir / SNAPSHOTS).iterdir())
    except OSError:
        return frozenset()
    return frozenset(e.name for e in entries if snapshot_time(e.name) is not None)


def remove_snapshot(data_dir: Path, name: str, *, listener: Listener) -> bool:
    """Remove a snapshot of ours; tell, and return False, where it cannot be removed."""
    path = snapshot_path(data_dir, name)
    try:
        shutil.rmtree(path)
    except FileNotFoundError:
        return True
    except OSError as error:
        listener(SnapshotLeft(name, error.strerror or str(error)))
        return False
    listener(SnapshotRemoved(name))
    return True


def remove_lost_snapshot(data_dir: Path, intent: Intent, *, listener: Listener) -> bool:
    """Remove the snapshot of a run that ended before it learnt, or could remove, its name.

    Returns whether nothing of that run is left. What cannot be told from another's stays.
    """
    if intent.snapshot:
        return remove_snapshot(data_dir, intent.snapshot, listener=listener)
    if not intent.asked_at:
        return True
    found = _candidates(data_dir, datetime.fromisoformat(intent.asked_at), frozenset(intent.known))
    if not found:
        return True
    if len(found) > 1:
        listener(Warned(f"snapshots {', '.join(found)}: one is of a dead run, but not told which"))
        return True
    if _in_the_making(data_dir / SNAPSHOTS / found[0]):
        return False
    return remove_snapshot(data_dir, found[0], listener=listener)


def begin_request(client: PrometheusClient, data_dir: Path, *, skip_head: bool) -> SnapshotRequest:
    """Look at what is there before a snapshot is asked for."""
    status = client.status()
    return SnapshotRequest(
        data_dir=data_dir,
        asked_at=status.clock,
        known=snapshot_names(data_dir),
        live=live_ulids(data_dir),
        expects_head=not skip_head,
    )


def announce(intent: Intent, request: SnapshotRequest) -> Intent:
    """Return the intent that lets a later run find this run's snapshot without its name."""
    return replace(intent, asked_at=rfc3339(request.asked_at), known=tuple(sorted(request.known)))


def _read(path: Path, request: SnapshotRequest) -> Snapshot:
    blocks = read_blocks(path)
    steady = request.live & live_ulids(request.data_dir)
    missing = steady - {b.ulid for b in blocks}
    return Snapshot(path.name, path, blocks, tuple(sorted(missing)))


def _await_lost(
    client: PrometheusClient,
    request: SnapshotRequest,
    *,
    lock: HostLock,
    intent: Intent,
    clock: Clock,
) -> str:
    """Wait for the snapshot whose answer was lost; return its name once it is whole."""
    began = changed = answered = clock.monotonic()
    seen: object = None
    while True:
        clock.sleep(_POLL_SECONDS)
        now = clock.monotonic()
        found = _candidates(request.data_dir, request.asked_at, request.known)
        if len(found) > 1:
            raise SnapshotUnusable(
                f"Failed to create snapshot: {', '.join(found)} appeared at once, and which is "
                "ours cannot be told",
                hint="remove those in the snapshots directory that nobody needs",
            )
        if found:
            path = request.data_dir / SNAPSHOTS / found[0]
            lock.record(replace(intent, snapshot=found[0]))
            state = _content(path)
            if _is_whole(path, request):
                return found[0]
            if state != seen:
                seen, changed = state, now
        elif now - began > _APPEARS_WITHIN:
            raise SnapshotUnfinished(
                "Failed to create snapshot: the connection broke, none appeared"
            )
        if _answers(client):
            answered = now
        never = f"Failed to create snapshot: the connection broke, and {found} was never completed"
        if now - answered > _GONE_AFTER:  # it will not go on after a restart
            raise SnapshotUnusable(never)
        if now - changed > _STALLED_AFTER:
            raise SnapshotUnfinished(never)


def _is_whole(path: Path, request: SnapshotRequest) -> bool:
    if _in_the_making(path):
        return False
    try:
        blocks = read_blocks(path)
        linked = all(_is_linked(block, request.data_dir) for block in blocks)
    except SnapshotUnusable:
        return False
    ulids = {b.ulid for b in blocks}
    steady = request.live & live_ulids(request.data_dir)
    earliest_ms = ms_from_instant(request.asked_at + _EARLIEST)
    head = any(ulid_time_ms(ulid) >= earliest_ms for ulid in ulids - request.live)
    return linked and steady <= ulids and (head or not request.expects_head)


def _is_linked(block: SourceBlock, data_dir: Path) -> bool:
    """Tell whether all data files of a live block are in the snapshot: meta.json comes first."""
    live = data_dir / block.ulid
    return not live.is_dir() or _data_files(read_block(live)) <= _data_files(block)


def _data_files(block: SourceBlock) -> set[SourceFile]:
    return {f for f in block.files if f.path == "index" or f.path.startswith("chunks/")}


def _candidates(data_dir: Path, asked_at: datetime, known: frozenset[str]) -> Sequence[str]:
    def ours(name: str) -> bool:
        made = snapshot_time(name)
        return made is not None and asked_at + _EARLIEST <= made <= asked_at + _LATEST

    return sorted(name for name in snapshot_names(data_dir) - known if ours(name))


def _in_the_making(path: Path) -> bool:
    try:
        return any(e.name.endswith((".tmp-for-creation", ".tmp")) for e in path.iterdir())
    except OSError:
        return False


def _content(path: Path) -> object:
    try:
        return sorted((str(p), p.lstat().st_size) for p in path.rglob("*"))
    except OSError:
        return None


def _answers(client: PrometheusClient) -> bool:
    try:
        client.require_ready()
    except SourceError:
        return False
    return True
