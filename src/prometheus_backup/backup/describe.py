"""Describe a backup: build its manifest and the tags of its objects."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from prometheus_backup import __version__
from prometheus_backup.backup.snapshot import Snapshot
from prometheus_backup.backup.soundness import Contents, passed_level
from prometheus_backup.backup.upload import StoredFile
from prometheus_backup.model import (
    Layout,
    Level,
    SourceBlock,
    instant_from_ms,
    printable,
)
from prometheus_backup.prometheus.promql import parse_duration
from prometheus_backup.prometheus.retention import far_ahead
from prometheus_backup.prometheus.status import SourceStatus
from prometheus_backup.repository.claim import Claim
from prometheus_backup.repository.entry import BackupEntry
from prometheus_backup.repository.fingerprint import Fingerprint
from prometheus_backup.repository.manifest import (
    Block,
    File,
    Manifest,
    Prometheus,
    Totals,
)
from prometheus_backup.retention.policy import Candidate, Policy, decide
from prometheus_backup.retention.prune import candidates


@dataclass(frozen=True, slots=True)
class BackupOrigin:
    """The source of a backup, the level it was verified at, and the recorded fingerprints.

    `labels` are those configured by the operator.
    """

    url: str
    status: SourceStatus
    labels: Mapping[str, str]
    verified: Level | None
    fingerprints: tuple[Fingerprint, ...] = ()


def build_manifest(
    claim: Claim,
    snapshot: Snapshot,
    *,
    stored: Sequence[StoredFile],
    contents: Mapping[str, Contents],
    origin: BackupOrigin,
    finished_at: datetime,
) -> Manifest:
    """Return the manifest of a backup, once all its files are in the repository.

    `contents` has an entry for each block.
    """
    files: dict[str, list[File]] = {b.ulid: [] for b in snapshot.blocks}
    for s in stored:
        files[s.ulid].append(
            File(
                path=s.path,
                size=s.size,
                sha256=s.sha256,
                key=s.key,
                stored_checksum=s.stored_checksum,
            )
        )
    blocks = tuple(
        _block(block, tuple(files[block.ulid]), contents[block.ulid]) for block in snapshot.blocks
    )
    size = sum(block.size for block in blocks)
    status = origin.status
    return Manifest(
        snapshot_name=snapshot.name,
        backup_id=claim.backup_id,
        timestamp=claim.started_at.replace(microsecond=0),
        prometheus_url=origin.url,
        retention_time=status.retention,
        storage_size_bytes=size,
        format_version=2 if claim.layout is Layout.ARCHIVE else 1,
        tool_version=__version__,
        run_id=claim.run_id,
        started_at=claim.started_at,
        finished_at=finished_at,
        labels=dict(origin.labels),
        degraded=(
            *(
                f"block {ulid} is live but not in the snapshot: Prometheus cannot read it"
                for ulid in snapshot.missing
            ),
            *(
                f"block {name} was not backed up: {reason}; `prometheus-backup heal` can repair it"
                for name, reason in snapshot.unusable.items()
            ),
            *(f"block {b.ulid} is corrupt: {b.faults[0]}" for b in blocks if b.faults),
        ),
        verified=passed_level(origin.verified, contents.values()),
        prometheus=Prometheus(
            version=status.version,
            revision=status.revision,
            hostname=status.hostname,
            retention=status.retention,
            out_of_order=status.out_of_order,
            lookback=status.lookback if parse_duration(status.lookback) else "",
            features=status.features,
            evaluation_interval=status.evaluation_interval,
        ),
        snapshot_mode=snapshot.mode.value,
        recoverable_until=snapshot.recoverable_until,
        min_time=min((b.min_time for b in blocks), default=None),
        max_time=max((b.max_time for b in blocks), default=None),
        blocks=blocks,
        fingerprints=origin.fingerprints,
        totals=Totals(
            blocks=len(blocks),
            files=len(stored),
            bytes=size,
            uploaded_bytes=sum(s.size for s in stored if s.source is None),
            copied_bytes=sum(s.size for s in stored if s.copied),
            shared_bytes=sum(s.size for s in stored if s.shared),
        ),
    )


def future_blocks(blocks: Sequence[SourceBlock], *, now: datetime) -> tuple[str, ...]:
    """Return a message for each block that ends far ahead of now, by a sample with a wrong time."""
    found = (far_ahead(b.ulid, b.max_time_ms, now=now) for b in blocks)
    return tuple(message for message in found if message)


def backup_tags(
    claim: Claim, others: Sequence[BackupEntry], *, policy: Policy
) -> Mapping[str, str]:
    """Return the tags of a backup's objects; `Type` is the highest tier that keeps it today."""
    made = claim.started_at.date()
    this = Candidate(claim.backup_id, claim.started_at, good=True)
    decisions = decide([*candidates(others), this], today=made, policy=policy)
    tier = next(d.highest_tier for d in decisions if d.backup_id == this.backup_id)

    return {
        "Type": tier.value,
        "Date": made.isoformat(),
        "Month": f"{made:%Y-%m}",
        "Year": f"{made:%Y}",
        "SnapshotName": claim.backup_id,
    }


def _block(block: SourceBlock, files: tuple[File, ...], contents: Contents) -> Block:
    return Block(
        ulid=block.ulid,
        min_time=instant_from_ms(block.min_time_ms),
        max_time=instant_from_ms(block.max_time_ms),
        min_time_ms=block.min_time_ms,
        max_time_ms=block.max_time_ms,
        level=block.level,
        sources=block.sources,
        parents=block.parents,
        stats=dict(block.stats),
        hints=tuple(printable(h, max_length=100) for h in block.hints),
        faults=contents.faults,
        encodings=None if contents.encodings is None else dict(contents.encodings),
        files=files,
    )
