"""Sends samples to Prometheus by remote write 1.0, to fill the head with chosen samples.

Scraping takes about six seconds and cannot choose the times of samples. The protobuf messages and
the snappy frame (uncompressed literals) are encoded here to avoid two dependencies.
https://prometheus.io/docs/specs/prw/remote_write_spec/
"""

import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

import httpx


@dataclass(frozen=True)
class Histogram:
    """A native histogram: observations in the zero bucket, and in the buckets up to 1, 2, 4, ...

    Prometheus only accepts them with --enable-feature=native-histograms. `floats` makes it a float
    histogram, as recording rules do.
    """

    zero: int
    buckets: Sequence[int]
    sum: float = 0.0
    floats: bool = False


@dataclass(frozen=True)
class Series:
    """One series: labels, including `__name__`, and samples in order of time."""

    labels: Mapping[str, str]
    samples: Sequence[tuple[datetime, float | Histogram]]


def remote_write(url: str, series: Iterable[Series], auth: tuple[str, str] | None = None) -> None:
    """Write to the Prometheus at `url`; raises `RuntimeError` with its response on an error."""
    message = b"".join(_field(1, _time_series(one)) for one in series)
    with httpx.Client(trust_env=False, timeout=60, auth=auth) as client:
        answer = client.post(
            f"{url}/api/v1/write",
            content=_snappy(message),
            headers={
                "Content-Encoding": "snappy",
                "Content-Type": "application/x-protobuf",
                "X-Prometheus-Remote-Write-Version": "0.1.0",
            },
        )
    if not answer.is_success:
        raise RuntimeError(f"remote write: {answer.status_code} {answer.text}")


def _time_series(series: Series) -> bytes:
    labels = (
        _field(1, _field(1, name.encode()) + _field(2, value.encode()))
        for name, value in sorted(series.labels.items())
    )
    samples = (
        _field(4, _histogram(at, value))
        if isinstance(value, Histogram)
        else _field(2, b"\x09" + struct.pack("<d", value) + b"\x10" + _varint(_milliseconds(at)))
        for at, value in series.samples
    )
    return b"".join(labels) + b"".join(samples)


def _histogram(at: datetime, histogram: Histogram) -> bytes:
    """Encode a Histogram message of schema 0: each bucket is twice as wide as the previous one."""
    counts, total = histogram.buckets, histogram.zero + sum(histogram.buckets)
    if histogram.floats:
        total_and_zero = [_double(2, total), _double(7, histogram.zero)]
        buckets = _field(13, struct.pack(f"<{len(counts)}d", *counts))
    else:
        total_and_zero = [_number(1, total), _number(6, histogram.zero)]
        deltas = [now - before for before, now in zip([0, *counts], counts, strict=False)]
        buckets = _field(12, b"".join(_varint(_zigzag(delta)) for delta in deltas))
    return b"".join(
        [
            *total_and_zero,
            _double(3, histogram.sum),
            _double(5, 1e-9),  # the width of the zero bucket
            _field(11, _number(2, len(counts))),  # one span of buckets, starting at the first
            buckets,
            _number(15, _milliseconds(at)),
        ]
    )


def _double(number: int, value: float) -> bytes:
    return _varint(number << 3 | 1) + struct.pack("<d", value)


def _number(number: int, value: int) -> bytes:
    return _varint(number << 3) + _varint(value)


def _zigzag(value: int) -> int:
    """Encode a signed integer as protobuf does."""
    return value * 2 if value >= 0 else -value * 2 - 1


def _milliseconds(at: datetime) -> int:
    return round(at.timestamp() * 1000)


def _field(number: int, payload: bytes) -> bytes:
    """Encode a length-delimited protobuf field."""
    return bytes([number << 3 | 2]) + _varint(len(payload)) + payload


def _varint(value: int) -> bytes:
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


def _snappy(data: bytes) -> bytes:
    """Encode in the snappy block format, with literals of at most 64 KiB."""
    framed = [_varint(len(data))]
    for start in range(0, len(data), 1 << 16):
        literal = data[start : start + (1 << 16)]
        framed += [b"\xf4", struct.pack("<H", len(literal) - 1), literal]
    return b"".join(framed)
