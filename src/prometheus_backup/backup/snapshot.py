"""Take a snapshot, adopt it if the response was lost, and remove our own snapshots, no others."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from pathlib import Path

from prometheus_backup.clock import Clock
from prometheus_backup.datadir.lock import HostLock, Intent
from prometheus_backup.errors import SnapshotUnusable, SourceError
from prometheus_backup.events import Listener, SnapshotLeft, SnapshotRemoved, SnapshotTaken, Warned
from prometheus_backup.folder import Folder
from prometheus_backup.model import (
    SnapshotMode,
    SourceBlock,
    SourceFile,
    instant_from_ms,
    ms_from_instant,
    rfc3339,
)
from prometheus_backup.prometheus.client import PrometheusClient, SnapshotConnectionLost
from prometheus_backup.repository.layout import snapshot_time, ulid_time_ms
from prometheus_backup.tsdb.block import (
    BlockUnusable,
    list_blocks,
    live_ulids,
    persisted_until_ms,
    read_block,
)

SNAPSHOTS = "snapshots"

# Prometheus names the directory when it starts to handle the request, so the name of our snapshot
# has a time shortly after the request. Both times are from Prometheus' clock, to the second.
_EARLIEST = timedelta(seconds=-2)
_LATEST = timedelta(seconds=15)

_POLL_SECONDS = 1.0
_APPEARS_WITHIN = 60.0
_STALLED_AFTER = 15 * 60.0  # a snapshot stays empty while it waits for a compaction
_GONE_AFTER = 60.0


class SnapshotUnfinished(SnapshotUnusable):
    """We stopped waiting, but Prometheus may still complete the snapshot."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A snapshot directory and its blocks; `missing` are live blocks that it should contain.

    `unusable` are its directories that are no blocks although they are named so, with the reason.
    `recoverable_until`: later samples are left out, since they are only in memory; None if there
    are none.
    """

    name: str
    path: Path
    blocks: tuple[SourceBlock, ...]
    missing: tuple[str, ...]
    unusable: Mapping[str, str] = field(default_factory=dict)
    mode: SnapshotMode = SnapshotMode.ADMIN_API
    recoverable_until: datetime | None = None


@dataclass(frozen=True, slots=True)
class SnapshotRequest:
    """The state before a request: Prometheus' time, and existing (`known`) snapshots and blocks."""

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
    """Request a snapshot and read it.

    Raises AdminApiDisabled, SourceUnavailable or SnapshotUnusable. In every case, the caller must
    remove the snapshot named in the last recorded intent.
    """
    lock.record(intent)
    began = clock.monotonic()
    adopted = False
    try:
        name = client.take_snapshot(skip_head=not request.expects_head)
    except SnapshotConnectionLost as error:
        listener(Warned(f"{error.message}; waiting for the snapshot to appear"))
        name = _wait_for_snapshot(client, request, lock=lock, intent=intent, clock=clock)
        adopted = True
    path = snapshot_path(request.data_dir, name)
    if name in request.known:
        raise SnapshotUnusable(
            f"Failed to create snapshot: Prometheus returned {name!r}, which existed before"
        )
    if not path.is_dir():
        raise SnapshotUnusable(
            f"Failed to create snapshot: Prometheus created {name!r}, but it is not in "
            f"{request.data_dir / SNAPSHOTS}",
            hint="another replica answered, or PROMETHEUS_DATA_DIR is not its data directory; the "
            "snapshot still exists there and must be removed by hand",
        )
    lock.record(replace(intent, snapshot=name))
    snapshot = _read(path, request)
    if not request.expects_head:
        end = recoverable_until(path, snapshot.blocks, now=clock.now())
        snapshot = replace(snapshot, recoverable_until=end)
    took = timedelta(seconds=clock.monotonic() - began)
    size = sum(b.size for b in snapshot.blocks)
    listener(SnapshotTaken(name, len(snapshot.blocks), size, took, adopted))
    return snapshot


def recoverable_until(
    folder: Path, blocks: Sequence[SourceBlock], *, now: datetime
) -> datetime | None:
    """Return the instant up to which blocks hold all samples; None if there are no blocks."""
    end = persisted_until_ms(folder)
    if end is None:  # only blocks of some samples: nothing is certain
        end = min((block.min_time_ms for block in blocks), default=None)
    return None if end is None else min(instant_from_ms(end), now)


def snapshot_path(data_dir: Path, name: str) -> Path:
    """Return the path of a snapshot. Raises SnapshotUnusable unless `name` is a snapshot name.

    The name is not trusted: it comes over the network, and the path is later removed recursively.
    """
    if snapshot_time(name) is None:
        raise SnapshotUnusable(f"Failed to create snapshot: {name!r} is not a snapshot name")
    return data_dir / SNAPSHOTS / name


def snapshot_names(data_dir: Path) -> frozenset[str]:
    """Return the names of the existing snapshots."""
    try:
        entries = list((data_dir / SNAPSHOTS).iterdir())
    except OSError:
        return frozenset()
    return frozenset(e.name for e in entries if snapshot_time(e.name) is not None)


def remove_snapshot(data_dir: Path, name: str, *, listener: Listener) -> bool:
    """Remove one of our snapshots; report it and return False if that fails."""
    path = snapshot_path(data_dir, name)
    try:
        with Folder.hold(data_dir) as held, held.child(SNAPSHOTS) as snapshots:
            snapshots.remove(path.name)
    except FileNotFoundError:
        return True
    except OSError as error:
        listener(SnapshotLeft(name, error.strerror or str(error)))
        return False
    listener(SnapshotRemoved(name))
    return True


def remove_lost_snapshot(data_dir: Path, intent: Intent, *, listener: Listener) -> bool:
    """Remove the snapshot of a run, even of one that ended before it knew the snapshot's name.

    Returns False if it must be tried again. If several snapshots could be the run's, all are kept.
    """
    if intent.snapshot:
        return remove_snapshot(data_dir, intent.snapshot, listener=listener)
    if not intent.asked_at:
        return True
    found = _candidates(data_dir, datetime.fromisoformat(intent.asked_at), frozenset(intent.known))
    if not found:
        return True
    if len(found) > 1:
        listener(Warned(f"kept snapshots {', '.join(found)}: one of them is from a dead run"))
        return True
    if _in_progress(data_dir / SNAPSHOTS / found[0]):
        return False
    return remove_snapshot(data_dir, found[0], listener=listener)


def new_request(client: PrometheusClient, data_dir: Path, *, skip_head: bool) -> SnapshotRequest:
    """Record the state before a snapshot is requested."""
    status = client.status()
    return SnapshotRequest(
        data_dir=data_dir,
        asked_at=status.clock,
        known=snapshot_names(data_dir),
        live=live_ulids(data_dir),
        expects_head=not skip_head,
    )


def with_request(intent: Intent, request: SnapshotRequest) -> Intent:
    """Return the intent with what a later run needs to find our snapshot without its name."""
    return replace(intent, asked_at=rfc3339(request.asked_at), known=tuple(sorted(request.known)))


def _read(path: Path, request: SnapshotRequest) -> Snapshot:
    found = list_blocks(path)
    listed = {*found.unusable, *(b.ulid for b in found.blocks)}
    missing = (request.live & live_ulids(request.data_dir)) - listed
    return Snapshot(path.name, path, found.blocks, tuple(sorted(missing)), found.unusable)


def _wait_for_snapshot(
    client: PrometheusClient,
    request: SnapshotRequest,
    *,
    lock: HostLock,
    intent: Intent,
    clock: Clock,
) -> str:
    """Wait for the snapshot whose response was lost; return its name once it is complete."""
    began = changed = answered = clock.monotonic()
    last_content: object = None
    while True:
        clock.sleep(_POLL_SECONDS)
        now = clock.monotonic()
        found = _candidates(request.data_dir, request.asked_at, request.known)
        if len(found) > 1:
            raise SnapshotUnusable(
                f"Failed to create snapshot: {', '.join(found)} appeared at the same time, so it "
                "is unclear which is ours",
                hint="remove unneeded snapshots from the snapshots directory",
            )
        if found:
            path = request.data_dir / SNAPSHOTS / found[0]
            lock.record(replace(intent, snapshot=found[0]))
            content = _content(path)
            if _is_complete(path, request):
                return found[0]
            if content != last_content:
                last_content, changed = content, now
        elif now - began > _APPEARS_WITHIN:
            raise SnapshotUnfinished(
                "Failed to create snapshot: the connection was lost, no snapshot appeared"
            )
        if _is_ready(client):
            answered = now
        name = found[0] if found else "it"
        message = f"Failed to create snapshot: the connection was lost, {name} was not completed"
        if now - answered > _GONE_AFTER:  # after a restart, Prometheus does not continue it
            raise SnapshotUnusable(message)
        if now - changed > _STALLED_AFTER:
            raise SnapshotUnfinished(message)


def _is_complete(path: Path, request: SnapshotRequest) -> bool:
    if _in_progress(path):
        return False
    try:
        found = list_blocks(path)
        linked = all(_is_linked(block, request.data_dir) for block in found.blocks)
        linked = linked and found.unusable.keys() <= list_blocks(request.data_dir).unusable.keys()
    except SnapshotUnusable:
        return False
    ulids = {*found.unusable, *(b.ulid for b in found.blocks)}
    still_live = request.live & live_ulids(request.data_dir)
    earliest_ms = ms_from_instant(request.asked_at + _EARLIEST)
    head = any(ulid_time_ms(ulid) >= earliest_ms for ulid in ulids - request.live)
    return linked and still_live <= ulids and (head or not request.expects_head)


def _is_linked(block: SourceBlock, data_dir: Path) -> bool:
    """Return whether a live block is linked completely: Prometheus links its meta.json first."""
    live = data_dir / block.ulid
    if not live.is_dir():
        return True
    try:
        return _data_files(read_block(live)) <= _data_files(block)
    except BlockUnusable:
        return True


def _data_files(block: SourceBlock) -> set[SourceFile]:
    return {f for f in block.files if f.path == "index" or f.path.startswith("chunks/")}


def _candidates(data_dir: Path, asked_at: datetime, known: frozenset[str]) -> Sequence[str]:
    def ours(name: str) -> bool:
        made = snapshot_time(name)
        return made is not None and asked_at + _EARLIEST <= made <= asked_at + _LATEST

    return sorted(name for name in snapshot_names(data_dir) - known if ours(name))


def _in_progress(path: Path) -> bool:
    try:
        return any(e.name.endswith((".tmp-for-creation", ".tmp")) for e in path.iterdir())
    except OSError:
        return False


def _content(path: Path) -> object:
    try:
        return sorted((str(p), p.lstat().st_size) for p in path.rglob("*"))
    except OSError:
        return None


def _is_ready(client: PrometheusClient) -> bool:
    try:
        client.require_ready()
    except SourceError:
        return False
    return True
