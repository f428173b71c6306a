"""Fills a store with made-up backups in layout `archive`, as many nights of one source leave it.

Every night has some new blocks, and as many of the oldest are gone. The manifests and the catalogue
are real; the files of the blocks are zeros of the right size.
"""

import random
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta

from bench.tsdb_writer import new_ulid
from prometheus_backup.clock import SystemClock
from prometheus_backup.model import CONTROL, Level, instant_from_ms, ms_from_instant
from prometheus_backup.repository.layout import (
    BLOCK,
    MANIFEST,
    RESTORE_SCRIPT,
    SUMS,
    VERSIONS,
    archive_folder,
    backup_id,
)
from prometheus_backup.repository.manifest import (
    Block,
    File,
    Manifest,
    Prometheus,
    Totals,
    encode,
    sha256sums,
)
from prometheus_backup.repository.plain_restore import restore_script
from prometheus_backup.repository.repository import Repository
from prometheus_backup.stores.base import ObjectStore
from prometheus_backup.tsdb.block import MUTABLE

NEW_EACH_NIGHT = 12
"""Blocks of two hours that a day adds."""
_FILES = {"chunks/000001": 3517, "index": 1231, "meta.json": 412, "tombstones": 9}
_TWO_HOURS_MS = 7_200_000


def made_up_backup(blocks: int, *, at: datetime) -> Manifest:
    """Return the manifest of a backup of so many blocks, none of which exists."""
    end_ms = ms_from_instant(at)
    made = [_block(end_ms - (blocks - n) * _TWO_HOURS_MS) for n in range(blocks)]
    return Manifest(
        snapshot_name=f"{at:%Y%m%dT%H%M%SZ}-0123456789abcdef",
        backup_id=backup_id(at),
        timestamp=at,
        prometheus_url="http://prometheus:9090",
        retention_time="15d",
        storage_size_bytes=0,
        format_version=2,
        tool_version="1.0.0",
        run_id="bench",
        started_at=at,
        finished_at=at,
        labels={"cluster": "eu-1", "replica": "a"},
        verified=Level.CHECKSUM,
        prometheus=Prometheus(version="3.5.3", revision="8be3a95", retention="15d"),
        min_time=made[0].min_time,
        max_time=made[-1].max_time,
        totals=_totals(made),
        blocks=tuple(made),
    )


def fill(store: ObjectStore, like: Manifest, *, nights: int) -> None:
    """Write so many backups, one a night, the newest yesterday with the blocks of `like`."""
    seen: set[str] = set()
    for manifest in _nights(like, nights):
        for block in manifest.blocks:
            if block.ulid not in seen:
                seen.add(block.ulid)
                _put_block(store, block)
        controls = {
            SUMS: sha256sums(manifest),
            RESTORE_SCRIPT: restore_script(manifest),
            MANIFEST: encode(manifest),
        }
        for name, body in controls.items():
            store.put_small(f"{manifest.backup_id}/{name}", body, options=CONTROL)
    repository = Repository(store, clock=SystemClock())
    repository.entries()
    repository.catalog.write()


def _nights(like: Manifest, count: int) -> Iterator[Manifest]:
    """Yield the manifests, oldest first."""
    newest = datetime.now(UTC).replace(hour=2, minute=0, second=0, microsecond=0)
    times = [newest - timedelta(days=count - n) for n in range(count)]
    kept, new = len(like.blocks), min(NEW_EACH_NIGHT, len(like.blocks))
    older = new * (count - 1)
    begin_ms = like.blocks[0].times_ms[0]
    blocks = [_block(begin_ms - (older - n) * _TWO_HOURS_MS) for n in range(older)]
    blocks += like.blocks
    for number, block in enumerate(blocks):
        keeper = max(0, -(-(number - kept + 1) // new))
        blocks[number] = _kept_in(block, backup_id(times[keeper]))
    for night, at in enumerate(times):
        of_night = blocks[night * new : night * new + kept]
        changes = {
            "backup_id": backup_id(at),
            "timestamp": at,
            "started_at": at,
            "finished_at": at + timedelta(seconds=9),
            "min_time": of_night[0].min_time,
            "max_time": of_night[-1].max_time,
            "totals": _totals(of_night),
            "storage_size_bytes": sum(b.size for b in of_night),
            "blocks": tuple(of_night),
        }
        yield like.model_copy(update=changes)


def _block(begin_ms: int) -> Block:
    """Return a block of two hours."""
    ulid = new_ulid(begin_ms, random.Random(begin_ms))
    end_ms = begin_ms + _TWO_HOURS_MS
    keeper = backup_id(instant_from_ms(end_ms))
    return Block(
        ulid=ulid,
        min_time=instant_from_ms(begin_ms),
        max_time=instant_from_ms(end_ms),
        min_time_ms=begin_ms,
        max_time_ms=end_ms,
        level=1,
        sources=(ulid,),
        stats={"numChunks": 3517, "numSamples": 422_040, "numSeries": 3517},
        files=tuple(
            File(path=path, size=size, sha256=f"{begin_ms:064x}", key=_key(ulid, keeper, path))
            for path, size in _FILES.items()
        ),
    )


def _kept_in(block: Block, keeper: str) -> Block:
    files = tuple(
        f.model_copy(update={"key": _key(block.ulid, keeper, f.path)}) for f in block.files
    )
    return block.model_copy(update={"files": files})


def _key(ulid: str, keeper: str, path: str) -> str:
    folder = archive_folder(ulid, keeper)
    return f"{folder}/{VERSIONS}/{keeper}/{path}" if path in MUTABLE else f"{folder}/{path}"


def _put_block(store: ObjectStore, block: Block) -> None:
    for file in block.files:
        store.put_small(file.key, bytes(file.size), options=CONTROL)
    store.put_small(f"{block.folder}/{BLOCK}", encode(block), options=CONTROL)


def _totals(blocks: Sequence[Block]) -> Totals:
    size = sum(b.size for b in blocks)
    return Totals(
        blocks=len(blocks),
        files=sum(len(b.files) for b in blocks),
        bytes=size,
        uploaded_bytes=0,
        copied_bytes=0,
        shared_bytes=size,
    )
