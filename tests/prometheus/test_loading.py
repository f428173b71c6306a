"""Waiting until Prometheus has dropped blocks, with one that lists them and one that counts them.

Prometheus 3.6 and later list them; the real servers of the other tests only count them.
"""

import itertools
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

from prometheus_backup.prometheus.access import Access
from prometheus_backup.prometheus.client import PrometheusClient
from prometheus_backup.prometheus.loading import LoadResult, wait_until_dropped
from tests.support.repositories import ManualClock
from tests.support.sources import FakePrometheus, Request

GONE, KEPT = "01ARYZ6S41TSV4RRFFQ69G5FAV", "01BX5ZZKBKACTAV9WEVGEMMVRZ"
BLOCKS = "/api/v1/status/tsdb/blocks"


class ChangingPrometheus(FakePrometheus):
    """Returns successive responses for one path; repeats the last one forever."""

    def __init__(self, path: str, answers: Callable[[], Iterator[tuple[int, Any]]]) -> None:
        super().__init__({BLOCKS: (404, "404 page not found\n")})
        self._path = path
        self._next = answers()

    def answer(self, request: Request, upstream: str) -> tuple[int, str, bytes]:
        if request.path == self._path:
            self.answers[self._path] = next(self._next)
        return super().answer(request, upstream)


def wait(server: FakePrometheus, data_dir: Path, clock: ManualClock) -> LoadResult:
    """Wait until GONE is dropped, for at most a minute."""
    with server, PrometheusClient(Access(url=server.url)) as client:
        return wait_until_dropped(
            client, data_dir, [GONE], clock=clock, timeout=timedelta(minutes=1)
        )


def _then_for_ever(*answers: Any) -> Iterator[Any]:
    return itertools.chain(answers, itertools.repeat(answers[-1]))


def _listed(*ulids: str) -> tuple[int, Any]:
    return 200, {"blocks": [{"ulid": ulid} for ulid in ulids]}


def _counted(loaded: int, reloads: int) -> tuple[int, str]:
    return 200, f"prometheus_tsdb_blocks_loaded {loaded}\nprometheus_tsdb_reloads_total {reloads}\n"


def test_waiting_ends_when_the_block_is_no_longer_listed(tmp_path: Path) -> None:
    answers = [_listed(GONE, KEPT), _listed(GONE, KEPT), _listed(KEPT)]
    clock = ManualClock()

    waited = wait(ChangingPrometheus(BLOCKS, lambda: _then_for_ever(*answers)), tmp_path, clock)

    assert (waited.done, len(clock.slept)) == (True, 2)


def test_a_block_that_is_never_dropped_is_reported_after_the_timeout(tmp_path: Path) -> None:
    server = ChangingPrometheus(BLOCKS, lambda: _then_for_ever(_listed(GONE)))

    waited = wait(server, tmp_path, ManualClock())

    assert (waited.done, waited.seconds) == (False, 60)
    assert GONE in waited.problem


def test_a_count_is_used_only_after_another_reload(data_dir: Path) -> None:
    there = len(list(data_dir.iterdir()))
    answers = [
        # Two requests for each check: for the number of reloads, and for that of blocks.
        *[_counted(there, 7)] * 2,
        *[_counted(there + 1, 8)] * 2,
        *[_counted(there, 9)] * 2,
    ]
    clock = ManualClock()

    waited = wait(ChangingPrometheus("/metrics", lambda: _then_for_ever(*answers)), data_dir, clock)

    assert (waited.done, len(clock.slept)) == (True, 2)
