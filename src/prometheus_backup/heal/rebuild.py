"""Make the two small files of a block anew, so that they say what its other files hold.

`index` and `chunks/` are never written. Formats: prometheus tsdb/block.go BlockMeta and
tsdb/tombstones/tombstones.go.
"""

import copy
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from prometheus_backup.tsdb.block import META
from prometheus_backup.tsdb.chunks import ENCODINGS, HISTOGRAMS
from prometheus_backup.tsdb.faults import FaultKind
from prometheus_backup.tsdb.verification import BlockReport

BAD_META = frozenset(
    {
        FaultKind.META_MISSING,
        FaultKind.META_UNREADABLE,
        FaultKind.META_VERSION,
        FaultKind.META_COUNTS,
        FaultKind.META_TIMES,
    }
)
"""Faults of meta.json that are put right by writing what the block holds."""
BAD_TOMBSTONES = frozenset({FaultKind.TOMBSTONES_MISSING, FaultKind.TOMBSTONES_CORRUPT})
"""Faults by which it is not known any more what was deleted from a block."""
_HISTOGRAMS = frozenset(ENCODINGS[e] for e in HISTOGRAMS)


def rebuilt_meta(report: BlockReport, old: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return a meta.json of what was found in a block; `old` is the one it has, if it is its own.

    Where there is none, it is not known any more how the block came to be: it stands for itself.
    """
    ulid = report.folder.name
    meta: dict[str, Any] = copy.deepcopy(dict(old)) if old else {}
    times = {"minTime": report.min_time_ms, "maxTime": (report.max_time_ms or 0) + 1}
    if not old or FaultKind.META_TIMES in report.counts:
        meta |= times
    histograms = sum(n for name, n in report.samples.items() if name in _HISTOGRAMS)
    stats = {
        "numSamples": report.total_samples,
        "numFloatSamples": report.total_samples - histograms,
        "numHistogramSamples": histograms,
        "numSeries": report.series,
        "numChunks": report.total_chunks,
        "numTombstones": report.tombstones,
    }
    meta["stats"] = {name: count for name, count in stats.items() if count}
    if not old or FaultKind.META_UNREADABLE in report.counts:
        meta["compaction"] = {"level": 1, "sources": [ulid]}
    return meta | {"ulid": ulid, "version": 1}


def settled_meta(meta: Mapping[str, Any], *, tombstones: int) -> dict[str, Any]:
    """Return the meta.json of a block that is sound again, with so many intervals deleted.

    A compaction that failed on the bad block left a mark by which it is never compacted again.
    """
    settled = copy.deepcopy(dict(meta))
    settled.get("compaction", {}).pop("failed", None)
    stats = settled.setdefault("stats", {})
    stats.pop("numTombstones", None)
    if tombstones:
        stats["numTombstones"] = tombstones
    return settled


def write_meta(block: Path, meta: Mapping[str, Any]) -> None:
    """Write a block's meta.json in Prometheus' form."""
    replace_file(block / META, json.dumps(meta, indent="\t").encode())


def replace_file(path: Path, data: bytes) -> None:
    """Put a file of these bytes in the place of another, synced, unless it has them.

    Never by writing into the other: it may be linked to from the bad block.
    """
    if path.is_file() and path.read_bytes() == data:
        return
    staged = path.with_name(f"{path.name}.new")
    with staged.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    staged.replace(path)
