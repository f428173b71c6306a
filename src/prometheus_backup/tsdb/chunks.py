"""Check the chunks of a block against the index: each is sound, and begins where the index says.

A segment `chunks/000001` is `magic | version | 3 zeros`, then chunks one after the other, each
`uvarint length | encoding | data | CRC-32C of both` (prometheus tsdb/docs/format/chunks.md).
Prometheus writes chunks in the order of the series, so index and chunks are read together, once.

Chunks are checked one window at a time. A chunk that has a fault, or is longer than the window, is
checked alone, to report its fault.
"""

import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Self

import numpy as np

from prometheus_backup.model import counted
from prometheus_backup.tsdb.block import CHUNKS as FOLDER
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

_MAGIC = b"\x85\xbd\x40\xdd"
_VERSION = 1
_HEADER = 8
_CRC = 4
_LARGE = 1 << 24
"""Bytes. The checksum of a longer chunk is calculated in windows."""

_SHORTEST = 3
"""Bytes of data: the number of samples, and a time."""
_AT_ONCE = 1 << 12
"""Chunks that are checked together at most, so that arrays stay small."""


class ChunkWalk:
    """Reads every chunk once, in the order of the index; counts chunks and samples by encoding."""

    def __init__(
        self, block: Path, log: FaultLog, name_of: Callable[[int], str], *, watch: Watch
    ) -> None:
        """`name_of` returns the labels of the series at an offset of the index."""
        self.chunks: Counter[int] = Counter()
        self.samples: Counter[int] = Counter()
        self.bytes_seen = 0
        """Size of the segments that were opened."""
        self.unread = 0
        """References to something that is missing, or is not a sound chunk."""
        self._report_gaps = True
        self._watch = watch
        self._folder = block / FOLDER
        self._log = log
        self._name_of = name_of
        self._file: ReadFile | None = None
        self._segment = -1
        self._truncated = False
        self._position = 0
        self._position_known = True
        self._buf, self._base = b"", 0
        self._last_segment = self._find_last_segment()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._close()

    def check(self, batch: SeriesBatch, *, gaps: bool) -> None:
        """Check the chunks of a batch. Raises OSError.

        `gaps`: report chunks that no series refers to, since all series so far could be read.
        """
        self._report_gaps = gaps
        segments = batch.references >> 32
        at, count = 0, len(segments)
        while at < count:
            segment = int(segments[at])
            if segment != self._segment:
                self._switch_to(segment)
            if self._file is None:
                self.unread += 1
                at += 1
                continue
            reached = self._check_many(batch, at)
            offset = _offset(batch, at)
            if reached == at and self._base != offset:
                self._base, self._buf = offset, self._file.window(offset)
                reached = self._check_many(batch, at)
            if reached == at:
                self._check_one(batch, at)
                reached += 1
            at = reached

    def end(self, *, gaps: bool) -> None:
        """Check that nothing follows the last chunk. Raises OSError."""
        self._report_gaps = gaps
        while self._last_segment is not None and self._segment < self._last_segment:
            self._switch_to(self._segment + 1)
        self._finish_segment()

    def _check_many(self, batch: SeriesBatch, first: int) -> int:
        """Check chunks within the window, up to one with a fault.

        Return the number of the first chunk that was not checked.
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
        """Count the samples of chunks within the window, and return how many chunks are sound.

        Stops at the first with a wrong checksum or start time.
        """
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
        for encoding in np.flatnonzero(np.bincount(encodings[:count])).tolist():
            self._count(encoding, samples[:count][encodings[:count] == encoding])
        return count

    def _check_one(self, batch: SeriesBatch, at: int) -> None:
        """Check one chunk and report what is wrong with it."""
        offset = _offset(batch, at)
        begins = self._begins_at(offset)
        try:
            data, end = self._read_chunk(offset)
        except Unsound as error:
            self.unread += 1
            self._position_known = self._position_known and not begins
            self._report_unsound(batch, at, str(error), begins=begins)
            return
        if not begins:
            self._report_unsound(batch, at, "", begins=False)
            self.unread += 1
            return
        self._count(data[0], np.array([integer(data[1:3])]))
        self._position, self._position_known = end, True
        if data[0] == XOR and _start_of(data) != batch.min_times[at]:
            detail = "the chunk does not begin at the time given in the index"
            self._fault(FaultKind.CHUNK_START, detail, offset, self._series(batch, at))

    def _report_unsound(self, batch: SeriesBatch, at: int, cause: str, *, begins: bool) -> None:
        assert self._file is not None  # noqa: S101 -- for the types
        offset, size = _offset(batch, at), self._file.size
        following = int(batch.references[at + 1]) if at + 1 < len(batch.references) else 1 << 63
        last_of_segment = following >> 32 != self._segment or following & 0xFFFFFFFF >= size
        beyond = offset >= size or (cause == "beyond" and last_of_segment)
        if beyond:
            if not self._truncated:
                detail = f"the segment ends at {size:,}, before its chunks do"
                self._fault(FaultKind.SEGMENT_TRUNCATED, detail, offset, self._series(batch, at))
            self._truncated = True
            return
        series = self._series(batch, at)
        if not begins:
            detail = "the index refers to an offset where no chunk begins"
            self._fault(FaultKind.CHUNK_REFERENCE, detail, offset, series)
        else:
            detail = "its length is wrong" if cause == "beyond" else "invalid checksum of a chunk"
            self._fault(FaultKind.CHUNK_CORRUPT, detail, offset, series)

    def _begins_at(self, offset: int) -> bool:
        """Return whether a chunk begins at an offset, after any that no series refers to."""
        if not self._position_known or offset == self._position:
            return True
        start, position, passed = self._position, self._position, 0
        while position < offset:
            try:
                _, end = self._read_chunk(position)
            except Unsound:
                break
            if end > offset:
                break
            position, passed = end, passed + 1
        self._position = position
        if passed and self._report_gaps and position == offset:  # else the reference is wrong
            self._unreferenced(start, position, passed)
        if position == offset:
            return True
        if not self._report_gaps and offset > position:
            self._position_known = False
            return True
        return False

    def _unreferenced(self, start: int, end: int, count: int) -> None:
        detail = f"no series refers to {counted(count, 'chunk')}, up to {end:,}"
        self._fault(FaultKind.CHUNK_UNREFERENCED, detail, start)

    def _read_chunk(self, offset: int) -> tuple[bytes, int]:
        """Return the chunk at an offset (encoding and data) and where it ends.

        Raises Unsound: "beyond" if it extends beyond the segment.
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

    def _count(self, encoding: int, samples: Ints) -> None:
        """Count chunks of an encoding, given the first two bytes of the data of each."""
        self.chunks[encoding] += len(samples)
        if encoding in ENCODINGS:
            self.samples[encoding] += int((samples & COUNT_MASK.get(encoding, ALL_BITS)).sum())

    def _switch_to(self, segment: int) -> None:
        """Finish a segment, check those in between, and open the next."""
        self._finish_segment()
        for passed in range(self._segment + 1, min(segment, (self._last_segment or 0) + 1)):
            self._open(passed)
            self._finish_segment()
        self._open(segment)

    def _open(self, segment: int) -> None:
        self._segment, self._truncated, self._position_known = segment, False, True
        self._position, self._base, self._buf = _HEADER, 0, b""
        if self._last_segment is None:
            return  # already reported
        try:
            file = self._file = ReadFile(self._folder / f"{segment + 1:06d}", watch=self._watch)
        except FileNotFoundError:
            self._fault(FaultKind.SEGMENT_MISSING, "the segment is missing", None)
            return
        self.bytes_seen += file.size
        header = file.window(0, _HEADER)
        if len(header) < _HEADER:
            detail = f"it has {counted(len(header), 'byte')}, too few for a segment"
            self._fault(FaultKind.SEGMENT_HEADER, detail, 0)
            self._close()
            return
        if header[:4] != _MAGIC or header[4] != _VERSION:
            detail = f"its magic number and version are {header[:5].hex()}"
            self._fault(FaultKind.SEGMENT_HEADER, detail, 0)
        if any(header[5:]):
            self._fault(FaultKind.PADDING, "the padding of its header is not zero", 5)

    def _finish_segment(self) -> None:
        """Check what follows the last chunk of the open segment, and close it."""
        file = self._file
        if file is not None and self._position_known and self._position < file.size:
            at_end = self._begins_at(file.size)
            if not at_end and self._report_gaps and not self._truncated:
                detail = (
                    f"not part of a chunk: {counted(file.size - self._position, 'byte')} at its end"
                )
                self._fault(FaultKind.CHUNK_UNREFERENCED, detail, self._position)
        self._close()

    def _close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def open_each(self) -> None:
        """Check only the headers of the segments. Raises OSError."""
        for segment in range(0 if self._last_segment is None else self._last_segment + 1):
            self._open(segment)
            self._close()

    def _find_last_segment(self) -> int | None:
        try:
            names = [entry.name for entry in os.scandir(self._folder)]
        except (FileNotFoundError, NotADirectoryError):
            self._log.add(FaultKind.CHUNKS_MISSING, FOLDER, "the folder is missing")
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
