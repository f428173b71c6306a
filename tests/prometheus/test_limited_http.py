"""Responses that are too long, compressed, too slow, or of another shape than Prometheus' own."""

import gzip
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from prometheus_backup.errors import SourceUnavailable
from prometheus_backup.metrics.push import ready
from prometheus_backup.prometheus.access import Access
from prometheus_backup.prometheus.client import PrometheusClient, QueryFailed
from prometheus_backup.prometheus.limited_http import MAX_BYTES, LimitedClient
from tests.support.endless_http import HEAD, endless
from tests.support.faulty_http import Answer, FaultyServer
from tests.support.sources import SNAPSHOT_PATH, FakePrometheus

MIB = 1 << 20
STATUS = "/api/v1/status/"


def failure(url: str) -> str:
    """The message of a status request that fails."""
    with PrometheusClient(Access(url)) as client, pytest.raises(SourceUnavailable) as caught:
        client.status()
    assert caught.value.hint
    return caught.value.message


def test_a_response_without_end_is_not_read_to_its_end() -> None:
    with endless(HEAD, b" " * MIB) as server:
        assert failure(server.url).endswith("the response is longer than 32 MiB")
        assert server.left.wait(60)
    assert server.sent < 3 * MAX_BYTES


def test_a_compressed_response_is_refused_before_it_is_unpacked() -> None:
    bomb = gzip.compress(bytes(100 * MIB))
    headers = {"Content-Encoding": "gzip", "Content-Type": "application/json"}
    with FaultyServer(otherwise=Answer(body=bomb, headers=headers)) as server:
        assert failure(server.url).endswith("is compressed, which was not asked for")
        assert server.requests[0].headers["accept-encoding"] == "identity"


@pytest.mark.parametrize(
    ("head", "part"),
    [
        (HEAD, b" "),
        (b"HTTP/1.1 200 OK\r\nX-Long: ", b"x"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\n \r\n"),
    ],
)
def test_a_response_that_comes_byte_by_byte_ends_at_the_deadline(head: bytes, part: bytes) -> None:
    with endless(head, part, pause=0.01) as server:
        with LimitedClient() as client, pytest.raises(httpx.ReadTimeout):
            client.request("GET", server.url, seconds=0.3)
        assert server.left.wait(60)


def test_the_body_of_a_snapshot_response_is_limited_although_waiting_for_it_is_not() -> None:
    with endless(HEAD, b" ", pause=0.01) as server, LimitedClient() as client:
        with pytest.raises(httpx.ReadTimeout):
            client.request("POST", server.url, seconds=0.3, wait=True)
        assert server.left.wait(60)


def test_a_slow_answer_to_a_query_ends_when_its_time_is_over() -> None:
    with (
        endless(HEAD, b" ", pause=0.01) as server,
        PrometheusClient(Access(server.url)) as client,
        pytest.raises(QueryFailed, match=r"no answer within 0\.1 s"),
    ):
        client.query("up", at=datetime.now(UTC), limit=timedelta(seconds=0.1), max_bytes=10_000_000)


def test_a_connection_is_used_again_after_its_deadline_has_passed() -> None:
    with FakePrometheus() as server, LimitedClient() as client:
        for _ in range(3):
            assert client.request("GET", f"{server.url}/-/ready", seconds=60).is_success


def test_a_pushgateway_that_sends_without_end_is_left() -> None:
    with (
        endless(HEAD, b" " * MIB) as server,
        pytest.raises(OSError, match="longer than 1 MiB"),
    ):
        ready(server.url)


@pytest.mark.parametrize(
    ("path", "data", "cause"),
    [
        ("buildinfo", {"version": 3}, "version is not a string"),
        ("buildinfo", ["3.14.0"], "did not respond like Prometheus"),
        ("flags", {"web.enable-admin-api": True}, "web.enable-admin-api is not a string"),
        ("flags", {"storage.tsdb.path": {}}, "storage.tsdb.path is not a string"),
        ("flags", {"storage.tsdb.block-reload-interval": 60}, "reload-interval is not a string"),
        ("runtimeinfo", {"storageRetention": ["15d"]}, "storageRetention is not a string"),
        ("runtimeinfo", {"CWD": 1, "hostname": None}, "CWD is not a string"),
        ("config", {"yaml": {"global": {}}}, "yaml is not a string"),
        ("tsdb", {"headStats": "none"}, "headStats is not an object"),
        ("tsdb", {"headStats": {"numSeries": "7"}}, "numSeries is not a number"),
        ("tsdb", {"headStats": {"numSeries": 7, "minTime": 1e300}}, "minTime is not a number"),
        ("tsdb", {"headStats": {"numSeries": 7, "minTime": 10**30}}, "minTime is not a number"),
    ],
)
def test_a_status_of_another_type_names_the_field(path: str, data: Any, cause: str) -> None:
    with FakePrometheus({STATUS + path: (200, data)}) as server:
        message = failure(server.url)
    assert f"{STATUS}{path}" in message
    assert cause in message


@pytest.mark.parametrize(
    "blocks",
    [
        "A",
        {"ulid": "A"},
        ["A"],
        [{"ulid": 1}],
        [{"compaction": []}],
        [{"compaction": {"sources": "A"}}],
        [{"compaction": {"parents": ["A"]}}],
    ],
)
def test_loaded_blocks_of_another_type_are_an_error(blocks: Any) -> None:
    answers = {"/api/v1/status/tsdb/blocks": (200, {"blocks": blocks})}
    with FakePrometheus(answers) as server, PrometheusClient(Access(server.url)) as client:
        for ask in (client.loaded_blocks, client.loaded_lineage):
            with pytest.raises(SourceUnavailable, match="tsdb/blocks"):
                ask()


@pytest.mark.parametrize("number", ["NaN", "+Inf", "1e999", "x"])
def test_a_metric_that_is_not_a_number_is_as_good_as_absent(number: str) -> None:
    answers = {"/metrics": (200, f"prometheus_tsdb_blocks_loaded {number}\n")}
    with FakePrometheus(answers) as server, PrometheusClient(Access(server.url)) as client:
        assert client.count_loaded_blocks() is None


@pytest.mark.parametrize("body", ["[" * 100_000, '{"data":' * 100_000, "9" * 100_000, "\ufeff{}"])
def test_json_that_cannot_be_parsed_is_not_prometheus(body: str) -> None:
    with FakePrometheus({f"{STATUS}flags": (200, body)}) as server:
        assert "did not respond like Prometheus" in failure(server.url)


def test_control_characters_do_not_reach_the_terminal_or_the_manifest() -> None:
    evil = "\x1b[2J\ud800\u202e"
    runtime = {"hostname": f"a{evil}", "startTime": evil, "storageRetention": f"15d{evil}"}
    yaml = f"storage:\n  tsdb:\n    out_of_order_time_window: 1h{evil}\n"
    answers = {
        f"{STATUS}runtimeinfo": (200, runtime),
        f"{STATUS}buildinfo": (200, {"version": f"3.14.0{evil}", "revision": evil}),
        f"{STATUS}config": (200, {"yaml": yaml}),
    }
    with FakePrometheus(answers) as server, PrometheusClient(Access(server.url)) as client:
        status = client.status()
    texts = (
        status.version,
        status.revision,
        status.start_time,
        status.hostname,
        status.retention,
        status.out_of_order,
    )
    assert all(text and text.isprintable() for text in texts)
    assert status.version == "3.14.0?[2J??"


@pytest.mark.parametrize("data", [["x"], "x", 5, {"name": "x" * 300}, {"name": {}}, {"name": ""}])
def test_a_snapshot_response_of_another_type_has_no_name(data: Any) -> None:
    answer = {"status": "success", "data": data}
    with (
        FakePrometheus({SNAPSHOT_PATH: (200, json.dumps(answer))}) as server,
        PrometheusClient(Access(server.url)) as client,
        pytest.raises(SourceUnavailable, match="returned no snapshot name"),
    ):
        client.take_snapshot(skip_head=True)


@pytest.mark.parametrize("date", ["", "yesterday", "Fri, 31 Dec 9999 23:59:59 -2359"])
def test_a_date_that_cannot_be_read_is_an_error(date: str) -> None:
    answer = Answer(body=b'{"data": {}}', headers={"Date": date})
    with FaultyServer(otherwise=answer) as server:
        assert "no valid Date header" in failure(server.url)
