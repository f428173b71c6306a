"""Decide what is wrong with the files of the head, and how to repair them. Pure.

The head is `wal/`, `wbl/` and `chunks_head/`: samples that are in no block yet. Prometheus does not
start on a wrong set of files (tsdb/wlog/wlog.go listSegments, checkpoint.go listCheckpoints,
tsdb/head.go Init, tsdb/chunks/head_chunks.go openMMapFiles; measured with 2.42 and 3.5).
`record_plan.py` decides about the records in them.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise

from prometheus_backup.heal.head_files import (
    CHECKPOINT,
    CHUNKS_HEAD,
    WAL,
    WBL,
    Action,
    Entries,
    Entry,
    HeadFault,
    HeadFiles,
    HeadStep,
    checkpoint_number,
    newest_checkpoint,
    number,
)
from prometheus_backup.heal.record_plan import record_faults
from prometheus_backup.model import counted
from prometheus_backup.tsdb.faults import Effect
from prometheus_backup.tsdb.head_chunks import HEADER_SIZE, ChunkFileReport

_MAGIC, _CHUNK_VERSION = b"\x01\x30\xbc\x91", 1
_MAX_FILLED = 1000
"""The most missing segments that are replaced with empty files."""
_READS_WAL = "it deletes this file and all after it when it starts, and reads the WAL instead"
_HIDES = "Prometheus ignores the chunks after them, and what the WAL has of their time"


def plan_head(files: HeadFiles) -> tuple[HeadFault, ...]:
    """Return the faults of the head with their repairs."""
    faults = [_move(name, "it is not a directory") for name in sorted(files.no_folders)]
    for name in (WAL, WBL):
        log = _Log(name, files.folders.get(name, {}))
        faults += log.faults
        if name == WAL:
            faults += _checkpoint_faults(log, files)
    steps = (step for fault in faults for step in fault.steps)
    moved = {step.path for step in steps if step.action is Action.MOVE_AWAY}
    faults = [*record_faults(files, moved), *faults]  # before segments and checkpoints are renamed
    chunks = _chunk_faults(files)
    if any(fault.lost for fault in faults):
        chunks = [replace(f, lost="samples that the WAL has lost, too") for f in chunks]
    return tuple(
        _left(f, "the directory is a link") if f.path.split("/")[0] in files.links else f
        for f in (*faults, *chunks)
    )


def left_while_running(faults: Iterable[HeadFault]) -> tuple[HeadFault, ...]:
    """Return the faults without their repairs, which would harm a Prometheus that runs."""
    return tuple(_while_running(fault) for fault in faults)


def _while_running(fault: HeadFault) -> HeadFault:
    if fault.effect is Effect.NONE:
        effect, remedy = Effect.FAILS_QUERIES, f"restart Prometheus: {_READS_WAL}"
        return replace(fault, effect=effect, remedy=remedy)
    if any(step.action is Action.MEND for step in fault.steps):
        return _left(
            fault,
            "Prometheus still has these samples in memory. Make a backup, stop it, and run this "
            "command again",
        )
    return _left(fault, "stop Prometheus, then run this command again")


class _Log:
    """The segments of a write-ahead log, by number, after the repairs of `faults`."""

    def __init__(self, folder: str, entries: Entries, *, any_name: bool = False) -> None:
        self.folder = folder
        self.faults: list[HeadFault] = []
        self._any_name = any_name
        self._sizes: dict[int, int] = {}
        self._read_names(entries)
        self._close_gaps()

    @property
    def first(self) -> int | None:
        """Return the number of the first segment, None if there are no segments."""
        return min(self._sizes, default=None)

    @property
    def last(self) -> int | None:
        """Return the number of the last segment, None if there are no segments."""
        return max(self._sizes, default=None)

    def _read_names(self, entries: Entries) -> None:
        numbered = {n: i for n in sorted(entries) if (i := number(n)) is not None}
        good_first = sorted(numbered, key=lambda name: name != _segment(numbered[name]))
        for name in good_first:
            path, entry, index = f"{self.folder}/{name}", entries[name], numbered[name]
            good = _segment(index)
            if index in self._sizes:
                detail = f"Prometheus takes it for segment {index}, which {good} is"
                lost = "its samples" if entry.is_file else ""
                self.faults.append(_move(path, detail, lost=lost))
                continue
            self._sizes[index] = entry.size
            if not entry.is_file:
                self.faults.append(_replaced(path, index, f"{self.folder}/{good}"))
            elif name != good and not self._any_name:
                self.faults.append(_rename(path, f"segment {index} is named {good}", good))

    def _close_gaps(self) -> None:
        runs = list(_runs(sorted(self._sizes)))
        gaps = [(a[-1] + 1, b[0] - 1) for a, b in pairwise(runs)]
        if not gaps:
            return
        detail = f"segments are not sequential: {_shown(gaps)}"
        if sum(last - first + 1 for first, last in gaps) <= _MAX_FILLED:
            missing = [n for first, last in gaps for n in range(first, last + 1)]
            steps = [HeadStep(Action.CREATE, f"{self.folder}/{_segment(n)}") for n in missing]
            remedy, self._sizes = "create empty segments", self._sizes | dict.fromkeys(missing, 0)
            lost = "samples of the missing segments, and of series that began there"
        else:
            kept = max(runs, key=lambda run: sum(self._sizes[n] for n in run))
            moved = [n for n in self._sizes if n not in kept]
            steps = [HeadStep(Action.MOVE_AWAY, f"{self.folder}/{_segment(n)}") for n in moved]
            remedy = f"move {counted(len(moved), 'segment')} away"
            lost = f"samples of {_shown((r[0], r[-1]) for r in runs if r != kept)}"
            self._sizes = {n: self._sizes[n] for n in kept}
        self.faults.append(
            HeadFault(self.folder, Effect.STOPS_START, detail, remedy, lost, tuple(steps))
        )


def _checkpoint_faults(log: _Log, files: HeadFiles) -> Iterator[HeadFault]:
    """Yield the faults of the checkpoints, and of the segments that must follow the newest one."""
    entries = files.folders.get(WAL, {})
    for name in sorted(entries):
        if name.startswith(CHECKPOINT) and not entries[name].is_folder:
            yield _move(f"{WAL}/{name}", "a checkpoint must be a directory", lost="its samples")
    folders = [name for name in entries if entries[name].is_folder]
    newest = newest_checkpoint(folders)
    if newest is None:
        if log.first:
            before = f"{CHECKPOINT}{_segment(log.first - 1)}"
            yield HeadFault(
                WAL,
                Effect.STOPS_START,
                f"there is no checkpoint, and {_shown([(0, log.first - 1)])} missing",
                f"create an empty {before}",
                "older samples, and those of series that began before",
                (HeadStep(Action.CREATE_FOLDER, f"{WAL}/{before}"),),
            )
        return
    yield from _Log(f"{WAL}/{newest}", files.checkpoints.get(newest, {}), any_name=True).faults
    yield from _after_checkpoint(log, newest, folders)


def _after_checkpoint(log: _Log, newest: str, folders: Sequence[str]) -> Iterator[HeadFault]:
    index = checkpoint_number(newest) or 0
    if log.first is None or log.last is None:
        yield HeadFault(
            WAL,
            Effect.HIDES_DATA,
            f"no segment follows {newest}: new samples would be ignored at the next start",
            "create an empty segment",
            f"samples that are newer than {newest}",
            (HeadStep(Action.CREATE, f"{WAL}/{_segment(max(index, 0))}"),),
        )
    elif log.first > index + 1:
        yield _renamed_checkpoint(
            newest,
            log.first - 1,
            Effect.STOPS_START,
            f"{_shown([(index + 1, log.first - 1)])} missing after {newest}",
        )
    elif log.last < index:
        others = [n for n in folders if (checkpoint_number(n) or 0) >= log.last and n != newest]
        others = [n for n in others if checkpoint_number(n) is not None]
        moves = tuple(HeadStep(Action.MOVE_AWAY, f"{WAL}/{name}") for name in others)
        fault = _renamed_checkpoint(
            newest,
            log.last,
            Effect.HIDES_DATA,
            f"segments end before {newest}: new samples would be ignored at the next start",
        )
        yield replace(fault, steps=(*moves, *fault.steps))


def _renamed_checkpoint(newest: str, index: int, effect: Effect, detail: str) -> HeadFault:
    new = f"{CHECKPOINT}{_segment(index)}"
    step = HeadStep(Action.RENAME, f"{WAL}/{newest}", new)
    lost = "samples of the missing segments, and of series that began there"
    return HeadFault(WAL, effect, detail, f"rename {newest} to {new}", lost, (step,))


def _chunk_faults(files: HeadFiles) -> list[HeadFault]:
    """Return the faults of `chunks_head`. The repair of one moves its file and all after it away.

    Prometheus reads their samples from the WAL again. If only newer files stayed, it would ignore
    what the WAL has from before them.
    """
    entries = files.folders.get(CHUNKS_HEAD, {})
    names = sorted(name for name in entries if name.isdecimal())
    found = {n: name for name in names if (n := number(name)) is not None}
    if found and (last := max(found)) > 0 and _is_unused(entries[found[last]]):
        del found[last]  # which Prometheus deletes itself
    numbers = sorted(found)
    reports = {n: files.chunk_files.get(found[n], ChunkFileReport(0)) for n in numbers}
    causes: dict[int, tuple[Effect, str]] = {}
    for before, index in zip((None, *numbers), numbers, strict=False):
        cause = _chunk_file_fault(entries[found[index]])
        if before is not None and index != before + 1:
            cause = f"unsequential head chunk files: {_shown([(before + 1, index - 1)])} missing"
        newer = (reports[n] for n in numbers if n > index)
        if cause:
            causes[index] = (Effect.STOPS_START, cause)
        elif reports[index].hides and any(report.chunks for report in newer):
            causes[index] = (Effect.HIDES_DATA, f"{_damage(reports[index])}: {_HIDES}")
    if not causes:
        return _deleted_chunk_files(found, reports)
    index = min(causes)
    moved = [found[n] for n in numbers if n >= index]
    steps = (HeadStep(Action.MOVE_AWAY, f"{CHUNKS_HEAD}/{name}") for name in moved)
    remedy = f"move {counted(len(moved), 'file')} away; Prometheus reads the WAL instead"
    effects = [effect for effect, _ in causes.values()]
    effect = Effect.STOPS_START if Effect.STOPS_START in effects else Effect.HIDES_DATA
    path = f"{CHUNKS_HEAD}/{found[index]}"
    return [HeadFault(path, effect, causes[index][1], remedy, "", tuple(steps))]


def _deleted_chunk_files(
    found: Mapping[int, str], reports: Mapping[int, ChunkFileReport]
) -> list[HeadFault]:
    """Return the file from which on Prometheus deletes all itself, when it starts."""
    for index, report in reports.items():
        if report.cause and not report.hides:
            path, remedy = f"{CHUNKS_HEAD}/{found[index]}", f"nothing to do: {_READS_WAL}"
            return [HeadFault(path, Effect.NONE, _damage(report), remedy)]
    return []


def _damage(report: ChunkFileReport) -> str:
    return f"at {report.at:,}: {report.cause}"


def _is_unused(entry: Entry) -> bool:
    return entry.is_file and (entry.size < len(_MAGIC) or entry.header[:4] == bytes(4))


def _chunk_file_fault(entry: Entry) -> str:
    if not entry.is_file:
        return "it is not a file"
    if entry.size < HEADER_SIZE:
        return "the file is shorter than its header"
    if entry.header[:4] != _MAGIC:
        return "its first bytes are not those of a head chunk file"
    version = entry.header[4]
    return "" if version == _CHUNK_VERSION else f"its format version is {version}"


def _segment(index: int) -> str:
    return f"{index:08d}"


def _runs(numbers: Sequence[int]) -> Iterator[list[int]]:
    run: list[int] = []
    for n in numbers:
        if run and n != run[-1] + 1:
            yield run
            run = []
        run.append(n)
    if run:
        yield run


def _shown(spans: Iterable[tuple[int, int]]) -> str:
    """Return the names of segments, such as `00000007 to 00000009`."""
    return ", ".join(_segment(a) if a == b else f"{_segment(a)} to {_segment(b)}" for a, b in spans)


def _move(path: str, detail: str, *, lost: str = "") -> HeadFault:
    steps = (HeadStep(Action.MOVE_AWAY, path),)
    return HeadFault(path, Effect.STOPS_START, detail, "move it away", lost, steps)


def _replaced(path: str, index: int, segment: str) -> HeadFault:
    return HeadFault(
        path,
        Effect.HIDES_DATA,
        f"segment {index} is not a file: Prometheus would delete all segments after it",
        "move it away and create an empty segment",
        "samples of this segment, and of series that began there",
        (HeadStep(Action.MOVE_AWAY, path), HeadStep(Action.CREATE, segment)),
    )


def _rename(path: str, detail: str, new_name: str) -> HeadFault:
    steps = (HeadStep(Action.RENAME, path, new_name),)
    return HeadFault(path, Effect.STOPS_START, detail, f"rename it to {new_name}", "", steps)


def _left(fault: HeadFault, why: str) -> HeadFault:
    return replace(fault, remedy=f"leave it: {why}", steps=())
