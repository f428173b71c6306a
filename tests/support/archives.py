"""Small backups in layout `archive`, made with the real claim, look, plan and commit."""

import hashlib
import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from prometheus_backup.backup.archive import ArchivedBlocks, find_archived
from prometheus_backup.backup.plan import BackupPlan, plan_archive_backup
from prometheus_backup.clock import Clock
from prometheus_backup.events import ignore
from prometheus_backup.model import (
    Layout,
    PutOptions,
    SourceBlock,
    SourceFile,
    ms_from_instant,
    rfc3339,
)
from prometheus_backup.repository.claim import Claim, claim_backup
from prometheus_backup.repository.manifest import Manifest, decode_manifest
from prometheus_backup.repository.repository import Repository
from prometheus_backup.retention.policy import Policy
from prometheus_backup.retention.prune import PruneReport, apply_prune, plan_prune
from prometheus_backup.stores.base import ObjectStore
from prometheus_backup.tsdb.block import MUTABLE
from tests.support import manifests
from tests.support.repositories import NOON

Contents = Mapping[str, Mapping[str, bytes]]
"""The files of each block on the source, by ULID and path."""

BLOCK: Contents = {manifests.ULID: {"index": b"the index", "meta.json": b"{}"}}
BLOCKS: Contents = {**BLOCK, manifests.OTHER_ULID: {"index": b"another index", "meta.json": b"{1}"}}

Times = Mapping[str, tuple[datetime, datetime]]
"""Begin and end of each block, by ULID; two hours before the present of these tests otherwise."""

_HOUR_MS = 3_600_000


def source_blocks(contents: Contents) -> list[SourceBlock]:
    """Return the blocks of a source with these files."""
    end = ms_from_instant(NOON)
    return [
        SourceBlock(
            ulid=ulid,
            min_time_ms=end - 2 * _HOUR_MS,
            max_time_ms=end,
            level=1,
            sources=(ulid,),
            parents=(),
            stats={},
            files=tuple(SourceFile(path, len(body)) for path, body in sorted(files.items())),
        )
        for ulid, files in contents.items()
    ]


def archive_run(
    store: ObjectStore,
    clock: Clock,
    *,
    run_id: str,
    contents: Contents = BLOCK,
    previous: Manifest | None = None,
    times: Times | None = None,
) -> str:
    """Make a backup of these blocks; return its id. `previous` is the newest archive backup."""
    repository = Repository(store, clock=clock)
    claim = claim_backup(repository, run_id=run_id, intent="a test", layout=Layout.ARCHIVE)
    finish(repository, claim, contents, previous=previous, times=times)
    return claim.backup_id


def finish(
    repository: Repository,
    claim: Claim,
    contents: Contents,
    *,
    previous: Manifest | None = None,
    times: Times | None = None,
) -> None:
    """Do the rest of a run that has claimed its id."""
    archived = look(repository, claim, contents, previous=previous)
    send(repository, claim, contents, archived, times=times)


def look(
    repository: Repository, claim: Claim, contents: Contents, *, previous: Manifest | None
) -> ArchivedBlocks:
    """Claim the folders of the archive that the run can name, and look at them."""
    blocks = source_blocks(contents)
    return find_archived(repository, claim, blocks, previous=previous, corrupt=frozenset())


def send(
    repository: Repository,
    claim: Claim,
    contents: Contents,
    archived: ArchivedBlocks,
    *,
    times: Times | None = None,
) -> None:
    """Send what is new, and commit."""
    blocks = source_blocks(contents)
    plan = plan_archive_backup(
        blocks,
        backup_id=claim.backup_id,
        previous=None,
        dead_runs=(),
        mutable=MUTABLE,
        corrupt=frozenset(),
        archived=archived.blocks,
        damaged=archived.damaged,
    )
    manifest = _stored(repository.store, claim, contents, plan, archived, times or {})
    for block in manifest.blocks:
        if block.folder in archived.healed or block.ulid not in archived.blocks:
            repository.archive.complete(block, options=PutOptions())
    claim.commit(manifest, options=PutOptions())


def _stored(
    store: ObjectStore,
    claim: Claim,
    contents: Contents,
    plan: BackupPlan,
    archived: ArchivedBlocks,
    times: Times,
) -> Manifest:
    files: dict[str, list[dict[str, Any]]] = {ulid: [] for ulid in contents}
    size = 0
    for file in plan.files:
        body = contents[file.ulid][file.path]
        digest = hashlib.sha256(body).hexdigest()
        key = file.key
        if file.version and file.version.sha256 == digest:
            key = file.version.key
            if key in archived.damaged:
                store.put_small(key, body, options=PutOptions())
        elif not file.shared:
            store.put_small(key, body, options=PutOptions())
        size += len(body)
        files[file.ulid].append(manifests.file(file.path, size=len(body), sha256=digest, key=key))
    document = manifests.document(
        format_version=2,
        backup_id=claim.backup_id,
        run_id=claim.run_id,
        storage_size_bytes=size,
        labels={},
        blocks=[
            manifests.block(*made, ulid=ulid, sources=[ulid], **_times(times.get(ulid)))
            for ulid, made in files.items()
        ],
    )
    return decode_manifest(json.dumps(document).encode(), backup_id=claim.backup_id)


def _times(span: tuple[datetime, datetime] | None) -> dict[str, str]:
    return {"min_time": rfc3339(span[0]), "max_time": rfc3339(span[1])} if span else {}


def prune(
    store: ObjectStore, clock: Clock, *, run_id: str = "pruner", policy: Policy | None = None
) -> PruneReport:
    """Apply retention as the `prune` command does."""
    repository = Repository(store, clock=clock)
    view = repository.archive.view()
    plan = plan_prune(
        repository.entries(view),
        policy=policy or Policy(daily=1, monthly=0, yearly=0),
        now=clock.now(),
        store_now=clock.now(),
        archive=view.folders,
    )
    return apply_prune(repository, plan, run_id=run_id, listener=ignore)
