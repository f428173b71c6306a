"""The files of the head as they are found, and the steps that repair them. Pure."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from prometheus_backup.tsdb.faults import Effect
from prometheus_backup.tsdb.head_chunks import ChunkFileReport
from prometheus_backup.tsdb.wal import Damage, SegmentReport

WAL, WBL, CHUNKS_HEAD = "wal", "wbl", "chunks_head"
HEAD_FOLDERS = (WAL, WBL, CHUNKS_HEAD)
CHECKPOINT = "checkpoint."
_NUMBER = re.compile(r"[+-]?[0-9]{1,19}")
_LARGEST = 2**63 - 1


class Action(StrEnum):
    """One step of a repair; all of them are safe to repeat."""

    MOVE_AWAY = "move-away"
    CREATE = "create"
    """Create an empty file."""
    CREATE_FOLDER = "create-folder"
    RENAME = "rename"
    MEND = "mend"
    """Replace a segment with a copy without its damaged parts; keep it in the quarantine."""


@dataclass(frozen=True, slots=True)
class HeadStep:
    """A step of a repair. `path` is relative to the data directory, `new_name` to its folder."""

    action: Action
    path: str
    new_name: str = ""
    damages: tuple[Damage, ...] = ()


@dataclass(frozen=True, slots=True)
class HeadFault:
    """A fault of the head: `lost` says which samples stay missing, empty if none do."""

    path: str
    effect: Effect
    detail: str
    remedy: str
    lost: str = ""
    steps: tuple[HeadStep, ...] = ()


@dataclass(frozen=True, slots=True)
class Entry:
    """An entry of a folder. `header` is the first bytes of a file in `chunks_head`."""

    is_file: bool
    is_folder: bool = False
    size: int = 0
    header: bytes = b""


Entries = Mapping[str, Entry]


@dataclass(frozen=True, slots=True)
class HeadFiles:
    """The files of the head by their folder. `checkpoints` are the contents of each checkpoint.

    `no_folders` are names of head folders that are no directories; `links` are symbolic links.
    `segments` is what is in the segments that Prometheus reads, by their path, `chunk_files` what
    is in the files of `chunks_head`, by name, and `unread` why files could not be read.
    """

    folders: Mapping[str, Entries] = field(default_factory=dict)
    checkpoints: Mapping[str, Entries] = field(default_factory=dict)
    no_folders: frozenset[str] = frozenset()
    links: frozenset[str] = frozenset()
    segments: Mapping[str, SegmentReport] = field(default_factory=dict)
    chunk_files: Mapping[str, ChunkFileReport] = field(default_factory=dict)
    unread: Mapping[str, str] = field(default_factory=dict)


def number(name: str) -> int | None:
    """Return the number that Go's strconv.Atoi reads from a name, None if it reads none."""
    value = int(name) if _NUMBER.fullmatch(name) else None
    return value if value is not None and abs(value) <= _LARGEST else None


def newest_checkpoint(names: Iterable[str]) -> str | None:
    """Return the name of the only checkpoint that Prometheus reads, None if there is none."""
    found = [(n, name) for name in names if (n := checkpoint_number(name)) is not None]
    return max(found)[1] if found else None


def checkpoint_number(name: str) -> int | None:
    """Return the number of a checkpoint, None if it is none."""
    return number(name.removeprefix(CHECKPOINT)) if name.startswith(CHECKPOINT) else None
