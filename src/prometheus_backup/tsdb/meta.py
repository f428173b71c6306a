"""Read and check a block's meta.json, the one file of a block without a checksum.

Format: prometheus tsdb/block.go BlockMeta.
"""

import codecs
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prometheus_backup.model import printable
from prometheus_backup.repository.layout import is_ulid
from prometheus_backup.tsdb.faults import FaultKind, FaultLog
from prometheus_backup.tsdb.reading import ReadFile

META = "meta.json"
VERSION = 1
_BYTE_ORDER_MARKS = (codecs.BOM_UTF8, codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
_LARGEST = 1 << 26
"""Bytes. A longer file is read only up to here, and then is not valid JSON."""


class UnusableMeta(ValueError):
    """A meta.json that Prometheus would not load; the message says why."""


@dataclass(frozen=True, slots=True)
class Meta:
    """The contents of meta.json: times in TSDB milliseconds, half open; missing counts are 0."""

    ulid: str
    version: int
    min_time_ms: int
    max_time_ms: int
    level: int
    sources: tuple[str, ...]
    parents: tuple[str, ...]
    stats: Mapping[str, int]
    hints: tuple[str, ...] = ()


def load_meta(data: bytes) -> dict[str, Any]:
    """Return the JSON object of a meta.json, unchecked. Raises UnusableMeta.

    As in Prometheus, the text must be UTF-8 without a byte order mark; bad bytes in a string do not
    matter.
    """
    if data.startswith(_BYTE_ORDER_MARKS):
        raise UnusableMeta("it is not valid JSON: it begins with a byte order mark")
    try:
        document = json.loads(data.decode(errors="replace"), parse_constant=_refuse_constant)
    except json.JSONDecodeError as error:
        place = f"line {error.lineno}, column {error.colno}"
        raise UnusableMeta(f"it is not valid JSON: {error.msg} at {place}") from None
    except RecursionError:
        raise UnusableMeta("it is not valid JSON: it is nested too deeply") from None
    if not isinstance(document, dict):
        raise UnusableMeta("it is not a JSON object")
    return document


def parse_meta(document: Mapping[str, Any]) -> Meta:
    """Return the checked contents of a meta.json. Raises UnusableMeta.

    The version and the order of the times are not checked.
    """
    compaction, stats = _object(document, "compaction"), _object(document, "stats")
    parents = [_entry(p, "parents") for p in _list(compaction, "parents")]
    for parent in parents:
        _number(parent, "minTime")
        _number(parent, "maxTime")
    return Meta(
        ulid=_ulid(document.get("ulid"), "ulid"),
        version=_number(document, "version"),
        min_time_ms=_number(document, "minTime"),
        max_time_ms=_number(document, "maxTime"),
        level=_number(compaction, "level") if "level" in compaction else 0,
        sources=tuple(_ulid(u, "sources") for u in _list(compaction, "sources")),
        parents=tuple(_ulid(p.get("ulid"), "parents") for p in parents),
        stats={name: _count(stats, name) for name in stats},
        hints=tuple(str(h) for h in _list(compaction, "hints")),
    )


def check_meta(block: Path, log: FaultLog) -> Meta | None:
    """Return the contents of meta.json. Log a fault and return None if unusable. Raises OSError."""
    try:
        with ReadFile(block / META) as file:
            data = file.window(0, _LARGEST)
    except FileNotFoundError:
        log.add(FaultKind.META_MISSING, META, "the file is missing")
        return None
    try:
        meta = parse_meta(load_meta(data))
    except UnusableMeta as error:
        log.add(FaultKind.META_UNREADABLE, META, str(error))
        return None
    if meta.version != VERSION:
        log.add(FaultKind.META_VERSION, META, f"its version is {meta.version}, not {VERSION}")
    if not meta.sources:
        log.add(FaultKind.META_COMPACTION, META, "its compaction has no sources")
    if meta.level < 1:
        log.add(FaultKind.META_COMPACTION, META, f"its compaction level is {meta.level}")
    if is_ulid(block.name) and meta.ulid != block.name:
        log.add(FaultKind.META_ULID, META, f"it belongs to block {meta.ulid}")
    if meta.min_time_ms > meta.max_time_ms:
        detail = f"the block ends at {meta.max_time_ms}, before it begins"
        log.add(FaultKind.META_TIMES, META, detail)
    return meta


def _refuse_constant(text: str) -> None:
    raise UnusableMeta(f"it is not valid JSON: {text}")


def _object(document: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    return _entry(document.get(name) or {}, name)


def _entry(value: Any, name: str) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise UnusableMeta(f"{name} is not a JSON object")
    return value


def _list(document: Mapping[str, Any], name: str) -> list[Any]:
    value = document.get(name) or []
    if not isinstance(value, list):
        raise UnusableMeta(f"{name} is not a list")
    return value


def _number(document: Mapping[str, Any], name: str) -> int:
    value = document.get(name)
    if type(value) is not int or value.bit_length() > 63:
        raise UnusableMeta(f"{name} is {_shown(value)}, not a whole number of 64 bits")
    return value


def _count(document: Mapping[str, Any], name: str) -> int:
    value = _number(document, name)
    if value < 0:
        raise UnusableMeta(f"{name} is {value}, below 0")
    return value


def _ulid(value: Any, name: str) -> str:
    if not isinstance(value, str) or not is_ulid(value):
        raise UnusableMeta(f"{name} is {_shown(value)}, not a ULID")
    return value


def _shown(value: Any) -> str:
    return "missing" if value is None else printable(json.dumps(value), max_length=80)
