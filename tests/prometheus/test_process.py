"""The Prometheus that a drill starts: its address, its environment, its end."""

import os
import signal
import sys
import time
from datetime import timedelta
from pathlib import Path

import httpx
import psutil
import pytest

from devtools.fetch_prometheus import PrometheusBinaries
from prometheus_backup.folder import Folder
from prometheus_backup.prometheus.process import LocalPrometheus, PrometheusBinary, deferred_signals
from tests.support.waiting import wait_until


def answer(url: str) -> int:
    """The HTTP status of a response; 0 if there is none."""
    try:
        return httpx.get(url, trust_env=False).status_code
    except httpx.HTTPError:
        return 0


def start(binary: Path, data: Path, run: Path) -> LocalPrometheus:
    run.mkdir()
    return LocalPrometheus(
        PrometheusBinary.at(binary), str(data), run=Folder.hold(run), lookback=timedelta(minutes=5)
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
