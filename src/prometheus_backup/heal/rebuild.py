"""Rebuild meta.json and tombstones of a block from its other files.

`index` and `chunks/` are never written. Formats: prometheus tsdb/block.go BlockMeta and
tsdb/tombstones/tombstones.go.
"""

import copy
import json
from collections.abc import Mapping
from typing import Any

from prometheus_backup.folder import Folder
from prometheus_backup.tsdb.encodings import ENCODINGS, HISTOGRAMS
from prometheus_backup.tsdb.faults import FaultKind
from prometheus_backup.tsdb.meta import META
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
"""Faults that a meta.json written from the contents of the block fixes."""
BAD_TOMBSTONES = frozenset({FaultKind.TOMBSTONES_MISSING, FaultKind.TOMBSTONES_CORRUPT})
"""Faults after which the deletions of a block are unknown."""
_HISTOGRAMS = frozenset(ENCODINGS[e] for e in HISTOGRAMS)


def rebuilt_meta(report: BlockReport, old: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return a meta.json for the contents of a block; `old` is its meta.json, if it has its own.

    Without `old`, the blocks that it was compacted from are unknown: it becomes its own source.
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


def repaired_meta(meta: Mapping[str, Any], *, tombstones: int) -> dict[str, Any]:
    """Return the meta.json of a repaired block with this number of tombstones.

    Prometheus never compacts a block again that a failed compaction marked; remove that mark.
    """
    repaired = copy.deepcopy(dict(meta))
    repaired.get("compaction", {}).pop("failed", None)
    stats = repaired.setdefault("stats", {})
    stats.pop("numTombstones", None)
    if tombstones:
        stats["numTombstones"] = tombstones
    return repaired


def write_meta(block: Folder, meta: Mapping[str, Any]) -> None:
    """Write a block's meta.json, formatted as Prometheus does.

    Never writes into the existing file, which may be a hard link to a file of the bad block.
    """
    block.write(META, json.dumps(meta, indent="\t").encode())
