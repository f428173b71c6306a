"""Check the series entries of an index, and pass on which chunks they refer to.

Entries are read one window at a time (see `entries.py`). An entry that has a fault, or is longer
than the window, is read alone, to report its fault.
"""

import json
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from prometheus_backup.tsdb.entries import (
    NO_LABELS,
    SeriesBatch,
    decode_entries,
    split_entries,
)
from prometheus_backup.tsdb.faults import FaultKind
from prometheus_backup.tsdb.index import SERIES_ALIGNMENT, Index, Toc
from prometheus_backup.tsdb.postings import AllSeries
from prometheus_backup.tsdb.reading import Unsound, aligned, integer, uvarint
from prometheus_backup.tsdb.varints import Ints

_WINDOW = 1 << 18
_SMALL_WINDOW = 1 << 12
"""Bytes to read after a fault: few, because another fault may follow soon."""


class SeriesWalk:
    """Reads every entry once, in order. `corrupt` counts those that could not be read."""

    def __init__(self, index: Index, toc: Toc, all_series: AllSeries | None) -> None:
        self.corrupt = 0
        self._index = index
        self._start = aligned(toc.series, SERIES_ALIGNMENT)
        self._symbols_end, self._end = toc.series, toc.label_indices
        self._all = all_series
        self._last = NO_LABELS

    def batches(self) -> Iterator[SeriesBatch]:
        """Yield the sound entries, a few thousand at once. Raises OSError."""
        position = stop = self._start
        self._index.padding(self._symbols_end, min(stop, self._end), "the symbol table")
        size = _WINDOW
        while position < self._end:
            window = self._index.file.window(position, min(size, self._end - position))
            offsets, bodies = split_entries(window)
            entries = decode_entries(bodies, self._index.symbols)
            count = entries.in_order(self._last)
            if count:
                batch = entries.batch(count, position + offsets[:count])
                self._last = entries.labels_of(count - 1)
                self._compare_with_list(batch.offsets)
                yield batch
                position = stop = position + int(offsets[count])
                size = min(2 * size, _WINDOW)
            else:
                before = position
                position, stop, single = self._read_one(position)
                self._compare_with_list([before])
                if single:
                    yield single
                size = max(_SMALL_WINDOW, min(2 * (position - before), _WINDOW))
        self._index.padding(min(stop, self._end), self._end, "the series")
        if self._all:
            self._all.end()

    def _read_one(self, position: int) -> tuple[int, int, SeriesBatch | None]:
        """Read one entry and report what is wrong with it.

        Return where to look for the next one, where this one ends, and its batch if it could be
        decoded.
        """
        index = self._index
        try:
            body, stop = self._entry(position)
        except Unsound as error:
            detail = f"{error}: a series entry"
            index.fault(FaultKind.SERIES_CORRUPT, detail, position)
            following = self._skip(position)
            return following, following, None
        following = aligned(stop, SERIES_ALIGNMENT)
        if following < self._end and any(index.file.exactly(stop, following - stop)):
            detail = "the padding after a series entry is not zero"
            index.fault(FaultKind.PADDING, detail, stop, series=self.text(position))
        return following, stop, self._decode(position, body)

    def _entry(self, position: int) -> tuple[bytes, int]:
        file = self._index.file
        length, size = uvarint(file.some(position, 10), 0)
        start, stop = position + size, position + size + length
        if stop + 4 > self._end:
            raise Unsound("it extends beyond the series")
        # Checked in windows first: a damaged length may be very large.
        if file.crc(start, length) != integer(file.exactly(stop, 4)):
            raise Unsound("invalid checksum")
        return file.exactly(start, length), stop + 4

    def _skip(self, position: int) -> int:
        """Return where the next entry begins, according to the list of all series."""
        self.corrupt += 1
        following = self._all.next_after(position) if self._all else None
        return self._end if following is None else following

    def _compare_with_list(self, offsets: Sequence[int] | Ints) -> None:
        if self._all:
            self._all.compare(offsets)

    def _decode(self, position: int, body: bytes) -> SeriesBatch | None:
        """Decode an entry whose checksum is right, whatever its contents."""
        entries = decode_entries([body], self._index.symbols)
        if not entries.count:
            self.corrupt += 1
            detail = "a series entry has a valid checksum but cannot be decoded"
            self._index.fault(FaultKind.SERIES_CORRUPT, detail, position)
            return None
        for in_order, kind, detail in (
            (
                entries.sorted_after(self._last),
                FaultKind.SERIES_ORDER,
                "a series is not after the one before it",
            ),
            (
                entries.with_sorted_labels(),
                FaultKind.SERIES_ORDER,
                "the labels of a series are not sorted by name",
            ),
            (
                entries.with_sorted_chunks(),
                FaultKind.CHUNK_ORDER,
                "the chunks of a series are not sorted by time and position",
            ),
        ):
            if not in_order:
                self._index.fault(kind, detail, position, series=self.text(position))
        self._last = entries.labels_of(0)
        return entries.batch(1, np.array([position]))

    def text(self, position: int) -> str:
        """Return the labels of the series at an offset as PromQL writes them, "" if unreadable."""
        if not self._index.log.has_room:
            return ""
        try:
            body, _ = self._entry(position)
            count, at = uvarint(body, 0)
            texts = []
            for _ in range(2 * count):
                number, at = uvarint(body, at)
                texts.append(self._index.symbol(number))
        except (Unsound, OSError):
            return ""
        return series_text(dict(zip(texts[::2], texts[1::2], strict=False)))


def series_text(labels: Mapping[str, str]) -> str:
    """Return labels as PromQL writes a series."""
    others = ", ".join(f"{k}={json.dumps(v)}" for k, v in labels.items() if k != "__name__")
    return labels.get("__name__", "") + (f"{{{others}}}" if others else "")
