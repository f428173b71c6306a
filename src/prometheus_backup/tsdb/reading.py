"""Read TSDB files in windows: bounded memory, and a bad disk is an error, not a signal.

Memory maps would be as fast, but a page that cannot be read, or a file that is truncated during
the check, ends the process with SIGBUS.
"""

import contextlib
import errno
import os
import stat
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Self

import google_crc32c

crc32c: Callable[[bytes], int] = google_crc32c.value
"""CRC-32C (Castagnoli) of bytes, the checksum in all TSDB files, stored big-endian."""
_extend = google_crc32c.extend

WINDOW = 1 << 20
"""Bytes read at once: a thousand chunks, and still within the cache of a core."""

integer = partial(int.from_bytes, byteorder="big")

LONGEST_VARINT = 10
"""Bytes of a number of 64 bits, in groups of 7."""

Watch = Callable[[int], None]
"""Called with the bytes of each read."""


def ignore_bytes(size: int) -> None:
    """Do nothing."""
    del size


@contextlib.contextmanager
def watched_once(watch: Watch, size: int) -> Iterator[Watch]:
    """Count `size` bytes in all, however many of them are read, or read twice."""
    left = size

    def once(count: int) -> None:
        nonlocal left
        new = min(count, left)
        left -= new
        watch(new)

    yield once
    watch(left)


class Unsound(Exception):
    """Bytes are not as expected, or the file ends too early."""


class ReadFile:
    """An open file that is read at offsets."""

    def __init__(self, path: Path, *, watch: Watch = ignore_bytes) -> None:
        """Open it. Raises OSError, also if it is not a regular file."""
        self._path = path
        self._watch = watch
        # Without O_NONBLOCK, opening a pipe would wait forever.
        self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        status = os.fstat(self._fd)
        if not stat.S_ISREG(status.st_mode):
            os.close(self._fd)
            raise OSError(errno.EINVAL, "not a regular file", str(path))
        self.size = status.st_size
        self._kept, self._kept_at = b"", 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close it."""
        os.close(self._fd)

    def window(self, offset: int, length: int = WINDOW) -> bytes:
        """Return the bytes at an offset, fewer at the end of the file. Raises OSError."""
        length = max(0, min(length, self.size - offset))  # pread allocates all of it
        try:
            data = os.pread(self._fd, length, offset)
            while len(data) < length:
                more = os.pread(self._fd, length - len(data), offset + len(data))
                if not more:
                    break
                data += more
        except OSError as error:
            error.filename = str(self._path)
            raise
        self._watch(len(data))
        return data

    def some(self, offset: int, length: int) -> bytes:
        """Return a few bytes, fewer at the end of the file, from a window that is kept."""
        at = offset - self._kept_at
        if at < 0 or at + length > len(self._kept):
            self._kept, self._kept_at, at = self.window(offset), offset, 0
        return self._kept[at : at + length]

    def exactly(self, offset: int, length: int) -> bytes:
        """Return exactly this many bytes. Raises Unsound, OSError."""
        if offset < 0 or offset + length > self.size:
            raise Unsound("it extends beyond the end of the file")
        few = length <= WINDOW
        data = self.some(offset, length) if few else self.window(offset, length)
        if len(data) != length:
            raise Unsound("it extends beyond the end of the file")
        return data

    def section(self, start: int, end: int) -> tuple[int, int]:
        """Check `u32 length | body | CRC-32C` between two offsets; return where the body is.

        Raises Unsound with the cause, OSError.
        """
        body = start + 4
        stop = body + integer(self.exactly(start, 4))
        if stop + 4 > end:
            raise Unsound("it extends beyond its section")
        if self.crc(body, stop - body) != integer(self.exactly(stop, 4)):
            raise Unsound("invalid checksum")
        return body, stop

    def crc(self, offset: int, length: int) -> int:
        """Return the CRC-32C of a range of any length. Raises Unsound, OSError."""
        if length <= WINDOW:
            return crc32c(self.exactly(offset, length))
        total = 0
        for at in range(offset, offset + length, WINDOW):
            total = _extend(total, self.exactly(at, min(WINDOW, offset + length - at)))
        return total


def aligned(offset: int, alignment: int) -> int:
    """Return the first multiple of an alignment at or after an offset."""
    return -(-offset // alignment) * alignment


def uvarint(data: bytes, at: int) -> tuple[int, int]:
    """Return the unsigned LEB128 number at an offset, and where it ends. Raises Unsound."""
    value = shift = 0
    for byte in data[at : at + LONGEST_VARINT]:
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80 and value < 1 << 64:
            return value, at
        shift += 7
    raise Unsound("it cannot be decoded")


def varint(data: bytes, at: int) -> tuple[int, int]:
    """Return the signed (zigzag) LEB128 number at an offset, and where it ends."""
    value, end = uvarint(data, at)
    return value >> 1 ^ -(value & 1), end
