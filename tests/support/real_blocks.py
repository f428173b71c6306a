"""Creates blocks of every kind that a real Prometheus writes, once for each major version.

They include floats in several segments, integer and float histograms, out-of-order samples,
tombstones, a compacted block, and the head.
"""

import json
import random
import shutil
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

from devtools.fetch_prometheus import PrometheusBinaries
from devtools.prometheus import PrometheusOptions, PrometheusServer
from devtools.remote_write import Histogram, Series, remote_write
from prometheus_backup.tsdb.block import read_meta
from tests.support.contents import live_blocks
from tests.support.waiting import wait_until

_STEP = timedelta(seconds=15)


def make_real_blocks(directory: Path, binaries: PrometheusBinaries, old: Path) -> Path:
    """Return a snapshot with them; `old` is a data directory with small old blocks to compact."""
    data = directory / "data"
    shutil.copytree(old, data)
    exemplars = ",exemplar-storage" if binaries.major == 3 else ""
    options = PrometheusOptions(
        scrape_interval=None,
        config="storage: {tsdb: {out_of_order_time_window: 9h}}",
        extra_flags=(
            f"--enable-feature=native-histograms{exemplars}",
            "--storage.tsdb.max-block-chunk-segment-size=1MB",
        ),
    )
    with PrometheusServer(binaries, data, options) as server:
        # Blocks start at even hours. Prometheus compacts the head when it spans three hours, and
        # the out-of-order samples with it.
        now = datetime.now(UTC)
        end = now.replace(hour=now.hour // 2 * 2, minute=0, second=0, microsecond=0)
        remote_write(server.url, _on_time(end - timedelta(hours=4), end - timedelta(hours=2.5)))
        # The first of these overlaps other samples, so that both are compacted into one block.
        for hours in (3.5, 7.5):
            remote_write(server.url, [_late(end - timedelta(hours=hours))])
        remote_write(server.url, _on_time(end - timedelta(hours=2.5), end))
        wait_until(
            lambda: _count(data, "from-out-of-order") == 1 and _count(data, '"level": 2') == 2
        )
        server.delete_series('devtools_real{series="3"}')
        server.delete_series('devtools_value{series="7"}')
        snapshot = server.snapshot()
        kept = directory / "snapshot"
        shutil.copytree(snapshot, kept)
        server.kill()
    return kept


def _on_time(start: datetime, end: datetime) -> Iterator[Series]:
    values = random.Random(start.timestamp())
    times = [start + _STEP * number for number in range(int((end - start) / _STEP))]
    for number in range(360):
        labels = {"__name__": "devtools_real", "series": str(number)}
        yield Series(labels, [(at, values.uniform(0, 1000)) for at in times])
    for floats in (False, True):
        counts = [number // 10 for number in range(20)]
        samples = []
        for at in times:
            counts[values.randrange(20)] += 1
            samples.append((at, Histogram(zero=1, buckets=tuple(counts), floats=floats)))
        yield Series({"__name__": "devtools_histogram", "floats": str(floats)}, samples)
    yield Series({"__name__": "devtools_late", "job": "on time"}, [(at, 1.0) for at in times])


def _late(start: datetime) -> Series:
    samples = [(start + timedelta(seconds=number + 0.5), float(number)) for number in range(200)]
    return Series({"__name__": "devtools_late", "job": "on time"}, samples)


def _count(data: Path, text: str) -> int:
    metas = [
        json.dumps(read_meta(block)) for block in live_blocks(data)
    ]  # some may be deleted meanwhile
    return sum(text in meta for meta in metas)
