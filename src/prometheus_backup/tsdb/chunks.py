"""Check the chunks of a block against the index: each reference begins one, and each is sound.

A segment `chunks/000001` is `magic | version | 3 zeros`, then chunks back to back, each `uvarint
length | encoding | data | CRC-32C of both` (prometheus tsdb/docs/format/chunks.md). Prometheus
writes chunks in the order of the series, so both are read once, side by side.
"""

import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Self

import numpy as np

from prometheus_backup.tsdb.encodings import ALL_BITS, COUNT_MASK, ENCODINGS, XOR
from prometheus_backup.tsdb.entries import SeriesBatch
from prometheus_backup.tsdb.faults import FaultKind, FaultLog
from prometheus_backup.tsdb.reading import (
    ReadFile,
    Unsound,
    Watch,
    crc32c,
    integer,
    uvarint,
    varint,
)
from prometheus_backup.tsdb.varints import LENGTH, Ints, decode_at, first_false, signed, uint32_at

FOLDER = "chunks"
_MAGIC = b"\x85\xbd\x40\xdd"
_VERSION = 1
_HEADER = 8
_CRC = 4
_LARGE = 1 << 24
"""Bytes. A longer chunk is checked in windows, and what it says inside is not looked at."""

_SHORTEST = 3
"""Bytes of data: the number of samples, and a time."""
_AT_ONCE = 1 << 12
"""Chunks that are looked at in one go."""


class ChunkWalk:
    """Reads every chunk once, in the order of the index. `chunks` and `samples` by encoding."""

    def __init__(
        self, block: Path, log: FaultLog, name_of: Callable[[int], str], *, watch: Watch
    ) -> None:
        """`name_of` gives the labels of the series at an offset of the index."""
        self.chunks: Counter[int] = Counter()
        self.samples: Counter[int] = Counter()
        self.bytes_seen = 0
        """Of the segments that were opened."""
        self.unread = 0
        """References to what is not there, or not a sound chunk."""
        self._gaps = True
        self._watch = watch
        self._folder = block / FOLDER
        self._log = log
        self._name_of = name_of
        self._file: ReadFile | None = None
        self._segment = -1
        self._cut = False
        self._position = 0
        self._sure = True
        self._buf, self._base = b"", 0
        self._last = self._last_segment()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._shut()

    def check(self, batch: SeriesBatch, *, gaps: bool) -> None:
        """Check the chunks of a batch. Raises OSError.

        `gaps`: chunks that no series has are faults, since every series could be read so far.
        """
        self._gaps = gaps
        segments = batch.references >> 32
        at, count = 0, len(segments)
        while at < count:
            segment = int(segments[at])
            if segment != self._segment:
                self._turn_to(segment)
            if self._file is None:
                self.unread += 1
                at += 1
                continue
            reached = self._regular(batch, at)
            offset = _offset(batch, at)
            if reached == at and self._base != offset:
                self._base, self._buf = offset, self._file.window(offset)
                reached = self._regular(batch, at)
            if reached == at:
                self._irregular(batch, at)
                reached += 1
            at = reached

    def end(self, *, gaps: bool) -> None:
        """Check that nothing is left behind the last chunk. Raises OSError."""
        self._gaps = gaps
        while self._last is not None and self._segment < self._last:
            self._turn_to(self._segment + 1)
        self._leave()

    def _regular(self, batch: SeriesBatch, first: int) -> int:
        """Check chunks for as long as each begins where the one before it ends, and is sound;
        return the number of the first that was not checked.
        """
        references = batch.references[first : first + _AT_ONCE]
        offsets = (references - (self._segment << 32)).astype(np.int64) - self._base
        offsets = offsets[: first_false((offsets >= 0) & (offsets < len(self._buf)))]
        if not len(offsets):
            return first
        data = np.frombuffer(self._buf, np.uint8)
        lengths, begins = decode_at(data, offsets, longest=LENGTH)
        stops = begins + 1 + np.minimum(lengths, len(data)).astype(np.int64)
        positions = np.concatenate(([self._position - self._base], stops + _CRC))
        expected = (
            (offsets == positions[:-1]) & (lengths >= _SHORTEST) & (stops + _CRC <= len(self._buf))
        )
        count = first_false(expected)
        if not count:
            return first
        count = self._count_sound(begins[:count], stops[:count], batch.min_times[first:])
        self._position = self._base + int(positions[count])
        return first + count

    def _count_sound(self, begins: Ints, stops: Ints, min_times: Ints) -> int:
        """Count chunks of the window, up to the first with a wrong checksum or start."""
        buf = self._buf
        data = np.frombuffer(buf, np.uint8)
        places = zip(begins.tolist(), stops.tolist(), strict=True)
        checksums = np.array([crc32c(buf[begin:stop]) for begin, stop in places], np.uint32)
        times, ends = decode_at(data, begins + 3)
        encodings = data[begins]
        right_time = (signed(times) == min_times[: len(begins)]) & (ends <= stops)
        sound = (checksums == uint32_at(data, stops)) & ((encodings != XOR) | right_time)
        count = first_false(sound)
        samples = data[begins + 1].astype(np.int64) << 8 | data[begins + 2]
        for encoding in np.unique(encodings[:count]).tolist():
            same = samples[:count][encodings[:count] == encoding]
            self.chunks[encoding] += len(same)
            if encoding in ENCODINGS:
                self.samples[encoding] += int((same & COUNT_MASK.get(encoding, ALL_BITS)).sum())
        return count

    def _irregular(self, batch: SeriesBatch, at: int) -> None:
        """Check one chunk and say what is wrong with it."""
        offset = _offset(batch, at)
        begins = self._find_start(offset)
        try:
            data, end = self._frame(offset)
        except Unsound as error:
            self.unread += 1
            self._sure = self._sure and not begins
            self._blame(batch, at, str(error), begins=begins)
            return
        if not begins:
            self._blame(batch, at, "", begins=False)
            self.unread += 1
            return
        self._count(data)
        self._position, self._sure = end, True
        if data[0] == XOR and _start_of(data) != batch.min_times[at]:
            detail = "the chunk does not begin at the time that the index says"
            self._fault(FaultKind.CHUNK_START, detail, offset, self._series(batch, at))

    def _blame(self, batch: SeriesBatch, at: int, cause: str, *, begins: bool) -> None:
        assert self._file is not None  # noqa: S101 -- for the types
        offset, size = _offset(batch, at), self._file.size
        following = int(batch.references[at + 1]) if at + 1 < len(batch.references) else 1 << 63
        last_of_segment = following >> 32 != self._segment or following & 0xFFFFFFFF >= size
        beyond = offset >= size or (cause == "beyond" and last_of_segment)
        if beyond:
            if not self._cut:
                detail = f"the segment ends at {size:,}, before its chunks do"
                self._fault(FaultKind.SEGMENT_TRUNCATED, detail, offset, self._series(batch, at))
            self._cut = True
            return
        series = self._series(batch, at)
        if not begins:
            detail = "the index refers to a place where no chunk begins"
            self._fault(FaultKind.CHUNK_REFERENCE, detail, offset, series)
        else:
            detail = "its length is wrong" if cause == "beyond" else "invalid checksum of a chunk"
            self._fault(FaultKind.CHUNK_CORRUPT, detail, offset, series)

    def _find_start(self, offset: int) -> bool:
        """Tell whether a chunk begins at an offset, walking over those that no series has."""
        if not self._sure or offset == self._position:
            return True
        start, position, passed = self._position, self._position, 0
        while position < offset:
            try:
                _, end = self._frame(position)
            except Unsound:
                break
            if end > offset:
                break
            position, passed = end, passed + 1
        self._position = position
        if passed and self._gaps and position == offset:  # else the reference is wrong
            self._unreferenced(start, position, passed)
        if position == offset:
            return True
        if not self._gaps and offset > position:
            self._sure = False
            return True
        return False

    def _unreferenced(self, start: int, end: int, count: int) -> None:
        detail = f"{count:,} chunks, up to {end:,}, belong to no series"
        self._fault(FaultKind.CHUNK_UNREFERENCED, detail, start)

    def _frame(self, offset: int) -> tuple[bytes, int]:
        """Return the chunk at an offset (encoding and data) and where it ends.

        Raises Unsound: "beyond" where it goes beyond the segment.
        """
        file = self._file
        assert file is not None  # noqa: S101 -- for the types
        try:
            length, size = uvarint(file.some(offset, 5), 0)
        except Unsound:
            raise Unsound("beyond") from None
        start, stop = offset + size, offset + size + length + 1
        if stop + _CRC > file.size:
            raise Unsound("beyond")
        stored = integer(file.exactly(stop, _CRC))
        data = file.exactly(start, min(length + 1, _LARGE))
        found = crc32c(data) if length < _LARGE else file.crc(start, length + 1)
        if found != stored:
            raise Unsound("checksum")
        return data, stop + _CRC

    def _count(self, data: bytes) -> None:
        encoding = data[0]
        self.chunks[encoding] += 1
        if encoding in ENCODINGS:
            samples = int.from_bytes(data[1:3], "big")
            self.samples[encoding] += samples & COUNT_MASK.get(encoding, ALL_BITS)

    def _turn_to(self, segment: int) -> None:
        """Leave a segment, look at those between, open the next."""
        self._leave()
        for passed in range(self._segment + 1, min(segment, (self._last or 0) + 1)):
            self._open(passed)
            self._leave()
        self._open(segment)

    def _open(self, segment: int) -> None:
        self._segment, self._cut, self._sure = segment, False, True
        self._position, self._base, self._buf = _HEADER, 0, b""
        if self._last is None:
            return  # which was said once
        try:
            file = self._file = ReadFile(self._folder / f"{segment + 1:06d}", watch=self._watch)
        except FileNotFoundError:
            self._fault(FaultKind.SEGMENT_MISSING, "the segment is not there", None)
            return
        self.bytes_seen += file.size
        header = file.window(0, _HEADER)
        if len(header) < _HEADER:
            detail = f"{len(header)} bytes are too few for a segment"
            self._fault(FaultKind.SEGMENT_HEADER, detail, 0)
            self._shut()
            return
        if header[:4] != _MAGIC or header[4] != _VERSION:
            detail = f"its magic number and version are {header[:5].hex()}"
            self._fault(FaultKind.SEGMENT_HEADER, detail, 0)
        if any(header[5:]):
            self._fault(FaultKind.PADDING, "the padding of its header is not zero", 5)

    def _leave(self) -> None:
        """Look at what is behind the last chunk of the open segment, and close it."""
        file = self._file
        if file is not None and self._sure and self._position < file.size:
            at_end = self._find_start(file.size)
            if not at_end and self._gaps and not self._cut:
                detail = f"{file.size - self._position:,} bytes at its end belong to no chunk"
                self._fault(FaultKind.CHUNK_UNREFERENCED, detail, self._position)
        self._shut()

    def _shut(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def open_each(self) -> None:
        """Check the headers of the segments, and nothing behind them. Raises OSError."""
        for segment in range(0 if self._last is None else self._last + 1):
            self._open(segment)
            self._shut()

    def _last_segment(self) -> int | None:
        try:
            names = [entry.name for entry in os.scandir(self._folder)]
        except (FileNotFoundError, NotADirectoryError):
            self._log.add(FaultKind.CHUNKS_MISSING, FOLDER, "the folder is not there")
            return None
        return max((int(name) for name in names if name.isdecimal()), default=0) - 1

    def _series(self, batch: SeriesBatch, at: int) -> str:
        return self._name_of(batch.series_of(at)) if self._log.has_room else ""

    def _fault(self, kind: FaultKind, detail: str, offset: int | None, series: str = "") -> None:
        file = f"{FOLDER}/{self._segment + 1:06d}"
        self._log.add(kind, file, detail, offset=offset, series=series)


def _offset(batch: SeriesBatch, at: int) -> int:
    """Return where a chunk of a batch begins in its segment."""
    return int(batch.references[at]) & 0xFFFFFFFF


def _start_of(data: bytes) -> int | None:
    """Return the time of the first sample of an XOR chunk, None if it cannot be decoded."""
    try:
        return varint(data, 3)[0]
    except Unsound:
        return None
