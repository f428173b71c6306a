"""Ports and processes."""

import socket
import time
from pathlib import Path

import pytest

from devtools.processes import (
    PortTakenError,
    Process,
    ProcessFailedError,
    clean_environment,
    free_ports,
    with_free_ports,
)


def _sleeper(directory: Path, *command: str) -> Process:
    return Process(
        "sleeper",
        command or ("sleep", "600"),
        log=directory / "log",
        environment=clean_environment(directory / "home"),
    )


def test_free_ports_differ_and_can_be_bound() -> None:
    ports = free_ports(10)
    assert len(set(ports)) == 10
    for port in ports:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", port))


def test_taken_port_is_replaced_by_another() -> None:
    tried: list[int] = []

    def start(ports: list[int]) -> int:
        tried.extend(ports)
        if len(tried) < 3:
            raise PortTakenError
        return ports[0]

    assert with_free_ports(1, start) == tried[-1]
    assert len(tried) == 3


def test_process_that_does_not_listen_is_killed(tmp_path: Path) -> None:
    process = _sleeper(tmp_path)
    with pytest.raises(PortTakenError):
        process.check_listens(free_ports(1)[0])
    assert not process.running


def test_paused_process_can_be_stopped(tmp_path: Path) -> None:
    with _sleeper(tmp_path) as process:
        process.pause()
        before = time.monotonic()
        process.stop()
        assert time.monotonic() - before < 5
    assert process.exit_code == -15


def test_early_end_and_timeout_quote_the_log(tmp_path: Path) -> None:
    early = _sleeper(tmp_path, "sh", "-c", "echo some last words; exit 7")
    with pytest.raises(ProcessFailedError, match=r"(?s)ended with 7 .*some last words"):
        early.wait_until(lambda: False)
    late = _sleeper(tmp_path)
    with pytest.raises(ProcessFailedError, match="timed out after 0 s"):
        late.wait_until(lambda: False, deadline=0.1)
    assert not late.running
