"""The Prometheus that a drill starts: its address, its environment, its end."""

import os
import signal
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import psutil
import pytest

from devtools.fetch_prometheus import PrometheusBinaries
from prometheus_backup.folder import Folder
from prometheus_backup.prometheus.access import Access
from prometheus_backup.prometheus.client import PrometheusClient
from prometheus_backup.prometheus.process import LocalPrometheus, PrometheusBinary, deferred_signals
from prometheus_backup.prometheus.query_settings import QuerySettings, promql_features
from tests.support.waiting import wait_until


def answer(url: str) -> int:
    """The HTTP status of a response; 0 if there is none."""
    try:
        return httpx.get(url, trust_env=False).status_code
    except httpx.HTTPError:
        return 0


FIVE_MINUTES = QuerySettings(lookback=timedelta(minutes=5))


def start(
    binary: Path, data: Path, run: Path, queries: QuerySettings = FIVE_MINUTES
) -> LocalPrometheus:
    run.mkdir()
    return LocalPrometheus(
        PrometheusBinary.at(binary), str(data), run=Folder.hold(run), queries=queries
    )


def test_it_listens_on_loopback_with_a_random_prefix_without_admin_api_and_ends_at_once(
    prometheus_binaries: PrometheusBinaries, data_dir: Path, tmp_path: Path
) -> None:
    blocks = {p.name for p in data_dir.iterdir()}
    with start(prometheus_binaries.prometheus, data_dir, tmp_path / "run") as server:
        wait_until(lambda: answer(f"{server.url}/-/ready") == 200)

        (process,) = [p for p in psutil.Process().children() if str(data_dir) in str(p.cmdline())]
        listening = [c for c in process.net_connections() if c.status == psutil.CONN_LISTEN]
        assert {c.laddr.ip for c in listening} == {"127.0.0.1"}
        assert answer(f"{server.url.rpartition('/')[0]}/-/ready") == 404
        snapshot = httpx.post(f"{server.url}/api/v1/admin/tsdb/snapshot", trust_env=False)
        assert "admin APIs disabled" in snapshot.text
        assert blocks <= {p.name for p in data_dir.iterdir()}, "years old, and none was dropped"

    assert server.exit_code == -signal.SIGKILL
    assert not process.is_running()
    assert any("ready to receive web requests" in line for line in server.log())


def test_it_does_not_inherit_our_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "our secret")
    spy = tmp_path / "prometheus"
    spy.write_text(
        f"#!{sys.executable}\nimport os, sys\nprint('prometheus, version 3.0.0')\n"
        f"print(dict(os.environ))\n"
    )
    spy.chmod(0o755)

    with start(spy, tmp_path, tmp_path / "run") as server:
        wait_until(lambda: server.exit_code is not None)

    log = "\n".join(server.log())
    assert "PATH" in log
    assert "secret" not in log


class Stop(BaseException):
    """Raised by the command line on a stop signal."""


def test_signal_is_deferred_until_a_started_process_is_registered() -> None:
    def stop(*_: object) -> None:
        raise Stop

    noted = []

    def start_something() -> None:
        with deferred_signals():
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(0.01)
            noted.append("a process")

    before = signal.signal(signal.SIGTERM, stop)
    try:
        with pytest.raises(Stop):
            start_something()
        assert noted
        assert signal.getsignal(signal.SIGTERM) is stop
    finally:
        signal.signal(signal.SIGTERM, before)


@pytest.mark.parametrize(("interval", "steps"), [(None, "5"), (timedelta(seconds=15), "20")])
def test_subqueries_have_the_step_of_the_source(
    prometheus_3: PrometheusBinaries, tmp_path: Path, interval: timedelta | None, steps: str
) -> None:
    (data := tmp_path / "data").mkdir()
    queries = QuerySettings(timedelta(minutes=5), evaluation_interval=interval)
    with (
        start(prometheus_3.prometheus, data, tmp_path / "run", queries) as server,
        PrometheusClient(Access(server.url)) as client,
    ):
        wait_until(lambda: answer(f"{server.url}/-/ready") == 200)
        found = client.query(
            "count_over_time(vector(1)[5m:])",
            at=datetime(2025, 1, 22, tzinfo=UTC),
            limit=timedelta(minutes=1),
            max_bytes=10_000,
        )
    assert found["result"][0]["value"][1] == steps


def test_it_says_which_features_of_the_source_it_does_not_know(
    prometheus_binaries: PrometheusBinaries, tmp_path: Path
) -> None:
    (data := tmp_path / "data").mkdir()
    wanted = ("promql-delayed-name-removal", "use-start-timestamps")
    queries = QuerySettings(timedelta(minutes=5), features=wanted)
    with start(prometheus_binaries.prometheus, data, tmp_path / "run", queries) as server:
        wait_until(lambda: answer(f"{server.url}/-/ready") == 200)
        unknown = wanted if prometheus_binaries.major == 2 else ("use-start-timestamps",)
        assert server.unknown_features() == unknown


def test_only_features_that_change_answers_are_passed_on() -> None:
    source = (
        "auto-gomaxprocs",
        "promql-delayed-name-removal",
        "promql-new,agent",
        "type-and-unit-labels",
        "use-start-timestamps",
        "xor2-encoding",
    )
    wanted = ("promql-delayed-name-removal", "type-and-unit-labels", "use-start-timestamps")
    assert promql_features(source) == wanted
