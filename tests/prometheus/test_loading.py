"""Waiting for a Prometheus to let go of blocks: one that lists them, and one that counts them.

The real servers of the other tests count; only 3.6 and later list.
"""

import itertools
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

from prometheus_backup.prometheus.client import Access, PrometheusClient
from prometheus_backup.prometheus.loading import LoadResult, wait_until_dropped
from tests.support.repositories import StillClock
from tests.support.sources import FakePrometheus, Request

GONE, KEPT = "01ARYZ6S41TSV4RRFFQ69G5FAV", "01BX5ZZKBKACTAV9WEVGEMMVRZ"
BLOCKS = "/api/v1/status/tsdb/blocks"


class ChangingPrometheus(FakePrometheus):
    """Has other answers for one path each time that it is asked; the last one for ever."""

    def __init__(self, path: str, answers: Callable[[], Iterator[tuple[int, Any]]]) -> None:
        super().__init__({BLOCKS: (404, "404 page not found\n")})
        self._path = path
        self._next = answers()

    def answer(self, request: Request, upstream: str) -> tuple[int, str, bytes]:
        if request.path == self._path:
            self.answers[self._path] = next(self._next)
        return super().answer(request, upstream)


def wait(server: FakePrometheus, data_dir: Path, clock: StillClock) -> LoadResult:
    """Wait until GONE is let go of, for a minute at most."""
    with server, PrometheusClient(Access(url=server.url)) as client:
        return wait_until_dropped(
            client, data_dir, [GONE], clock=clock, patience=timedelta(minutes=1)
        )


def _then_for_ever(*answers: Any) -> Iterator[Any]:
    return itertools.chain(answers, itertools.repeat(answers[-1]))


def _listed(*ulids: str) -> tuple[int, Any]:
    return 200, {"blocks": [{"ulid": ulid} for ulid in ulids]}


def _counted(loaded: int, reloads: int) -> tuple[int, str]:
    return 200, f"prometheus_tsdb_blocks_loaded {loaded}\nprometheus_tsdb_reloads_total {reloads}\n"


def test_a_list_without_the_block_ends_the_waiting(tmp_path: Path) -> None:
    answers = [_listed(GONE, KEPT), _listed(GONE, KEPT), _listed(KEPT)]
    clock = StillClock()

    waited = wait(ChangingPrometheus(BLOCKS, lambda: _then_for_ever(*answers)), tmp_path, clock)

    assert (waited.loaded, len(clock.slept)) == (True, 2)


def test_what_is_never_let_go_of_is_told_after_a_while(tmp_path: Path) -> None:
    server = ChangingPrometheus(BLOCKS, lambda: _then_for_ever(_listed(GONE)))

    waited = wait(server, tmp_path, StillClock())

    assert (waited.loaded, waited.seconds) == (False, 60)
    assert GONE in waited.trouble


def test_a_count_must_be_taken_after_it_looked_again(data_dir: Path) -> None:
    there = len(list(data_dir.iterdir()))
    answers = [
        # Twice for each look: once for the number of looks, once for that of blocks.
        *[_counted(there, 7)] * 2,
        *[_counted(there + 1, 8)] * 2,
        *[_counted(there, 9)] * 2,
    ]
    clock = StillClock()

    waited = wait(ChangingPrometheus("/metrics", lambda: _then_for_ever(*answers)), data_dir, clock)

    assert (waited.loaded, len(clock.slept)) == (True, 2)
