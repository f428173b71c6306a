"""Check the series entries of an index, and hand on where they say that chunks lie.

An entry is `uvarint length | body | CRC-32C`, aligned to 16 bytes. What is regular is read by
`entries`; what is not is looked at again here, slowly, to say what is wrong with it.
"""

import json
from collections.abc import Iterator, Mapping

from prometheus_backup.tsdb.entries import (
    ALIGNMENT,
    EntryDecoder,
    SeriesBatch,
    ascending,
    names_of,
)
from prometheus_backup.tsdb.faults import FaultKind
from prometheus_backup.tsdb.index import Index, Toc
from prometheus_backup.tsdb.postings import AllSeries
from prometheus_backup.tsdb.reading import WINDOW, Unsound, aligned, crc32c, u32, uvarint

_MAX_ENTRY = 1 << 28
"""Bytes. A length beyond it is taken for a damaged one."""


class SeriesWalk:
    """Reads every entry once, in order. `corrupt` is how many could not be read."""

    def __init__(self, index: Index, toc: Toc, all_series: AllSeries | None) -> None:
        self.corrupt = 0
        self._index = index
        self._start = aligned(toc.series, ALIGNMENT)
        self._symbols_end, self._end = toc.series, toc.label_indices
        self._all = all_series
        self._decoder = EntryDecoder(index.symbols)

    def batches(self) -> Iterator[SeriesBatch]:
        """Yield the sound entries, a few thousand at a time. Raises OSError."""
        position = stop = self._start
        self._index.padding(self._symbols_end, min(stop, self._end), "the symbol table")
        while position < self._end:
            batch = SeriesBatch()
            buf = self._index.file.window(position, min(WINDOW, self._end - position))
            used = self._decoder.run(buf, position, batch)
            if used:
                position = stop = position + used
            else:
                position, stop = self._irregular(position, batch)
            self._take(batch.offsets)
            if batch.offsets:
                yield batch
        self._index.padding(min(stop, self._end), self._end, "the series")
        if self._all:
            self._all.end()

    def _irregular(self, position: int, batch: SeriesBatch) -> tuple[int, int]:
        """Read one entry and say what is wrong with it; return where the next one is looked for,
        and where this one ends.
        """
        index = self._index
        try:
            body, stop = self._entry(position)
        except Unsound as error:
            detail = f"{error}: a series entry"
            index.fault(FaultKind.SERIES_CORRUPT, detail, position)
            return self._skip(position)
        following = aligned(stop, ALIGNMENT)
        if following < self._end and any(index.file.exactly(stop, following - stop)):
            detail = "the padding after a series entry is not zero"
            index.fault(FaultKind.PADDING, detail, stop, series=self.text(position))
        self._decode(position, body, batch)
        return following, stop

    def _entry(self, position: int) -> tuple[bytes, int]:
        file = self._index.file
        length, size = uvarint(file.some(position, 10), 0)
        start, stop = position + size, position + size + length
        if stop + 4 > self._end or length > _MAX_ENTRY:
            raise Unsound("it goes beyond the series")
        body = file.exactly(start, length)
        if crc32c(body) != u32(file.exactly(stop, 4), 0)[0]:
            raise Unsound("invalid checksum")
        return body, stop + 4

    def _skip(self, position: int) -> tuple[int, int]:
        """Go on behind an entry that cannot be read: where the list of all series says."""
        self.corrupt += 1
        self._take([position])
        following = self._all.next_after(position) if self._all else None
        if following is None:
            following = self._end
        return following, following

    def _take(self, offsets: list[int]) -> None:
        if self._all:
            self._all.take(offsets)

    def _decode(self, position: int, body: bytes, batch: SeriesBatch) -> None:
        """Decode an entry whose checksum is right, whatever it holds."""
        decoded = self._decoder.decode(body, batch)
        if decoded is None:
            self.corrupt += 1
            detail = "a series entry has a right checksum and cannot be decoded"
            self._index.fault(FaultKind.SERIES_CORRUPT, detail, position)
            self._take([position])
            return
        labels, in_order = decoded
        series = self.text(position)
        if labels <= self._decoder.last:
            detail = "a series is not after the one before it"
            self._index.fault(FaultKind.SERIES_ORDER, detail, position, series=series)
        if not ascending(names_of(labels)):
            detail = "the labels of a series are not sorted by name"
            self._index.fault(FaultKind.SERIES_ORDER, detail, position, series=series)
        if not in_order:
            detail = "the chunks of a series are not in the order of time or of place"
            self._index.fault(FaultKind.CHUNK_ORDER, detail, position, series=series)
        self._decoder.last = labels
        batch.offsets.append(position)
        batch.labels.append(len(labels))
        batch.ends.append(len(batch.references))

    def text(self, position: int) -> str:
        """Return the labels of the series at an offset as PromQL writes them, "" if unreadable."""
        if not self._index.log.has_room:
            return ""
        try:
            body, _ = self._entry(position)
            texts = [self._index.symbol(number) for number in self._decoder.symbols_of(body)]
        except (Unsound, OSError, IndexError):
            return ""
        return series_text(dict(zip(texts[::2], texts[1::2], strict=False)))


def series_text(labels: Mapping[str, str]) -> str:
    """Return labels as PromQL writes a series."""
    others = ", ".join(f"{k}={json.dumps(v)}" for k, v in labels.items() if k != "__name__")
    return labels.get("__name__", "") + (f"{{{others}}}" if others else "")
