"""Find the damaged records of a segment of a write-ahead log: of `wal`, `wbl` or a checkpoint.

A segment has pages of 32 KiB. A record is a `full` fragment, or a `first`, any `middle` ones and a
`last` one, each `type | u16 length | CRC-32C | data`. Zeros fill up a page that has no room for a
header, and the last page (prometheus tsdb/wlog/wlog.go). What Prometheus' reader accepts is sound
(reader.go); where it stops, the next record is searched by its checksum, and read on from there.

Damage is removed in place, so that everything else keeps its offset: a record of an unknown type,
which Prometheus skips, takes the room of what is lost.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from struct import Struct
from typing import NamedTuple

from prometheus_backup.tsdb.flips import flipped_bit, is_one_bit
from prometheus_backup.tsdb.reading import WINDOW, ReadFile, aligned, crc32c
from prometheus_backup.tsdb.snappy import is_snappy

PAGE = 1 << 15
_HEADER = Struct(">BHI")
_LONGEST = PAGE - _HEADER.size
_TERMINATOR, _FULL, _FIRST, _MIDDLE, _LAST = range(5)
"""Types of fragments; a zero fills up the page."""
_TYPE, _SNAPPY, _ZSTD = 0x07, 0x08, 0x10
_STARTS = re.compile(rb"[\x01-\x04\x09-\x0c\x11-\x14]")
"""The first byte of a fragment."""
_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
_KNOWN = 32
"""All types of records of this and coming versions of Prometheus are expected to be below."""
_HEAD = 4
"""The number of first bytes of a record that tell how it is compressed."""


class Fragment(NamedTuple):
    """A fragment with a good checksum; `type` is its first byte, `stop` where the next begins."""

    start: int
    stop: int
    type: int

    @property
    def kind(self) -> int:
        """Return whether it is the only, first, middle or last one of its record."""
        return self.type & _TYPE

    @property
    def ends_record(self) -> bool:
        """Return whether its record is complete with it."""
        return self.kind in (_FULL, _LAST)


class _Bad(Exception):
    """No fragment begins here, because of this."""


@dataclass(frozen=True, slots=True)
class Damage:
    """A damaged part of a segment, between two offsets.

    `mended` are the right bytes, empty if the part is lost. `stops`: Prometheus stops reading here.
    """

    start: int
    stop: int
    cause: str
    mended: bytes = b""
    stops: bool = True


@dataclass(frozen=True, slots=True)
class SegmentReport:
    """What was found in a segment; `sound_until` is the end of its last sound record, 0 if none."""

    size: int
    sound_until: int = 0
    damages: tuple[Damage, ...] = ()

    def within(self) -> tuple[Damage, ...]:
        """Return the damages that a sound record follows: what a crash leaves is at the end."""
        return tuple(d for d in self.damages if d.start < self.sound_until)


def scan_segment(file: ReadFile) -> SegmentReport:
    """Read a segment in windows. Raises OSError."""
    scan = _Scan(file)
    scan.run()
    return SegmentReport(file.size, scan.sound_until, tuple(_merged(scan.damages)))


def filler(start: int, stop: int) -> Iterator[bytes]:
    """Yield what takes the room of lost records: records of type 0, which Prometheus skips."""
    while start < stop:
        size = min(stop, aligned(start + 1, PAGE)) - start
        room = size - _HEADER.size
        data = bytes(max(0, room))
        yield _HEADER.pack(_FULL, room, crc32c(data)) + data if room >= 0 else bytes(size)
        start += size


class _Scan:
    def __init__(self, file: ReadFile) -> None:
        self.damages: list[Damage] = []
        self.sound_until = 0
        self._file = file
        self._end = aligned(file.size, PAGE)
        """Prometheus adds zeros up to the end of the page."""
        self._data, self._base = b"", 0
        self._open: list[Fragment] = []
        """The fragments of a record that is not complete yet."""
        self._head = b""
        self._zeros: list[Damage] = []
        """Empty pages since the last record: they are normal at the end."""

    def run(self) -> None:
        at = 0
        while at < self._end:
            self._load(at)
            at = self._step(at)
        self._drop("the record is torn")

    def _load(self, at: int) -> None:
        """Have the page at an offset in memory, and the next."""
        need = min(at + 2 * PAGE, self._end)
        if need > self._base + len(self._data):
            self._base = at - at % PAGE
            data = self._file.window(self._base, WINDOW)
            self._data = data.ljust(min(WINDOW, self._end - self._base), b"\0")

    def _step(self, at: int) -> int:
        """Read what is at an offset; return where to read on."""
        try:
            if self._data[at - self._base] & _TYPE == _TERMINATOR:
                return self._skip_padding(at)
            fragment = self._fragment(at)
        except _Bad as cause:
            return self._resume(at, str(cause))
        return self._take(fragment)

    def _skip_padding(self, at: int) -> int:
        stop = aligned(at + 1, PAGE)
        if self._bytes(at, stop).strip(b"\0"):
            fragment = self._fragment(at)
            if fragment.stop == at + _HEADER.size:
                raise _Bad("unexpected non-zero byte in a padded page")
            return self._take(fragment)
        self._drop("zeros follow its first part")
        if at % PAGE == 0:
            self._zeros.append(Damage(at, stop, "the page has only zeros", stops=False))
        return stop

    def _fragment(self, at: int) -> Fragment:
        """Return the fragment at an offset. Raises _Bad."""
        if at + _HEADER.size > self._end:
            raise _Bad("the header of a record is cut off")
        kind, length, checksum = _HEADER.unpack_from(self._data, at - self._base)
        body = at + _HEADER.size
        if length > _LONGEST or body + length > self._end:
            raise _Bad(f"invalid record size {length}")
        if crc32c(self._bytes(body, body + length)) != checksum:
            raise _Bad("invalid checksum of a record")
        return Fragment(at, body + length, kind)

    def _take(self, fragment: Fragment) -> int:
        expected = (_MIDDLE, _LAST) if self._open else (_FULL, _FIRST)
        if fragment.kind not in expected:
            right = self._right_kind(fragment)
            if right in expected:
                self._mend(fragment, fragment.type & ~_TYPE | right)
                fragment = fragment._replace(type=right | fragment.type & ~_TYPE)
            else:
                self._drop("the rest of the record is missing")
                if fragment.kind not in (_FULL, _FIRST):
                    self._lose(fragment.start, fragment.stop, "the record has no beginning")
                    return fragment.stop
        if not self._open:
            self._head = self._bytes(fragment.start + _HEADER.size, fragment.stop)[:_HEAD]
        self._open.append(fragment)
        if fragment.ends_record:
            self._complete(fragment)
        return fragment.stop

    def _right_kind(self, fragment: Fragment) -> int:
        """Return the type that a fragment must have, 0 if its own type may be right.

        Only at the beginning of a page is a fragment a further one of its record, and only at the
        end of a page is it followed by one.
        """
        lost = max((d.stop for d in (*self.damages[-1:], *self._zeros[-1:])), default=-1)
        begins_page = fragment.start % PAGE == 0
        is_new = fragment.kind in (_FULL, _FIRST)
        is_rest = fragment.kind in (_MIDDLE, _LAST) and begins_page and fragment.start > 0
        if is_new or is_rest or fragment.start == lost or (self._open and not begins_page):
            return 0
        at, more = fragment.stop, False
        if at % PAGE == 0 and at < self._end:
            more = self._data[at - self._base] & _TYPE in (_MIDDLE, _LAST)
        if self._open:
            return _MIDDLE if more else _LAST
        return _FIRST if more else _FULL

    def _complete(self, last: Fragment) -> None:
        """Take a record as sound, with the compression that Prometheus will take it for."""
        used = last.type & (_SNAPPY | _ZSTD)
        used = _SNAPPY if used & _SNAPPY else used  # of both, Prometheus takes this
        if (right := self._compression(used)) != used:
            known = used or self._head[:1] < bytes([_KNOWN])
            self._mend(last, last.type & ~(_SNAPPY | _ZSTD) | right, stops=bool(known))
        self.damages += self._zeros
        self._zeros = []
        self.sound_until = last.stop
        self._open = []

    def _compression(self, used: int) -> int:
        """Return the compression that a record has, or `used` if it cannot be told."""
        head = self._head
        if not head or (used == 0 and head[0] < _KNOWN):
            return used
        if used == _SNAPPY and not self._looks_plain():
            return used
        if head == _ZSTD_MAGIC:
            return _ZSTD
        if is_snappy(self._record()):
            return _SNAPPY
        return 0 if head[0] < _KNOWN else used

    def _looks_plain(self) -> bool:
        """Return whether a record said to be compressed begins with the type of a record.

        Compressed, it would be this short.
        """
        size = sum(f.stop - f.start - _HEADER.size for f in self._open)
        return 0 < self._head[0] < _KNOWN and self._head[0] <= size

    def _record(self) -> bytes:
        """Return the data of the record that is open."""
        parts = [
            self._file.window(f.start + _HEADER.size, f.stop - f.start - _HEADER.size)
            for f in self._open
        ]
        return b"".join(parts)

    def _resume(self, at: int, cause: str) -> int:
        """Mend the fragment at an offset, or lose it; return where to read on."""
        page = aligned(at + 1, PAGE)
        stop = page
        for start in _STARTS.finditer(
            self._data, at + _HEADER.size - self._base, page - self._base
        ):
            if self._is_sound(self._base + start.start(), page):
                stop = self._base + start.start()
                break
        if mended := self._mended(at, stop):
            return self._take(mended)
        self._drop(cause)
        self._lose(at, stop, cause)
        return stop

    def _is_sound(self, at: int, page: int) -> bool:
        try:
            fragment = self._fragment(at)
        except _Bad:
            return False
        return at + _HEADER.size < fragment.stop <= page

    def _mended(self, at: int, stop: int) -> Fragment | None:
        """Return the fragment at an offset without its one flipped bit, None if more is wrong."""
        if at + _HEADER.size >= stop:
            return None
        kind, length, checksum = _HEADER.unpack_from(self._data, at - self._base)
        body = at + _HEADER.size
        for possible in (length, *(length ^ 1 << bit for bit in range(16))):
            end = body + possible
            rest = self._bytes(end, stop)
            if end > stop or (rest and (stop % PAGE or rest.strip(b"\0"))):
                continue
            data = self._bytes(body, end)
            fragment, found = Fragment(at, end, kind), crc32c(data)
            if possible != length and found == checksum:
                self._note(at + 1, possible.to_bytes(2, "big"))
            elif possible == length and is_one_bit(found ^ checksum):
                self._note(at + 3, found.to_bytes(4, "big"))
            elif possible == length and (bit := flipped_bit(found ^ checksum, len(data))):
                self._note(body + bit.at, bytes([data[bit.at] ^ bit.mask]))
            else:
                continue
            return fragment
        return None

    def _mend(self, fragment: Fragment, first: int, *, stops: bool = True) -> None:
        self._note(fragment.start, bytes([first]), stops=stops)

    def _note(self, at: int, data: bytes, *, stops: bool = True) -> None:
        """Note the right bytes of a place with a flipped bit."""
        self.damages.append(Damage(at, at + len(data), "one bit is flipped", data, stops))

    def _drop(self, cause: str) -> None:
        """Lose the record that is open."""
        for fragment in self._open:
            self._lose(fragment.start, fragment.stop, cause)
        self._open = []

    def _lose(self, start: int, stop: int, cause: str) -> None:
        self.damages.append(Damage(start, min(stop, self._file.size), cause))

    def _bytes(self, start: int, stop: int) -> bytes:
        return self._data[start - self._base : stop - self._base]


def _merged(damages: list[Damage]) -> Iterator[Damage]:
    """Yield the damages in order, lost parts that touch each other as one, without overlaps."""
    previous: Damage | None = None
    for damage in sorted(damages, key=lambda d: (d.start, bool(d.mended))):
        if previous is None:
            previous = damage
        elif damage.mended and damage.start < previous.stop:
            # Mended in a record that is lost after all, or twice in one byte.
            previous = damage if previous.mended else previous
        elif not (previous.mended or damage.mended) and damage.start <= previous.stop:
            stop, stops = max(previous.stop, damage.stop), previous.stops or damage.stops
            previous = replace(previous, stop=stop, stops=stops)
        else:
            yield previous
            previous = damage
    if previous:
        yield previous
