"""The kinds of faults that a block can have, and their effects on Prometheus."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum


class Effect(StrEnum):
    """What Prometheus does with a block that has a fault (measured with 2.42 and 3.5)."""

    STOPS_START = "stops-start"
    """It does not start. If it is running, it loads no new blocks."""
    HIDES_DATA = "hides-data"
    """It starts without the block, and queries silently miss its samples."""
    FAILS_QUERIES = "fails-queries"
    """It starts. Queries that read the damaged part fail, and so does compaction of the block."""
    BREAKS_SNAPSHOTS = "breaks-snapshots"
    """It starts and answers queries. Snapshots fail."""
    MISLEADS = "misleads"
    """It starts and notices nothing. Its answers or actions may be wrong."""
    NONE = "none"
    """It does not read the damaged part."""
    UNKNOWN = "unknown"
    """The damaged part could not be read."""


class FaultKind(StrEnum):
    """The kinds of faults, by file."""

    META_MISSING = "meta-missing"
    META_UNREADABLE = "meta-unreadable"
    META_VERSION = "meta-version"
    META_ULID = "meta-ulid"
    META_COUNTS = "meta-counts"
    META_TIMES = "meta-times"
    META_COMPACTION = "meta-compaction"
    INDEX_MISSING = "index-missing"
    INDEX_TRUNCATED = "index-truncated"
    INDEX_HEADER = "index-header"
    INDEX_TOC = "index-toc"
    INDEX_SYMBOLS = "index-symbols"
    INDEX_POSTINGS_TABLE = "index-postings-table"
    INDEX_POSTINGS = "index-postings"
    INDEX_LABEL_INDICES = "index-label-indices"
    SERIES_CORRUPT = "series-corrupt"
    SERIES_ORDER = "series-order"
    CHUNKS_MISSING = "chunks-missing"
    SEGMENT_MISSING = "segment-missing"
    SEGMENT_HEADER = "segment-header"
    SEGMENT_TRUNCATED = "segment-truncated"
    CHUNK_CORRUPT = "chunk-corrupt"
    CHUNK_REFERENCE = "chunk-reference"
    CHUNK_ORDER = "chunk-order"
    CHUNK_START = "chunk-start"
    CHUNK_UNREFERENCED = "chunk-unreferenced"
    TOMBSTONES_MISSING = "tombstones-missing"
    TOMBSTONES_CORRUPT = "tombstones-corrupt"
    PADDING = "padding"
    UNREADABLE = "unreadable"

    @property
    def effect(self) -> Effect:
        """Return what Prometheus does with a block that has it."""
        return _EFFECTS[self]


_K = FaultKind
_EFFECTS: Mapping[FaultKind, Effect] = {
    _K.META_MISSING: Effect.HIDES_DATA,
    _K.META_UNREADABLE: Effect.HIDES_DATA,
    _K.META_VERSION: Effect.HIDES_DATA,
    _K.META_ULID: Effect.MISLEADS,
    _K.META_COUNTS: Effect.MISLEADS,
    _K.META_TIMES: Effect.MISLEADS,
    _K.META_COMPACTION: Effect.NONE,
    _K.INDEX_MISSING: Effect.STOPS_START,
    _K.INDEX_TRUNCATED: Effect.STOPS_START,
    _K.INDEX_HEADER: Effect.STOPS_START,
    _K.INDEX_TOC: Effect.STOPS_START,
    _K.INDEX_SYMBOLS: Effect.STOPS_START,
    _K.INDEX_POSTINGS_TABLE: Effect.STOPS_START,
    _K.INDEX_POSTINGS: Effect.FAILS_QUERIES,
    _K.INDEX_LABEL_INDICES: Effect.NONE,
    _K.SERIES_CORRUPT: Effect.FAILS_QUERIES,
    _K.SERIES_ORDER: Effect.MISLEADS,
    _K.CHUNKS_MISSING: Effect.STOPS_START,
    _K.SEGMENT_MISSING: Effect.FAILS_QUERIES,
    _K.SEGMENT_HEADER: Effect.STOPS_START,
    _K.SEGMENT_TRUNCATED: Effect.FAILS_QUERIES,
    _K.CHUNK_CORRUPT: Effect.FAILS_QUERIES,
    _K.CHUNK_REFERENCE: Effect.FAILS_QUERIES,
    _K.CHUNK_ORDER: Effect.MISLEADS,
    _K.CHUNK_START: Effect.MISLEADS,
    _K.CHUNK_UNREFERENCED: Effect.MISLEADS,
    _K.TOMBSTONES_MISSING: Effect.BREAKS_SNAPSHOTS,
    _K.TOMBSTONES_CORRUPT: Effect.STOPS_START,
    _K.PADDING: Effect.NONE,
    _K.UNREADABLE: Effect.UNKNOWN,
}


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault: the file relative to the block, the offset in bytes, the labels of the series."""

    kind: FaultKind
    file: str
    detail: str
    offset: int | None = None
    series: str = ""

    def __str__(self) -> str:
        place = self.file if self.offset is None else f"{self.file} at {self.offset:,}"
        series = f" (series {self.series})" if self.series else ""
        return f"{place}: {self.detail}{series}"


class FaultLog:
    """Collects the faults of one block: the first `limit` in full, the others as counts."""

    def __init__(self, limit: int) -> None:
        self.kept: list[Fault] = []
        self.counts: Counter[FaultKind] = Counter()
        self._limit = limit

    @property
    def has_room(self) -> bool:
        """Return whether the next fault is kept in full, so that its series is worth looking up."""
        return len(self.kept) < self._limit

    def add(
        self,
        kind: FaultKind,
        file: str,
        detail: str,
        *,
        offset: int | None = None,
        series: str = "",
    ) -> None:
        """Add one fault."""
        self.counts[kind] += 1
        if self.has_room:
            self.kept.append(Fault(kind, file, detail, offset, series))
