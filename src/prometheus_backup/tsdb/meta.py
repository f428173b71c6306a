"""Check a block's meta.json, the one file of a block without a checksum.

Format: prometheus tsdb/block.go BlockMeta.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prometheus_backup.repository.layout import is_ulid
from prometheus_backup.tsdb.block import META
from prometheus_backup.tsdb.faults import FaultKind, FaultLog
from prometheus_backup.tsdb.reading import ReadFile

_VERSION = 1
_LARGEST = 1 << 26
"""Bytes. A longer file is read only up to here, and then is not valid JSON."""


@dataclass(frozen=True, slots=True)
class Meta:
    """The contents of meta.json: times in TSDB milliseconds, half open; missing counts are 0."""

    ulid: str
    min_time_ms: int
    max_time_ms: int
    stats: Mapping[str, int]


def check_meta(block: Path, log: FaultLog) -> Meta | None:
    """Return the contents of meta.json. Log a fault and return None if unusable. Raises OSError."""
    try:
        with ReadFile(block / META) as file:
            data = file.window(0, _LARGEST)
    except FileNotFoundError:
        log.add(FaultKind.META_MISSING, META, "the file is missing")
        return None
    try:
        document = json.loads(data)
        if document["version"] != _VERSION:
            detail = f"its version is {document['version']!r}, not {_VERSION}"
            log.add(FaultKind.META_VERSION, META, detail)
        meta = _read(document)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        log.add(FaultKind.META_UNREADABLE, META, f"it is not the meta.json of a block: {error!r}")
        return None
    if is_ulid(block.name) and meta.ulid != block.name:
        log.add(FaultKind.META_ULID, META, f"it belongs to block {meta.ulid}")
    if meta.min_time_ms > meta.max_time_ms:
        detail = f"the block ends at {meta.max_time_ms}, before it begins"
        log.add(FaultKind.META_TIMES, META, detail)
    return meta


def _read(document: Any) -> Meta:
    compaction = document["compaction"]
    sources = compaction["sources"]
    parents = compaction.get("parents") or ()
    for parent in parents:
        _number(parent["minTime"])
        _number(parent["maxTime"])
    ulids = [document["ulid"], *sources, *(parent["ulid"] for parent in parents)]
    if not sources or not all(isinstance(u, str) and is_ulid(u) for u in ulids):
        raise ValueError("a ULID is missing or not one")
    if _count(compaction["level"]) < 1:
        raise ValueError("its compaction level is below 1")
    stats = {key: _count(value) for key, value in document.get("stats", {}).items()}
    return Meta(ulids[0], _number(document["minTime"]), _number(document["maxTime"]), stats)


def _number(value: Any) -> int:
    if type(value) is not int:
        raise ValueError(f"{value!r} is not a whole number")
    return value


def _count(value: Any) -> int:
    if _number(value) < 0:
        raise ValueError(f"{value!r} is not a count")
    return int(value)
