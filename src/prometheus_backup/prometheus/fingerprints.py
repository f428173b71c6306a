"""Run the fingerprint queries on a source, before its snapshot and again after it.

An answer that is the same both times is taken to match the snapshot. A query that fails does not
fail the backup: it is reported, and recorded as inconclusive.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from prometheus_backup.clock import Clock
from prometheus_backup.errors import BackupToolError
from prometheus_backup.events import FingerprintsTaken, Listener, Warned
from prometheus_backup.model import instant_from_ms
from prometheus_backup.prometheus.answers import differences
from prometheus_backup.prometheus.client import PrometheusClient
from prometheus_backup.prometheus.query_time import QueryTimeInputs, safe_query_time
from prometheus_backup.repository.fingerprint import MAX_ANSWER_SIZE, Fingerprint, read_answer
from prometheus_backup.tsdb.block import persisted_until_ms

DEFAULT_QUERIES = (
    "count by (job) (up)",
    "sum by (job) (scrape_samples_scraped)",
    "sum by (job) (count_over_time(up[1h]))",
)
"""Cheap on any Prometheus that scrapes; they detect lost series, lost samples and wrong sources."""

QUERY_LIMIT = timedelta(seconds=10)
_TOTAL_LIMIT = timedelta(minutes=1)
"""For all queries together, so that a slow Prometheus does not delay its backup much."""
MAX_RESPONSE_SIZE = 8 * MAX_ANSWER_SIZE
"""Bytes of a response, which is more verbose than the recorded answer."""
_MAX_CAUSE = 500  # characters of Prometheus' error message that are recorded


@dataclass(frozen=True, slots=True)
class FingerprintQueries:
    """The fingerprint queries of one backup."""

    client: PrometheusClient
    queries: tuple[str, ...]
    clock: Clock
    listener: Listener

    def run(self, data_dir: Path, *, skip_head: bool) -> tuple[Fingerprint, ...]:
        """Choose the instant and run the queries, before the snapshot."""
        if not self.queries:
            return ()
        try:
            at = self._instant(data_dir, skip_head=skip_head)
            cause = "no block is on disk yet, and samples in memory may not be in the snapshot"
        except BackupToolError as error:
            at, cause = None, error.message
        if at is None:
            return tuple(_inconclusive(q, None, cause) for q in self.queries)
        return tuple(self._run_all([(q, at) for q in self.queries]))

    def confirm(self, first: tuple[Fingerprint, ...]) -> tuple[Fingerprint, ...]:
        """Run the queries again, after the snapshot; return and report what to record."""
        answered = [(f.query, f.at) for f in first if f.answer is not None and f.at is not None]
        second = {f.query: f for f in self._run_all(answered)}
        confirmed = tuple(_confirmed(f, second.get(f.query)) for f in first)
        for fingerprint in confirmed:
            if fingerprint.inconclusive:
                self.listener(
                    Warned(
                        f"fingerprint {fingerprint.query!r} is inconclusive: "
                        f"{fingerprint.inconclusive}",
                        "the backup is complete, but a drill cannot check this query",
                    )
                )
        if confirmed:
            self.listener(_summary(confirmed))
        return confirmed

    def _instant(self, data_dir: Path, *, skip_head: bool) -> datetime | None:
        status = self.client.status()
        return safe_query_time(
            QueryTimeInputs(
                clock=status.clock,
                skip_head=skip_head,
                out_of_order=status.out_of_order,
                persisted_until=_persisted_until(data_dir),
                head_from=status.head_from,
            )
        )

    def _run_all(self, queries: list[tuple[str, datetime]]) -> Iterator[Fingerprint]:
        began = self.clock.monotonic()
        for query, at in queries:
            left = _TOTAL_LIMIT - timedelta(seconds=self.clock.monotonic() - began)
            if left <= timedelta():
                seconds = f"{_TOTAL_LIMIT.total_seconds():.0f}"
                yield _inconclusive(query, at, f"not run: the queries together took {seconds} s")
            else:
                yield self._run(query, at, min(left, QUERY_LIMIT))

    def _run(self, query: str, at: datetime, limit: timedelta) -> Fingerprint:
        try:
            data = self.client.query(query, at=at, limit=limit, max_bytes=MAX_RESPONSE_SIZE)
            return Fingerprint(query=query, at=at, answer=read_answer(data))
        except BackupToolError as error:
            return _inconclusive(query, at, error.message)
        except ValueError as error:
            return _inconclusive(query, at, str(error))


def _summary(fingerprints: tuple[Fingerprint, ...]) -> FingerprintsTaken:
    answers = [f.answer for f in fingerprints if f.answer is not None]
    return FingerprintsTaken(
        at=next((f.at for f in fingerprints if f.at is not None), None),
        answered=len(answers),
        inconclusive=len(fingerprints) - len(answers),
        series=sum(len(a.series) for a in answers),
    )


def _confirmed(first: Fingerprint, second: Fingerprint | None) -> Fingerprint:
    if second is None or second.answer is None or first.answer is None:
        return second or first
    if differences(first.answer, second.answer):
        cause = "the answer changed while the snapshot was taken"
        return _inconclusive(first.query, first.at, cause)
    return first


def _inconclusive(query: str, at: datetime | None, cause: str) -> Fingerprint:
    printable = "".join(c if c.isprintable() else "?" for c in cause[:_MAX_CAUSE])
    return Fingerprint(query=query, at=at, inconclusive=printable or "unknown")


def _persisted_until(data_dir: Path) -> datetime | None:
    end = persisted_until_ms(data_dir)
    return None if end is None else instant_from_ms(end)
