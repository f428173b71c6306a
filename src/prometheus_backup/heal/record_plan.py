"""Decide what to do about damaged records in the segments of WAL, WBL and checkpoint. Pure.

At a damaged record, Prometheus keeps what is before it and deletes everything after it, all newer
segments included (tsdb/wlog/wlog.go Repair). If the record is in a checkpoint, it deletes all
segments and does not start (tsdb/db.go open). Measured with 2.42 and 3.5. What a crash leaves at
the end of the newest segment is normal.
"""

from collections.abc import Collection, Iterator, Sequence

from prometheus_backup.heal.head_files import (
    WAL,
    WBL,
    Action,
    Entries,
    HeadFault,
    HeadFiles,
    HeadStep,
    checkpoint_number,
    newest_checkpoint,
    number,
)
from prometheus_backup.model import counted, size
from prometheus_backup.tsdb.faults import Effect
from prometheus_backup.tsdb.wal import Damage, SegmentReport

_Segments = Sequence[tuple[str, SegmentReport]]


def read_segments(files: HeadFiles) -> tuple[str, ...]:
    """Return the paths of the segments that Prometheus reads when it starts, in this order."""
    return tuple(path for log in _logs(files) for path in log)


def record_faults(files: HeadFiles, moved: Collection[str]) -> Iterator[HeadFault]:
    """Yield a fault for each segment with damaged records, unless other faults move it away."""
    usable = files.segments.keys() - moved
    checkpoint, wal, wbl = (
        [(path, files.segments[path]) for path in log if path in usable] for log in _logs(files)
    )
    yield from _checkpoint_faults(checkpoint, sum(report.size for _, report in wal))
    yield from _log_faults(wal)
    yield from _log_faults(wbl)
    for path, why in files.unread.items():
        remedy = "leave it: copy the data directory to a sound disk"
        yield HeadFault(path, Effect.UNKNOWN, f"it cannot be read: {why}", remedy)


def _logs(files: HeadFiles) -> tuple[list[str], list[str], list[str]]:
    """Return the paths of the segments of the newest checkpoint, of the WAL, and of the WBL."""
    entries = files.folders.get(WAL, {})
    newest = newest_checkpoint(name for name in entries if entries[name].is_folder) or ""
    first = checkpoint_number(newest)
    return (
        _numbered(f"{WAL}/{newest}", files.checkpoints.get(newest, {})),
        _numbered(WAL, entries, first=0 if first is None else first + 1),
        _numbered(WBL, files.folders.get(WBL, {})),
    )


def _numbered(folder: str, entries: Entries, *, first: int = 0) -> list[str]:
    files = (name for name in entries if entries[name].is_file)
    found = sorted((n, name) for name in files if (n := number(name)) is not None and n >= first)
    return [f"{folder}/{name}" for _, name in found]


def _checkpoint_faults(segments: _Segments, rest: int) -> Iterator[HeadFault]:
    """Yield the faults of the checkpoint; `rest` is the size of the segments after it."""
    for index, (path, report) in enumerate(segments):
        damages = report.damages or _only_zeros(report, segments[index + 1 :])
        if any(damage.stops for damage in damages):
            result = (
                "Prometheus does not start, and deletes all segments after the checkpoint when it "
                f"tries: about {size(rest)}"
            )
            yield _fault(path, report, damages, Effect.STOPS_START, result)
        elif damages:
            yield _fault(path, report, damages)


def _log_faults(segments: _Segments) -> Iterator[HeadFault]:
    stopped = False
    for index, (path, report) in enumerate(segments):
        rest = segments[index + 1 :]
        newest = not any(later.sound_until for _, later in rest)
        damages = report.within() if newest else report.damages or _only_zeros(report, rest)
        stop = next((damage for damage in damages if damage.stops), None)
        if stop and not stopped:
            stopped = True
            result = _deletion(report, stop, [later for _, later in rest])
            yield _fault(path, report, damages, Effect.HIDES_DATA, result)
        elif damages:
            yield _fault(path, report, damages)


def _only_zeros(report: SegmentReport, rest: _Segments) -> tuple[Damage, ...]:
    """Return the damage of a segment that has only zeros although records follow."""
    if report.sound_until or not report.size or not any(r.sound_until for _, r in rest):
        return ()
    return (Damage(0, report.size, "it has only zeros", stops=False),)


def _deletion(report: SegmentReport, stop: Damage, rest: Sequence[SegmentReport]) -> str:
    """Return what Prometheus does about the first damage of a log."""
    after = max(0, report.sound_until - stop.stop) + sum(later.size for later in rest)
    segments = sum(later.size > 0 for later in rest)
    what = counted(segments, "segment") if segments else "the rest of the segment"
    return (
        "Prometheus repairs this by itself, but deletes everything after it: "
        f"{what}, about {size(after)}"
    )


def _fault(
    path: str,
    report: SegmentReport,
    damages: Sequence[Damage],
    effect: Effect = Effect.HIDES_DATA,
    result: str = "",
) -> HeadFault:
    first = damages[0]
    more = f", and {counted(len(damages) - 1, 'other damage')}" if len(damages) > 1 else ""
    detail = f"at {first.start:,}: {first.cause}{more}{result and f'. {result}'}"
    lost = sum(damage.stop - damage.start for damage in damages if not damage.mended)
    mend = (HeadStep(Action.MEND, path, damages=tuple(damages)),)
    if not lost:
        return HeadFault(path, effect, detail, "turn the flipped bit back", "", mend)
    text = f"samples of about {size(lost)}, and of series that began there"
    if report.sound_until:
        remedy = "take the damaged part out, and keep what is before and after it"
        return HeadFault(path, effect, detail, remedy, text, mend)
    steps = (HeadStep(Action.MOVE_AWAY, path), HeadStep(Action.CREATE, path))
    return HeadFault(path, effect, detail, "move it away and create an empty segment", text, steps)
