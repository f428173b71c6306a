"""Check a whole block: every checksum, every reference, and the counts in meta.json.

`check_block` reads in windows: its memory does not depend on the size of the block. Modules that
need NumPy are imported where an index is read: commands that check no block start faster.
"""

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from prometheus_backup.model import Verdict
from prometheus_backup.repository.layout import is_ulid
from prometheus_backup.tsdb import index, tombstones
from prometheus_backup.tsdb.encodings import ENCODINGS, HISTOGRAMS, XOR
from prometheus_backup.tsdb.faults import Fault, FaultKind, FaultLog
from prometheus_backup.tsdb.index import Index, Toc
from prometheus_backup.tsdb.meta import META, Meta, check_meta
from prometheus_backup.tsdb.reading import ReadFile, Watch, ignore_bytes
from prometheus_backup.tsdb.tombstones import check_tombstones

if TYPE_CHECKING:
    from prometheus_backup.tsdb.chunks import ChunkWalk
    from prometheus_backup.tsdb.entries import SeriesBatch
    from prometheus_backup.tsdb.postings import Postings
    from prometheus_backup.tsdb.series import SeriesWalk

KEPT = 100
"""Faults of a block that are reported in full by default; more are only counted."""
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class BlockReport:
    """What was found in a block. Sizes in bytes; `faults` are the first ones, `counts` count all.

    `ulid` is the name of the directory, or taken from meta.json if the name is not a ULID.
    `chunks` and `samples` count sound chunks and their samples, by encoding.
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
        """Return the number of sound chunks."""
        return sum(self.chunks.values())

    @property
    def total_samples(self) -> int:
        """Return the number of samples, according to the headers of the sound chunks."""
        return sum(self.samples.values())

    @property
    def total_faults(self) -> int:
        """Return the number of faults, including those that are only counted."""
        return sum(self.counts.values())

    @property
    def not_decoded(self) -> tuple[str, ...]:
        """Return the encodings that this program does not know. Only checksums were checked."""
        return tuple(sorted(set(self.chunks) - set(ENCODINGS.values())))

    @property
    def verdict(self) -> Verdict:
        """Return PASS, FAIL, or INCONCLUSIVE if the only faults are that files cannot be read."""
        if not self.counts:
            return Verdict.PASS
        only_unreadable = set(self.counts) == {FaultKind.UNREADABLE}
        return Verdict.INCONCLUSIVE if only_unreadable else Verdict.FAIL


def check_block(folder: Path, *, keep: int = KEPT, watch: Watch = ignore_bytes) -> BlockReport:
    """Check one block. Every fault, even a read error, is in the report; nothing is raised.

    `keep` faults are reported in full; `watch` is called with the bytes of each read.
    """
    return _check(folder, keep, watch, _BlockCheck.whole)


def check_opening(folder: Path, *, keep: int = KEPT) -> BlockReport:
    """Check only what Prometheus reads when it opens a block: no series, no chunks. Fast."""
    return _check(folder, keep, ignore_bytes, _BlockCheck.opening)


def check_mutable(folder: Path, *, keep: int = KEPT) -> BlockReport:
    """Check only the files of a block that may change: meta.json and tombstones. Fast."""
    return _check(folder, keep, ignore_bytes, None)


def _check(
    folder: Path, keep: int, watch: Watch, check_index: "Callable[[_BlockCheck], None] | None"
) -> BlockReport:
    log = FaultLog(keep)
    meta = _log_os_errors(log, META, lambda: check_meta(folder, log))
    check = _BlockCheck(folder, log, meta, watch)
    if check_index is not None:
        _log_os_errors(log, index.FILE, lambda: check_index(check))
    deleted = _log_os_errors(log, tombstones.FILE, lambda: check_tombstones(folder, log))
    check.compare_counts(deleted)
    return check.report(deleted or 0)


def _log_os_errors(log: FaultLog, file: str, check: Callable[[], _T]) -> _T | None:
    try:
        return check()
    except OSError as error:
        log.add(FaultKind.UNREADABLE, file, f"cannot read {error.filename}: {error.strerror}")
        return None


class _BlockCheck:
    """The check of one block, with what it has counted so far."""

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
        """Whether all series and chunks could be read, so that the counts can be compared."""

    def whole(self) -> None:
        """Check the index, and the chunks that it refers to. Raises OSError."""
        self._open_index(self._series_and_chunks)

    def opening(self) -> None:
        """Check what Prometheus reads to open the index and the segments. Raises OSError."""
        self._open_index(self._segment_headers)

    def _open_index(self, then: "Callable[[Index, Toc, Postings], None]") -> None:
        from prometheus_backup.tsdb.postings import Postings

        try:
            file = ReadFile(self._folder / index.FILE, watch=self._watch)
        except FileNotFoundError:
            self._log.add(FaultKind.INDEX_MISSING, index.FILE, "the file is missing")
            return
        with file:
            self._index_bytes = file.size
            opened = Index(file, self._log)
            toc = opened.read_toc()
            if toc is None or not opened.check_symbols(toc):
                return
            postings = Postings(opened, toc)
            if postings.check_table():
                then(opened, toc, postings)

    def _series_and_chunks(self, opened: Index, toc: Toc, postings: "Postings") -> None:
        from prometheus_backup.tsdb.chunks import ChunkWalk
        from prometheus_backup.tsdb.series import SeriesWalk

        series = SeriesWalk(opened, toc, postings.all_series())
        with ChunkWalk(self._folder, self._log, series.text, watch=self._watch) as chunks:
            self._read_together(series, chunks, postings)
            self._chunks, self._samples = chunks.chunks, chunks.samples
            self._chunk_bytes = chunks.bytes_seen
            self._complete = not series.corrupt and not chunks.unread
        postings.check_lists(complete=not series.corrupt)
        postings.check_label_indices()

    def _segment_headers(self, opened: Index, toc: Toc, postings: "Postings") -> None:
        from prometheus_backup.tsdb.chunks import ChunkWalk

        del opened, toc, postings  # which are checked by now
        with ChunkWalk(self._folder, self._log, lambda _: "", watch=self._watch) as chunks:
            chunks.open_each()

    def _read_together(
        self, series: "SeriesWalk", chunks: "ChunkWalk", postings: "Postings"
    ) -> None:
        for batch in series.batches():
            self._series += len(batch.offsets)
            self._references += len(batch.references)
            postings.expect(batch.labels, batch.offsets)
            if len(batch.references):
                self._check_times(batch, series)
            chunks.check(batch, gaps=not series.corrupt)
        chunks.end(gaps=not series.corrupt)

    def _check_times(self, batch: "SeriesBatch", series: "SeriesWalk") -> None:
        first, last = int(batch.min_times.min()), int(batch.max_times.max())
        if self._min_time is None or first < self._min_time:
            self._min_time = first
        if self._max_time is None or last > self._max_time:
            self._max_time = last
        meta = self._meta
        if meta is None or (first >= meta.min_time_ms and last < meta.max_time_ms):
            return
        outside = (batch.min_times < meta.min_time_ms) | (batch.max_times >= meta.max_time_ms)
        for at in outside.nonzero()[0].tolist():
            offset = batch.series_of(at)
            detail = (
                f"a chunk from {batch.min_times[at]} to {batch.max_times[at]} is outside of its "
                f"block, {meta.min_time_ms} to {meta.max_time_ms}"
            )
            self._log.add(
                FaultKind.META_TIMES, index.FILE, detail, offset=offset, series=series.text(offset)
            )

    def compare_counts(self, deleted: int | None) -> None:
        """Compare the counts with those in meta.json, if everything could be read."""
        if self._meta is None:
            return
        stats = self._meta.stats
        if self._complete:
            histograms = sum(n for e, n in self._samples.items() if e in HISTOGRAMS)
            samples = sum(self._samples.values())
            self._compare("numSeries", "series", self._series, stats)
            self._compare("numChunks", "chunks", self._references, stats)
            if set(self._chunks) <= set(ENCODINGS):
                self._compare("numSamples", "samples", samples, stats)
                if "numFloatSamples" in stats or "numHistogramSamples" in stats:
                    self._compare("numHistogramSamples", "histogram samples", histograms, stats)
                    # Prometheus 3.11 and 3.12 do not count those of XOR2 (#18739).
                    if stats.get("numFloatSamples", 0) != self._samples[XOR]:
                        floats = samples - histograms
                        self._compare("numFloatSamples", "float samples", floats, stats)
        if deleted is not None:
            self._compare("numTombstones", "tombstones", deleted, stats)

    def _compare(self, name: str, things: str, found: int, stats: Mapping[str, int]) -> None:
        expected = stats.get(name, 0)
        if expected != found:
            detail = f"it says {expected:,} {things}, the block contains {found:,}"
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
