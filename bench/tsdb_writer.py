"""Writes Prometheus TSDB blocks whose samples are random bits, as fast as plain Python can.

Writes one block directory; `generate.py` decides how many.
Formats: prometheus/prometheus tsdb/docs/format (index version 2, chunk segments version 1)
and tsdb/chunkenc/xor.go.
"""

import json
import random
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import google_crc32c

SAMPLES_PER_CHUNK = 120
"""The number at which Prometheus cuts a chunk."""

XOR_ENCODING = 1
INDEX_MAGIC = 0xBAAAD700
CHUNKS_MAGIC = 0x85BD40DD
EMPTY_TOMBSTONES = struct.pack(">IBI", 0x0130BA30, 1, 0)
_WRITE_BUFFER_BYTES = 4 << 20
_ULID_ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"

Labels = tuple[tuple[str, str], ...]
"""Label pairs sorted by name."""


@dataclass(frozen=True)
class BlockSpec:
    """Contents of one block. Every series has a sample at each step of the whole time range."""

    min_time_ms: int
    max_time_ms: int
    step_ms: int
    level: int
    segment_bytes: int

    @property
    def chunks_per_series(self) -> int:
        """Number of chunks per series; the range is cut evenly."""
        return (self.max_time_ms - self.min_time_ms) // (self.step_ms * SAMPLES_PER_CHUNK)


@dataclass
class SegmentWriter:
    """Appends chunks to `chunks/000001` and so on, starting a new file at `segment_bytes`."""

    folder: Path
    segment_bytes: int
    sequence: int = 0
    offset: int = 0
    _pending: list[bytes] = field(default_factory=list)
    _pending_bytes: int = 0

    def append(self, chunk: bytes) -> int:
        """Append one framed chunk and return its reference for the index."""
        if self.sequence == 0 or self.offset + len(chunk) > self.segment_bytes:
            self.flush()
            self.sequence += 1
            self.offset = 0
            self._put(struct.pack(">IB3x", CHUNKS_MAGIC, 1))
        reference = (self.sequence - 1) << 32 | self.offset
        self._put(chunk)
        if self._pending_bytes >= _WRITE_BUFFER_BYTES:
            self.flush()
        return reference

    def _put(self, data: bytes) -> None:
        self._pending.append(data)
        self._pending_bytes += len(data)
        self.offset += len(data)

    def flush(self) -> None:
        """Write the buffered chunks to the current segment."""
        if self._pending:
            with (self.folder / f"{self.sequence:06d}").open("ab") as segment:
                segment.write(b"".join(self._pending))
        self._pending.clear()
        self._pending_bytes = 0


class RandomChunks:
    """Generates XOR chunks of random values at a constant step, all of the same length."""

    def __init__(self, rng: random.Random, step_ms: int) -> None:
        self._rng = rng
        self._step = _uvarint(step_ms)
        self._fixed, self._random_mask, self._body_bytes = _value_bits(SAMPLES_PER_CHUNK - 1)

    def framed(self, first_time_ms: int) -> bytes:
        """Return one chunk as stored in a segment: length, encoding, data, CRC-32C."""
        noise = int.from_bytes(self._rng.randbytes(self._body_bytes), "big")
        body = (noise & self._random_mask | self._fixed).to_bytes(self._body_bytes, "big")
        first = struct.pack(">H", SAMPLES_PER_CHUNK) + _varint(first_time_ms)
        data = first + struct.pack(">d", 1.0) + self._step + body
        checked = bytes((XOR_ENCODING,)) + data
        return _uvarint(len(data)) + checked + _crc(checked)


def new_ulid(time_ms: int, rng: random.Random) -> str:
    """Return a ULID with the given time."""
    number = time_ms << 80 | rng.getrandbits(80)
    return "".join(_ULID_ALPHABET[number >> shift & 31] for shift in range(125, -1, -5))


def write_block(parent: Path, spec: BlockSpec, series: list[Labels], rng: random.Random) -> Path:
    """Write one block of `series` (sorted) under `parent` and return its directory."""
    ulid = new_ulid(spec.max_time_ms, rng)
    block = parent / ulid
    (block / "chunks").mkdir(parents=True)
    segments = SegmentWriter(block / "chunks", spec.segment_bytes)
    (block / "index").write_bytes(_index(series, _write_chunks(segments, spec, rng)))
    segments.flush()
    (block / "tombstones").write_bytes(EMPTY_TOMBSTONES)
    chunks = spec.chunks_per_series * len(series)
    ancestors = 1 if spec.level == 1 else 3 ** (spec.level - 1)
    sources = [ulid, *(new_ulid(spec.min_time_ms + n, rng) for n in range(1, ancestors))]
    meta = {
        "ulid": ulid,
        "minTime": spec.min_time_ms,
        "maxTime": spec.max_time_ms,
        "stats": {
            "numSamples": chunks * SAMPLES_PER_CHUNK,
            "numSeries": len(series),
            "numChunks": chunks,
        },
        "compaction": {"level": spec.level, "sources": sorted(sources)},
        "version": 1,
    }
    (block / "meta.json").write_text(json.dumps(meta, indent="\t"))
    return block


ChunkMeta = tuple[int, int, int]
"""First time, last time (both inclusive, ms) and reference."""


def _write_chunks(
    segments: SegmentWriter, spec: BlockSpec, rng: random.Random
) -> Iterator[list[ChunkMeta]]:
    """Write the chunks of one series after another, endlessly; yield their index entries."""
    chunks = RandomChunks(rng, spec.step_ms)
    span = spec.step_ms * SAMPLES_PER_CHUNK
    starts = range(spec.min_time_ms, spec.max_time_ms - span + 1, span)
    while True:
        yield [
            (start, start + span - spec.step_ms, segments.append(chunks.framed(start)))
            for start in starts
        ]


def _index(series: list[Labels], chunks: Iterator[list[ChunkMeta]]) -> bytes:
    out = bytearray(struct.pack(">IB", INDEX_MAGIC, 2))
    names = sorted({text for labels in series for pair in labels for text in pair})
    symbol = {text: number for number, text in enumerate(names)}
    symbols_at = len(out)
    out += _section(struct.pack(">I", len(names)) + b"".join(_string(text) for text in names))

    _pad(out, 16)
    series_at = len(out)
    postings: dict[tuple[str, str], list[int]] = {("", ""): []}
    for labels in series:
        _pad(out, 16)
        reference = len(out) // 16
        for pair in (("", ""), *labels):
            postings.setdefault(pair, []).append(reference)
        body = _series_entry([(symbol[n], symbol[v]) for n, v in labels], next(chunks))
        out += _uvarint(len(body)) + body + _crc(body)
    _pad(out, 4)

    postings_at = len(out)
    table = bytearray(struct.pack(">I", len(postings)))
    for (name, value), references in sorted(postings.items()):
        _pad(out, 4)
        table += b"\x02" + _string(name) + _string(value) + _uvarint(len(out))
        out += _section(struct.pack(f">I{len(references)}I", len(references), *references))
    _pad(out, 4)

    # Since version 2 label indices are not read; Prometheus 3 writes an empty table.
    label_table_at = len(out)
    out += _section(struct.pack(">I", 0))
    postings_table_at = len(out)
    out += _section(bytes(table))
    toc = struct.pack(
        ">6Q", symbols_at, series_at, postings_at, label_table_at, postings_at, postings_table_at
    )
    return bytes(out) + toc + _crc(toc)


def _series_entry(labels: list[tuple[int, int]], chunks: list[ChunkMeta]) -> bytes:
    parts = [_uvarint(len(labels))]
    for name, value in labels:
        parts += (_uvarint(name), _uvarint(value))
    parts.append(_uvarint(len(chunks)))
    previous_max = previous_ref = 0
    for position, (first, last, reference) in enumerate(chunks):
        if position == 0:
            parts += (_varint(first), _uvarint(last - first), _uvarint(reference))
        else:
            step = _uvarint(first - previous_max)
            parts += (step, _uvarint(last - first), _varint(reference - previous_ref))
        previous_max, previous_ref = last, reference
    return b"".join(parts)


def _value_bits(values: int) -> tuple[int, int, int]:
    """Return the bit stream after the second timestamp: fixed bits, mask of the free bits, bytes.

    The first value sets a window of 64 significant bits (`11`, leading 0, length 64 as 0); the
    later ones reuse it (`0` for an unchanged step, then `10`). The top exponent bit is never
    flipped, so that no value is infinite or NaN.
    """
    free = "1" + "0" + "1" * 62
    fixed_bits = ["11" + "0" * 11 + "0" * 64] + ["010" + "0" * 64] * (values - 1)
    mask_bits = ["0" * 13 + free] + ["000" + free] * (values - 1)
    fixed, mask = "".join(fixed_bits), "".join(mask_bits)
    width = -(-len(fixed) // 8) * 8
    return int(fixed.ljust(width, "0"), 2), int(mask.ljust(width, "0"), 2), width // 8


def _section(body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + body + _crc(body)


def _string(text: str) -> bytes:
    encoded = text.encode()
    return _uvarint(len(encoded)) + encoded


def _crc(data: bytes) -> bytes:
    return struct.pack(">I", google_crc32c.value(data))


def _pad(out: bytearray, alignment: int) -> None:
    out += bytes(-len(out) % alignment)


def _varint(number: int) -> bytes:
    return _uvarint(number << 1 if number >= 0 else ~(number << 1))


def _uvarint(number: int) -> bytes:
    out = bytearray()
    while number >= 0x80:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)
