"""Check a block whole: every checksum, every reference, and that it holds what meta.json says.

`check_block` reads in windows: its memory does not depend on the block's size.
"""

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from prometheus_backup.model import Verdict
from prometheus_backup.repository.layout import is_ulid
from prometheus_backup.tsdb import index, tombstones
from prometheus_backup.tsdb.block import META
from prometheus_backup.tsdb.chunks import ENCODINGS, HISTOGRAMS, ChunkWalk
from prometheus_backup.tsdb.entries import SeriesBatch
from prometheus_backup.tsdb.faults import Fault, FaultKind, FaultLog
from prometheus_backup.tsdb.index import Index, Toc
from prometheus_backup.tsdb.meta import Meta, check_meta
from prometheus_backup.tsdb.postings import Postings
from prometheus_backup.tsdb.reading import ReadFile, Watch, ignore_bytes
from prometheus_backup.tsdb.series import SeriesWalk
from prometheus_backup.tsdb.tombstones import check_tombstones

KEPT = 100
"""Faults of a block that are kept whole, unless told otherwise."""
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class BlockReport:
    """What was found in a block. Sizes in bytes; `faults` are the first, `counts` are of all.

    `ulid` is that of the directory, or of meta.json where the directory has another kind of name.
    `chunks` and `samples` are of sound chunks, by encoding.
    """

    ulid: str
    folder: Path
    faults: tuple[Fault, ...]
    counts: Mapping[FaultKind, int]
    series: int
    chunks: Mapping[str, int]
    samples: Mapping[str, int]
    tombstones: int
    min_time_ms: int | None
    max_time_ms: int | None
    index_bytes: int
    chunk_bytes: int

    @property
    def total_chunks(self) -> int:
        """Return how many sound chunks there are."""
        return sum(self.chunks.values())

    @property
    def total_samples(self) -> int:
        """Return how many samples the sound chunks say that they hold."""
        return sum(self.samples.values())

    @property
    def total_faults(self) -> int:
        """Return how many faults there are, with those that were not kept."""
        return sum(self.counts.values())

    @property
    def not_decoded(self) -> tuple[str, ...]:
        """Return the encodings that this program does not know; the checksums are right."""
        return tuple(sorted(set(self.chunks) - set(ENCODINGS.values())))

    @property
    def verdict(self) -> Verdict:
        """Return PASS, FAIL, or INCONCLUSIVE where all that is wrong is that it cannot be read."""
        if not self.counts:
            return Verdict.PASS
        only_unreadable = set(self.counts) == {FaultKind.UNREADABLE}
        return Verdict.INCONCLUSIVE if only_unreadable else Verdict.FAIL


def check_block(folder: Path, *, keep: int = KEPT, watch: Watch = ignore_bytes) -> BlockReport:
    """Check one block. Whatever is wrong with it is in the report; nothing is raised.

    `keep` faults are kept whole; `watch` is called with the bytes of each read.
    """
    return _check(folder, keep, watch, _Look.at_index)


def check_opening(folder: Path, *, keep: int = KEPT) -> BlockReport:
    """Check only what Prometheus reads when it opens a block: no series and no chunk. Fast."""
    return _check(folder, keep, ignore_bytes, _Look.at_opening)


def check_mutable(folder: Path, *, keep: int = KEPT) -> BlockReport:
    """Check only what changes under a block's name: meta.json and tombstones. Small, so fast."""
    return _check(folder, keep, ignore_bytes, None)


def _check(
    folder: Path, keep: int, watch: Watch, at_index: "Callable[[_Look], None] | None"
) -> BlockReport:
    log = FaultLog(keep)
    meta = _guarded(log, META, lambda: check_meta(folder, log))
    look = _Look(folder, log, meta, watch)
    if at_index is not None:
        _guarded(log, index.FILE, lambda: at_index(look))
    deleted = _guarded(log, tombstones.FILE, lambda: check_tombstones(folder, log))
    look.compare(deleted)
    return look.report(deleted or 0)


def _guarded(log: FaultLog, file: str, look: Callable[[], _T]) -> _T | None:
    try:
        return look()
    except OSError as error:
        log.add(FaultKind.UNREADABLE, file, f"cannot read {error.filename}: {error.strerror}")
        return None


class _Look:
    """One block while it is looked at."""

    def __init__(self, folder: Path, log: FaultLog, meta: Meta | None, watch: Watch) -> None:
        self._folder = folder
        self._log = log
        self._meta = meta
        self._watch = watch
        self._series = self._references = 0
        self._chunks: Counter[int] = Counter()
        self._samples: Counter[int] = Counter()
        self._min_time: int | None = None
        self._max_time: int | None = None
        self._index_bytes = self._chunk_bytes = 0
        self._complete = False
        """Whether all series and chunks could be read, so that counts mean something."""

    def at_index(self) -> None:
        """Check the index, and the chunks that it leads to. Raises OSError."""
        self._at_index(self._whole)

    def at_opening(self) -> None:
        """Check what an index and segments are opened by. Raises OSError."""
        self._at_index(self._headers)

    def _at_index(self, go_on: "Callable[[Index, Toc, Postings], None]") -> None:
        try:
            file = ReadFile(self._folder / index.FILE, watch=self._watch)
        except FileNotFoundError:
            self._log.add(FaultKind.INDEX_MISSING, index.FILE, "the file is not there")
            return
        with file:
            self._index_bytes = file.size
            opened = Index(file, self._log)
            toc = opened.read_toc()
            if toc is None or not opened.check_symbols(toc):
                return
            postings = Postings(opened, toc)
            if postings.check_table():
                go_on(opened, toc, postings)

    def _whole(self, opened: Index, toc: Toc, postings: Postings) -> None:
        walk = SeriesWalk(opened, toc, postings.all_series())
        with ChunkWalk(self._folder, self._log, walk.text, watch=self._watch) as reader:
            self._side_by_side(walk, reader, postings)
            self._chunks, self._samples = reader.chunks, reader.samples
            self._chunk_bytes = reader.bytes_seen
            self._complete = not walk.corrupt and not reader.unread
        postings.check_lists(complete=not walk.corrupt)
        postings.check_label_indices()

    def _headers(self, opened: Index, toc: Toc, postings: Postings) -> None:
        del opened, toc, postings  # which have been looked at by now
        with ChunkWalk(self._folder, self._log, lambda _: "", watch=self._watch) as reader:
            reader.open_each()

    def _side_by_side(self, walk: SeriesWalk, reader: ChunkWalk, postings: Postings) -> None:
        for batch in walk.batches():
            self._series += len(batch.offsets)
            self._references += len(batch.references)
            postings.expect(batch.labels, batch.offsets)
            if batch.references:
                self._note_times(batch, walk)
            reader.check(batch, gaps=not walk.corrupt)
        reader.end(gaps=not walk.corrupt)

    def _note_times(self, batch: SeriesBatch, walk: SeriesWalk) -> None:
        first, last = min(batch.min_times), max(batch.max_times)
        if self._min_time is None or first < self._min_time:
            self._min_time = first
        if self._max_time is None or last > self._max_time:
            self._max_time = last
        meta = self._meta
        if meta is None or (first >= meta.min_time_ms and last < meta.max_time_ms):
            return
        for at, times in enumerate(zip(batch.min_times, batch.max_times, strict=True)):
            if times[0] < meta.min_time_ms or times[1] >= meta.max_time_ms:
                offset = batch.series_of(at)
                detail = (
                    f"a chunk of {times[0]} to {times[1]} lies outside of its block, "
                    f"{meta.min_time_ms} to {meta.max_time_ms}"
                )
                self._log.add(
                    FaultKind.META_TIMES,
                    index.FILE,
                    detail,
                    offset=offset,
                    series=walk.text(offset),
                )

    def compare(self, deleted: int | None) -> None:
        """Compare what was counted with what meta.json says, where all could be read."""
        if self._meta is None:
            return
        stats = self._meta.stats
        if self._complete:
            histograms = sum(n for e, n in self._samples.items() if e in HISTOGRAMS)
            samples = sum(self._samples.values())
            self._count("numSeries", "series", self._series, stats)
            self._count("numChunks", "chunks", self._references, stats)
            if set(self._chunks) <= set(ENCODINGS):
                self._count("numSamples", "samples", samples, stats)
                if "numFloatSamples" in stats or "numHistogramSamples" in stats:
                    self._count("numHistogramSamples", "histogram samples", histograms, stats)
                    self._count("numFloatSamples", "float samples", samples - histograms, stats)
        if deleted is not None:
            self._count("numTombstones", "tombstones", deleted, stats)

    def _count(self, name: str, thing: str, found: int, stats: Mapping[str, int]) -> None:
        said = stats.get(name, 0)
        if said != found:
            detail = f"it says {said:,} {thing}, the block holds {found:,}"
            self._log.add(FaultKind.META_COUNTS, META, detail)

    def report(self, deleted: int) -> BlockReport:
        """Return what was found."""
        name = self._folder.name
        return BlockReport(
            ulid=self._meta.ulid if self._meta and not is_ulid(name) else name,
            folder=self._folder,
            faults=tuple(self._log.kept),
            counts=dict(self._log.counts),
            series=self._series,
            chunks={_encoding(e): n for e, n in sorted(self._chunks.items()) if n},
            samples={_encoding(e): n for e, n in sorted(self._samples.items()) if n},
            tombstones=deleted,
            min_time_ms=self._min_time,
            max_time_ms=self._max_time,
            index_bytes=self._index_bytes,
            chunk_bytes=self._chunk_bytes,
        )


def _encoding(number: int) -> str:
    return ENCODINGS.get(number, f"encoding-{number}")
