"""Check the blocks of a data directory: which are sound, and what is wrong with the others."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prometheus_backup.errors import SnapshotUnusable
from prometheus_backup.events import Listener
from prometheus_backup.heal.plan import BadBlock, worst
from prometheus_backup.heal.rebuild import BAD_META, BAD_TOMBSTONES
from prometheus_backup.model import instant_from_ms
from prometheus_backup.repository.layout import is_ulid
from prometheus_backup.restore.target import in_order, read_target_block
from prometheus_backup.restore.target_blocks import TargetBlock
from prometheus_backup.spans import Span
from prometheus_backup.tsdb.block import read_block, read_meta
from prometheus_backup.tsdb.faults import FaultKind
from prometheus_backup.tsdb.parallel import checked_blocks
from prometheus_backup.tsdb.verification import BlockReport, check_opening

_K = FaultKind
_OLD_VERSION = 2


@dataclass(frozen=True, slots=True)
class Scan:
    """The blocks of a data directory. `reports` are the check results of bad blocks, by name."""

    sound: tuple[TargetBlock, ...]
    bad: tuple[BadBlock, ...]
    reports: Mapping[str, BlockReport]


def scan(data_dir: Path, *, quick: bool, processes: int, listener: Listener) -> Scan:
    """Check every block, several in parallel. Blocks that disappear during the check are left out.

    A `quick` scan checks only what Prometheus reads to open a block; blocks with faults there are
    then checked completely. Raises OSError if the directory cannot be read.
    """
    folders = block_folders(data_dir)
    openable = [f for f in folders if quick and not check_opening(f).counts]
    sound, bad, reports = [*openable], [], {}
    unchecked = [f for f in folders if f not in openable]
    with checked_blocks(unchecked, step="scan", processes=processes, listener=listener) as found:
        for report in found:
            folder = report.folder
            if not folder.exists():
                continue  # compacted or deleted by retention during the check
            if not report.counts:
                sound.append(folder)
                continue
            reports[folder.name] = report
            bad.append(describe_bad_block(report, read_meta(folder)))
    return Scan(tuple(b for folder in sound for b in _sound_block(folder)), tuple(bad), reports)


def _sound_block(folder: Path) -> tuple[TargetBlock, ...]:
    """Return a sound block, or nothing if it was deleted during the scan."""
    try:
        return (read_target_block(folder, read_block(folder)),)
    except SnapshotUnusable:
        if folder.exists():
            raise
        return ()


def block_folders(data_dir: Path) -> list[Path]:
    """Return the directories that Prometheus regards as blocks, by their names alone."""
    # No links or files (tsdb/db.go isBlockDir).
    found = (p for p in data_dir.iterdir() if is_ulid(p.name))
    return sorted(p for p in found if p.is_dir() and not p.is_symlink())


def describe_bad_block(report: BlockReport, meta: Mapping[str, Any] | None) -> BadBlock:
    """Describe a block with faults; `meta` is its meta.json, None if it cannot be read."""
    kinds = frozenset(report.counts)
    misnamed = kinds == {_K.META_ULID}
    trusted = meta if meta is not None and (misnamed or _K.META_ULID not in kinds) else None
    span = _span(report, trusted)
    deletions = _has_deletions(report, trusted)
    old = trusted is not None and trusted.get("version") == _OLD_VERSION
    lossless_rebuild = kinds <= BAD_TOMBSTONES | ({_K.META_VERSION} if old else set())
    return BadBlock(
        name=report.folder.name,
        effect=worst({k.effect for k in kinds}),
        ulid=str(trusted["ulid"]) if trusted else "",
        span=span,
        sources=_sources(trusted),
        deletions=deletions,
        in_order=trusted is not None and in_order(trusted),
        lossless_rebuild=lossless_rebuild and not deletions,
        rebuildable=kinds <= BAD_META | BAD_TOMBSTONES and report.min_time_ms is not None,
        # If only the tombstones are missing, Prometheus already serves the deleted series.
        loses_deletions=deletions
        and bool(kinds & BAD_TOMBSTONES)
        and kinds != {_K.TOMBSTONES_MISSING},
        misnamed=misnamed,
    )


def _span(report: BlockReport, meta: Mapping[str, Any] | None) -> Span | None:
    """Return the time range of a block from its meta.json, else from its samples."""
    try:
        begin, end = (meta or {})["minTime"], (meta or {})["maxTime"]
        return Span(instant_from_ms(int(begin)), instant_from_ms(int(end)))
    except (KeyError, TypeError, ValueError):
        pass
    if report.min_time_ms is None or report.max_time_ms is None:
        return None
    return Span(instant_from_ms(report.min_time_ms), instant_from_ms(report.max_time_ms + 1))


def _sources(meta: Mapping[str, Any] | None) -> tuple[str, ...]:
    compaction = (meta or {}).get("compaction")
    sources = compaction.get("sources") if isinstance(compaction, dict) else None
    return tuple(map(str, sources)) if isinstance(sources, list) else ()


def _has_deletions(report: BlockReport, meta: Mapping[str, Any] | None) -> bool:
    """Return whether series were, or may have been, deleted from a block."""
    if not BAD_TOMBSTONES & report.counts.keys():
        return report.tombstones > 0
    stats = (meta or {}).get("stats")
    return not isinstance(stats, dict) or bool(stats.get("numTombstones", 0))
