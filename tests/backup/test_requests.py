"""How many requests a night costs in layout `archive` whose blocks are in the archive already."""

import json
import random
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from bench.tsdb_writer import BlockSpec, write_block
from devtools.s3 import S3Bucket
from prometheus_backup.model import Layout, SnapshotMode
from prometheus_backup.prometheus.access import Access
from prometheus_backup.repository.layout import ARCHIVE
from prometheus_backup.stores.base import ObjectStore
from tests.support.counting_store import CountingStore
from tests.support.runs import FakeClock, options, take_backup
from tests.support.s3 import keys_of, open_s3
from tests.support.s3_proxy import S3Proxy

NOBODY_LISTENS = Access(url="http://127.0.0.1:9")
NIGHTLY = options(mode=SnapshotMode.BLOCKS, layout=Layout.ARCHIVE)
_TWO_HOURS_MS = 7_200_000


def source(directory: Path, blocks: int) -> Path:
    """Write so many blocks that differ in their ULIDs and times."""
    spec = BlockSpec(_TWO_HOURS_MS, 2 * _TWO_HOURS_MS, 60_000, 1, 1 << 20)
    made = write_block(directory, spec, [(("__name__", "up"),)], random.Random(0))
    meta = json.loads((made / "meta.json").read_text())
    for number in range(1, blocks):
        ulid = f"01JJ5W0B8ZC6X3M1S4T9Q{number:05d}"
        copy = directory / ulid
        (copy / "chunks").mkdir(parents=True)
        for path in ("index", "tombstones", "chunks/000001"):
            (copy / path).hardlink_to(made / path)
        begin = meta["minTime"] + number * _TWO_HOURS_MS
        changed = {"ulid": ulid, "minTime": begin, "maxTime": begin + _TWO_HOURS_MS}
        (copy / "meta.json").write_text(json.dumps(meta | changed))
    return directory


def test_a_thousand_unchanged_blocks_cost_no_request_each(tmp_path: Path) -> None:
    store, data_dir = CountingStore(), source(tmp_path / "data", 1000)
    earlier = FakeClock(datetime.now(UTC) - timedelta(minutes=9))
    take_backup(NOBODY_LISTENS, store, NIGHTLY, data_dir=data_dir, clock=earlier)
    archived = sum(1 for _ in store.list(ARCHIVE))
    store.reset()

    second = take_backup(NOBODY_LISTENS, store, NIGHTLY, data_dir=data_dir).manifest

    assert second.totals.shared_bytes == second.totals.bytes
    assert archived >= 5000
    assert store.requests.total() <= 25 + 3 * archived / 1000, store.requests


@pytest.fixture
def counted(s3_bucket: S3Bucket) -> Iterator[S3Proxy]:
    with S3Proxy(s3_bucket.endpoint.url) as proxy:
        yield proxy


def test_forty_more_unchanged_blocks_cost_no_more_requests_on_s3(
    s3_bucket: S3Bucket, counted: S3Proxy, tmp_path: Path
) -> None:
    def night(store: ObjectStore, data_dir: Path, minute: int) -> int:
        counted.begin()
        # In the same second, two backups would want the same id.
        clock = FakeClock(datetime.now(UTC) + timedelta(minutes=minute))
        take_backup(NOBODY_LISTENS, store, NIGHTLY, data_dir=data_dir, clock=clock)
        return len(counted.requests)

    needed = []
    for blocks in (2, 42):
        data_dir = source(tmp_path / f"{blocks}", blocks)
        keys = keys_of(s3_bucket.endpoint.credentials)
        store = open_s3(s3_bucket, prefix=data_dir.name, endpoint=counted.url, keys=keys)
        first, second = (night(store, data_dir, minute) for minute in (-9, 0))
        assert first > 4 * blocks
        needed.append(second)
    assert needed[0] == needed[1] <= 31, counted.requests  # one asks for lifecycle rules
