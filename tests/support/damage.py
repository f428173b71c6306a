"""Damages a block directory in various ways, like a crash, a failing disk or a mistake would."""

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

Damage = Callable[[Path], None]


def flip(path: Path, offset: int) -> None:
    """Flip one bit of a file; a negative offset counts from the end."""
    data = bytearray(path.read_bytes())
    data[offset] ^= 1
    _write(path, bytes(data))


def cut(path: Path, size: int) -> None:
    """Truncate a file to `size` bytes."""
    _write(path, path.read_bytes()[:size])


def change_meta(block: Path, **fields: Any) -> None:
    """Set fields of a block's meta.json."""
    path = block / "meta.json"
    _write(path, json.dumps(json.loads(path.read_bytes()) | fields).encode())


def toc(index: Path) -> Mapping[str, int]:
    """Return the offsets of the sections of an index."""
    data = index.read_bytes()[-52:-4]
    names = ("symbols", "series", "label_indices", "label_table", "postings", "postings_table")
    return {n: int.from_bytes(data[i * 8 : i * 8 + 8], "big") for i, n in enumerate(names)}


def _segment(block: Path) -> Path:
    return block / "chunks" / "000001"


def _flip_series_entry(block: Path) -> None:
    first = -(-toc(block / "index")["series"] // 16) * 16  # entries are aligned
    flip(block / "index", first + 8)


def _flip_symbols(block: Path) -> None:
    flip(block / "index", toc(block / "index")["symbols"] + 12)


def _empty(path: Path) -> None:
    _write(path, b"")


def _half_copied(block: Path) -> None:
    """Leave what an interrupted copy would: chunks, a truncated index, and nothing else."""
    cut(block / "index", (block / "index").stat().st_size // 2)
    (block / "tombstones").unlink()
    (block / "meta.json").unlink()


def _encode_meta(block: Path, encoding: str) -> None:
    path = block / "meta.json"
    _write(path, path.read_text().encode(encoding))


def _write(path: Path, data: bytes) -> None:
    # Never in place: the file may have other hard links.
    path.unlink()
    path.write_bytes(data)


PREVENTS_START: Mapping[str, Damage] = {
    "index missing": lambda b: (b / "index").unlink(),
    "index truncated": lambda b: cut(b / "index", 1000),
    "index empty": lambda b: _empty(b / "index"),
    "TOC bit flip": lambda b: flip(b / "index", -20),
    "symbols bit flip": _flip_symbols,
    "chunks missing": lambda b: shutil.rmtree(b / "chunks"),
    "segment magic wrong": lambda b: flip(_segment(b), 0),
    "segment empty": lambda b: _empty(_segment(b)),
    "tombstones checksum wrong": lambda b: flip(b / "tombstones", -1),
    "tombstones empty": lambda b: _empty(b / "tombstones"),
}
HIDES_DATA: Mapping[str, Damage] = {
    "meta.json missing": lambda b: (b / "meta.json").unlink(),
    "meta.json empty": lambda b: _empty(b / "meta.json"),
    "meta.json truncated": lambda b: cut(b / "meta.json", 100),
    "meta.json version 3": lambda b: change_meta(b, version=3),
    "meta.json with a byte order mark": lambda b: _encode_meta(b, "utf-8-sig"),
    "meta.json in UTF-16": lambda b: _encode_meta(b, "utf-16"),
    "half copied": _half_copied,
}
FAILS_QUERIES: Mapping[str, Damage] = {
    "series entry bit flip": _flip_series_entry,
    "chunk bit flip": lambda b: flip(_segment(b), 100),
    "segment truncated": lambda b: cut(_segment(b), _segment(b).stat().st_size // 2),
    "segment missing": lambda b: _segment(b).unlink(),
}
BREAKS_SNAPSHOTS: Mapping[str, Damage] = {
    "tombstones missing": lambda b: (b / "tombstones").unlink(),
}
